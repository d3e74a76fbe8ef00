"""A static network as data: a list of layers for each segment, and weights by layer; how JAX runs them.

Segment k takes what segment k - 1 hands on and ends with exit k; the last one ends with the classifier. Every layer is
named after its output, and takes the outputs of earlier layers. Nothing is masked: shapes are those of the network.
A network in another number format than fp32 is simulated (`hadas_jax.supernet.quantisation`), with batch norm folded
into the layers before it; for int8 the range of every activation that is stored in 8 bit is among the weights of its
layer, that of the images under their own name.
Shapes: B batch, H, W image, C input and O output channels, k kernel, K classes, e exits of the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.layers import (
    BatchNorm,
    Tree,
    along_channels,
    call,
    conv,
    depthwise_conv,
    half_size_average,
)
from hadas_jax.supernet.quantisation import stored, stored_bias, stored_kernel, swish
from hw_models import NumberFormat

IMAGES = "images"  # the input of the first segment
Kind = Literal[
    "resize",  # rows float[H', H]: both axes of square images
    "conv",  # kernel [k, k, C, O]
    "depthwise",  # kernel [k, k, C]
    "linear",  # kernel [C, O], of features [B, C] or of every pixel
    "batch_norm",  # scale, bias, mean, var [C]
    "swish",
    "relu",
    "leaky_relu",  # slope 0.01
    "hard_sigmoid",  # relu6(x + 3) / 6
    "half",  # 2x2 average with stride 2; odd sizes are padded by 1 and the padding counts
    "mean",  # over pixels: [B, C]
    "gate",  # [B, H, W, C] by [B, C]
    "add",
]
# Arrays by layer, then by name; "bias" beside "kernel" is added to the output of the layer.
Weights = dict[str, dict[str, jax.Array]]
Shapes = dict[str, tuple[int, ...]]  # of outputs by layer, without the axis of the batch: [H, W, C] or [C]
STATISTICS = ("mean", "var")  # of batch norm
RANGE = "range"  # of what a layer gives, float32[2], for int8


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: The name of the layer and of its output.
        kind: What it computes.
        inputs: The names of what it takes.
        stride: The stride of a convolution.
        padding: The padding of a convolution on all sides.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Segment:
    """The layers from one exit to the next.

    Attributes:
        layers: In the order that they run in.
        takes: The name of the segment's input.
        features: The name of what the next segment takes; None: there is none.
        logits: The name of the exit's logits [B, K].
        confidence: The name of the logit of the exit's learned confidence [B, 1]; None for the classifier.
    """

    layers: tuple[Layer, ...]
    takes: str
    features: str | None
    logits: str
    confidence: str | None

    @property
    def outputs(self) -> dict[str, str]:
        """The names of features, logits and confidence by kind, those that there are."""
        outputs = {"features": self.features, "logits": self.logits, "confidence": self.confidence}
        return {kind: name for kind, name in outputs.items() if name is not None}

    @property
    def has_batch_norm(self) -> bool:
        """Whether batch norm is a layer of its own."""
        return any(layer.kind == "batch_norm" for layer in self.layers)


def run_network(
    segments: Sequence[Segment],
    weights: Weights,
    images: jax.Array,
    *,
    statistics: dict[str, Tree] | None = None,
    number_format: NumberFormat = NumberFormat.FP32,
) -> tuple[jax.Array, jax.Array]:
    """Runs all segments for all images, as if no exit were taken.

    Args:
        segments: The segments of the network; static.
        weights: The weights of all layers.
        images: Standardised images, float32[B, H, W, C].
        statistics: See `run_segment`.
        number_format: See `run_segment`.

    Returns:
        Logits float32[e + 1, B, K], the classifier last, and the logits of the exits' learned confidence
        float32[e, B].
    """
    chex.assert_rank(images, 4, custom_message="images: expected [B, H, W, C]")
    logits, confidence = [], [jnp.zeros((0, len(images)), jnp.float32)]
    x = images
    for segment in segments:
        values = run_segment(segment, weights, x, statistics=statistics, number_format=number_format)
        logits.append(values[segment.logits])
        if segment.confidence is not None:
            confidence.append(values[segment.confidence].T)
        if segment.features is not None:
            x = values[segment.features]
    return jnp.stack(logits), jnp.concatenate(confidence)


def run_segment(
    segment: Segment,
    weights: Weights,
    x: jax.Array,
    *,
    statistics: dict[str, Tree] | None = None,
    number_format: NumberFormat = NumberFormat.FP32,
) -> dict[str, jax.Array]:
    """Runs one segment.

    Args:
        segment: The segment; static.
        weights: The weights of its layers, or of all.
        x: Its input, float32[B, H, W, C].
        statistics: A dictionary that the batch's own statistics are put into by layer, which then normalise; None: the
            statistics among the weights normalise.
        number_format: What weights and activations are stored in; static. Other than fp32 without batch norm alone.

    Returns:
        What the segment takes and the outputs of all its layers, by name.
    """
    values = {segment.takes: x}
    resizes = segment.layers[0].kind == "resize"
    if not resizes:
        values[segment.takes] = stored(x, number_format, weights.get(segment.takes, {}).get(RANGE))
    for layer in segment.layers:
        inputs, own = [values[name] for name in layer.inputs], weights.get(layer.name, {})
        if number_format == NumberFormat.FP32:
            values[layer.name] = _run_layer(layer, own, inputs, statistics)
        else:
            values[layer.name] = _run_stored(layer, own, inputs, number_format)
    return values


def _run_stored(layer: Layer, weights: Tree, inputs: list[jax.Array], number_format: NumberFormat) -> jax.Array:
    """Runs a layer whose inputs are stored already, and stores its output."""
    if layer.kind == "batch_norm":
        raise ValueError(f"{layer.name}: expected batch norm folded in for {number_format.name.lower()}, got it")
    if layer.kind == "swish":
        return stored(swish(inputs[0], number_format), number_format, weights.get(RANGE))
    held = dict(weights)
    if "kernel" in held:
        held["kernel"] = stored_kernel(held["kernel"], number_format)
    if "bias" in held:
        held["bias"] = stored_bias(held["bias"], number_format)
    return stored(_run_layer(layer, held, inputs, None), number_format, weights.get(RANGE))


def output_shapes(segments: Sequence[Segment], weights: Weights, *, image_size: int, channels: int) -> Shapes:
    """Returns the shape of every layer's output and of the images.

    Args:
        segments: The segments of the network.
        weights: The weights of its layers.
        image_size: Height and width of the images.
        channels: The channels of the images.
    """

    def every_output(weights: Weights, x: jax.Array) -> dict[str, jax.Array]:
        values: dict[str, jax.Array] = {}
        for segment in segments:
            values |= run_segment(segment, weights, values.get(segment.takes, x))
        return values

    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    return {name: value.shape[1:] for name, value in jax.eval_shape(every_output, weights, images).items()}


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swish": jax.nn.swish,
    "relu": jax.nn.relu,
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.01),
    "hard_sigmoid": jax.nn.hard_sigmoid,
}


def _run_layer(layer: Layer, weights: Tree, inputs: list[jax.Array], statistics: dict[str, Tree] | None) -> jax.Array:
    x = inputs[0]
    match layer.kind:
        case "resize":
            rows = weights["rows"].astype(x.dtype)
            x = jnp.einsum("bhwc,yh,xw->byxc", x, rows, rows, precision="highest")
        case "conv" | "depthwise":
            x = _convolve(layer, weights["kernel"], x)
        case "linear":
            x = x @ weights["kernel"]
        case "batch_norm":
            return _normalise(layer, weights, x, statistics)
        case "half":
            x = half_size_average(x)
        case "mean":
            x = jnp.mean(x, (1, 2))
        case "gate":
            x = x * inputs[1][:, None, None, :]
        case "add":
            x = x + inputs[1]
        case activation:
            x = _ACTIVATIONS[activation](x)
    return x + along_channels(weights["bias"], x) if "bias" in weights else x


def _normalise(layer: Layer, weights: Tree, x: jax.Array, statistics: dict[str, Tree] | None) -> jax.Array:
    """Batch norm by the statistics among the weights, or by the batch's own, which `statistics` then holds."""
    affine = {name: leaf for name, leaf in weights.items() if name not in (*STATISTICS, RANGE)}
    if statistics is None:
        x, _ = call(BatchNorm(False), affine, {name: weights[name] for name in STATISTICS}, x, keep_stats=False)
    else:
        x, statistics[layer.name] = call(BatchNorm(True), affine, None, x, keep_stats=True)
    return x


