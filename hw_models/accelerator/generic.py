"""Generic paradigm: one engine runs the layers one after another.

The engine multiplies `array` channels by `array` kernels at once; a convolution moves its activations meanwhile:

    cycles = overhead + max(full MACs / array size, (read + written) / (efficiency * bandwidth))

A depthwise convolution takes the engine as long as a full one, since its channels cannot share inputs. Pooling moves
activations alone. The parameters are those of the FPGA's file; three of them are fitted to the published table with
overhead of EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299), which `hw_models.accelerator.generic`
has as it is.
Shapes: L rows of `hw_models.accelerator.network`. Functions take one architecture; batch them with `jax.vmap`.

The published table of E2E-Perf's generic paradigm, with overhead, in cycles.

EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299, github qianjiangcn/eh-dnas, MIT) gives the throughput of
each part of the network of 16 channels and 8 cells at 200 MHz: 143,266.5 images/s for a pooling of cells 0 and 1, and
so on. Every figure is 200e6 over a whole number of cycles, rounded to a tenth; those whole numbers are here.
Sums over networks are whole numbers below 2^24, so float32 has them exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga, FpgaTooSmallError
from hw_models.accelerator.network import (
    OPERATIONS,
    PLACES,
    DartsNetwork,
    Rows,
    network_rows,
    operation_counts,
    row_counts,
)
from hw_models.accelerator.pipeline import memory_blocks

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


CLOCK_HZ = 200e6
# Cycles of an operation in cells 0 and 1, 2, 3 and 4, 5, 6 and 7; what starts at an input of cells 2 and 5.
CELLS = ((0, 1), (2,), (3, 4), (5,), (6, 7))
OPERATION_CYCLES = {
    "max_pool_3x3": (1396, 1808, 743, 994, 420),
    "avg_pool_3x3": (1396, 1808, 743, 994, 420),
    "skip_connect": (0, 4635, 0, 2712, 0),
    "sep_conv_3x3": (8334, 5874, 4814, 4295, 3480),
    "sep_conv_5x5": (10368, 7490, 7250, 6737, 6074),
    "dil_conv_3x3": (4167, 3467, 2407, 2555, 1740),
    "dil_conv_5x5": (5184, 3865, 3625, 3700, 3037),
}
STEM_CYCLES = 3080
PREPROCESS_CYCLES = (6618, 7611, 9340, 10823, 6228, 7212, 6694, 4264)
"""Both 1x1 convolutions at the inputs of each cell."""
CLASSIFIER_CYCLES = 2544
RUN_SAVES_CYCLES = 3850
"""What a whole network takes less than its parts one by one.

Fitted: the one number that gives 200,000 random networks the published mean of 799 images/s. Their spread and range,
and the order of single networks, are no part of the fit. The stem's 3,080 cycles are most of it."""


def published_generic_table(*, run_saves_cycles: float = RUN_SAVES_CYCLES) -> GenericTable:
    """Returns the published table.

    In it an edge of a reduce cell costs what its operation costs at an input of that cell, wherever it starts; only a
    skip is free elsewhere. A part that is not there costs nothing.

    Args:
        run_saves_cycles: Taken off the sum of the parts; 0 gives the sums of the published table.

    Returns:
        The table, for networks of the default `DartsNetwork`.
    """
    by_operation = np.zeros((3, 1 + len(OPERATION_CYCLES)))
    for digit, cycles in enumerate(OPERATION_CYCLES.values(), start=1):
        by_cells = dict(zip(CELLS, cycles, strict=True))
        at_inputs = by_cells[(2,)] + by_cells[(5,)]
        by_operation[0, digit] = sum(len(cells) * by_cells[cells] for cells in ((0, 1), (3, 4), (6, 7)))
        by_operation[1, digit] = at_inputs
        by_operation[2, digit] = 0 if by_cells[(0, 1)] == 0 else at_inputs
    fixed = STEM_CYCLES + sum(PREPROCESS_CYCLES) + CLASSIFIER_CYCLES - run_saves_cycles
    return GenericTable(jnp.asarray(by_operation, jnp.float32), jnp.float32(fixed), jnp.float32(CLOCK_HZ))
