"""Evaluation of networks: accuracy of populations at every exit, stopping policies, expected cost."""

from hadas_jax.evaluation.early_exit import (
    POLICIES,
    ConfigStats,
    calibrate_thresholds,
    count_bits,
    dissimilarity,
    pack_bits,
    scores,
    segment_costs,
)
from hadas_jax.evaluation.evaluator import CachedEvaluator, Evaluator, Outcomes
from hadas_jax.evaluation.paired import NO_DIFFERENCE, Difference, accuracy_difference, accuracy_interval, least_images

__all__ = [
    "NO_DIFFERENCE",
    "POLICIES",
    "CachedEvaluator",
    "ConfigStats",
    "Difference",
    "Evaluator",
    "Outcomes",
    "accuracy_difference",
    "accuracy_interval",
    "calibrate_thresholds",
    "count_bits",
    "dissimilarity",
    "least_images",
    "pack_bits",
    "scores",
    "segment_costs",
]
