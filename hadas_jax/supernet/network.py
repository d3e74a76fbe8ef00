"""Backbone and exit heads together, as pure functions of (params, stats, backbone, images).

Shapes: E exits, B batch, H, W image, K classes, N batches.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.supernet.exits import ExitHeads
from hadas_jax.supernet.mbconv import MBConvNet

TRUNCATED_DEVIATION = 0.8796  # of a standard normal cut at -2 and 2
Tree = Any  # a pytree of arrays, nested by module name


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
      exits: float32[E + 1, B, K], the final classifier last; rows of positions that the backbone does not use
        repeat what the head says of the last block before them.
      confidence: float32[E, B], logits of the heads' learned confidence.
    """

    exits: jax.Array
    confidence: jax.Array


def is_kernel(tree: Tree) -> Tree:
    """Returns which leaves of a tree of weights are kernels: neither biases nor batch-norm parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), tree)


@partial(jax.jit, static_argnums=0)
def initialise(space: MBConvSpace, key: jax.Array) -> Parameters:
    """Returns fresh parameters of a space's supernet.

    The layers' initialisers give the deviation of each weight, and all weights are drawn at once: one draw
    compiles in a second, one for every layer in ten.
    """
    size = max(space.resolution)
    images = jnp.zeros((1, size, size, space.in_channels), jnp.float32)
    largest = space.largest()
    trunk = MBConvNet(space)
    backbone = trunk.init(key, images, largest)
    features = jax.eval_shape(lambda v: trunk.apply(v, images, largest)[0], backbone)
    heads = ExitHeads(space).init(key, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), features))
    deviations = Parameters(backbone=backbone["params"], heads=heads["params"])
    leaves, form = jax.tree.flatten(deviations)
    sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])
    draws = jax.random.truncated_normal(key, -2.0, 2.0, (sizes[-1],)) / TRUNCATED_DEVIATION
    random = [draws[a:b].reshape(leaf.shape) for leaf, a, b in zip(leaves, sizes[:-1], sizes[1:], strict=True)]
    kernels = jax.tree.leaves(is_kernel(deviations))
    drawn = [leaf * draw if kernel else leaf for leaf, draw, kernel in zip(leaves, random, kernels, strict=True)]
    return jax.tree.unflatten(form, drawn)


def apply(space: MBConvSpace, params: Parameters, stats: BatchStats, backbone: Backbone, images: jax.Array) -> Logits:
    """Runs one backbone with all exits in one pass; `jax.vmap` over stats and backbone runs a population.

    Args:
      space: static.
      params: shared weights.
      stats: the backbone's batch-norm statistics, from `estimate_batch_stats`.
      backbone: one design of the space.
      images: float32[B, H, W, channels] at the backbone's resolution.
    """
    trunk = {"params": params.backbone, "batch_stats": stats.backbone}
    found: Any = MBConvNet(space).apply(trunk, images, backbone)
    features, final = found
    heads = {"params": params.heads, "batch_stats": stats.heads}
    predicted: Any = ExitHeads(space).apply(heads, features)
    logits, confidence = predicted
    return Logits(exits=jnp.concatenate([logits, final[None]]), confidence=confidence)


def apply_training(
    space: MBConvSpace, weights: Tree, backbone: Backbone, images: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Runs the backbone alone, normalised by the batch's own statistics: the stages' features, logits [B, K]."""
    found: Any = MBConvNet(space, use_batch_stats=True).apply({"params": weights}, images, backbone)
    return found


@partial(jax.jit, static_argnums=0)
def estimate_batch_stats(space: MBConvSpace, params: Parameters, backbone: Backbone, batches: jax.Array) -> BatchStats:
    """Re-estimates a backbone's batch-norm statistics: the mean over batches of each batch's own.

    Args:
      space: static.
      params: shared weights.
      backbone: one design of the space.
      batches: float32[N, B, H, W, channels] training images.
    """

    def one(images: jax.Array) -> BatchStats:
        trunk = MBConvNet(space, use_batch_stats=True)
        (features, _), trunk_stats = trunk.apply({"params": params.backbone}, images, backbone, mutable=["batch_stats"])
        heads = ExitHeads(space, use_batch_stats=True)
        _, head_stats = heads.apply({"params": params.heads}, features, mutable=["batch_stats"])
        return BatchStats(backbone=trunk_stats["batch_stats"], heads=head_stats["batch_stats"])

    _, stats = jax.lax.scan(lambda _, images: (None, one(images)), None, batches)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stats)
