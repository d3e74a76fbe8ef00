"""What every device of the catalogue must obey, and what single ones are known to do.

The costs of all devices are computed in one pass, with devices padded to one shape, so that this compiles once.
"""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hw_models.reference_networks import mobilenet_v2, resnet50

NAMES = hw.device_names()
TABLES = ("core_hz", "memory_hz", "host_hz")
CURVES = {"voltage_hz": "voltage_ratio", "host_curve_hz": "host_curve_w"}
# The core is the host too: its clock is the core's, and so is its power.
HOST_IS_CORE = {"agx-xavier-cpu", "pixel-3", "raspberry-pi-4", "tx2-cpu", "x86-cpu"}
# Milliseconds of MobileNetV2 at 224 pixels that published figures of each class make plausible, generously.
GPU_MS, CPU_MS, EDGE_TPU_MS = (1.0, 60.0), (3.0, 250.0), (1.0, 20.0)
# TFLOP/s in fp32 and GB/s of the data sheets.
PEAKS = {
    "agx-orin-gpu": (5.3, 204.8),
    "orin-nano-super-gpu": (2.09, 102.0),
    "agx-xavier-gpu": (1.41, 136.5),
    "xavier-nx-gpu": (0.85, 51.2),
    "tx2-gpu": (0.67, 59.7),
    "nano-gpu": (0.236, 25.6),
}
# Boards of which the first has the higher peak of both.
FASTER_AND_SLOWER = [
    (fast, slow)
    for fast, slow in itertools.permutations(PEAKS, 2)
    if all(high > low for high, low in zip(PEAKS[fast], PEAKS[slow], strict=True))
]


class Sweep(NamedTuple):
    """Costs of MobileNetV2 on one device: at the 8 corners of the clocks and along each clock, others highest."""

    corners: hw.Cost
    along: dict[str, hw.Cost]


class Fleet(NamedTuple):
    """All devices, in the order of `NAMES`."""

    sweeps: list[Sweep]
    resnet50_s: np.ndarray
    resnet50_batch_32_s: np.ndarray
    by_format_s: np.ndarray
    gradients: hw.Device


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    loaded = [hw.load_device(name) for name in NAMES]
    devices = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *map(padded, loaded))
    formats = jnp.array([device.formats[0] for device in loaded], jnp.int32)
    highest = jax.vmap(hw.default_point)(devices)
    settings, cuts = positions(devices)
    points = jax.vmap(hw.operating_point, in_axes=(0, None))(devices, settings)

    small, large = mobilenet_v2(224), resnet50(224)

    def latency_and_energy(device, layers, point, form, batch=1.0):
        return hw.network_cost(layers, device, point, batch=batch, number_format=form)

    def total(device, point, form):
        cost = latency_and_energy(device, small, point, form)
        return cost.latency_s + cost.energy_j

    over_devices = jax.jit(jax.vmap(latency_and_energy, in_axes=(0, None, 0, 0, None)))
    over_points = jax.jit(jax.vmap(jax.vmap(latency_and_energy, (None, None, 0, None)), (0, None, 0, 0)))
    costs = over_points(devices, small, points, formats)
    parts = {name: np.split(np.asarray(value), cuts, axis=1) for name, value in vars(costs).items()}
    pieces = [[hw.Cost(parts["latency_s"][i][d], parts["energy_j"][i][d]) for i in range(4)] for d in range(len(NAMES))]
    every = [jnp.full(len(NAMES), form, jnp.int32) for form in hw.NumberFormat]
    return Fleet(
        sweeps=[Sweep(piece[0], dict(zip(TABLES, piece[1:], strict=True))) for piece in pieces],
        resnet50_s=np.asarray(over_devices(devices, large, highest, formats, 1.0).latency_s),
        resnet50_batch_32_s=np.asarray(over_devices(devices, large, highest, formats, 32.0).latency_s),
        by_format_s=np.stack([over_devices(devices, small, highest, f, 1.0).latency_s for f in every], 1),
        gradients=jax.jit(jax.vmap(jax.grad(total)))(devices, highest, formats),
    )


def padded(device: hw.Device, length: int = 32) -> hw.Device:
    """Repeats the last setting of each clock, and adds knots beyond the last one with its value; the roofline alone."""

    def repeat(values):
        return np.pad(np.asarray(values), (0, length - len(values)), mode="edge")

    changes = {name: repeat(getattr(device, name)) for name in TABLES}
    for knots, values in CURVES.items():
        clocks = np.asarray(getattr(device, knots))
        beyond = clocks[-1] * np.arange(2, 2 + length - len(clocks), dtype=np.float32)
        changes |= {knots: np.concatenate([clocks, beyond]), values: repeat(getattr(device, values))}
    return dataclasses.replace(device, name="padded", formats=tuple(hw.NumberFormat), correction=None, **changes)


def positions(devices: hw.Device) -> tuple[jax.Array, np.ndarray]:
    """Positions [P, 3] in the clock tables of the points of a `Sweep`, and where its parts begin."""
    last = np.array([getattr(devices, table).shape[1] - 1 for table in TABLES])
    parts = [np.array(np.meshgrid(*([0, end] for end in last))).reshape(3, -1).T]
    for axis in range(3):
        settings = np.tile(last, (last[axis] + 1, 1))
        settings[:, axis] = np.arange(last[axis] + 1)
        parts.append(settings)
    return jnp.asarray(np.concatenate(parts), jnp.int32), np.cumsum([len(part) for part in parts])[:-1]


