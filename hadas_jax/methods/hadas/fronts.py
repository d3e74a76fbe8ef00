"""Candidates (backbone, exit configuration, operating point) in lists, and the fronts of backbones over all of theirs.

An operating point where every sample costs more than at another one is left out beforehand. That needs only that each
sample stops somewhere, so it is exact under the ideal mapping and under thresholds, one for each exit included.
Shapes: P backbones, G genes, E exits, K slots, W words of a bit set, F operating points, M candidates. Objectives are
error, latency_s and energy_j.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import ConfigStats
from hadas_jax.evaluation.early_exit import percentile_paths, subset_members
from hadas_jax.methods.hadas.constraints import ConfigLimits, relative_excess
from hadas_jax.methods.hadas.exit_configs import DynamicBackbone, Stops
from hadas_jax.methods.hadas.inner import evolve
from hadas_jax.search import Product, non_dominated_mask
from hadas_jax.search.product import listed_front, whole_product_front
from hadas_jax.settings import Constraints
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_jax.spaces.footprint import footprint
from hadas_jax.spaces.mbconv import MAX_EXITS
from hw_models import Cost, Device

POPULATION, GENERATIONS = 128, 64  # of the evolution of a backbone with too many exits
EXACT_CONFIGS = 2**MAX_EXITS  # of 13 exits at six risk levels; more take half a minute on two CPU cores
_CONFIGS = 2**16  # evaluated at once: at 33 exits 17 MB of frequencies, and as much for each copy
_LISTED = 2**12

_relative_excess = jax.jit(relative_excess)


@dataclass(frozen=True)
class Candidates:
    """Backbones of a pool with an exit configuration and an operating point each.

    Attributes:
        backbone: int[M], index in the pool.
        exits: int32[M, E], the exit configuration: 0 for no exit, else its risk level from 1 on.
        point: int[M].
        objectives: float32[M, 3].
        excess: float32[M], by how much a candidate breaks the limits on its exit configuration; 0 within.
    """

    backbone: np.ndarray
    exits: np.ndarray
    point: np.ndarray
    objectives: np.ndarray
    excess: np.ndarray

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Returns some of the candidates."""
        return Candidates(*(column[rows] for column in vars(self).values()))

    @classmethod
    def join(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Returns the candidates of all parts, in their order."""
        return cls(*(np.concatenate(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))

    def front(self) -> "Candidates":
        """Returns the candidates that no other one dominates, in their order.

        Candidates within the limits on exit configurations are compared among themselves, and the others, which count
        where there are none within, behind them.
        """
        within = self.excess <= 0
        if within.all():
            return self.take(non_dominated(self.objectives))
        groups = [self.take(np.flatnonzero(rows)) for rows in (within, ~within) if rows.any()]
        return Candidates.join([group.take(non_dominated(group.objectives)) for group in groups])

    def violation(self, limits: Constraints) -> np.ndarray:
        """Returns float32[M]: by how much the candidates break the constraints, relatively; 0 within."""
        return np.maximum(constraint_violation(self.objectives, limits), self.excess)

    def spread(self, size: int) -> np.ndarray:
        """Picks candidates that cover a front: the best of each objective, then always the one farthest from them.

        Distances are Euclidean, in error over its range and in the logarithm of latency and energy over theirs.

        Args:
            size: How many to pick.

        Returns:
            Sorted rows, int[min(M, size)].
        """
        scaled = np.column_stack([self.objectives[:, :1], np.log(self.objectives[:, 1:])]).astype(np.float64)
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

    def cheapest(self, max_error: float, *, limits: Constraints) -> int | None:
        """Returns the row of at most this error and least violation, of those the least energy; or None."""
        enough = np.flatnonzero(self.objectives[:, 0] <= max_error)
        if not len(enough):
            return None
        order = np.lexsort((self.objectives[enough, 2], self.take(enough).violation(limits)))
        return int(enough[order[0]])


def constraint_violation(objectives: np.ndarray, limits: Constraints) -> np.ndarray:
    """Returns float32[M]: by how much objectives float[M, 3] break the constraints on them, relatively; 0 within."""
    if not limits.any:
        return np.zeros(len(objectives), np.float32)
    padded = _pad(np.asarray(objectives, np.float32))
    excess = _relative_excess(tuple(jnp.asarray(padded.T)), jnp.asarray(limits.objectives))
    return np.maximum(np.asarray(excess)[: len(objectives)], 0)


def non_dominated(objectives: np.ndarray) -> np.ndarray:
    """Returns the rows of float32[M, 3] that no other row dominates."""
    padded = _pad(objectives)
    mask = non_dominated_mask(jnp.asarray(padded, jnp.float32), jnp.arange(len(padded)) < len(objectives))
    return np.flatnonzero(np.asarray(mask))


def _pad(objectives: np.ndarray) -> np.ndarray:
    """Pads with infinite rows to a power of two of at least 1,024, so that few shapes are compiled."""
    size = max(1 << (len(objectives) - 1).bit_length(), 1024)
    return np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.inf)


def exact_front(space: MBConvSpace, genome: jax.Array, correct: jax.Array, costs: Cost, *, samples: int) -> Candidates:
    """Finds the exact front of all dynamic candidates of a backbone under the ideal mapping.

    Args:
        space: Of the backbone.
        genome: int32[G], of a backbone with at most `MAX_EXITS` exits.
        correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
        costs: Of `segment_costs`, float32[2 E + 1, F].
        samples: Validation samples.

    Returns:
        The front, sorted by error, then latency, then energy; index 0 for the backbone.
    """
    return subset_front(Stops.ideal(correct, samples=samples), _dynamic_backbone(space, genome, costs))


@partial(jax.jit, static_argnames="space")
def _dynamic_backbone(space: MBConvSpace, genome: jax.Array, costs: Cost) -> DynamicBackbone:
    backbone = space.decode(genome)
    return DynamicBackbone.of(available_exits(space, backbone), costs, footprint=footprint(space, backbone))


def subset_front(
    stops: Stops,
    backbone: DynamicBackbone,
    *,
    index: int = 0,
    point: int | None = None,
    limits: ConfigLimits | None = None,
) -> Candidates:
    """Returns the exact front over all subsets of the exits of a backbone with at most K, at shared risk levels.

    Args:
        stops: Of the backbone.
        backbone: Its active exits and costs.
        index: Of the backbone in the pool.
        point: The only operating point to run at; None for all.
        limits: On exit configurations. The front of what keeps them comes first, and behind it those members of the
            front without limits that break them. None for none.
    """
    group = max(1, _CONFIGS >> len(backbone.position))
    parts = []
    for first in range(0, len(stops.stops), group):
        some = dataclasses.replace(stops, stops=stops.stops[first : first + group])
        stats, costs = backbone.evaluate_subsets(some), backbone.active_costs
        sizes = None if limits is None else _subset_sizes(backbone, limits, levels=len(some.stops))
        config, front = _front(stats, costs, backbone, point, limits=limits, sizes=sizes, samples=stops.samples)
        exits = backbone.exits_of(config)
        parts.append(Candidates(np.full(len(config), index), np.where(exits > 0, exits + first, 0), *front))
    return _first_of_equal(parts)


@partial(jax.jit, static_argnames="levels")
def _subset_sizes(backbone: DynamicBackbone, limits: ConfigLimits, *, levels: int) -> jax.Array:
    """Returns float32[R 2^K]: by how much the subsets of exits in slots exceed limits on their size, at all levels."""
    slots = len(backbone.position)
    members = subset_members(jnp.arange(2**slots, dtype=jnp.int32), slots)
    return jnp.tile(limits.size_excess(backbone.slot_footprint, members), levels)


def _listed_front(
    stops: Stops,
    backbone: DynamicBackbone,
    exits: np.ndarray,
    *,
    index: int = 0,
    point: int | None = None,
    limits: ConfigLimits | None = None,
) -> Candidates:
    """Returns the exact front of the exit configurations int32[M, E]; otherwise as `subset_front`."""
    parts = []
    for start in range(0, len(exits), _LISTED):
        block = exits[start : start + _LISTED]
        count = len(block)
        block = np.pad(block, ((0, _LISTED - count), (0, 0)))  # of one size, so that one shape is compiled
        stats = stops.evaluate(jnp.asarray(block))
        stats = dataclasses.replace(stats, error=jnp.where(jnp.arange(_LISTED) < count, stats.error, jnp.inf))
        sizes = None if limits is None else limits.size_excess(backbone.footprint, jnp.asarray(block > 0))
        config, front = _front(
            stats, backbone.costs, backbone, point, limits=limits, sizes=sizes, samples=stops.samples
        )
        parts.append(Candidates(np.full(len(config), index), block[config], *front))
    return _first_of_equal(parts)


def _first_of_equal(parts: list[Candidates]) -> Candidates:
    """Returns the front of several fronts of one backbone; of equal objectives the first is kept."""
    if len(parts) == 1:
        return parts[0]
    front = Candidates.join(parts).front()
    keys = np.column_stack([front.excess > 0, front.objectives])
    _, rows = np.unique(keys, axis=0, return_index=True)
    return front.take(rows)


def _front(
    stats: ConfigStats,
    costs: Cost,
    backbone: DynamicBackbone,
    point: int | None,
    *,
    limits: ConfigLimits | None,
    sizes: jax.Array | None,
    samples: int,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns configurations int[n] of the front, and their operating points, objectives and excess as `Candidates`."""
    config, points, objectives = _product_front(stats, costs, backbone, point)
    if limits is None or sizes is None:
        return config, (points, objectives, np.zeros(len(config), np.float32))
    paths = percentile_paths(stats.frequencies, 99, samples=samples).astype(jnp.float32)
    latency = np.asarray(costs.latency_s)[:, points].T
    times = np.sum(np.asarray(paths)[config] * latency, axis=1)
    excess = np.maximum(limits.excess(times), np.asarray(sizes)[config])
    stats = dataclasses.replace(stats, error=jnp.where(sizes <= 0, stats.error, jnp.inf))
    within = _product_front(stats, costs, backbone, point, paths=paths, longest=limits.p99_s)
    broken = np.flatnonzero(excess > 0)
    found = (config[broken], points[broken], objectives[broken])
    config, points, objectives = (np.concatenate(pair) for pair in zip(within, found, strict=True))
    return config, (points, objectives, np.append(np.zeros(len(within[0]), np.float32), excess[broken]))


def _product_front(
    stats: ConfigStats,
    costs: Cost,
    backbone: DynamicBackbone,
    point: int | None,
    *,
    paths: jax.Array | None = None,
    longest: jax.Array | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns configurations int[n] of the front, and their operating points int[n] and objectives float32[n, 3].

    Candidates whose paths float32[M, D] take longer than `longest` are none.
    """
    latency, energy = costs.latency_s, costs.energy_j
    if point is not None:
        if paths is not None:
            stats = dataclasses.replace(stats, error=_masked(stats.error, paths, latency[:, point], longest))
        objectives, rows = (np.asarray(each) for each in _at_one_point(stats, latency[:, point], energy[:, point]))
        config = rows[rows >= 0]
        return config, np.full(len(config), point), objectives[config]
    points = jnp.asarray(backbone.points)
    product = Product(stats.error, stats.frequencies, latency, energy, points=points, paths=paths, longest=longest)
    front = whole_product_front(product)
    size = int(front.size)
    return np.asarray(front.config)[:size], np.asarray(front.point)[:size], np.asarray(front.objectives)[:size]


@jax.jit
def _masked(errors: jax.Array, paths: jax.Array, latency: jax.Array, longest: jax.Array) -> jax.Array:
    """Returns errors float32[M], +inf where the path of a configuration, float32[M, D], takes too long."""
    times = jnp.matmul(paths, latency, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(times <= longest, errors, jnp.inf)


@jax.jit
def _at_one_point(stats: ConfigStats, latency: jax.Array, energy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns objectives float32[M, 3] at costs float32[D], and the members of their front, -1 behind them."""
    times, joules = (
        jnp.matmul(stats.frequencies, cost, precision=jax.lax.Precision.HIGHEST) for cost in (latency, energy)
    )
    objectives = jnp.stack([stats.error, times, joules], axis=1)
    return objectives, listed_front(objectives, capacity=len(objectives))[0]


def pool_fronts(
    backbones: Sequence[DynamicBackbone],
    stops: Sequence[Stops],
    device: Device,
    *,
    key: jax.Array,
    limits: Constraints,
    points: Sequence[int | None] = (None,),
    per_exit: bool = False,
    exact_configs: int = EXACT_CONFIGS,
) -> list[Candidates]:
    """Finds fronts of a pool: exactly for backbones with few enough configurations, by evolution for the others.

    Args:
        backbones: The pool.
        stops: Of each backbone.
        device: Whose clocks they run at.
        key: Typed PRNG key of the evolution.
        limits: Of the search.
        points: For each front the only operating point to run at; None for all.
        per_exit: Evolve one risk level per exit for backbones that are on a front with shared ones.
        exact_configs: All configurations of a backbone are tried where there are at most so many at shared risk levels.

    Returns:
        A front for each of the points.
    """

    def is_listable(index: int) -> bool:
        return len(stops[index].stops) << int(backbones[index].count) <= exact_configs

    config_limits = ConfigLimits.of(limits, device)

    def evolved(index: int) -> list[Candidates]:
        own, backbone = stops[index], backbones[index]
        exits = _evolved_configs(jax.random.fold_in(key, index), own, backbone, device, limits=limits)
        front = partial(_listed_front, own, backbone, exits, index=index, limits=config_limits)
        return [front(point=point) for point in points]

    def subsets(index: int) -> list[Candidates]:
        front = partial(subset_front, stops[index], backbones[index], index=index, limits=config_limits)
        return [front(point=point) for point in points]

    parts = [subsets(index) if is_listable(index) else evolved(index) for index in range(len(stops))]
    fronts = [Candidates.join(each).front() for each in zip(*parts, strict=True)]
    if not per_exit:
        return fronts
    for index in np.unique(np.concatenate([front.backbone for front in fronts])).tolist():
        if is_listable(index):
            pairs = zip(parts[index], evolved(index), strict=True)
            parts[index] = [_first_of_equal([shared, own]) for shared, own in pairs]
    return [Candidates.join(each).front() for each in zip(*parts, strict=True)]


def _evolved_configs(
    key: jax.Array, stops: Stops, backbone: DynamicBackbone, device: Device, *, limits: Constraints
) -> np.ndarray:
    """Returns int32[M, E]: the exit configurations that an evolution tried, without any exit always among them."""
    config_limits = ConfigLimits.of(limits, device)
    candidates = evolve(
        key,
        stops,
        backbone.available,
        backbone.costs,
        device,
        limits=jnp.asarray(limits.objectives),
        config_limits=config_limits and (config_limits, backbone.footprint),
        gamma=1.0,
        population=POPULATION,
        generations=GENERATIONS,
    )
    tried = np.asarray(candidates.exits)
    return np.unique(np.concatenate([np.zeros_like(tried[:1]), tried]), axis=0)
