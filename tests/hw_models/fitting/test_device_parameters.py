"""Tests of calibration: it recovers a device that made the measurements, and stays near its base with few of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hw_models.fitting import calibration
from hw_models.fitting.calibration import calibrate, nearest_device
from hw_models.fitting.device_parameters import fit, held_out, informed, predict, to_measured
from hw_models.measuring.measurements import Measurement, format_layers, yardsticks_ms

QUICK = {"starts": 2, "steps": 300}
COUNT = 48
"""Measurements of all fits: what is fitted in one shape is compiled once."""
FEW = 6
BIG = "dense 1e9 1e5 1e6 1e6 1"


def roofline(name):
    """A device of the package without its correction, which no fit takes over."""
    return dataclasses.replace(hw.load_device(name), correction=None)


def network(draws):
    """A random network of four layers."""
    kinds = draws.integers(0, 3, 4)
    macs, elements = 10 ** draws.uniform(6, 9, 4), 10 ** draws.uniform(4, 6.5, 4)
    return hw.layer_table(
        kinds, macs, weight_elements=elements / 4, input_elements=elements, output_elements=elements / 2
    )


def measure(device, *, count=COUNT, noise=0.0, with_power=True, **clocks):
    """Measurements that a device would give, at random clocks of those given (all others: any of the device's)."""
    draws = np.random.default_rng(0)
    points = hw.operating_points(hw.with_clocks(device, **clocks))
    rows = []
    for i in range(count):
        layers, j = network(draws), int(draws.integers(len(points.core_hz)))
        mhz = {f"{name.removesuffix('_hz')}_mhz": float(hz[j]) / 1e6 for name, hz in vars(points).items()}
        layers = format_layers(layers)
        rows.append(Measurement(network=f"n{i}", family=f"f{i % 6}", layers=layers, latency_ms=1, **mhz))
    latency_s, power_w = (np.asarray(column, float) for column in predict(to_measured(rows, device), device))
    errors = np.exp(noise * draws.standard_normal((2, count)))
    return [
        row.model_copy(
            update={
                "latency_ms": 1e3 * latency_s[i] * errors[0, i],
                "power_w": power_w[i] * errors[1, i] if with_power else None,
            }
        )
        for i, row in enumerate(rows)
    ]


def calibrated(rows, base_name, **options):
    """A calibration of the base's own name: what is compiled for a device is compiled for its name."""
    return calibrate(rows, hw.read_device_file(base_name), name=base_name, source="a test", **options)


def figures(part):
    """All figures in a part of a device file."""
    if hasattr(part, "provenance"):
        return [part]
    fields = (getattr(part, name) for name in type(part).model_fields)
    return [figure for field in fields if field is not None for figure in figures(field)]


def named(text, rows):
    """Rows with other clocks, as a text such as `core=1000,1200 memory=`; an empty list removes the clock."""
    changes = [part.split("=") for part in text.split()]
    tables = {f"{clock}_mhz": [float(mhz) for mhz in listed.split(",") if mhz] or [None] for clock, listed in changes}
    return [
        row.model_copy(update={name: table[i % len(table)] for name, table in tables.items()})
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def without_fitting(monkeypatch):
    """Calibrations return the base's own values, at once: for tests of what stands around them in the file."""
    monkeypatch.setattr(calibration, "fit", lambda _key, _measured, base, **_: base)
    monkeypatch.setattr(calibration, "held_out", lambda _key, measured, base, _groups, **_: predict(measured, base))


@pytest.fixture(scope="module")
def base() -> hw.Device:
    return roofline("agx-xavier-gpu")


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
    """At one setting of the host."""
    clocks = {"core_hz": [114.75e6, 522.75e6, 1377e6], "memory_hz": [204e6, 2133e6], "host_hz": [2265.6e6]}
    return to_measured(measure(other, **clocks), other)


@pytest.fixture(scope="module")
def fitted(base, measured):
    return fit(jax.random.key(0), measured, base, weights=jnp.ones(COUNT), **QUICK)


def test_empty_clocks_and_formats_are_the_devices_own(base):
    rows = [
        Measurement(network="a", layers=BIG, latency_ms=1),
        Measurement(network="b", layers=BIG, latency_ms=1, core_mhz=522.75, memory_mhz=204, format="int8"),
    ]
    measured = to_measured(rows, base)
    np.testing.assert_allclose(measured.point.core_hz, [1377e6, 522.75e6])
    np.testing.assert_allclose(measured.point.memory_hz, [2133e6, 204e6])
    assert measured.number_format.tolist() == [hw.NumberFormat.FP32, hw.NumberFormat.INT8]


def test_clocks_and_formats_that_a_device_lacks_are_named(base):
    row = Measurement(network="a", layers=BIG, latency_ms=1, core_mhz=1000)
    with pytest.raises(ValueError, match=r"a: core_mhz: expected a setting of agx-xavier-gpu \(114.75 .*\), got 1000"):
        to_measured([row], base)
    only_int8 = hw.load_device("coral-edge-tpu")
    with pytest.raises(ValueError, match=r"a: format: expected one that coral-edge-tpu runs \(int8\), got fp16"):
        to_measured([row.model_copy(update={"format": "fp16", "core_mhz": None})], only_int8)


def test_a_clock_read_a_little_off_is_the_setting_itself(base):
    rows = [Measurement(network="a", layers=BIG, latency_ms=1, core_mhz=mhz) for mhz in (1375, 1377.5, 1377)]
    assert set(np.asarray(to_measured(rows, base).point.core_hz).tolist()) == {float(base.core_hz[-1])}


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
    key, weights = jax.random.key(0), (jnp.arange(COUNT) < 40).astype(jnp.float32)
    spoiled = dataclasses.replace(
        measured, latency_s=jnp.where(weights > 0, measured.latency_s, 1e6 * measured.latency_s)
    )
    a, b = (fit(key, some, base, weights=weights, **QUICK) for some in (measured, spoiled))
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_tight_prior_keeps_the_base_but_for_the_common_factor(base, measured):
    near = fit(jax.random.key(0), measured, base, weights=jnp.ones(COUNT), prior_sigma=1e-3, **QUICK)
    ratios = np.asarray(near.macs_per_cycle / base.macs_per_cycle)
    assert ratios.std() / ratios.mean() < 0.05


def test_gradients_reach_a_minimum_from_a_base_that_costs_nothing_at_rest(base, measured):
    empty = dataclasses.replace(base, run_s=jnp.float32(0), run_cycles=jnp.float32(0), launch_cycles=jnp.float32(0))
    found = fit(jax.random.key(0), measured, empty, weights=jnp.ones(COUNT), **QUICK)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_held_out_predictions_come_from_fits_that_never_saw_their_group(base, measured):
    groups = np.arange(COUNT) % 2
    plain, _ = held_out(jax.random.key(0), measured, base, groups, **QUICK)
    odd = dataclasses.replace(
        measured, latency_s=jnp.where(jnp.arange(COUNT) % 2 == 1, 3 * measured.latency_s, measured.latency_s)
    )
    changed, _ = held_out(jax.random.key(0), odd, base, groups, **QUICK)
    np.testing.assert_array_equal(plain[1::2], changed[1::2])
    assert np.all(np.asarray(changed[0::2]) > 1.5 * np.asarray(plain[0::2]))


def test_parameters_are_informed_where_measurements_depend_on_them(measured, fitted):
    found = informed(measured, fitted, quantity="latency")
    kinds = [kind for kind in hw.LayerKind if found["macs_per_cycle"][kind]]
    assert kinds == [hw.LayerKind.DENSE, hw.LayerKind.POINTWISE, hw.LayerKind.DEPTHWISE]
    assert found["activation_bytes_per_cycle"]
    assert not found["format_speedup"].any()
    assert not found["segment_cycles"]
    power = informed(measured, fitted, quantity="power")
    assert power["core_w_per_hz"]
    # At the one setting of the host, only the sum of its power and the board's is known.
    assert not power["host_curve_w"]
    assert not power["board_w"]


def test_one_large_network_tells_its_rate_and_nothing_of_launches(base):
    rows = [Measurement(network="a", layers=BIG, latency_ms=9, core_mhz=mhz) for mhz in (114.75, 522.75, 1377)]
    found = informed(to_measured(rows, base), base, quantity="latency")
    assert found["macs_per_cycle"].tolist() == [True] + [False] * 5
    assert not found["launch_cycles"]
    assert not found["run_s"]


def test_rows_of_one_and_more_segments_tell_the_run_from_its_calls(base, other, measured):
    slow = dataclasses.replace(other, segment_cycles=jnp.float32(2e5), run_cycles=jnp.float32(4e5))
    row = np.arange(COUNT)[:, None]
    active = jnp.asarray(np.arange(4) <= row // 4 % 4, jnp.float32)
    shrunk = {
        name: getattr(measured.layers, name) / 10 for name in ("weight_elements", "input_elements", "output_elements")
    }
    small = measured.layers.replace(macs=measured.layers.macs / 100, active=active, **shrunk)
    split = dataclasses.replace(measured, layers=small, segments=jnp.asarray(1.0 + row[:, 0] % 4, jnp.float32))
    latency_s, power_w = predict(split, slow)
    split = dataclasses.replace(split, latency_s=latency_s, power_w=power_w)
    found = fit(jax.random.key(0), split, base, weights=jnp.ones(COUNT), **QUICK)
    assert float(found.segment_cycles) == pytest.approx(2e5, rel=0.03)
    assert float(run_latency(found) / run_latency(slow)) == pytest.approx(1, rel=0.05)
    assert informed(split, found, quantity="latency")["segment_cycles"]
    assert not informed(measured, found, quantity="latency")["segment_cycles"]


def run_latency(device):
    return hw.run_latency(device, hw.default_point(device))


def test_the_rail_of_the_core_tells_nothing_of_the_board(base, measured):
    of_core = dataclasses.replace(measured, is_core=jnp.ones(COUNT, bool))
    latency_s, power_w = predict(of_core, base)
    of_core = dataclasses.replace(of_core, latency_s=latency_s, power_w=2 * power_w)
    found = fit(jax.random.key(0), of_core, base, weights=jnp.ones(COUNT), **QUICK)
    assert float(found.core_w_per_hz / base.core_w_per_hz) == pytest.approx(2, rel=0.1)
    rest = ("board_w", "memory_w_per_hz", "byte_j", "host_curve_w")
    assert all(np.array_equal(getattr(found, name), getattr(base, name)) for name in rest)
    told = informed(of_core, found, quantity="power")
    assert told["core_w_per_hz"]
    assert not any(told[name] for name in rest)


def test_a_calibrated_file_says_what_was_fitted_and_how_well():
    board = roofline("agx-xavier-gpu")
    slower = dataclasses.replace(board, macs_per_cycle=board.macs_per_cycle / 3)
    clocks = {"core_hz": [114.75e6, 522.75e6, 1377e6], "memory_hz": [204e6, 2133e6], "host_hz": [1190.4e6, 2265.6e6]}
    rows, file = measure(slower, noise=0.02, **clocks), hw.read_device_file("agx-xavier-gpu")
    found = calibrated(rows, "agx-xavier-gpu", **QUICK)
    assert [test.left_out for test in found.held_out] == ["families", "core clocks", "memory clocks", "host clocks"]
    first = found.held_out[0]
    assert first.latency_error < 0.1
    assert first.latency_tau > 0.9
    rates = found.file.latency.macs_per_cycle
    assert rates.dense.provenance == "fitted"
    assert rates.dense.error.value == pytest.approx(first.latency_error, abs=1e-4)
    assert rates.pooling.provenance == "assumed"
    assert found.file.latency.segment_cycles is None
    assert "common factor" in rates.pooling.source
    assert found.file.power.core_load.provenance == "fitted"
    assert found.file.clocks == file.clocks
    assert found.file.modes.keys() == file.modes.keys()
    taken_over = [found.file.power.core_voltage, found.file.latency.format_speedup, *found.file.modes.values()]
    for figure in (figure for part in taken_over for figure in figures(part)):
        assert (figure.provenance, figure.error) == ("assumed", None)
        assert figure.source == "as agx-xavier-gpu; not measured on this device"
    assert not found.warnings


def test_a_calibration_is_the_same_every_time(base):
    clocks = {"core_hz": [114.75e6, 1377e6], "memory_hz": [2133e6], "host_hz": [2265.6e6]}
    rows = measure(base, with_power=False, **clocks)
    once, again = (calibrated(rows, "agx-xavier-gpu", **QUICK).file for _ in range(2))
    assert once == again


def test_without_power_all_power_is_assumed(base, without_fitting):
    power = calibrated(measure(base, with_power=False), "agx-xavier-gpu").file.power
    assert {figure.provenance for figure in figures(power)} == {"assumed"}
    own = hw.read_device_file("agx-xavier-gpu").power
    assert [figure.value for figure in figures(power)] == [figure.value for figure in figures(own)]


def test_power_of_the_core_alone_leaves_the_board_as_assumed(base, without_fitting):
    rows = [row.model_copy(update={"power_rail": "core"}) for row in measure(base)]
    power, own = calibrated(rows, "agx-xavier-gpu").file.power, hw.read_device_file("agx-xavier-gpu").power
    assert power.core_load.provenance == "fitted"
    for name in ("board", "memory_clock", "byte_energy", "host", "core_voltage"):
        figure = getattr(power, name)
        assert figure.source == "as agx-xavier-gpu; not measured on this device"
        assert figure.value == getattr(own, name).value


@pytest.mark.parametrize(
    ("base_name", "given", "core", "provenance", "source"),
    [
        ("x86-cpu", "core=3000 memory= host=", [3000], "measured", "a test"),
        ("x86-cpu", "core=3000,3001,3400 memory= host=", [3001, 3400], "measured", "a test"),
        ("x86-cpu", "core=2000 memory= host=", [2000], "measured", "a test"),
        ("x86-cpu", "core=1198,1198.5 memory= host=", [1200], "measured", "a test"),
        ("x86-cpu", "core= memory= host=", [2800], "assumed", "clock unknown while measuring; stands for it"),
        ("tx2-gpu", "core=1300.5 memory=1866 host=2035.2", [1300.5], "measured", "a test"),
    ],
)
def test_a_clock_table_is_what_was_measured(base_name, given, core, provenance, source, without_fitting):
    rows = named(given, measure(roofline(base_name), count=FEW, with_power=False))
    found = calibrated(rows, base_name)
    figure = found.file.clocks.core
    assert (figure.value, figure.provenance, figure.source) == (core, provenance, source)
    assert not found.file.modes
    assert len(found.warnings) == (core == [2800])
    assert [float(hz) / 1e6 for hz in found.device.core_hz] == pytest.approx(core)


def test_unknown_clocks_are_warned_of_and_reduce_their_tables(without_fitting):
    rows = named("core= memory=", measure(roofline("tx2-gpu"), count=FEW, with_power=False))
    found = calibrated(rows, "tx2-gpu")
    assert [len(table.value) for table in figures(found.file.clocks)] == [1, 1, 12]
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "core clock unknown in all rows",
        "memory clock unknown in all rows",
    ]


@pytest.mark.parametrize(
    ("base_name", "given", "message"),
    [
        ("tx2-gpu", "core=77", r"n0: core_mhz: expected a setting of tx2-gpu \(.*\), got 77; take a base whose"),
        ("x86-cpu", "core=3000 memory=1200,1600", r"n1: memory_mhz: expected a setting of x86-cpu .*, got 1600; take"),
        ("x86-cpu", "core=2000,3000", r"n1: core_mhz: expected a setting of x86-cpu .*, got 3000; take a base"),
    ],
)
def test_clocks_that_do_not_fit_the_base_are_named(base_name, given, message):
    rows = named(given, measure(roofline(base_name), count=FEW, with_power=False))
    with pytest.raises(ValueError, match=message):
        calibrated(rows, base_name)


def test_a_clock_in_some_rows_only_is_named():
    rows = measure(roofline("tx2-gpu"), count=FEW, with_power=False)
    rows[1] = rows[1].model_copy(update={"memory_mhz": None})
    for call in (nearest_device, lambda some: calibrated(some, "tx2-gpu")):
        with pytest.raises(
            ValueError, match=r"memory_mhz: expected a clock in every row or in none, got one in 5 of 6"
        ):
            call(rows)


def test_latencies_in_the_wrong_unit_are_warned_of(without_fitting):
    rows = measure(roofline("agx-xavier-gpu"), with_power=False)
    wrong = [row.model_copy(update={"latency_ms": row.latency_ms / 1000}) for row in rows]
    found = calibrated(wrong, "agx-xavier-gpu")
    assert found.scale == pytest.approx(1e-3, rel=1e-3)
    assert len(found.warnings) == 1
    assert "0.001 times those of agx-xavier-gpu: check that latency_ms is in ms" in found.warnings[0]


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "us"), (1e6, "ns"), (1e-3, "s")])
def test_latencies_far_from_the_base_come_with_the_unit_that_they_were_likely_in(factor, unit, without_fitting):
    rows = measure(hw.load_device("raspberry-pi-4"), count=FEW, with_power=False)
    wrong = [row.model_copy(update={"latency_ms": row.latency_ms * factor}) for row in rows]
    (warning,) = calibrated(wrong, "raspberry-pi-4").warnings
    assert f"ms if it was in {unit})" in warning


