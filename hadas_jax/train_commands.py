"""The commands that train supernets and prepare data, as library calls."""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hadas_jax.commands import default_workdir, followed, running, settings_of_run
from hadas_jax.data import prepare_dataset
from hadas_jax.methods import TrainSettings
from hadas_jax.methods.train import TrainResult, execute_training, training_run
from hadas_jax.outputs import new_console, say
from hadas_jax.parallel import is_first
from hadas_jax.report import plot_exits
from hadas_jax.workdir import WorkDir


def train(
    settings: TrainSettings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> TrainResult:
    """Trains a supernet and its exit heads, from the start or from a trained supernet.

    Args:
      settings: of the run; None: the defaults, or when resuming those that the run was started with.
      workdir: of the run; None: a new one, runs/<time>-<dataset>-train.
      resume: continue the run in `workdir`; a finished one is only judged again.
      overwrite: replace the run in `workdir`.
      tensorboard: write metrics into tensorboard/ too; needs the extra `tensorboard`.
      console: for progress and the table; None: standard output.

    Returns:
      The supernet with its accuracies. The work directory then holds supernet/ (for `--checkpoint`), exits.csv,
      exits.png, config.json, metrics.jsonl and checkpoints/.

    Raises:
      ValueError: settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    settings = settings_of_run(settings, TrainSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = training_run(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.dataset, "train")
    place = WorkDir(path, kind="train", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite, reads=settings.checkpoint):
        result = followed(partial(execute_training, run), place, console, splits=run.splits)
        if is_first():
            plot_exits(result.accuracies, place.path / "exits.png")
    console.print(accuracy_table(result))
    say(console, f"Written: {place.path}/supernet (for --checkpoint), exits.csv, exits.png")
    return result


def accuracy_table(result: TrainResult) -> Table:
    """Returns the test accuracies of a training as a table, the first and the last exits of each backbone."""
    table = Table(title="Test accuracy")
    for heading in ("backbone", "blocks", "first exit", "middle exit", "last exit", "classifier"):
        table.add_column(heading, justify="left" if heading == "backbone" else "right")
    for each in result.accuracies:
        shares = each.exits
        shown = [f"{100 * shares[i]:.2f} %" for i in (0, len(shares) // 2, -1)] if shares else ["-"] * 3
        blocks = f"{each.blocks[-1] + 1}" if each.blocks else "-"
        table.add_row(each.backbone, blocks, *shown, f"{100 * each.final:.2f} %")
    return table


def prepare(name: str, *, data_dir: Path | str | None = None, console: Console | None = None) -> Path:
    """Prepares an image set of tensorflow-datasets once, which downloads it and needs TensorFlow.

    Args:
      name: as `hadas_jax.data.prepare_dataset` takes.
      data_dir: where to; None: tensorflow-datasets' own place.
      console: for the closing line; None: standard output.

    Returns:
      The folder of the prepared set.

    Raises:
      ValueError: as `hadas_jax.data.prepare_dataset`.
    """
    found = prepare_dataset(name, data_dir)
    say(console or new_console(), f"Prepared: {found}")
    return found
