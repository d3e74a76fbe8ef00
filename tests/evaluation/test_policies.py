import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.evaluation import POLICIES, Outcomes, calibrate_thresholds, scores
from hadas_jax.evaluation.early_exit import path_costs, percentile_exit, percentile_paths

LEVELS = np.array([0.0, 0.004, 0.01, 0.05, 0.2, 1.0], np.float32)


def draw(seed, *, exits=3, samples=150, grid=20):
    """Scores on a coarse grid, so that many tie, and what is right."""
    rng = np.random.default_rng(seed)
    score = np.floor(rng.normal(size=(exits, samples)) * grid) / grid
    correct = rng.random((exits + 1, samples)) < 1 / (1 + np.exp(-np.vstack([score, score[-1:] + 1]) - 0.5))
    return score.astype(np.float32), correct


def lowest_threshold(score, harm, level):
    """Tries every score as a threshold of one exit."""
    kept = [
        t for t in np.unique(score) if np.float32((harm & (score >= t)).sum() + 1) / np.float32(len(score) + 1) <= level
    ]
    return min(kept, default=np.inf)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [2, 1000])
def test_thresholds_are_the_lowest_of_trying_every_score(seed, grid):
    score, correct = draw(seed, grid=grid)
    harm = ~correct[:-1] & correct[-1:]
    found = calibrate_thresholds(jnp.asarray(score), jnp.asarray(correct), jnp.asarray(LEVELS))
    expected = [[lowest_threshold(s, h, level) for s, h in zip(score, harm, strict=True)] for level in LEVELS]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_the_bounded_risk_holds_on_the_calibration_samples_and_thresholds_fall_as_it_rises(seed):
    score, correct = draw(seed)
    harm = ~correct[:-1] & correct[-1:]
    found = calibrate_thresholds(jnp.asarray(score), jnp.asarray(correct), jnp.asarray(LEVELS))
    assert found.shape == (len(LEVELS), 3)
    assert (found[1:] <= found[:-1]).all()
    for level, thresholds in zip(LEVELS, found, strict=True):
        stops = score >= np.asarray(thresholds)[:, None]
        bound = ((stops & harm).sum(1) + 1) / (score.shape[1] + 1)
        assert (bound[np.isfinite(thresholds)] <= level + 1e-6).all()
        assert not stops[np.isinf(thresholds)].any()


def test_nobody_stops_where_even_no_harm_is_too_much_and_all_where_any_is_allowed():
    score, correct = draw(0)
    levels = jnp.array([1 / 152, 1.0], jnp.float32)
    found = calibrate_thresholds(jnp.asarray(score), jnp.asarray(correct), levels)
    assert np.isinf(found[0]).all()
    assert (found[1] == score.min(1)).all()


def test_samples_of_equal_score_stop_together():
    score = jnp.array([[3.0, 2.0, 2.0, 1.0]])
    correct = jnp.array([[True, True, False, True], [True, True, True, True]])
    found = calibrate_thresholds(score, correct, jnp.array([0.2, 0.4], jnp.float32))
    assert found[:, 0].tolist() == [3.0, 1.0]


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(0)
    confidence, entropy, learned = jnp.asarray(rng.random((3, 2, 4, 5)), jnp.float32)
    correct = jnp.asarray(rng.random((2, 4, 5)) < 0.5)
    return Outcomes(correct=correct, confidence=confidence, entropy=entropy, learned=learned)


def test_scores_leave_the_final_classifier_out_and_rise_with_certainty(outcomes):
    expected = {"confidence": outcomes.confidence, "entropy": -outcomes.entropy, "learned": outcomes.learned}
    assert set(POLICIES) == set(expected)
    for policy, score in expected.items():
        assert (scores(outcomes, policy) == score[:, :3]).all()


def test_an_unknown_policy_is_refused_with_the_names(outcomes):
    message = "unknown policy 'oracle': expected one of confidence, entropy, learned"
    with pytest.raises(ValueError, match=message):
        scores(outcomes, "oracle")


@given(st.lists(st.integers(0, 120), min_size=1, max_size=6).filter(any), st.integers(1, 100))
def test_a_percentile_is_the_step_that_the_nearest_rank_stands_on(stops, percent):
    """Of samples by the exit where they stop, all exits with a head; the last is the classifier."""
    samples, exits = sum(stops), len(stops) - 1
    costs = np.random.default_rng(exits).uniform(0.1, 1, 2 * exits + 1)
    paths = path_costs(costs, np.arange(exits))
    wanted = np.quantile(np.repeat(paths, stops), percent / 100, method="inverted_cdf")
    assert paths[percentile_exit(np.array(stops) / samples, percent)] == wanted
    reached = samples - np.cumsum([0, *stops[:-1]])
    frequencies = np.concatenate([reached, reached[:-1]]).astype(np.float32) / np.float32(samples)
    path = percentile_paths(jnp.asarray(frequencies), percent, samples=samples)
    np.testing.assert_allclose(np.asarray(path) @ costs, wanted, rtol=1e-9)
