"""FPGA file, version 1: the pydantic models of an FPGA's YAML."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hw_models.figures import ClockMHz, Figure, NonNegative, PortGbS, Share, Strict, Text

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
    ddr_bandwidth: Figure[Literal["Gb/s"], PortGbS]


class Design(Strict):
    """What every design on it has in common."""

    clock: Figure[Literal["MHz"], ClockMHz]
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
