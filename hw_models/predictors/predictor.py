"""Predictors of throughput: an ensemble of fitted models, as a differentiable function of the architecture.

A model says the logarithm of the throughput, standardised, so what is predicted is positive for any input; EH-DNAS
(Jiang et al., 2021, https://arxiv.org/abs/2111.12299) standardises the throughput itself, and weights imported from
it keep that scale. The throughput may be any positive number of which more is better. There are three kinds:

- `mlp`: a perceptron on how many edges of each group have each operation, which is all that the hardware sees;
- `embedding`, of EH-DNAS: an embedding for every edge, concatenated, and a perceptron;
- `lookup`: the sum of a latency for each such edge.

Shapes: K members, N networks; E edges, O operations, G groups of a `hw_models.codes.CodeLayout`. Functions take one
architecture, a code int[E] or a distribution over operations for each edge, float32[E, O]; at 0 and 1 both give the
same, bit for bit. Batch them with `jax.vmap`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from hw_models.codes import CodeLayout

KINDS = ("mlp", "embedding", "lookup")
SCALES = ("log", "linear")
LEAST_THROUGHPUT = 1.0
"""Images/s below which a predictor of linear scale is cut off; there its gradient is 0."""
_EMBEDDING = 10
_LEAST_LATENCY = 1e-3
"""Of a lookup, relative to the typical network: keeps the logarithm of a sum of entries finite."""
_LEAST_VARIANCE = 1e-12
_CHUNK = 4096


@dataclasses.dataclass(frozen=True)
class PredictorNotes:
    """What a predictor was fitted to.

    Attributes:
        paradigm: `generic`, `pipeline`, or another name of what is predicted.
        fpga: Or other hardware.
        network: Size of the networks, names and values; empty: unknown.
        networks: How many it was fitted to; 0: unknown.
        held_out_error: Mean relative error on networks left out; None: unknown.
        source: In words: data set, versions.
    """

    paradigm: str = ""
    fpga: str = ""
    network: tuple[tuple[str, int | str], ...] = ()
    networks: int = 0
    held_out_error: float | None = None
    source: str = ""


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
        table: Embeddings float32[E, O, 10] (`embedding`), latencies float32[G, O - 1] of an edge by group and operation
            but the first, relative to a typical network (`lookup`), or float32[0] (`mlp`).
        layers: Of the perceptron; a lookup has one of no inputs, whose bias float32[1] is the latency of what every
            network has.
    """

    table: jax.Array
    layers: tuple[Layer, ...]


