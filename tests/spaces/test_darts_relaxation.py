import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.spaces.darts import (
    EDGE_NODE,
    NODES,
    derive_code,
    gumbel_shares,
    is_valid,
    relaxed_code,
    sample_codes,
    sampled_codes,
)

relaxed, derived = jax.jit(relaxed_code), jax.jit(derive_code)
WEIGHTS = np.random.default_rng(9).normal(size=(28, 8)).astype(np.float32)


@jax.jit
def slope(alpha):
    """The gradient of a weighted sum of the relaxed code."""
    return jax.grad(lambda alpha: jnp.sum(WEIGHTS * relaxed_code(alpha)))(alpha)


def _alpha(seed, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=(28, 8)), jnp.float32)


@given(seed=st.integers(0, 2**31 - 1), scale=st.floats(0.0, 30.0))
def test_relaxed_code_is_a_distribution_with_two_edges_to_every_node(seed, scale):
    found = np.asarray(relaxed(_alpha(seed, scale), 1.0), np.float64)
    assert found.min() >= -1e-6
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    kept = 1.0 - found[:, 0].reshape(2, 14)
    for node in range(NODES):
        np.testing.assert_allclose(kept[:, node == EDGE_NODE].sum(axis=1), 2.0, atol=1e-5)


def test_relaxed_code_of_a_one_hot_alpha_is_the_network():
    for code in np.asarray(sample_codes(jax.random.key(0), 100)):
        one_hot = np.eye(8, dtype=np.float32)[code]
        np.testing.assert_allclose(relaxed(60 * one_hot, 1.0), one_hot, atol=1e-6)


@given(seed=st.integers(0, 2**31 - 1))
def test_relaxed_code_approaches_the_derived_one_as_it_cools(seed):
    alpha = _alpha(seed)
    # Only where no two choices are nearly as good.
    cold = np.asarray(relaxed(alpha, 1e-3))
    is_clear = cold.max(axis=1) > 0.99
    np.testing.assert_array_equal(cold.argmax(axis=1)[is_clear], np.asarray(derived(alpha))[is_clear])
    assert is_clear.mean() > 0.7


def test_relaxed_code_agrees_with_drawing_two_edges_in_turn():
    alpha = np.asarray(_alpha(3), np.float64)
    shares = np.exp(alpha) / np.exp(alpha).sum(axis=1, keepdims=True)
    edges = np.flatnonzero(EDGE_NODE == 3)
    weights = shares[edges, 1:].max(axis=1)
    expected = np.zeros(len(edges))
    for first, second in itertools.permutations(range(len(edges)), 2):
        probability = weights[first] / weights.sum() * weights[second] / (weights.sum() - weights[first])
        expected[[first, second]] += probability
    found = 1.0 - np.asarray(relaxed(jnp.asarray(alpha, jnp.float32), 1.0))[edges, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_gradients_are_finite_for_flat_and_for_sharp_alpha(scale):
    assert np.isfinite(slope(_alpha(1, scale))).all()


def test_gumbel_sample_is_nearly_one_hot_when_cold_and_follows_alpha():
    alpha = jnp.zeros((28, 8)).at[:, 3].set(2.0)
    keys = jax.random.split(jax.random.key(0), 400)
    cold = jax.vmap(lambda key: gumbel_shares(key, alpha, 0.01))(keys)
    assert float(jnp.mean(jnp.max(cold, axis=-1))) > 0.99
    drawn = np.asarray(jnp.mean(cold, axis=(0, 1)))
    np.testing.assert_allclose(drawn, jax.nn.softmax(alpha[0]), atol=0.02)
    np.testing.assert_allclose(jnp.sum(cold, axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("relax", [relaxed_code, lambda alpha: gumbel_shares(jax.random.key(0), alpha, 1)])
@pytest.mark.parametrize("alpha", [np.zeros((14, 8), np.float32), np.zeros((28, 8), np.int32)])
def test_alpha_of_another_form_is_refused(relax, alpha):
    with pytest.raises(ValueError, match=r"alpha: expected float\[28, 8\], got"):
        relax(jnp.asarray(alpha))


def test_sampled_codes_are_networks_as_likely_as_the_relaxed_code_says():
    alpha = _alpha(4)
    found = jax.jit(lambda key: sampled_codes(key, alpha, 20_000))(jax.random.key(0))
    assert bool(jnp.all(is_valid(jnp.argmax(found, axis=-1).astype(jnp.int32))))
    np.testing.assert_allclose(jnp.mean(found, axis=0), relaxed(alpha, 1.0), atol=0.02)


def test_sampled_codes_have_the_gradient_of_the_relaxed_code():
    alpha, key = _alpha(5), jax.random.key(0)
    by_samples = jax.jit(jax.grad(lambda alpha: jnp.sum(WEIGHTS * jnp.mean(sampled_codes(key, alpha, 3), axis=0))))
    np.testing.assert_allclose(by_samples(alpha), slope(alpha), atol=1e-6)
