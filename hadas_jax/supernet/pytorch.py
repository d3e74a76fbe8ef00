"""Weights of the original PyTorch supernets (AttentiveNAS, AlphaNet, HADAS) as parameters of this one.

AttentiveNAS: https://arxiv.org/abs/2011.09011, AlphaNet: https://arxiv.org/abs/2102.07954, HADAS:
https://arxiv.org/abs/2212.03354. Their state dicts hold one weight per layer at its largest: narrower layers are the
leading channels, smaller kernels the centre crop, as here. PyTorch keeps convolutions as [O, C, k, k] and linear layers
as [O, C]; here they are [k, k, C, O] and [C, O]. All blocks are numbered through.

HADAS trains exit heads for one backbone, numbers them, and says for each after which of the backbone's own blocks it
comes; here a head belongs to a block position of the supernet. A head takes the channels that its backbone has there;
in the shared head, which takes the stage's largest number, the others get zero weights.
Shapes: C input and O output channels, k kernel, G genes.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces import Backbone, block_active, published
from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.supernet.layers import Tree
from hadas_jax.supernet.network import BatchStats, Parameters, initialise
from hadas_jax.supernet.pytorch_files import SHOWN, listed, locate, plain_name

# Layers by the original's names.
_STEM = {"kernel": "first_conv.conv.conv", "bn": "first_conv.bn.bn"}
_BLOCK = {
    "expand": "mobile_inverted_conv.inverted_bottleneck.conv.conv",
    "expand_bn": "mobile_inverted_conv.inverted_bottleneck.bn.bn",
    "depthwise": "mobile_inverted_conv.depth_conv.conv.conv",
    "depthwise_bn": "mobile_inverted_conv.depth_conv.bn.bn",
    "se": {
        "squeeze": "mobile_inverted_conv.depth_conv.se.fc.reduce",
        "excite": "mobile_inverted_conv.depth_conv.se.fc.expand",
    },
    "project": "mobile_inverted_conv.point_linear.conv.conv",
    "project_bn": "mobile_inverted_conv.point_linear.bn.bn",
    "shortcut": "shortcut.conv.conv",
}
_CLASSIFIER = "classifier.linear.linear"
_TAIL = {
    "head": "last_conv.final_expand_layer.conv.conv",
    "head_bn": "last_conv.final_expand_layer.bn.bn",
    "last": "last_conv.feature_mix_layer.conv.conv",
    "classifier": _CLASSIFIER,
}
_EXIT = {"conv": "conv", "bn": "bn_norm", "classifier": "classifier.0", "confidence": "confidence.0"}
_LINEAR = (_CLASSIFIER, _EXIT["classifier"], _EXIT["confidence"])  # no 1x1 convolutions
_FINAL_CONFIDENCE = ("final_confidence.", "confidence.")  # HADAS's, after the final classifier
_OF_EXITS = ("exits.", *_FINAL_CONFIDENCE)
_FIRST = ("exits.0.conv.weight", "exits.0.bn_norm.weight", "exits.0.classifier.0.weight")
_NEVER_USED = re.compile(r"\.num_batches_tracked$|\.bn_tracking\.")  # counters, and statistics kept during training


@dataclass(frozen=True)
class Imported:
    """What a checkpoint became.

    Attributes:
        space: With the number of classes settled.
        params: Weights of backbone and exit heads.
        stats: batch-norm statistics as stored, of the largest network; those of fresh heads are 0 and 1. A
            sub-network's own are re-estimated, see `estimate_batch_stats`.
        trained_exits: Block positions whose exit heads come from the checkpoint; the other heads are fresh.
        used: How many entries were taken.
        unused: How many were left that have no use here: counters, statistics kept during training, shortcuts of blocks
            that never use them, the classifier that a fresh one replaces.
        surplus: Names of the other entries that were left.
        fresh: Which parts were drawn anew, and why, in words for people.
        has_classifier: The final classifier comes from the checkpoint.
        notes: What else a user should know, in words for people.
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


