"""Backbone and exit heads together, as pure functions of (params, stats, backbone, images).

Shapes: E exits, B batch, H, W image, K classes, N batches.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.typing import DTypeLike

from hadas_jax.spaces.exits import available_exits
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.supernet.exits import ExitHead
from hadas_jax.supernet.mbconv import BlockSetting, MBConv, Stem, Tail
from hadas_jax.supernet.regularisation import Drops
from hadas_jax.supernet.resize import resize
from hadas_jax.supernet.tree import Tree, batch_stats_like, is_kernel
from hadas_jax.supernet.trunk import Skip, convolves_shortcut, run_heads, run_trunk

TRUNCATED_DEVIATION = 0.8796  # of a standard normal cut at -2 and 2


@struct.dataclass
class Parameters:
    """What is trained: trees of float32 arrays.

    Attributes:
      backbone: the supernet's weights.
      heads: the exit heads' weights.
    """

    backbone: Tree
    heads: Tree


@struct.dataclass
class BatchStats:
    """Batch-norm statistics of one backbone: means and variances by module."""

    backbone: Tree
    heads: Tree


@struct.dataclass
class Logits:
    """What the network predicts.

    Attributes:
      exits: float32[E + 1, B, K], the final classifier last; zero for exits that the backbone does not have.
      confidence: float32[E, B], logits of the heads' learned confidence; likewise.
    """

    exits: jax.Array
    confidence: jax.Array


def _deviations(space: MBConvSpace) -> Parameters:
    """The deviation of each weight, as the layers' initialisers give it."""
    size = max(space.resolution)
    x = jnp.zeros((1, size, size, space.in_channels), jnp.float32)
    key, zero = jax.random.key(0), jnp.int32(0)
    setting = BlockSetting(zero, zero, zero, zero)

    def shaped(module: nn.Module, *inputs: Any) -> tuple[Any, Tree]:
        output, variables = module.init_with_output(key, *inputs)
        return output, variables["params"]

    backbone, heads, before = {}, {}, space.first_exit
    x, backbone["stem"] = shaped(Stem(space), x, zero)
    for s, stage in enumerate(space.stages):
        depth = max(stage.depth)
        first = MBConv(stage, stage.stride, convolves_shortcut(space, s))
        x, backbone[f"stage{s}_first"] = shaped(first, x, setting)
        if depth > 1:
            _, following = shaped(MBConv(stage, 1, False), x, setting)
            backbone[f"stage{s}_rest"] = _stacked(following, depth - 1)
        exits, before = max(depth - before, 0), max(before - depth, 0)
        if exits:
            _, head = shaped(ExitHead(space.exit_width, space.classes), x)
            heads[f"stage{s}"] = _stacked(head, exits)
    _, backbone["tail"] = shaped(Tail(space), x, zero, zero)
    return Parameters(backbone=backbone, heads=heads)


def _stacked(tree: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), tree)


@partial(jax.jit, static_argnums=0)
def initialise(space: MBConvSpace, key: jax.Array) -> Parameters:
    """Returns fresh parameters of a space's supernet.

    The layers' initialisers give the deviation of each weight, and all weights are drawn at once: one draw
    compiles in a second, one for every layer in ten.
    """
    deviations = _deviations(space)
    leaves, form = jax.tree.flatten(deviations)
    sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])
    draws = jax.random.truncated_normal(key, -2.0, 2.0, (sizes[-1],)) / TRUNCATED_DEVIATION
    random = [draws[a:b].reshape(leaf.shape) for leaf, a, b in zip(leaves, sizes[:-1], sizes[1:], strict=True)]
    kernels = jax.tree.leaves(is_kernel(deviations))
    drawn = [leaf * draw if kernel else leaf for leaf, draw, kernel in zip(leaves, random, kernels, strict=True)]
    return jax.tree.unflatten(form, drawn)


def apply(
    space: MBConvSpace,
    params: Parameters,
    stats: BatchStats,
    backbone: Backbone,
    images: jax.Array,
    *,
    skip: Skip = "nothing",
) -> Logits:
    """Runs one backbone with all exits in one pass; `jax.vmap` over stats and backbone runs a population.

    Args:
      space: static.
      params: shared weights.
      stats: the backbone's batch-norm statistics, from `estimate_batch_stats`.
      backbone: one design of the space.
      images: [B, H, W, channels] at the backbone's resolution, float32 or bfloat16.
      skip: static; what the backbone does not use is skipped instead of masked: quicker, but not under `jax.vmap`.
    """
    trunk = run_trunk(space, params.backbone, backbone, images, stats=stats.backbone, skip=skip)
    available = available_exits(space, backbone)
    logits, confidence, _ = run_heads(
        space, params.heads, trunk.features, available, stats=stats.heads, skip=skip != "nothing"
    )
    return Logits(exits=jnp.concatenate([logits, trunk.logits[None]]), confidence=confidence)


def apply_training(
    space: MBConvSpace,
    weights: Tree,
    backbone: Backbone,
    images: jax.Array,
    *,
    drops: Drops | None = None,
    dtype: DTypeLike = jnp.float32,
    skip: Skip = "blocks",
    remat: bool = False,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Runs the backbone alone, normalised by the batch's own statistics.

    Args:
      space: static.
      weights: of the backbone, float32.
      backbone: one design of the space.
      images: float32[B, H, W, channels] at the backbone's resolution.
      drops: dropout and drop-connect, from `draw_drops`; None: none.
      dtype: that everything but statistics and logits is computed in, float32 or bfloat16.
      skip: what is skipped instead of masked; "nothing" for `jax.vmap`.
      remat: for gradients keep the blocks' inputs alone and compute each block twice.

    Returns:
      The stages' features [D, B, H', W', C], and logits float32[B, K].
    """
    result = run_trunk(space, weights, backbone, images.astype(dtype), drops=drops, skip=skip, remat=remat)
    return result.features, result.logits


@partial(jax.jit, static_argnums=0, static_argnames=("skip", "resolution", "dtype"))
def estimate_batch_stats(
    space: MBConvSpace,
    params: Parameters,
    backbone: Backbone,
    batches: jax.Array,
    *,
    skip: Skip = "nothing",
    resolution: int | None = None,
    dtype: str = "float32",
) -> BatchStats:
    """Re-estimates a backbone's batch-norm statistics: the mean over batches of each batch's own.

    Args:
      space: static.
      params: shared weights.
      backbone: one design of the space.
      batches: float32[N, B, H, W, channels] training images.
      skip: see `apply`; what is skipped has statistics of zero.
      resolution: of the backbone, to which batches are resized one at a time; None: they have it.
      dtype: that features are computed in, float32 or bfloat16.
    """
    available = available_exits(space, backbone)

    def one(images: jax.Array) -> BatchStats:
        images = resize(images, resolution or images.shape[1]).astype(jnp.dtype(dtype))
        trunk = run_trunk(space, params.backbone, backbone, images, keep_stats=True, skip=skip)
        *_, heads = run_heads(space, params.heads, trunk.features, available, keep_stats=True, skip=skip != "nothing")
        return BatchStats(backbone=trunk.stats, heads=heads)

    like = BatchStats(backbone=batch_stats_like(params.backbone), heads=batch_stats_like(params.heads))
    zeros = jax.tree.map(jnp.zeros_like, like)
    add = lambda total, images: (jax.tree.map(jnp.add, total, one(images)), None)  # noqa: E731
    total, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda leaf: leaf / len(batches), total)