@pytest.mark.parametrize("rail", ["board", "core"])
def test_powers_beyond_what_a_board_like_the_base_takes_are_refused(rail):
    rows = measure(roofline("tx2-gpu"), count=FEW)
    update = {"power_rail": rail}
    wrong = [row.model_copy(update={**update, "power_w": 100 * row.power_w}) for row in rows]
    with pytest.raises(ValueError, match=r"measured powers are .* times those of tx2-gpu: check that power_w is in W"):
        calibrated(wrong, "tx2-gpu")
    milliwatts = [row.model_copy(update={**update, "power_w": 1000 * row.power_w}) for row in rows]
    with pytest.raises(ValueError, match=r"check that power_w is in W \(the median, .*, is .* W if it was in mW\)"):
        calibrated(milliwatts, "tx2-gpu")


def test_a_power_far_from_the_base_is_warned_of(without_fitting):
    rows = measure(roofline("tx2-gpu"), count=FEW)
    wrong = [row.model_copy(update={"power_w": 30 * row.power_w}) for row in rows]
    (warning,) = calibrated(wrong, "tx2-gpu").warnings
    assert warning.startswith("measured powers are 30")


def test_rows_in_another_unit_than_the_others_are_warned_of(without_fitting):
    rows = measure(roofline("tx2-gpu"), count=FEW, with_power=False)
    rows[4] = rows[4].model_copy(update={"latency_ms": 1000 * rows[4].latency_ms})
    (warning,) = calibrated(rows, "tx2-gpu").warnings
    assert warning.startswith("1 of 6 rows, the first of n4, have a latency_ms")