class _Entries:
    """Reads entries one after the other and notes which are missing, of another shape, or left.

    What cannot be read is returned as zeros, so that `check` names all of it at once.

    Args:
        arrays: The state dict, by name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._missing: list[str] = []
        self._wrong: list[str] = []
        self.unknown_statistics: list[str] = []
        self.used: set[str] = set()

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Returns the entry `name` as float32[shape]."""
        self.used.add(name)
        if name not in self._arrays:
            self._missing.append(name)
            return np.zeros(shape, np.float32)
        found = np.asarray(self._arrays[name])
        if found.shape != shape:
            self._wrong.append(f"{name}: expected shape {shape}, got {found.shape}")
        elif not jnp.issubdtype(found.dtype, np.floating):
            self._wrong.append(f"{name}: expected floating numbers, got {found.dtype}")
        elif not _is_finite(found):
            self._wrong.append(f"{name}: expected finite numbers, got others")
        else:
            return found.astype(np.float32)
        return np.zeros(shape, np.float32)

    def statistic(self, name: str, channels: int, *, unknown: float) -> np.ndarray:
        """Returns a batch norm's running statistic [C]; `unknown` where it is absent or not finite, and notes that."""
        found = self._arrays.get(name)
        if found is not None and (np.shape(found) != (channels,) or _is_finite(np.asarray(found))):
            return self.take(name, channels)
        self.unknown_statistics.append(name)
        self.used.update([name] if found is not None else [])
        return np.full(channels, unknown, np.float32)

    def kernel(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the kernel of a layer in the layout of `shape`: [k, k, C, O], [k, k, C] or [C, O]."""
        name, size = f"{name}.weight", shape[:-2] if len(shape) == 4 else shape[:-1]
        if len(shape) == 4:
            return self.take(name, shape[3], shape[2], *size).transpose(2, 3, 1, 0)
        if len(shape) == 3:
            return self.take(name, shape[2], 1, *size).transpose(2, 3, 1, 0)[:, :, 0]
        taps = () if name.removesuffix(".weight").endswith(_LINEAR) else (1, 1)
        return self.take(name, shape[1], shape[0], *taps).reshape(shape[::-1]).T

    def norm(self, name: str, channels: int) -> tuple[Tree, Tree]:
        """Returns a batch norm's scale and bias, and its running mean and variance, all [C]."""
        weights = {"scale": self.take(f"{name}.weight", channels), "bias": self.take(f"{name}.bias", channels)}
        mean = self.statistic(f"{name}.running_mean", channels, unknown=0.0)
        var = self.statistic(f"{name}.running_var", channels, unknown=1.0)
        return weights, {"mean": mean, "var": var}

    def module(self, shapes: Tree, names: Mapping[str, Any], *, prefix: str = "") -> tuple[Tree, Tree]:
        """Returns the weights and the batch-norm statistics of a module.

        Args:
            shapes: Of the weights, as `jax.ShapeDtypeStruct`.
            names: The original's, by layer; layers that the module does not have are left out.
            prefix: Of the names.
        """
        weights: Tree = {}
        stats: Tree = {}
        for layer, name in names.items():
            if layer not in shapes:
                continue
            like = shapes[layer]
            found: Tree = {}
            if isinstance(name, Mapping):
                weights[layer], found = self.module(like, name, prefix=prefix)
            elif not isinstance(like, Mapping):
                weights[layer] = self.kernel(prefix + name, like.shape)
            elif "scale" in like:
                weights[layer], found = self.norm(prefix + name, like["scale"].size)
            else:
                weights[layer] = {"kernel": self.kernel(prefix + name, like["kernel"].shape)}
                if "bias" in like:
                    weights[layer]["bias"] = self.take(f"{prefix}{name}.bias", like["bias"].size)
            stats |= {layer: found} if found else {}
        return weights, stats

    def check(self, what: str) -> None:
        """Raises unless all entries that were asked for are there as asked for.

        Args:
            what: They belong to, for the message.

        Raises:
            ValueError: Entries are missing, of another shape, or hold no finite numbers.
        """
        problems = []
        if self._missing:
            problems.append(f"{len(self._missing)} of {len(self.used)} are missing: {listed(self._missing, SHOWN)}")
        if self._wrong:
            problems.append(f"{len(self._wrong)} do not fit: {listed(self._wrong, SHOWN, separator='; ')}")
        if problems:
            raise ValueError(f"checkpoint: expected the entries of {what}, but {'; '.join(problems)}")


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are numbers that float32 holds."""
    with np.errstate(over="ignore"):
        return bool(jnp.issubdtype(values.dtype, np.floating) and np.isfinite(values.astype(np.float32)).all())


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
        space: Of the supernet, e.g. `ATTENTIVENAS`; its number of classes does not matter.
        arrays: The state dict by name, whatever stands before all of its names; or all tensors of a file that holds it,
            see `read_tensors`.
        key: For what is drawn anew.
        classes: Another number than the checkpoint's gives a fresh classifier; None: the checkpoint's.
        exits: Entries of another checkpoint that the exit heads come from; None: `arrays`.
        exits_of: The backbone that the checkpoint's exit heads belong to, a published name (a0 .. a6), a backbone or a
            genome int32[G]; None: they are not imported.
        exit_blocks: The backbone's own blocks that they follow, counted from 0; None: there is
            one after every block from `space.first_exit` on.
        entry: What stands before the names of the weights, e.g. `model_ema`, where `arrays` has several such; see
            `hadas_jax.supernet.pytorch_files.locate`.

    Returns:
        The parameters, and what was and was not imported.

    Raises:
        ValueError: Entries are missing or of another shape (named), several prefixes hold such weights, or the exits do
            not fit the backbone.
    """
    if not space.resolution:
        raise ValueError(f"space {space.name}: expected one with resolutions of its own, got none")
    located = locate(arrays, _names(space), entry=entry)
    arrays = located.arrays if exits is None else _with_exits(located.arrays, exits)
    bias = arrays.get(f"{_CLASSIFIER}.bias")
    stored = len(bias) if bias is not None and np.ndim(bias) == 1 else None
    classes = stored if classes is None else classes
    if classes is not None and classes < 2:
        raise ValueError(f"classes: expected at least 2, got {classes}")
    space = dataclasses.replace(space, classes=classes or space.classes)
    entries = _Entries(arrays)
    weights, stats = _read_backbone(space, entries, classified=classes in (None, stored))
    entries.check(f"a supernet of the space {space.name}")
    if exits_of is None and exit_blocks is not None:
        raise ValueError("exit_blocks: expected exits_of beside them, got none")
    positions: tuple[int, ...] = ()
    if exits_of is not None:
        backbone = _resolve_backbone(space, exits_of)
        positions = _exit_positions(space, arrays, backbone, exit_blocks=exit_blocks, stored=stored)
    fresh = initialise(space, key)
    weights["tail"].setdefault("classifier", fresh.backbone["tail"]["classifier"])
    heads = fresh.heads  # whose batch norms begin as the identity, with biases of 0 and scales of 1
    head_stats = {s: {"bn": {"mean": head["bn"]["bias"], "var": head["bn"]["scale"]}} for s, head in heads.items()}
    if positions:
        heads, head_stats = _place_exits(space, entries, backbone, positions=positions, heads=heads, stats=head_stats)
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
        notes=(*located.notes, *_notes(entries, arrays, placed=bool(positions))),
    )


