"""MBConv spaces by name or file: those that come with the package, YAML files of the user's own, published networks.

A space file has the fields of `MBConvSpace`, each checked, so that a space of one's own needs no code; widths are
channels, resolutions pixels. Published backbones are those of the AttentiveNAS space, a0 (203 million
multiply-accumulates at 1,000 classes) to a6 (709 million): Wang et al., "AttentiveNAS: Improving Neural Architecture
Search via Attentive Sampling", CVPR 2021, https://arxiv.org/abs/2011.09011.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage
from hw_models.files import read_checked
from hw_models.schema import Strict, Text

_SUFFIXES = (".yaml", ".yml", ".json")


DIGITS = MBConvSpace(
    name="digits",
    resolution=(),
    stem_width=(8, 16),
    stem_stride=1,
    stages=(
        Stage(width=(8, 16), depth=(1, 2), kernel=(3, 5), expand=(1,), stride=2),
        Stage(width=(16, 24), depth=(2, 3, 4), kernel=(3, 5), expand=(2, 3, 4)),
        Stage(width=(32, 40, 48), depth=(2, 3, 4), kernel=(3, 5), expand=(2, 3, 4), stride=2, se=True),
    ),
    last_width=(64, 96),
    head_expand=2,
    first_exit=2,
    exit_width=32,
)
ATTENTIVENAS = MBConvSpace(
    name="attentivenas",
    resolution=(192, 224, 256, 288),
    stem_width=(16, 24),
    stem_stride=2,
    stages=(
        Stage((16, 24), (1, 2), (3, 5), (1,)),
        Stage((24, 32), (3, 4, 5), (3, 5), (4, 5, 6), stride=2),
        Stage((32, 40), (3, 4, 5, 6), (3, 5), (4, 5, 6), stride=2, se=True),
        Stage((64, 72), (3, 4, 5, 6), (3, 5), (4, 5, 6), stride=2),
        Stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (3, 5), (4, 5, 6), se=True),
        Stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (3, 5), (6,), stride=2, se=True),
        Stage((216, 224), (1, 2), (3, 5), (6,), se=True),
    ),
    last_width=(1792, 1984),
)
# The same backbones at the images' own size, such as CIFAR's 32 pixels, instead of enlarging them.
ATTENTIVENAS_NATIVE = dataclasses.replace(ATTENTIVENAS, name="attentivenas-native", resolution=())
# For images of 28 to 64 pixels, sized to train within the hour on two CPU cores.
SMALL_IMAGES = MBConvSpace(
    name="small-images",
    resolution=(),
    stem_width=(8, 16),
    stem_stride=2,
    stages=(
        Stage(width=(16,), depth=(1,), kernel=(3,), expand=(1,)),
        Stage(width=(16, 24), depth=(1, 2, 3), kernel=(3,), expand=(2, 3), stride=2),
        Stage(width=(32, 40), depth=(2, 3), kernel=(3, 5), expand=(2, 3), se=True),
        Stage(width=(48, 64), depth=(2, 3), kernel=(3, 5), expand=(2, 3), stride=2, se=True),
    ),
    last_width=(96, 128),
    head_expand=2,
    first_exit=2,
    exit_width=48,
)
SPACES = {space.name: space for space in (DIGITS, SMALL_IMAGES, ATTENTIVENAS, ATTENTIVENAS_NATIVE)}
"""The spaces that `load_space` knows by name."""


def load_space(name_or_path: str | Path) -> MBConvSpace:
    """Returns a space by name or from a file.

    Args:
        name_or_path: A name of `SPACES`, or the path of a space file: a `Path`, or a text that ends in `.yaml`,
            `.yml` or `.json` or has a folder in it. A space from a file is not adapted to any data yet;
            docs/bring_your_space.md has an example of one.

    Raises:
        ValueError: No space has this name, and the valid ones are listed; or the file is missing or wrong.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(_SUFFIXES) or "/" in name_or_path:
        return _read_space(name_or_path)
    if name_or_path not in SPACES:
        raise ValueError(f"unknown space {name_or_path!r}: expected one of {', '.join(SPACES)}, or a space file")
    return SPACES[name_or_path]


