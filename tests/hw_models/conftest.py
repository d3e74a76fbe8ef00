"""A device, a network and an independent float64 model for the tests of hw_models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hw_models.reference_networks import mobilenet_v2


@pytest.fixture(scope="session")
def device() -> hw.Device:
    """A roofline alone."""
    return dataclasses.replace(hw.load_device("agx-xavier-gpu"), correction=None)


@pytest.fixture(scope="session")
def mobilenet() -> hw.LayerTable:
    """MobileNetV2 at 224 pixels: 0.30 G MACs, 3.5 M parameters."""
    return mobilenet_v2(224)


@pytest.fixture(scope="session")
def compute_bound() -> hw.LayerTable:
    """Many MACs on few elements."""
    return _table([(hw.LayerKind.DENSE, 2e9, 2e4, 1e4, 1e4)] * 3)


@pytest.fixture(scope="session")
def oracle():
    return reference_cost


@pytest.fixture(scope="session")
def compiled():
    """`cost` and its total, compiled once for the whole session."""
    return jax.jit(hw.cost)


def reference_cost(layers, device, core_hz, memory_hz, host_hz, batch=1, element_bytes=4, speedup=1.0):
    """Latency and energy [L] in float64, written without regard to underflow or gradients."""
    d = {
        name: np.asarray(value, np.float64)
        for name, value in vars(device).items()
        if name not in ("name", "formats", "correction")
    }
    latency, energy = [], []
    for row in range(len(layers.kind)):
        get = lambda name: float(np.asarray(getattr(layers, name))[row])  # noqa: B023, E731
        if get("active") == 0:
            latency.append(0.0)
            energy.append(0.0)
            continue
        rate = d["macs_per_cycle"][int(layers.kind[row])] * speedup
        weight_bytes = get("weight_elements") * element_bytes
        compute = batch * get("macs") / rate / core_hz
        core = compute + weight_bytes * d["core_cycles_per_weight_byte"] / core_hz
        moved_bytes = batch * (get("input_elements") + get("output_elements")) * element_bytes
        memory = weight_bytes / d["weight_bytes_per_cycle"] / memory_hz
        memory += moved_bytes / d["activation_bytes_per_cycle"] / memory_hz
        p = d["norm_order"]
        busy = (core**p + memory**p) ** (1 / p)
        time = busy + get("kernels") * d["launch_cycles"] / host_hz
        volts_squared = np.interp(core_hz, d["voltage_hz"], d["voltage_ratio"]) ** 2
        static = d["board_w"] + d["core_idle_w"] * volts_squared + d["memory_w_per_hz"] * memory_hz
        static += np.interp(host_hz, d["host_curve_hz"], d["host_curve_w"])
        stalled = d["core_stalled_share"]
        load = d["core_w_per_hz"] * core_hz * volts_squared * (stalled * busy + (1 - stalled) * compute)
        latency.append(time)
        energy.append(static * time + load + d["byte_j"] * (weight_bytes + moved_bytes))
    return np.array(latency), np.array(energy)


def _table(rows) -> hw.LayerTable:
    kind, macs, weights, reads, writes = zip(*rows, strict=True)
    return hw.layer_table(
        jnp.asarray(kind), macs, weight_elements=weights, input_elements=reads, output_elements=writes
    )
