"""Tests of the latency model: laws, oracle, gradients, transformations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_models as hw
from hw_models.roofline import p_norm

L = 6
count = st.floats(0, 1e9, width=32)
row = st.tuples(st.integers(0, 5), count, count, count, count, st.integers(0, 9), st.sampled_from([0.0, 1.0]))
tables = st.lists(row, min_size=L, max_size=L)
indices = st.tuples(st.integers(0, 13), st.integers(0, 8), st.integers(0, 28))
few = settings(max_examples=25, deadline=None, derandomize=True)


def table(rows):
    kind, macs, weights, reads, writes, kernels, active = zip(*rows, strict=True)
    return hw.layer_table(
        kind,
        macs,
        weight_elements=weights,
        input_elements=reads,
        output_elements=writes,
        kernels=kernels,
        active=active,
    )


def at(device, index):
    return hw.operating_point(device, np.array(index, np.int32))


@few
@given(rows=tables, index=indices)
def test_costs_are_those_of_an_independent_float64_model(rows, index, device, compiled, oracle):
    layers, point = table(rows), at(device, index)
    got = compiled(layers, device, point)
    latency, energy = oracle(layers, device, *(float(clock) for clock in jax.tree.leaves(point)))
    np.testing.assert_allclose(got.latency_s, latency, rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(got.energy_j, energy, rtol=1e-4, atol=1e-30)


@few
@given(rows=tables, index=indices, clock=st.integers(0, 2))
def test_latency_falls_weakly_when_a_clock_rises(rows, index, clock, device, compiled):
    higher = [position + (i == clock) for i, position in enumerate(index)]
    layers = table(rows)
    slow = compiled(layers, device, at(device, index)).latency_s
    fast = compiled(layers, device, at(device, higher)).latency_s
    assert np.all(fast <= slow * (1 + 1e-6))


@few
@given(rows=tables, index=indices, position=st.integers(0, L - 1))
def test_adding_a_layer_never_saves(rows, index, position, device, compiled):
    without = [(*r[:-1], 0.0) if i == position else r for i, r in enumerate(rows)]
    added = [(*r[:-1], 1.0) if i == position else r for i, r in enumerate(rows)]
    less, more = (compiled(table(some), device, at(device, index)) for some in (without, added))
    assert np.all(more.latency_s >= less.latency_s)
    assert np.all(more.energy_j >= less.energy_j)


@few
@given(rows=tables, index=indices, order=st.permutations(range(L)))
def test_the_order_of_layers_does_not_matter(rows, index, order, device, compiled):
    point = at(device, index)
    costs = compiled(table(rows), device, point)
    shuffled = compiled(table([rows[i] for i in order]), device, point)
    for name in ("latency_s", "energy_j"):
        np.testing.assert_array_equal(getattr(costs, name)[np.array(order)], getattr(shuffled, name))


@few
@given(rows=tables, index=indices)
def test_inactive_rows_cost_exactly_nothing(rows, index, device, compiled):
    costs = compiled(table(rows), device, at(device, index))
    off = np.array([r[-1] == 0 for r in rows])
    assert np.all(np.asarray(costs.latency_s)[off] == 0)
    assert np.all(np.asarray(costs.energy_j)[off] == 0)


@pytest.fixture(scope="session")
def gradients():
    def total(layers, device, point):
        costs = hw.network_cost(layers, device, point)
        return costs.latency_s + costs.energy_j

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), allow_int=True))


@few
@given(rows=tables, index=indices, order=st.sampled_from([1.0, 1.3, 3.0, 20.0]))
def test_gradients_are_finite_everywhere(rows, index, order, device, gradients):
    device = dataclasses.replace(device, norm_order=jnp.float32(order))
    for leaf in jax.tree.leaves(gradients(table(rows), device, at(device, index))):
        if leaf.dtype == jnp.float32:
            assert np.all(np.isfinite(leaf))


def test_gradients_are_finite_at_padding_that_holds_no_numbers(device, gradients):
    rows = [(0, np.nan, np.inf, np.nan, 1.0, 1, 0.0)] * 2 + [(0, 0.0, 0.0, 0.0, 0.0, 0, 1.0)] * (L - 2)
    leaves = jax.tree.leaves(gradients(table(rows), device, hw.default_point(device)))
    assert all(np.all(np.isfinite(leaf)) for leaf in leaves if leaf.dtype == jnp.float32)


def test_the_gradient_is_the_slope(device, mobilenet):
    point = hw.default_point(device)

    @jax.jit
    def total(core_hz):
        return jnp.sum(hw.cost(mobilenet, device, dataclasses.replace(point, core_hz=core_hz)).latency_s)

    step = 0.01 * point.core_hz
    slope = (total(point.core_hz + step) - total(point.core_hz - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(point.core_hz), slope, rtol=1e-2)


def test_vmap_is_a_loop_and_jit_changes_nothing(device, mobilenet):
    points = hw.operating_point(device, jnp.array([[0, 0, 0], [5, 4, 3], [13, 8, 28]]))
    batched = jax.jit(jax.vmap(hw.cost, in_axes=(None, None, 0)))(mobilenet, device, points)
    for i in range(3):
        single = hw.cost(mobilenet, device, jax.tree.map(lambda leaf, i=i: leaf[i], points))
        np.testing.assert_allclose(batched.latency_s[i], single.latency_s, rtol=1e-5)
        np.testing.assert_allclose(batched.energy_j[i], single.energy_j, rtol=1e-5)


@pytest.mark.parametrize(
    ("number_format", "element_bytes", "speedup"), [("FP32", 4, 1), ("FP16", 2, 2), ("INT8", 1, 4)]
)
def test_batch_and_format_scale_as_in_the_float64_model(
    number_format, element_bytes, speedup, device, mobilenet, oracle
):
    point = hw.default_point(device)
    got = hw.cost(mobilenet, device, point, batch=8, number_format=hw.NumberFormat[number_format])
    clocks = [float(clock) for clock in jax.tree.leaves(point)]
    latency, energy = oracle(mobilenet, device, *clocks, batch=8, element_bytes=element_bytes, speedup=float(speedup))
    np.testing.assert_allclose(got.latency_s, latency, rtol=1e-4)
    np.testing.assert_allclose(got.energy_j, energy, rtol=1e-4)


def test_a_batch_costs_less_than_its_samples_one_by_one(device, mobilenet):
    point = hw.default_point(device)
    one, eight = (hw.network_cost(mobilenet, device, point, batch=batch) for batch in (1, jnp.int32(8)))
    assert one.latency_s < eight.latency_s < 8 * one.latency_s


def test_a_fraction_of_activity_scales_a_row(device, mobilenet):
    point = hw.default_point(device)
    half = dataclasses.replace(mobilenet, active=0.5 * mobilenet.active)
    whole, halved = (hw.cost(layers, device, point) for layers in (mobilenet, half))
    np.testing.assert_allclose(halved.latency_s, 0.5 * whole.latency_s, rtol=1e-6)
    np.testing.assert_allclose(halved.energy_j, 0.5 * whole.energy_j, rtol=1e-6)


def test_the_run_constant_follows_the_host_clock_to_its_fixed_part(device):
    points = hw.operating_points(device)
    constant = hw.run_latency(device, points)
    assert constant.shape == (3654,)
    np.testing.assert_allclose(constant, device.run_cycles / points.host_hz + device.run_s, rtol=1e-6)
    assert np.all(constant >= device.run_s)


def test_predictions_are_near_measured_latencies(device, mobilenet):
    measured_s = 3.955e-3  # AGX Xavier, github HalimaBouzidi/perf_prediction
    got = hw.network_cost(mobilenet, device, hw.default_point(device)).latency_s
    assert abs(float(got) / measured_s - 1) < 0.2


def test_the_norm_lies_between_maximum_and_sum_at_any_scale():
    for scale in (1e-30, 1e-6, 1e6):
        norm = p_norm(jnp.float32(3 * scale), jnp.float32(4 * scale), jnp.float32(2))
        np.testing.assert_allclose(norm, 5 * scale, rtol=1e-6)
    assert p_norm(jnp.float32(0), jnp.float32(0), jnp.float32(3)) == 0


def test_wrong_inputs_are_named(device, mobilenet):
    point = hw.default_point(device)
    with pytest.raises(AssertionError, match=r"has shape \(3654,\).*core_hz of the operating point: use jax.vmap"):
        hw.cost(mobilenet, device, hw.operating_points(device))
    with pytest.raises(ValueError, match="batch: expected a positive number, got 0"):
        hw.cost(mobilenet, device, point, batch=0)
    with pytest.raises(ValueError, match="7 is not a valid NumberFormat"):
        hw.cost(mobilenet, device, point, number_format=7)
    with pytest.raises(AssertionError, match=r"has shape \(2,\) but expected \(64,?\).*active of a layer table"):
        hw.cost(dataclasses.replace(mobilenet, active=jnp.ones(2)), device, point)
