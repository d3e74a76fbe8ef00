"""What the scores of exits are worth: do they tell right from wrong, and do they say how often an exit is right?

Failure prediction: the area under the receiver operating characteristic (AUROC) is the probability that a sample that
is right has a higher score than one that is wrong, ties counting half (Mann-Whitney). 0.5 is chance; it says nothing of
where a threshold is set.
Calibration: the expected calibration error (ECE) of scores that are probabilities is the mean over the samples of how
far the accuracy of their bin is from its mean score, in 15 bins of equal width from 0 to 1 (Guo et al. 2017,
https://arxiv.org/abs/1706.04599). 0 is perfect; it says nothing of which samples are right.
Shapes: E exits, N samples.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from hadas_jax.evaluation.early_exit import scores
from hadas_jax.evaluation.evaluator import Outcomes

ECE_BINS = 15
PROBABILITIES = ("confidence", "learned")
"""The policies whose score is the probability to be right."""


class ScoreQuality(NamedTuple):
    """Of the scores of exits.

    Attributes:
        aurocs: Of each exit; None where it gets all or nothing right.
        eces: Of each exit; None where the score is no probability.
    """

    aurocs: tuple[float | None, ...]
    eces: tuple[float | None, ...]


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


def calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """Returns the expected calibration error in `ECE_BINS` bins.

    Args:
        probability: float[N], from 0 to 1; a bin holds its upper end and not its lower one, the first one both.
        right: bool[N].
    """
    bins = np.clip(np.ceil(np.asarray(probability, np.float64) * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    surplus = np.asarray(right, np.float64) - np.asarray(probability, np.float64)
    return float(np.sum(np.abs(np.bincount(bins, surplus, ECE_BINS)))) / len(bins)


def score_quality(outcomes: Outcomes, policy: str) -> ScoreQuality:
    """Says what each exit's score is worth, for whether that exit is right, over all samples.

    Args:
        outcomes: Of one backbone, [E + 1, N].
        policy: The score, see `scores`.
    """
    rows = list(zip(np.asarray(scores(outcomes, policy)), np.asarray(outcomes.correct)[:-1], strict=True))
    return ScoreQuality(
        aurocs=tuple(auroc(score, right) for score, right in rows),
        eces=tuple(calibration_error(score, right) if policy in PROBABILITIES else None for score, right in rows),
    )
