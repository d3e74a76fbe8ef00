"""Checkpoints of the original PyTorch supernet: the reference case, and those of small spaces, written by name.

Names and layouts are written down here once more, from the reference's list of them, so that the import is checked
against something that it does not share.
"""

import functools
import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces import Backbone

FOLDER = Path(__file__).parent / "supernet" / "attentivenas_parity"
REFERENCE = json.loads((FOLDER / "fixture.json").read_text())


def _load_recipe():
    spec = importlib.util.spec_from_file_location("recipe", FOLDER / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _load_recipe()


def case(name):
    return next(case for case in REFERENCE["cases"] if case["name"] == name)


def draw_entries(shapes):
    return {name: recipe.make_tensor(name, tuple(shape)) for name, shape in shapes.items()}


@functools.cache
def reference_arrays():
    """The state dict behind the reference, with 100 classes; not to be changed."""
    return draw_entries(REFERENCE["key_shapes"])


def backbone_of(case):
    config = case["config"]
    fields = (config[field] for field in ("resolution", "width", "depth", "kernel_size", "expand_ratio"))
    return Backbone(*(jnp.asarray(field, jnp.int32) for field in fields))


def write_original(space, params, stats):
    """Returns the state dict of a space's supernet from trees of its weights and statistics."""
    entries = {}
    weights, statistics = params.backbone, stats.backbone
    conv = lambda kernel: np.moveaxis(np.asarray(kernel), (0, 1, 2, 3), (2, 3, 1, 0))  # noqa: E731
    pointwise = lambda kernel: np.asarray(kernel).T[:, :, None, None]  # noqa: E731

    def norm(name, scale_bias, mean_var):
        entries[f"{name}.weight"], entries[f"{name}.bias"] = scale_bias["scale"], scale_bias["bias"]
        entries[f"{name}.running_mean"], entries[f"{name}.running_var"] = mean_var["mean"], mean_var["var"]
        entries[f"{name}.num_batches_tracked"] = np.int64(7)
        entries[f"{name.removesuffix('.bn')}.bn_tracking.0.running_mean"] = mean_var["mean"]

    entries["first_conv.conv.conv.weight"] = conv(weights["stem"]["kernel"])
    norm("first_conv.bn.bn", weights["stem"]["bn"], statistics["stem"]["bn"])
    number = 0
    for s, stage in enumerate(space.stages):
        for block in range(max(stage.depth)):
            part, at = (f"stage{s}_first", ()) if block == 0 else (f"stage{s}_rest", (block - 1,))
            own, own_stats = weights[part], statistics[part]
            name, middle = f"blocks.{number}", f"blocks.{number}.mobile_inverted_conv"
            layers = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}
            for layer, original in layers.items():
                if layer not in own:
                    continue
                kernel = np.asarray(own[layer]["kernel"])[at]
                kernel = kernel.transpose(2, 0, 1)[:, None] if layer == "depthwise" else pointwise(kernel)
                entries[f"{middle}.{original}.conv.conv.weight"] = kernel
                pick = lambda tree, at=at: {key: np.asarray(leaf)[at] for key, leaf in tree.items()}  # noqa: E731
                norm(f"{middle}.{original}.bn.bn", pick(own[f"{layer}_bn"]), pick(own_stats[f"{layer}_bn"]))
            for layer, original in {"squeeze": "reduce", "excite": "expand"}.items() if stage.se else ():
                entries[f"{middle}.depth_conv.se.fc.{original}.weight"] = pointwise(
                    np.asarray(own["se"][layer]["kernel"])[at]
                )
                entries[f"{middle}.depth_conv.se.fc.{original}.bias"] = np.asarray(own["se"][layer]["bias"])[at]
            outs = max(stage.width)
            shortcut = pointwise(own["shortcut"]["kernel"]) if "shortcut" in own else np.ones((outs, outs, 1, 1))
            entries[f"{name}.shortcut.conv.conv.weight"] = shortcut
            number += 1
    tail = weights["tail"]
    entries["last_conv.final_expand_layer.conv.conv.weight"] = pointwise(tail["head"]["kernel"])
    norm("last_conv.final_expand_layer.bn.bn", tail["head_bn"], statistics["tail"]["head_bn"])
    entries["last_conv.feature_mix_layer.conv.conv.weight"] = pointwise(tail["last"]["kernel"])
    entries["classifier.linear.linear.weight"] = np.asarray(tail["classifier"]["kernel"]).T
    entries["classifier.linear.linear.bias"] = tail["classifier"]["bias"]
    return {name: np.asarray(entry) for name, entry in entries.items()}


def draw_exits(space, channels):
    """Returns entries of exit heads on so many channels each."""
    width, entries = space.exit_width, {}
    for number, count in enumerate(channels):
        shapes = {
            "conv.weight": (width, count, 3, 3),
            **{f"bn_norm.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")},
            "bn_norm.num_batches_tracked": (),
            "confidence.0.weight": (1, width),
            "confidence.0.bias": (1,),
            "classifier.0.weight": (space.classes, width),
            "classifier.0.bias": (space.classes,),
        }
        entries |= draw_entries({f"exits.{number}.{name}": shape for name, shape in shapes.items()})
    return entries | draw_entries({"final_confidence.0.weight": (1, 24), "final_confidence.0.bias": (1,)})
