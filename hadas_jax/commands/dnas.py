"""The command `hadas dnas search` as a library call.

The command `hadas dnas retrain` as a library call.
"""

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.backend import is_first
from hadas_jax.commands.hadas import default_workdir, run_with_progress, running, settings_of_run
from hadas_jax.methods.eh_dnas import DnasResult, DnasRun, DnasSettings
from hadas_jax.methods.eh_dnas.retrain import RetrainResult, RetrainRun, RetrainSettings
from hadas_jax.report import plot_genotype
from hadas_jax.report.console import new_console, say
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.spaces.darts import format_code
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
    path = Path(workdir) if workdir is not None else default_workdir(settings.dataset, f"dnas-{settings.hardware}")
    place = WorkDir(path, kind="dnas-search", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        result = run_with_progress(run.execute, place, console, splits=run.splits)
        if is_first():
            plot_genotype(genotype_of(result.code), place.path / "genotype.png")
    console.print(cost_table(result))
    for line in _closing_lines(result, place.path):
        say(console, line)
    return result


def cost_table(result: DnasResult) -> Table:
    """Returns what the network of a search costs, beside its budgets."""
    table = Table(title=f"{format_code(result.code)} on the {result.hardware}")
    for heading in ("images/s", "ms per image", "mJ per image", "clocks (MHz)", "budgets"):
        table.add_column(heading, justify="right")
    costs = result.costs
    table.add_row(
        f"{1 / float(costs.image_s):,.1f}",
        f"{1e3 * float(costs.image_s):.4g}",
        "-" if costs.energy_j is None else f"{1e3 * float(costs.energy_j):.4g}",
        "-" if result.clocks_mhz is None else " ".join(f"{clock:.5g}" for clock in result.clocks_mhz),
        "-" if not result.constraints else "kept" if result.is_within else "not kept",
    )
    return table


def _closing_lines(result: DnasResult, path: Path) -> list[str]:
    lines = []
    if not result.is_within:
        bounds = " and ".join(
            f"{constraint.metric} {_UNITS[constraint.metric][1] * constraint.bound:.4g} {_UNITS[constraint.metric][0]}"
            for constraint in result.constraints
        )
        lines.append(f"No network near alpha keeps {bounds}; this is the nearest one found.")
    elif np.any(result.code != result.plain_code):
        nodes = int(np.sum(result.code != result.plain_code))
        lines.append(f"To keep the budgets, {nodes} of 28 edges differ from what alpha alone stands for.")
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
    path = Path(workdir) if workdir is not None else default_workdir(settings.dataset, "dnas-retrain")
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
    table = Table(title=result.trained.code)
    for heading in ("validation", "test", "parameters", "MMACs"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{100 * result.validation_accuracy:.2f} %",
        f"{100 * result.test_accuracy:.2f} %",
        f"{result.parameters:,}",
        f"{result.macs / 1e6:,.2f}",
    )
    return table
