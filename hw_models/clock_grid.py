"""Clock grid: what layers cost at every setting of a device's clocks, summed before the clocks are chosen.

The cost of a layer falls into terms that add up over layers, and only one of them, the time that kernels run,
mixes two clocks. It is computed once for each pair of core and memory settings; compute cycles, launches and
bytes are single numbers. Sums of grids are grids, so whole networks, segments and tables of blocks are looked
up at any operating point for a few operations each, and agree with `hw_models.cost` to rounding.
Shapes: L layers; Nc, Nm, Nh settings of the core, memory and host clock.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from hw_models.cost import Cost, idle_power, layer_times, load_power
from hw_models.device import Device, NumberFormat, OperatingPoint, operating_point
from hw_models.layers import LayerTable


@struct.dataclass
class ClockGrid:
    """Additive parts of the cost of layers; leading dimensions are the caller's.

    Attributes:
        roofline_s: f32[..., Nc, Nm], time that kernels run at each core and memory setting.
        compute_cycles: f32[...], core cycles of the MACs alone.
        launch_cycles: f32[...], host cycles to launch the kernels.
        traffic_bytes: f32[...], bytes moved.
    """

    roofline_s: jax.Array
    compute_cycles: jax.Array
    launch_cycles: jax.Array
    traffic_bytes: jax.Array


def clock_grid(
    layers: LayerTable,
    device: Device,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> ClockGrid:
    """Computes the grid of each layer; sum it over layers with `sum_layers`, or over parts of them.

    Args:
        layers: Columns [L].
        device: The device.
        batch: Samples per run; may be traced.
        number_format: As `hw_models.cost`.

    Returns:
        Leaves with a leading dimension [L]; exactly 0 at inactive rows.

    Raises:
        ValueError: As `hw_models.cost`.
    """
    one_hz = jnp.float32(1.0)

    def at(core_hz: jax.Array, memory_hz: jax.Array) -> jax.Array:
        point = OperatingPoint(core_hz, memory_hz, one_hz)
        return layer_times(layers, device, point, batch=batch, number_format=number_format).roofline_s

    over_memory = jax.vmap(at, in_axes=(None, 0), out_axes=-1)
    over_both = jax.vmap(over_memory, in_axes=(0, None), out_axes=-2)
    at_one_hz = OperatingPoint(one_hz, one_hz, one_hz)
    times = layer_times(layers, device, at_one_hz, batch=batch, number_format=number_format)
    return ClockGrid(
        roofline_s=over_both(device.core_hz, device.memory_hz),
        compute_cycles=times.compute_s,
        launch_cycles=times.launch_s,
        traffic_bytes=times.traffic_bytes,
    )


def sum_layers(grid: ClockGrid) -> ClockGrid:
    """Sums a grid over its first dimension."""
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), grid)


def cost_at(grid: ClockGrid, device: Device, indices: jax.Array) -> Cost:
    """Cost at one operating point; a run adds `run_latency` and `run_energy`.

    Args:
        grid: Of a layer or of layers summed, leaves without leading dimensions.
        device: The device that the grid was computed for.
        indices: int32[3], settings as for `hw_models.operating_point`.

    Returns:
        Costs f32[].
    """
    cores, memories = grid.roofline_s.shape
    core, memory = jnp.clip(indices[0], 0, cores - 1), jnp.clip(indices[1], 0, memories - 1)
    return _assemble(grid, device, operating_point(device, indices), grid.roofline_s[core, memory])


def cost_everywhere(grid: ClockGrid, device: Device) -> Cost:
    """Cost at every operating point; a run adds `run_latency` and `run_energy`.

    Args:
        grid: Of a layer or of layers summed, leaves without leading dimensions.
        device: The device that the grid was computed for.

    Returns:
        Costs f32[F] in the order of `hw_models.operating_points`.
    """
    core_hz, memory_hz, host_hz = device.core_hz, device.memory_hz, device.host_hz
    point = OperatingPoint(core_hz[:, None, None], memory_hz[None, :, None], host_hz[None, None, :])
    return jax.tree.map(jnp.ravel, _assemble(grid, device, point, grid.roofline_s[:, :, None]))


def load_and_traffic_energy(grid: ClockGrid, device: Device) -> jax.Array:
    """Energy beyond the idle power: of the working core and of the bytes moved, f32[Nc, Nm].

    Args:
        grid: Of a layer or of layers summed, leaves without leading dimensions.
        device: The device that the grid was computed for.
    """
    return _beyond_idle(grid, device, device.core_hz[:, None], grid.roofline_s)


def _assemble(grid: ClockGrid, device: Device, point: OperatingPoint, roofline_s: jax.Array) -> Cost:
    latency_s = roofline_s + grid.launch_cycles / point.host_hz
    beyond_idle_j = _beyond_idle(grid, device, point.core_hz, roofline_s)
    return Cost(latency_s=latency_s, energy_j=idle_power(device, point) * latency_s + beyond_idle_j)


def _beyond_idle(grid: ClockGrid, device: Device, core_hz: jax.Array, roofline_s: jax.Array) -> jax.Array:
    stalled = device.core_stalled_share
    busy_s = stalled * roofline_s + (1.0 - stalled) * grid.compute_cycles / core_hz
    return load_power(device, core_hz) * busy_s + device.byte_j * grid.traffic_bytes
