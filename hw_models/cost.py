"""Latency and energy of each layer from its work and the clocks of a device: a roofline, and power on top.

    latency = (compute^p + memory^p)^(1/p) + launch

Compute time follows the core clock, memory time the memory clock, launch time the host clock. A run adds a constant,
and a call for each segment: deployed networks with exits run segment by segment (`run_cost`). Compute time is that of
the MACs plus that of bringing the weights into use, which no batch spreads over more pixels. Sweeps of real boards lie
between the sum (p = 1) and the maximum (p = infinity) of compute and memory time, and the p-norm is smooth, so that the
model can be fitted by gradient.

    power = board + core_idle v^2 + core_load f v^2 busy + memory_clock f_memory + byte_energy B + host(f_host)

where v is the core voltage over its lowest value at core clock f and B the bytes per second. While kernels run, the
core draws a share of its load power just for waiting on memory and the rest in proportion to its compute time. Slow
clocks pay the static power for longer, fast ones the voltage, so the energy of a run is U-shaped in the core clock.

A `ClockGrid` is what layers cost at every setting of the clocks, summed before the clocks are chosen. The cost of a
layer falls into terms that add up over layers, and only one of them, the time that kernels run, mixes two clocks. It is
computed once for each pair of core and memory settings; compute cycles, launches and bytes are single numbers. Sums of
grids are grids, so whole networks, segments and tables of blocks are looked up at any operating point for a few
operations each, and agree with `cost` to rounding.

Shapes: L layers; Nc, Nm, Nh settings of the core, memory and host clock. All but grids are for one operating point;
batch them with `jax.vmap`. Units: s, W, J, Hz.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hw_models.correction import NetworkFeatures, layer_features
from hw_models.device import Device, NumberFormat, OperatingPoint, operating_point, operating_points
from hw_models.layers import LayerTable
from hw_models.roofline import p_norm

_ELEMENT_BYTES = np.array([form.element_bytes for form in NumberFormat], np.float32)


@struct.dataclass
class Cost:
    """What a network costs.

    Attributes:
        latency_s: f32[L] by layer, or f32[] of a whole run.
        energy_j: f32[L] by layer, or f32[] of a whole run; at the board's input.
    """

    latency_s: jax.Array
    energy_j: jax.Array


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


@struct.dataclass
class CorrectionTerms:
    """What the correction of a device depends on; additive over layers, so that networks and their parts are sums.

    Attributes:
        features: Network-level features, leaves f32[...].
        roofline_s: f32[...], time by the roofline at the clocks of the correction's data.
    """

    features: NetworkFeatures
    roofline_s: jax.Array

    @classmethod
    def of(cls, leaves: jax.Array) -> "CorrectionTerms":
        """Returns the terms whose leaves are the elements of an array, in the order of `jax.tree.leaves`."""
        *features, roofline_s = leaves
        return cls(NetworkFeatures(*features), roofline_s)


class _LayerTimes(NamedTuple):
    """Parts of the time of each layer, and the traffic behind it; inactive rows are exactly 0.

    Attributes:
        compute_s: f32[L], time of the MACs alone, with all lanes busy.
        roofline_s: f32[L], time that kernels run: p-norm of compute and memory time.
        launch_s: f32[L], time to launch the kernels.
        traffic_bytes: f32[L], bytes moved.
    """

    compute_s: jax.Array
    roofline_s: jax.Array
    launch_s: jax.Array
    traffic_bytes: jax.Array

    @property
    def latency_s(self) -> jax.Array:
        """Time of each layer, f32[L]."""
        return self.roofline_s + self.launch_s


def cost(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> Cost:
    """Latency and energy of each layer, in one pass.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run; may be traced.
        number_format: Format of weights and activations, an int32[] when traced; None: the device's default.

    Returns:
        Costs f32[L] of the whole batch; exactly 0 at inactive rows. A run adds `run_cost`.

    Raises:
        AssertionError: Columns differ in shape, or the operating point is not a single one.
        ValueError: `batch` is a number that is not positive, or `number_format` is unknown or none that the device
            runs.
    """
    times = _layer_times(layers, device, point, batch=batch, number_format=number_format)
    stalled = device.core_stalled_share
    busy_s = stalled * times.roofline_s + (1.0 - stalled) * times.compute_s
    load_j = _load_power(device, point.core_hz) * busy_s
    idle_j = idle_power(device, point) * times.latency_s
    return Cost(latency_s=times.latency_s, energy_j=idle_j + load_j + device.byte_j * times.traffic_bytes)


def network_cost(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
    segments: ArrayLike = 1,
) -> Cost:
    """Latency and energy of one run of all layers, with what a run and its calls take.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run; may be traced.
        number_format: Format of weights and activations, an int32[] when traced; None: the device's default.
        segments: How many calls the layers run in; may be traced.

    Returns:
        Costs f32[] of the whole batch.

    Raises:
        AssertionError, ValueError: As `cost`.
    """
    by_layer = cost(layers, device, point, batch=batch, number_format=number_format)
    total = Cost(jnp.sum(by_layer.latency_s, axis=-1), jnp.sum(by_layer.energy_j, axis=-1))
    return whole_run(total, device, point, _summed_terms(layers, device), segments=segments)


def network_cost_everywhere(layers: LayerTable, device: Device) -> Cost:
    """Latency and energy of one run of all layers in one segment at every operating point.

    Args:
        layers: Columns [L].
        device: The device.

    Returns:
        Costs f32[F] in the order of `hw_models.operating_points`, as `network_cost` there.
    """
    total = cost_everywhere(sum_layers(clock_grid(layers, device)), device)
    return whole_run(total, device, operating_points(device), _summed_terms(layers, device))


def correction_terms(
    layers: LayerTable, device: Device, owner: ArrayLike | None = None, *, is_start: ArrayLike = True
) -> CorrectionTerms | None:
    """What each layer adds to that which the correction of a device depends on.

    Args:
        layers: Columns [L].
        device: The device.
        owner: As `hw_models.correction.layer_features`.
        is_start: Likewise.

    Returns:
        Leaves f32[L]; None if the device has no correction.
    """
    if device.correction is None:
        return None
    data = device.correction
    at_data = cost(layers, device, data.point, number_format=jnp.int32(data.number_format))
    features = layer_features(layers, owner, is_start=is_start)
    return CorrectionTerms(features=features, roofline_s=at_data.latency_s)


def _summed_terms(layers: LayerTable, device: Device) -> CorrectionTerms | None:
    return jax.tree.map(jnp.sum, correction_terms(layers, device))


def correction_factor(terms: CorrectionTerms, device: Device) -> jax.Array:
    """The factor of a correction on latency and energy of networks, their run included and their calls not, f32[...].

    Args:
        terms: Sums over the layers of each network, leaves f32[...].
        device: A device with a correction.
    """
    correction = device.correction
    if correction is None:
        raise TypeError("correction_factor: expected a device with a correction, got none")
    roofline_s = terms.roofline_s + run_latency(device, correction.point)
    return jnp.exp(correction.log_ratio(terms.features, roofline_s))


def whole_run(
    total: Cost, device: Device, point: OperatingPoint, terms: CorrectionTerms | None, *, segments: ArrayLike = 1
) -> Cost:
    """Adds to the roofline of layers what a run takes, corrects both, and adds the calls.

    Args:
        total: Sums over layers, of the shape of the clocks.
        device: The device.
        point: The clocks.
        terms: Sums over the layers of `correction_terms`, leaves f32[], or of the shape of the clocks for as many
            networks; None: the device has no correction.
        segments: How many calls the run makes; may be traced.
    """
    if terms is None:
        of_run = run_cost(device, point, segments=segments)
        return Cost(total.latency_s + of_run.latency_s, total.energy_j + of_run.energy_j)
    factor = correction_factor(terms, device)
    run, calls = run_cost(device, point, segments=0), jnp.asarray(segments, jnp.float32)
    return Cost(
        latency_s=factor * (total.latency_s + run.latency_s) + calls * segment_latency(device, point),
        energy_j=factor * (total.energy_j + run.energy_j) + calls * segment_energy(device, point),
    )


def run_cost(device: Device, point: OperatingPoint, *, segments: ArrayLike = 1) -> Cost:
    """What a run takes on top of its layers: its constant and one call for each segment.

    Args:
        device: The device.
        point: The clocks.
        segments: How many calls the run makes, 1 without exits; may be traced.

    Returns:
        Costs of the shape of the clocks.
    """
    calls = jnp.asarray(segments, jnp.float32)
    return Cost(
        latency_s=run_latency(device, point) + calls * segment_latency(device, point),
        energy_j=run_energy(device, point) + calls * segment_energy(device, point),
    )


def run_latency(device: Device, point: OperatingPoint) -> jax.Array:
    """Time that every run of a network takes on top of its layers and calls, in s, of the shape of the clocks."""
    return device.run_cycles / point.host_hz + device.run_s


def run_energy(device: Device, point: OperatingPoint) -> jax.Array:
    """Energy of the constant part of a run, spent at idle power, in J, of the shape of the clocks."""
    return idle_power(device, point) * run_latency(device, point)


def segment_latency(device: Device, point: OperatingPoint) -> jax.Array:
    """Time that the call of one segment takes on top of its layers, in s, of the shape of the clocks."""
    return device.segment_cycles / point.host_hz


def segment_energy(device: Device, point: OperatingPoint) -> jax.Array:
    """Energy of the call of one segment, spent at idle power, in J, of the shape of the clocks."""
    return idle_power(device, point) * segment_latency(device, point)


def idle_power(device: Device, point: OperatingPoint) -> jax.Array:
    """Board power while no kernel runs, in W, of the shape of the clocks."""
    return (
        device.board_w
        + device.core_idle_w * _voltage_ratio(device, point.core_hz) ** 2
        + device.memory_w_per_hz * point.memory_hz
        + jnp.interp(point.host_hz, device.host_curve_hz, device.host_curve_w)
    )


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
        number_format: As `cost`.

    Returns:
        Leaves with a leading dimension [L]; exactly 0 at inactive rows.

    Raises:
        AssertionError, ValueError: As `cost`.
    """
    one_hz = jnp.float32(1.0)

    def at(core_hz: jax.Array, memory_hz: jax.Array) -> jax.Array:
        point = OperatingPoint(core_hz, memory_hz, one_hz)
        return _layer_times(layers, device, point, batch=batch, number_format=number_format).roofline_s

    over_memory = jax.vmap(at, in_axes=(None, 0), out_axes=-1)
    over_both = jax.vmap(over_memory, in_axes=(0, None), out_axes=-2)
    at_one_hz = OperatingPoint(one_hz, one_hz, one_hz)
    times = _layer_times(layers, device, at_one_hz, batch=batch, number_format=number_format)
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
    """Cost at one operating point; a run adds `run_cost`.

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
    """Cost at every operating point; a run adds `run_cost`.

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