def test_clocks_far_from_an_assumed_table_are_warned_of(without_fitting):
    rows = named("core=16000 memory=14 host=", measure(hw.load_device("x86-cpu"), count=FEW, with_power=False))
    found = calibrated(rows, "x86-cpu")
    assert [warning for warning in found.warnings if "clocks are" in warning] == [
        "memory clocks are 0.0117 times those of x86-cpu: check that memory_mhz is in MHz"
    ]


@pytest.mark.parametrize(("count", "sigma"), [(calibration.FEW_ROWS - 1, 0.3), (calibration.FEW_ROWS, 1.0)])
def test_few_rows_stay_near_the_base(count, sigma, monkeypatch):
    def stop(*_, prior_sigma, **__):
        raise KeyboardInterrupt(prior_sigma)

    monkeypatch.setattr(calibration, "fit", stop)
    rows = [Measurement(network=f"n{i}", layers=BIG, latency_ms=9) for i in range(count)]
    with pytest.raises(KeyboardInterrupt, match=str(sigma)):
        calibrated(rows, "x86-cpu")


def test_one_row_is_too_few():
    rows = measure(roofline("agx-xavier-gpu"), count=1)
    with pytest.raises(ValueError, match=r"expected at least two networks or two clocks to fit .*, got 1 row of one"):
        calibrated(rows, "agx-xavier-gpu")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("agx-xavier-gpu", "core= memory= host="),
        ("raspberry-pi-4", "core= memory= host="),
        ("x86-cpu", "core=2950 memory= host="),
    ],
)
def test_the_nearest_device_is_the_one_that_was_measured(name, given):
    device = roofline(name)
    rows = named("core= memory= host=", measure(device, count=FEW, with_power=False))
    latency_s = predict(to_measured(rows, device), device)[0]
    at_default = [
        row.model_copy(update={"latency_ms": 2e3 * float(found)}) for row, found in zip(rows, latency_s, strict=True)
    ]
    assert nearest_device(named(given, at_default)) == name


