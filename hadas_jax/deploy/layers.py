"""A static network as data: a list of layers for each segment, and weights by layer.

Segment k takes what segment k - 1 hands on and ends with exit k; the last one ends with the classifier. Every layer is
named after its output, and takes the outputs of earlier layers. Nothing is masked: shapes are those of the network.
Shapes: B batch, H, W image, C input and O output channels, k kernel, K classes.

Batch norm folded into the layer before it: the same function with fewer layers.

With f = scale / sqrt(var + epsilon), f (W x - mean) + bias = (f W) x + (bias - f mean).

Runs a static network in JAX, layer by layer.

Shapes: B batch, H, W image, C channels, K classes, e = exits of the network.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.layers import (
    LAYOUT,
    BatchNorm,
    Tree,
    along_channels,
    call,
    conv,
    depthwise_conv,
    half_size_average,
    hard_sigmoid,
)

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


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: Of it and its output.
        kind: What it computes.
        inputs: Names of what it takes.
        stride: Of a convolution.
        padding: Of a convolution, on all sides.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Segment:
    """Layers from one exit to the next.

    Attributes:
        layers: In the order that they run in.
        takes: Name of its input.
        features: Name of what the next segment takes; None: there is none.
        logits: Name of the exit's logits [B, K].
        confidence: Name of the logit of the exit's own confidence [B, 1]; None for the classifier.
    """

    layers: tuple[Layer, ...]
    takes: str
    features: str | None
    logits: str
    confidence: str | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of features, logits and confidence, those that there are."""
        return tuple(name for name in (self.features, self.logits, self.confidence) if name is not None)


def segments_as_json(segments: tuple[Segment, ...]) -> list[dict[str, Any]]:
    """Returns segments as JSON holds them."""
    return [asdict(segment) for segment in segments]


class LayerList:
    """Collects the layers and weights of a network in the order that they run in.

    Attributes:
        weights: Of all layers so far.
    """

    def __init__(self) -> None:
        self.weights: Weights = {}
        self._layers: list[Layer] = []
        self._takes = IMAGES
        self._segments: list[Segment] = []

    def add(
        self,
        name: str,
        kind: Kind,
        *inputs: str,
        stride: int = 1,
        padding: int = 0,
        weights: dict[str, jax.Array] | None = None,
    ) -> str:
        """Adds a layer and returns its name, for the layers that take its output."""
        self._layers.append(Layer(name, kind, inputs, stride, padding))
        if weights is not None:
            self.weights[name] = weights
        return name

    def end_segment(self, *, features: str | None, logits: str, confidence: str | None) -> None:
        """Ends a segment after the layers so far."""
        self._segments.append(Segment(tuple(self._layers), self._takes, features, logits, confidence))
        self._layers, self._takes = [], features or ""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that have ended."""
        return tuple(self._segments)


_BEFORE = ("conv", "depthwise", "linear")


def fold_batch_norm(segments: Sequence[Segment], weights: Weights) -> tuple[tuple[Segment, ...], Weights]:
    """Returns a network without batch norm; one without any is returned as it is.

    Args:
        segments: Every batch norm follows a convolution or a linear layer, whose output nothing else takes.
        weights: Of their layers.
    """
    kept = dict(weights)
    return tuple(_fold(segment, kept) for segment in segments), kept


def is_folded(segments: Sequence[Segment]) -> bool:
    """Whether a network has no batch norm."""
    return all(layer.kind != "batch_norm" for segment in segments for layer in segment.layers)


def _fold(segment: Segment, weights: Weights) -> Segment:
    """Folds within one segment; `weights` is changed."""
    layers: dict[str, Layer] = {}
    renamed: dict[str, str] = {}
    for layer in segment.layers:
        inputs = tuple(renamed.get(name, name) for name in layer.inputs)
        if layer.kind != "batch_norm":
            layers[layer.name] = Layer(layer.name, layer.kind, inputs, layer.stride, layer.padding)
            continue
        (before,) = inputs
        if layers[before].kind not in _BEFORE:
            raise ValueError(f"{layer.name}: expected a convolution or linear layer before, got {layers[before].kind}")
        norm = {name: np.asarray(leaf, np.float64) for name, leaf in weights.pop(layer.name).items()}
        factor = norm["scale"] / np.sqrt(norm["var"] + BatchNorm.epsilon)
        kernel = np.asarray(weights[before]["kernel"], np.float64) * factor
        bias = np.asarray(weights[before].get("bias", np.zeros_like(factor)), np.float64)
        bias = norm["bias"] + factor * (bias - norm["mean"])
        weights[before] = {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
        renamed[layer.name] = before
    return Segment(tuple(layers.values()), segment.takes, segment.features, segment.logits, segment.confidence)


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
        segment: Static.
        weights: Of its layers, or of all.
        x: Its input [B, H, W, C].
        statistics: Where the batch's own statistics are put by layer, which then normalise; None: the given ones do.
        portable: Convolutions are XLA's own, whatever is quickest here.

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
        segments: Of the network.
        weights: Of its layers.
        image_size: Height and width.
        channels: Of the images.
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
        segments: Static.
        weights: Of all layers.
        images: float32[B, H, W, C] standardised.
        statistics: See `run_segment`.

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