def _convolve(layer: Layer, kernel: jax.Array, x: jax.Array) -> jax.Array:
    if layer.kind == "depthwise":
        return depthwise_conv(x, kernel, layer.stride)
    return conv(x, kernel, stride=layer.stride, padding=layer.padding)


def fold_batch_norm(segments: Sequence[Segment], weights: Weights) -> tuple[tuple[Segment, ...], Weights]:
    """Folds batch norm into the layers before it: the same function with fewer layers.

    With f = scale / sqrt(var + epsilon), f (W x - mean) + bias = (f W) x + (bias - f mean). A network without any batch
    norm is returned as it is.

    Args:
        segments: The segments; every batch norm follows a convolution or a linear layer, whose output nothing else
            takes.
        weights: The weights of their layers.
    """
    folded = dict(weights)
    return tuple(_fold(segment, folded) for segment in segments), folded


def _fold(segment: Segment, weights: Weights) -> Segment:
    """Folds within one segment; `weights` is changed."""
    layers: dict[str, Layer] = {}
    renamed: dict[str, str] = {}
    for layer in segment.layers:
        inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        if layer.kind != "batch_norm":
            layers[layer.name] = replace(layer, inputs=inputs)
            continue
        (before,) = inputs
        if layers[before].kind not in ("conv", "depthwise", "linear"):
            raise ValueError(f"{layer.name}: expected a convolution or linear layer before, got {layers[before].kind}")
        ranged = {name: leaf for name, leaf in weights[layer.name].items() if name == RANGE}
        norm = {name: np.asarray(leaf, np.float64) for name, leaf in weights.pop(layer.name).items()}
        factor = norm["scale"] / np.sqrt(norm["var"] + BatchNorm.epsilon)
        kernel = np.asarray(weights[before]["kernel"], np.float64) * factor
        bias = np.asarray(weights[before].get("bias", np.zeros_like(factor)), np.float64)
        bias = norm["bias"] + factor * (bias - norm["mean"])
        folded = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        weights[before] = folded | ranged
        renamed[layer.name] = before
    return replace(segment, layers=tuple(layers.values()))
