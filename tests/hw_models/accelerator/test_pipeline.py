import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts_costs import darts_counts, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hw_models.accelerator import (
    FpgaTooSmallError,
    check_pipeline_fits,
    load_fpga,
    pipeline_cost,
    pipeline_table,
)
from hw_models.accelerator.fpga import memory_blocks

# Published throughputs are batch * 200 MHz / (cycles + 1) with cycles among these: the stem, a 1x1 convolution or a 5x5
# depthwise one, over a power of two.
PUBLISHED_CYCLES = {65536, 82944, 98304, 102400, 131072, 165888, 196608}
# Sizes of the FPGA from far too small to larger than real ones: DSPs, memory blocks.
AT_ONCE = 40
SIZES = [(200, 8000), (800, 800), (1050, 1170), (2000, 4320), (5520, 1500), (5520, 4320), (9000, 9000)]


@pytest.fixture(scope="module")
def cost_of(rows):
    """Costs of codes [N] on an FPGA; any N runs through one compiled size."""
    run = jax.jit(jax.vmap(lambda code, fpga: pipeline_cost(rows, darts_counts(code), fpga), in_axes=(0, None)))

    def costs(codes, fpga):
        padded = np.resize(codes, (-(-len(codes) // AT_ONCE) * AT_ONCE, 28)).astype(np.int32)
        parts = [run(jnp.asarray(part), fpga) for part in np.split(padded, len(padded) // AT_ONCE)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(codes)], *parts)

    return costs


def sized(fpga, dsp, bram18):
    return dataclasses.replace(fpga, dsp=jnp.float32(dsp), bram18=jnp.float32(bram18))


@pytest.mark.parametrize(("dsp", "bram18"), SIZES)
def test_the_allocation_is_that_of_a_plain_loop(loop, codes, cost_of, ku115, dsp, bram18):
    found = cost_of(codes, sized(ku115, dsp, bram18))
    for i, code in enumerate(codes):
        wanted = loop.pipeline(loop.layers_of(code), dsp=dsp, bram=bram18)
        assert found.batch[i] == wanted["batch"]
        assert found.slowest_cycles[i] == wanted["slowest"]
        assert found.throughput[i] == pytest.approx(wanted["throughput"], rel=1e-6)
        assert (found.dsp[i], found.bram18[i]) == (wanted["dsp"], wanted["bram"])


def test_eight_bit_words_and_other_networks_follow_the_loop_too(loop, codes, ku115):
    rows = network_rows(DartsNetwork(channels=12, cells=5, classes=7, image_size=16))
    fpga = dataclasses.replace(ku115, word_bits=8, stage_parallelism=16, pool_parallelism=4, weight_port_bits=64)
    cost = jax.jit(lambda code: pipeline_cost(rows, darts_counts(code), fpga))
    for code in codes[:3]:
        layers = loop.layers_of(code, channels=12, cells=5, classes=7, size=16)
        wanted = loop.pipeline(layers, dsp=5520, bram=4320, bits=8, most=16, pool=4, port=64)
        found = cost(jnp.asarray(code))
        assert float(found.batch) == wanted["batch"]
        assert float(found.throughput) == pytest.approx(wanted["throughput"], rel=1e-6)
        assert float(found.bram18) == wanted["bram"]


def test_throughput_is_a_batch_over_the_cycles_that_published_values_have(codes, cost_of, ku115):
    found = cost_of(codes, ku115)
    assert set(found.slowest_cycles.astype(int).tolist()) <= PUBLISHED_CYCLES
    np.testing.assert_allclose(found.throughput, found.batch * 200e6 / (found.slowest_cycles + 1), rtol=1e-6)
    assert np.all(found.batch == np.minimum(found.dsp_batch, found.bram18_batch))


@pytest.mark.parametrize("fpga", ["ku115", "zc706"])
def test_the_table_gives_the_throughput_of_the_full_form_to_the_last_bit(loop, network, rows, cost_of, fpga):
    fpga, codes = load_fpga(fpga), loop.draw(200, 1)
    found = throughput_table("pipeline", network, fpga=fpga)(jnp.asarray(codes))
    np.testing.assert_array_equal(found, cost_of(codes, fpga).throughput)
    table = pipeline_table(rows, fpga)
    assert float(table.throughput(darts_counts(jnp.asarray(codes[0])))) == float(found[0])


def test_the_table_gives_halved_parallelism_where_the_full_form_does(loop, network, cost_of, ku115):
    fpga, codes = sized(ku115, 1300, 1350), loop.draw(200, 2)
    full = cost_of(codes, fpga)
    assert set(full.halvings[full.throughput > 0].tolist()) > {1.0}
    found = throughput_table("pipeline", network, fpga=fpga)(jnp.asarray(codes))
    np.testing.assert_array_equal(found, full.throughput)


def test_throughput_never_falls_with_more_dsps_or_memory_blocks(codes, cost_of, ku115):
    for name in ("dsp", "bram18"):
        sizes = [1500, 2500, 3500, 4500, 5500, 7000]
        fpgas = [dataclasses.replace(ku115, **{name: jnp.float32(size)}) for size in sizes]
        found = np.stack([cost_of(codes, fpga).throughput for fpga in fpgas])
        assert np.all(np.diff(found, axis=0) >= 0)
        assert np.any(np.diff(found, axis=0) > 0)


def test_the_latency_of_an_image_is_at_least_the_time_between_images(codes, cost_of, ku115):
    found = cost_of(codes, ku115)
    assert np.all(found.latency_s > found.slowest_cycles / 200e6)
    assert np.all(np.isfinite(found.latency_s))


def test_a_network_that_does_not_fit_has_no_throughput(codes, cost_of, ku115):
    found = cost_of(codes, sized(ku115, 100, 4320))
    assert np.all(found.throughput == 0)
    assert np.all(np.isinf(found.latency_s))


def test_moving_operations_among_equal_edges_changes_nothing(cost_of, ku115):
    code = np.zeros(28, np.int32)
    code[[0, 1, 2, 3, 5, 6, 9, 10]] = [4, 6, 1, 5, 4, 6, 1, 5]
    code[[14, 15, 18, 16, 21, 22, 26, 27]] = [1, 2, 3, 4, 5, 6, 7, 4]
    moved = code.copy()
    moved[[0, 1, 2, 3, 5, 6, 9, 10]] = [5, 1, 6, 4, 5, 1, 6, 4]
    moved[[14, 15]] = code[[15, 14]]
    found = cost_of(np.stack([code, moved]), ku115)
    for leaf in jax.tree.leaves(found):
        assert leaf[0] == pytest.approx(leaf[1], rel=1e-6)


@pytest.mark.parametrize(
    ("dsp", "bram18", "message"),
    [
        (800, 9000, r"ku115: expected at least \d+ usable DSPs for one image in a pipeline .* got 720 of 800"),
        (5520, 270, r"expected at least \d+ usable memory blocks of 18 Kb .* got 270 of 270"),
    ],
)
def test_an_fpga_too_small_is_refused_by_the_resource_that_is_short(rows, darts_v2, ku115, dsp, bram18, message):
    with pytest.raises(FpgaTooSmallError, match=message):
        check_pipeline_fits(rows, darts_v2, sized(ku115, dsp, bram18))
    check_pipeline_fits(rows, darts_v2, ku115)


def test_the_check_and_the_allocation_agree_on_what_fits(rows, codes, cost_of, ku115):
    fpga = sized(ku115, 1050, 1170)
    fits = cost_of(codes[:12], fpga).batch > 0
    for code, expected in zip(codes[:12], fits, strict=True):
        try:
            check_pipeline_fits(rows, darts_counts(jnp.asarray(code)), fpga)
            checked = True
        except FpgaTooSmallError:
            checked = False
        assert checked == expected
    assert 0 < fits.sum() < 12


def test_a_network_beyond_whole_numbers_is_refused(darts_v2, ku115):
    with pytest.raises(ValueError, match=r"less than 2\^31 multiply-accumulates, got .* in cell 2 input 0"):
        pipeline_cost(network_rows(DartsNetwork(channels=512, image_size=64)), darts_v2, ku115)


def test_memory_blocks_are_those_of_a_plain_count(loop):
    rng = np.random.default_rng(0)
    width, depth = rng.integers(1, 600, 500), rng.integers(1, 40_000, 500)
    found = memory_blocks(jnp.asarray(width, jnp.int32), jnp.asarray(depth, jnp.int32))
    assert found.tolist() == [loop.blocks(int(w), int(d)) for w, d in zip(width, depth, strict=True)]
