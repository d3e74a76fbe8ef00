"""Pipeline paradigm as a table: the same throughput, fifty times as fast.

Everything that a stage takes depends on its row and on one number of the network, its weight traffic, and only
through powers of two: between two limits of `parallelism_limits` nothing changes. So a table of sums per interval of
the traffic and per group of rows (place and operation) prices a network from its 24 counts, exactly as
`pipeline_cost` does, halvings included, while sums stay below 2^24, where float32 is exact. Beyond (large images) a
network whose traffic is within rounding of a limit may fall on its other side.
Shapes: H halvings, I intervals, G groups that have rows. Arrays are padded to the level with most intervals.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga
from hw_models.accelerator.network import OPERATIONS, PLACES, DartsNetwork, Rows, network_rows, operation_counts
from hw_models.accelerator.pipeline import (
    MOST_HALVINGS,
    Demand,
    Stages,
    batches,
    parallelism_limits,
    pipeline_stages,
    throughput,
)

_GROUPS = len(PLACES) * len(OPERATIONS)
_CHUNK = 4096


@struct.dataclass
class PipelineTable:
    """Prices all networks of one size on one FPGA.

    Attributes:
        limits: f32[H, I - 1], weight traffic at which the next interval begins, infinite where there is none.
        traffic: f32[G], weight traffic of an edge of each group.
        control_dsp: f32[G], DSPs of control.
        sums: f32[H, I, 4, G]: DSPs, cache blocks and weight blocks of an edge, and the cycles of its slowest stage.
        fixed_traffic: f32[], of the layers that every network has.
        fixed_control_dsp: f32[].
        fixed: f32[H, I, 4], as `sums`.
        fpga: The FPGA.
        groups: Static, which groups of `Rows.group` have rows.
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


def pipeline_table(network: DartsNetwork, fpga: Fpga) -> PipelineTable:
    """Builds the table.

    Args:
        network: Static.
        fpga: The FPGA, concrete.

    Returns:
        The table.
    """
    rows = network_rows(network)
    per_layer = np.where(rows.is_weighted, rows.macs / rows.out_size, 0.0)
    traffic = _by_group(rows, per_layer)
    control = _by_group(
        rows,
        rows.is_weighted * float(fpga.control_dsp_weighted) + rows.is_pooling * float(fpga.control_dsp_other),
    )
    limits, sums = _levels(rows, fpga, least_traffic=traffic[-1])
    has_rows = np.unique(rows.group[(rows.group < _GROUPS) & (rows.is_weighted | rows.is_pooling)])
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


def pipeline_table_throughput(table: PipelineTable, code: jax.Array) -> jax.Array:
    """Throughput of a network, images/s, f32[]; 0 where it does not fit. Batch with `jax.vmap`.

    Args:
        table: Of the network's size.
        code: int[28].

    Returns:
        The throughput of `pipeline_cost`.

    Raises:
        ValueError: `code` has another shape.
    """
    counts = operation_counts(code).ravel()[jnp.asarray(table.groups)]
    traffic = table.fixed_traffic + jnp.sum(counts * table.traffic)
    control = table.fixed_control_dsp + jnp.sum(counts * table.control_dsp)

    def at_level(level: jax.Array) -> jax.Array:
        interval = jnp.sum((traffic >= table.limits[level]).astype(jnp.int32))
        entries, fixed = table.sums[level, interval], table.fixed[level, interval]
        dsp, cache, weights = (fixed[i] + jnp.sum(counts * entries[i]) for i in range(3))
        slowest = jnp.maximum(fixed[3], jnp.max(jnp.where(counts > 0, entries[3], 0.0)))
        batch = jnp.minimum(*batches(Demand(dsp, cache, weights, control, slowest), table.fpga))
        return jnp.where(batch >= 1, throughput(batch, slowest, table.fpga), 0.0)

    last = table.limits.shape[0] - 1
    _, found = jax.lax.while_loop(
        lambda state: (state[1] == 0) & (state[0] < last),
        lambda state: (state[0] + 1, at_level(state[0] + 1)),
        (jnp.int32(0), at_level(jnp.int32(0))),
    )
    return found


def pipeline_table_throughputs(table: PipelineTable, codes: jax.Array) -> jax.Array:
    """Throughput of many networks, codes int[N, 28] -> f32[N], in chunks that stay in the cache."""
    return jax.lax.map(lambda code: pipeline_table_throughput(table, code), codes, batch_size=_CHUNK)


def _by_group(rows: Rows, values: np.ndarray) -> np.ndarray:
    """Values of a layer of each row [L] -> of an edge of each group [25], the last one of what always runs."""
    return np.bincount(rows.group, weights=rows.times * values, minlength=_GROUPS + 1)


def _levels(rows: Rows, fpga: Fpga, *, least_traffic: float) -> tuple[np.ndarray, np.ndarray]:
    """Constraints [H, I - 1] between intervals of the traffic, and the sums [H, I, 4, 25] in each interval."""
    levels = jnp.arange(MOST_HALVINGS + 1, dtype=jnp.int32)
    found = np.asarray(jax.vmap(lambda level: parallelism_limits(rows, fpga, halvings=level))(levels))
    distinct = [np.unique(limits[limits > least_traffic]) for limits in found]
    longest = max(len(limits) for limits in distinct)
    limits = np.stack([np.pad(found, (0, longest - len(found)), constant_values=np.inf) for found in distinct])
    # A limit belongs to the interval that it begins. Beyond the last one no stage works in parallel.
    starts = np.concatenate([np.full((len(levels), 1), least_traffic), limits], axis=1)

    @jax.jit
    def stages_of(starts: jax.Array, level: jax.Array) -> Stages:
        return jax.vmap(lambda traffic: pipeline_stages(rows, traffic, fpga, halvings=level))(starts)

    sums = []
    for level, starts_of_level in zip(levels, jnp.asarray(starts, jnp.float32), strict=True):
        stages = jax.tree.map(np.asarray, stages_of(starts_of_level, level))
        slowest = np.zeros((longest + 1, _GROUPS + 1))
        np.maximum.at(slowest.T, rows.group, np.where(rows.is_weighted, stages.cycles, 0).T)
        columns = (stages.dsp, stages.cache_blocks, stages.weight_blocks)
        totals = [np.stack([_by_group(rows, values) for values in column]) for column in columns]
        sums.append(np.stack([*totals, slowest], axis=1))
    return limits, np.stack(sums)
