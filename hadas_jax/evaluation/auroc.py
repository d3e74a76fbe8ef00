"""Failure prediction: how well the score of an exit tells the samples that the exit gets right from the others.

The area under the receiver operating characteristic is the probability that a sample that is right has a higher score
than one that is wrong, ties counting half (Mann-Whitney). 0.5 is chance; it says nothing of where a threshold is set.
Shapes: E exits, N samples.
"""

import numpy as np
from scipy.stats import rankdata

from hadas_jax.evaluation.early_exit import scores
from hadas_jax.evaluation.evaluator import Outcomes


def auroc(score: np.ndarray, right: np.ndarray) -> float | None:
    """Returns the area under the curve of a score for what is right; None where all or none is.

    Args:
        score: float[N], higher is surer.
        right: bool[N].
    """
    hits = int(np.sum(right))
    misses = len(right) - hits
    if not hits or not misses:
        return None
    above = float(np.sum(rankdata(score)[right])) - hits * (hits + 1) / 2
    return above / (hits * misses)


def exit_aurocs(outcomes: Outcomes, policy: str) -> tuple[float | None, ...]:
    """Returns the area under the curve of each exit's score, for whether that exit is right, over all samples.

    Args:
        outcomes: Of one backbone, [E + 1, N].
        policy: The score, see `scores`.
    """
    rows = zip(np.asarray(scores(outcomes, policy)), np.asarray(outcomes.correct)[:-1], strict=True)
    return tuple(auroc(score, right) for score, right in rows)
