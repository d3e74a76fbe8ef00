"""The commands that search and retrain networks of the DARTS space (EH-DNAS).

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rich.console import Console

from hadas_jax.commands.run import RunArguments, run_command
from hadas_jax.report.console import print_line
from hadas_jax.settings import DnasSettings, RetrainSettings

if TYPE_CHECKING:
    from hadas_jax.methods.eh_dnas import DnasResult, DnasRun
    from hadas_jax.methods.eh_dnas.hardware import Constraint
    from hadas_jax.methods.eh_dnas.retrain import RetrainResult, RetrainRun

_UNITS = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}


def search(
    settings: DnasSettings | None = None,
    **run: Unpack[RunArguments],
) -> DnasResult:
    """Searches a network of the DARTS space by gradient, with a model of its hardware in the loss (EH-DNAS).

    Writes genotype.json (for hadas dnas retrain), genotype.png, config.json, metrics.jsonl, checkpoints/ and, where
    one was fitted, predictor.npz into the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        **run: See `RunArguments`.

    Returns:
        The network found.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.
    """
    from hadas_jax.methods.eh_dnas import DnasRun
    from hadas_jax.methods.eh_dnas.hardware import Objective
    from hadas_jax.report.darts import cost_table, plot_genotype
    from hadas_jax.spaces.darts import parse_code
    from hadas_jax.spaces.genotypes import Genotype

    def finish(started: DnasRun, result: DnasResult, path: Path, console: Console) -> None:
        plot_genotype(Genotype.of(parse_code(result.code)), path / "genotype.png")
        budgets = Objective(started.settings.loss).constraints
        console.print(cost_table(result, has_budgets=bool(budgets)))
        for line in _closing_lines(result, budgets):
            print_line(console, line)
        print_line(console, f"Written: {path}/genotype.json (for hadas dnas retrain --genotype), genotype.png")

    return run_command(
        DnasSettings,
        DnasRun,
        settings,
        execute=DnasRun.execute,
        name=lambda started: (started.settings.data.dataset, f"dnas-{started.settings.hardware}"),
        finish=finish,
        **run,
    )


def _closing_lines(result: DnasResult, budgets: Sequence[Constraint]) -> Iterator[str]:
    changed = sum(a != b for a, b in zip(result.code, result.code_without_budgets, strict=True))
    if not result.within_budgets:
        bounds = " and ".join(
            f"{budget.metric} {_UNITS[budget.metric][1] * budget.bound:.4g} {_UNITS[budget.metric][0]}"
            for budget in budgets
        )
        yield f"No network near alpha keeps {bounds}; this is the nearest one found."
    elif changed:
        yield f"To keep the budgets, {changed} of 28 edges differ from what alpha alone stands for."


def retrain(
    settings: RetrainSettings | None = None,
    **run: Unpack[RunArguments],
) -> RetrainResult:
    """Trains the network of a genotype from scratch and evaluates it, as DARTS retrains what a search found.

    Writes derived/ (the trained network), result.json, genotype.png, config.json, metrics.jsonl and checkpoints/ into
    the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        **run: See `RunArguments`.

    Returns:
        The network with its accuracies.

    Raises:
        ValueError: Settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    from hadas_jax.methods.eh_dnas.retrain import RetrainRun
    from hadas_jax.report.darts import plot_genotype, retrained_table

    def finish(started: RetrainRun, result: RetrainResult, path: Path, console: Console) -> None:
        plot_genotype(started.genotype, path / "genotype.png")
        console.print(retrained_table(result))
        print_line(console, f"Written: {path}/derived, result.json, genotype.png")

    return run_command(
        RetrainSettings,
        RetrainRun,
        settings,
        execute=RetrainRun.execute,
        name=lambda started: (started.settings.data.dataset, "dnas-retrain"),
        finish=finish,
        **run,
    )
