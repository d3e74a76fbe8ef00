import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.accelerator import (
    DartsNetwork,
    FpgaTooSmallError,
    check_generic_fits,
    generic_cost,
    generic_table,
    generic_table_cost,
    generic_table_throughputs,
    load_fpga,
    published_generic_table,
)
from hw_models.accelerator.generic import CLOCK_HZ, OPERATION_CYCLES, engine

# Figures as published, in images/s.
PUBLISHED = {
    "max_pool_3x3": (143266.5, 110619.5, 269179.0, 201207.2, 476190.5),
    "sep_conv_3x3": (23998.1, 34048.3, 41545.5, 46565.8, 57471.3),
    "sep_conv_5x5": (19290.1, 26702.3, 27586.2, 29686.8, 32927.2),
    "dil_conv_3x3": (47996.2, 57686.8, 83091.0, 78277.9, 114942.5),
    "dil_conv_5x5": (38580.2, 51746.4, 55172.4, 54054.1, 65854.5),
}
# Edges of a cell that start at its inputs.
FROM_INPUTS = (0, 1, 2, 3, 5, 6, 9, 10)
# Codes with the throughput that the published table gives the operations of their cells, as float32 prints it.
SUMS = [
    ("3103402050200356160015000350", 1279.40234375),
    ("4515040100002352205300100031", 894.2822875976562),
    ("3560505100025062410206060005", 748.3121337890625),
    ("2553003065010062120403020006", 987.9611206054688),
    ("1660513005000161160405010200", 1046.9775390625),
    ("3450410400340012530402060040", 826.904296875),
]
# Sums of the whole published table.
GENOTYPES = [
    ("4434034004030011103103020300", 817),
    ("4444034003060011013103001300", 765),
    ("3630744003030011103103010300", 1080),
    ("4630360703600011110110001300", 1048),
]


def digits(text: str) -> jax.Array:
    return jnp.asarray([int(digit) for digit in text], jnp.int32)


@pytest.fixture(scope="module")
def cost_of(quick_jit, network):
    """Costs of architectures [N] on an FPGA, compiled once for codes."""
    return quick_jit(jax.vmap(partial(generic_cost, network), in_axes=(0, None)))


def test_cycles_are_those_of_a_plain_loop(loop, codes, cost_of, ku115):
    found = cost_of(jnp.asarray(codes), ku115)
    wanted = [loop.generic_cycles(loop.layers_of(code)) for code in codes]
    np.testing.assert_allclose(found.cycles, wanted, rtol=1e-6)
    np.testing.assert_allclose(found.throughput * found.latency_s, 1.0, rtol=1e-6)


def test_other_networks_and_smaller_engines_follow_the_loop_too(loop, codes):
    network, fpga = DartsNetwork(channels=12, cells=5, classes=7, image_size=16), load_fpga("zc706")
    layers = loop.layers_of(codes[0], channels=12, cells=5, classes=7, size=16)
    wanted = loop.generic_cycles(layers, multipliers=512, ddr=100e9)
    assert float(generic_cost(network, jnp.asarray(codes[0]), fpga).cycles) == pytest.approx(wanted, rel=1e-6)


def test_the_table_is_the_full_form_up_to_the_rounding_of_sums(codes, network, cost_of, ku115):
    table = generic_table(network, ku115)
    found = jax.jit(generic_table_throughputs)(table, jnp.asarray(codes))
    np.testing.assert_allclose(found, cost_of(jnp.asarray(codes), ku115).throughput, rtol=1e-6)


def test_the_expected_cost_at_a_one_hot_distribution_is_the_cost_of_the_code(network, codes, ku115):
    code = jnp.asarray(codes[0])
    one_hot = jax.nn.one_hot(code, 8, dtype=jnp.float32)
    for price in (partial(generic_cost, network, fpga=ku115), partial(generic_table_cost, published_generic_table())):
        assert float(price(one_hot).cycles) == float(price(code).cycles)


def test_gradients_of_softmax_alpha_are_finite_and_those_of_differences(network, ku115, quick_jit):
    def cycles(alpha):
        return generic_cost(network, jax.nn.softmax(alpha, axis=-1), ku115).cycles

    alpha = jnp.asarray(np.random.default_rng(0).normal(0, 1, (28, 8)), jnp.float32)
    slope = quick_jit(jax.grad(cycles))(alpha)
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


