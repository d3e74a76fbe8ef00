"""A backbone with all its exit heads, as pure functions of (params, stats, backbone, images).

Within a stage, the blocks after the first are equal and are scanned over; blocks that a backbone does not use pass
their input on. What a backbone does not use is masked, which suits `jax.vmap`, or skipped at run time, which is
quicker for one backbone after another (AttentiveNAS, https://arxiv.org/abs/2011.09011).
Shapes: E exits, B batch, H, W image, C channels, K classes, N batches, D depth of a stage at its largest.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.typing import DTypeLike

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, available_exits
from hadas_jax.supernet.blocks import BlockSetting, Drops, ExitHead, MBConv, Skip, Stem, Tail, run_block
from hadas_jax.supernet.layers import Tree, call, is_kernel, mean_over, resize
from hadas_jax.supernet.quantisation import FLOAT32, Storage

_TRUNCATED_STD = 0.8796  # of a standard normal cut at -2 and 2


@struct.dataclass
class Parameters:
    """What is trained: trees of float32 arrays.

    Attributes:
        backbone: The supernet's weights.
        heads: The exit heads' weights.
    """

    backbone: Tree
    heads: Tree


@struct.dataclass
class BatchStats:
    """Batch-norm statistics of one backbone: means and variances by module; for int8 the ranges of activations too."""

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


def apply(
    space: MBConvSpace,
    params: Parameters,
    stats: BatchStats,
    backbone: Backbone,
    images: jax.Array,
    *,
    skip: Skip = "nothing",
    storage: Storage = FLOAT32,
) -> Logits:
    """Runs one backbone with all exits in one pass; `jax.vmap` over stats and backbone runs a population.

    Args:
        space: Static.
        params: Shared weights.
        stats: The backbone's batch-norm statistics, from `estimate_batch_stats`.
        backbone: One design of the space.
        images: [B, H, W, channels] at the backbone's resolution, float32 or bfloat16.
        skip: Static; what the backbone does not use is skipped instead of masked: quicker, but not under `jax.vmap`.
        storage: Static, how activations are stored; weights are stored by `fold.stored_network`.
    """
    trunk, heads = params.backbone, params.heads
    features, final, _ = run_trunk(space, trunk, backbone, images, stats=stats.backbone, skip=skip, storage=storage)
    available, how = available_exits(space, backbone), {"skip": skip != "nothing"}
    exits, confidence, _ = run_heads(space, heads, features, available, stats=stats.heads, storage=storage, **how)
    return Logits(exits=jnp.concatenate([exits, final[None]]), confidence=confidence)


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
        space: Static.
        weights: Of the backbone, float32.
        backbone: One design of the space.
        images: float32[B, H, W, channels] at the backbone's resolution.
        drops: Dropout and drop-connect, from `draw_drops`; None: none.
        dtype: That everything but statistics and logits is computed in, float32 or bfloat16.
        skip: What is skipped instead of masked; "nothing" for `jax.vmap`.
        remat: For gradients keep the blocks' inputs alone and compute each block twice.

    Returns:
        The stages' features [D, B, H', W', C], and logits float32[B, K].
    """
    return run_trunk(space, weights, backbone, images.astype(dtype), drops=drops, skip=skip, remat=remat)[:2]


