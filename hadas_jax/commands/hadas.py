"""The commands of HADAS up to a front: prepare data, train or import a supernet, search.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from rich.console import Console

from hadas_jax.commands.run import ALONE, Processes, RunArguments, run_command
from hadas_jax.report.console import new_console, print_line
from hadas_jax.settings import SearchSettings, TrainSettings

if TYPE_CHECKING:
    from jax import Array
    from numpy import ndarray

    from hadas_jax.methods import Result, Run, TrainingRun
    from hadas_jax.spaces import Backbone, MBConvSpace
    from hadas_jax.supernet.checkpoint import SupernetCheckpoint
    from hadas_jax.supernet.pytorch import Imported
    from hadas_jax.training.run import TrainResult

_SHOWN = 10  # surplus names that are printed


def search(
    settings: SearchSettings | None = None,
    *,
    processes: Processes = ALONE,
    **run: Unpack[RunArguments],
) -> Result:
    """Searches dynamic networks with HADAS: trains a supernet and its exits, searches backbones, exits and clocks.

    Writes config.json, front.csv, front.json, levels.csv, front.png, metrics.jsonl, checkpoints/ and what it trains,
    supernet/, into the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        processes: Which of several processes this is, that train and search together.
        **run: See `RunArguments`.

    Returns:
        The designs found.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.

    Examples:
        >>> from hadas_jax.commands import search
        >>> from hadas_jax.settings import SearchSettings
        >>> result = search(SearchSettings.of(device="agx-xavier-gpu", population=32))  # doctest: +SKIP
        >>> result.levels[0].exits_and_clocks["deployable"].clocks_mhz  # doctest: +SKIP
    """
    from hadas_jax.methods import Run
    from hadas_jax.report.html.pictures import plot_front
    from hadas_jax.report.search import print_result

    def finish(started: Run, result: Result, path: Path, console: Console) -> None:
        plot_front(result, path / "front.png")
        print_result(result, console)
        if started.evaluated is not None:
            taken = f"{len(started.evaluated[0]):,} of {result.backbones:,} backbones were evaluated by"
            print_line(console, f"{taken} {started.settings.search.resume_from}")
        if started.device.blocks is not None and float(started.device.board_w) > 0:
            name = started.device.name
            print_line(console, f"{name} is a table without energies: joules are those of 1 W, and rank as seconds do")
        print_line(console, f"Written: {path}/front.csv, front.json, levels.csv, front.png")
        report, select = (shlex.join(["hadas", command, str(path)]) for command in ("report", "select"))
        print_line(console, f"A page to look at: {report}; one network of the front: {select}")

    return run_command(
        SearchSettings,
        Run,
        settings,
        name=lambda started: (started.settings.data.dataset, started.settings.device),
        finish=finish,
        processes=processes,
        **run,
    )


def train(
    settings: TrainSettings | None = None, *, processes: Processes = ALONE, **run: Unpack[RunArguments]
) -> TrainResult:
    """Trains a supernet and its exit heads, from the start or from a checkpoint.

    Writes supernet/ (for `checkpoint` of other commands), exits.csv, exits.png, config.json, metrics.jsonl and
    checkpoints/ into the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        processes: Which of several processes this is, that train together.
        **run: See `RunArguments`.

    Returns:
        The supernet with its accuracies.

    Raises:
        ValueError: Settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    from hadas_jax.report.html.pictures import plot_exits
    from hadas_jax.report.search import print_accuracies
    from hadas_jax.training.run import TrainingRun

    def finish(started: TrainingRun, result: TrainResult, path: Path, console: Console) -> None:
        plot_exits(result.accuracies, path / "exits.png")
        print_accuracies(result.accuracies, console)
        print_line(console, f"Written: {path}/supernet (for --checkpoint), exits.csv, exits.png")

    return run_command(
        TrainSettings,
        lambda settings: TrainingRun(settings, exits_for=settings.exits_for),
        settings,
        name=lambda started: (started.settings.data.dataset, "train"),
        finish=finish,
        processes=processes,
        **run,
    )


