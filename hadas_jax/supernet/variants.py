"""Variants of a block: one for each kernel size and expand ratio, of the size that it computes and no larger.

A variant is the block of a stage with fewer options, and its weights are a cut of the stage's: the leading middle
channels and the centre of the kernel.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from hadas_jax.spaces.mbconv import Stage, make_divisible
from hadas_jax.supernet.mbconv import BlockSetting
from hadas_jax.supernet.tree import Tree


def variants(stage: Stage) -> tuple[Stage, ...]:
    """Returns the stage with one kernel size and one expand ratio each, ratios fastest."""
    pairs = itertools.product(stage.kernel, stage.expand)
    return tuple(dataclasses.replace(stage, kernel=(kernel,), expand=(expand,)) for kernel, expand in pairs)


def variant_index(stage: Stage, setting: BlockSetting) -> jax.Array:
    """Returns int32[]: which of `variants` a block takes."""
    kernel, expand = (
        jnp.argmax(jnp.array(options, jnp.int32) == value).astype(jnp.int32)
        for options, value in ((stage.kernel, setting.kernel), (stage.expand, setting.expand))
    )
    return kernel * len(stage.expand) + expand


def cut_block(tree: Tree, stage: Stage, variant: Stage, in_channels: int) -> Tree:
    """Cuts a variant's weights, or batch-norm statistics, out of those of a stage's block.

    Args:
      tree: of one block.
      stage: whose block it is.
      variant: one of `variants`.
      in_channels: largest width of the block's input.
    """
    mid = make_divisible(in_channels * max(variant.expand)) if stage.expands else in_channels
    rim = (max(stage.kernel) - max(variant.kernel)) // 2
    middle, hidden, taps = slice(mid), slice(make_divisible(mid // 4)), slice(rim, max(stage.kernel) - rim)
    everything = slice(None)
    cuts: dict[str, dict[str, tuple]] = {
        "expand": {"kernel": (everything, middle)},
        "depthwise": {"kernel": (taps, taps, middle)},
        "squeeze": {"kernel": (middle, hidden), "bias": (hidden,)},
        "excite": {"kernel": (hidden, middle), "bias": (middle,)},
        "project": {"kernel": (middle,)},
    }

    def cut(path: tuple, leaf: jax.Array) -> jax.Array:
        layer, name = path[-2].key, path[-1].key
        if layer in ("expand_bn", "depthwise_bn"):
            return leaf[middle]
        return leaf[cuts.get(layer, {}).get(name, ())]

    return jax.tree_util.tree_map_with_path(cut, tree)


def pad_statistics(tree: Tree, like: Tree) -> Tree:
    """Pads a variant's statistics with zeros to the sizes of the stage's block."""
    return jax.tree.map(lambda leaf, whole: jnp.pad(leaf, (0, whole.shape[0] - leaf.shape[0])), tree, like)
