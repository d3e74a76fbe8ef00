"""Judging networks: accuracy at every exit, stopping policies, expected cost."""

from hadas_jax.evaluation.accuracy import Outcomes, population_outcomes
from hadas_jax.evaluation.dynamic import (
    SubsetStats,
    count_bits,
    dissimilarity,
    mean_dissimilarity,
    pack_bits,
    segment_costs,
    subset_stats,
)
from hadas_jax.evaluation.policies import (
    POLICIES,
    calibrate_thresholds,
    ideal_stops,
    scores,
    threshold_stops,
)

__all__ = [
    "POLICIES",
    "Outcomes",
    "SubsetStats",
    "calibrate_thresholds",
    "count_bits",
    "dissimilarity",
    "ideal_stops",
    "mean_dissimilarity",
    "pack_bits",
    "population_outcomes",
    "scores",
    "segment_costs",
    "subset_stats",
    "threshold_stops",
]