@partial(jax.jit, static_argnums=0, static_argnames=("skip", "resolution", "dtype", "storage"))
def estimate_batch_stats(
    space: MBConvSpace,
    params: Parameters,
    backbone: Backbone,
    batches: jax.Array,
    *,
    skip: Skip = "nothing",
    resolution: int | None = None,
    dtype: str = "float32",
    storage: Storage = FLOAT32,
) -> BatchStats:
    """Re-estimates a backbone's batch-norm statistics: the mean over batches of each batch's own.

    Args:
        space: Static.
        params: Shared weights.
        backbone: One design of the space.
        batches: float32[N, B, H, W, channels] training images.
        skip: See `apply`; what is skipped has statistics of zero.
        resolution: Of the backbone, to which batches are resized one at a time; None: they have it.
        dtype: That features are computed in, float32 or bfloat16.
        storage: Static; for int8 the ranges of activations are found as well, the mean over batches of each one's own.
    """
    available = available_exits(space, backbone)

    def one(images: jax.Array) -> BatchStats:
        images = resize(images, resolution or images.shape[1]).astype(jnp.dtype(dtype))
        how: dict[str, Any] = {"keep_stats": True, "storage": storage}
        features, _, stats = run_trunk(space, params.backbone, backbone, images, skip=skip, **how)
        *_, heads = run_heads(space, params.heads, features, available, skip=skip != "nothing", **how)
        return BatchStats(backbone=stats, heads=heads)

    return mean_over(one, batches, like=jax.eval_shape(one, batches[0]))


def run_trunk(
    space: MBConvSpace,
    weights: Tree,
    backbone: Backbone,
    images: jax.Array,
    *,
    stats: Tree | None = None,
    keep_stats: bool = False,
    skip: Skip = "nothing",
    drops: Drops | None = None,
    unroll: bool = False,
    remat: bool = False,
    storage: Storage = FLOAT32,
) -> tuple[tuple[jax.Array, ...], jax.Array, Tree]:
    """Runs one backbone.

    Args:
        space: Static.
        weights: Of the supernet.
        backbone: One design of the space.
        images: [B, H, W, channels] at the backbone's resolution; everything is computed in their type.
        stats: batch-norm statistics; None: the batch's own normalise.
        keep_stats: Return the batch's own statistics.
        skip: What is skipped instead of masked.
        drops: Dropout and drop-connect; None: none.
        unroll: Compile every block instead of one scanned over: slower to compile, and as a network that is cut out for
            deployment runs.
        remat: For gradients keep the blocks' inputs alone and compute each block twice.
        storage: How activations are stored.

    Returns:
        Per stage the outputs of its block positions [D, B, H', W', C], logits float32[B, K], and the batch's statistics
        by module, where they are kept.
    """
    run = partial(run_block, keep_stats=keep_stats, skip=skip, remat=remat)
    how: dict[str, Any] = {"use_batch_stats": stats is None, "storage": storage}
    given: dict[str, Tree] = stats or {}
    found: dict[str, Tree] = {}
    stem = Stem(space, **how)
    x, found["stem"] = call(stem, weights["stem"], given.get("stem"), images, backbone.width[0], keep_stats=keep_stats)
    features, position = [], 0
    for s, stage in enumerate(space.stages):
        first, rest, depth = f"stage{s}_first", f"stage{s}_rest", max(stage.depth)
        setting = BlockSetting(backbone.width[s], backbone.width[s + 1], backbone.kernel[s], backbone.expand[s])
        block = MBConv(stage, stage.stride, _convolves_shortcut(space, s), **how)
        x, found[first] = run(block, weights[first], given.get(first), x, setting)
        outputs = x[None]
        if depth > 1:
            block = MBConv(stage, 1, False, **how)
            following = setting._replace(in_width=setting.out_width)
            keep = None if drops is None else drops.blocks[position + 1 : position + depth]

            def step(
                x: jax.Array, row: tuple, block: MBConv = block, setting: BlockSetting = following
            ) -> tuple[jax.Array, tuple]:
                weights, stats, keep, active = row
                x, found = run(block, weights, stats, x, setting, keep, active)
                return x, (x, found)

            rows = (weights[rest], given.get(rest), keep, jnp.arange(1, depth) < backbone.depth[s])
            x, (others, found[rest]) = jax.lax.scan(step, x, rows, unroll=depth - 1 if unroll else 1)
            outputs = jnp.concatenate([outputs, others])
        features.append(outputs)
        position += depth
    tail = Tail(space, **how)
    ends = (backbone.width[-2], backbone.width[-1], None if drops is None else drops.last)
    logits, found["tail"] = call(tail, weights["tail"], given.get("tail"), x, *ends, keep_stats=keep_stats)
    return tuple(features), logits, found


