"""Tests of calibration: it recovers a device that made the measurements, and stays near its base with few of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hw_models.fitting.calibration import calibrate, nearest_device, to_measured
from hw_models.fitting.device_parameters import distance, fit, held_out, predict, scale_of
from hw_models.measuring.measurements import Measurement, format_layers

QUICK = {"starts": 2, "steps": 150}


def network(draws):
    """A random network of four layers, as text and as a table."""
    kinds = draws.integers(0, 3, 4)
    macs, elements = 10 ** draws.uniform(6, 9, 4), 10 ** draws.uniform(4, 6.5, 4)
    return hw.layer_table(
        kinds, macs, weight_elements=elements / 4, input_elements=elements, output_elements=elements / 2
    )


def measure(device, *, count, seed=0, noise=0.0, with_power=True):
    """Measurements that a device would give, at random clocks."""
    draws = np.random.default_rng(seed)
    points = hw.operating_points(device)
    cost = jax.jit(hw.network_cost)
    rows = []
    for i in range(count):
        layers, j = network(draws), int(draws.integers(len(points.core_hz)))
        point = jax.tree.map(lambda leaf, j=j: leaf[j], points)
        found = cost(layers, device, point)
        latency_s, power_w = float(found.latency_s), float(found.energy_j / found.latency_s)
        error = np.exp(noise * draws.standard_normal(2))
        rows.append(
            Measurement(
                network=f"n{i}",
                family=f"f{i % 6}",
                layers=format_layers(layers),
                core_mhz=float(point.core_hz) / 1e6,
                memory_mhz=float(point.memory_hz) / 1e6,
                host_mhz=float(point.host_hz) / 1e6,
                latency_ms=1e3 * latency_s * error[0],
                power_w=power_w * error[1] if with_power else None,
            )
        )
    return rows


@pytest.fixture(scope="module")
def base() -> hw.Device:
    device = hw.load_device("agx-xavier-gpu")
    return hw.with_clocks(device, core_hz=[114.75e6, 522.75e6, 1377e6], memory_hz=[204e6, 2133e6], host_hz=[2265.6e6])


@pytest.fixture(scope="module")
def other(base) -> hw.Device:
    """A device three times as slow, and different in kind too."""
    return dataclasses.replace(
        base,
        macs_per_cycle=base.macs_per_cycle / jnp.array([2.0, 4.0, 3.0, 3.0, 3.0, 3.0]),
        activation_bytes_per_cycle=base.activation_bytes_per_cycle / 3,
        weight_bytes_per_cycle=base.weight_bytes_per_cycle / 2,
        launch_cycles=base.launch_cycles * 5,
        board_w=base.board_w * 2,
        core_w_per_hz=base.core_w_per_hz / 2,
    )


@pytest.fixture(scope="module")
def measured(other):
    return to_measured(measure(other, count=48), other)


@pytest.fixture(scope="module")
def fitted(base, measured):
    key = jax.random.key(0)
    slow = fit(key, measured, base, weights=jnp.ones(48), quantity="latency")
    return fit(key, measured, slow, weights=jnp.ones(48), quantity="power")


def test_a_fit_predicts_the_device_that_was_measured(measured, fitted):
    latency_s, power_w = predict(measured, fitted)
    assert np.mean(np.abs(latency_s / measured.latency_s - 1)) < 0.02
    assert np.mean(np.abs(power_w / measured.power_w - 1)) < 0.02


def test_a_fit_finds_the_rates_that_decide(fitted, other):
    for kind in (hw.LayerKind.DENSE, hw.LayerKind.POINTWISE, hw.LayerKind.DEPTHWISE):
        assert float(fitted.macs_per_cycle[kind] / other.macs_per_cycle[kind]) == pytest.approx(1, abs=0.1)
    assert float(fitted.activation_bytes_per_cycle / other.activation_bytes_per_cycle) == pytest.approx(1, abs=0.2)


def test_what_was_not_measured_moves_with_the_common_factor_alone(fitted, base):
    unseen = [hw.LayerKind.POOLING, hw.LayerKind.ELEMENTWISE, hw.LayerKind.LINEAR]
    ratios = np.asarray(fitted.macs_per_cycle / base.macs_per_cycle)[unseen]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-3)
    assert ratios[0] < 0.7


def test_measurements_of_weight_zero_change_nothing(base, measured):
    key, weights = jax.random.key(0), (jnp.arange(48) < 40).astype(jnp.float32)
    spoiled = dataclasses.replace(
        measured, latency_s=jnp.where(weights > 0, measured.latency_s, 1e6 * measured.latency_s)
    )
    a, b = (fit(key, some, base, weights=weights, quantity="latency", **QUICK) for some in (measured, spoiled))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_tight_prior_keeps_the_base_but_for_the_common_factor(base, measured):
    near = fit(jax.random.key(0), measured, base, weights=jnp.ones(48), quantity="latency", prior_sigma=1e-3, **QUICK)
    ratios = np.asarray(near.macs_per_cycle / base.macs_per_cycle)
    assert ratios.std() / ratios.mean() < 0.05


def test_gradients_reach_a_minimum_from_a_base_that_costs_nothing_at_rest(base, measured):
    empty = dataclasses.replace(base, run_s=jnp.float32(0), run_cycles=jnp.float32(0), launch_cycles=jnp.float32(0))
    found = fit(jax.random.key(0), measured, empty, weights=jnp.ones(48), quantity="latency", **QUICK)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_held_out_predictions_come_from_fits_that_never_saw_their_group(base, measured):
    groups = np.arange(48) % 2
    plain, _ = held_out(jax.random.key(0), measured, base, groups, **QUICK)
    odd = dataclasses.replace(
        measured, latency_s=jnp.where(jnp.arange(48) % 2 == 1, 3 * measured.latency_s, measured.latency_s)
    )
    changed, _ = held_out(jax.random.key(0), odd, base, groups, **QUICK)
    np.testing.assert_array_equal(plain[1::2], changed[1::2])
    assert np.all(np.asarray(changed[0::2]) > 1.5 * np.asarray(plain[0::2]))


def test_scale_and_distance_tell_a_wrong_unit_from_another_kind_of_device(base, other, measured):
    thousand = dataclasses.replace(measured, latency_s=1000 * measured.latency_s)
    assert float(scale_of(thousand, base) / scale_of(measured, base)) == pytest.approx(1000, rel=1e-4)
    assert float(distance(thousand, base)) == pytest.approx(float(distance(measured, base)), rel=1e-3)
    assert distance(measured, other) < 1e-5 < distance(measured, base)


def test_a_calibrated_file_says_what_was_fitted_and_how_well():
    board = hw.load_device("agx-xavier-gpu")
    slower = dataclasses.replace(board, macs_per_cycle=board.macs_per_cycle / 3)
    rows = measure(slower, count=24, noise=0.02)
    found = calibrate(rows, hw.read_device_file("agx-xavier-gpu"), name="mine", source="a test", **QUICK)
    assert [test.left_out for test in found.held_out] == ["families", "core clocks", "memory clocks"]
    first = found.held_out[0]
    assert first.latency_error < 0.1
    assert first.latency_tau > 0.9
    rates = found.file.latency.macs_per_cycle
    assert rates.dense.provenance == "fitted"
    assert rates.dense.error.value == pytest.approx(first.latency_error, abs=1e-4)
    assert rates.pooling.provenance == "assumed"
    assert "common factor" in rates.pooling.source
    assert found.file.power.core_load.provenance == "fitted"
    assert found.file.clocks == hw.read_device_file("agx-xavier-gpu").clocks
    assert not found.warnings


def test_a_calibration_is_the_same_every_time(base):
    rows = measure(hw.load_device("agx-xavier-gpu"), count=8, with_power=False)
    file = hw.read_device_file("agx-xavier-gpu")
    once, again = (calibrate(rows, file, name="mine", source="a test", **QUICK) for _ in range(2))
    assert once.file == again.file
    assert once.file.power == file.power


def test_latencies_in_the_wrong_unit_are_warned_of():
    rows = measure(hw.load_device("agx-xavier-gpu"), count=6, with_power=False)
    wrong = [row.model_copy(update={"latency_ms": row.latency_ms / 1000}) for row in rows]
    found = calibrate(wrong, hw.read_device_file("agx-xavier-gpu"), name="mine", source="a test", **QUICK)
    assert len(found.warnings) == 1
    assert "0.001 times those of agx-xavier-gpu: check that latency_ms is in ms" in found.warnings[0]


def test_one_row_is_too_few():
    rows = measure(hw.load_device("agx-xavier-gpu"), count=1)
    with pytest.raises(ValueError, match=r"expected at least two networks or two clocks to fit .*, got 1 row of one"):
        calibrate(rows, hw.read_device_file("agx-xavier-gpu"), name="mine", source="a test")


def test_the_nearest_device_is_the_one_that_was_measured():
    for name in ("agx-xavier-gpu", "raspberry-pi-4"):
        rows = measure(hw.load_device(name), count=20, with_power=False)
        plain = [row.model_copy(update=dict.fromkeys(("core_mhz", "memory_mhz", "host_mhz"))) for row in rows]
        at_default = [
            row.model_copy(update={"latency_ms": 2e3 * float(predict(to_measured([row], device), device)[0][0])})
            for row in plain
            for device in [hw.load_device(name)]
        ]
        assert nearest_device(at_default) == name
