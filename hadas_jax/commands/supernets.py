"""The commands that train supernets and prepare data, as library calls.

The command that imports PyTorch checkpoints, as a library call.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.backend import is_first
from hadas_jax.commands.hadas import default_workdir, run_with_progress, running, settings_of_run
from hadas_jax.data import IMAGENET_NORMALISATION, prepare_dataset
from hadas_jax.report import plot_exits
from hadas_jax.report.console import new_console, say
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import TrainSettings
from hadas_jax.spaces import Backbone, MBConvSpace, load_space
from hadas_jax.supernet.checkpoint import SupernetCheckpoint, require_free, save_supernet
from hadas_jax.supernet.pytorch import Imported, from_pytorch
from hadas_jax.supernet.pytorch_files import read_tensors
from hadas_jax.training.run import TrainingRun, TrainResult, execute_training

# Means and deviations of ImageNet's training images, red, green, blue, by which the original standardises.
NORMALISATIONS = {"imagenet": IMAGENET_NORMALISATION, "none": None}
_SHOWN = 10  # surplus names that are printed


def import_checkpoint(
    file: Path | str,
    output: Path | str,
    *,
    classes: int | None = None,
    space: str | MBConvSpace = "attentivenas",
    exits: Path | str | None = None,
    exits_of: str | Backbone | np.ndarray | jax.Array | None = None,
    exit_blocks: Sequence[int] | None = None,
    entry: str | None = None,
    normalisation: str = "imagenet",
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> SupernetCheckpoint:
    """Imports a supernet of AttentiveNAS, AlphaNet or HADAS from PyTorch and writes it for `--checkpoint`.

    Args:
        file: Checkpoint, see `hadas_jax.supernet.pytorch.read_tensors`; an npz file of its arrays will do.
        output: Directory to write, see `hadas_jax.supernet.checkpoint`.
        classes: Another number than the checkpoint's gives a fresh classifier; None: the checkpoint's.
        space: Of the supernet, a name or a space.
        exits: Another checkpoint that the exit heads come from; None: `file`.
        exits_of: The backbone that the exit heads belong to, a published name (a0 .. a6), a backbone or a genome
            int32[G]; None: exit heads are not imported.
        exit_blocks: The backbone's own blocks that the exits follow, counted from 0; None: every block that may have
            one.
        entry: Which of several state dicts in `file` the weights come from, e.g. `model_ema`.
        normalisation: How the images of its training were standardised: `imagenet`, or `none` where that is unknown.
        seed: Of what is drawn anew.
        overwrite: Replace the supernet in `output`.
        console: For the report; None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: Files, directory or settings do not fit; nothing is written then.
    """
    file, output, console = Path(file), Path(output), console or new_console()
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"--normalisation: expected {' or '.join(NORMALISATIONS)}, got {normalisation!r}")
    if exits is not None and exits_of is None:
        raise ValueError("--exits: expected --exits-of with the backbone that they belong to, got none")
    require_free(output, overwrite=overwrite)
    space = load_space(space) if isinstance(space, str) else space
    sources = {"checkpoint": file} | ({} if exits is None else {"exits": Path(exits)})
    arrays, others = read_tensors(file), None if exits is None else read_tensors(exits)
    imported = from_pytorch(
        space,
        arrays,
        key=jax.random.key(seed),
        classes=classes,
        exits=others,
        exits_of=exits_of,
        exit_blocks=exit_blocks,
        entry=entry,
    )
    trained = SupernetCheckpoint(
        space=imported.space,
        params=imported.params,
        trained_exits=imported.trained_exits,
        has_classifier=imported.has_classifier,
        exits_of=exits_of if exits_of is None or isinstance(exits_of, str) else "a backbone",
        normalisation=NORMALISATIONS[normalisation],
        source=f"PyTorch checkpoint {file.name}" + ("" if exits is None else f", exits of {Path(exits).name}"),
        details={
            "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources.items()},
            "entries": {"used": imported.used, "unused": imported.unused, "surplus": imported.surplus},
            "fresh": imported.fresh,
            "notes": imported.notes,
        },
    )
    save_supernet(output, trained, overwrite=overwrite)
    for line in _report(imported, file=file, output=output):
        say(console, line)
    return trained


def _report(imported: Imported, *, file: Path, output: Path) -> list[str]:
    space, surplus, exits = imported.space, imported.surplus, imported.trained_exits
    entries = imported.used + imported.unused + len(surplus)
    lines = [
        f"Read: {file}, {entries:,} entries; {imported.used:,} used, {imported.unused:,} known to have no use",
        f"Supernet: space {space.name}, {space.classes:,} classes, {space.count:.3g} backbones",
    ]
    if exits:
        lines.append(f"Exit heads: {len(exits)} of {space.num_exits}, after positions {', '.join(map(str, exits))}")
    if surplus:
        more = f" and {len(surplus) - _SHOWN:,} more" if len(surplus) > _SHOWN else ""
        lines.append(f"Surplus, left: {', '.join(surplus[:_SHOWN])}{more}")
    lines += [f"Fresh, to be trained: {part}" for part in imported.fresh]
    lines += [f"Note: {note}" for note in imported.notes]
    return [*lines, f"Written: {output}"]


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
        settings: Of the run; None: the defaults, or when resuming those that the run was started with.
        workdir: Of the run; None: a new one, runs/<time>-<dataset>-train.
        resume: Continue the run in `workdir`; a finished one is only judged again.
        overwrite: Replace the run in `workdir`.
        tensorboard: Write metrics into tensorboard/ too; needs the extra `tensorboard`.
        console: For progress and the table; None: standard output.

    Returns:
        The supernet with its accuracies. The work directory then holds supernet/ (for `--checkpoint`), exits.csv,
        exits.png, config.json, metrics.jsonl and checkpoints/.

    Raises:
        ValueError: Settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    settings = settings_of_run(settings, TrainSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = TrainingRun(settings, exits_for=settings.exits_for)
    path = Path(workdir) if workdir is not None else default_workdir(settings.data.dataset, "train")
    place = WorkDir(path, kind="train", tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite, reads=settings.supernet.checkpoint):
        result = run_with_progress(partial(execute_training, run), place, console, splits=run.splits)
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
        name: As `hadas_jax.data.prepare_dataset` takes.
        data_dir: Where to; None: tensorflow-datasets' own place.
        console: For the closing line; None: standard output.

    Returns:
        The folder of the prepared set.

    Raises:
        ValueError: As `hadas_jax.data.prepare_dataset`.
    """
    found = prepare_dataset(name, data_dir)
    say(console or new_console(), f"Prepared: {found}")
    return found
