import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet import apply_training, draw_drops

BATCH = 2000


@pytest.fixture(scope="module")
def drops(small_space):
    return draw_drops(jax.random.key(0), small_space, BATCH, dropout=0.3, drop_connect=0.5)


def test_what_is_kept_is_scaled_so_that_means_stay(drops, small_space):
    assert drops.blocks.shape == (small_space.positions, BATCH)
    assert drops.last.shape == (BATCH, max(small_space.last_width))
    np.testing.assert_allclose(np.unique(drops.last), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_allclose(drops.last.mean(), 1, atol=0.03)
    np.testing.assert_allclose(drops.blocks.mean(1), 1, atol=0.1)


def test_drop_connect_rises_linearly_with_depth(drops, small_space):
    dropped = np.mean(np.asarray(drops.blocks) == 0, axis=1)
    np.testing.assert_allclose(dropped, 0.5 * np.linspace(0, 1, small_space.positions), atol=0.04)


def test_rates_of_zero_change_nothing_even_where_they_are_traced(small_space):
    draw = jax.jit(lambda rate: draw_drops(jax.random.key(0), small_space, 8, dropout=rate, drop_connect=rate))
    for leaf in jax.tree.leaves(draw(jnp.float32(0))):
        assert (leaf == 1).all()


def test_a_dropped_block_passes_its_input_on_and_dropped_features_leave_the_bias(tiny_space, draw):
    weights = draw(tiny_space, 0)[0].backbone
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9, 9, 1)), jnp.float32)
    none = draw_drops(jax.random.key(0), tiny_space, 3, dropout=0.0, drop_connect=0.0)
    run = jax.jit(lambda drops: apply_training(tiny_space, weights, tiny_space.largest(), images, drops=drops))
    features, _ = run(none.replace(blocks=none.blocks.at[1].set(0.0)))
    np.testing.assert_allclose(features[0][1], features[0][0], atol=1e-6)
    assert np.abs(features[0][2] - features[0][1]).max() > 0.1
    _, logits = run(none.replace(last=jnp.zeros_like(none.last)))
    bias = weights["tail"]["classifier"]["bias"]
    np.testing.assert_allclose(logits, np.broadcast_to(bias, logits.shape), atol=1e-6)
