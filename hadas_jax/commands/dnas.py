"""The command `hadas dnas search` as a library call.

The command `hadas dnas retrain` as a library call.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hadas_jax.backend import is_first
from hadas_jax.commands.hadas import default_workdir, run_with_progress, running, settings_of_run
from hadas_jax.methods.eh_dnas import DnasResult, DnasRun
from hadas_jax.methods.eh_dnas.hardware import Budget, budgets_of
from hadas_jax.methods.eh_dnas.retrain import RetrainResult, RetrainRun
from hadas_jax.report import plot_genotype
from hadas_jax.report.console import new_console, say
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import DnasSettings, RetrainSettings
from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.genotypes import genotype_of

_UNITS = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}


def search(
    settings: DnasSettings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> DnasResult:
    """Runs EH-DNAS: fits a predictor where one is needed, searches an architecture by gradient, derives a network.

    Args:
        settings: Of the run; None: the defaults, or when resuming those that the run was started with.
        workdir: Of the run; None: a new one, runs/<time>-<dataset>-dnas-<hardware>.
        resume: Continue the run in `workdir`; a finished one only reports again.
        overwrite: Replace the run in `workdir`.
        tensorboard: Write metrics into tensorboard/ too; needs the extra `tensorboard`.
        console: For progress and the table; None: standard output.

    Returns:
        The network found. The work directory then holds genotype.json (for hadas dnas retrain), genotype.png,
        config.json, metrics.jsonl, checkpoints/ and, where one was fitted, predictor.npz.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.
    """
    settings = settings_of_run(settings, DnasSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = DnasRun(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.data.dataset, f"dnas-{settings.hardware}")
    place = WorkDir(path, kind="dnas-search", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        result = run_with_progress(run.execute, place, console, splits=run.splits)
        if is_first():
            plot_genotype(genotype_of(parse_code(result.code)), place.path / "genotype.png")
    budgets = budgets_of(settings.loss)
    console.print(cost_table(result, budgets))
    for line in _closing_lines(result, budgets, place.path):
        say(console, line)
    return result


def cost_table(result: DnasResult, budgets: Sequence[Budget]) -> Table:
    """Returns what the network of a search costs, and whether it keeps its budgets."""
    table = Table(title=f"{result.code} on the {result.hardware}")
    for heading in ("images/s", "ms per image", "mJ per image", "clocks (MHz)", "budgets"):
        table.add_column(heading, justify="right")
    fits = result.images_per_s > 0
    table.add_row(
        f"{result.images_per_s:,.1f}",
        f"{1e3 / result.images_per_s:.4g}" if fits else "inf",
        "-" if result.energy_mj is None else f"{result.energy_mj:.4g}",
        "-" if result.clocks_mhz is None else " ".join(f"{clock:.5g}" for clock in result.clocks_mhz),
        "-" if not budgets else "kept" if result.within_budgets else "not kept",
    )
    return table


def _closing_lines(result: DnasResult, budgets: Sequence[Budget], path: Path) -> list[str]:
    lines = []
    changed = sum(a != b for a, b in zip(result.code, result.code_without_budgets, strict=True))
    if not result.within_budgets:
        bounds = " and ".join(
            f"{budget.metric} {_UNITS[budget.metric][1] * budget.bound:.4g} {_UNITS[budget.metric][0]}"
            for budget in budgets
        )
        lines.append(f"No network near alpha keeps {bounds}; this is the nearest one found.")
    elif changed:
        lines.append(f"To keep the budgets, {changed} of 28 edges differ from what alpha alone stands for.")
    lines.append(f"Written: {path}/genotype.json (for hadas dnas retrain --genotype), genotype.png")
    return lines


def retrain(
    settings: RetrainSettings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> RetrainResult:
    """Trains the network of a genotype from scratch and judges it.

    Args:
        settings: Of the run; None: the defaults, or when resuming those that the run was started with.
        workdir: Of the run; None: a new one, runs/<time>-<dataset>-dnas-retrain.
        resume: Continue the run in `workdir`; a finished one is only judged again.
        overwrite: Replace the run in `workdir`.
        tensorboard: Write metrics into tensorboard/ too; needs the extra `tensorboard`.
        console: For progress and the table; None: standard output.

    Returns:
        The network with its accuracies. The work directory then holds derived/ (for `load_derived`), result.json,
        genotype.png, config.json, metrics.jsonl and checkpoints/.

    Raises:
        ValueError: Settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    settings = settings_of_run(settings, RetrainSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = RetrainRun(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.data.dataset, "dnas-retrain")
    place = WorkDir(path, kind="dnas-retrain", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        result = run_with_progress(run.execute, place, console, splits=run.splits)
        if is_first():
            plot_genotype(run.genotype, place.path / "genotype.png")
    console.print(retrained_table(result))
    say(console, f"Written: {place.path}/derived, result.json, genotype.png")
    return result


def retrained_table(result: RetrainResult) -> Table:
    """Returns accuracy and size of a retrained network as a table."""
    table = Table(title=result.code)
    for heading in ("validation", "test", "parameters", "MMACs"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{100 * result.validation_accuracy:.2f} %",
        f"{100 * result.test_accuracy:.2f} %",
        f"{result.parameters:,}",
        f"{result.macs / 1e6:,.2f}",
    )
    return table
