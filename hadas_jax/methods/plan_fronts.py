"""Fronts of the plans of one backbone at its operating points: of all subsets, of listed plans, of evolved ones.

An operating point where every sample costs more than at another one is left out beforehand. That needs only that each
sample stops somewhere, so it is exact under the ideal mapping and under thresholds, one for each exit included.
Shapes: E exits, K slots, R risk levels, F operating points, M plans.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import SubsetStats
from hadas_jax.methods.designs import Candidates, merge
from hadas_jax.methods.inner import evolve
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.plans import Anatomy, Stops, listed_plans, subset_levels, subset_plans
from hadas_jax.search import whole_product_front
from hw_models import Device

POPULATION, GENERATIONS = 128, 64  # of the evolution of a backbone with too many exits
_PLANS = 2**16  # judged at once: at 33 exits 17 MB of weights, and as much for each copy
_LISTED = 2**12


def subset_front(stops: Stops, backbone: Anatomy, points: np.ndarray, *, index: int) -> Candidates:
    """Returns the exact front over all subsets of the exits of a backbone with at most K, at shared risk levels.

    Args:
      stops: of the backbone.
      backbone: its anatomy.
      points: int32[F], operating points, and -1 behind them.
      index: of the backbone in the pool.
    """
    levels, exits, _ = stops.stops.shape
    group = max(1, _PLANS >> len(backbone.own.used))
    parts = []
    for first in range(0, levels, group):
        stats = subset_plans(stops.replace(stops=stops.stops[first : first + group]), backbone)
        plan, point, objectives = _front(stats, backbone, points)
        found = subset_levels(plan, backbone.own, exits)
        found = np.where(found > 0, found + first, 0)
        parts.append(Candidates(np.full(len(plan), index), found, point, objectives))
    return first_of_equal(parts)


def listed_front(stops: Stops, backbone: Anatomy, points: np.ndarray, *, levels: np.ndarray, index: int) -> Candidates:
    """Returns the exact front of the plans int32[M, E] at the operating points; otherwise as `subset_front`."""
    parts = []
    for block, plans in _blocks(levels):
        stats = listed_plans(stops, jnp.asarray(block))
        known = jnp.arange(len(block)) < plans
        stats = stats.replace(error=jnp.where(known, stats.error, jnp.inf))
        plan, point, objectives = _front(stats, backbone, points)
        parts.append(Candidates(np.full(len(plan), index), block[plan], point, objectives))
    return first_of_equal(parts)


def evolved_plans(key: jax.Array, stops: Stops, backbone: Anatomy, device: Device, *, limits: Limits) -> np.ndarray:
    """Breeds plans with a risk level for each exit, for backbones of any number of exits.

    Args:
      key: typed PRNG key.
      stops: of the backbone.
      backbone: its anatomy.
      device: whose clocks are bred along.
      limits: of the search.

    Returns:
      int32[M, E]: the different plans that were tried, the static network always among them.
    """
    seen = evolve(
        key,
        stops.stops,
        stops.correct,
        backbone.available,
        backbone.costs,
        device,
        samples=stops.samples,
        limits=jnp.asarray(limits.objectives),
        gamma=1.0,
        population=POPULATION,
        generations=GENERATIONS,
    )
    tried = np.asarray(seen.levels)
    return np.unique(np.concatenate([np.zeros_like(tried[:1]), tried]), axis=0)


def first_of_equal(parts: list[Candidates]) -> Candidates:
    """Returns the front of several fronts of one backbone; of equal objectives the first is kept."""
    if len(parts) == 1:
        return parts[0]
    front = merge(parts)
    _, rows = np.unique(front.objectives, axis=0, return_index=True)
    return front.take(rows)


def _front(stats: SubsetStats, backbone: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns plan [n], point [n] and objectives [n, 3] of the front."""
    front = whole_product_front(
        stats.error,
        stats.weights,
        latency=backbone.costs.latency_s,
        energy=backbone.costs.energy_j,
        points=jnp.asarray(points),
    )
    size = int(front.size)
    plan, point, objectives = (np.asarray(field)[:size] for field in (front.plan, front.point, front.objectives))
    return plan, point, objectives


def _blocks(levels: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks of one size, so that one shape is compiled, and how many plans of each are real."""
    for start in range(0, len(levels), _LISTED):
        block = levels[start : start + _LISTED]
        yield np.pad(block, ((0, _LISTED - len(block)), (0, 0))), len(block)
