"""Tests of the energy model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw


@pytest.fixture(scope="session")
def over_core_clocks():
    return jax.jit(jax.vmap(hw.network_cost, in_axes=(None, None, 0)))


def at_core_clocks(device):
    """Every core clock with the highest memory and host clock."""
    core = jnp.arange(len(device.core_hz))
    return hw.operating_point(device, jnp.stack([core, jnp.full(14, 8), jnp.full(14, 28)], axis=1))


def test_energy_is_u_shaped_in_the_core_clock_when_compute_bound(device, compute_bound, over_core_clocks):
    energy = np.asarray(over_core_clocks(compute_bound, device, at_core_clocks(device)).energy_j)
    best = int(np.argmin(energy))
    assert 0 < best < len(energy) - 1
    assert np.all(np.diff(energy[: best + 1]) < 0)
    assert np.all(np.diff(energy[best:]) > 0)
    assert 600e6 < device.core_hz[best] < 1100e6


def test_board_power_is_plausible_from_idle_to_load(device, mobilenet, over_core_clocks):
    costs = over_core_clocks(mobilenet, device, at_core_clocks(device))
    power = np.asarray(costs.energy_j / costs.latency_s)
    assert 8 < power[-1] < 30
    assert np.all(np.diff(power) > 0)
    lowest = hw.operating_point(device, jnp.array([0, 0, 0]))
    assert 3 < float(hw.idle_power(device, lowest)) < 5


def test_full_load_draws_the_measured_rail_power(device):
    """The GPU rail reads 25 to 29 W under long dense networks; the rest of the board comes on top."""
    dense = hw.layer_table(
        [hw.LayerKind.DENSE], [1e12], weight_elements=[1e3], input_elements=[1e3], output_elements=[1e3]
    )
    point = hw.default_point(device)
    costs = hw.network_cost(dense, device, point)
    load = float(costs.energy_j / costs.latency_s - hw.idle_power(device, point))
    assert 25 < load < 29


def test_idle_power_rises_with_every_clock(device):
    grid = np.asarray(hw.idle_power(device, hw.operating_points(device))).reshape(14, 9, 29)
    for axis in range(3):
        assert np.all(np.diff(grid, axis=axis) >= 0)


def test_a_run_costs_idle_power_for_its_constant_time(device):
    point = hw.default_point(device)
    expected = hw.idle_power(device, point) * hw.run_latency(device, point)
    np.testing.assert_allclose(hw.run_energy(device, point), expected, rtol=1e-6)


def test_a_network_costs_its_layers_and_the_run_constant(device, mobilenet):
    point = hw.default_point(device)
    costs, total = hw.cost(mobilenet, device, point), hw.network_cost(mobilenet, device, point)
    np.testing.assert_allclose(total.latency_s, costs.latency_s.sum() + hw.run_latency(device, point), rtol=1e-6)
    np.testing.assert_allclose(total.energy_j, costs.energy_j.sum() + hw.run_energy(device, point), rtol=1e-6)


def test_a_path_of_segments_costs_its_layers_the_run_and_a_call_each(device, mobilenet):
    point, slow = hw.default_point(device), device.replace(segment_cycles=jnp.float32(1e5))
    costs = hw.cost(mobilenet, device, point)
    for segments in (1, 3):
        total = hw.network_cost(mobilenet, slow, point, segments=segments)
        time_s = hw.run_latency(device, point) + segments * 1e5 / point.host_hz
        np.testing.assert_allclose(total.latency_s, costs.latency_s.sum() + time_s, rtol=1e-6)
        idle_j = hw.idle_power(device, point) * time_s
        np.testing.assert_allclose(total.energy_j, costs.energy_j.sum() + idle_j, rtol=1e-6)
    without = hw.network_cost(mobilenet, device, point, segments=5)
    np.testing.assert_array_equal(without.latency_s, hw.network_cost(mobilenet, device, point).latency_s)


def test_voltage_is_constant_below_its_first_knot_and_rises_after(device):
    power_w = np.asarray(hw.idle_power(device, at_core_clocks(device)))
    rest_w = np.asarray(hw.idle_power(device.replace(core_idle_w=jnp.float32(0)), at_core_clocks(device)))
    volts = np.sqrt((power_w - rest_w) / device.core_idle_w)
    np.testing.assert_allclose(volts[device.core_hz < device.voltage_hz[0]], 1, rtol=1e-5)
    assert np.all(np.diff(volts[device.core_hz > device.voltage_hz[0]]) > 0)
    np.testing.assert_allclose(volts[-1], device.voltage_ratio[-1], rtol=1e-5)


def test_memory_power_makes_a_low_memory_clock_cheaper_for_compute(device, compute_bound):
    low, high = (
        hw.network_cost(compute_bound, device, hw.operating_point(device, jnp.array([7, memory, 28])))
        for memory in (4, 8)
    )
    assert low.energy_j < high.energy_j
