"""Generic paradigm: one engine runs the layers one after another.

The engine multiplies `array` channels by `array` kernels at once; a convolution moves its activations meanwhile:

    cycles = overhead + max(full MACs / array size, (read + written) / (efficiency * bandwidth))

A depthwise convolution takes the engine as long as a full one, since its channels cannot share inputs. Pooling moves
activations alone. The parameters are those of the FPGA's file; three of them are fitted to the table that EH-DNAS
publishes (Jiang et al., 2021, https://arxiv.org/abs/2111.12299).
Shapes: L rows, G groups, see `hw_models.accelerator.rows`. Functions take one network; batch them with `jax.vmap`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga, memory_blocks
from hw_models.accelerator.report import AcceleratorReport, StageRow
from hw_models.accelerator.rows import Rows


@struct.dataclass
class _Engine:
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
    """Prices all networks of a space: cycles of each group of layers, and of the layers that every network has.

    Attributes:
        cycles: f32[G], of one occurrence of each group.
        fixed_cycles: f32[].
        clock_hz: f32[].
    """

    cycles: jax.Array
    fixed_cycles: jax.Array
    clock_hz: jax.Array

    def cost(self, counts: jax.Array) -> GenericCost:
        """Cost of a network, with counts as `generic_cost`."""
        cycles = self.fixed_cycles + jnp.sum(counts * jnp.reshape(self.cycles, jnp.shape(counts)))
        return _cost(cycles, self.clock_hz)


def _engine(fpga: Fpga) -> _Engine:
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
    return _Engine(*leaves)


def generic_cost(rows: Rows, counts: jax.Array, fpga: Fpga) -> GenericCost:
    """Runs a network layer after layer.

    Args:
        rows: Of the space.
        counts: float32[G], how often each group occurs in the network; expected counts of a relaxed network.
        fpga: The FPGA.

    Returns:
        The cost; of a relaxed network the expected cycles, which are linear in the counts, and what follows from them.
    """
    cycles = jnp.sum(rows.layer_counts(counts) * _layer_cycles(rows, fpga))
    return _cost(_if_engine(cycles, fpga), fpga.clock_hz)


def _layer_cycles(rows: Rows, fpga: Fpga) -> jax.Array:
    """Cycles of one layer of each row, f32[L]; of no meaning where the FPGA holds no engine."""
    size = _engine(fpga)
    multipliers = (size.channels * size.kernels).astype(jnp.float32)
    full_macs = rows.inputs * rows.outputs * rows.kernel**2 * rows.out_size**2
    words_per_cycle = fpga.memory_efficiency * fpga.ddr_bits_per_s / fpga.word_bits / fpga.clock_hz
    moving = (rows.reads + rows.writes).astype(np.float32) / words_per_cycle
    computing = np.where(rows.is_weighted, full_macs, 0).astype(np.float32) / jnp.maximum(multipliers, 1.0)
    overhead = jnp.where(rows.is_weighted, fpga.layer_overhead_cycles, fpga.pool_overhead_cycles)
    runs = rows.is_weighted | rows.is_pooling
    return jnp.where(runs, overhead + jnp.maximum(computing, moving), 0.0)


def check_generic_fits(fpga: Fpga) -> None:
    """Checks that the FPGA holds an engine of one multiplier at least.

    Raises:
        FpgaTooSmallError: It does not; the message names the resource, what is needed and what a design may take.
    """
    blocks = 3 * int(memory_blocks(jnp.int32(fpga.word_bits), jnp.int32(512)))
    fpga.check_holds(dsp=1, bram18=blocks, purpose="the smallest engine")


def generic_table(rows: Rows, fpga: Fpga) -> GenericTable:
    """Sums the cycles of layers by group; exact, as the cycles of a network are a sum."""
    cycles = jnp.asarray(rows.times, jnp.float32) * _layer_cycles(rows, fpga)
    sums = jax.ops.segment_sum(cycles, jnp.asarray(rows.group, jnp.int32), rows.groups + 1)
    return GenericTable(sums[:-1], _if_engine(sums[-1], fpga), fpga.clock_hz)


def generic_report(rows: Rows, counts: jax.Array, fpga: Fpga) -> AcceleratorReport:
    """Reports a network on the engine; arguments as `generic_cost`.

    Raises:
        FpgaTooSmallError: As `check_generic_fits`.
    """
    check_generic_fits(fpga)
    layers = np.asarray(rows.layer_counts(counts)).astype(int)
    size, cycles = _engine(fpga), np.asarray(_layer_cycles(rows, fpga), float)
    runs = np.flatnonzero((layers > 0) & (rows.is_weighted | rows.is_pooling))
    times = layers * cycles
    total, worst = float(times[runs].sum()), runs[np.argmax(times[runs])]
    channels, kernels, dsp, bram18 = (int(leaf) for leaf in (size.channels, size.kernels, size.dsp, size.bram18))
    table = StageRow.of_network(
        rows,
        layers,
        channels=np.where(rows.is_weighted, channels, 1),
        kernels=np.where(rows.is_weighted, kernels, 1),
        cycles=cycles,
        share=times / total,
        dsp=np.where(rows.is_weighted, dsp, 0),
        bram18=np.where(rows.is_weighted, bram18, 0),
        is_bottleneck=np.arange(len(layers)) == worst,
    )
    overhead = fpga.layer_overhead_cycles if rows.is_weighted[worst] else fpga.pool_overhead_cycles
    full_macs = rows.inputs[worst] * rows.outputs[worst] * rows.kernel[worst] ** 2 * rows.out_size[worst] ** 2
    computes = rows.is_weighted[worst] and cycles[worst] - float(overhead) <= full_macs / (channels * kernels) * 1.0001
    bound = "multiplying" if computes else "moving activations"
    reason = (
        f"{rows.name[worst]} takes {times[worst] / total:.0%} of the time: {layers[worst]} times "
        f"{cycles[worst]:,.0f} cycles, bound by {bound}, {float(overhead):g} of them to start. The engine has "
        f"{channels} channels times {kernels} kernels."
    )
    return AcceleratorReport(
        paradigm="generic",
        fpga=fpga.name,
        throughput=float(fpga.clock_hz) / total,
        latency_s=total / float(fpga.clock_hz),
        batch=1,
        dsp=dsp,
        bram18=bram18,
        usable_dsp=int(fpga.usable_dsp),
        usable_bram18=int(fpga.usable_bram18),
        rows=table,
        reason=reason,
    )


def _if_engine(cycles: jax.Array, fpga: Fpga) -> jax.Array:
    return jnp.where(_engine(fpga).dsp > 0, cycles, jnp.inf)


def _cost(cycles: jax.Array, clock_hz: jax.Array) -> GenericCost:
    return GenericCost(throughput=clock_hz / cycles, latency_s=cycles / clock_hz, cycles=cycles)
