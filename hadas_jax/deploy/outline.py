"""A backbone as a list of parts, from the images to the classifier, for tables and pictures."""

from dataclasses import dataclass

import numpy as np

from hadas_jax.spaces import Backbone, MBConvSpace


@dataclass(frozen=True)
class Part:
    """A part of a backbone.

    Attributes:
      name: stem, stage 1, ..., classifier.
      block: its number among the backbone's own blocks, from 0; None: stem and classifier.
      size: height and width of its output in pixels.
      channels: of its output.
      kernel: of the depthwise convolution; None: stem and classifier.
      expand: ratio of middle to input channels; None: stem and classifier.
      ends_stage: it is the last one of its name.
    """

    name: str
    block: int | None
    size: int
    channels: int
    kernel: int | None = None
    expand: int | None = None
    ends_stage: bool = False


def outline(space: MBConvSpace, backbone: Backbone) -> list[Part]:
    """Returns the parts of one concrete backbone of a space."""
    widths, depths, kernels, expands = (
        np.asarray(field).tolist() for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)
    )
    size = _strided(int(backbone.resolution), space.stem_stride)
    parts = [Part("stem", None, size, widths[0], ends_stage=True)]
    for s, stage in enumerate(space.stages):
        size = _strided(size, stage.stride)
        for d in range(depths[s]):
            is_last, block = d == depths[s] - 1, sum(depths[:s]) + d
            parts.append(Part(f"stage {s + 1}", block, size, widths[s + 1], kernels[s], expands[s], is_last))
    return [*parts, Part("classifier", None, 1, space.classes, ends_stage=True)]


def _strided(size: int, stride: int) -> int:
    return (size + stride - 1) // stride