def test_the_engine_has_4096_multipliers_on_ku115_and_512_on_zc706(ku115):
    sizes = [engine(fpga) for fpga in (ku115, load_fpga("zc706"))]
    assert [(int(size.channels), int(size.kernels)) for size in sizes] == [(64, 64), (32, 16)]


def test_at_8_bit_a_dsp_multiplies_twice():
    fpga = dataclasses.replace(load_fpga("zc706"), word_bits=8)
    assert int(engine(fpga).dsp) == 512
    assert int(engine(fpga).channels * engine(fpga).kernels) == 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dsp": 1}, r"at least 1 usable DSPs for the smallest engine, got 0 of 1"),
        ({"bram18": 2}, r"at least 3 usable memory blocks of 18 Kb for the smallest engine, got 2 of 2"),
    ],
)
def test_an_fpga_without_room_for_an_engine_is_refused_by_resource(network, darts_v2, ku115, change, message):
    fpga = dataclasses.replace(ku115, **{name: jnp.float32(value) for name, value in change.items()})
    with pytest.raises(FpgaTooSmallError, match=message):
        check_generic_fits(fpga)
    assert float(generic_cost(network, darts_v2, fpga).throughput) == 0
    assert float(generic_table_cost(generic_table(network, fpga), darts_v2).throughput) == 0
    check_generic_fits(ku115)


@pytest.mark.parametrize("operation", PUBLISHED)
def test_whole_cycles_are_the_published_figures_to_the_last_digit(operation):
    assert [round(CLOCK_HZ / cycles, 1) for cycles in OPERATION_CYCLES[operation]] == list(PUBLISHED[operation])


def sum_of_rounded_figures(code: str) -> np.float32:
    """Throughput of the cells, edge by edge over the figures as published, in float64."""
    seconds = 0.0
    for edge, digit in enumerate(int(digit) for digit in code):
        if digit == 0:
            continue
        cycles = list(OPERATION_CYCLES.values())[digit - 1]
        columns = (0, 0, 2, 2, 4, 4) if edge < 14 else (1, 3)
        is_free = digit == 3 and not (edge >= 14 and edge - 14 in FROM_INPUTS)
        seconds += 0.0 if is_free else sum(1 / round(CLOCK_HZ / cycles[column], 1) for column in columns)
    return np.float32(1 / seconds)


@pytest.mark.parametrize(("code", "throughput"), SUMS)
def test_sums_over_the_cells_are_those_of_the_published_table_to_the_last_digit(code, throughput):
    assert sum_of_rounded_figures(code) == np.float32(throughput)
    cells_alone = dataclasses.replace(published_generic_table(), fixed_cycles=jnp.float32(0.0))
    found = float(generic_table_cost(cells_alone, digits(code)).throughput)
    # Whole cycles instead of figures rounded to a tenth: that is all that separates the sums.
    assert found == pytest.approx(throughput, rel=1.1e-6)


@pytest.mark.parametrize(("code", "throughput"), GENOTYPES)
def test_published_genotypes_have_the_throughput_of_the_published_table(code, throughput):
    table = published_generic_table(run_saves_cycles=0)
    assert round(float(generic_table_cost(table, digits(code)).throughput)) == throughput


def test_the_network_found_for_the_accelerator_is_1_41_times_as_fast_as_darts_v2():
    table = published_generic_table(run_saves_cycles=0)
    throughput = {code: float(generic_table_cost(table, digits(code)).throughput) for code, _ in GENOTYPES}
    assert throughput[GENOTYPES[2][0]] / throughput[GENOTYPES[1][0]] == pytest.approx(1.41, abs=0.005)


def test_the_fitted_engine_is_within_a_tenth_of_the_published_table(loop, network, ku115):
    codes = jnp.asarray(loop.draw(200, 3))
    fitted = generic_table_throughputs(generic_table(network, ku115), codes)
    published = generic_table_throughputs(published_generic_table(), codes)
    error = np.abs(np.asarray(fitted / published) - 1)
    assert error.mean() < 0.03
    assert error.max() < 0.1
