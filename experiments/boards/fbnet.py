"""FBNet (https://arxiv.org/abs/1812.03443) as measured in HW-NAS-Bench (https://arxiv.org/abs/2103.10584).

22 positions with nine blocks to choose from: inverted residuals of kernel 3 or 5, expansion 1, 3 or 6, with or without
two groups in the 1 x 1 convolutions, and a skip, which is a 1 x 1 convolution where the shape changes. A block is up
to five rows: expansion, channel shuffle, depthwise convolution, projection, residual addition. A grouped 1 x 1
convolution is split, run group by group and concatenated, as runtimes without grouped convolutions do: it moves its
elements three times.
The macro-architecture for CIFAR was checked against measured block latencies, that for ImageNet was not.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.layers import LayerKind, LayerTable, concatenate, layer_table

BLOCKS = ("k3e1", "k3e1g2", "k3e3", "k3e6", "k5e1", "k5e1g2", "k5e3", "k5e6", "skip")
"""Names of the choices at each position: kernel, expansion, groups."""
SKIP = len(BLOCKS) - 1
_SHAPES = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))
_STEM, _LAST = 16, 1504
_WIDTHS = (16, 24, 32, 64, 112, 184, 352)
_DEPTHS = (1, 4, 4, 4, 4, 4, 1)


@dataclass(frozen=True)
class Macro:
    """Macro-architecture around the blocks.

    Attributes:
        resolution: Pixels of a side of the image.
        stem_stride: Stride of the first convolution.
        strides: Of the first block of each stage.
        classes: Of the classifier.
    """

    resolution: int
    stem_stride: int
    strides: tuple[int, ...]
    classes: int


CIFAR100 = Macro(resolution=32, stem_stride=1, strides=(1, 1, 2, 2, 1, 2, 1), classes=100)
IMAGENET = Macro(resolution=224, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1), classes=1000)


class Position(NamedTuple):
    """Shape of the blocks at one position.

    Attributes:
        size: Pixels of a side of the input.
        inputs: Channels read.
        outputs: Channels written.
        stride: Of the depthwise convolution.
    """

    size: int
    inputs: int
    outputs: int
    stride: int

    @property
    def has_identity(self) -> bool:
        """Whether a skip keeps the shape and so costs nothing."""
        return self.stride == 1 and self.inputs == self.outputs


def positions(macro: Macro = CIFAR100) -> tuple[Position, ...]:
    """Shapes of the 22 positions."""
    size, inputs, shapes = macro.resolution // macro.stem_stride, _STEM, []
    for width, depth, first_stride in zip(_WIDTHS, _DEPTHS, macro.strides, strict=True):
        for i in range(depth):
            stride = first_stride if i == 0 else 1
            shapes.append(Position(size, inputs, width, stride))
            size, inputs = size // stride, width
    return tuple(shapes)


def block_workloads(macro: Macro = CIFAR100) -> LayerTable:
    """Layer tables of every block at every position.

    Returns:
        Columns [22, 9, 5]; rows that a block does not need are inactive.
    """
    blocks = [[_block(where, choice) for choice in range(len(BLOCKS))] for where in positions(macro)]
    kind, macs, weights, reads, writes, kernels = np.moveaxis(np.asarray(blocks, np.float64), -1, 0)
    return layer_table(
        jnp.asarray(kind, jnp.int32),
        jnp.asarray(macs, jnp.float32),
        weight_elements=jnp.asarray(weights, jnp.float32),
        input_elements=jnp.asarray(reads, jnp.float32),
        output_elements=jnp.asarray(writes, jnp.float32),
        kernels=jnp.asarray(kernels, jnp.float32),
        active=jnp.asarray(kernels > 0, jnp.float32),
    )


def workload(choices: jax.Array, macro: Macro = CIFAR100) -> LayerTable:
    """Layer table of a network.

    Args:
        choices: int[22], position in `BLOCKS` of each block; batch with `jax.vmap`.
        macro: Macro-architecture.

    Returns:
        Columns [L]: the stem, 22 blocks of five rows, and the head.

    Raises:
        ValueError: `choices` is not an integer array of shape [22].
    """
    choices = jnp.asarray(choices)
    shapes = positions(macro)
    if not jnp.issubdtype(choices.dtype, jnp.integer) or choices.shape != (len(shapes),):
        raise ValueError(f"choices: expected integers of shape (22,), got {choices.dtype} of shape {choices.shape}")
    blocks = block_workloads(macro)
    chosen = jax.tree.map(lambda column: column[jnp.arange(len(shapes)), choices].ravel(), blocks)
    last = shapes[-1]
    size = last.size // last.stride
    stem = _conv(LayerKind.DENSE, shapes[0].size * macro.stem_stride, 3, _STEM, kernel=3, stride=macro.stem_stride)
    head = [
        _conv(LayerKind.POINTWISE, size, last.outputs, _LAST),
        (LayerKind.POOLING, size**2 * _LAST, 0, size**2 * _LAST, _LAST, 1),
        (LayerKind.LINEAR, _LAST * macro.classes, (_LAST + 1) * macro.classes, _LAST, macro.classes, 1),
    ]
    return concatenate([_table([stem]), chosen, _table(head)])


# Kind, MACs, weights, elements read and written, kernels.
_Row = tuple[int, float, float, float, float, float]
_NO_ROW: _Row = (LayerKind.ELEMENTWISE, 0, 0, 0, 0, 0)


def _block(where: Position, choice: int) -> list[_Row]:
    size, inputs, outputs, stride = where
    written = (size // stride) ** 2 * outputs
    if choice == SKIP:
        skip = _NO_ROW if where.has_identity else _conv(LayerKind.POINTWISE, size, inputs, outputs, stride=stride)
        return [skip, *[_NO_ROW] * 4]
    kernel, expansion, groups = _SHAPES[choice]
    hidden = inputs * expansion
    moved = size**2 * hidden
    return [
        _conv(LayerKind.POINTWISE, size, inputs, hidden, groups=groups),
        (LayerKind.ELEMENTWISE, moved, 0, moved, moved, 1) if groups > 1 else _NO_ROW,
        _conv(LayerKind.DEPTHWISE, size, hidden, hidden, kernel=kernel, stride=stride, groups=hidden),
        _conv(LayerKind.POINTWISE, size // stride, hidden, outputs, groups=groups),
        (LayerKind.ELEMENTWISE, written, 0, 2 * written, written, 1) if where.has_identity else _NO_ROW,
    ]


def _conv(
    kind: LayerKind, size: int, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> _Row:
    pixels, weights = (size // stride) ** 2, outputs * (inputs // groups) * kernel**2
    copies = 3 if kind == LayerKind.POINTWISE and groups > 1 else 1
    launches = 1 if kind == LayerKind.DEPTHWISE else groups
    reads, writes = copies * size**2 * inputs, copies * pixels * outputs
    return kind, pixels * weights, weights + outputs, reads, writes, launches


def _table(rows: list[_Row]) -> LayerTable:
    kind, macs, weights, reads, writes, kernels = zip(*rows, strict=True)
    return layer_table(
        kind, macs, weight_elements=weights, input_elements=reads, output_elements=writes, kernels=kernels
    )
