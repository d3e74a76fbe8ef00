"""Predictors of throughput: an ensemble of fitted models, as a differentiable function of the architecture.

A model says the logarithm of the throughput, standardised, so what is predicted is positive for any input; EH-DNAS
(Jiang et al., 2021, https://arxiv.org/abs/2111.12299) standardises the throughput itself, and weights imported from
it keep that scale. The throughput may be any positive figure of which more is better.
Shapes: K members, N networks. `predict_throughput` takes one architecture; batch it with `jax.vmap`.

The three models that predict a cost from an architecture: weights, how they start, and what they compute.

`embedding` is the predictor of EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299): an embedding for every
edge, concatenated, and a multilayer perceptron. `mlp` is a perceptron on how many edges of each place have each
operation, which is all that the hardware sees. `lookup` adds up a latency for each such edge.
Shapes: 28 edges, 8 operations, 3 places. Functions take one architecture, a code int[28] or a distribution over
operations for each edge, float32[28, 8]; at 0 and 1 both give the same, bit for bit.

How predictors are fitted, unless told otherwise: sizes and settings by kind.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from hw_models.accelerator.network import EDGES, OPERATIONS, PLACES, DartsNetwork, operation_counts

KINDS = ("mlp", "embedding", "lookup")
_ALL_EDGES = 2 * EDGES
_EMBEDDING = 10
_OPERATED = len(OPERATIONS) - 1
_LEAST_LATENCY = 1e-3
"""Of a lookup, relative to the typical network: keeps the logarithm of a sum of entries finite."""


@struct.dataclass
class Layer:
    """A fully connected layer.

    Attributes:
        kernel: float32[inputs, outputs].
        bias: float32[outputs].
    """

    kernel: jax.Array
    bias: jax.Array


@struct.dataclass
class Weights:
    """Weights of a model.

    Attributes:
        table: Embeddings float32[28, 8, 10] (`embedding`), latencies float32[3, 7] of an edge by place and operation
            other than `none`, relative to a typical network (`lookup`), or float32[0] (`mlp`).
        layers: Of the perceptron; a lookup has one of no inputs, whose bias float32[1] is the latency of what every
            network has.
    """

    table: jax.Array
    layers: tuple[Layer, ...]


def init_weights(key: jax.Array, kind: str, *, hidden: Sequence[int]) -> Weights:
    """Draws weights: normal embeddings, He's initialisation of layers; a lookup starts as the typical network.

    Args:
        key: Random key.
        kind: One of `KINDS`.
        hidden: Outputs of the hidden layers; of no meaning to a lookup.

    Returns:
        The weights.
    """
    if kind == "lookup":
        base = Layer(jnp.zeros((0, 1), jnp.float32), jnp.ones(1, jnp.float32))
        return Weights(jnp.zeros((len(PLACES), _OPERATED), jnp.float32), (base,))
    is_embedding = kind == "embedding"
    sizes = (_ALL_EDGES * _EMBEDDING if is_embedding else len(PLACES) * _OPERATED, *hidden, 1)
    key, *keys = jax.random.split(key, len(sizes))
    layers = tuple(_init_layer(k, sizes[i], sizes[i + 1]) for i, k in enumerate(keys))
    shape = (_ALL_EDGES, len(OPERATIONS), _EMBEDDING) if is_embedding else (0,)
    return Weights(jax.random.normal(key, shape, jnp.float32), layers)


def score(weights: Weights, architecture: jax.Array, *, kind: str, kept: jax.Array | None = None) -> jax.Array:
    """Computes what a model says of an architecture: a standardised log throughput.

    Args:
        weights: Of one model.
        architecture: int[28] or float32[28, 8].
        kind: One of `KINDS`.
        kept: Dropout of embeddings in training, float32[28, 10], 0 or 1 / (1 - rate); None: no dropout.

    Returns:
        float32[]. The order of equal edges has no part in `mlp` and `lookup`.

    Raises:
        ValueError: `architecture` is neither.
    """
    counts = operation_counts(architecture)[:, 1:]
    if kind == "embedding":
        embedded = _embed(weights.table, architecture)
        return _perceptron(weights.layers, (embedded if kept is None else embedded * kept).ravel())
    if kind == "mlp":
        return _perceptron(weights.layers, counts.ravel())
    latency = weights.layers[0].bias[0] + jnp.sum(counts * weights.table)
    return -jnp.log(jnp.maximum(latency, _LEAST_LATENCY))


def dropout_mask(key: jax.Array, rate: float, *, count: int) -> jax.Array:
    """Draws `kept` of `score` for `count` architectures; the rate is taken to the nearest 256th below 1."""
    dropped = min(round(256 * rate), 255)
    # Four bytes of each random word: threefry is what dropout costs.
    words = jax.random.bits(key, (count, _ALL_EDGES * _EMBEDDING // 4))
    chances = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(count, _ALL_EDGES, _EMBEDDING)
    return jnp.where(chances >= dropped, jnp.float32(256 / (256 - dropped)), jnp.float32(0.0))


def _embed(table: jax.Array, architecture: jax.Array) -> jax.Array:
    """Embeddings of the edges, float32[28, 10]."""
    if jnp.issubdtype(architecture.dtype, jnp.integer):
        rows = len(OPERATIONS) * jnp.arange(_ALL_EDGES) + architecture.astype(jnp.int32)
        return table.reshape(-1, _EMBEDDING)[rows]
    return jnp.sum(architecture[:, :, None] * table, axis=1)


def _init_layer(key: jax.Array, inputs: int, outputs: int) -> Layer:
    kernel = jax.random.normal(key, (inputs, outputs), jnp.float32) * jnp.float32((2 / inputs) ** 0.5)
    return Layer(kernel, jnp.zeros(outputs, jnp.float32))


def _perceptron(layers: tuple[Layer, ...], inputs: jax.Array) -> jax.Array:
    *hidden, last = layers
    for layer in hidden:
        inputs = jax.nn.relu(inputs @ layer.kernel + layer.bias)
    return (inputs @ last.kernel + last.bias)[0]


SCALES = ("log", "linear")
LEAST_THROUGHPUT = 1.0
"""Images/s below which a predictor of linear scale is cut off; there its gradient is 0."""
_LEAST_VARIANCE = 1e-12
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class PredictorNotes:
    """What a predictor was fitted to.

    Attributes:
        paradigm: `generic`, `pipeline`, or another name of what is predicted.
        fpga: Or other hardware.
        network: Size of the networks; None: unknown.
        networks: How many it was fitted to; 0: unknown.
        held_out_error: Mean relative error on networks left out; None: unknown.
        source: In words: data set, versions.
    """

    paradigm: str = ""
    fpga: str = ""
    network: DartsNetwork | None = None
    networks: int = 0
    held_out_error: float | None = None
    source: str = ""


@struct.dataclass
class ThroughputPredictor:
    """An ensemble of models of one kind.

    Attributes:
        weights: Of the members, leaves [K, ...].
        mean: float32[], of the (log) throughputs that the models were fitted to.
        deviation: float32[], likewise; 1 for a lookup.
        kind: Static, `mlp`, `embedding` or `lookup`.
        scale: Static, `log`, or `linear` for imported weights: mean + deviation * model, cut off at `LEAST_THROUGHPUT`.
        notes: Static, what it was fitted to.
    """

    weights: Weights
    mean: jax.Array
    deviation: jax.Array
    kind: str = struct.field(pytree_node=False)
    scale: str = struct.field(pytree_node=False, default="log")
    notes: PredictorNotes = struct.field(pytree_node=False, default=PredictorNotes())

    @property
    def members(self) -> int:
        """K."""
        return self.weights.layers[0].bias.shape[0]


@struct.dataclass
class Prediction:
    """What an ensemble says; leaves float32[].

    Attributes:
        throughput: Mean of the members.
        spread: Standard deviation of the members over their mean; 0 of one member.
    """

    throughput: jax.Array
    spread: jax.Array


def predict_throughput(predictor: ThroughputPredictor, architecture: jax.Array) -> Prediction:
    """Predicts the throughput of an architecture.

    Args:
        predictor: The predictor.
        architecture: int[28], a code, or float32[28, 8], a distribution over operations for each edge such as
            `softmax(alpha)`; at 0 and 1 it is the code. Distributions in which two edges lead to each node, as in a
            code, are nearest to what a predictor was fitted to.

    Returns:
        The prediction; differentiable in a distribution.

    Raises:
        ValueError: `architecture` is neither.
    """
    found = _member_throughputs(predictor, jnp.asarray(architecture))
    mean = jnp.mean(found)
    if predictor.members == 1:
        return Prediction(mean, jnp.zeros_like(mean))
    return Prediction(mean, jnp.sqrt(jnp.var(found / mean) + _LEAST_VARIANCE))


@jax.jit
def predict_throughputs(predictor: ThroughputPredictor, codes: jax.Array) -> Prediction:
    """Predicts the throughput of many networks, codes int[N, 28] -> leaves float32[N], in chunks."""
    return jax.lax.map(lambda code: predict_throughput(predictor, code), codes, batch_size=_CHUNK)


def _member_throughputs(predictor: ThroughputPredictor, architecture: jax.Array) -> jax.Array:
    scores = jax.vmap(lambda weights: score(weights, architecture, kind=predictor.kind))(predictor.weights)
    scaled = predictor.mean + predictor.deviation * scores
    return jnp.exp(scaled) if predictor.scale == "log" else jnp.maximum(scaled, LEAST_THROUGHPUT)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a fit: Adam with decoupled weight decay, its rate falling to 0 as a cosine, mean absolute error.

    Attributes:
        hidden: Outputs of the hidden layers; empty for a lookup.
        epochs: Times through the data.
        batch: Networks per step.
        learning_rate: At the start.
        weight_decay: Of all weights.
        dropout: Of embeddings.
    """

    hidden: tuple[int, ...] = ()
    epochs: int = 20
    batch: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises `ValueError` where a number is out of its range."""
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"hidden: expected sizes of at least 1, got {self.hidden}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {self.weight_decay}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected at least 0 and below 1, got {self.dropout}")


_RECIPES = {
    "mlp": Recipe(hidden=(256, 256)),
    # Of EH-DNAS (Jiang et al., 2021), section 4.
    "embedding": Recipe((200, 100), epochs=30, batch=128, learning_rate=1e-4, weight_decay=0.01, dropout=0.5),
    "lookup": Recipe(epochs=5, learning_rate=1e-2),
}


def recipe_of(kind: str) -> Recipe:
    """Returns the settings of a kind; change them with `dataclasses.replace`.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return _RECIPES[kind]
