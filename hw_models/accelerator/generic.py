"""Generic paradigm: one engine runs the layers one after another.

The engine multiplies `array` channels by `array` kernels at once; a convolution moves its activations meanwhile:

    cycles = overhead + max(full MACs / array size, (read + written) / (efficiency * bandwidth))

A depthwise convolution takes the engine as long as a full one, since its channels cannot share inputs. Pooling moves
activations alone. The parameters are those of the FPGA's file; three of them are fitted to the published table with
overhead of EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299), which `hw_models.accelerator.published`
has as it is.
Shapes: L rows of `hw_models.accelerator.network`. Functions take one architecture; batch them with `jax.vmap`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga, FpgaTooSmallError
from hw_models.accelerator.memory_blocks import memory_blocks
from hw_models.accelerator.network import (
    OPERATIONS,
    PLACES,
    DartsNetwork,
    Rows,
    network_rows,
    operation_counts,
    row_counts,
)

_GROUPS = len(PLACES) * len(OPERATIONS)
_CHUNK = 4096


@struct.dataclass
class Engine:
    """Size of the engine; leaves int32[], all 0 where the FPGA holds none.

    Attributes:
        channels: Channels at once.
        kernels: Kernels at once.
        dsp: DSPs that it takes.
        bram18: Memory blocks that it takes: two buffers of weights, inputs and outputs.
    """

    channels: jax.Array
    kernels: jax.Array
    dsp: jax.Array
    bram18: jax.Array


@struct.dataclass
class GenericCost:
    """How a network runs on the engine; leaves f32[].

    Attributes:
        throughput: Images/s; 0 where there is no engine.
        latency_s: Of an image, 1 / throughput.
        cycles: Of an image.
    """

    throughput: jax.Array
    latency_s: jax.Array
    cycles: jax.Array


@struct.dataclass
class GenericTable:
    """Prices all networks of one size: cycles of an edge by place and operation, and of everything else.

    Attributes:
        cycles: f32[3, 8].
        fixed_cycles: f32[].
        clock_hz: f32[].
    """

    cycles: jax.Array
    fixed_cycles: jax.Array
    clock_hz: jax.Array


def engine(fpga: Fpga) -> Engine:
    """Sizes the engine: the largest power of two of multipliers that DSPs and memory blocks allow."""
    most = int(np.log2(fpga.engine_parallelism))
    sizes = np.arange(2 * most, -1, -1, dtype=np.int32)
    channels, kernels = 1 << ((sizes + 1) // 2), 1 << (sizes // 2)
    dsp = -(-channels * kernels // fpga.multiplications_per_dsp)
    width = jnp.asarray(fpga.word_bits * np.stack([channels * kernels, channels, kernels]), jnp.int32)
    # 512 words, two buffers of 256.
    bram18 = jnp.sum(memory_blocks(width, jnp.full_like(width, 512)), axis=0)
    fits = (dsp <= fpga.usable_dsp.astype(jnp.int32)) & (bram18 <= fpga.usable_bram18.astype(jnp.int32))
    first = jnp.argmax(fits)
    leaves = (jnp.where(jnp.any(fits), jnp.asarray(leaf)[first], 0) for leaf in (channels, kernels, dsp, bram18))
    return Engine(*leaves)


def generic_cost(network: DartsNetwork, architecture: jax.Array, fpga: Fpga) -> GenericCost:
    """Runs a network layer after layer.

    Args:
        network: Static.
        architecture: int[28], a code, or f32[28, 8], a distribution over operations for each edge.
        fpga: The FPGA.

    Returns:
        The cost; of a distribution the expected cycles, which are linear in it, and what they make of the rest.

    Raises:
        ValueError: `architecture` is neither.
    """
    rows = network_rows(network)
    cycles = jnp.sum(row_counts(network, architecture) * layer_cycles(rows, fpga))
    return _cost(_if_engine(cycles, fpga), fpga.clock_hz)


def layer_cycles(rows: Rows, fpga: Fpga) -> jax.Array:
    """Cycles of one layer of each row, f32[L]; of no meaning where the FPGA holds no engine."""
    size = engine(fpga)
    multipliers = (size.channels * size.kernels).astype(jnp.float32)
    full_macs = rows.inputs * rows.outputs * rows.kernel**2 * rows.out_size**2
    words_per_cycle = fpga.memory_efficiency * fpga.ddr_bits_per_s / fpga.word_bits / fpga.clock_hz
    moving = rows.elements.astype(np.float32) / words_per_cycle
    computing = np.where(rows.is_weighted, full_macs, 0).astype(np.float32) / jnp.maximum(multipliers, 1.0)
    overhead = jnp.where(rows.is_weighted, fpga.layer_overhead_cycles, fpga.pool_overhead_cycles)
    runs = rows.is_weighted | rows.is_pooling
    return jnp.where(runs, overhead + jnp.maximum(computing, moving), 0.0)


def check_generic_fits(fpga: Fpga) -> None:
    """Checks that the FPGA holds an engine of one multiplier at least.

    Raises:
        FpgaTooSmallError: It does not; the message names the resource, what is needed and what a design may take.
    """
    if int(engine(fpga).dsp) > 0:
        return
    needs = 3 * int(memory_blocks(jnp.int32(fpga.word_bits), jnp.int32(512)))
    for resource, usable, has, least in (
        ("DSPs", fpga.usable_dsp, fpga.dsp, 1),
        ("memory blocks of 18 Kb", fpga.usable_bram18, fpga.bram18, needs),
    ):
        if usable < least:
            raise FpgaTooSmallError(
                f"{fpga.name}: expected at least {least} usable {resource} for the smallest engine, got {int(usable)} "
                f"of {int(has)}"
            )


def generic_table(network: DartsNetwork, fpga: Fpga) -> GenericTable:
    """Sums `layer_cycles` by place and operation; exact, as the cycles of a network are a sum."""
    rows = network_rows(network)
    cycles = jnp.asarray(rows.times, jnp.float32) * layer_cycles(rows, fpga)
    sums = jax.ops.segment_sum(cycles, jnp.asarray(rows.group, jnp.int32), _GROUPS + 1)
    by_place = sums[:-1].reshape(len(PLACES), len(OPERATIONS))
    return GenericTable(by_place, _if_engine(sums[-1], fpga), fpga.clock_hz)


def generic_table_cost(table: GenericTable, architecture: jax.Array) -> GenericCost:
    """Cost of a network by table; arguments and errors as `generic_cost`."""
    counts = operation_counts(architecture)
    cycles = table.fixed_cycles + jnp.sum(counts * table.cycles)
    return _cost(cycles, table.clock_hz)


def generic_table_throughputs(table: GenericTable, codes: jax.Array) -> jax.Array:
    """Throughput of many networks, codes int[N, 28] -> images/s f32[N], in chunks that stay in the cache."""
    return jax.lax.map(lambda code: generic_table_cost(table, code).throughput, codes, batch_size=_CHUNK)


def _if_engine(cycles: jax.Array, fpga: Fpga) -> jax.Array:
    return jnp.where(engine(fpga).dsp > 0, cycles, jnp.inf)


def _cost(cycles: jax.Array, clock_hz: jax.Array) -> GenericCost:
    return GenericCost(throughput=clock_hz / cycles, latency_s=cycles / clock_hz, cycles=cycles)
