"""FPGAs: resources and parameters of both paradigms, from a file of the package or of the user's own.

An FPGA is a YAML file whose quantities have a unit, a provenance and a source, see `hw_models.schema`; the models at
the end of this module are its schema, version 1. Memory is counted in blocks of 18 Kb.
"""

import importlib.resources
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hw_models.files import packaged_names, read_packaged_or_own
from hw_models.schema import ClockMHz, Name, NonNegative, PortGbS, Quantity, Share, Strict, Text

_FOLDER = importlib.resources.files("hw_models.accelerator") / "resources"
# A block is 512 words of up to 36 bits, or more words of fewer bits; two of them make 512 words of 72 bits.
_WIDTHS = (1, 2, 4, 9, 18)
_DEEPEST = 16384
_DEPTH = 512


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

    def check_holds(self, *, dsp: float, bram18: float, purpose: str) -> None:
        """Checks what a design needs at least, DSPs and memory blocks, against what it may take.

        Raises:
            FpgaTooSmallError: It needs more; the message names the resource and the purpose.
        """
        for resource, usable, total, needed in (
            ("DSPs", self.usable_dsp, self.dsp, dsp),
            ("memory blocks of 18 Kb", self.usable_bram18, self.bram18, bram18),
        ):
            if needed > usable:
                raise FpgaTooSmallError(
                    f"{self.name}: expected at least {int(needed)} usable {resource} for {purpose}, got {int(usable)} "
                    f"of {int(total)}"
                )


class FpgaTooSmallError(ValueError):
    """A network does not fit; the message names the resource."""


def fpga_names() -> list[str]:
    """Names of the FPGAs that come with the package, sorted."""
    return packaged_names(_FOLDER)


def load_fpga(name_or_path: str | Path) -> Fpga:
    """Loads an FPGA by name or from a file.

    Args:
        name_or_path: A name of `fpga_names`, or the path of a YAML file: a `Path`, or a text that ends in `.yaml` or
            `.yml` or has a folder in it.

    Returns:
        The FPGA, numbers as float32.

    Raises:
        ValueError: The name is unknown, or the file is missing or wrong.
    """
    return _to_fpga(read_packaged_or_own(name_or_path, _FOLDER, _FpgaFile, what="FPGA", version=1))


def memory_blocks(width: jax.Array, depth: jax.Array) -> jax.Array:
    """Counts the blocks of a memory.

    The width is cut into slices of 72 and 36 bits, and what is left takes the deepest blocks that are wide enough.

    Args:
        width: int32[...], bits of a word.
        depth: int32[...], words.

    Returns:
        int32[...], in blocks of 18 Kb.
    """
    rows = (depth + _DEPTH - 1) // _DEPTH
    whole, rest = width // 72, width % 72
    half = (rest >= 36).astype(jnp.int32)
    rest = rest - 36 * half
    wider_than = sum((rest > narrow).astype(jnp.int32) for narrow in _WIDTHS)
    deep = jnp.right_shift(_DEEPEST, wider_than)
    return (2 * whole + half) * rows + jnp.where(rest > 0, (depth + deep - 1) // deep, 0)


def _power_of_two(value: object) -> object:
    if isinstance(value, int) and value > 0 and value & (value - 1):
        raise PydanticCustomError("power_of_two", "a power of two")
    return value


_Count = Annotated[int, Field(gt=0, le=10**9)]
_PowerOfTwo = Annotated[int, BeforeValidator(_power_of_two), Field(gt=0, le=4096)]
_Bits = Literal[8, 16]


class _Resources(Strict):
    """What the chip and its board have."""

    dsp: Quantity[Literal["1"], _Count]
    bram18: Quantity[Literal["1"], _Count]
    ddr_bandwidth: Quantity[Literal["Gb/s"], PortGbS]


class _Design(Strict):
    """What every design on it has in common."""

    clock: Quantity[Literal["MHz"], ClockMHz]
    word: Quantity[Literal["bit"], _Bits]
    usable_dsp_share: Quantity[Literal["1"], Share]
    usable_bram18_share: Quantity[Literal["1"], Share]


class _Pipeline(Strict):
    """Parameters of `hw_models.accelerator.pipeline`."""

    control_dsp_weighted: Quantity[Literal["1"], NonNegative]
    control_dsp_other: Quantity[Literal["1"], NonNegative]
    largest_parallelism: Quantity[Literal["1"], _PowerOfTwo]
    pool_parallelism: Quantity[Literal["1"], _PowerOfTwo]
    weight_port: Quantity[Literal["bit"], _PowerOfTwo]


class _Generic(Strict):
    """Parameters of `hw_models.accelerator.generic`."""

    largest_parallelism: Quantity[Literal["1"], _PowerOfTwo]
    memory_efficiency: Quantity[Literal["1"], Share]
    layer_overhead: Quantity[Literal["cycle"], NonNegative]
    pool_overhead: Quantity[Literal["cycle"], NonNegative]


class _FpgaFile(Strict):
    """A whole FPGA file."""

    schema_version: Literal[1]
    name: Name
    description: Text
    resources: _Resources
    design: _Design
    pipeline: _Pipeline
    generic: _Generic


def _to_fpga(file: _FpgaFile) -> Fpga:
    """Converts the quantities of a file to SI units and float32."""
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