def _layer_times(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> _LayerTimes:
    """Computes the parts that latency and energy are made of, each f32[L]; arguments and errors as `cost`."""
    layers.check_shapes()
    _check_inputs(point, batch)
    number_format = _format_of(device, number_format)
    samples = jnp.asarray(batch, jnp.float32)
    # Values of inactive rows are replaced before use, so that neither they nor their gradients reach a sum.
    runs = layers.active > 0
    macs, weights, reads, writes, kernels = (
        jnp.where(runs, getattr(layers, name), 0.0)
        for name in ("macs", "weight_elements", "input_elements", "output_elements", "kernels")
    )
    rate = device.macs_per_cycle[layers.kind] * device.format_speedup[number_format]
    element_bytes = jnp.asarray(_ELEMENT_BYTES)[number_format]
    weight_bytes = weights * element_bytes
    compute_s = samples * macs / rate / point.core_hz
    core_s = compute_s + weight_bytes * device.core_cycles_per_weight_byte / point.core_hz
    activation_bytes = samples * (reads + writes) * element_bytes
    memory_cycles = weight_bytes / device.weight_bytes_per_cycle + activation_bytes / device.activation_bytes_per_cycle
    return _LayerTimes(
        compute_s=layers.active * compute_s,
        roofline_s=layers.active * p_norm(core_s, memory_cycles / point.memory_hz, device.norm_order),
        launch_s=layers.active * kernels * device.launch_cycles / point.host_hz,
        traffic_bytes=layers.active * (weight_bytes + activation_bytes),
    )


def _load_power(device: Device, core_hz: jax.Array) -> jax.Array:
    """Power of the fully busy core on top of its idle power, in W, of the shape of the clock."""
    return device.core_w_per_hz * core_hz * _voltage_ratio(device, core_hz) ** 2


def _voltage_ratio(device: Device, core_hz: jax.Array) -> jax.Array:
    """Core voltage over its lowest value at a core clock, piecewise linear between the device's knots."""
    return jnp.interp(core_hz, device.voltage_hz, device.voltage_ratio)


def _format_of(device: Device, number_format: NumberFormat | jax.Array | None) -> NumberFormat | jax.Array:
    if number_format is None:
        return device.formats[0]
    if isinstance(number_format, jax.Array):
        return number_format
    chosen = NumberFormat(number_format)
    if chosen not in device.formats:
        runs = ", ".join(form.name.lower() for form in device.formats)
        raise ValueError(f"number format: expected one that {device.name} runs ({runs}), got {chosen.name.lower()}")
    return chosen


def _check_inputs(point: OperatingPoint, batch: ArrayLike) -> None:
    for name, clock in vars(point).items():
        chex.assert_shape(clock, (), custom_message=f"{name} of the operating point: use jax.vmap for several points")
    if isinstance(batch, int | float) and not batch > 0:
        raise ValueError(f"batch: expected a positive number, got {batch}")


def _assemble(grid: ClockGrid, device: Device, point: OperatingPoint, roofline_s: jax.Array) -> Cost:
    latency_s = roofline_s + grid.launch_cycles / point.host_hz
    beyond_idle_j = _beyond_idle(grid, device, point.core_hz, roofline_s)
    return Cost(latency_s=latency_s, energy_j=idle_power(device, point) * latency_s + beyond_idle_j)


def _beyond_idle(grid: ClockGrid, device: Device, core_hz: jax.Array, roofline_s: jax.Array) -> jax.Array:
    stalled = device.core_stalled_share
    busy_s = stalled * roofline_s + (1.0 - stalled) * grid.compute_cycles / core_hz
    return _load_power(device, core_hz) * busy_s + device.byte_j * grid.traffic_bytes