RUNTIME = {"runtime": "onnxruntime", "runtime_version": "1.20", "provider": "CPU"}


def test_a_device_names_what_ran_the_rows_and_says_where_its_base_was_measured_on_another(without_fitting):
    rows = [row.model_copy(update=RUNTIME) for row in measure(roofline("tx2-gpu"), count=FEW)]
    found = calibrated(rows, "tx2-gpu")
    assert str(found.file.runtime) == "onnxruntime 1.20 (CPU)"
    assert not found.warnings
    assert found.file.doubt_of_runtime("onnxruntime") is None
    other = [row.model_copy(update={"runtime": "jax"}) for row in rows]
    again = calibrate(other, found.file, name="tx2-gpu", source="a test")
    assert [warning.partition(":")[0] for warning in again.warnings] == [
        "tx2-gpu was measured on onnxruntime, this is jax"
    ]
    assert calibrated([rows[0].model_copy(update={"runtime": None}), *rows[1:]], "tx2-gpu").file.runtime is None
    assert found.file.yardsticks_ms is None
    free = {"core_mhz": None, "memory_mhz": None, "host_mhz": None}
    named = [row.model_copy(update={**free, "network": f"layer-{i}"}) for i, row in enumerate(rows[:3])]
    assert yardsticks_ms([*named, *rows]) == {f"layer-{i}": rows[i].latency_ms for i in range(3)}
    others = named[0].model_copy(update={"batch": 2}), named[1].model_copy(update={"format": "int8"})
    assert yardsticks_ms(others) == {}