def _names(space: MBConvSpace) -> frozenset[str]:
    """Returns the names of all entries that a space's supernet has."""
    none = _Entries({})
    _read_backbone(space, none, classified=True)
    return frozenset(none.used)


def _read_backbone(space: MBConvSpace, entries: _Entries, *, classified: bool) -> tuple[Tree, Tree]:
    """Reads a supernet's weights, the classifier's only if `classified`, and its batch-norm statistics."""
    shapes = jax.eval_shape(lambda: initialise(space, jax.random.key(0))).backbone
    modules = {"stem": entries.module(shapes["stem"], _STEM)}
    number = 0
    for s, stage in enumerate(space.stages):
        first, rest = f"stage{s}_first", f"stage{s}_rest"
        modules[first] = entries.module(shapes[first], _BLOCK, prefix=f"blocks.{number}.")
        if max(stage.depth) > 1:
            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes[rest])
            following = range(number + 1, number + max(stage.depth))
            blocks = [entries.module(like, _BLOCK, prefix=f"blocks.{block}.") for block in following]
            modules[rest] = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
        number += max(stage.depth)
    tail = {layer: name for layer, name in _TAIL.items() if classified or name != _CLASSIFIER}
    modules["tail"] = entries.module(shapes["tail"], tail)
    weights, stats = ({name: trees[part] for name, trees in modules.items()} for part in range(2))
    return weights, stats


