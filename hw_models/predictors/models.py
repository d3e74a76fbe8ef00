"""The three models that predict a cost from an architecture: weights, how they start, and what they compute.

`embedding` is the predictor of EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299): an embedding for every
edge, concatenated, and a multilayer perceptron. `mlp` is a perceptron on how many edges of each place have each
operation, which is all that the hardware sees. `lookup` adds up a latency for each such edge.
Shapes: 28 edges, 8 operations, 3 places. Functions take one architecture, a code int[28] or a distribution over
operations for each edge, float32[28, 8]; at 0 and 1 both give the same, bit for bit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from hw_models.accelerator.network import EDGES, OPERATIONS, PLACES, operation_counts

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
