import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hw_models.accelerator import (
    FpgaTooSmallError,
    check_generic_fits,
    generic_cost,
    generic_report,
    generic_table,
    load_fpga,
)


@pytest.fixture(scope="module")
def cost_of(rows):
    """Costs of architectures [N] on an FPGA, compiled once for codes."""
    return jax.jit(jax.vmap(lambda code, fpga: generic_cost(rows, darts_counts(code), fpga), in_axes=(0, None)))


def test_cycles_are_those_of_a_plain_loop(loop, codes, cost_of, ku115):
    found = cost_of(jnp.asarray(codes), ku115)
    wanted = [loop.generic_cycles(loop.layers_of(code)) for code in codes]
    np.testing.assert_allclose(found.cycles, wanted, rtol=1e-6)
    np.testing.assert_allclose(found.throughput * found.latency_s, 1.0, rtol=1e-6)


def test_other_networks_and_smaller_engines_follow_the_loop_too(loop, codes):
    network, fpga = DartsNetwork(channels=12, cells=5, classes=7, image_size=16), load_fpga("zc706")
    layers = loop.layers_of(codes[0], channels=12, cells=5, classes=7, size=16)
    wanted = loop.generic_cycles(layers, multipliers=512, ddr=100e9)
    found = generic_cost(network_rows(network), darts_counts(jnp.asarray(codes[0])), fpga)
    assert float(found.cycles) == pytest.approx(wanted, rel=1e-6)


def test_the_table_is_the_full_form_up_to_the_rounding_of_sums(codes, rows, cost_of, ku115):
    table = generic_table(rows, ku115)
    found = jax.vmap(lambda code: table.cost(darts_counts(code)).throughput)(jnp.asarray(codes))
    np.testing.assert_allclose(found, cost_of(jnp.asarray(codes), ku115).throughput, rtol=1e-6)


def test_the_expected_cost_at_a_one_hot_distribution_is_the_cost_of_the_code(rows, codes, ku115):
    code = jnp.asarray(codes[0])
    one_hot = jax.nn.one_hot(code, 8, dtype=jnp.float32)
    for price in (partial(generic_cost, rows, fpga=ku115), generic_table(rows, ku115).cost):
        assert float(price(darts_counts(one_hot)).cycles) == float(price(darts_counts(code)).cycles)


def test_gradients_of_softmax_alpha_are_finite_and_those_of_differences(rows, ku115):
    def cycles(alpha):
        return generic_cost(rows, darts_counts(jax.nn.softmax(alpha, axis=-1)), ku115).cycles

    alpha = jnp.asarray(np.random.default_rng(0).normal(0, 1, (28, 8)), jnp.float32)
    slope = jax.jit(jax.grad(cycles))(alpha)
    assert bool(jnp.all(jnp.isfinite(slope)))
    step = jnp.asarray(np.random.default_rng(1).normal(0, 0.1, (28, 8)), jnp.float32)
    difference = float(cycles(alpha + 0.1 * step) - cycles(alpha - 0.1 * step)) / 0.2
    assert float(jnp.sum(slope * step)) == pytest.approx(difference, rel=1e-2)


def test_throughput_never_falls_with_more_dsps_bandwidth_or_memory(codes, cost_of, ku115):
    for name, sizes in (
        ("dsp", (10, 100, 1000, 3000, 6000)),
        ("ddr_bits_per_s", (1e9, 1e10, 1e11, 1e12)),
        ("bram18", (100, 300, 1000, 3000)),
    ):
        fpgas = [dataclasses.replace(ku115, **{name: jnp.float32(size)}) for size in sizes]
        found = np.stack([cost_of(jnp.asarray(codes), fpga).throughput for fpga in fpgas])
        assert np.all(np.diff(found, axis=0) >= 0)
        assert np.all(found[-1] > found[0])


def test_the_engine_has_4096_multipliers_on_ku115_and_512_on_zc706(rows, darts_v2, ku115):
    for fpga, size in ((ku115, "64 channels times 64"), (load_fpga("zc706"), "32 channels times 16")):
        assert generic_report(rows, darts_v2, fpga).reason.endswith(f"The engine has {size} kernels.")


def test_at_8_bit_a_dsp_multiplies_twice(rows, darts_v2):
    report = generic_report(rows, darts_v2, dataclasses.replace(load_fpga("zc706"), word_bits=8))
    assert report.dsp == 512
    assert report.bottleneck.channels * report.bottleneck.kernels == 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dsp": 1}, r"at least 1 usable DSPs for the smallest engine, got 0 of 1"),
        ({"bram18": 2}, r"at least 3 usable memory blocks of 18 Kb for the smallest engine, got 2 of 2"),
    ],
)
def test_an_fpga_without_room_for_an_engine_is_refused_by_resource(rows, darts_v2, ku115, change, message):
    fpga = dataclasses.replace(ku115, **{name: jnp.float32(value) for name, value in change.items()})
    with pytest.raises(FpgaTooSmallError, match=message):
        check_generic_fits(fpga)
    assert float(generic_cost(rows, darts_v2, fpga).throughput) == 0
    assert float(generic_table(rows, fpga).cost(darts_v2).throughput) == 0
    check_generic_fits(ku115)
