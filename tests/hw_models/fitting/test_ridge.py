"""Tests of the ridge regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.fitting.few_shot import fit_ridge


def draw(seed, count=30, features=4):
    rng = np.random.default_rng(seed)
    columns = rng.normal(3, 1, (count, features)).astype(np.float32)
    targets = columns @ rng.normal(0, 1, features) + 7 + rng.normal(0, 0.3, count)
    return columns, targets.astype(np.float32)


def solve(columns, targets, penalty):
    """Weights in float64 from the normal equations, and the prediction function."""
    center, offset = columns.mean(0, dtype=np.float64), targets.mean(dtype=np.float64)
    centered = columns - center
    normal = centered.T @ centered + penalty * np.eye(columns.shape[1])
    weights = np.linalg.solve(normal, centered.T @ (targets - offset))
    return lambda rows: offset + (rows - center) @ weights


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), penalty=st.sampled_from([0.1, 1.0, 30.0]))
def test_predictions_are_those_of_the_normal_equations(seed, penalty):
    columns, targets = draw(seed)
    fit = fit_ridge(jnp.asarray(columns), jnp.asarray(targets), penalties=(penalty,))
    # Targets are of the order of one: near zero a relative error of float32 says nothing.
    wanted = solve(columns, targets, penalty)(columns)
    np.testing.assert_allclose(fit.predict(jnp.asarray(columns)), wanted, rtol=1e-4, atol=1e-5)


def test_held_out_error_is_that_of_refits_without_each_sample():
    columns, targets = draw(0, count=12)
    fit = fit_ridge(jnp.asarray(columns), jnp.asarray(targets), penalties=(2.0,))
    residuals = []
    for i in range(12):
        rest = np.arange(12) != i
        residuals.append(targets[i] - solve(columns[rest], targets[rest], 2.0)(columns[i]))
    assert float(fit.held_out_rms) == pytest.approx(np.sqrt(np.mean(np.square(residuals))), rel=1e-3)


def test_penalty_with_the_smallest_held_out_error_is_chosen():
    columns, targets = (jnp.asarray(array) for array in draw(1))
    fits = [fit_ridge(columns, targets, penalties=(penalty,)) for penalty in (0.1, 3.0, 300.0)]
    best = min(fits, key=lambda fit: float(fit.held_out_rms))
    assert float(fit_ridge(columns, targets, penalties=(0.1, 3.0, 300.0)).penalty) == float(best.penalty)


def test_a_constant_and_a_repeated_feature_do_no_harm():
    columns, targets = draw(2)
    wide = np.concatenate([columns, columns[:, :1], np.ones((30, 1), np.float32)], axis=1)
    fit = fit_ridge(jnp.asarray(wide), jnp.asarray(targets))
    assert np.isfinite(fit.weights).all()
    assert float(fit.held_out_rms) < 0.6


def test_fit_is_differentiable_in_the_targets():
    columns, targets = (jnp.asarray(array) for array in draw(3))
    gradient = jax.grad(lambda y: jnp.sum(fit_ridge(columns, y, penalties=(1.0,)).predict(columns)))(targets)
    np.testing.assert_allclose(gradient, 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("features", "targets", "penalties", "message"),
    [
        (np.ones((4, 2)), np.ones(3), (1.0,), r"expected features \[N, F\]"),
        (np.ones((2, 2)), np.ones(2), (1.0,), "N >= 3"),
        (np.ones((4, 2)), np.ones(4), (0.0,), "positive"),
        (np.ones((4, 2)), np.ones(4), (), "positive"),
    ],
)
def test_wrong_arguments_are_named(features, targets, penalties, message):
    with pytest.raises(ValueError, match=message):
        fit_ridge(jnp.asarray(features), jnp.asarray(targets), penalties=penalties)
