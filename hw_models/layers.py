"""Layer table: what a network asks of the hardware, one row per layer, as a struct of arrays.

Counts are for one sample and in elements, not bytes: the batch size and the number format are inputs of the cost model,
so one table serves them all.

Frameworks launch a kernel for each convolution, normalisation and activation; runtimes such as TensorRT or TensorFlow
Lite fold the latter into the convolution (`fuse`) and never compute what no output needs (`live_layers`, `drop_dead`).
Both are functions of a layer table and of which layer feeds which, so that one table serves either kind of runtime.
Shapes: L layers; leading dimensions come from `jax.vmap`.
"""

import dataclasses
import enum
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike


class LayerKind(enum.IntEnum):
    """What a layer computes; a device has one compute rate for each kind."""

    DENSE = 0
    """Convolution over all channels with a kernel larger than 1 x 1, grouped ones included."""
    POINTWISE = 1
    """Convolution with a 1 x 1 kernel."""
    DEPTHWISE = 2
    """Convolution of each channel by itself."""
    POOLING = 3
    """Mean or maximum over windows or whole maps."""
    ELEMENTWISE = 4
    """Additions, activations and scalings that are no part of another layer."""
    LINEAR = 5
    """Matrix product of features, such as a classifier."""


@struct.dataclass
class LayerTable:
    """Work of each layer for one sample.

    Attributes:
        kind: int32[L], a `LayerKind`.
        macs: f32[L], multiply-accumulates; for pooling and element-wise layers, operations.
        weight_elements: f32[L], parameters read once per run, whatever the batch size.
        input_elements: f32[L], activations read.
        output_elements: f32[L], activations written.
        kernels: f32[L], kernels launched; does not grow with the batch size.
        active: f32[L], 1 where the layer runs and 0 where the row is padding. A fraction scales the cost of
            the row, as a relaxed choice between layers needs.
    """

    kind: jax.Array
    macs: jax.Array
    weight_elements: jax.Array
    input_elements: jax.Array
    output_elements: jax.Array
    kernels: jax.Array
    active: jax.Array

    def check_shapes(self) -> None:
        """Raises `AssertionError` unless all columns have the one shape [..., L] (seen while tracing, at no cost)."""
        chex.assert_rank(self.kind, set(range(1, 9)), custom_message="kind: expected a layer table of shape [..., L]")
        for name, column in vars(self).items():
            chex.assert_shape(column, jnp.shape(self.kind), custom_message=f"{name} of a layer table, beside kind")


def layer_table(
    kind: ArrayLike | Sequence[int],
    macs: ArrayLike | Sequence[float],
    *,
    weight_elements: ArrayLike | Sequence[float],
    input_elements: ArrayLike | Sequence[float],
    output_elements: ArrayLike | Sequence[float],
    kernels: ArrayLike | Sequence[float] = 1.0,
    active: ArrayLike | Sequence[float] = 1.0,
) -> LayerTable:
    """Builds a `LayerTable` from plain sequences; `kernels` and `active` may be one number for all rows.

    Args:
        kind: int[L], a `LayerKind` per layer.
        macs: [L], multiply-accumulates (operations for pooling and element-wise layers).
        weight_elements: [L].
        input_elements: [L].
        output_elements: [L].
        kernels: [L] or one number, kernels launched.
        active: [L] or one number, 1 or 0.

    Returns:
        The table, with int32 kinds and float32 counts.

    Raises:
        AssertionError: The lengths differ.
    """
    kinds = jnp.asarray(kind, jnp.int32)
    table = LayerTable(
        kind=kinds,
        macs=jnp.asarray(macs, jnp.float32),
        weight_elements=jnp.asarray(weight_elements, jnp.float32),
        input_elements=jnp.asarray(input_elements, jnp.float32),
        output_elements=jnp.asarray(output_elements, jnp.float32),
        kernels=_column(kernels, kinds.shape),
        active=_column(active, kinds.shape),
    )
    table.check_shapes()
    return table


def concatenate(tables: Sequence[LayerTable]) -> LayerTable:
    """Joins tables along the layer axis, for example a backbone and its exit heads.

    Args:
        tables: Tables of shapes [..., L_i] with equal leading dimensions.

    Returns:
        One table [..., sum of L_i].

    Raises:
        ValueError: There is no table.
    """
    if not tables:
        raise ValueError("concatenate: expected at least one layer table, got none")
    return jax.tree.map(lambda *columns: jnp.concatenate(columns, axis=-1), *tables)


def total_macs(layers: LayerTable) -> jax.Array:
    """Multiply-accumulates of the active convolutions and linear layers for one sample, f32[...]."""
    counted = (layers.kind != LayerKind.POOLING) & (layers.kind != LayerKind.ELEMENTWISE)
    return _total(layers, jnp.where(counted, layers.macs, 0.0))


def total_weights(layers: LayerTable) -> jax.Array:
    """Parameters of the active layers, f32[...]."""
    return _total(layers, layers.weight_elements)


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
        AssertionError: `producer` is not int[L].
    """
    layers.check_shapes()
    count = layers.kind.shape[-1]
    producer = jnp.asarray(producer)
    chex.assert_type(producer, int, custom_message="producer")
    chex.assert_shape(producer, (count,), custom_message="producer")
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
        AssertionError: The shapes differ.
    """
    outputs = jnp.asarray(outputs)
    count = outputs.shape[-1]
    chex.assert_shape(feeds, (count, count), custom_message="feeds")

    def spread(_: int, live: jax.Array) -> jax.Array:
        return live | jnp.any(feeds & live[None, :], axis=1)

    return jax.lax.fori_loop(0, count, spread, outputs)


def drop_dead(layers: LayerTable, live: jax.Array) -> LayerTable:
    """Makes the rows inactive that are not live, bool[L]; see `live_layers`."""
    return dataclasses.replace(layers, active=jnp.where(live, layers.active, 0.0))


def _column(values: ArrayLike | Sequence[float], shape: tuple[int, ...]) -> jax.Array:
    column = jnp.asarray(values, jnp.float32)
    return jnp.broadcast_to(column, shape) if column.ndim == 0 else column


def _total(layers: LayerTable, column: jax.Array) -> jax.Array:
    return jnp.sum(layers.active * jnp.where(layers.active > 0, column, 0.0), axis=-1)
