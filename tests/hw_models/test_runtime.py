"""Tests of fusion and of the removal of dead layers."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_models as hw
from hw_models.layers import drop_dead, fuse, live_layers

KIND = hw.LayerKind
few = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture
def residual_block() -> hw.LayerTable:
    """Convolution, batch norm, addition of a shortcut, activation: 100 elements each."""
    return hw.layer_table(
        [KIND.DENSE, KIND.ELEMENTWISE, KIND.ELEMENTWISE, KIND.ELEMENTWISE],
        [9000, 100, 100, 100],
        weight_elements=[90, 2, 0, 0],
        input_elements=[100, 100, 200, 100],
        output_elements=[100, 100, 100, 100],
    )


def test_a_fused_block_is_one_kernel_that_reads_the_shortcut_and_writes_the_last_output(residual_block):
    fused = fuse(residual_block, jnp.array([-1, 0, 0, 0]))
    assert fused.active.tolist() == [1, 0, 0, 0]
    assert float((fused.active * fused.kernels).sum()) == 1
    assert fused.input_elements[0] == 200
    assert fused.output_elements[0] == 100


def test_fusion_saves_time_and_leaves_macs_alone(residual_block, device):
    fused = fuse(residual_block, jnp.array([-1, 0, 0, 0]))
    point = hw.default_point(device)
    before, after = (hw.network_cost(table, device, point) for table in (residual_block, fused))
    assert after.latency_s < before.latency_s
    assert after.energy_j < before.energy_j
    assert hw.total_macs(fused) == hw.total_macs(residual_block)


def test_a_layer_stays_where_its_producer_is_inactive_comes_later_or_is_folded_itself(residual_block):
    off = residual_block.replace(active=jnp.array([0.0, 1, 1, 1]))
    assert fuse(off, jnp.array([-1, 0, 0, 0])).active.tolist() == [0, 1, 1, 1]
    assert fuse(residual_block, jnp.array([1, -1, -1, -1])).active.tolist() == [1, 1, 1, 1]
    assert fuse(residual_block, jnp.array([-1, 0, 1, -1])).active.tolist() == [1, 0, 1, 1]


def test_nothing_changes_without_producers(residual_block):
    same = fuse(residual_block, jnp.full(4, -1))
    for name, column in vars(same).items():
        np.testing.assert_array_equal(column, getattr(residual_block, name))


@few
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20), st.integers(0, 7))
def test_live_layers_are_those_with_a_path_to_an_output(edges, output):
    feeds = np.zeros((8, 8), bool)
    for a, b in edges:
        feeds[a, b] = True
    reached = {output}
    for _ in range(8):
        reached |= {a for a, b in edges if b in reached}
    found = live_layers(jnp.asarray(feeds), jnp.arange(8) == output)
    assert set(np.flatnonzero(found).tolist()) == reached


def test_dead_layers_cost_nothing(residual_block, device):
    dropped = drop_dead(residual_block, jnp.array([True, True, False, False]))
    costs = hw.cost(dropped, device, hw.default_point(device))
    assert (np.asarray(costs.latency_s) > 0).tolist() == [True, True, False, False]


def test_wrong_shapes_are_named(residual_block):
    with pytest.raises(AssertionError, match=r"has shape \(3,\) but expected \(4,?\).*producer"):
        fuse(residual_block, jnp.array([0, 0, 0]))
    with pytest.raises(AssertionError, match=r"has shape \(2, 2\) but expected \(3, 3\).*feeds"):
        live_layers(jnp.ones((2, 2), bool), jnp.ones(3, bool))
