"""Layer tables of two networks that everybody measures: MobileNetV2 and ResNet-50 for ImageNet.

Convolution, batch norm and activation are one row, as edge runtimes fuse them; batch norm leaves one bias per
channel. MobileNetV2 is of https://arxiv.org/abs/1801.04381; ResNet-50 of https://arxiv.org/abs/1512.03385, with
the stride of a block on its 3 x 3 convolution, as common implementations have it.
"""

from typing import NamedTuple

from hw_models.layers import LayerKind, LayerTable, layer_table

_CLASSES = 1000
# Expansion, width, blocks and stride of each stage.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Inner width, blocks and stride of each stage; its outputs are four times as wide.
_RESNET_50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class _Row(NamedTuple):
    """One layer; fields as the columns of `LayerTable`."""

    kind: LayerKind
    macs: int
    weights: int
    inputs: int
    outputs: int


def mobilenet_v2(resolution: int = 224) -> LayerTable:
    """MobileNetV2 of width 1: 301 M MACs and 3.5 M parameters at 224 pixels.

    Args:
        resolution: Height and width of the image, in pixels.

    Returns:
        Columns [64].

    Raises:
        ValueError: The resolution is not positive.
    """
    _check(resolution)
    rows = [_convolution(3, 32, size=resolution, kernel=3, stride=2)]
    size, channels = _strided(resolution, 2), 32
    for expansion, width, blocks, first_stride in _MOBILENET_V2:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            rows += _inverted_residual(channels, width, size=size, expansion=expansion, stride=stride)
            size, channels = _strided(size, stride), width
    rows.append(_convolution(channels, 1280, size=size))
    return _table([*rows, *_classifier(1280, size)])


def resnet50(resolution: int = 224) -> LayerTable:
    """ResNet-50: 4.1 G MACs and 25.5 M parameters at 224 pixels.

    Args:
        resolution: Height and width of the image, in pixels.

    Returns:
        Columns [72].

    Raises:
        ValueError: The resolution is not positive.
    """
    _check(resolution)
    size = _strided(resolution, 2)
    rows = [_convolution(3, 64, size=resolution, kernel=7, stride=2), _pooling(64, size, _strided(size, 2))]
    size, channels = _strided(size, 2), 64
    for width, blocks, first_stride in _RESNET_50:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            rows += _bottleneck(channels, width, size=size, stride=stride)
            size, channels = _strided(size, stride), 4 * width
    return _table([*rows, *_classifier(channels, size)])


def _check(resolution: int) -> None:
    if resolution < 1:
        raise ValueError(f"resolution: expected a positive number of pixels, got {resolution}")


def _strided(size: int, stride: int) -> int:
    return (size + stride - 1) // stride


def _inverted_residual(ins: int, outs: int, *, size: int, expansion: int, stride: int) -> list[_Row]:
    hidden = ins * expansion
    rows = [_convolution(ins, hidden, size=size)] if expansion > 1 else []
    rows.append(_depthwise(hidden, size=size, stride=stride))
    rows.append(_convolution(hidden, outs, size=_strided(size, stride)))
    return [*rows, _addition(outs, size)] if stride == 1 and ins == outs else rows


def _bottleneck(ins: int, width: int, *, size: int, stride: int) -> list[_Row]:
    outs, out_size = 4 * width, _strided(size, stride)
    rows = [
        _convolution(ins, width, size=size),
        _convolution(width, width, size=size, kernel=3, stride=stride),
        _convolution(width, outs, size=out_size),
    ]
    if ins != outs:
        rows.append(_convolution(ins, outs, size=size, stride=stride))
    return [*rows, _addition(outs, out_size)]


def _convolution(ins: int, outs: int, *, size: int, kernel: int = 1, stride: int = 1) -> _Row:
    kind = LayerKind.POINTWISE if kernel == 1 else LayerKind.DENSE
    weights, pixels = ins * outs * kernel**2, _strided(size, stride) ** 2
    return _Row(kind, weights * pixels, weights + outs, ins * size**2, outs * pixels)


def _depthwise(channels: int, *, size: int, stride: int) -> _Row:
    weights, pixels = channels * 9, _strided(size, stride) ** 2
    return _Row(LayerKind.DEPTHWISE, weights * pixels, weights + channels, channels * size**2, channels * pixels)


def _addition(channels: int, size: int) -> _Row:
    elements = channels * size**2
    return _Row(LayerKind.ELEMENTWISE, elements, 0, 2 * elements, elements)


def _pooling(channels: int, size: int, out_size: int) -> _Row:
    """Pooling that reads each pixel once; windows that overlap read it from the cache."""
    return _Row(LayerKind.POOLING, channels * size**2, 0, channels * size**2, channels * out_size**2)


def _classifier(channels: int, size: int) -> list[_Row]:
    weights = channels * _CLASSES
    return [
        _pooling(channels, size, 1),
        _Row(LayerKind.LINEAR, weights, weights + _CLASSES, channels, _CLASSES),
    ]


def _table(rows: list[_Row]) -> LayerTable:
    kind, macs, weights, inputs, outputs = zip(*rows, strict=True)
    return layer_table(kind, macs, weight_elements=weights, input_elements=inputs, output_elements=outputs)
