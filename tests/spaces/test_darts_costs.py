import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hadas_jax.spaces.darts_costs import darts_workload
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import code_of, published_genotype

SEARCH = DartsNetwork()


@pytest.fixture(scope="module")
def darts_v2() -> jax.Array:
    return jnp.asarray(code_of(published_genotype("DARTS_V2")))


def test_parameters_of_darts_v2_are_the_published_ones(darts_v2):
    cifar = darts_workload(DartsNetwork(channels=36, cells=20), darts_v2)
    imagenet = darts_workload(DartsNetwork(48, 14, 1000, 224, stem="imagenet"), darts_v2)
    # 3.3 and 4.7 million are published, of convolutions with batch norm.
    assert float(hw.total_weights(cifar)) / 1e6 == pytest.approx(3.3, abs=0.06)
    assert float(hw.total_weights(imagenet)) / 1e6 == pytest.approx(4.7, abs=0.06)


def plain_macs(network: DartsNetwork, code: np.ndarray) -> int:
    """Multiply-accumulates, cell by cell and edge by edge."""
    size, width = network.image_size, network.channels
    total = 9 * network.in_channels * 3 * width * size**2
    before, last = (3 * width, size), (3 * width, size)
    was_reduced = False
    for cell in range(network.cells):
        is_reduced = cell in (network.cells // 3, 2 * network.cells // 3)
        width *= 2 if is_reduced else 1
        total += (
            before[0] * width * (before[1] // 2 if was_reduced else before[1]) ** 2 + last[0] * width * last[1] ** 2
        )
        out = last[1] // 2 if is_reduced else last[1]
        edge = 14 if is_reduced else 0
        for node in range(4):
            for start in range(2 + node):
                total += {
                    3: width**2 * out**2 if is_reduced and start < 2 else 0,
                    4: 2 * (9 * width + width**2) * out**2,
                    5: 2 * (25 * width + width**2) * out**2,
                    6: (9 * width + width**2) * out**2,
                    7: (25 * width + width**2) * out**2,
                }.get(int(code[edge]), 0)
                edge += 1
        before, last, was_reduced = last, (4 * width, out), is_reduced
    return total + last[0] * network.classes


@pytest.mark.parametrize(
    "network", [SEARCH, DartsNetwork(channels=8, cells=5, classes=7, image_size=16, in_channels=1)]
)
@pytest.mark.parametrize("name", ["DARTS_V1", "OURS_ACC"])
def test_multiply_accumulates_are_those_of_a_plain_count(network, name):
    code = code_of(published_genotype(name))
    assert float(hw.total_macs(darts_workload(network, jnp.asarray(code)))) == plain_macs(network, code)


def test_an_addition_is_one_operation_for_each_element_that_it_writes(darts_v2):
    layers = darts_workload(SEARCH, darts_v2)
    sums = np.asarray(layers.kind) == hw.LayerKind.ELEMENTWISE
    operations = float(np.sum(np.asarray(layers.macs * layers.active)[sums]))
    # Eight cells of four nodes, at 16, 32 and 64 channels; the third and the sixth cell halve the side of 32 pixels.
    assert operations == 4 * (2 * 16 * 32**2 + 3 * 32 * 16**2 + 3 * 64 * 8**2)
    np.testing.assert_array_equal(layers.macs[sums], layers.output_elements[sums])
    np.testing.assert_array_equal(layers.input_elements[sums], 2 * layers.output_elements[sums])


def device_cost(device: hw.Device, architecture: jax.Array) -> hw.Cost:
    return hw.network_cost(darts_workload(SEARCH, architecture), device, hw.default_point(device))


@pytest.mark.parametrize("device", ["agx-xavier-gpu", "raspberry-pi-4", "coral-edge-tpu"])
def test_the_expected_cost_at_a_one_hot_distribution_is_the_cost_of_the_code(device, darts_v2):
    loaded = hw.load_device(device)
    of_code = device_cost(loaded, darts_v2)
    relaxed = device_cost(loaded, jax.nn.one_hot(darts_v2, 8, dtype=jnp.float32))
    assert float(relaxed.latency_s) == float(of_code.latency_s) > 0
    assert float(relaxed.energy_j) == float(of_code.energy_j) > 0


def test_the_expected_roofline_cost_is_the_mean_over_drawn_networks_edge_by_edge(darts_v2):
    device = dataclasses.replace(hw.load_device("agx-xavier-gpu"), correction=None)
    other = jnp.asarray(code_of(published_genotype("OURS_PIP")))
    codes = [darts_v2, other]
    mixed = sum(0.5 * jax.nn.one_hot(code, 8, dtype=jnp.float32) for code in codes)
    mean = np.mean([float(device_cost(device, code).latency_s) for code in codes])
    assert float(device_cost(device, mixed).latency_s) == pytest.approx(mean, rel=1e-5)


def test_gradients_of_softmax_alpha_are_finite_and_favour_cheap_operations():
    device = hw.load_device("agx-xavier-gpu")

    def latency(alpha):
        return device_cost(device, jax.nn.softmax(alpha, axis=-1)).latency_s

    slope = np.asarray(jax.jit(jax.grad(latency))(jnp.zeros((28, 8))))
    assert np.all(np.isfinite(slope))
    # Descending raises none and stride-1 skips, which cost nothing, and lowers the 5x5 separable convolution.
    assert np.all(slope[:14, [0, 3]] < 0)
    assert np.all(slope[:, 5] > 0)


def test_equal_edges_of_a_cell_cost_the_same_wherever_they_are():
    code = np.zeros(28, np.int32)
    code[[0, 1, 2, 3, 5, 6, 9, 10]] = [4, 6, 1, 5, 4, 6, 1, 5]
    code[[14, 15, 18, 16, 21, 22, 26, 27]] = 4
    moved = code.copy()
    moved[[0, 1, 2, 3, 5, 6, 9, 10]] = [5, 1, 6, 4, 5, 1, 6, 4]
    one, two = (darts_workload(SEARCH, jnp.asarray(digits)) for digits in (code, moved))
    np.testing.assert_array_equal(one.active, two.active)


def test_a_batch_of_codes_has_the_tables_of_a_loop(darts_v2):
    codes = jnp.stack([darts_v2, jnp.asarray(code_of(published_genotype("OURS_ACC")))])
    tables = jax.vmap(lambda code: darts_workload(SEARCH, code))(codes)
    for i, code in enumerate(codes):
        for got, wanted in zip(jax.tree.leaves(tables), jax.tree.leaves(darts_workload(SEARCH, code)), strict=True):
            np.testing.assert_array_equal(got[i], wanted)


@pytest.mark.parametrize("shape", [(27,), (28, 8), (2, 28)])
def test_an_architecture_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"architecture: expected int\[28\] or float\[28, 8\], got shape"):
        darts_workload(SEARCH, jnp.zeros(shape, jnp.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels: expected a whole number of at least 2, got 0"),
        ({"channels": 15}, "channels: expected an even number, got 15"),
        ({"cells": 2.5}, "cells: expected a whole number of at least 1, got 2.5"),
        ({"image_size": 0}, "image_size: expected a whole number of at least 1, got 0"),
        ({"stem": "other"}, "stem: expected cifar or imagenet, got 'other'"),
    ],
)
def test_a_size_of_no_network_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SEARCH, **change)
