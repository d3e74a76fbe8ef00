"""The learned correction: fits what the base leaves out, ignores outliers, and stays finite."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.fitting import Correction, fit_predictor

FIT = partial(fit_predictor, members=4, width=16, steps=400, weight_decay=0.1)


def draw(samples, seed):
    """Features, log base and the target without noise: a smooth factor between 0.5 and 2 on the base."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(-1, 1, (samples, 3)).astype(np.float32)
    log_base = rng.normal(2, 1, samples).astype(np.float32)
    return features, log_base, log_base + np.log(2) * np.sin(2 * features[:, 0]) * features[:, 1]


@pytest.fixture(scope="module")
def noisy():
    """200 samples of which one in twenty is ten times too large."""
    features, log_base, log_target = draw(200, seed=0)
    outliers = np.arange(200) % 20 == 0
    return features, log_base, np.where(outliers, log_target + np.log(10), log_target).astype(np.float32)


@pytest.fixture(scope="module")
def predictor(noisy) -> Correction:
    return FIT(jax.random.key(0), *noisy)


@pytest.fixture(scope="module")
def single():
    return jax.jit(Correction.predict)


@pytest.fixture(scope="module")
def batched():
    return jax.jit(jax.vmap(Correction.predict, in_axes=(None, 0, 0)))


def test_the_correction_removes_most_of_the_error_of_the_base_despite_outliers(predictor, batched):
    features, log_base, log_target = draw(300, seed=1)
    corrected = np.abs(np.log(batched(predictor, features, log_base).mean) - log_target)
    assert corrected.mean() < 0.3 * np.abs(log_base - log_target).mean()


def test_a_constant_factor_is_learned_from_constant_features(noisy, batched):
    features, log_base = np.ones_like(noisy[0]), noisy[1]
    fitted = FIT(jax.random.key(0), features, log_base, log_base + np.float32(np.log(3.0)))
    np.testing.assert_allclose(batched(fitted, features, log_base).mean, 3 * np.exp(log_base), rtol=1e-3)


def test_the_same_key_fits_the_same_predictor_and_another_key_another(noisy, predictor):
    again, other = FIT(jax.random.key(0), *noisy), FIT(jax.random.key(1), *noisy)
    np.testing.assert_array_equal(again.output_weights, predictor.output_weights)
    assert np.abs(np.asarray(other.output_weights - predictor.output_weights)).max() > 0.01


def test_the_correction_stops_growing_outside_the_range_it_was_trained_on(predictor, single):
    edge = single(predictor, predictor.highest, 0.0)
    beyond = single(predictor, predictor.highest * 1e6, 0.0)
    np.testing.assert_allclose(beyond.mean, edge.mean, rtol=1e-5)


def test_the_prediction_scales_with_the_base(predictor, single, noisy):
    features = noisy[0][3]
    ratio = single(predictor, features, 1.5).mean / single(predictor, features, 0.5).mean
    assert float(ratio) == pytest.approx(np.e, rel=1e-5)


def test_a_batch_equals_a_loop_and_compiled_equals_plain(predictor, batched, noisy):
    features, log_base = noisy[0][:3], noisy[1][:3]
    together = batched(predictor, features, log_base)
    for row in range(3):
        alone = predictor.predict(features[row], log_base[row])
        np.testing.assert_allclose(alone.mean, together.mean[row], rtol=1e-5)
        np.testing.assert_allclose(alone.spread, together.spread[row], rtol=1e-3)


def test_gradients_are_finite_everywhere_and_match_differences_inside(predictor, single):
    gradient = jax.jit(
        jax.vmap(jax.grad(lambda x, part: predictor.predict(x, 0.0)[part].sum()), in_axes=(0, None)),
        static_argnums=1,
    )
    points = jnp.stack([predictor.center, predictor.lowest, predictor.highest, jnp.full(3, 1e9), jnp.full(3, -1e9)])
    for part in (0, 1):
        assert np.isfinite(gradient(points, part)).all()
    point, step = jnp.asarray([0.3, -0.4, 0.1], jnp.float32), jnp.asarray([1e-2, 0, 0], jnp.float32)
    difference = (single(predictor, point + step, 0.0).mean - single(predictor, point - step, 0.0).mean) / 2e-2
    np.testing.assert_allclose(gradient(point[None], 0)[0, 0], difference, rtol=0.02)


def test_the_spread_has_a_finite_gradient_where_all_members_agree(predictor):
    same = jax.tree.map(lambda leaf: np.zeros_like(leaf), predictor).replace(scale=predictor.scale)
    gradient = jax.jit(jax.grad(lambda x: same.predict(x, 0.0).spread))(np.zeros(3, np.float32))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("features", "log_base", "log_target", "message"),
    [
        (np.zeros(3), np.zeros(3), np.zeros(3), r"features \[N, D\]"),
        (np.zeros((3, 2)), np.zeros(2), np.zeros(3), r"log_base \[N\]"),
        (np.zeros((1, 2)), np.zeros(1), np.zeros(1), "at least 2 samples"),
        (np.zeros((3, 0)), np.zeros(3), np.zeros(3), "1 feature"),
        (np.full((3, 2), np.nan), np.zeros(3), np.zeros(3), "features: expected finite"),
        (np.zeros((3, 2)), np.zeros(3), np.array([0.0, -np.inf, 0.0]), "log_target: expected finite"),
    ],
)
def test_wrong_data_is_refused_in_one_line(features, log_base, log_target, message):
    with pytest.raises(ValueError, match=message) as refusal:
        fit_predictor(jax.random.key(0), features, log_base, log_target)
    assert "\n" not in str(refusal.value)


def test_several_candidates_without_vmap_are_refused(predictor):
    with pytest.raises(AssertionError, match=r"use jax\.vmap"):
        predictor.predict(jnp.zeros((2, 3)), jnp.zeros(2))


def test_an_ensemble_without_members_is_refused(noisy):
    with pytest.raises(ValueError, match="members"):
        fit_predictor(jax.random.key(0), *noisy, members=0)
