"""NAS-Bench-201 (https://arxiv.org/abs/2001.00326): cells, what runtimes run of them, and layer tables.

A cell is a choice of operation for each of six edges between four nodes, in the order of `EDGES`. Its network for
32 x 32 images: a stem of 16 channels, three stages of five cells with 16, 32 and 64 channels, a residual block of
stride 2 between stages, then batch norm, pooling and a classifier.
Functions take one cell, int[6]; batch them with `jax.vmap`.
"""

import enum
import functools
from typing import Any

import graph
import jax
import jax.numpy as jnp
import numpy as np

from hw_models.layers import LayerKind, LayerTable

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target node of each edge; node 0 is the input of the cell, node 3 its output."""
_CHANNELS = (16, 32, 64)
_SIZES = (32, 16, 8)
_CELLS = 5
_SUMMED_NODES = (2, 3)
_FIXED = len(EDGES) + len(_SUMMED_NODES)
# Kind, MACs, weights, elements read and written, kernels.
_Row = tuple[int, int, int, int, int, int]
_NO_ROW: _Row = (LayerKind.ELEMENTWISE, 0, 0, 0, 0, 0)
_COUNT_SCALE = 3.0


class CellOp(enum.IntEnum):
    """Operation of an edge."""

    NONE = 0
    SKIP = 1
    CONV_1X1 = 2
    CONV_3X3 = 3
    AVERAGE_POOL = 4


def liveness(edges: jax.Array) -> graph.Liveness:
    """Finds which edges get something from the input and which reach the output.

    Args:
        edges: int[6], a `CellOp` per edge.

    Returns:
        Leaves bool[6]; an edge of operation `NONE` is neither.
    """
    return graph.liveness(_checked(edges) != CellOp.NONE, EDGES)


def launched_edges(edges: jax.Array) -> jax.Array:
    """Edges that an eager framework runs, bool[6]: all that are not `NONE`, wherever they lead."""
    return _checked(edges) != CellOp.NONE


def converted_edges(edges: jax.Array) -> jax.Array:
    """Edges that are left after conversion for a phone runtime, bool[6].

    A converter drops edges that do not reach the output, but it keeps what starts from zeros: those edges run. And
    `NONE` multiplies by zero: where its operand is nothing but the output of one convolution that no other edge
    needs, the zero is folded into the weights and the convolution runs on. Both rules were read off the latencies of
    Raspberry Pi 4 and Pixel 3 in HW-NAS-Bench (https://arxiv.org/abs/2103.10584).

    Args:
        edges: int[6], a `CellOp` per edge.

    Returns:
        bool[6].
    """
    edges = _checked(edges)
    to_1, into_2, from_1_to_2, _, from_1_to_3, from_2_to_3 = edges
    nothing, convolution, other = 0, 1, 2

    def value(operation: jax.Array, of_skip: Any, of_none: Any) -> jax.Array:
        convolves = (operation == CellOp.CONV_1X1) | (operation == CellOp.CONV_3X3)
        rest = jnp.where(operation == CellOp.SKIP, of_skip, other)
        return jnp.where(operation == CellOp.NONE, of_none, jnp.where(convolves, convolution, rest))

    node_1 = value(to_1, other, nothing)
    zeroed = jnp.where((node_1 == convolution) & (from_1_to_3 == CellOp.NONE), convolution, nothing)
    terms = value(into_2, other, nothing), value(from_1_to_2, node_1, zeroed)
    node_2 = jnp.where((terms[0] != nothing) & (terms[1] != nothing), other, jnp.maximum(*terms))
    runs_2 = (from_2_to_3 != CellOp.NONE) | (node_2 == convolution)
    runs_1 = (from_1_to_3 != CellOp.NONE) | (runs_2 & ((from_1_to_2 != CellOp.NONE) | (node_1 == convolution)))
    always = jnp.ones_like(runs_1)
    return (edges != CellOp.NONE) & jnp.stack([runs_1, runs_2, runs_2, always, always, always])


def workload(edges: jax.Array, *, kept: jax.Array | None = None) -> LayerTable:
    """Layer table of the network of a cell.

    Convolution, batch norm and activation are one row; batch norm leaves one bias per channel. Each cell has a row
    per edge and a row for the additions at each of nodes 2 and 3; skips cost nothing by themselves.

    Args:
        edges: int[6], a `CellOp` per edge.
        kept: bool[6], edges that the runtime runs; None: `launched_edges`.

    Returns:
        Columns [L], L the same for every cell. `total_macs` is the benchmark's count if all edges are launched.
    """
    edges = _checked(edges)
    kept = launched_edges(edges) if kept is None else kept
    run = jnp.where(kept, edges, CellOp.NONE)
    additions = jnp.stack([_additions(run, node) for node in _SUMMED_NODES])
    # What a row depends on: the operation of an edge, the additions at a node, or nothing.
    source, values = _rows()
    states = jnp.concatenate([run, additions, jnp.zeros(1, jnp.int32)])
    columns = jnp.asarray(values)[jnp.arange(len(source)), states[source]]
    kind, macs, weights, reads, writes, kernels = jnp.moveaxis(columns, -1, 0)
    return LayerTable(
        kind=kind.astype(jnp.int32),
        macs=macs,
        weight_elements=weights,
        input_elements=reads,
        output_elements=writes,
        kernels=kernels,
        active=(kernels > 0).astype(jnp.float32),
    )


def dead_rows(edges: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Rows of `workload(edges)` that a runtime leaves out.

    Args:
        edges: int[6], a `CellOp` per edge.
        kept: bool[6], edges that the runtime runs, as `converted_edges`; None: those on a path from the input to
            the output.

    Returns:
        bool[L].
    """
    kept = liveness(edges).live if kept is None else kept
    return (workload(edges).active > 0) & (workload(edges, kept=kept).active == 0)


def structure_features(edges: jax.Array, kept: jax.Array | None = None) -> jax.Array:
    """Numbers that a linear model of the latency needs: operations, their counts, and what happens at nodes.

    Counts are scaled up, so that a ridge shrinks the differences between edges before the counts themselves.

    Args:
        edges: int[6], a `CellOp` per edge.
        kept: bool[6], edges that the runtime runs; None: `launched_edges`.

    Returns:
        f32[47]: one-hot operations of kept edges [6 * 5], scaled counts [5], and 12 of the nodes: whether a node is
        read by convolutions, by these and others (its activation cannot be fused), and by pooling; additions at
        nodes 2 and 3; whether the input reaches the output.
    """
    edges = _checked(edges)
    kept = launched_edges(edges) if kept is None else kept
    edges_run = jnp.where(kept, edges, CellOp.NONE)
    operations = jax.nn.one_hot(edges_run, len(CellOp), dtype=jnp.float32)
    convolves = (edges_run == CellOp.CONV_1X1) | (edges_run == CellOp.CONV_3X3)
    others = (edges_run == CellOp.SKIP) | (edges_run == CellOp.AVERAGE_POOL)
    nodes: list[jax.Array] = []
    for node in range(3):
        readers = np.array([source == node for source, _ in EDGES])
        by_convolutions = jnp.any(convolves & readers)
        nodes += [by_convolutions & jnp.any(others & readers), by_convolutions]
        nodes += [jnp.any((edges_run == CellOp.AVERAGE_POOL) & readers)]
    nodes += [_additions(edges_run, node) for node in _SUMMED_NODES]
    nodes += [jnp.any(liveness(edges).live)]
    at_nodes = jnp.stack([value.astype(jnp.float32) for value in nodes])
    return jnp.concatenate([operations.ravel(), _COUNT_SCALE * operations.sum(0), at_nodes])


def _checked(edges: jax.Array) -> jax.Array:
    edges = jnp.asarray(edges)
    if not jnp.issubdtype(edges.dtype, jnp.integer) or edges.shape != (len(EDGES),):
        raise ValueError(f"edges: expected integers of shape (6,), got {edges.dtype} of shape {edges.shape}")
    return edges.astype(jnp.int32)


def _additions(edges_run: jax.Array, node: int) -> jax.Array:
    """Additions that sum what arrives at a node, int32[]."""
    arriving = np.array([target == node for _, target in EDGES])
    return jnp.maximum(jnp.sum((edges_run != CellOp.NONE) & arriving) - 1, 0)


@functools.cache
def _rows() -> tuple[np.ndarray, np.ndarray]:
    """What each row depends on, int[L], and its columns for each state of that, float32[L, 5, 6]."""
    stem = _conv(CellOp.CONV_3X3, size=_SIZES[0], inputs=3, outputs=_CHANNELS[0])
    rows: list[tuple[int, list[_Row]]] = [(_FIXED, [stem] * len(CellOp))]
    for stage, (size, channels) in enumerate(zip(_SIZES, _CHANNELS, strict=True)):
        if stage:
            reduction = _reduction(size=size, inputs=_CHANNELS[stage - 1], outputs=channels)
            rows += [(_FIXED, [row] * len(CellOp)) for row in reduction]
        rows += _cell(size=size, channels=channels) * _CELLS
    channels, elements = _CHANNELS[-1], _SIZES[-1] ** 2 * _CHANNELS[-1]
    head = (
        (LayerKind.ELEMENTWISE, elements, 2 * channels, elements, elements, 1),
        (LayerKind.POOLING, elements, 0, elements, channels, 1),
        (LayerKind.LINEAR, channels * 10, channels * 10 + 10, channels, 10, 1),
    )
    rows += [(_FIXED, [row] * len(CellOp)) for row in head]
    source, values = zip(*rows, strict=True)
    return np.asarray(source), np.asarray(values, np.float32)


def _cell(*, size: int, channels: int) -> list[tuple[int, list[_Row]]]:
    elements = size**2 * channels
    by_operation = [
        _NO_ROW,
        _NO_ROW,
        _conv(CellOp.CONV_1X1, size=size, inputs=channels, outputs=channels),
        _conv(CellOp.CONV_3X3, size=size, inputs=channels, outputs=channels),
        (LayerKind.POOLING, 9 * elements, 0, elements, elements, 1),
    ]
    by_additions: list[_Row] = [_NO_ROW]
    for count in range(1, len(CellOp)):
        by_additions.append((LayerKind.ELEMENTWISE, count * elements, 0, 2 * count * elements, count * elements, count))
    at_edges = [(edge, by_operation) for edge in range(len(EDGES))]
    return at_edges + [(len(EDGES) + i, by_additions) for i in range(len(_SUMMED_NODES))]


def _reduction(*, size: int, inputs: int, outputs: int) -> list[_Row]:
    """Residual block of stride 2; its shortcut is average pooling and a 1 x 1 convolution."""
    read, pooled, written = (2 * size) ** 2 * inputs, size**2 * inputs, size**2 * outputs
    kind, macs, weights, _, writes, kernels = _conv(CellOp.CONV_3X3, size=size, inputs=inputs, outputs=outputs)
    return [
        (kind, macs, weights, read, writes, kernels),
        _conv(CellOp.CONV_3X3, size=size, inputs=outputs, outputs=outputs),
        (LayerKind.POOLING, 4 * pooled, 0, read, pooled, 1),
        _conv(CellOp.CONV_1X1, size=size, inputs=inputs, outputs=outputs),
        (LayerKind.ELEMENTWISE, written, 0, 2 * written, written, 1),
    ]


def _conv(operation: CellOp, *, size: int, inputs: int, outputs: int) -> _Row:
    is_dense = operation == CellOp.CONV_3X3
    weights = inputs * outputs * (9 if is_dense else 1)
    kind = LayerKind.DENSE if is_dense else LayerKind.POINTWISE
    return kind, size**2 * weights, weights + outputs, size**2 * inputs, size**2 * outputs, 1
