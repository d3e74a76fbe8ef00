"""The command that imports PyTorch checkpoints, as a library call."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from hadas_jax.data import IMAGENET_NORMALISATION
from hadas_jax.outputs import new_console, say
from hadas_jax.spaces import Backbone, MBConvSpace, load_space
from hadas_jax.supernet.pytorch import Imported, from_pytorch, read_tensors
from hadas_jax.trained import TrainedSupernet, require_free, save_trained

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
) -> TrainedSupernet:
    """Imports a supernet of AttentiveNAS, AlphaNet or HADAS from PyTorch and writes it for `--checkpoint`.

    Args:
      file: checkpoint, see `hadas_jax.supernet.pytorch.read_tensors`; an npz file of its arrays will do.
      output: directory to write, see `hadas_jax.trained`.
      classes: another number than the checkpoint's gives a fresh classifier; None: the checkpoint's.
      space: of the supernet, a name or a space.
      exits: another checkpoint that the exit heads come from; None: `file`.
      exits_of: the backbone that the exit heads belong to, a published name (a0 .. a6), a backbone or a genome
        int32[G]; None: exit heads are not imported.
      exit_blocks: the backbone's own blocks that the exits follow, counted from 0; None: every block that may have
        one.
      entry: which of several state dicts in `file` the weights come from, e.g. `model_ema`.
      normalisation: how the images of its training were standardised: `imagenet`, or `none` where that is unknown.
      seed: of what is drawn anew.
      overwrite: replace the supernet in `output`.
      console: for the report; None: standard output.

    Returns:
      What was written.

    Raises:
      ValueError: files, directory or settings do not fit; nothing is written then.
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
    trained = TrainedSupernet(
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
    save_trained(output, trained, overwrite=overwrite)
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
