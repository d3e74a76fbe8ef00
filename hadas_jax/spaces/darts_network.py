"""Networks of the DARTS space: their size, and the rows of equal layers that they may have.

All edges of a cell that start alike (at an input of a reduce cell, or elsewhere) ask the hardware for the same, so a
row stands for all such layers of a cell with one operation. Liu et al., "DARTS: Differentiable Architecture Search",
2018, https://arxiv.org/abs/1806.09055.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import numpy as np

from hadas_jax.spaces.darts import DARTS_CODES, NODES, OPERATIONS
from hw_models import LayerKind
from hw_models.accelerator import Rows

_GROUPS = DARTS_CODES.counts_shape[0] * DARTS_CODES.counts_shape[1]


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
    def sizes(self) -> tuple[tuple[str, int | str], ...]:
        """Names and values of all sizes, as predictors note them."""
        return tuple(dataclasses.asdict(self).items())

    @property
    def reductions(self) -> tuple[int, ...]:
        """Which cells are reduce cells."""
        return tuple(sorted({self.cells // 3, 2 * self.cells // 3}))


class _Row(NamedTuple):
    name: str
    kind: LayerKind
    inputs: int
    outputs: int
    kernel: int
    in_size: int
    out_size: int
    stride: int
    group: int = _GROUPS
    times: int = 1


@functools.lru_cache
def network_rows(network: DartsNetwork) -> Rows:
    """Returns the rows of all networks of this size.

    Their groups are the entries of `CodeLayout.operation_counts`, place by place: `8 place + operation`.
    """
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
            rows.append(_reduction(f"{name} input 0", before[0], channels, size=before[1]))
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
    names, *columns = zip(*rows, strict=True)
    arrays = dict(zip(_Row._fields[1:], (np.asarray(column, np.int64) for column in columns), strict=True))
    return Rows(name=names, groups=_GROUPS, **arrays)


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
    group: int = _GROUPS,
    times: int = 1,
) -> _Row:
    kind = LayerKind.DEPTHWISE if depthwise else LayerKind.POINTWISE if kernel == 1 else LayerKind.DENSE
    return _Row(name, kind, inputs, outputs, kernel, size, _strided(size, stride), stride, group, times)


def _reduction(name: str, inputs: int, outputs: int, *, size: int, group: int = _GROUPS) -> _Row:
    """Factorised reduction: two 1x1 convolutions of stride 2, each for half of the channels."""
    return _conv(f"{name} reduction", inputs, outputs // 2, kernel=1, size=size, stride=2, group=group, times=2)


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
            rows.append(_reduction(name, channels, channels, size=size, group=group))
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