def _with_exits(arrays: Mapping[str, np.ndarray], exits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a state dict with the exit heads of another checkpoint, see `locate`, instead of its own."""
    if not any(plain_name(name).endswith(_FIRST) for name in exits):
        raise ValueError("exits: expected a checkpoint with exit heads (exits.0.conv.weight, ...), got none")
    located = locate(exits, _FIRST).arrays
    heads = {name: array for name, array in located.items() if name.startswith(_OF_EXITS)}
    return {name: array for name, array in arrays.items() if not name.startswith(_OF_EXITS)} | heads


def _is_known(space: MBConvSpace, name: str) -> bool:
    """Whether an entry that was left is one that the original stores and that has no use here."""
    shortcut = re.match(r"blocks\.(\d+)\.shortcut\.", name)
    firsts = np.cumsum([0, *(max(stage.depth) for stage in space.stages)])[:-1]
    later = shortcut is not None and int(shortcut[1]) < space.positions and int(shortcut[1]) not in firsts
    return later or name.startswith((_CLASSIFIER, *_FINAL_CONFIDENCE)) or _NEVER_USED.search(name) is not None


def _fresh_parts(space: MBConvSpace, *, stored: int | None, trained: int) -> tuple[str, ...]:
    parts = []
    if stored != space.classes:
        has = "no classifier" if stored is None else f"one for {stored}"
        parts.append(f"classifier for {space.classes} classes (the checkpoint has {has})")
    if trained < space.num_exits:
        parts.append(f"{space.num_exits - trained} of {space.num_exits} exit heads")
    return tuple(parts)


def _notes(entries: _Entries, arrays: Mapping[str, np.ndarray], *, placed: bool) -> list[str]:
    notes, exits = [], _count_exits(arrays)
    if exits and not placed:
        notes.append(f"the {exits} exit heads of the checkpoint belong to one backbone: exits_of imports them")
    if any(name.startswith(_FINAL_CONFIDENCE) for name in arrays):
        notes.append("the learned confidence after the final classifier is left: no exit policy here reads one")
    if entries.unknown_statistics:
        notes.append(
            f"{len(entries.unknown_statistics)} running statistics of batch norms are absent or not finite, which does "
            "not matter: each backbone's own are estimated from training images"
        )
    return notes


def _resolve_backbone(space: MBConvSpace, exits_of: str | Backbone | np.ndarray | jax.Array) -> Backbone:
    """Returns the backbone that exits belong to.

    Args:
        space: Of the supernet.
        exits_of: A published name (a0 .. a6), a backbone, or a genome int32[G].

    Raises:
        ValueError: No such name, or not a backbone of the space.
    """
    if isinstance(exits_of, str):
        exits_of = published(exits_of)
    try:
        if isinstance(exits_of, Backbone):
            space.encode(exits_of)
            return exits_of
        genome, options = np.asarray(exits_of), space.codec.cardinalities
        if genome.shape != options.shape or (genome < 0).any() or (genome >= options).any():
            raise ValueError(f"genome {genome.tolist()}")
    except ValueError as error:
        raise ValueError(f"exits_of: expected a backbone of the space {space.name}, got another ({error})") from error
    return jax.tree.map(np.asarray, space.decode(jnp.asarray(genome, np.int32)))


def _exit_positions(
    space: MBConvSpace,
    arrays: Mapping[str, np.ndarray],
    backbone: Backbone,
    *,
    exit_blocks: Sequence[int] | None,
    stored: int | None,
) -> tuple[int, ...]:
    """Returns the block positions of the supernet that the exits of one backbone follow.

    Args:
        space: Of the supernet.
        arrays: The state dict.
        backbone: That the exits belong to.
        exit_blocks: Which of the backbone's own blocks each follows, counted from 0; None: there is one after every
            block from `space.first_exit` on.
        stored: Classes of the checkpoint.

    Raises:
        ValueError: There are no exits, of other classes, or the blocks are not those of so many exits of this backbone.
    """
    exits = _count_exits(arrays)
    if not exits:
        raise ValueError("exits_of: expected a checkpoint with exit heads (exits.0.conv.weight, ...), got none")
    if stored not in (None, space.classes):
        raise ValueError(
            f"exits_of: expected the checkpoint's own {stored} classes, which its exit heads tell apart, "
            f"got {space.classes}"
        )
    positions = np.flatnonzero(np.asarray(block_active(space, backbone)))
    every = range(space.first_exit, len(positions))
    if exit_blocks is None and exits != len(every):
        raise ValueError(
            f"exit_blocks: expected the blocks that the checkpoint's {exits} exits follow, got none; this backbone "
            f"may have exits after {len(every)} blocks"
        )
    blocks = list(every if exit_blocks is None else exit_blocks)
    if len(blocks) != exits or blocks != sorted(set(blocks) & set(every)):
        raise ValueError(
            f"exit_blocks: expected {exits} rising numbers of blocks in {every.start} .. {every.stop - 1}, "
            f"one for every exit of the checkpoint, got {blocks}"
        )
    return tuple(int(positions[block]) for block in blocks)


def _count_exits(names: Iterable[str]) -> int:
    """Returns how many exits a state dict holds, from the highest number among its names."""
    return max((int(found[1]) + 1 for name in names if (found := re.match(r"exits\.(\d+)\.", name))), default=0)


def _place_exits(
    space: MBConvSpace, entries: _Entries, backbone: Backbone, *, positions: Sequence[int], heads: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Returns heads and their batch-norm statistics with those of a state dict at their positions.

    Args:
        space: Of the supernet.
        entries: Of the state dict.
        backbone: That the exits belong to.
        positions: Of the blocks that they follow, in their order.
        heads: The shared heads' weights; not changed.
        stats: Their statistics; not changed.
    """
    heads, stats = (jax.tree.map(np.array, tree) for tree in (heads, stats))
    starts = np.cumsum([0, *(max(stage.depth) for stage in space.stages)])
    for number, position in enumerate(positions):
        s = int(np.searchsorted(starts, position, side="right")) - 1
        row = position - max(int(starts[s]), space.first_exit)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), heads[f"stage{s}"])
        *taps, widest, width = shapes["conv"].shape
        channels = int(backbone.width[s + 1])
        shapes["conv"] = jax.ShapeDtypeStruct((*taps, channels, width), np.float32)
        head, norm_stats = entries.module(shapes, _EXIT, prefix=f"exits.{number}.")
        head["conv"] = np.pad(head["conv"], ((0, 0), (0, 0), (0, widest - channels), (0, 0)))
        for target, source in ((heads, head), (stats, norm_stats)):
            jax.tree.map(lambda into, new, row=row: into.__setitem__(row, new), target[f"stage{s}"], source)
    return heads, stats
