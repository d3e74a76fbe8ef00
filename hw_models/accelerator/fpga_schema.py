"""FPGA file, version 1: the pydantic models of an FPGA's YAML, and their one-line error messages."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hw_models.figures import Figure, NonNegative, Positive, Share, Strict, Text
from hw_models.messages import explain, show

SCHEMA_VERSION = 1


def _power_of_two(value: object) -> object:
    if isinstance(value, int) and value > 0 and value & (value - 1):
        raise PydanticCustomError("power_of_two", "a power of two")
    return value


Count = Annotated[int, Field(gt=0, le=10**9)]
PowerOfTwo = Annotated[int, BeforeValidator(_power_of_two), Field(gt=0, le=4096)]
Bits = Literal[8, 16]


class Resources(Strict):
    """What the chip and its board have."""

    dsp: Figure[Literal["1"], Count]
    bram18: Figure[Literal["1"], Count]
    ddr_bandwidth: Figure[Literal["Gb/s"], Positive]


class Design(Strict):
    """What every design on it has in common."""

    clock: Figure[Literal["MHz"], Positive]
    word: Figure[Literal["bit"], Bits]
    usable_dsp_share: Figure[Literal["1"], Share]
    usable_bram18_share: Figure[Literal["1"], Share]


class Pipeline(Strict):
    """Parameters of `hw_models.accelerator.pipeline`."""

    control_dsp_weighted: Figure[Literal["1"], NonNegative]
    control_dsp_other: Figure[Literal["1"], NonNegative]
    largest_parallelism: Figure[Literal["1"], PowerOfTwo]
    pool_parallelism: Figure[Literal["1"], PowerOfTwo]
    weight_port: Figure[Literal["bit"], PowerOfTwo]


class Generic(Strict):
    """Parameters of `hw_models.accelerator.generic`."""

    largest_parallelism: Figure[Literal["1"], PowerOfTwo]
    memory_efficiency: Figure[Literal["1"], Share]
    layer_overhead: Figure[Literal["cycle"], NonNegative]
    pool_overhead: Figure[Literal["cycle"], NonNegative]


class FpgaFile(Strict):
    """A whole FPGA file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: Text
    resources: Resources
    design: Design
    pipeline: Pipeline
    generic: Generic


def parse(content: object) -> FpgaFile:
    """Checks the content of an FPGA file.

    Args:
        content: What the YAML held.

    Returns:
        The checked file.

    Raises:
        ValueError: One line: field path, what was expected and what came.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping of fields, got {show(content)}")
    version = content.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, got {show(version)}")
    try:
        return FpgaFile.model_validate(content)
    except pydantic.ValidationError as error:
        others = error.error_count() - 1
        raise ValueError(_explain(error.errors()[0]) + (f" (and {others} more)" if others else "")) from None


def _explain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        where = ".".join(str(part) for part in error["loc"])
        return f"{where}: expected no field of this name"
    return explain(error)
