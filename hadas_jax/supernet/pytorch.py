"""Weights of the original PyTorch supernets (AttentiveNAS, AlphaNet, HADAS) as parameters of this one.

AttentiveNAS: https://arxiv.org/abs/2011.09011, AlphaNet: https://arxiv.org/abs/2102.07954, HADAS:
https://arxiv.org/abs/2212.03354. Their state dicts hold one weight per layer at its largest: narrower layers are the
leading channels, smaller kernels the centre crop, as here.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.supernet.network import BatchStats, Parameters, initialise
from hadas_jax.supernet.pytorch_backbone import CLASSIFIER, read_backbone
from hadas_jax.supernet.pytorch_entries import Entries, listed
from hadas_jax.supernet.pytorch_exits import (
    FINAL_CONFIDENCE,
    OF_EXITS,
    count_exits,
    exit_positions,
    locate_exits,
    place_exits,
    resolve_backbone,
)
from hadas_jax.supernet.pytorch_files import read_pytorch, read_tensors
from hadas_jax.supernet.pytorch_places import Located, locate
from hadas_jax.supernet.tree import Tree

__all__ = ["Imported", "from_pytorch", "read_pytorch", "read_tensors"]

_NEVER_USED = re.compile(r"\.num_batches_tracked$|\.bn_tracking\.")  # counters, and statistics kept during training


@dataclass(frozen=True)
class Imported:
    """What a checkpoint became.

    Attributes:
      space: with the number of classes settled.
      params: weights of backbone and exit heads.
      stats: batch-norm statistics as stored, of the largest network; those of fresh heads are 0 and 1. A
        sub-network's own are re-estimated, see `estimate_batch_stats`.
      trained_exits: block positions whose exit heads come from the checkpoint; the other heads are fresh.
      used: how many entries were taken.
      unused: how many were left that have no use here: counters, statistics kept during training, shortcuts of
        blocks that never use them, the classifier that a fresh one replaces.
      surplus: names of the other entries that were left.
      fresh: which parts were drawn anew, and why, in words for people.
      has_classifier: the final classifier comes from the checkpoint.
      notes: what else a user should know, in words for people.
    """

    space: MBConvSpace
    params: Parameters
    stats: BatchStats
    trained_exits: tuple[int, ...]
    used: int
    unused: int
    surplus: tuple[str, ...]
    fresh: tuple[str, ...]
    has_classifier: bool
    notes: tuple[str, ...]


def from_pytorch(
    space: MBConvSpace,
    arrays: Mapping[str, np.ndarray],
    *,
    key: jax.Array,
    classes: int | None = None,
    exits: Mapping[str, np.ndarray] | None = None,
    exits_of: str | Backbone | np.ndarray | jax.Array | None = None,
    exit_blocks: Sequence[int] | None = None,
    entry: str | None = None,
) -> Imported:
    """Turns a state dict of the original's supernet into parameters.

    Args:
      space: of the supernet, e.g. `ATTENTIVENAS`; its number of classes does not matter.
      arrays: the state dict by name, whatever stands before all of its names; or all tensors of a file that holds it,
        see `read_tensors`.
      key: for what is drawn anew.
      classes: another number than the checkpoint's gives a fresh classifier; None: the checkpoint's.
      exits: entries of another checkpoint that the exit heads come from; None: `arrays`.
      exits_of: the backbone that the checkpoint's exit heads belong to, a published name (a0 .. a6), a backbone or
        a genome int32[G]; None: they are not imported.
      exit_blocks: the backbone's own blocks that they follow, see `pytorch_exits.exit_positions`.
      entry: the place of the weights, e.g. `model_ema`, where `arrays` has several; see `pytorch_places.locate`.

    Returns:
      The parameters, and what was and was not imported.

    Raises:
      ValueError: entries are missing or of another shape (named), several places hold such weights, or the exits do
        not fit the backbone.
    """
    if not space.resolution:
        raise ValueError(f"space {space.name}: expected one with resolutions of its own, got none")
    located = locate(arrays, _names(space), entry=entry)
    arrays = located.arrays if exits is None else _with_exits(located.arrays, exits)
    bias = arrays.get(f"{CLASSIFIER}.bias")
    stored = len(bias) if bias is not None and np.ndim(bias) == 1 else None
    classes = stored if classes is None else classes
    if classes is not None and classes < 2:
        raise ValueError(f"classes: expected at least 2, got {classes}")
    space = dataclasses.replace(space, classes=classes or space.classes)
    entries = Entries(arrays)
    weights, stats = read_backbone(space, entries, classified=classes in (None, stored))
    entries.check(f"a supernet of the space {space.name}")
    if exits_of is None and exit_blocks is not None:
        raise ValueError("exit_blocks: expected exits_of beside them, got none")
    positions: tuple[int, ...] = ()
    if exits_of is not None:
        backbone = resolve_backbone(space, exits_of)
        positions = _positions(space, arrays, backbone, exit_blocks=exit_blocks, stored=stored)
    fresh = initialise(space, key)
    weights["tail"].setdefault("classifier", fresh.backbone["tail"]["classifier"])
    heads, head_stats = fresh.heads, _initial_stats(fresh.heads)
    if positions:
        heads, head_stats = place_exits(space, entries, backbone, positions=positions, heads=heads, stats=head_stats)
        entries.check(f"{len(positions)} exits of this backbone")
    left = [name for name in arrays if name not in entries.used]
    surplus = tuple(name for name in left if not _is_known(space, name))
    return Imported(
        space=space,
        params=jax.tree.map(jnp.asarray, Parameters(backbone=weights, heads=heads)),
        stats=jax.tree.map(jnp.asarray, BatchStats(backbone=stats, heads=head_stats)),
        trained_exits=positions,
        used=len(entries.used),
        unused=len(left) - len(surplus),
        surplus=surplus,
        fresh=_fresh_parts(space, stored=stored, trained=len(positions)),
        has_classifier=classes in (None, stored),
        notes=(*_places(located), *_notes(entries, arrays, placed=bool(positions))),
    )


def _names(space: MBConvSpace) -> frozenset[str]:
    """Returns the names of all entries that a space's supernet has."""
    none = Entries({})
    read_backbone(space, none, classified=True)
    return frozenset(none.used)


