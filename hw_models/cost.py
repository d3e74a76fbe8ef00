"""Latency and energy of each layer from its work and the clocks of a device: a roofline, and power on top.

    latency = (compute^p + memory^p)^(1/p) + launch

Compute time follows the core clock, memory time the memory clock, launch time the host clock. Compute time is that of
the MACs plus that of bringing the weights into use, which no batch spreads over more pixels. Sweeps of real boards lie
between the sum (p = 1) and the maximum (p = infinity) of compute and memory time, and the p-norm is smooth, so that the
model can be fitted by gradient.

    power = board + core_idle v^2 + core_load f v^2 busy + memory_clock f_memory + byte_energy B + host(f_host)

where v is the core voltage over its lowest value at core clock f and B the bytes per second. While kernels run, the
core draws a share of its load power just for waiting on memory and the rest in proportion to its compute time. Slow
clocks pay the static power for longer, fast ones the voltage, so the energy of a run is U-shaped in the core clock.
Shapes: L layers. Functions take one operating point; batch them with `jax.vmap`. Units: s, W, J, Hz.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hw_models.device import Device, NumberFormat, OperatingPoint
from hw_models.layers import LayerTable, check_shapes

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
        Costs f32[L] of the whole batch; exactly 0 at inactive rows. A run adds `run_latency`, `run_energy`.

    Raises:
        AssertionError, ValueError: As `layer_times`.
    """
    times = layer_times(layers, device, point, batch=batch, number_format=number_format)
    return Cost(latency_s=times.latency_s, energy_j=_energy(times, device, point))


def network_cost(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> Cost:
    """Latency and energy of one run of all layers, the constant of a run included.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run; may be traced.
        number_format: Format of weights and activations, an int32[] when traced; None: the device's default.

    Returns:
        Costs f32[] of the whole batch.

    Raises:
        AssertionError, ValueError: As `layer_times`.
    """
    by_layer = cost(layers, device, point, batch=batch, number_format=number_format)
    return Cost(
        latency_s=jnp.sum(by_layer.latency_s, axis=-1) + run_latency(device, point),
        energy_j=jnp.sum(by_layer.energy_j, axis=-1) + run_energy(device, point),
    )


def core_energy(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> jax.Array:
    """Energy of the core alone over one run of all layers: what its power rail delivers.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run; may be traced.
        number_format: As `network_cost`.

    Returns:
        core_j, f32[], of the whole batch; part of the energy of `network_cost`.

    Raises:
        AssertionError, ValueError: As `layer_times`.
    """
    times = layer_times(layers, device, point, batch=batch, number_format=number_format)
    run_s = jnp.sum(times.latency_s, axis=-1) + run_latency(device, point)
    idle_w = device.core_idle_w * _voltage_ratio(device, point.core_hz) ** 2
    return idle_w * run_s + jnp.sum(_load_energy(times, device, point), axis=-1)


def run_latency(device: Device, point: OperatingPoint) -> jax.Array:
    """Time that every run of a network takes on top of its layers, in s, of the shape of the clocks."""
    return device.run_cycles / point.host_hz + device.run_s


def run_energy(device: Device, point: OperatingPoint) -> jax.Array:
    """Energy of the constant part of a run, spent at idle power, in J, of the shape of the clocks."""
    return idle_power(device, point) * run_latency(device, point)


def idle_power(device: Device, point: OperatingPoint) -> jax.Array:
    """Board power while no kernel runs, in W, of the shape of the clocks."""
    return (
        device.board_w
        + device.core_idle_w * _voltage_ratio(device, point.core_hz) ** 2
        + device.memory_w_per_hz * point.memory_hz
        + jnp.interp(point.host_hz, device.host_curve_hz, device.host_curve_w)
    )


def load_power(device: Device, core_hz: jax.Array) -> jax.Array:
    """Power of the fully busy core on top of its idle power, in W, of the shape of the clock."""
    return device.core_w_per_hz * core_hz * _voltage_ratio(device, core_hz) ** 2


def layer_times(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> _LayerTimes:
    """Computes the parts that latency and energy are made of.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run; may be traced.
        number_format: Format of weights and activations, an int32[] when traced; None: the device's default.

    Returns:
        The parts, each f32[L].

    Raises:
        AssertionError: Columns differ in shape, or the operating point is not a single one.
        ValueError: `batch` is a number that is not positive, or `number_format` is unknown or none that the device
            runs.
    """
    check_shapes(layers)
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


def p_norm(a: jax.Array, b: jax.Array, order: jax.Array) -> jax.Array:
    """Returns `(a^p + b^p)^(1/p)` of non-negative values, with finite gradients at zero and for large p.

    The larger value is taken out of the norm: powers of times in seconds would underflow in float32.
    """
    larger, smaller = jnp.maximum(a, b), jnp.minimum(a, b)
    is_positive = larger > 0
    scale = jnp.where(is_positive, larger, 1.0)
    norm = scale * (1.0 + (smaller / scale) ** order) ** (1.0 / order)
    return jnp.where(is_positive, norm, 0.0)


def _energy(times: _LayerTimes, device: Device, point: OperatingPoint) -> jax.Array:
    load_j = _load_energy(times, device, point)
    return idle_power(device, point) * times.latency_s + load_j + device.byte_j * times.traffic_bytes


def _load_energy(times: _LayerTimes, device: Device, point: OperatingPoint) -> jax.Array:
    stalled = device.core_stalled_share
    return load_power(device, point.core_hz) * (stalled * times.roofline_s + (1.0 - stalled) * times.compute_s)


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