def run_heads(
    space: MBConvSpace,
    weights: Tree,
    features: tuple[jax.Array, ...],
    available: jax.Array,
    *,
    stats: Tree | None = None,
    keep_stats: bool = False,
    skip: bool = False,
    storage: Storage = FLOAT32,
) -> tuple[jax.Array, jax.Array, Tree]:
    """Runs the heads of every exit.

    Args:
        space: Static.
        weights: Of the heads.
        features: Per stage [D, B, H, W, C], from `run_trunk`.
        available: bool[E], the exits that the backbone has; the others answer zero.
        stats: batch-norm statistics; None: the batch's own normalise.
        keep_stats: Return the batch's own statistics.
        skip: Do not compute what is not available, see `run_trunk`.
        storage: How activations are stored.

    Returns:
        Logits float32[E, B, K], confidence logits float32[E, B], and statistics.
    """
    head = ExitHead(space.exit_width, space.classes, use_batch_stats=stats is None, storage=storage)

    def run(weights: Tree, stats: Tree | None, x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], Tree]:
        return call(head, weights, stats, x, keep_stats=keep_stats)

    def nothing(*operands: Any) -> tuple[tuple[jax.Array, jax.Array], Tree]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(run, *operands))

    def step(_: None, row: tuple) -> tuple[None, tuple]:
        available, *operands = row
        if skip:
            return None, jax.lax.cond(available, run, nothing, *operands)
        answers, found = run(*operands)
        return None, (jax.tree.map(lambda leaf: jnp.where(available, leaf, 0), answers), found)

    batch = features[0].shape[1]
    logits = [jnp.zeros((0, batch, space.classes), jnp.float32)]
    confidences = [jnp.zeros((0, batch), jnp.float32)]
    found: dict[str, Tree] = {}
    done, before = 0, space.first_exit
    for s, stage in enumerate(features):
        stage, before = stage[min(before, len(stage)) :], max(before - len(stage), 0)
        if not len(stage):
            continue
        name = f"stage{s}"
        rows = (available[done : done + len(stage)], weights[name], stats and stats[name], stage)
        _, ((stage_logits, stage_confidences), found[name]) = jax.lax.scan(step, None, rows)
        logits.append(stage_logits)
        confidences.append(stage_confidences)
        done += len(stage)
    return jnp.concatenate(logits), jnp.concatenate(confidences), found


def _convolves_shortcut(space: MBConvSpace, stage: int) -> bool:
    """Whether the first block of a stage may change the number of channels."""
    before = space.stages[stage - 1].width if stage else space.stem_width
    return before != space.stages[stage].width or len(before) > 1


@partial(jax.jit, static_argnums=0)
def initialise(space: MBConvSpace, key: jax.Array) -> Parameters:
    """Returns fresh parameters of a space's supernet.

    The layers' initialisers give the standard deviation of each weight, and all weights are drawn at once: one draw
    compiles in a second, one for every layer in ten.
    """
    stds = _stds(space)
    leaves, form = jax.tree.flatten(stds)
    sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])
    draws = jax.random.truncated_normal(key, -2.0, 2.0, (sizes[-1],)) / _TRUNCATED_STD
    random = [draws[a:b].reshape(leaf.shape) for leaf, a, b in zip(leaves, sizes[:-1], sizes[1:], strict=True)]
    kernels = jax.tree.leaves(is_kernel(stds))
    drawn = [leaf * draw if kernel else leaf for leaf, draw, kernel in zip(leaves, random, kernels, strict=True)]
    return jax.tree.unflatten(form, drawn)


def _stds(space: MBConvSpace) -> Parameters:
    """The standard deviation of each weight, as the layers' initialisers give it."""
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
        first = MBConv(stage, stage.stride, _convolves_shortcut(space, s))
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
