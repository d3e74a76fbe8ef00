"""Non-dominated sorting, crowding distance and survival order on arrays of fixed shape.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017.
Shapes: P points, M objectives. Objectives are minimised. A row that holds a NaN is
dominated by every row that holds none; +inf is an ordinary, very bad value.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp

from hadas_jax.backend import on_cpu
from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.duplicates import changes
from hadas_jax.search.sorted_ranks import LARGE_BLOCK, SMALL_BLOCK, no_worse, padded_length, sorted_ranks

_WORST = 2**31 - 1
_INFEASIBLE = 0x7F800001  # the bits of +inf, and one


def dominance_keys(fitness: jax.Array, violation: jax.Array | None = None) -> jax.Array:
    """Maps fitness to integers that compare the same way, NaN rows to the worst of all.

    Args:
        fitness: float32[P, M], minimised.
        violation: float32[P], at least 0, by how much each row breaks its constraints; None: by nothing.

    Returns:
        int32[P, M]: keys[i] <= keys[j] exactly where fitness[i] <= fitness[j]; all of a NaN row above +inf. A row
            that breaks a constraint has one key in all columns, which is above those of all feasible rows and
            rises with the violation (constraint domination, Deb et al. 2002, section VI); NaN rows stay the worst.
    """
    check_matrix("fitness", fitness)
    values = fitness.astype(jnp.float32)
    values = jnp.where(values == 0, jnp.zeros_like(values), values)  # -0.0 and 0.0 are one value
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    keys = jnp.where(bits < 0, bits ^ jnp.int32(_WORST), bits)
    missing = jnp.any(jnp.isnan(values), axis=1)
    if violation is not None:
        check_shape("violation", violation, fitness.shape[:1])
        keys = jnp.where((violation > 0)[:, None], _INFEASIBLE + _levels(violation)[:, None], keys)
        missing = missing | jnp.isnan(violation)
    return jnp.where(missing[:, None], jnp.int32(_WORST), keys)


def _levels(values: jax.Array) -> jax.Array:
    """How many rows have a lower value: float32[P] -> int32[P], far below the room between +inf and the worst."""
    return jnp.searchsorted(jnp.sort(values), values, method="sort").astype(jnp.int32)


def _dominates(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether keys a dominate keys b, objectives along the leading axis, the rest broadcast."""
    better = reduce(jnp.logical_or, [a[m] < b[m] for m in range(a.shape[0])])
    return no_worse(tuple(a), tuple(b)) & better


@jax.jit
def non_dominated_ranks(
    fitness: jax.Array, *, violation: jax.Array | None = None, valid: jax.Array | None = None
) -> jax.Array:
    """Sorts points into fronts: 0 for those that nothing dominates, 1 for the next once those are gone.

    Equal points do not dominate each other and share a rank. Rows are sorted by the first objective, then the
    second and so on, so that what dominates a row stands before it: its rank is one above the highest of those.
    Every pair is compared about once, in O(P^2 M) time whatever the number of fronts, in memory O(P M).

    Args:
        fitness: float32[P, M], minimised.
        violation: float32[P], by how much each row breaks its constraints, see `dominance_keys`; None: by nothing.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        int32[P]: the rank; P for rows that are not valid.

    Raises:
        ValueError: if fitness is no floating matrix, or violation or valid is not of shape [P].

    Source: Deb et al. 2002, section III-A, for what the fronts are.
    """
    keys = dominance_keys(fitness, violation)
    P, M = keys.shape
    known = jnp.ones(P, bool) if valid is None else valid
    check_shape("valid", known, (P,))
    length = padded_length(P)
    columns = jnp.pad(jnp.where(known[None, :], keys.T, _WORST), ((0, 0), (0, length - P)), constant_values=_WORST)
    place = jnp.arange(length, dtype=jnp.int32)
    *ordered, origin = jax.lax.sort((*columns, place), num_keys=M, is_stable=False)
    ranks = sorted_ranks(ordered[1:] or ordered, head=changes(ordered))
    ranks = jnp.zeros_like(place).at[origin].set(ranks, unique_indices=True)
    return jnp.where(known, ranks[:P], jnp.int32(P))


