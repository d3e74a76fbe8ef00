"""The backbone's weights and batch-norm statistics out of the original's state dict, by the original's names.

All block positions are numbered through; the first block of a stage may convolve its shortcut.
"""

import jax
import numpy as np

from hadas_jax.spaces.mbconv import MBConvSpace, Stage, make_divisible
from hadas_jax.supernet.pytorch_entries import Entries
from hadas_jax.supernet.tree import Tree
from hadas_jax.supernet.trunk import convolves_shortcut

CLASSIFIER = "classifier.linear.linear"


def read_backbone(space: MBConvSpace, entries: Entries, *, classified: bool) -> tuple[Tree, Tree]:
    """Reads a supernet's weights and batch-norm statistics, as trees of arrays.

    Args:
      space: of the supernet.
      entries: of the state dict.
      classified: with the classifier.
    """
    widest = max(space.stem_width)
    kernel = entries.convolution("first_conv.conv.conv", outs=widest, ins=space.in_channels, size=3)
    norm, norm_stats = entries.norm("first_conv.bn.bn", widest)
    weights: Tree = {"stem": {"kernel": kernel, "bn": norm}}
    stats: Tree = {"stem": {"bn": norm_stats}}
    number, ins = 0, widest
    for s, stage in enumerate(space.stages):
        blocks = []
        for block in range(max(stage.depth)):
            convolved = block == 0 and convolves_shortcut(space, s)
            blocks.append(_block(entries, stage, number, ins=ins, convolved=convolved))
            number, ins = number + 1, max(stage.width)
        weights[f"stage{s}_first"], stats[f"stage{s}_first"] = blocks[0]
        if len(blocks) > 1:
            rest = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks[1:])
            weights[f"stage{s}_rest"], stats[f"stage{s}_rest"] = rest
    weights["tail"], stats["tail"] = _tail(space, entries, classified=classified)
    return weights, stats


def _block(entries: Entries, stage: Stage, number: int, *, ins: int, convolved: bool) -> tuple[Tree, Tree]:
    name, outs = f"blocks.{number}.mobile_inverted_conv", max(stage.width)
    mid = make_divisible(ins * max(stage.expand)) if stage.expands else ins
    weights: Tree = {}
    stats: Tree = {}

    def add_norm(part: str, layer: str, channels: int) -> None:
        weights[part], norm_stats = entries.norm(f"{name}.{layer}.bn.bn", channels)
        stats[part] = norm_stats

    if stage.expands:
        weights["expand"] = entries.pointwise(f"{name}.inverted_bottleneck.conv.conv", outs=mid, ins=ins)
        add_norm("expand_bn", "inverted_bottleneck", mid)
    weights["depthwise"] = entries.depthwise(f"{name}.depth_conv.conv.conv", channels=mid, size=max(stage.kernel))
    add_norm("depthwise_bn", "depth_conv", mid)
    if stage.se:
        hidden, gate = make_divisible(mid // 4), f"{name}.depth_conv.se.fc"
        weights["se"] = {
            "squeeze": entries.linear(f"{gate}.reduce", outs=hidden, ins=mid, convolves=True),
            "excite": entries.linear(f"{gate}.expand", outs=mid, ins=hidden, convolves=True),
        }
    weights["project"] = entries.pointwise(f"{name}.point_linear.conv.conv", outs=outs, ins=mid)
    add_norm("project_bn", "point_linear", outs)
    if convolved:
        weights["shortcut"] = entries.pointwise(f"blocks.{number}.shortcut.conv.conv", outs=outs, ins=ins)
    return weights, stats


def _tail(space: MBConvSpace, entries: Entries, *, classified: bool) -> tuple[Tree, Tree]:
    ins, last = max(space.stages[-1].width), max(space.last_width)
    head = make_divisible(ins * space.head_expand)
    norm, norm_stats = entries.norm("last_conv.final_expand_layer.bn.bn", head)
    weights = {
        "head": entries.pointwise("last_conv.final_expand_layer.conv.conv", outs=head, ins=ins),
        "head_bn": norm,
        "last": entries.pointwise("last_conv.feature_mix_layer.conv.conv", outs=last, ins=head),
    }
    if classified:
        weights["classifier"] = entries.linear(CLASSIFIER, outs=space.classes, ins=last)
    return weights, {"head_bn": norm_stats}
