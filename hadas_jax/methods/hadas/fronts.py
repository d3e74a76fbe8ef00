"""Dynamic designs (backbone, exits, thresholds, clocks) in lists: fronts, limits, choices from them.

Shapes: E exits, M candidates. Objectives are error, latency_s and energy_j.

Fronts of the plans of one backbone at its operating points: of all subsets, of listed plans, of evolved ones.

An operating point where every sample costs more than at another one is left out beforehand. That needs only that each
sample stops somewhere, so it is exact under the ideal mapping and under thresholds, one for each exit included.
Shapes: E exits, K slots, R risk levels, F operating points, M plans.

The backbones of a search that designs are taken from, and the fronts of all their dynamic versions.

Shapes: P backbones, G genes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import SubsetStats
from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import relative_excess, static_costs
from hadas_jax.methods.hadas.exit_configs import Anatomy, Stops, listed_plans, subset_levels, subset_plans
from hadas_jax.methods.hadas.inner import evolve
from hadas_jax.search import non_dominated_mask, whole_product_front
from hadas_jax.search.product_front import listed_front
from hadas_jax.settings import Constraints
from hadas_jax.spaces import MBConvSpace
from hw_models import Device

_relative_excess = jax.jit(relative_excess)


@dataclass(frozen=True)
class Candidates:
    """Backbones of the pool with a plan and an operating point each.

    Attributes:
        backbone: int[M], index in the pool.
        levels: int32[M, E], the plan: 0 for no exit, else its risk level from 1 on.
        point: int[M].
        objectives: float32[M, 3].
    """

    backbone: np.ndarray
    levels: np.ndarray
    point: np.ndarray
    objectives: np.ndarray

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Returns some of the candidates."""
        return Candidates(self.backbone[rows], self.levels[rows], self.point[rows], self.objectives[rows])

    def excess(self, limits: Constraints) -> np.ndarray:
        """Returns float32[M]: by how much candidates exceed the limits, relatively; 0 within."""
        return excess_of(self.objectives, limits)

    def cheapest(self, max_error: float, *, limits: Constraints) -> int | None:
        """Returns the row of at most this error and least excess, of those the least energy; or None."""
        enough = np.flatnonzero(self.objectives[:, 0] <= max_error)
        if not len(enough):
            return None
        order = np.lexsort((self.objectives[enough, 2], self.excess(limits)[enough]))
        return int(enough[order[0]])


@dataclass(frozen=True)
class Choice:
    """A design by its indices.

    Attributes:
        found_by: Policy.
        backbone: Of the pool.
        levels: int32[E], the plan: 0 for no exit, else its risk level from 1 on.
        point: Operating point.
        excess: Over the limits under its policy, 0 within.
    """

    found_by: str
    backbone: int
    levels: np.ndarray
    point: int
    excess: float


@dataclass(frozen=True)
class Choices:
    """What to report.

    Attributes:
        designs: Of the fronts of both policies.
        levels: Accuracy levels, each with its cheapest networks by name.
        within: By policy, whether the designs keep the limits; otherwise they are those nearest to them.
    """

    designs: list[Choice]
    levels: list[tuple[float, dict[str, Choice]]]
    within: dict[str, bool]


