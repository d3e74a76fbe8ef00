"""Energy of each layer: static board power, core with its voltage curve, memory and host.

    P = board + core_idle v^2 + core_load f v^2 busy + memory_clock f_memory + byte_energy B + host(f_host)

where v is the core voltage over its lowest value at core clock f and B the bytes per second. While kernels
run, the core draws a share of its load power just for waiting on memory and the rest in proportion to its
compute time. Slow clocks pay the static power for longer, fast ones the voltage, so the energy of a run is
U-shaped in the core clock.
Shapes: L layers. Functions take one operating point; batch them with `jax.vmap`.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from hw_models.device import Device, OperatingPoint
from hw_models.formats import NumberFormat
from hw_models.layers import LayerTable
from hw_models.roofline import LayerTimes, layer_times, run_latency


@struct.dataclass
class Cost:
    """What a network costs.

    Attributes:
        latency_s: f32[L] by layer, or f32[] of a whole run.
        energy_j: f32[L] by layer, or f32[] of a whole run; at the board's input.
    """

    latency_s: jax.Array
    energy_j: jax.Array


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
        ValueError: As `hw_models.roofline.layer_times`.
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
        ValueError: As `hw_models.roofline.layer_times`.
    """
    by_layer = cost(layers, device, point, batch=batch, number_format=number_format)
    return Cost(
        latency_s=jnp.sum(by_layer.latency_s, axis=-1) + run_latency(device, point),
        energy_j=jnp.sum(by_layer.energy_j, axis=-1) + run_energy(device, point),
    )


def energy(
    layers: LayerTable,
    device: Device,
    point: OperatingPoint,
    *,
    batch: ArrayLike = 1,
    number_format: NumberFormat | jax.Array | None = None,
) -> jax.Array:
    """Energy of each layer; the network takes their sum and `run_energy`.

    Args:
        layers: Columns [L].
        device: The device.
        point: One operating point, leaves f32[], in Hz.
        batch: Samples per run.
        number_format: Format of weights and activations, an int32[] when traced; None: the device's default.

    Returns:
        energy_j, f32[L], of the whole batch; exactly 0 at inactive rows.

    Raises:
        ValueError: As `hw_models.roofline.layer_times`.
    """
    return cost(layers, device, point, batch=batch, number_format=number_format).energy_j


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
        ValueError: As `hw_models.roofline.layer_times`.
    """
    times = layer_times(layers, device, point, batch=batch, number_format=number_format)
    run_s = jnp.sum(times.latency_s, axis=-1) + run_latency(device, point)
    idle_w = device.core_idle_w * voltage_ratio(device, point.core_hz) ** 2
    return idle_w * run_s + jnp.sum(_load_energy(times, device, point), axis=-1)


def run_energy(device: Device, point: OperatingPoint) -> jax.Array:
    """Energy of the constant part of a run, spent at idle power, in J, of the shape of the clocks."""
    return idle_power(device, point) * run_latency(device, point)


def idle_power(device: Device, point: OperatingPoint) -> jax.Array:
    """Board power while no kernel runs, in W, of the shape of the clocks."""
    return (
        device.board_w
        + device.core_idle_w * voltage_ratio(device, point.core_hz) ** 2
        + device.memory_w_per_hz * point.memory_hz
        + jnp.interp(point.host_hz, device.host_curve_hz, device.host_curve_w)
    )


def load_power(device: Device, core_hz: jax.Array) -> jax.Array:
    """Power of the fully busy core on top of its idle power, in W, of the shape of the clock."""
    return device.core_w_per_hz * core_hz * voltage_ratio(device, core_hz) ** 2


def voltage_ratio(device: Device, core_hz: jax.Array) -> jax.Array:
    """Core voltage over its lowest value at a core clock, piecewise linear between the device's knots."""
    return jnp.interp(core_hz, device.voltage_hz, device.voltage_ratio)


def _energy(times: LayerTimes, device: Device, point: OperatingPoint) -> jax.Array:
    load_j = _load_energy(times, device, point)
    return idle_power(device, point) * times.latency_s + load_j + device.byte_j * times.traffic_bytes


def _load_energy(times: LayerTimes, device: Device, point: OperatingPoint) -> jax.Array:
    stalled = device.core_stalled_share
    return load_power(device, point.core_hz) * (stalled * times.roofline_s + (1.0 - stalled) * times.compute_s)
