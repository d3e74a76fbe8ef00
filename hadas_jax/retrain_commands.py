"""The command `hadas dnas retrain` as a library call."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from hadas_jax.commands import default_workdir, followed, running, settings_of_run
from hadas_jax.methods.retrain import RetrainRun
from hadas_jax.methods.retrain_result import RetrainResult
from hadas_jax.methods.retrain_settings import RetrainSettings
from hadas_jax.outputs import new_console, say
from hadas_jax.parallel import is_first
from hadas_jax.report import plot_genotype
from hadas_jax.workdir import WorkDir


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
      settings: of the run; None: the defaults, or when resuming those that the run was started with.
      workdir: of the run; None: a new one, runs/<time>-<dataset>-dnas-retrain.
      resume: continue the run in `workdir`; a finished one is only judged again.
      overwrite: replace the run in `workdir`.
      tensorboard: write metrics into tensorboard/ too; needs the extra `tensorboard`.
      console: for progress and the table; None: standard output.

    Returns:
      The network with its accuracies. The work directory then holds derived/ (for `load_derived`), result.json,
      genotype.png, config.json, metrics.jsonl and checkpoints/.

    Raises:
      ValueError: settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    settings = settings_of_run(settings, RetrainSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = RetrainRun(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.dataset, "dnas-retrain")
    place = WorkDir(path, kind="dnas-retrain", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        result = followed(run.execute, place, console, splits=run.splits)
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
