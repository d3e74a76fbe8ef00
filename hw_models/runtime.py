"""What runtimes do to a network before it runs: fuse layers into the kernel before them, drop layers without use.

Frameworks launch a kernel for each convolution, normalisation and activation; runtimes such as TensorRT or
TensorFlow Lite fold the latter into the convolution and never compute what no output needs. Both are functions
of a layer table and of who reads whom, so that one table serves either kind of runtime.
Shapes: L layers.
"""

import dataclasses

import jax
import jax.numpy as jnp

from hw_models.layers import LayerTable, check_shapes


def fuse(layers: LayerTable, producer: jax.Array) -> LayerTable:
    """Folds layers into the layer that feeds them, as runtimes fold batch norm, activation and addition.

    The folded layer launches nothing and computes in registers; the producer writes the folded layer's output
    instead of its own, and reads what the folded layer read beyond it (the second operand of an addition).

    Args:
        layers: Columns [L].
        producer: int32[L], row of the layer that each layer is folded into, or -1. Chains are written with the
            row that stays (convolution, normalisation, activation: both of the latter name the convolution) and
            in the order in which they run.

    Returns:
        The table, folded rows inactive. A row stays as it is where its producer is inactive, comes later or names a
        producer of its own.

    Raises:
        ValueError: `producer` is not int[L].
    """
    check_shapes(layers)
    count = layers.kind.shape[-1]
    producer = _integers("producer", producer, (count,))
    rows = jnp.arange(count)
    target = jnp.clip(producer, 0, count - 1)
    asks = (producer >= 0) & (producer < rows) & (layers.active > 0)
    folds = asks & (layers.active[target] > 0) & ~asks[target]

    def fold(row: jax.Array, columns: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reads, writes = columns
        into = target[row]
        extra = jnp.maximum(reads[row] - writes[into], 0.0)
        folded = reads.at[into].add(extra), writes.at[into].set(writes[row])
        return jax.tree.map(lambda new, old: jnp.where(folds[row], new, old), folded, columns)

    reads, writes = jax.lax.fori_loop(0, count, fold, (layers.input_elements, layers.output_elements))
    return dataclasses.replace(
        layers,
        input_elements=reads,
        output_elements=writes,
        active=jnp.where(folds, 0.0, layers.active),
    )


def live_layers(feeds: jax.Array, outputs: jax.Array) -> jax.Array:
    """Finds the layers that some output of the network needs.

    Args:
        feeds: bool[L, L], whether row i feeds row j.
        outputs: bool[L], layers whose results leave the network.

    Returns:
        bool[L].

    Raises:
        ValueError: The shapes differ.
    """
    outputs = jnp.asarray(outputs)
    count = outputs.shape[-1]
    if jnp.shape(feeds) != (count, count):
        raise ValueError(f"feeds: expected shape {(count, count)} as of outputs, got {jnp.shape(feeds)}")

    def spread(_: int, live: jax.Array) -> jax.Array:
        return live | jnp.any(feeds & live[None, :], axis=1)

    return jax.lax.fori_loop(0, count, spread, outputs)


def drop_dead(layers: LayerTable, live: jax.Array) -> LayerTable:
    """Makes the rows inactive that are not live, bool[L]; see `live_layers`."""
    return dataclasses.replace(layers, active=jnp.where(live, layers.active, 0.0))


def _integers(name: str, values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.integer) or array.shape != shape:
        raise ValueError(f"{name}: expected integers of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array
