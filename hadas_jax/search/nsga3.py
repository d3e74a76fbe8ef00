"""NSGA-III on integer genomes: survivors are spread along reference directions, for many objectives.

Deb and Jain, "An evolutionary many-objective optimization algorithm using reference-point-based nondominated
sorting approach, part I", 2014, https://doi.org/10.1109/TEVC.2013.2281535.
Shapes: P population, Q genomes compared at once, M objectives, N directions, G genes.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.directions import reference_directions
from hadas_jax.search.nsga2 import NSGA2, Params
from hadas_jax.search.pareto import first_occurrences, non_dominated_ranks
from hadas_jax.search.strategy import State

_SMALL = 1e-6
_LARGE = 1e37  # so that differences stay finite


@struct.dataclass
class _Frame:
    """Where the front was seen to begin and to end.

    Attributes:
        ideal: float32[M], the least of each objective so far; +inf before any.
        extremes: float32[M, M], row m is the point that is best where objective m alone counts for little; +inf
            before any.
    """

    ideal: jax.Array
    extremes: jax.Array


@dataclasses.dataclass(frozen=True)
class NSGA3(NSGA2):
    """The strategy; see `Elitist` for init, tell and prefer.

    The state's crowding is minus the place in the queue of the member's niche. Mating goes by merit and rank only.

    Attributes:
        divisions: Of each axis of the lattice of directions; None for as many directions as fit into P.
    """

    divisions: int | None = dataclasses.field(default=None, kw_only=True)

    mates_by_crowding: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divisions is not None and self.divisions < 1:
            raise ValueError(f"divisions: expected at least 1, got {self.divisions}")

    @property
    def default_params(self) -> Params:
        """Crossover of all pairs, mutation of one gene per genome on average (Deb and Jain 2014, table II)."""
        return dataclasses.replace(super().default_params, crossover_probability=jnp.float32(1.0))

    def _begin(self, key: jax.Array, told: State, params: Params) -> _Frame:
        del key, params
        M = told.fitness.shape[1]
        return _Frame(jnp.full(M, jnp.inf, jnp.float32), jnp.full((M, M), jnp.inf, jnp.float32))

    def _select(self, key: jax.Array, merged: State) -> State:
        """Chooses by rank, in the last front by niche: merged [Q, ...] -> State [P, ...]."""
        unique = first_occurrences(merged.population, self.cardinalities)
        ranks = non_dominated_ranks(merged.fitness, violation=merged.violation, valid=unique)
        last = _nth_least(ranks, self.population_size)
        usable = unique & (merged.violation <= 0) & jnp.all(jnp.isfinite(merged.fitness), axis=1)
        counted = usable & (ranks <= last)
        frame, points = _normalise(merged.fitness, merged.memory, counted=counted, front=ranks == 0)
        lattice = reference_directions(points.shape[1], size=self.population_size, divisions=self.divisions)
        directions = jnp.asarray(lattice, jnp.float32)
        niche, distance = _associate(points, directions)
        queue_key, tie_key = jax.random.split(key)
        niches, late = directions.shape[0], ranks >= last
        level = _queue_places(queue_key, niche, distance, niches=niches, late=late, valid=counted)
        lot, place = jax.random.bits(tie_key, ranks.shape), jnp.arange(ranks.shape[0], dtype=jnp.int32)
        chosen = jax.lax.sort((ranks, level, lot, place), num_keys=3)[3][: self.population_size]
        crowding = -level.astype(jnp.float32)
        return dataclasses.replace(merged, ranks=ranks, crowding=crowding, memory=frame).take(chosen)


def _normalise(fitness: jax.Array, frame: _Frame, *, counted: jax.Array, front: jax.Array) -> tuple[_Frame, jax.Array]:
    """Moves the ideal point to 0 and the hyperplane's intercepts to 1.

    Units of the objectives do not matter: extremes are found in units of the range of what is counted. Where the
    extremes span no plane that cuts all axes, the front's range takes the intercepts' place; an intercept beyond
    everything counted is moved to the worst of it.

    Args:
        fitness: float32[Q, M].
        frame: What was seen before.
        counted: bool[Q], the rows that are finite and still in the choice.
        front: bool[Q], the rows of the first front.

    Returns:
        The frame brought up to date, and float32[Q, M]: points at least 0; 0 for rows that are not counted.

    Source: Deb and Jain 2014, section IV-C, algorithm 2.
    """
    rows = counted[:, None]
    values = jnp.clip(fitness, -_LARGE, _LARGE)
    ideal = jnp.minimum(frame.ideal, jnp.min(jnp.where(rows, values, jnp.inf), axis=0))
    origin = jnp.where(jnp.isfinite(ideal), ideal, 0)
    gaps = jnp.where(rows, values - origin[None, :], 0)
    worst = jnp.max(gaps, axis=0)
    span = jnp.where(worst > 0, worst, 1)
    seen = jnp.concatenate([jnp.where(rows, gaps, jnp.inf), frame.extremes - origin[None, :]]) / span[None, :]
    extremes = seen[_extreme_rows(seen)]
    nadir = jnp.max(jnp.where(front[:, None], gaps, 0), axis=0) / span
    unit = span * _intercepts(extremes, nadir)
    frame = _Frame(ideal=ideal, extremes=extremes * span[None, :] + origin[None, :])
    return frame, gaps / unit[None, :]


def _extreme_rows(points: jax.Array) -> jax.Array:
    """For each axis the point nearest to it by the achievement scalarising function: [Q, M] -> int32[M]."""
    others = 1 - jnp.eye(points.shape[1], dtype=points.dtype)
    weights = 1 + others * (1 / _SMALL - 1)
    return jnp.argmin(jnp.max(points[None] * weights[:, None, :], axis=2), axis=1)


def _intercepts(extremes: jax.Array, nadir: jax.Array) -> jax.Array:
    """Where the plane through the extremes cuts the axes, 1 at most; the nadir where it does not: [M, M] -> [M]."""
    M = nadir.shape[0]
    finite = jnp.all(jnp.isfinite(extremes))
    matrix = jnp.where(finite, extremes, jnp.eye(M, dtype=extremes.dtype))
    slope = jnp.linalg.solve(matrix, jnp.ones((M, 1), extremes.dtype))[:, 0]
    residual = jnp.abs(jnp.matmul(matrix, slope[:, None], precision="highest")[:, 0] - 1)
    cuts = (slope > _SMALL) & (slope < 1 / _SMALL) & (residual < 1e-3)
    sound = finite & jnp.all(cuts)
    fallback = jnp.where(nadir > _SMALL, nadir, 1)
    return jnp.where(sound, 1 / jnp.maximum(jnp.where(sound, slope, 1), 1), fallback)


def _associate(points: jax.Array, directions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The direction nearest to each point, by perpendicular distance.

    Args:
        points: float32[Q, M], at least 0.
        directions: float32[N, M], none of them 0.

    Returns:
        int32[Q]: the direction's index; float32[Q]: the distance.

    Source: Deb and Jain 2014, section IV-D. The nearest direction is the one of the longest projection.
    """
    units = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    lengths = jnp.matmul(points, units.T, precision="highest")
    niche = jnp.argmax(lengths, axis=1).astype(jnp.int32)
    foot = jnp.max(lengths, axis=1, keepdims=True) * units[niche]
    return niche, jnp.linalg.norm(points - foot, axis=1)