# resolution; width of stem, mb1 .. mb7 and last; depth, kernel and expand ratio of mb1 .. mb7
_PUBLISHED = {
    "a0": (192, "16 16 24 32 64 112 192 216 1792", "1 3 3 3 3 3 1", "3 3 3 3 3 3 3", "1 4 4 4 4 6 6"),
    "a1": (224, "16 16 24 32 64 112 192 216 1984", "1 3 3 3 3 3 1", "3 3 3 5 3 5 3", "1 4 4 4 4 6 6"),
    "a2": (224, "16 16 24 32 64 112 200 224 1984", "1 3 3 3 3 4 1", "3 3 3 3 3 5 3", "1 4 5 4 4 6 6"),
    "a3": (224, "16 16 24 32 64 112 208 224 1984", "2 3 3 4 3 5 1", "3 3 3 5 3 3 3", "1 4 4 4 4 6 6"),
    "a4": (256, "16 16 24 32 64 112 192 216 1984", "1 3 3 4 3 5 1", "3 3 3 5 3 5 3", "1 4 4 5 4 6 6"),
    "a5": (256, "16 16 24 32 72 112 192 216 1792", "1 3 3 3 4 6 1", "3 3 3 5 3 3 3", "1 4 5 4 4 6 6"),
    "a6": (288, "16 16 24 32 64 112 216 224 1984", "1 3 3 4 4 6 1", "3 3 3 3 3 5 3", "1 4 6 5 4 6 6"),
}
PUBLISHED_NAMES = tuple(_PUBLISHED)
"""The names that `published` knows."""


def published(name: str) -> Backbone:
    """Returns a published backbone by name.

    Raises:
        ValueError: No backbone has this name; the valid ones are listed.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(_PUBLISHED)}")
    resolution, *fields = _PUBLISHED[name]
    width, depth, kernel, expand = (jnp.asarray([int(n) for n in field.split()], jnp.int32) for field in fields)
    return Backbone(resolution=jnp.int32(resolution), width=width, depth=depth, kernel=kernel, expand=expand)


def published_in(space: MBConvSpace, name: str) -> Backbone:
    """Returns a published backbone as one of a space; in a space of one resolution it runs at that.

    Raises:
        ValueError: No backbone has this name, or the space does not have it.
    """
    backbone = published(name)
    if len(backbone.depth) != len(space.stages):
        raise ValueError(
            f"{name}: expected a backbone of the space {space.name}: {', '.join(_PUBLISHED)} are of attentivenas and "
            "attentivenas-native"
        )
    if len(space.resolution) == 1:
        backbone = dataclasses.replace(backbone, resolution=jnp.int32(space.resolution[0]))
    try:
        space.encode(backbone)
    except ValueError as error:
        raise ValueError(f"{name}: expected a backbone of the space {space.name}: {error}") from error
    return backbone


def _rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise PydanticCustomError("order", "strictly ascending numbers")
    return values


def _odd(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if any(size % 2 == 0 for size in sizes):
        raise PydanticCustomError("odd", "odd sizes")
    return sizes


_Count = Annotated[int, Field(ge=1)]
_Options = Annotated[tuple[_Count, ...], Field(min_length=1), AfterValidator(_rising)]


class _StageOfFile(Strict):
    """One stage; the fields are those of `Stage`."""

    width: _Options
    depth: _Options
    kernel: Annotated[_Options, AfterValidator(_odd)]
    expand: _Options
    stride: Literal[1, 2] = 1
    se: bool = False


class _SpaceFile(Strict):
    """A space; the fields are those of `MBConvSpace`, but for what data sets settle."""

    schema_version: Literal[1] = 1
    name: Text
    resolution: Annotated[tuple[_Count, ...], AfterValidator(_rising)] = ()
    stem_width: _Options
    stem_stride: Literal[1, 2]
    stages: Annotated[tuple[_StageOfFile, ...], Field(min_length=1)]
    last_width: _Options
    head_expand: _Count = 6
    first_exit: Annotated[int, Field(ge=0)] = 5
    exit_width: _Count = 224

    @pydantic.model_validator(mode="after")
    def _has_exits(self) -> "_SpaceFile":
        fewest = sum(min(stage.depth) for stage in self.stages)
        if self.first_exit >= fewest:
            raise PydanticCustomError(
                "exits",
                "first_exit below {fewest}, the number of blocks of the smallest backbone",
                {"fewest": fewest, "got": self.first_exit},
            )
        return self


def _read_space(path: str | Path) -> MBConvSpace:
    read = read_checked(Path(path), _SpaceFile, shown=str(path), version=1)
    fields = read.model_dump(exclude={"schema_version", "stages"})
    return MBConvSpace(**fields, stages=tuple(Stage(**stage.model_dump()) for stage in read.stages))
