"""Tests of FBNet blocks and networks."""

import itertools

import fbnet
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw


@pytest.fixture(scope="module")
def blocks():
    return fbnet.block_workloads()


def test_there_are_22_positions_that_chain():
    for macro in (fbnet.CIFAR100, fbnet.IMAGENET):
        positions = fbnet.positions(macro)
        assert len(positions) == 22
        for first, second in itertools.pairwise(positions):
            assert second.size == first.size // first.stride
            assert second.inputs == first.outputs
    assert positions[-1].size == 7


def test_macs_of_a_block_are_those_by_hand(blocks):
    # Position 5: 32 x 32 pixels, 24 to 32 channels, stride 2; k5e6 and k3e1g2.
    hidden = 6 * 24
    expanded = 32**2 * 24 * hidden + 16**2 * 25 * hidden + 16**2 * hidden * 32
    grouped = 32**2 * 24 * 24 // 2 + 16**2 * 9 * 24 + 16**2 * 24 * 32 // 2
    macs = hw.total_macs(blocks)
    assert [float(macs[5, fbnet.BLOCKS.index(name)]) for name in ("k5e6", "k3e1g2")] == [expanded, grouped]


def test_skips_are_free_where_the_shape_stays_and_convolutions_elsewhere(blocks):
    for position, where in enumerate(fbnet.positions()):
        rows = float(blocks.active[position, fbnet.SKIP].sum())
        assert rows == (0 if where.has_identity else 1)
    assert float(hw.total_macs(blocks)[1, fbnet.SKIP]) == 32**2 * 16 * 24


def test_larger_kernels_and_expansions_mean_more_work(blocks):
    macs = np.asarray(hw.total_macs(blocks))
    e1, g2, e3, e6 = (macs[:, i] for i in range(4))
    assert (g2 < e1).all()
    assert (e1 < e3).all()
    assert (e3 < e6).all()
    assert (macs[:, :4] < macs[:, 4:8]).all()


def test_a_network_is_its_stem_its_blocks_and_its_head(blocks):
    choices = jnp.asarray(np.random.default_rng(0).integers(0, 9, (3, 22)), jnp.int32)
    tables = jax.jit(jax.vmap(fbnet.workload))(choices)
    ends = 32**2 * 27 * 16 + 4**2 * 352 * 1504 + 1504 * 100
    chosen = np.asarray(hw.total_macs(blocks))[np.arange(22), np.asarray(choices)].sum(axis=1)
    np.testing.assert_allclose(hw.total_macs(tables), chosen + ends, rtol=1e-6)


def test_imagenet_networks_have_more_work_than_cifar_ones():
    choices = jnp.full(22, 3, jnp.int32)
    tables = (
        jax.jit(lambda macro=macro: fbnet.workload(choices, macro))() for macro in (fbnet.CIFAR100, fbnet.IMAGENET)
    )
    small, large = (float(hw.total_macs(table)) for table in tables)
    assert 140e6 < small < 145e6
    assert 480e6 < large < 500e6


@pytest.mark.parametrize("choices", [jnp.zeros(21, jnp.int32), jnp.zeros(22)])
def test_other_choices_are_refused(choices):
    with pytest.raises(ValueError, match=r"choices: expected integers of shape \(22,\)"):
        fbnet.workload(choices)