def _queue_places(
    key: jax.Array, niche: jax.Array, distance: jax.Array, *, niches: int, late: jax.Array, valid: jax.Array
) -> jax.Array:
    """The place of each point in its niche's queue: those of earlier fronts first, the rest in turn.

    Filling the emptiest niche again and again takes points in the order of these places: a point's place is how
    many its niche holds before it. In a niche without earlier points the nearest goes first; the rest are drawn
    by lot.

    Args:
        key: Typed PRNG key.
        niche: int32[Q], within 0 .. N - 1.
        distance: float32[Q].
        niches: N, static.
        late: bool[Q], which points the choice is among.
        valid: bool[Q], points in the queues at all.

    Returns:
        int32[Q]: the place, from 0; Q for points that are not valid.

    Source: Deb and Jain 2014, section IV-E, algorithm 4, without its loop.
    """
    Q = niche.shape[0]
    place = jnp.arange(Q, dtype=jnp.int32)
    home = jnp.where(valid, niche, jnp.int32(niches))
    taken = jnp.zeros(niches + 1, bool).at[home].max(~late)
    least = jnp.full(niches + 1, jnp.inf, distance.dtype).at[home].min(jnp.where(late, distance, jnp.inf))
    first = late & ~taken[home] & (distance <= least[home])
    lot = jax.random.bits(key, (Q,)) >> 2
    lot = lot | (late.astype(jnp.uint32) << 31) | (~first).astype(jnp.uint32) << 30
    homes, _, origin = jax.lax.sort((home, lot, place), num_keys=2)
    start = jax.lax.cummax(jnp.where(jnp.append(True, homes[1:] != homes[:-1]), place, 0))
    level = jnp.zeros(Q, jnp.int32).at[origin].set(place - start)
    return jnp.where(valid, level, jnp.int32(Q))


def _nth_least(values: jax.Array, n: int) -> jax.Array:
    """The n-th least of int32[Q], by counting, which compiles faster than a sort."""
    no_more = jnp.sum(values[None, :] <= values[:, None], axis=1, dtype=jnp.int32)
    return jnp.min(values, where=no_more >= n, initial=2**31 - 1)