@jax.jit
def non_dominated_mask(fitness: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Marks the points of the first front, in memory proportional to P.

    Args:
        fitness: float32[P, M], minimised.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        bool[P]: valid and dominated by no valid row. All of several equal points are kept.

    Raises:
        ValueError: if fitness is no floating matrix, or valid is not of shape [P].
    """
    keys = dominance_keys(fitness)
    known = jnp.ones(keys.shape[0], bool) if valid is None else valid
    check_shape("valid", known, keys.shape[:1])
    return known & ~dominated_by(keys, jnp.where(known[:, None], keys, jnp.int32(_WORST)))


def dominated_by(keys: jax.Array, others: jax.Array) -> jax.Array:
    """Marks the rows that some row of another array dominates.

    Args:
        keys: int32[P, M] from `dominance_keys`.
        others: int32[Q, M] from `dominance_keys`.

    Returns:
        bool[P]: whether any row of others dominates the row of keys.
    """
    M, size = keys.shape[1], SMALL_BLOCK if on_cpu() else LARGE_BLOCK
    spare = -others.shape[0] % size
    blocks = jnp.pad(others, ((0, spare), (0, 0)), constant_values=_WORST).reshape(-1, size, M)
    columns = keys.T

    def step(seen: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        if size == LARGE_BLOCK:
            return seen | jnp.any(_dominates(block.T[:, :, None], columns[:, None, :]), axis=0), None
        hits = [_dominates(block[k][:, None], columns) for k in range(size)]
        return reduce(jnp.logical_or, hits, seen), None

    return jax.lax.scan(step, jnp.zeros(keys.shape[0], bool), blocks)[0]


def _gaps(values: jax.Array, ranks: jax.Array) -> jax.Array:
    """Distance between the neighbours in the own front, +inf at its ends: float32[P], int32[P] -> float32[P]."""
    place = jnp.arange(values.shape[0], dtype=jnp.int32)
    front, value, origin = jax.lax.sort((ranks, values, place), num_keys=2, is_stable=True)
    first = changes([front])
    end = first | jnp.roll(first, -1)
    both = (value - jnp.roll(value, 1)) + (jnp.roll(value, -1) - value)
    return jnp.zeros_like(values).at[origin].set(jnp.where(end, jnp.inf, both), unique_indices=True)


@jax.jit
def crowding_distance(fitness: jax.Array, ranks: jax.Array) -> jax.Array:
    """How much room a point has within its own front: the mean over objectives of its neighbours' distance.

    In each objective a front is sorted (equal values by index), the gap between a point's two neighbours is
    divided by the front's range, and the two ends get infinity. An objective whose range within the front is
    zero or not finite counts nothing. All points of a front of one or two are infinite.

    Args:
        fitness: float32[P, M].
        ranks: int32[P], within 0 .. P, the front of each point, as from `non_dominated_ranks`.

    Returns:
        float32[P]: the distance, at least 0.

    Raises:
        ValueError: if fitness is no floating matrix, or ranks is not of shape [P].

    Source: Deb et al. 2002, section III-B.
    """
    check_matrix("fitness", fitness)
    check_shape("ranks", ranks, fitness.shape[:1])
    P, M = fitness.shape
    missing = jnp.any(jnp.isnan(fitness), axis=1, keepdims=True)
    values = jnp.where(missing, jnp.inf, fitness).astype(jnp.float32)
    gaps = jax.lax.map(lambda column: _gaps(column, ranks), values.T).T
    bounds = jnp.full((P + 1, 2 * M), jnp.inf).at[ranks].min(jnp.concatenate([values, -values], axis=1))[ranks]
    spread = -bounds[:, M:] - bounds[:, :M]
    informative = (spread > 0) & jnp.isfinite(spread)
    inside = jnp.where(informative, gaps, 0) / jnp.where(informative, spread, 1)
    members = jnp.zeros(P + 1, jnp.int32).at[ranks].add(1)[ranks]
    return jnp.where(members > 2, jnp.sum(inside, axis=1) / M, jnp.inf)


@partial(jax.jit, static_argnames=("size",))
def truncate(ranks: jax.Array, crowding: jax.Array, *, size: int) -> jax.Array:
    """The best points in survival order: by rank, then the less crowded, then the earlier.

    Args:
        ranks: int32[P].
        crowding: float32[P].
        size: how many to return, at most P.

    Returns:
        int32[size]: indices, the best first.

    Raises:
        ValueError: if size is not within 1 .. P or the shapes differ.
    """
    P = ranks.shape[0]
    check_shape("crowding", crowding, ranks.shape)
    if not 0 < size <= P:
        raise ValueError(f"size: expected 1 .. {P}, got {size}")
    place = jnp.arange(P, dtype=jnp.int32)
    return jax.lax.sort((ranks, -crowding, place), num_keys=2, is_stable=True)[2][:size]
