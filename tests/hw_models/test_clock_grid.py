"""Tests of the clock grid: it is the cost model, summed in another order."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw


@pytest.fixture(scope="module")
def few_clocks(device) -> hw.Device:
    return hw.with_clocks(device, core_hz=[114.75e6, 828.75e6, 1377e6], memory_hz=[204e6, 2133e6], host_hz=[115.2e6])


@pytest.fixture(scope="module")
def grid(few_clocks, mobilenet):
    return jax.jit(summed)(mobilenet, few_clocks)


def summed(layers, device, **how):
    return hw.sum_layers(hw.clock_grid(layers, device, **how))


@partial(jax.jit, static_argnames="number_format")
def everywhere(layers, device, **how):
    return hw.cost_everywhere(summed(layers, device, **how), device)


at = jax.jit(hw.cost_at)


@pytest.mark.parametrize("how", [{}, {"batch": 8, "number_format": hw.NumberFormat.INT8}])
def test_costs_everywhere_are_those_of_the_layers_at_each_point(few_clocks, mobilenet, how):
    found = everywhere(mobilenet, few_clocks, **how)
    points = hw.operating_points(few_clocks)
    by_layer = jax.jit(jax.vmap(lambda point: hw.cost(mobilenet, few_clocks, point, **how)))(points)
    for name in ("latency_s", "energy_j"):
        np.testing.assert_allclose(getattr(found, name), getattr(by_layer, name).sum(axis=1), rtol=2e-6)


def test_a_lookup_is_the_entry_of_the_whole_table(few_clocks, grid, mobilenet):
    table = everywhere(mobilenet, few_clocks)
    for index in [(0, 0, 0), (2, 1, 0), (1, 0, 0)]:
        found = at(grid, few_clocks, jnp.array(index, jnp.int32))
        position = index[0] * 2 + index[1]
        np.testing.assert_allclose(found.latency_s, table.latency_s[position], rtol=1e-6)
        np.testing.assert_allclose(found.energy_j, table.energy_j[position], rtol=1e-6)


def test_positions_outside_a_table_are_moved_to_its_end(few_clocks, grid):
    beyond, last = (at(grid, few_clocks, jnp.array(i, jnp.int32)) for i in ((9, 9, 9), (2, 1, 0)))
    assert beyond.latency_s == last.latency_s
    assert beyond.energy_j == last.energy_j


def test_padding_that_holds_no_numbers_costs_nothing_and_leaves_gradients_finite(few_clocks):
    layers = hw.layer_table(
        [0, 0],
        [1e6, np.nan],
        weight_elements=[1e3, np.inf],
        input_elements=[1e3, np.nan],
        output_elements=[1e3, 1],
        active=[1, 0],
    )
    total_and_slope = jax.jit(jax.value_and_grad(lambda device: jnp.sum(everywhere(layers, device).energy_j)))
    total, slope = total_and_slope(few_clocks)
    assert np.isfinite(total)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
