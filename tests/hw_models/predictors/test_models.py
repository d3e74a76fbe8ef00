from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.spaces.darts import DARTS_CODES
from hw_models.predictors import KINDS, recipe_of
from hw_models.predictors.predictor import dropout_mask, init_weights
from hw_models.predictors.predictor import score as plain_score

EDGE_PLACE = np.array(DARTS_CODES.groups)
eager_score = partial(plain_score, layout=DARTS_CODES)
score = jax.jit(eager_score, static_argnames="kind")
SEEDS = st.integers(0, 2**31)


def member(predictor):
    return jax.tree.map(lambda leaf: leaf[0], predictor.weights)


def perceptron(layers, inputs):
    for layer in layers[:-1]:
        inputs = np.maximum(inputs @ np.asarray(layer.kernel, float) + np.asarray(layer.bias, float), 0)
    return (inputs @ np.asarray(layers[-1].kernel, float) + np.asarray(layers[-1].bias, float))[0]


def one_hot(code):
    return np.eye(8, dtype=np.float32)[code]


def counts_of(code):
    return np.array([[np.sum((place == EDGE_PLACE) & (code == digit)) for digit in range(1, 8)] for place in range(3)])


def test_the_embedding_perceptron_has_the_published_number_of_parameters():
    hidden = recipe_of("embedding").hidden
    weights = jax.eval_shape(lambda: init_weights(jax.random.key(0), "embedding", DARTS_CODES, hidden=hidden))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 78_641


def test_the_embedding_perceptron_is_that_of_numpy(drawn, codes):
    weights = member(drawn("embedding", 1))
    for code in codes[:5]:
        embedded = np.concatenate([np.asarray(weights.table, float)[edge, digit] for edge, digit in enumerate(code)])
        expected = perceptron(weights.layers, embedded)
        np.testing.assert_allclose(score(weights, jnp.asarray(code), kind="embedding"), expected, rtol=1e-4, atol=1e-5)


def test_the_plain_perceptron_is_that_of_numpy_on_counts(drawn, codes):
    weights = member(drawn("mlp", 1))
    for code in codes[:5]:
        expected = perceptron(weights.layers, counts_of(code).ravel())
        np.testing.assert_allclose(score(weights, jnp.asarray(code), kind="mlp"), expected, rtol=1e-4, atol=1e-5)


def test_a_lookup_adds_up_latencies(drawn, codes):
    weights = member(drawn("lookup", 1))
    for code in codes[:5]:
        latency = 1 + np.sum(counts_of(code) * np.asarray(weights.table, float))
        found = score(weights, jnp.asarray(code), kind="lookup")
        np.testing.assert_allclose(np.exp(-np.asarray(found, float)), latency, rtol=1e-5)


def test_a_lookup_stays_finite_where_its_latencies_sum_to_less_than_nothing(drawn, codes):
    weights = member(drawn("lookup", 1))
    weights = weights.replace(table=-weights.table - 1)
    value, gradient = jax.jit(jax.value_and_grad(lambda w: score(w, jnp.asarray(codes[0]), kind="lookup")))(weights)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", KINDS)
def test_a_one_hot_distribution_is_the_code_bit_for_bit(kind, drawn, codes):
    weights = member(drawn(kind, 1))
    of_codes = jax.vmap(lambda code: score(weights, code, kind=kind))(jnp.asarray(codes[:300]))
    of_shares = jax.vmap(lambda shares: score(weights, shares, kind=kind))(jnp.asarray(one_hot(codes[:300])))
    np.testing.assert_array_equal(of_codes, of_shares)


@pytest.mark.parametrize("kind", ["mlp", "lookup"])
@settings(max_examples=30)
@given(seed=SEEDS)
def test_the_order_of_equal_edges_changes_nothing(kind, seed, drawn, codes, equal_edges):
    rng, weights = np.random.default_rng(seed), member(drawn(kind, 1))
    code = codes[rng.integers(len(codes))]
    other = code.copy()
    for edges in equal_edges:
        other[edges] = code[rng.permutation(edges)]
    found = [float(score(weights, jnp.asarray(digits), kind=kind)) for digits in (code, other)]
    assert found[0] == found[1]


def test_the_embedding_perceptron_does_see_the_order_of_equal_edges(drawn, codes):
    weights = member(drawn("embedding", 1))
    other = codes[0].copy()
    other[:14] = other[:14][::-1]
    assert score(weights, jnp.asarray(other), kind="embedding") != score(
        weights, jnp.asarray(codes[0]), kind="embedding"
    )


@settings(max_examples=30)
@given(share=st.floats(0, 1, width=32), seed=SEEDS)
def test_the_latency_of_a_lookup_is_linear_in_a_distribution(share, seed, drawn, codes):
    weights, rng = member(drawn("lookup", 1)), np.random.default_rng(seed)
    first, second = one_hot(codes[rng.integers(len(codes), size=2)])
    mixed = np.float32(share) * first + np.float32(1 - share) * second
    latencies = [np.exp(-float(score(weights, jnp.asarray(x), kind="lookup"))) for x in (first, second, mixed)]
    np.testing.assert_allclose(latencies[2], share * latencies[0] + (1 - share) * latencies[1], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(27,), (8, 28), (28, 7)])
def test_an_array_that_is_no_architecture_is_refused(kind, shape, drawn):
    dtype = jnp.int32 if len(shape) == 1 else jnp.float32
    with pytest.raises(ValueError, match=r"architecture: expected int\[28\] or float\[28, 8\]"):
        eager_score(member(drawn(kind, 1)), jnp.zeros(shape, dtype), kind=kind)


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(rate):
    mask = np.asarray(dropout_mask(jax.random.key(0), rate, count=400, edges=28))
    assert set(np.unique(mask)) == {0.0, np.float32(1 / (1 - rate))}
    assert abs(np.mean(mask == 0) - rate) < 0.01
    # Neighbours are bytes of one word, and must not hang together.
    assert abs(np.corrcoef(mask[:, 0, 0], mask[:, 0, 1])[0, 1]) < 0.2
