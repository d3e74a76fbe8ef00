"""Spaces as YAML files: the fields of `MBConvSpace`, each checked, so that a space of one's own needs no code.

Widths are channels, resolutions pixels.
"""

import itertools
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from hadas_jax.spaces.mbconv import MBConvSpace, Stage
from hw_models.figures import Strict, Text
from hw_models.yaml_files import read_checked

SUFFIXES = (".yaml", ".yml", ".json")
_VERSION = 1


def _rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise PydanticCustomError("order", "strictly ascending numbers")
    return values


def _odd(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if any(size % 2 == 0 for size in sizes):
        raise PydanticCustomError("odd", "odd sizes")
    return sizes


Count = Annotated[int, Field(ge=1)]
Options = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_rising)]


class StageOfFile(Strict):
    """One stage; the fields are those of `Stage`."""

    width: Options
    depth: Options
    kernel: Annotated[Options, AfterValidator(_odd)]
    expand: Options
    stride: Literal[1, 2] = 1
    se: bool = False


class SpaceFile(Strict):
    """A space; the fields are those of `MBConvSpace`, but for what data sets settle."""

    schema_version: Literal[1] = 1
    name: Text
    resolution: Annotated[tuple[Count, ...], AfterValidator(_rising)] = ()
    stem_width: Options
    stem_stride: Literal[1, 2]
    stages: Annotated[tuple[StageOfFile, ...], Field(min_length=1)]
    last_width: Options
    head_expand: Count = 6
    first_exit: Annotated[int, Field(ge=0)] = 5
    exit_width: Count = 224

    @pydantic.model_validator(mode="after")
    def _has_exits(self) -> "SpaceFile":
        fewest = sum(min(stage.depth) for stage in self.stages)
        if self.first_exit >= fewest:
            raise PydanticCustomError(
                "exits",
                "first_exit below {fewest}, the number of blocks of the smallest backbone",
                {"fewest": fewest, "got": self.first_exit},
            )
        return self


def is_space_file(name_or_path: str | Path) -> bool:
    """Whether this is the path of a space file: a `Path`, or a text that ends like one or has a folder in it."""
    return isinstance(name_or_path, Path) or name_or_path.endswith(SUFFIXES) or "/" in name_or_path


def read_space(path: str | Path) -> MBConvSpace:
    """Reads a space, not adapted to any data yet; docs/bring_your_space.md has an example.

    Args:
      path: of the file.

    Raises:
      ValueError: one line: the file cannot be read, or a field does not fit.
    """
    read = read_checked(Path(path), SpaceFile, shown=str(path), version=_VERSION)
    fields = read.model_dump(exclude={"schema_version", "stages"})
    return MBConvSpace(**fields, stages=tuple(Stage(**stage.model_dump()) for stage in read.stages))
