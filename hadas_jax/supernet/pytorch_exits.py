"""Exit heads that HADAS's PyTorch code trained for one backbone, placed among the heads that all backbones share.

The original numbers its exits, and says for each after which of the backbone's own blocks it comes; here a head
belongs to a block position of the supernet. A head takes the channels that its backbone has there; in the shared
head, which takes the stage's largest number, the others get zero weights.
Shapes: K classes, N block positions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces import Backbone, MBConvSpace, block_active, published
from hadas_jax.supernet.pytorch_entries import Entries
from hadas_jax.supernet.pytorch_places import locate, plain_name
from hadas_jax.supernet.tree import Tree

FINAL_CONFIDENCE = ("final_confidence.", "confidence.")  # HADAS's, after the final classifier
OF_EXITS = ("exits.", *FINAL_CONFIDENCE)
_FIRST = ("exits.0.conv.weight", "exits.0.bn_norm.weight", "exits.0.classifier.0.weight")


def count_exits(names: Iterable[str]) -> int:
    """Returns how many exits a state dict holds, from the highest number among its names."""
    return max((int(found[1]) + 1 for name in names if (found := re.match(r"exits\.(\d+)\.", name))), default=0)


def locate_exits(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the entries of the place where exit heads are, see `pytorch_places.locate`.

    Raises:
      ValueError: there are none, or several places have them.
    """
    if not any(plain_name(name).endswith(_FIRST) for name in arrays):
        raise ValueError("exits: expected a checkpoint with exit heads (exits.0.conv.weight, ...), got none")
    return locate(arrays, _FIRST).arrays


def resolve_backbone(space: MBConvSpace, exits_of: str | Backbone | np.ndarray | jax.Array) -> Backbone:
    """Returns the backbone that exits belong to.

    Args:
      space: of the supernet.
      exits_of: a published name (a0 .. a6), a backbone, or a genome int32[G].

    Raises:
      ValueError: no such name, or not a backbone of the space.
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


def exit_positions(
    space: MBConvSpace, backbone: Backbone, exits: int, *, exit_blocks: Sequence[int] | None
) -> tuple[int, ...]:
    """Returns the block positions of the supernet that the exits of one backbone follow.

    Args:
      space: of the supernet.
      backbone: that the exits belong to.
      exits: how many there are.
      exit_blocks: which of the backbone's own blocks each follows, counted from 0; None: there is one after every
        block from `space.first_exit` on.

    Raises:
      ValueError: the blocks are not those of so many exits of this backbone.
    """
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


def place_exits(
    space: MBConvSpace, entries: Entries, backbone: Backbone, *, positions: Sequence[int], heads: Tree, stats: Tree
) -> tuple[Tree, Tree]:
    """Returns heads and their batch-norm statistics with those of a state dict in their places.

    Args:
      space: of the supernet.
      entries: of the state dict.
      backbone: that the exits belong to.
      positions: that they follow, in their order.
      heads: the shared heads' weights; not changed.
      stats: their statistics; not changed.
    """
    heads, stats = (jax.tree.map(np.array, tree) for tree in (heads, stats))
    starts = np.cumsum([0, *(max(stage.depth) for stage in space.stages)])
    for number, position in enumerate(positions):
        s = int(np.searchsorted(starts, position, side="right")) - 1
        row = position - max(int(starts[s]), space.first_exit)
        head, norm_stats = _read(space, entries, number, channels=int(backbone.width[s + 1]))
        widest = heads[f"stage{s}"]["conv"].shape[-2]
        head["conv"] = np.pad(head["conv"], ((0, 0), (0, 0), (0, widest - head["conv"].shape[-2]), (0, 0)))
        for target, source in ((heads, head), (stats, norm_stats)):
            jax.tree.map(lambda into, new, row=row: into.__setitem__(row, new), target[f"stage{s}"], source)
    return heads, stats


def _read(space: MBConvSpace, entries: Entries, number: int, *, channels: int) -> tuple[Tree, Tree]:
    name, width = f"exits.{number}", space.exit_width
    norm, norm_stats = entries.norm(f"{name}.bn_norm", width)
    head = {
        "conv": entries.convolution(f"{name}.conv", outs=width, ins=channels, size=3),
        "bn": norm,
        "classifier": entries.linear(f"{name}.classifier.0", outs=space.classes, ins=width),
        "confidence": entries.linear(f"{name}.confidence.0", outs=1, ins=width),
    }
    return head, {"bn": norm_stats}
