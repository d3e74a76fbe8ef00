from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.predictors import KINDS, LEAST_THROUGHPUT, predict_throughput, predict_throughputs

ask = jax.jit(predict_throughput)


@pytest.mark.parametrize("kind", KINDS)
def test_many_networks_are_predicted_as_one_by_one(kind, drawn, codes):
    predictor = drawn(kind, 3)
    many = predict_throughputs(predictor, jnp.asarray(codes[:50]))
    alone = [ask(predictor, jnp.asarray(code)) for code in codes[:50]]
    np.testing.assert_allclose(many.throughput, [one.throughput for one in alone], rtol=1e-5)
    np.testing.assert_allclose(many.spread, [one.spread for one in alone], rtol=1e-3, atol=1e-5)


def test_chunks_leave_no_network_out(drawn, codes):
    predictor, repeated = drawn("lookup", 1), jnp.asarray(np.tile(codes[:50], (90, 1)))
    found = np.asarray(predict_throughputs(predictor, repeated).throughput).reshape(90, 50)
    np.testing.assert_allclose(found, np.tile(found[:1], (90, 1)), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_predicts_mean_and_spread_of_its_members(kind, drawn, codes):
    predictor, code = drawn(kind, 3), jnp.asarray(codes[7])
    ones = [jax.tree.map(itemgetter(slice(member, member + 1)), predictor.weights) for member in range(3)]
    alone = [float(ask(predictor.replace(weights=weights), code).throughput) for weights in ones]
    found = ask(predictor, code)
    np.testing.assert_allclose(found.throughput, np.mean(alone), rtol=1e-5)
    np.testing.assert_allclose(found.spread, np.std(alone) / np.mean(alone), rtol=1e-3, atol=2e-6)


def test_one_member_has_no_spread(drawn, codes):
    assert float(ask(drawn("mlp", 1), jnp.asarray(codes[0])).spread) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", [1, 3])
def test_gradients_in_alpha_are_finite_also_where_all_members_agree_and_not_all_zero(kind, members, drawn):
    rng = np.random.default_rng(2)
    alphas = np.float32([np.zeros((28, 8)), 30 * np.eye(28, 8), 1e-3 * rng.normal(size=(28, 8))])

    def cost(alpha, predictor):
        found = predict_throughput(predictor, jax.nn.softmax(alpha, axis=-1))
        return -jnp.log(found.throughput) + found.spread

    gradients = jax.jit(jax.vmap(jax.grad(cost), in_axes=(0, None)))
    predictor = drawn(kind, members)
    equal = predictor.replace(
        weights=jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], members, axis=0), predictor.weights)
    )
    assert np.isfinite(gradients(alphas, equal)).all()
    found = np.asarray(gradients(alphas, predictor))
    assert np.isfinite(found).all()
    assert np.abs(found[2]).max() > 0


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), size=st.floats(0, 20, width=32))
def test_a_prediction_is_positive_for_any_input(seed, size, drawn):
    shares = np.float32(size * np.random.default_rng(seed).normal(size=(28, 8)))
    for kind in KINDS:
        found = ask(drawn(kind, 3), shares)
        assert found.throughput > 0


def test_a_linear_scale_is_mean_and_deviation_cut_off_below(drawn, codes):
    log = drawn("embedding", 1)
    linear = log.replace(scale="linear", mean=jnp.float32(800.0), std=jnp.float32(150.0))
    score = (np.log(float(ask(log, jnp.asarray(codes[0])).throughput)) - 6.6) / 0.2
    found = float(ask(linear, jnp.asarray(codes[0])).throughput)
    np.testing.assert_allclose(found, 800 + 150 * score, rtol=1e-3)
    low = linear.replace(mean=jnp.float32(-1e6))
    assert float(ask(low, jnp.asarray(codes[0])).throughput) == LEAST_THROUGHPUT


def test_an_array_that_is_no_architecture_is_refused(drawn):
    with pytest.raises(ValueError, match=r"architecture: expected int\[28\] or float\[28, 8\], got shape \(3,\)"):
        predict_throughput(drawn("embedding", 1), jnp.zeros(3, jnp.int32))
