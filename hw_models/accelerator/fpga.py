"""FPGAs: resources and parameters of both paradigms, from a file of the package or of the user's own.

FPGA file, version 1: the pydantic models of an FPGA's YAML.
"""

import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hw_models.files import read_checked
from hw_models.schema import ClockMHz, NonNegative, PortGbS, Quantity, Share, Strict, Text

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

    dsp: Quantity[Literal["1"], Count]
    bram18: Quantity[Literal["1"], Count]
    ddr_bandwidth: Quantity[Literal["Gb/s"], PortGbS]


class Design(Strict):
    """What every design on it has in common."""

    clock: Quantity[Literal["MHz"], ClockMHz]
    word: Quantity[Literal["bit"], Bits]
    usable_dsp_share: Quantity[Literal["1"], Share]
    usable_bram18_share: Quantity[Literal["1"], Share]


class Pipeline(Strict):
    """Parameters of `hw_models.accelerator.pipeline`."""

    control_dsp_weighted: Quantity[Literal["1"], NonNegative]
    control_dsp_other: Quantity[Literal["1"], NonNegative]
    largest_parallelism: Quantity[Literal["1"], PowerOfTwo]
    pool_parallelism: Quantity[Literal["1"], PowerOfTwo]
    weight_port: Quantity[Literal["bit"], PowerOfTwo]


class Generic(Strict):
    """Parameters of `hw_models.accelerator.generic`."""

    largest_parallelism: Quantity[Literal["1"], PowerOfTwo]
    memory_efficiency: Quantity[Literal["1"], Share]
    layer_overhead: Quantity[Literal["cycle"], NonNegative]
    pool_overhead: Quantity[Literal["cycle"], NonNegative]


class FpgaFile(Strict):
    """A whole FPGA file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: Text
    resources: Resources
    design: Design
    pipeline: Pipeline
    generic: Generic


_SUFFIXES = (".yaml", ".yml")


@struct.dataclass
class Fpga:
    """An FPGA and how designs use it.

    Attributes:
        dsp: f32[], slices for multiplications.
        bram18: f32[], memory blocks of 18 Kb.
        ddr_bits_per_s: f32[].
        clock_hz: f32[], of the design.
        usable_dsp_share: f32[], of the DSPs that a design may take.
        usable_bram18_share: f32[], the same of memory blocks.
        control_dsp_weighted: f32[], DSPs that address a stage with weights (pipeline).
        control_dsp_other: f32[], those of any other stage (pipeline).
        memory_efficiency: f32[], share of the bandwidth that activations reach (generic).
        layer_overhead_cycles: f32[], to start a convolution (generic).
        pool_overhead_cycles: f32[], to start a pooling (generic).
        name: Static.
        word_bits: Static, of weights and activations, 16 or 8; at 8 a DSP multiplies twice.
        stage_parallelism: Static, largest number of channels or kernels that a stage works on at once (pipeline).
        pool_parallelism: Static, the same of a pooling stage (pipeline).
        weight_port_bits: Static, width at which a stage's weights arrive (pipeline).
        engine_parallelism: Static, largest number of channels or kernels of the engine (generic).
    """

    dsp: jax.Array
    bram18: jax.Array
    ddr_bits_per_s: jax.Array
    clock_hz: jax.Array
    usable_dsp_share: jax.Array
    usable_bram18_share: jax.Array
    control_dsp_weighted: jax.Array
    control_dsp_other: jax.Array
    memory_efficiency: jax.Array
    layer_overhead_cycles: jax.Array
    pool_overhead_cycles: jax.Array
    name: str = struct.field(pytree_node=False)
    word_bits: int = struct.field(pytree_node=False)
    stage_parallelism: int = struct.field(pytree_node=False)
    pool_parallelism: int = struct.field(pytree_node=False)
    weight_port_bits: int = struct.field(pytree_node=False)
    engine_parallelism: int = struct.field(pytree_node=False)

    @property
    def usable_dsp(self) -> jax.Array:
        """f32[], whole DSPs that a design may take."""
        return jnp.floor(self.usable_dsp_share * self.dsp)

    @property
    def usable_bram18(self) -> jax.Array:
        """f32[], whole memory blocks that a design may take."""
        return jnp.floor(self.usable_bram18_share * self.bram18)

    @property
    def multiplications_per_dsp(self) -> int:
        """Of one cycle."""
        return 2 if self.word_bits == 8 else 1


class FpgaFileError(ValueError):
    """An FPGA is unknown or its file is wrong; the message is one line."""


class FpgaTooSmallError(ValueError):
    """A network does not fit; the message names the resource."""


def fpga_names() -> list[str]:
    """Names of the FPGAs that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_fpga(name_or_path: str | Path) -> Fpga:
    """Loads an FPGA by name or from a file.

    Args:
        name_or_path: A name of `fpga_names`, or the path of a YAML file: a `Path`, or a text that ends in `.yaml` or
            `.yml` or has a folder in it.

    Returns:
        The FPGA, numbers as float32.

    Raises:
        FpgaFileError: The name is unknown, or the file is missing or wrong.
    """
    return to_fpga(read_fpga_file(name_or_path))


def read_fpga_file(name_or_path: str | Path) -> FpgaFile:
    """Reads and checks an FPGA file, with units and origins of its figures; arguments and errors as `load_fpga`."""
    source = _find(name_or_path)
    try:
        return read_checked(source, FpgaFile, shown=str(name_or_path), version=SCHEMA_VERSION)
    except ValueError as error:
        raise FpgaFileError(str(error)) from None


def to_fpga(file: FpgaFile) -> Fpga:
    """Converts the figures of a file to SI units and float32."""
    resources, design, pipeline, generic = file.resources, file.design, file.pipeline, file.generic
    numbers = {
        "dsp": resources.dsp.value,
        "bram18": resources.bram18.value,
        "ddr_bits_per_s": resources.ddr_bandwidth.value * 1e9,
        "clock_hz": design.clock.value * 1e6,
        "usable_dsp_share": design.usable_dsp_share.value,
        "usable_bram18_share": design.usable_bram18_share.value,
        "control_dsp_weighted": pipeline.control_dsp_weighted.value,
        "control_dsp_other": pipeline.control_dsp_other.value,
        "memory_efficiency": generic.memory_efficiency.value,
        "layer_overhead_cycles": generic.layer_overhead.value,
        "pool_overhead_cycles": generic.pool_overhead.value,
    }
    return Fpga(
        name=file.name,
        word_bits=design.word.value,
        stage_parallelism=pipeline.largest_parallelism.value,
        pool_parallelism=pipeline.pool_parallelism.value,
        weight_port_bits=pipeline.weight_port.value,
        engine_parallelism=generic.largest_parallelism.value,
        **{key: jnp.float32(value) for key, value in numbers.items()},
    )


def _folder() -> Traversable:
    return importlib.resources.files("hw_models.accelerator") / "resources"


def _find(name_or_path: str | Path) -> Traversable:
    is_name = isinstance(name_or_path, str) and not (
        name_or_path.endswith(_SUFFIXES) or "/" in name_or_path or "\\" in name_or_path
    )
    if not is_name:
        return Path(name_or_path)
    if name_or_path not in fpga_names():
        raise FpgaFileError(
            f"FPGA: expected one of {', '.join(fpga_names())}, or the path of a .yaml file, got {str(name_or_path)!r}"
        )
    return _folder() / f"{name_or_path}.yaml"
