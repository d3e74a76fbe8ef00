"""The network of one backbone cut out of its supernet: weights of its own sizes, nothing masked.

Channels are the leading ones, depthwise kernels the centre of the largest, blocks the first of every stage
(AttentiveNAS, https://arxiv.org/abs/2011.09011), exit heads those that the backbone may have (HADAS,
https://arxiv.org/abs/2212.03354).
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, make_divisible
from hadas_jax.supernet.blocks import cut_block, cut_layers
from hadas_jax.supernet.layers import Tree
from hadas_jax.supernet.network import BatchStats, Parameters


def cut_space(space: MBConvSpace, backbone: Backbone) -> MBConvSpace:
    """Returns the space whose only backbone is the given one; its exits follow the same blocks.

    Args:
        space: That the backbone belongs to.
        backbone: Concrete, not traced.
    """
    width, depth, kernel, expand = _choices(backbone)
    stages = tuple(
        dataclasses.replace(stage, width=(width[s + 1],), depth=(depth[s],), kernel=(kernel[s],), expand=(expand[s],))
        for s, stage in enumerate(space.stages)
    )
    return dataclasses.replace(
        space,
        resolution=(int(backbone.resolution),),
        stem_width=(width[0],),
        stages=stages,
        last_width=(width[-1],),
        first_exit=min(space.first_exit, sum(depth)),
    )


def cut(space: MBConvSpace, params: Parameters, stats: BatchStats, backbone: Backbone) -> tuple[Parameters, BatchStats]:
    """Cuts the network of one backbone out of its supernet.

    `apply(cut_space(space, backbone), *cut(...), backbone, images)` computes what the supernet does with masks.

    Args:
        space: Of the supernet.
        params: Shared weights, as numpy or JAX arrays.
        stats: Batch-norm statistics of the backbone, from `estimate_batch_stats`.
        backbone: Concrete, not traced.

    Returns:
        Trees of the supernet's form with the backbone's own sizes: no `stage{s}_rest` in a stage of one block, no
        `shortcut` between equal widths, and of exit heads those of the blocks from `space.first_exit` on.
    """
    trees = (params.backbone, params.heads), (stats.backbone, stats.heads)
    (weights, heads), (norms, head_norms) = ((_backbone(space, *pair, backbone)) for pair in trees)
    return Parameters(backbone=weights, heads=heads), BatchStats(backbone=norms, heads=head_norms)


def _backbone(space: MBConvSpace, tree: Tree, heads: Tree, backbone: Backbone) -> tuple[Tree, Tree]:
    """Cuts weights, or statistics, of backbone and heads."""
    width, depth, kernel, expand = _choices(backbone)
    stem = cut_layers({"stem": tree["stem"]}, dict.fromkeys(("stem", "bn"), (None, width[0])))
    cut_tree: dict[str, Tree] = dict(stem)
    cut_heads: dict[str, Tree] = {}
    position = block = 0
    for s, stage in enumerate(space.stages):
        first, rest, before, after = f"stage{s}_first", f"stage{s}_rest", width[s], width[s + 1]
        choice: dict[str, Any] = {"out_width": after, "kernel": kernel[s], "expand": expand[s]}
        cut_tree[first] = cut_block(tree[first], stage, in_width=before, **choice)
        if before == after:
            cut_tree[first].pop("shortcut", None)
        if depth[s] > 1:
            following = jax.tree.map(lambda leaf, s=s: leaf[: depth[s] - 1], tree[rest])
            cut_tree[rest] = cut_block(following, stage, in_width=after, **choice)
        start = max(space.first_exit - block, 0)
        if start < depth[s]:
            rows = slice(start - max(space.first_exit - position, 0), depth[s] - max(space.first_exit - position, 0))
            own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], heads[f"stage{s}"])
            cut_heads[f"stage{s}"] = own | ({"conv": own["conv"][..., :after, :]} if "conv" in own else {})
        position, block = position + max(stage.depth), block + depth[s]
    head = make_divisible(width[-2] * space.head_expand)
    sizes = {
        "head": (width[-2], head),
        "head_bn": (None, head),
        "last": (head, width[-1]),
        "classifier": (width[-1], None),
    }
    cut_tree["tail"] = cut_layers(tree["tail"], sizes)
    return cut_tree, cut_heads


def _choices(backbone: Backbone) -> list[list[int]]:
    """Returns width, depth, kernel and expand as plain numbers."""
    return [np.asarray(field).tolist() for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)]
