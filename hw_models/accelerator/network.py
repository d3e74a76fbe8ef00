"""Networks of the DARTS space as rows of equal layers: what an accelerator has to run for an architecture.

Cells of four nodes; each node adds up two of its incoming edges, and each edge is one of eight operations (Liu et al.,
"DARTS", 2018, https://arxiv.org/abs/1806.09055). An architecture is a code of 28 digits, an operation for each of the
14 edges of the normal cell and then of the reduce cell, 0 where the edge is absent; or a distribution over operations
for each edge. All edges of a cell that start alike (at an input of a reduce cell, or elsewhere) ask the hardware for
the same, so a row stands for all such layers of a cell, and its count says how many there are: linear in the
distribution, and the number itself at a code.
Shapes: L rows; 3 places of an edge; 8 operations. Functions take one architecture; batch them with `jax.vmap`.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.layers import LayerKind

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Operations by digit."""
NODES = 4
EDGE_INPUT = np.array([j for node in range(NODES) for j in range(2 + node)], np.int32)
"""int32[14], where each edge starts: 0 and 1 are the inputs of the cell, 2 + i is node i."""
EDGE_NODE = np.array([node for node in range(NODES) for _ in range(2 + node)], np.int32)
"""int32[14], the node that each edge leads to."""
EDGES = len(EDGE_INPUT)
PLACES = ("normal", "reduce, stride 2", "reduce, stride 1")
"""Places of an edge that differ in what an operation costs there."""
# Place of each of the 28 edges.
EDGE_PLACE = np.concatenate([np.zeros(EDGES, np.int32), np.where(EDGE_INPUT < 2, 1, 2).astype(np.int32)])
_FIXED = len(PLACES) * len(OPERATIONS)


