import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hadas_jax.evaluation import Outcomes
from hadas_jax.evaluation.score_quality import auroc, calibration_error, score_quality


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=60))
def test_the_area_is_that_of_scikit_learn_with_ties_and_none_where_all_are_alike(samples):
    score, right = (np.array(column) for column in zip(*samples, strict=True))
    if right.all() or not right.any():
        assert auroc(score, right) is None
    else:
        assert auroc(score, right) == pytest.approx(roc_auc_score(right, score), abs=1e-12)


@pytest.mark.parametrize("policy", ["confidence", "entropy", "learned"])
def test_each_exit_is_told_by_its_own_score_the_classifier_aside(policy):
    rng = np.random.default_rng(0)
    score = rng.normal(size=(4, 50))
    correct = rng.random((4, 50)) < 0.6
    correct[1] = score[1] > 0
    correct[2] = True
    known = dict.fromkeys(("confidence", "entropy", "learned"), np.zeros_like(score))
    outcomes = Outcomes(correct, **known | {policy: -score if policy == "entropy" else score})
    found, errors = score_quality(outcomes, policy)
    assert errors == (None,) * 3 if policy == "entropy" else all(error > 0 for error in errors)
    assert found[0] == pytest.approx(roc_auc_score(correct[0], score[0]))
    assert found[1:] == (1.0, None)


def test_the_calibration_error_is_the_gap_of_each_bin_weighted_by_its_samples():
    assert calibration_error(np.array([0.9, 0.9, 0.2, 0.2]), np.array([True, True, True, False])) == pytest.approx(0.2)
    assert calibration_error(np.zeros(3), np.zeros(3, bool)) == 0
    assert calibration_error(np.ones(3), np.zeros(3, bool)) == 1
    assert calibration_error(np.array([2 / 15, 2.001 / 15]), np.array([True, False])) == pytest.approx(0.5, abs=1e-3)


@given(st.integers(0, 1000))
def test_the_calibration_error_is_that_of_a_loop_over_bins(seed):
    rng = np.random.default_rng(seed)
    probability, right = rng.random(200), rng.random(200) < 0.5
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (probability > low) & (probability <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - probability[inside].mean())
    assert calibration_error(probability, right) == pytest.approx(expected, abs=1e-9)
