"""A backbone's weights as its network stores them: batch norm folded in, then rounded to the number format.

Folding gives each backbone weights of its own, as an export does (`hadas_jax.deploy.layers.fold_batch_norm`), so that
what is simulated in the supernet is what is exported. What is folded stays in the supernet's form, with batch norms
that add a bias and no more; channels and taps that the backbone does not have are zero.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, make_divisible
from hadas_jax.supernet.blocks import BlockSetting, active_taps
from hadas_jax.supernet.layers import BatchNorm, Tree, along_channels
from hadas_jax.supernet.network import BatchStats, Parameters
from hadas_jax.supernet.quantisation import Storage, stored_bias, stored_kernel
from hw_models import NumberFormat

_Widths = tuple[jax.Array | None, jax.Array | None]  # active inputs and outputs of a layer; None: all


def stored_network(
    space: MBConvSpace, params: Parameters, stats: BatchStats, backbone: Backbone, *, storage: Storage
) -> tuple[Parameters, BatchStats]:
    """Returns weights and statistics of one backbone as they are stored; in fp32 they are what they were.

    Args:
        space: Static.
        params: Shared weights.
        stats: Of the backbone, from `estimate_batch_stats`.
        backbone: One design of the space.
        storage: Static.
    """
    if storage.number_format == NumberFormat.FP32:
        return params, stats
    store = partial(_stored, number_format=storage.number_format)
    weights, given = dict(params.backbone), dict(stats.backbone)
    heads, head_stats = dict(params.heads), dict(stats.heads)
    width, stem = backbone.width, {"stem": {"kernel": weights["stem"]["kernel"]}, "stem_bn": weights["stem"]["bn"]}
    stem, norms = store(stem, {"stem_bn": given["stem"]["bn"]}, {"stem": (None, width[0])})
    weights["stem"] = {"kernel": stem["stem"]["kernel"], "bn": stem["stem_bn"]}
    given["stem"] = given["stem"] | {"bn": norms["stem_bn"]}
    for s, stage in enumerate(space.stages):
        setting = BlockSetting(width[s], width[s + 1], backbone.kernel[s], backbone.expand[s])
        first, rest = f"stage{s}_first", f"stage{s}_rest"
        block = partial(_stored_block, stage=stage, number_format=storage.number_format)
        weights[first], given[first] = block(weights[first], given[first], setting)
        if rest in weights:
            following = setting._replace(in_width=setting.out_width)
            weights[rest], given[rest] = jax.vmap(partial(block, setting=following))(weights[rest], given[rest])
        if f"stage{s}" in heads:
            head = partial(_stored_head, width=width[s + 1], number_format=storage.number_format)
            trees = heads[f"stage{s}"], head_stats[f"stage{s}"]
            heads[f"stage{s}"], head_stats[f"stage{s}"] = jax.vmap(head)(*trees)
    middle = make_divisible(width[-2] * space.head_expand)
    sizes: dict[str, _Widths] = {
        "head": (width[-2], middle),
        "last": (middle, width[-1]),
        "classifier": (width[-1], None),
    }
    weights["tail"], given["tail"] = store(weights["tail"], given["tail"], sizes)
    return Parameters(backbone=weights, heads=heads), BatchStats(backbone=given, heads=head_stats)


def _stored_block(
    weights: Tree, stats: Tree, setting: BlockSetting, *, stage: Stage, number_format: NumberFormat
) -> tuple[Tree, Tree]:
    """Weights and statistics of one block."""
    ins, outs = setting.in_width, setting.out_width
    mid = make_divisible(ins * setting.expand) if stage.expands else ins
    hidden = make_divisible(mid // 4)
    taps = active_taps(max(stage.kernel), setting.kernel)
    weights = weights | {"depthwise": {"kernel": weights["depthwise"]["kernel"] * taps}}
    sizes: dict[str, _Widths] = {
        "expand": (ins, mid),
        "depthwise": (None, mid),
        "project": (mid, outs),
        "shortcut": (ins, outs),
    }
    weights, stats = _stored(weights, stats, sizes, number_format=number_format)
    if "se" in weights:
        gates: dict[str, _Widths] = {"squeeze": (mid, hidden), "excite": (hidden, mid)}
        weights["se"], _ = _stored(weights["se"], {}, gates, number_format=number_format)
    return weights, stats


def _stored_head(weights: Tree, stats: Tree, *, width: jax.Array, number_format: NumberFormat) -> tuple[Tree, Tree]:
    """Weights and statistics of one exit head on features of `width` channels."""
    layers = {name: leaf for name, leaf in weights.items() if name in ("classifier", "confidence")}
    layers |= {"conv": {"kernel": weights["conv"]}, "conv_bn": weights["bn"]}
    sizes: dict[str, _Widths] = {"conv": (width, None), "classifier": (None, None), "confidence": (None, None)}
    layers, norms = _stored(layers, {"conv_bn": stats["bn"]}, sizes, number_format=number_format)
    changed = {name: layers[name] for name in ("classifier", "confidence")}
    return changed | {"conv": layers["conv"]["kernel"], "bn": layers["conv_bn"]}, stats | {"bn": norms["conv_bn"]}


def _stored(weights: Tree, stats: Tree, sizes: dict[str, _Widths], *, number_format: NumberFormat) -> tuple[Tree, Tree]:
    """Folds each layer with the batch norm behind it, if there is one, and rounds it."""
    weights, stats = dict(weights), dict(stats)
    for name, (inputs, outputs) in sizes.items():
        if name not in weights:
            continue
        kernel, norm, bias = weights[name]["kernel"], f"{name}_bn", weights[name].get("bias")
        if norm in weights:
            mean, var = stats[norm]["mean"], stats[norm]["var"]
            factor = weights[norm]["scale"] * jax.lax.rsqrt(var + BatchNorm.epsilon)
            kernel, added = kernel * along_channels(factor, kernel), weights[norm]["bias"] - mean * factor
            weights[norm] = {"scale": jnp.ones_like(factor), "bias": stored_bias(added, number_format)}
            stats[norm] = stats[norm] | {"mean": jnp.zeros_like(mean), "var": jnp.full_like(var, 1 - BatchNorm.epsilon)}
        layer = {"kernel": stored_kernel(_active(kernel, inputs, outputs), number_format)}
        weights[name] = layer if bias is None else layer | {"bias": stored_bias(bias, number_format)}
    return weights, stats


def _active(kernel: jax.Array, inputs: jax.Array | None, outputs: jax.Array | None) -> jax.Array:
    """A kernel [..., C, O], or [k, k, O] without `inputs`, with zeros beyond the active channels."""
    for axis, active in ((-2, inputs), (-1, outputs)):
        if active is not None:
            there = (jnp.arange(kernel.shape[axis]) < active).astype(kernel.dtype)
            shape = [1] * kernel.ndim
            shape[axis] = -1
            kernel = kernel * there.reshape(shape)
    return kernel
