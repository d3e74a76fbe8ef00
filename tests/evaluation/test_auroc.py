import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hadas_jax.evaluation import Outcomes
from hadas_jax.evaluation.auroc import auroc, exit_aurocs


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
    found = exit_aurocs(outcomes, policy)
    assert found[0] == pytest.approx(roc_auc_score(correct[0], score[0]))
    assert found[1:] == (1.0, None)