def _with_exits(arrays: Mapping[str, np.ndarray], exits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state dict with the exit heads of another checkpoint instead of its own."""
    heads = {name: array for name, array in locate_exits(exits).items() if name.startswith(OF_EXITS)}
    return {name: array for name, array in arrays.items() if not name.startswith(OF_EXITS)} | heads


def _initial_stats(heads: Tree) -> Tree:
    """Returns batch-norm statistics of fresh heads: means 0, variances 1."""
    norms = {stage: head["bn"] for stage, head in heads.items()}
    return {s: {"bn": {"mean": jnp.zeros_like(n["bias"]), "var": jnp.ones_like(n["bias"])}} for s, n in norms.items()}


def _positions(
    space: MBConvSpace,
    arrays: Mapping[str, np.ndarray],
    backbone: Backbone,
    *,
    exit_blocks: Sequence[int] | None,
    stored: int | None,
) -> tuple[int, ...]:
    exits = count_exits(arrays)
    if not exits:
        raise ValueError("exits_of: expected a checkpoint with exit heads (exits.0.conv.weight, ...), got none")
    if stored not in (None, space.classes):
        raise ValueError(
            f"exits_of: expected the checkpoint's own {stored} classes, which its exit heads tell apart, "
            f"got {space.classes}"
        )
    return exit_positions(space, backbone, exits, exit_blocks=exit_blocks)


def _is_known(space: MBConvSpace, name: str) -> bool:
    """Whether an entry that was left is one that the original stores and that has no use here."""
    shortcut = re.match(r"blocks\.(\d+)\.shortcut\.", name)
    firsts = np.cumsum([0, *(max(stage.depth) for stage in space.stages)])[:-1]
    later = shortcut is not None and int(shortcut[1]) < space.positions and int(shortcut[1]) not in firsts
    return later or name.startswith((CLASSIFIER, *FINAL_CONFIDENCE)) or _NEVER_USED.search(name) is not None


def _fresh_parts(space: MBConvSpace, *, stored: int | None, trained: int) -> tuple[str, ...]:
    parts = []
    if stored != space.classes:
        has = "no classifier" if stored is None else f"one for {stored}"
        parts.append(f"classifier for {space.classes} classes (the checkpoint has {has})")
    if trained < space.num_exits:
        parts.append(f"{space.num_exits - trained} of {space.num_exits} exit heads")
    return tuple(parts)


def _places(located: Located) -> list[str]:
    notes = [f"taken: the entries under {located.place}"] if located.place else []
    if located.left:
        left = [f"{place} ({count:,} {'entry' if count == 1 else 'entries'})" for place, count in located.left.items()]
        notes.append(f"not taken: {listed(left)}; entry takes weights from another place")
    return notes


def _notes(entries: Entries, arrays: Mapping[str, np.ndarray], *, placed: bool) -> list[str]:
    notes, exits = [], count_exits(arrays)
    if exits and not placed:
        notes.append(f"the {exits} exit heads of the checkpoint belong to one backbone: exits_of imports them")
    if any(name.startswith(FINAL_CONFIDENCE) for name in arrays):
        notes.append("the learned confidence after the final classifier is left: no exit policy here reads one")
    if entries.unknown_statistics:
        notes.append(
            f"{len(entries.unknown_statistics)} running statistics of batch norms are absent or not finite, which does "
            "not matter: each backbone's own are estimated from training images"
        )
    return notes
