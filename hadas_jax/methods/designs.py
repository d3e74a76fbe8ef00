"""Dynamic designs (backbone, exits, thresholds, clocks): found exactly, judged under both policies.

A plan of a backbone is an exit subset under the ideal mapping, or a risk level and an exit subset under the
deployable policy; plan 0 of either is the static network. The last operating point is the default, the highest
clocks.
Shapes: P backbones of the pool, R risk levels, S exit subsets, D segments, F operating points, M candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.evaluation import (
    Outcomes,
    SubsetStats,
    calibrate_thresholds,
    ideal_stops,
    pack_bits,
    scores,
    subset_stats,
    threshold_stops,
)
from hadas_jax.search import non_dominated_mask, whole_product_front
from hadas_jax.spaces import MBConvSpace, available_exits
from hw_models import Cost

RISK_LEVELS = (0.004, 0.0075, 0.0125, 0.02, 0.03, 0.05)  # shares of samples that one exit may harm


@struct.dataclass
class Judged:
    """What every plan of one backbone does on one split.

    Attributes:
      ideal: plans [S] under the ideal mapping.
      deployable: plans [R * S] under thresholds.
    """

    ideal: SubsetStats
    deployable: SubsetStats


@partial(jax.jit, static_argnames="policy")
def thresholds_of(outcomes: Outcomes, *, policy: str) -> jax.Array:
    """Returns float32[R, E]: thresholds set on the outcomes of the calibration split."""
    return calibrate_thresholds(scores(outcomes, policy), outcomes.correct, jnp.asarray(RISK_LEVELS))


@partial(jax.jit, static_argnames=("space", "policy"))
def judge(space: MBConvSpace, genome: jax.Array, outcomes: Outcomes, *, thresholds: jax.Array, policy: str) -> Judged:
    """Judges all plans of one backbone on a split.

    Args:
      space: static.
      genome: int32[G].
      outcomes: of the backbone on the split's images.
      thresholds: float32[R, E], from the calibration split.
      policy: the score that thresholds compare with, static.
    """
    samples = outcomes.correct.shape[-1]
    correct = pack_bits(outcomes.correct)
    available = available_exits(space, space.decode(genome))
    score = scores(outcomes, policy)

    def under(stops: jax.Array) -> SubsetStats:
        return subset_stats(pack_bits(stops), correct, available, samples=samples)

    levels = jax.vmap(lambda threshold: under(threshold_stops(score, threshold)))(thresholds)
    deployable = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), levels)
    return Judged(ideal=under(ideal_stops(outcomes)), deployable=deployable)


@dataclass(frozen=True)
class Candidates:
    """Backbones of the pool with a plan and an operating point each.

    Attributes:
      backbone: int[M], index in the pool.
      plan: int[M].
      point: int[M].
      objectives: float32[M, 3]: error, latency_s, energy_j.
    """

    backbone: np.ndarray
    plan: np.ndarray
    point: np.ndarray
    objectives: np.ndarray

    def take(self, rows: np.ndarray) -> "Candidates":
        """Returns some of the candidates."""
        return Candidates(self.backbone[rows], self.plan[rows], self.point[rows], self.objectives[rows])

    def cheapest(self, max_error: float) -> int | None:
        """Returns the row of least energy with at most this error, or None."""
        energy = np.where(self.objectives[:, 0] <= max_error, self.objectives[:, 2], np.inf)
        row = int(np.argmin(energy))
        return row if np.isfinite(energy[row]) else None


def front_of(stats: Sequence[SubsetStats], costs: Sequence[Cost]) -> Candidates:
    """Returns the exact front over all backbones of the pool, all plans and all operating points.

    Args:
      stats: per backbone.
      costs: per backbone, float32[D, F].
    """
    parts = []
    for index, (stat, cost) in enumerate(zip(stats, costs, strict=True)):
        front = whole_product_front(stat.error, stat.weights, latency=cost.latency_s, energy=cost.energy_j)
        valid = np.asarray(front.valid)
        plan, point, objectives = (np.asarray(f)[valid] for f in (front.plan, front.point, front.objectives))
        parts.append(Candidates(np.full(valid.sum(), index), plan, point, objectives))
    merged = _concatenate(parts)
    return merged.take(non_dominated(merged.objectives))


def every_plan(stats: Sequence[SubsetStats], costs: Sequence[Cost], point: int) -> Candidates:
    """Returns all plans of all backbones of the pool at one operating point."""
    parts = []
    for index, (stat, cost) in enumerate(zip(stats, costs, strict=True)):
        plans = np.arange(len(stat.error))
        latency, energy = (stat.weights @ column[:, point] for column in (cost.latency_s, cost.energy_j))
        objectives = np.column_stack([stat.error, latency, energy])
        parts.append(Candidates(np.full(len(plans), index), plans, np.full(len(plans), point), objectives))
    return _concatenate(parts)


def _concatenate(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(*(np.concatenate([getattr(p, f) for p in parts]) for f in Candidates.__annotations__))


def non_dominated(objectives: np.ndarray) -> np.ndarray:
    """Returns the rows of float32[M, 3] that no other row dominates.

    Pads to a power of two of at least 1,024, so that few shapes are compiled.
    """
    size = max(1 << (len(objectives) - 1).bit_length(), 1024)
    padded = np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.inf)
    mask = non_dominated_mask(jnp.asarray(padded, jnp.float32), jnp.arange(size) < len(objectives))
    return np.flatnonzero(np.asarray(mask))


def spread(objectives: np.ndarray, size: int) -> np.ndarray:
    """Picks points that cover a front: the best of each objective, then always the one farthest from all picked.

    Distances are Euclidean, in error over its range and in the logarithm of latency and energy over theirs.

    Args:
      objectives: float[M, 3], positive latency and energy.
      size: how many to pick.

    Returns:
      Sorted rows, int[min(M, size)].
    """
    scaled = np.column_stack([objectives[:, :1], np.log(objectives[:, 1:])]).astype(np.float64)
    scaled -= scaled.min(axis=0)
    scaled /= np.where(scaled.max(axis=0) > 0, scaled.max(axis=0), 1)
    picked: list[int] = []
    nearest = np.full(len(scaled), np.inf)
    best = [int(row) for row in np.argmin(scaled, axis=0)]
    while len(picked) < min(size, len(scaled)):
        row = next((r for r in best if r not in picked), int(np.argmax(nearest)))
        picked.append(row)
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[row], axis=1))
        nearest[row] = -1
    return np.sort(picked)


def expected(stats: SubsetStats, cost: Cost, plan: int, point: int) -> tuple[float, float, float]:
    """Returns error, latency_s and energy_j of one plan of one backbone at one operating point."""
    weights = np.asarray(stats.weights[plan], np.float64)
    return (
        float(stats.error[plan]),
        float(weights @ np.asarray(cost.latency_s[:, point], np.float64)),
        float(weights @ np.asarray(cost.energy_j[:, point], np.float64)),
    )