@pytest.fixture(params=range(len(NAMES)), ids=NAMES)
def member(request) -> int:
    return request.param


def test_latency_never_rises_with_a_clock(fleet, member):
    for costs in fleet.sweeps[member].along.values():
        assert np.all(np.diff(costs.latency_s) <= 1e-6 * costs.latency_s[:-1])


def test_power_never_falls_as_the_core_clock_rises(fleet, member):
    costs = fleet.sweeps[member].along["core_hz"]
    power = costs.energy_j / costs.latency_s
    assert np.all(np.diff(power) >= -1e-6 * power[:-1])


def test_energy_is_positive_and_finite_at_every_corner(fleet, member):
    for value in jax.tree.leaves(fleet.sweeps[member].corners):
        assert np.all(np.isfinite(value))
        assert np.all(value > 0)


def test_mobilenet_v2_takes_a_plausible_time_at_the_highest_clocks(fleet, member):
    name = NAMES[member]
    fastest, slowest = EDGE_TPU_MS if name == "coral-edge-tpu" else CPU_MS if name in HOST_IS_CORE else GPU_MS
    assert fastest < 1e3 * fleet.sweeps[member].along["core_hz"].latency_s[-1] < slowest


def test_resnet_50_takes_several_times_as_long_as_mobilenet_v2(fleet, member):
    assert 3 < fleet.resnet50_s[member] / fleet.sweeps[member].along["core_hz"].latency_s[-1] < 15


@pytest.mark.parametrize(("fast", "slow"), FASTER_AND_SLOWER)
def test_a_board_of_higher_peaks_runs_a_compute_bound_network_faster(fleet, fast, slow):
    assert fleet.resnet50_batch_32_s[NAMES.index(fast)] < fleet.resnet50_batch_32_s[NAMES.index(slow)]


def test_a_board_attains_no_more_than_its_peak(fleet):
    macs = 32 * float(np.sum(resnet50(224).macs))
    for name, (teraflops, _) in PEAKS.items():
        assert 2e-12 * macs / fleet.resnet50_batch_32_s[NAMES.index(name)] < teraflops


def test_a_smaller_format_is_not_slower(fleet, member):
    formats = sorted(hw.load_device(NAMES[member]).formats)
    assert np.all(np.diff(fleet.by_format_s[member, formats]) <= 0)


def test_gradients_are_finite(fleet, member):
    assert all(np.all(np.isfinite(leaf[member])) for leaf in jax.tree.leaves(fleet.gradients))


def test_padding_changes_no_cost(fleet):
    device = dataclasses.replace(hw.load_device("agx-xavier-gpu"), correction=None)
    cost = hw.network_cost(mobilenet_v2(224), device, hw.default_point(device))
    found = fleet.sweeps[NAMES.index("agx-xavier-gpu")].along["core_hz"]
    assert float(cost.latency_s) == pytest.approx(found.latency_s[-1], rel=1e-5)
    assert float(cost.energy_j) == pytest.approx(found.energy_j[-1], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_power_mode_caps_clocks_at_settings_of_the_table(name):
    file = hw.read_device_file(name)
    for mode, caps in file.modes.items():
        capped = hw.load_device(name, mode=mode)
        for clock in ("core", "memory", "host"):
            cap = getattr(caps, clock)
            if cap is not None:
                assert float(getattr(capped, f"{clock}_hz")[-1]) == pytest.approx(cap.value * 1e6)


@pytest.mark.parametrize("name", NAMES)
def test_a_cpu_is_its_own_host(name):
    device = hw.load_device(name)
    has_one_host_clock_for_free = len(device.host_hz) == 1 and float(device.host_curve_w.max()) == 0
    assert has_one_host_clock_for_free == (name in HOST_IS_CORE)


def tx2_energy(network):
    """Clocks of the TX2's GPU in MHz, and the energy of a run over its least, at the highest other clocks."""
    device = hw.load_device("tx2-gpu")
    highest = hw.default_point(device)
    assert float(highest.memory_hz) == pytest.approx(1866e6)
    settings = len(device.core_hz)
    points = hw.OperatingPoint(
        device.core_hz, jnp.full(settings, highest.memory_hz), jnp.full(settings, highest.host_hz)
    )
    energy = jax.jit(jax.vmap(hw.network_cost, (None, None, 0)))(network(224), device, points).energy_j
    return np.asarray(device.core_hz) / 1e6, np.asarray(energy / energy.min())


def test_jetson_tx2_takes_least_energy_near_the_core_clock_of_its_efficient_mode():
    mhz, energy = tx2_energy(mobilenet_v2)
    assert 700 < mhz[energy.argmin()] < 1000


def test_jetson_tx2_spends_hardly_more_there_on_a_compute_bound_network():
    # The curve of ResNet-50 is flat: the rails as measured put its minimum at 1033 MHz.
    mhz, energy = tx2_energy(resnet50)
    assert energy[(mhz > 700) & (mhz < 1000)].min() < 1.02
    assert energy[0] > 2
    assert energy[-1] > energy.min()


def test_the_edge_tpu_runs_int8_alone():
    device = hw.load_device("coral-edge-tpu")
    assert device.formats == (hw.NumberFormat.INT8,)
    with pytest.raises(ValueError, match=r"runs \(int8\), got fp32"):
        hw.network_cost(mobilenet_v2(224), device, hw.default_point(device), number_format=hw.NumberFormat.FP32)