@struct.dataclass
class ThroughputPredictor:
    """An ensemble of models of one kind.

    Attributes:
        weights: Of the members, leaves [K, ...].
        mean: float32[], of the (log) throughputs that the models were fitted to.
        std: float32[], their standard deviation; 1 for a lookup.
        kind: Static, `mlp`, `embedding` or `lookup`.
        layout: Static, of the codes.
        scale: Static, `log`, or `linear` for imported weights: mean + std * model, cut off at `LEAST_THROUGHPUT`.
        notes: Static, what it was fitted to.
    """

    weights: Weights
    mean: jax.Array
    std: jax.Array
    kind: str = struct.field(pytree_node=False)
    layout: CodeLayout = struct.field(pytree_node=False)
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
        architecture: int[E], a code, or float32[E, O], a distribution over operations for each edge such as
            `softmax(alpha)`; at 0 and 1 it is the code. Distributions that are like codes on average (in the DARTS
            space, with two edges to each node) are nearest to what a predictor was fitted to.

    Returns:
        The prediction; differentiable in a distribution.

    Raises:
        ValueError: `architecture` is neither.
    """
    ask = functools.partial(score, architecture=jnp.asarray(architecture), kind=predictor.kind, layout=predictor.layout)
    scaled = predictor.mean + predictor.std * jax.vmap(ask)(predictor.weights)
    throughputs = jnp.exp(scaled) if predictor.scale == "log" else jnp.maximum(scaled, LEAST_THROUGHPUT)
    mean = jnp.mean(throughputs)
    if predictor.members == 1:
        return Prediction(mean, jnp.zeros_like(mean))
    return Prediction(mean, jnp.sqrt(jnp.var(throughputs / mean) + _LEAST_VARIANCE))


@jax.jit
def predict_throughputs(predictor: ThroughputPredictor, codes: jax.Array) -> Prediction:
    """Predicts the throughput of many networks, codes int[N, E] -> leaves float32[N], in chunks."""
    return jax.lax.map(lambda code: predict_throughput(predictor, code), codes, batch_size=_CHUNK)


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


def init_weights(key: jax.Array, kind: str, layout: CodeLayout, *, hidden: Sequence[int]) -> Weights:
    """Draws weights: normal embeddings, He's initialisation of layers; a lookup starts as the typical network.

    Args:
        key: Random key.
        kind: One of `KINDS`.
        layout: Of the codes.
        hidden: Outputs of the hidden layers; of no meaning to a lookup.

    Returns:
        The weights.
    """
    edges, (groups, operations) = len(layout.groups), layout.counts_shape
    if kind == "lookup":
        base = Layer(jnp.zeros((0, 1), jnp.float32), jnp.ones(1, jnp.float32))
        return Weights(jnp.zeros((groups, operations - 1), jnp.float32), (base,))
    is_embedding = kind == "embedding"
    sizes = (edges * _EMBEDDING if is_embedding else groups * (operations - 1), *hidden, 1)
    key, *keys = jax.random.split(key, len(sizes))
    layers = tuple(_init_layer(k, sizes[i], sizes[i + 1]) for i, k in enumerate(keys))
    shape = (edges, operations, _EMBEDDING) if is_embedding else (0,)
    return Weights(jax.random.normal(key, shape, jnp.float32), layers)


def score(
    weights: Weights, architecture: jax.Array, *, kind: str, layout: CodeLayout, kept: jax.Array | None = None
) -> jax.Array:
    """Computes what a model says of an architecture: a standardised log throughput.

    Args:
        weights: Of one model.
        architecture: int[E] or float32[E, O].
        kind: One of `KINDS`.
        layout: Of the codes.
        kept: Dropout of embeddings in training, float32[E, 10], 0 or 1 / (1 - rate); None: no dropout.

    Returns:
        float32[]. The order of equal edges has no part in `mlp` and `lookup`.

    Raises:
        ValueError: `architecture` is neither.
    """
    counts = layout.operation_counts(architecture)[:, 1:]
    if kind == "embedding":
        embedded = _embed(weights.table, architecture)
        return _perceptron(weights.layers, (embedded if kept is None else embedded * kept).ravel())
    if kind == "mlp":
        return _perceptron(weights.layers, counts.ravel())
    latency = weights.layers[0].bias[0] + jnp.sum(counts * weights.table)
    return -jnp.log(jnp.maximum(latency, _LEAST_LATENCY))


def dropout_mask(key: jax.Array, rate: float, *, count: int, edges: int) -> jax.Array:
    """Draws `kept` of `score` for `count` architectures; the rate is taken to the nearest 256th below 1."""
    dropped = min(round(256 * rate), 255)
    # Four bytes of each random word: threefry is what dropout costs.
    words = jax.random.bits(key, (count, -(-edges * _EMBEDDING // 4)))
    chances = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(count, -1)[:, : edges * _EMBEDDING]
    chances = chances.reshape(count, edges, _EMBEDDING)
    return jnp.where(chances >= dropped, jnp.float32(256 / (256 - dropped)), jnp.float32(0.0))


def _embed(table: jax.Array, architecture: jax.Array) -> jax.Array:
    """Embeddings of the edges, float32[E, 10]."""
    if jnp.issubdtype(architecture.dtype, jnp.integer):
        edges, operations, _ = table.shape
        rows = operations * jnp.arange(edges) + architecture.astype(jnp.int32)
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
