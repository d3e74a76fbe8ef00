"""Fronts of the plans of one backbone at its operating points: of all subsets, of listed plans, of evolved ones.

An operating point where every sample costs more than at another one is left out beforehand. That needs only that each
sample stops somewhere, so it is exact under the ideal mapping and under thresholds, one for each exit included.
Shapes: E exits, K slots, R risk levels, F operating points, M plans.
"""

import dataclasses
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
from hadas_jax.search.front import listed_front
from hw_models import Device

POPULATION, GENERATIONS = 128, 64  # of the evolution of a backbone with too many exits
_PLANS = 2**16  # judged at once: at 33 exits 17 MB of weights, and as much for each copy
_LISTED = 2**12


def subset_front(stops: Stops, backbone: Anatomy, *, index: int, point: int | None = None) -> Candidates:
    """Returns the exact front over all subsets of the exits of a backbone with at most K, at shared risk levels.

    Args:
      stops: of the backbone.
      backbone: its anatomy.
      index: of the backbone in the pool.
      point: the only operating point to run at; None for all.
    """
    levels, exits, _ = stops.stops.shape
    group = max(1, _PLANS >> len(backbone.own.used))
    parts = []
    for first in range(0, levels, group):
        some = dataclasses.replace(stops, stops=stops.stops[first : first + group])
        stats = subset_plans(some, backbone)
        plan, points, objectives = _front(stats, backbone, point)
        found = subset_levels(plan, backbone.own, exits)
        found = np.where(found > 0, found + first, 0)
        parts.append(Candidates(np.full(len(plan), index), found, points, objectives))
    return first_of_equal(parts)


def plans_front(
    stops: Stops, backbone: Anatomy, *, levels: np.ndarray, index: int, point: int | None = None
) -> Candidates:
    """Returns the exact front of the plans int32[M, E] at the operating points; otherwise as `subset_front`."""
    parts = []
    for block, plans in _blocks(levels):
        stats = listed_plans(stops, jnp.asarray(block))
        known = jnp.arange(len(block)) < plans
        stats = dataclasses.replace(stats, error=jnp.where(known, stats.error, jnp.inf))
        plan, points, objectives = _front(stats, backbone, point)
        parts.append(Candidates(np.full(len(plan), index), block[plan], points, objectives))
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


def _front(stats: SubsetStats, backbone: Anatomy, point: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns plan [n], operating point [n] and objectives [n, 3] of the front."""
    latency, energy = backbone.costs.latency_s, backbone.costs.energy_j
    if point is not None:
        objectives, rows = (np.asarray(found) for found in _at_one_point(stats, latency[:, point], energy[:, point]))
        plan = rows[rows >= 0]
        return plan, np.full(len(plan), point), objectives[plan]
    front = whole_product_front(
        stats.error, stats.weights, latency=latency, energy=energy, points=jnp.asarray(backbone.points)
    )
    size = int(front.size)
    return np.asarray(front.plan)[:size], np.asarray(front.point)[:size], np.asarray(front.objectives)[:size]


@jax.jit
def _at_one_point(stats: SubsetStats, latency: jax.Array, energy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns objectives float32[M, 3] of plans at costs float32[D], and the members of their front, -1 behind them."""
    times, joules = (jnp.matmul(stats.weights, cost, precision=jax.lax.Precision.HIGHEST) for cost in (latency, energy))
    objectives = jnp.stack([stats.error, times, joules], axis=1)
    return objectives, listed_front(objectives, capacity=len(objectives))[0]


def _blocks(levels: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks of one size, so that one shape is compiled, and how many plans of each are real."""
    for start in range(0, len(levels), _LISTED):
        block = levels[start : start + _LISTED]
        yield np.pad(block, ((0, _LISTED - len(block)), (0, 0))), len(block)
