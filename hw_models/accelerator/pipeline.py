"""Pipeline paradigm: one stage per layer, all at work at once; the slowest sets the throughput.

DNNBuilder (Zhang et al., ICCAD 2018, https://doi.org/10.1145/3240765.3240801), as E2E-Perf of EH-DNAS uses it
(Jiang et al., 2021, https://arxiv.org/abs/2111.12299). A stage with weights works on `cpf` channels and `kpf` kernels
at once and takes MACs / (cpf kpf) cycles for an image. Each stage reads its weights again for every row of its output,
so parallelism in proportion to the work, as much as the DDR memory feeds, leaves every stage the same time; powers of
two leave it about the same. Then as many images run side by side, with the same weights, as DSPs and memory blocks
allow: throughput = batch * clock / (slowest + 1). Where not even one image fits, all parallelism is halved.

`pipeline_cost` is this rule. `pipeline_table` gives the same throughput fifty times as fast: everything that a stage
takes depends on its row and on one number of the network, its weight traffic, and only through powers of two, so
between two limits of the traffic nothing changes. Sums per interval of the traffic and per group of rows price a
network from its counts, exactly as `pipeline_cost` does, halvings included, while sums stay below 2^24, where float32
is exact. Beyond (large images) a network whose traffic is within rounding of a limit may fall on its other side.
Shapes: L rows, G groups, see `hw_models.accelerator.rows`; H halvings, I intervals, U groups that have rows of
convolution or pooling. Functions take one network; batch them with `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga, memory_blocks
from hw_models.accelerator.report import AcceleratorReport, StageRow
from hw_models.accelerator.rows import Rows

# The wanted parallelism is rounded up to a whole number and then to the power of two nearest in ratio: 2^p is taken
# from the first whole number above 2^(p - 1/2).
_STEPS = np.ceil(2.0 ** (np.arange(1, 13) - 0.5))
_MOST_MACS = 2.0**31
_MOST_HALVINGS = 12


@struct.dataclass
class PipelineCost:
    """How a network runs as a pipeline; leaves f32[].

    Attributes:
        throughput: Images/s; 0 where the network does not fit.
        latency_s: From the first pixel of an image to its result, stages filled one after another: an upper bound,
            as parallel branches fill together. Infinite where the network does not fit.
        batch: Images side by side.
        slowest_cycles: Of the slowest stage, for an image.
        dsp: Taken in all.
        bram18: Taken in all.
        dsp_batch: Batch that DSPs alone would allow.
        bram18_batch: Batch that memory blocks alone would allow.
        halvings: How often all parallelism was halved.
    """

    throughput: jax.Array
    latency_s: jax.Array
    batch: jax.Array
    slowest_cycles: jax.Array
    dsp: jax.Array
    bram18: jax.Array
    dsp_batch: jax.Array
    bram18_batch: jax.Array
    halvings: jax.Array


@struct.dataclass
class PipelineTable:
    """Prices all networks of a space on one FPGA.

    Attributes:
        limits: f32[H, I - 1], weight traffic at which the next interval begins, infinite where there is none.
        traffic: f32[U], weight traffic of one occurrence of each group.
        control_dsp: f32[U], DSPs of control.
        sums: f32[H, I, 4, U]: DSPs, cache blocks and weight blocks of one occurrence, and the cycles of its slowest
            stage.
        fixed_traffic: f32[], of the layers that every network has.
        fixed_control_dsp: f32[].
        fixed: f32[H, I, 4], as `sums`.
        fpga: The FPGA.
        groups: Static, the U groups of `Rows.group`.
    """

    limits: jax.Array
    traffic: jax.Array
    control_dsp: jax.Array
    sums: jax.Array
    fixed_traffic: jax.Array
    fixed_control_dsp: jax.Array
    fixed: jax.Array
    fpga: Fpga
    groups: tuple[int, ...] = struct.field(pytree_node=False)

    def throughput(self, counts: jax.Array) -> jax.Array:
        """Throughput of a network, images/s, f32[]: that of `pipeline_cost`, 0 where it does not fit.

        Args:
            counts: float32[G], how often each group occurs in the network.
        """
        counts = jnp.ravel(counts)[jnp.asarray(self.groups)]
        traffic = self.fixed_traffic + jnp.sum(counts * self.traffic)
        control = self.fixed_control_dsp + jnp.sum(counts * self.control_dsp)

        def at_level(level: jax.Array) -> jax.Array:
            interval = jnp.sum((traffic >= self.limits[level]).astype(jnp.int32))
            entries, fixed = self.sums[level, interval], self.fixed[level, interval]
            dsp, cache, weights = (fixed[i] + jnp.sum(counts * entries[i]) for i in range(3))
            slowest = jnp.maximum(fixed[3], jnp.max(jnp.where(counts > 0, entries[3], 0.0)))
            batch = jnp.minimum(*_batches(_Demand(dsp, cache, weights, control, slowest), self.fpga))
            return jnp.where(batch >= 1, _throughput(batch, slowest, self.fpga), 0.0)

        last = self.limits.shape[0] - 1
        _, found = jax.lax.while_loop(
            lambda state: (state[1] == 0) & (state[0] < last),
            lambda state: (state[0] + 1, at_level(state[0] + 1)),
            (jnp.int32(0), at_level(jnp.int32(0))),
        )
        return found


def pipeline_cost(rows: Rows, counts: jax.Array, fpga: Fpga) -> PipelineCost:
    """Allocates the FPGA to the stages of a network.

    Rounded to whole numbers everywhere, so without a useful gradient; use a predictor in a gradient search.

    Args:
        rows: Of the space.
        counts: float32[G], how often each group occurs in the network; whole numbers.
        fpga: The FPGA.

    Returns:
        The cost. The rule looks at bandwidth only for the parallelism it wants, not after rounding.

    Raises:
        ValueError: A layer has 2^31 multiply-accumulates or more, beyond the whole numbers used here.
    """
    counts = rows.layer_counts(counts)
    traffic = _weight_traffic(rows, counts)

    def demand_at(halvings: jax.Array) -> _Demand:
        return _total_demand(rows, counts, fpga, stages=_stages(rows, traffic, fpga, halvings=halvings))

    def is_too_large(halvings: jax.Array) -> jax.Array:
        return (jnp.minimum(*_batches(demand_at(halvings), fpga)) < 1) & (halvings < _MOST_HALVINGS)

    halvings = jax.lax.while_loop(is_too_large, lambda halvings: halvings + 1, jnp.int32(0))
    demand = demand_at(halvings)
    dsp_batch, bram18_batch = _batches(demand, fpga)
    batch = jnp.maximum(jnp.minimum(dsp_batch, bram18_batch), 0.0)
    stages = _stages(rows, traffic, fpga, halvings=halvings)
    filled = np.minimum(rows.kernel / rows.in_size, 1.0).astype(np.float32)
    fill_cycles = jnp.sum(counts * filled * stages.cycles.astype(jnp.float32))
    latency_s = (fill_cycles + demand.slowest_cycles) / fpga.clock_hz
    return PipelineCost(
        throughput=_throughput(batch, demand.slowest_cycles, fpga),
        latency_s=jnp.where(batch > 0, latency_s, jnp.inf),
        batch=batch,
        slowest_cycles=demand.slowest_cycles,
        dsp=demand.control_dsp + batch * demand.dsp,
        bram18=demand.weight_blocks + batch * demand.cache_blocks,
        dsp_batch=dsp_batch,
        bram18_batch=bram18_batch,
        halvings=halvings.astype(jnp.float32),
    )


def check_pipeline_fits(rows: Rows, counts: jax.Array, fpga: Fpga) -> None:
    """Checks a network against an FPGA; arguments as `pipeline_cost`.

    Raises:
        FpgaTooSmallError: Not even one image fits with a parallelism of 1; the message names the resource, what
            the network needs of it and what a design may take.
    """
    stages = _pipeline_stages(rows, counts, fpga, halvings=jnp.int32(_MOST_HALVINGS))
    demand = _total_demand(rows, rows.layer_counts(counts), fpga, stages=stages)
    fpga.check_holds(
        dsp=float(demand.control_dsp + demand.dsp),
        bram18=float(demand.weight_blocks + demand.cache_blocks),
        purpose="one image in a pipeline of this network",
    )


def pipeline_table(rows: Rows, fpga: Fpga) -> PipelineTable:
    """Builds the table of a space on an FPGA, whose numbers are concrete."""
    per_layer = np.where(rows.is_weighted, rows.macs / rows.out_size, 0.0)
    traffic = _by_group(rows, per_layer)
    control = _by_group(
        rows,
        rows.is_weighted * float(fpga.control_dsp_weighted) + rows.is_pooling * float(fpga.control_dsp_other),
    )
    limits, sums = _levels(rows, fpga, least_traffic=traffic[-1])
    has_rows = np.unique(rows.group[(rows.group < rows.groups) & (rows.is_weighted | rows.is_pooling)])
    return PipelineTable(
        limits=jnp.asarray(limits, jnp.float32),
        traffic=jnp.asarray(traffic[has_rows], jnp.float32),
        control_dsp=jnp.asarray(control[has_rows], jnp.float32),
        sums=jnp.asarray(sums[..., has_rows], jnp.float32),
        fixed_traffic=jnp.float32(traffic[-1]),
        fixed_control_dsp=jnp.float32(control[-1]),
        fixed=jnp.asarray(sums[..., -1], jnp.float32),
        fpga=fpga,
        groups=tuple(int(group) for group in has_rows),
    )


def pipeline_report(rows: Rows, counts: jax.Array, fpga: Fpga) -> AcceleratorReport:
    """Reports a network as a pipeline.

    Args:
        rows: Of the space.
        counts: float32[G], how often each group occurs in the network; whole numbers.
        fpga: The FPGA.

    Returns:
        The report.

    Raises:
        FpgaTooSmallError: As `check_pipeline_fits`.
    """
    check_pipeline_fits(rows, counts, fpga)
    cost = pipeline_cost(rows, counts, fpga)
    stages = _pipeline_stages(rows, counts, fpga, halvings=cost.halvings.astype(jnp.int32))
    stages = jax.tree.map(np.asarray, stages)
    layers = np.asarray(rows.layer_counts(counts)).astype(int)
    slowest, batch = float(cost.slowest_cycles), int(cost.batch)
    table = StageRow.of_network(
        rows,
        layers,
        channels=stages.channels,
        kernels=stages.kernels,
        cycles=stages.cycles,
        share=stages.cycles / slowest,
        dsp=layers * batch * stages.dsp,
        bram18=layers * (batch * stages.cache_blocks + stages.weight_blocks),
        is_bottleneck=rows.is_weighted & (stages.cycles == slowest),
    )
    worst, *ties = [row for row in table if row.is_bottleneck]
    by_memory = float(cost.bram18_batch) < float(cost.dsp_batch)
    scarce, other = ("Memory blocks", "DSPs") if by_memory else ("DSPs", "memory blocks")
    allowed = int(max(float(cost.bram18_batch), float(cost.dsp_batch)))
    halved = int(cost.halvings)
    reason = (
        f"{worst.name} is slowest: {worst.macs:,} multiply-accumulates, {worst.channels} channels times "
        f"{worst.kernels} kernels at once, {worst.cycles:,.0f} cycles"
        + (f", and {len(ties)} more like it. " if ties else ". ")
        + (f"Parallelism was halved {halved} times so that one image fits. " if halved else "")
        + f"Parallelism follows the work and the bandwidth of {float(fpga.ddr_bits_per_s) / 1e9:g} Gb/s, rounded to "
        f"powers of two. {scarce} allow {batch} images side by side; {other} would allow {allowed}."
    )
    return AcceleratorReport(
        paradigm="pipeline",
        fpga=fpga.name,
        throughput=float(cost.throughput),
        latency_s=float(cost.latency_s),
        batch=batch,
        dsp=int(cost.dsp),
        bram18=int(cost.bram18),
        usable_dsp=int(fpga.usable_dsp),
        usable_bram18=int(fpga.usable_bram18),
        rows=table,
        reason=reason,
    )


class _Stages(NamedTuple):
    """What a stage of each row takes, int32[L].

    Attributes:
        channels: Cpf, channels at once.
        kernels: Kpf, kernels at once.
        cycles: For an image.
        dsp: For an image, without control.
        cache_blocks: Memory blocks that hold columns of the input, for an image.
        weight_blocks: Memory blocks for weights and batch norm, whatever the batch.
    """

    channels: jax.Array
    kernels: jax.Array
    cycles: jax.Array
    dsp: jax.Array
    cache_blocks: jax.Array
    weight_blocks: jax.Array


class _Demand(NamedTuple):
    """What the stages of a network take together, f32[].

    Attributes:
        dsp: For an image.
        cache_blocks: For an image.
        weight_blocks: Whatever the batch.
        control_dsp: Whatever the batch.
        slowest_cycles: Of the slowest stage, for an image.
    """

    dsp: jax.Array
    cache_blocks: jax.Array
    weight_blocks: jax.Array
    control_dsp: jax.Array
    slowest_cycles: jax.Array


def _pipeline_stages(rows: Rows, counts: jax.Array, fpga: Fpga, *, halvings: jax.Array) -> _Stages:
    """Sizes the stage of every row for a network, at the halvings that `pipeline_cost` found; as `pipeline_cost`."""
    return _stages(rows, _weight_traffic(rows, rows.layer_counts(counts)), fpga, halvings=halvings)


def _weight_traffic(rows: Rows, counts: jax.Array) -> jax.Array:
    """Weights read for a row of pixels at every stage, so many times MACs / height, f32[], in elements per image."""
    per_layer = np.where(rows.is_weighted, rows.macs / rows.out_size, 0.0).astype(np.float32)
    return jnp.sum(counts * per_layer)


def _parallelism_limits(rows: Rows, fpga: Fpga, *, halvings: jax.Array) -> jax.Array:
    """Weight traffic below which a stage gets a parallelism of 2, 4, 8, ..., f32[L, 12]; 0 where there are no weights.

    A parallelism of macs / cycles is wanted, for the `cycles` that the DDR memory needs to read all weights once for
    every row; halved, the whole numbers that it is rounded from are halved too.
    """
    macs = np.where(rows.is_weighted, rows.macs, 0.0).astype(np.float32)
    steps = _STEPS.astype(np.float32) * jnp.left_shift(1, halvings).astype(jnp.float32) - 1.0
    elements_per_cycle = fpga.ddr_bits_per_s / fpga.word_bits / fpga.clock_hz
    return macs[:, None] / steps[None] * elements_per_cycle


def _stages(rows: Rows, traffic: jax.Array, fpga: Fpga, *, halvings: jax.Array) -> _Stages:
    """Sizes a stage for each row, whether the network has it or not.

    Args:
        rows: Of the network.
        traffic: f32[], as `_weight_traffic`.
        fpga: The FPGA.
        halvings: int32[], how often parallelism is halved.

    Returns:
        The stages.

    Raises:
        ValueError: A layer has 2^31 multiply-accumulates or more, beyond the whole numbers used here.
    """
    if rows.macs.max() >= _MOST_MACS:
        worst = int(np.argmax(rows.macs))
        raise ValueError(
            f"network: expected layers of less than 2^31 multiply-accumulates, got {rows.macs[worst]:.3g} in "
            f"{rows.name[worst]}"
        )
    word = fpga.word_bits
    wanted = jnp.sum((traffic < _parallelism_limits(rows, fpga, halvings=halvings)).astype(jnp.int32), axis=1)
    most = fpga.stage_parallelism
    most_channels = np.ceil(np.log2(np.minimum(rows.inputs, most))).astype(np.int32)
    most_kernels = np.floor(np.log2(np.minimum(rows.outputs, most))).astype(np.int32)
    # Channels first, then levelled out: more than twice as many channels as kernels make a needless adder tree.
    channels = jnp.minimum(wanted, most_channels)
    kernels = jnp.minimum(wanted - channels, most_kernels)
    moved = jnp.clip((channels - kernels) // 2, 0, most_kernels - kernels)
    channels, kernels = jnp.left_shift(1, channels - moved), jnp.left_shift(1, kernels + moved)
    pool = np.minimum(fpga.pool_parallelism, rows.outputs).astype(np.int32)
    channels = jnp.where(rows.is_pooling, pool, channels)
    kernels = jnp.where(rows.is_pooling, 1, kernels)
    runs = rows.is_pooling | rows.is_weighted
    product = channels * kernels
    cached = (rows.inputs * rows.in_size * (rows.kernel + rows.stride)).astype(np.int32)
    cache = memory_blocks(channels * word, _ceil_div(cached, channels))
    dsp = _ceil_div(product, jnp.int32(fpga.multiplications_per_dsp))
    return _Stages(
        channels=channels,
        kernels=kernels,
        cycles=jnp.where(runs, _ceil_div(rows.macs.astype(np.int32), product), 0),
        dsp=jnp.where(rows.is_weighted, dsp, 0),
        cache_blocks=jnp.where(runs, cache, 0),
        weight_blocks=jnp.where(rows.is_weighted, _weight_blocks(rows, fpga, channels, kernels), 0),
    )


def _weight_blocks(rows: Rows, fpga: Fpga, channels: jax.Array, kernels: jax.Array) -> jax.Array:
    """Two buffers of the weights that make `kernels` outputs, written through the port; scale and bias of each."""
    word = fpga.word_bits
    width = channels * kernels * word
    depth = _ceil_div(rows.fan_in.astype(np.int32), channels)
    written = _ceil_div(width * depth, jnp.int32(fpga.weight_port_bits))
    weights = memory_blocks(jnp.maximum(width, fpga.weight_port_bits), 2 * jnp.minimum(depth, written))
    norm = memory_blocks(2 * word * kernels, jnp.maximum(_ceil_div(rows.outputs.astype(np.int32), kernels), 2))
    return weights + norm


def _ceil_div(a: jax.Array | np.ndarray, b: jax.Array) -> jax.Array:
    return (jnp.asarray(a) + b - 1) // b


def _total_demand(rows: Rows, counts: jax.Array, fpga: Fpga, *, stages: _Stages) -> _Demand:
    """Adds the stages up, with `counts` f32[L] of each row."""

    def total(column: jax.Array | np.ndarray) -> jax.Array:
        return jnp.sum(counts * jnp.asarray(column, jnp.float32))

    slowest = jnp.max(jnp.where((counts > 0) & rows.is_weighted, stages.cycles, 0))
    return _Demand(
        dsp=total(stages.dsp),
        cache_blocks=total(stages.cache_blocks),
        weight_blocks=total(stages.weight_blocks),
        control_dsp=fpga.control_dsp_weighted * total(rows.is_weighted)
        + fpga.control_dsp_other * total(rows.is_pooling),
        slowest_cycles=slowest.astype(jnp.float32),
    )


def _batches(demand: _Demand, fpga: Fpga) -> tuple[jax.Array, jax.Array]:
    """Images side by side that DSPs, and that memory blocks, allow, f32[] each; not positive where none fits."""
    dsp = (fpga.usable_dsp - demand.control_dsp) / demand.dsp
    memory = (fpga.usable_bram18 - demand.weight_blocks) / demand.cache_blocks
    return jnp.floor(dsp), jnp.floor(memory)


def _throughput(batch: jax.Array, slowest_cycles: jax.Array, fpga: Fpga) -> jax.Array:
    """Images/s of a batch, f32[...]."""
    return batch * fpga.clock_hz / (slowest_cycles + 1.0)


def _by_group(rows: Rows, values: np.ndarray) -> np.ndarray:
    """Values of a layer of each row [L] -> of one occurrence of each group [G + 1], and of what always runs."""
    return np.bincount(rows.group, weights=rows.times * values, minlength=rows.groups + 1)


def _levels(rows: Rows, fpga: Fpga, *, least_traffic: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits [H, I - 1] between intervals of the traffic, and the sums [H, I, 4, G + 1] in each interval."""
    levels = jnp.arange(_MOST_HALVINGS + 1, dtype=jnp.int32)
    found = np.asarray(jax.vmap(lambda level: _parallelism_limits(rows, fpga, halvings=level))(levels))
    distinct = [np.unique(limits[limits > least_traffic]) for limits in found]
    longest = max(len(limits) for limits in distinct)
    limits = np.stack([np.pad(found, (0, longest - len(found)), constant_values=np.inf) for found in distinct])
    # A limit belongs to the interval that it begins. Beyond the last one no stage works in parallel.
    starts = np.concatenate([np.full((len(levels), 1), least_traffic), limits], axis=1)

    @jax.jit
    def stages_of(starts: jax.Array, level: jax.Array) -> _Stages:
        return jax.vmap(lambda traffic: _stages(rows, traffic, fpga, halvings=level))(starts)

    sums = []
    for level, starts_of_level in zip(levels, jnp.asarray(starts, jnp.float32), strict=True):
        stages = jax.tree.map(np.asarray, stages_of(starts_of_level, level))
        slowest = np.zeros((longest + 1, rows.groups + 1))
        np.maximum.at(slowest.T, rows.group, np.where(rows.is_weighted, stages.cycles, 0).T)
        columns = (stages.dsp, stages.cache_blocks, stages.weight_blocks)
        totals = [np.stack([_by_group(rows, values) for values in column]) for column in columns]
        sums.append(np.stack([*totals, slowest], axis=1))
    return limits, np.stack(sums)