def merge(parts: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of all parts that no other one dominates, in the order of the parts."""
    every = join(parts)
    return every.take(non_dominated(every.objectives))


def join(parts: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of all parts, in their order."""
    fields = ("backbone", "levels", "point", "objectives")
    return Candidates(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def excess_of(objectives: np.ndarray, limits: Constraints) -> np.ndarray:
    """Returns float32[M]: by how much objectives float[M, 3] exceed the limits, relatively; 0 within."""
    if not limits.any:
        return np.zeros(len(objectives), np.float32)
    padded = _pad(np.asarray(objectives, np.float32))
    found = _relative_excess(tuple(jnp.asarray(padded.T)), jnp.asarray(limits.objectives))
    return np.maximum(np.asarray(found)[: len(objectives)], 0)


def non_dominated(objectives: np.ndarray) -> np.ndarray:
    """Returns the rows of float32[M, 3] that no other row dominates."""
    padded = _pad(objectives)
    mask = non_dominated_mask(jnp.asarray(padded, jnp.float32), jnp.arange(len(padded)) < len(objectives))
    return np.flatnonzero(np.asarray(mask))


def _pad(objectives: np.ndarray) -> np.ndarray:
    """Pads with infinite rows to a power of two of at least 1,024, so that few shapes are compiled."""
    size = max(1 << (len(objectives) - 1).bit_length(), 1024)
    return np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.inf)


def spread(objectives: np.ndarray, size: int) -> np.ndarray:
    """Picks points that cover a front: the best of each objective, then always the one farthest from all picked.

    Distances are Euclidean, in error over its range and in the logarithm of latency and energy over theirs.

    Args:
        objectives: float[M, 3], positive latency and energy.
        size: How many to pick.

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


POPULATION, GENERATIONS = 128, 64  # of the evolution of a backbone with too many exits
_PLANS = 2**16  # judged at once: at 33 exits 17 MB of weights, and as much for each copy
_LISTED = 2**12


def subset_front(stops: Stops, backbone: Anatomy, *, index: int, point: int | None = None) -> Candidates:
    """Returns the exact front over all subsets of the exits of a backbone with at most K, at shared risk levels.

    Args:
        stops: Of the backbone.
        backbone: Its anatomy.
        index: Of the backbone in the pool.
        point: The only operating point to run at; None for all.
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


def evolved_plans(
    key: jax.Array, stops: Stops, backbone: Anatomy, device: Device, *, limits: Constraints
) -> np.ndarray:
    """Breeds plans with a risk level for each exit, for backbones of any number of exits.

    Args:
        key: Typed PRNG key.
        stops: Of the backbone.
        backbone: Its anatomy.
        device: Whose clocks are bred along.
        limits: Of the search.

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


def pool_of(archive: Archive, space: MBConvSpace, device: Device, *, limits: Constraints) -> np.ndarray:
    """Returns the different genomes [P, G] that the inner engine examined, those on the static front, and the extremes.

    Backbones with more weights than the limits allow are left out.
    """
    rows = np.flatnonzero(archive.params[: int(archive.size)] <= limits.params)
    genomes, static, chosen = archive.genomes[rows], archive.static[rows], archive.examined[rows]
    chosen[non_dominated(static)] = True
    extremes = np.stack([space.largest_genome, space.smallest_genome])
    if limits.max_params is not None:
        params = np.asarray(static_costs(space, jnp.asarray(extremes), device)[1])
        extremes = extremes[params <= limits.params]
    return np.unique(np.concatenate([genomes[chosen], extremes]), axis=0)


class PoolFronts:
    """Finds the fronts of a pool: exactly for backbones with few enough plans, by evolution for the others.

    Args:
        backbones: The pool.
        device: Whose clocks they run at.
        key: Typed PRNG key of the evolution.
        limits: Of the search.
        exact_plans: All plans of a backbone are tried where there are at most so many at shared risk levels.
    """

    def __init__(
        self, backbones: Sequence[Anatomy], device: Device, *, key: jax.Array, limits: Constraints, exact_plans: int
    ) -> None:
        self._backbones, self._device, self._key = backbones, device, key
        self._limits, self._exact_plans = limits, exact_plans

    def fronts(
        self, stops: Sequence[Stops], *, points: Sequence[int | None], per_exit: bool = False
    ) -> list[Candidates]:
        """Returns a front of the pool for each of some choices of operating points.

        Args:
            stops: Of each backbone.
            points: The only operating point to run at; None for all.
            per_exit: Breed one risk level per exit for backbones that are on a front with shared ones.
        """
        found = [self._front_of_one(index, stops[index], points) for index in range(len(stops))]
        fronts = [merge(parts) for parts in zip(*found, strict=True)]
        if not per_exit:
            return fronts
        for index in np.unique(np.concatenate([front.backbone for front in fronts])).tolist():
            if self._listable(index, stops[index]):
                bred = self._bred(index, stops[index], points)
                found[index] = [first_of_equal([a, b]) for a, b in zip(found[index], bred, strict=True)]
        return [merge(parts) for parts in zip(*found, strict=True)]

    def _listable(self, index: int, stops: Stops) -> bool:
        return len(stops.stops) << int(self._backbones[index].own.count) <= self._exact_plans

    def _front_of_one(self, index: int, stops: Stops, points: Sequence[int | None]) -> list[Candidates]:
        if self._listable(index, stops):
            return [subset_front(stops, self._backbones[index], index=index, point=point) for point in points]
        return self._bred(index, stops, points)

    def _bred(self, index: int, stops: Stops, points: Sequence[int | None]) -> list[Candidates]:
        backbone, key = self._backbones[index], jax.random.fold_in(self._key, index)
        plans = evolved_plans(key, stops, backbone, self._device, limits=self._limits)
        return [plans_front(stops, backbone, levels=plans, index=index, point=point) for point in points]