@pytest.mark.parametrize("change", [{"runtime": "jax"}, {"provider": "CUDA"}])
def test_rows_of_several_runtimes_are_refused(change):
    rows = [row.model_copy(update=RUNTIME) for row in measure(roofline("tx2-gpu"), count=FEW)]
    with pytest.raises(ValueError, match=r"expected rows of one runtime, got .*, .*; fit a device"):
        calibrated([rows[0].model_copy(update=change), *rows[1:]], "tx2-gpu")


def wide_network(draws):
    """A network of four layers whose kernels take longer the more channels they have, which no roofline knows."""
    layers = network(draws)
    return layers, float(np.log10(layers.macs.sum() / layers.output_elements.sum()) - 3)


@pytest.mark.slow
@pytest.mark.parametrize(("bent", "helps"), [(0.4, True), (0.0, False)])
def test_a_correction_is_learned_from_a_hundred_rows_and_kept_where_it_helps(bent, helps, base, monkeypatch):
    monkeypatch.setattr(calibration, "fit", lambda _key, _measured, start, **_: start)
    monkeypatch.setattr("hw_models.fitting.device_parameters.fit", lambda _key, _measured, start, **_: start)
    draws, rows = np.random.default_rng(1), []
    for i in range(calibration.LEARN_FROM):
        layers, excess = wide_network(draws)
        text = format_layers(layers)
        latency_s = np.exp(bent * excess + 0.02 * draws.standard_normal())
        rows.append(Measurement(network=f"n{i}", layers=text, latency_ms=float(latency_s), core_mhz=1377))
    roofline_s = np.asarray(predict(to_measured(rows, base), base)[0])
    rows = [
        row.model_copy(update={"latency_ms": 1e3 * row.latency_ms * float(seconds)})
        for row, seconds in zip(rows, roofline_s, strict=True)
    ]
    found = calibrated(rows, "agx-xavier-gpu")
    assert [test.left_out for test in found.held_out][-1] == "families, with a correction"
    assert (found.file.correction is not None) == helps
    assert found.notes[0].startswith(
        "A learned correction " + ("of whole networks helps" if helps else "does not help")
    )
    if helps:
        plain, learned = found.held_out[0], found.held_out[-1]
        assert learned.latency_error < 0.5 * plain.latency_error
        assert found.latency_error < learned.latency_error
        assert found.file.correction.error.value == pytest.approx(learned.latency_error, abs=1e-4)
