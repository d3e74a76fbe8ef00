"""Runs a static network in JAX, layer by layer.

Shapes: B batch, H, W image, C channels, K classes, e = exits of the network.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from hadas_jax.deploy.layers import Layer, Segment, Weights
from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.depthwise import LAYOUT, depthwise_conv
from hadas_jax.supernet.elastic import BatchNorm, along_channels, half_size_average, hard_sigmoid
from hadas_jax.supernet.tree import Tree, call

_STATISTICS = ("mean", "var")


def run_segment(
    segment: Segment,
    weights: Weights,
    x: jax.Array,
    *,
    statistics: dict[str, Tree] | None = None,
    portable: bool = False,
) -> dict[str, jax.Array]:
    """Runs one segment.

    Args:
      segment: static.
      weights: of its layers, or of all.
      x: its input [B, H, W, C].
      statistics: where the batch's own statistics are put by layer, which then normalise; None: the given ones do.
      portable: convolutions are XLA's own, whatever is quickest here.

    Returns:
      The outputs by name.
    """
    found = _run_layers(segment, weights, x, statistics, portable)
    return {name: found[name] for name in segment.outputs}


def _run_layers(
    segment: Segment, weights: Weights, x: jax.Array, statistics: dict[str, Tree] | None, portable: bool
) -> dict[str, jax.Array]:
    """Returns what the segment takes and the outputs of all its layers."""
    found = {segment.takes: x}
    for layer in segment.layers:
        inputs = [found[name] for name in layer.inputs]
        found[layer.name] = _run(layer, weights.get(layer.name, {}), inputs, statistics, portable)
    return found


def output_shapes(
    segments: Sequence[Segment], weights: Weights, *, image_size: int, channels: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every layer's output and of the images, without the axis of the batch: [H, W, C] or [C].

    Args:
      segments: of the network.
      weights: of its layers.
      image_size: height and width.
      channels: of the images.
    """

    def everything(weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = {}
        for segment in segments:
            found |= _run_layers(segment, weights, found.get(segment.takes, x), None, True)
        return found

    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    return {name: found.shape[1:] for name, found in jax.eval_shape(everything, weights, images).items()}


def run_network(
    segments: Sequence[Segment],
    weights: Weights,
    images: jax.Array,
    *,
    statistics: dict[str, Tree] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Runs all segments for all images, as if no exit were taken.

    Args:
      segments: static.
      weights: of all layers.
      images: float32[B, H, W, C] standardised.
      statistics: see `run_segment`.

    Returns:
      Logits float32[e + 1, B, K], the classifier last, and the logits of the exits' own confidence float32[e, B].
    """
    logits, confidence = [], [jnp.zeros((0, len(images)), jnp.float32)]
    x = images
    for segment in segments:
        found = run_segment(segment, weights, x, statistics=statistics)
        logits.append(found[segment.logits])
        if segment.confidence is not None:
            confidence.append(found[segment.confidence].T)
        if segment.features is not None:
            x = found[segment.features]
    return jnp.stack(logits), jnp.concatenate(confidence)


def _run(
    layer: Layer, weights: Tree, inputs: list[jax.Array], statistics: dict[str, Tree] | None, portable: bool
) -> jax.Array:
    x = inputs[0]
    match layer.kind:
        case "resize":
            rows = weights["rows"].astype(x.dtype)
            x = jnp.einsum("bhwc,yh,xw->byxc", x, rows, rows, precision="highest")
        case "conv" | "depthwise":
            x = _convolve(layer, weights["kernel"], x, portable)
        case "linear":
            x = x @ weights["kernel"]
        case "batch_norm":
            given = None if statistics is not None else {name: weights[name] for name in _STATISTICS}
            own = {name: leaf for name, leaf in weights.items() if name not in _STATISTICS}
            x, found = call(BatchNorm(given is None), own, given, x, keep_stats=given is None)
            if statistics is not None:
                statistics[layer.name] = found
            return x
        case "swish":
            x = jax.nn.swish(x)
        case "relu":
            x = jax.nn.relu(x)
        case "leaky_relu":
            x = jax.nn.leaky_relu(x, 0.01)
        case "hard_sigmoid":
            x = hard_sigmoid(x)
        case "half":
            x = half_size_average(x)
        case "mean":
            x = jnp.mean(x, (1, 2))
        case "gate":
            x = x * inputs[1][:, None, None, :]
        case "add":
            x = x + inputs[1]
    return x + along_channels(weights["bias"], x) if "bias" in weights else x


def _convolve(layer: Layer, kernel: jax.Array, x: jax.Array, portable: bool) -> jax.Array:
    if not portable:
        if layer.kind == "depthwise":
            return depthwise_conv(x, kernel, layer.stride)
        return conv(x, kernel, stride=layer.stride, padding=layer.padding)
    groups = 1
    if layer.kind == "depthwise":
        kernel, groups = kernel[:, :, None], kernel.shape[-1]
    pads = ((layer.padding, layer.padding),) * 2
    strides = (layer.stride, layer.stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=LAYOUT, feature_group_count=groups)