@dataclasses.dataclass(frozen=True)
class DartsNetwork:
    """Size of a network; the defaults are the network that E2E-Perf measures.

    Attributes:
        channels: Of the first cell.
        cells: Those at a third and two thirds of the way are reduce cells.
        classes: Of the classifier.
        image_size: In pixels, square.
        in_channels: Of the images.
        stem: `cifar`, one convolution to three times the channels, or `imagenet`, three of stride 2.
    """

    channels: int = 16
    cells: int = 8
    classes: int = 10
    image_size: int = 32
    in_channels: int = 3
    stem: Literal["cifar", "imagenet"] = "cifar"

    def __post_init__(self) -> None:
        """Raises `ValueError` where a size makes no network."""
        for name, least in (("channels", 2), ("cells", 1), ("classes", 1), ("image_size", 1), ("in_channels", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
        if self.channels % 2:
            raise ValueError(f"channels: expected an even number, got {self.channels}")
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem: expected cifar or imagenet, got {self.stem!r}")

    @property
    def reductions(self) -> tuple[int, ...]:
        """Which cells are reduce cells."""
        return tuple(sorted({self.cells // 3, 2 * self.cells // 3}))


class Rows(NamedTuple):
    """Layers of a network; every array is [L], numpy, and the same for all architectures.

    Attributes:
        name: Part of the network, operation and layer, for reports.
        kind: A `LayerKind`.
        inputs: Channels read.
        outputs: Channels written.
        kernel: Side of the kernel.
        in_size: Side of the map read.
        out_size: Side of the map written.
        stride: Step of the kernel.
        group: Place and operation that the row belongs to, `8 place + operation`; 24 where it always runs.
        times: Layers of the row for each such operation, or at all.
    """

    name: tuple[str, ...]
    kind: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    kernel: np.ndarray
    in_size: np.ndarray
    out_size: np.ndarray
    stride: np.ndarray
    group: np.ndarray
    times: np.ndarray

    @property
    def is_pooling(self) -> np.ndarray:
        """bool[L]."""
        return self.kind == LayerKind.POOLING

    @property
    def is_weighted(self) -> np.ndarray:
        """bool[L], convolutions and the classifier."""
        return (self.kind != LayerKind.POOLING) & (self.kind != LayerKind.ELEMENTWISE)

    @property
    def fan_in(self) -> np.ndarray:
        """float64[L], multiply-accumulates (operations) for one output."""
        channels = np.where(np.isin(self.kind, (LayerKind.DEPTHWISE, LayerKind.POOLING)), 1, self.inputs)
        return (channels * self.kernel**2).astype(float)

    @property
    def macs(self) -> np.ndarray:
        """float64[L], multiply-accumulates of one layer; operations of pooling and additions."""
        return self.fan_in * self.outputs * self.out_size**2

    @property
    def elements(self) -> np.ndarray:
        """float64[L], activations read and written by one layer."""
        reads = np.where(self.kind == LayerKind.ELEMENTWISE, 2, 1) * self.inputs * self.in_size**2
        return (reads + self.outputs * self.out_size**2).astype(float)


class _Row(NamedTuple):
    name: str
    kind: LayerKind
    inputs: int
    outputs: int
    kernel: int
    in_size: int
    out_size: int
    stride: int
    group: int = _FIXED
    times: int = 1


@functools.lru_cache
def network_rows(network: DartsNetwork) -> Rows:
    """Returns the rows of all networks of this size."""
    size, channels = network.image_size, network.channels
    rows: list[_Row] = []
    if network.stem == "cifar":
        rows.append(_conv("stem", network.in_channels, 3 * channels, kernel=3, size=size))
        before = last = (3 * channels, size)
        was_reduced = False
    else:
        rows.append(_conv("stem 1", network.in_channels, channels // 2, kernel=3, size=size, stride=2))
        rows.append(_conv("stem 2", channels // 2, channels, kernel=3, size=_strided(size, 2), stride=2))
        before = (channels, _strided(_strided(size, 2), 2))
        rows.append(_conv("stem 3", channels, channels, kernel=3, size=before[1], stride=2))
        last = (channels, _strided(before[1], 2))
        was_reduced = True
    for cell in range(network.cells):
        name, is_reduced = f"cell {cell}", cell in network.reductions
        channels *= 2 if is_reduced else 1
        if was_reduced:
            rows += _reduction(f"{name} input 0", before[0], channels, size=before[1])
        else:
            rows.append(_conv(f"{name} input 0", before[0], channels, kernel=1, size=before[1]))
        rows.append(_conv(f"{name} input 1", last[0], channels, kernel=1, size=last[1]))
        out_size = _strided(last[1], 2) if is_reduced else last[1]
        for place in (1, 2) if is_reduced else (0,):
            stride = 2 if place == 1 else 1
            rows += _operations(name, channels, place=place, size=last[1] if stride == 2 else out_size, stride=stride)
        rows.append(
            _Row(f"{name} sums", LayerKind.ELEMENTWISE, channels, channels, 1, out_size, out_size, 1, times=NODES)
        )
        before, last, was_reduced = last, (NODES * channels, out_size), is_reduced
    features, size = last
    rows.append(_Row("pooling", LayerKind.POOLING, features, features, size, size, 1, 1))
    rows.append(_Row("classifier", LayerKind.LINEAR, features, network.classes, 1, 1, 1, 1))
    columns = (np.asarray(column, np.int64) for column in zip(*(row[1:] for row in rows), strict=True))
    return Rows(tuple(row.name for row in rows), *columns)


def operation_counts(architecture: jax.Array) -> jax.Array:
    """Counts the edges of each place with each operation.

    Args:
        architecture: int[28], a code, or float[28, 8], a distribution over operations for each edge.

    Returns:
        float32[3, 8]; differentiable in a distribution.

    Raises:
        ValueError: The array is neither.
    """
    architecture = jnp.asarray(architecture)
    is_code = jnp.issubdtype(architecture.dtype, jnp.integer)
    wanted = (2 * EDGES,) if is_code else (2 * EDGES, len(OPERATIONS))
    if architecture.shape != wanted:
        raise ValueError(f"architecture: expected int[28] or float[28, 8], got shape {architecture.shape}")
    shares = jax.nn.one_hot(architecture, len(OPERATIONS), dtype=jnp.float32) if is_code else architecture
    places = jnp.asarray(EDGE_PLACE[None] == np.arange(len(PLACES))[:, None], jnp.float32)
    # Sums of small whole numbers, which no rounding touches; a matrix product may round its inputs.
    return jnp.sum(places[:, :, None] * shares[None], axis=1)


def row_counts(network: DartsNetwork, architecture: jax.Array) -> jax.Array:
    """How many layers of each row an architecture has, float32[L]; arguments and errors as `operation_counts`."""
    rows = network_rows(network)
    counts = jnp.append(operation_counts(architecture).ravel(), jnp.float32(1.0))
    return jnp.asarray(rows.times, jnp.float32) * counts[rows.group]


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


def _conv(
    name: str,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    size: int,
    stride: int = 1,
    depthwise: bool = False,
    group: int = _FIXED,
    times: int = 1,
) -> _Row:
    kind = LayerKind.DEPTHWISE if depthwise else LayerKind.POINTWISE if kernel == 1 else LayerKind.DENSE
    return _Row(name, kind, inputs, outputs, kernel, size, _strided(size, stride), stride, group, times)


def _reduction(name: str, inputs: int, outputs: int, *, size: int, group: int = _FIXED) -> list[_Row]:
    """Factorised reduction: two 1x1 convolutions of stride 2, each for half of the channels."""
    halves = _conv(f"{name} reduction", inputs, outputs // 2, kernel=1, size=size, stride=2, group=group, times=2)
    return [halves]


def _operations(cell: str, channels: int, *, place: int, size: int, stride: int) -> list[_Row]:
    """Rows of every operation at the edges of one place of a cell."""
    rows: list[_Row] = []
    out_size = _strided(size, stride)
    suffix = " stride 2" if stride == 2 else ""
    for digit, operation in enumerate(OPERATIONS):
        name, group = f"{cell} {operation}{suffix}", len(OPERATIONS) * place + digit
        if "pool" in operation:
            rows.append(_Row(name, LayerKind.POOLING, channels, channels, 3, size, out_size, stride, group))
        elif operation == "skip_connect" and stride == 2:
            rows += _reduction(name, channels, channels, size=size, group=group)
        elif "conv" in operation:
            kernel, times = int(operation[-1]), 2 if operation.startswith("sep") else 1
            depthwise = functools.partial(
                _conv, inputs=channels, outputs=channels, kernel=kernel, depthwise=True, group=group
            )
            rows.append(depthwise(f"{name} depthwise", size=size, stride=stride))
            if times == 2:
                rows.append(depthwise(f"{name} depthwise 2", size=out_size))
            pointwise = _conv(f"{name} pointwise", channels, channels, kernel=1, size=out_size, group=group)
            rows.append(pointwise._replace(times=times))
    return rows
