"""A static network as data: a list of layers for each segment, and weights by layer.

Segment k takes what segment k - 1 hands on and ends with exit k; the last one ends with the classifier. Every layer is
named after its output, and takes the outputs of earlier layers. Nothing is masked: shapes are those of the network.
Shapes: B batch, H, W image, C input and O output channels, k kernel, K classes.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax

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
      name: of it and its output.
      kind: what it computes.
      inputs: names of what it takes.
      stride: of a convolution.
      padding: of a convolution, on all sides.
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
      layers: in the order that they run in.
      takes: name of its input.
      features: name of what the next segment takes; None: there is none.
      logits: name of the exit's logits [B, K].
      confidence: name of the logit of the exit's own confidence [B, 1]; None for the classifier.
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
      weights: of all layers so far.
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
