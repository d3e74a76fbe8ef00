"""Judging networks: accuracy at every exit, stopping policies, expected cost."""

from hadas_jax.evaluation.accuracy import Judge, Judgement, Outcomes, outcomes, outcomes_given
from hadas_jax.evaluation.dynamic import (
    OwnExits,
    SubsetStats,
    count_bits,
    dissimilarity,
    mean_dissimilarity,
    own_costs,
    own_exits,
    own_outcomes,
    pack_bits,
    packed_dissimilarity,
    segment_costs,
    subset_stats,
    useful_points,
)
from hadas_jax.evaluation.kept_outcomes import KeptJudge
from hadas_jax.evaluation.paired import (
    NO_DIFFERENCE,
    Difference,
    accuracy_difference,
    accuracy_interval,
    least_images,
)
from hadas_jax.evaluation.policies import (
    POLICIES,
    calibrate_thresholds,
    ideal_stops,
    scores,
    threshold_stops,
)
from hadas_jax.evaluation.surrogate import Surrogate, SurrogateState

__all__ = [
    "NO_DIFFERENCE",
    "POLICIES",
    "Difference",
    "Judge",
    "Judgement",
    "KeptJudge",
    "Outcomes",
    "OwnExits",
    "SubsetStats",
    "Surrogate",
    "SurrogateState",
    "accuracy_difference",
    "accuracy_interval",
    "calibrate_thresholds",
    "count_bits",
    "dissimilarity",
    "ideal_stops",
    "least_images",
    "mean_dissimilarity",
    "outcomes",
    "outcomes_given",
    "own_costs",
    "own_exits",
    "own_outcomes",
    "pack_bits",
    "packed_dissimilarity",
    "scores",
    "segment_costs",
    "subset_stats",
    "threshold_stops",
    "useful_points",
]