def import_checkpoint(
    file: Path | str,
    output: Path | str,
    *,
    classes: int | None = None,
    space: str | MBConvSpace = "attentivenas",
    exits: Path | str | None = None,
    exits_of: str | Backbone | ndarray | Array | None = None,
    exit_blocks: Sequence[int] = (),
    entry: str | None = None,
    normalisation: Literal["imagenet", "none"] = "imagenet",
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> SupernetCheckpoint:
    """Imports a supernet that PyTorch trained (AttentiveNAS, AlphaNet, HADAS), for --checkpoint of other commands.

    Reading a PyTorch file needs the extra torch; an npz file of the same arrays needs nothing.

    Args:
        file: Checkpoint of the supernet, .pth.tar or .npz.
        output: Directory to write.
        classes: Number of classes; another than the checkpoint's gives a fresh classifier.
        space: Space of the supernet by name.
        exits: Another checkpoint that the exit heads come from; by default `file`.
        exits_of: Backbone that the exit heads belong to, a0 to a6. By
            default exit heads are not imported.
        exit_blocks: The backbone's own blocks that the exits follow, from 0; by default every block that may have one.
        entry: Which of several state dicts in `file` the weights come from, e.g. model_ema; by default the only one
            that fits, averaged ones aside.
        normalisation: How the images of its training were standardised; none: unknown.
        seed: Random seed of what is drawn anew.
        overwrite: Replace the supernet in `output`.
        console: For the report; None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: Files, directory or settings do not fit; nothing is written then.
    """
    import jax

    from hadas_jax.data import IMAGENET_NORMALISATION
    from hadas_jax.spaces import load_space
    from hadas_jax.supernet import checkpoint, pytorch
    from hadas_jax.supernet.pytorch_files import read_tensors

    file, output, console = Path(file), Path(output), console or new_console()
    if normalisation not in ("imagenet", "none"):
        raise ValueError(f"normalisation: expected imagenet or none, got {normalisation!r}")
    if exits is not None and exits_of is None:
        raise ValueError("exits: expected `exits_of` with the backbone that they belong to, got none")
    checkpoint.require_free(output, overwrite=overwrite)
    sources = {"checkpoint": file} | ({} if exits is None else {"exits": Path(exits)})
    imported = pytorch.from_pytorch(
        load_space(space) if isinstance(space, str) else space,
        read_tensors(file),
        key=jax.random.key(seed),
        classes=classes,
        exits=None if exits is None else read_tensors(exits),
        exits_of=exits_of,
        exit_blocks=tuple(exit_blocks) or None,
        entry=entry,
    )
    trained = checkpoint.SupernetCheckpoint(
        space=imported.space,
        params=imported.params,
        trained_exits=imported.trained_exits,
        has_classifier=imported.has_classifier,
        exits_of=exits_of if exits_of is None or isinstance(exits_of, str) else "a backbone",
        normalisation=IMAGENET_NORMALISATION if normalisation == "imagenet" else None,
        source=f"PyTorch checkpoint {file.name}" + ("" if exits is None else f", exits of {Path(exits).name}"),
        details={
            "sha256": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sources.items()},
            "entries": {"used": imported.used, "unused": imported.unused, "surplus": imported.surplus},
            "fresh": imported.fresh,
            "notes": imported.notes,
        },
    )
    checkpoint.save_supernet(output, trained, overwrite=overwrite)
    for line in _report(imported, file=file, output=output):
        print_line(console, line)
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


def prepare(name: str, *, data_dir: Path | str | None = None, console: Console | None = None) -> Path:
    """Downloads an image set of tensorflow-datasets and writes it as --dataset reads it; needs the extra tfds.

    Args:
        name: cifar10, cifar100, fashion_mnist, mnist, imagenet2012, or tfds:NAME.
        data_dir: Where to; by default tensorflow-datasets' own place.
        console: For the closing line; None: standard output.

    Returns:
        The folder of the prepared set.

    Raises:
        ValueError: As `hadas_jax.data.prepare_dataset`.
    """
    from hadas_jax.data import prepare_dataset

    found = prepare_dataset(name, data_dir)
    print_line(console or new_console(), f"Prepared: {found}")
    return found
