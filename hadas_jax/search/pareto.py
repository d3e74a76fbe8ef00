"""Non-dominated sorting, crowding distance and survival order on arrays of fixed shape.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017.
Shapes: P points, M objectives, W = ceil(P / 32) words. Objectives are minimised. A row that holds a NaN is
dominated by every row that holds none; +inf is an ordinary, very bad value.
"""

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hadas_jax.search._checks import check_matrix, check_shape

_WORD = 32
_BLOCK = 16
_WORST = 2**31 - 1


def dominance_keys(fitness: jax.Array) -> jax.Array:
    """Maps fitness to integers that compare the same way, NaN rows to the worst of all.

    Args:
        fitness: float32[P, M], minimised.

    Returns:
        int32[P, M]: keys[i] <= keys[j] exactly where fitness[i] <= fitness[j]; all of a NaN row above +inf.
    """
    check_matrix("fitness", fitness)
    values = fitness.astype(jnp.float32)
    values = jnp.where(values == 0, jnp.zeros_like(values), values)  # -0.0 and 0.0 are one value
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    keys = jnp.where(bits < 0, bits ^ jnp.int32(_WORST), bits)
    return jnp.where(jnp.any(jnp.isnan(values), axis=1, keepdims=True), jnp.int32(_WORST), keys)


def _dominates(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether keys a dominate keys b, objectives along the leading axis, the rest broadcast."""
    no_worse = reduce(jnp.logical_and, [a[m] <= b[m] for m in range(a.shape[0])])
    better = reduce(jnp.logical_or, [a[m] < b[m] for m in range(a.shape[0])])
    return no_worse & better


def _pack(flags: jax.Array) -> jax.Array:
    """Packs bool[32 * W] into uint32[W]: bit b of word w is flag b * W + w, so packing is elementwise."""
    rows = flags.reshape(_WORD, -1).astype(jnp.uint32)
    return reduce(jnp.bitwise_or, [rows[b] << b for b in range(_WORD)])


def _dominators(keys: jax.Array) -> jax.Array:
    """Who dominates whom: keys int32[M, 32 * W] -> uint32[W, 32 * W], column i the set of i's dominators."""
    rows = keys.reshape(keys.shape[0], _WORD, -1)
    bits = [_dominates(rows[:, b, :, None], keys[:, None, :]).astype(jnp.uint32) << b for b in range(_WORD)]
    return reduce(jnp.bitwise_or, bits)


class _Peeled(NamedTuple):
    """Ranks so far, points left as flags and as bits, the number of fronts, and of points with a rank."""

    ranks: jax.Array
    active: jax.Array
    words: jax.Array
    fronts: jax.Array
    done: jax.Array


def _peel(dominators: jax.Array, valid: jax.Array, until: int) -> tuple[jax.Array, jax.Array]:
    """Takes fronts off until `until` points have one; gives ranks (-1: none) and how many fronts."""
    wanted = jnp.minimum(jnp.sum(valid, dtype=jnp.int32), until)

    def body(carry: _Peeled) -> _Peeled:
        ranks, active, words, front, done = carry
        hits = jax.lax.reduce(dominators & words[:, None], jnp.uint32(0), jax.lax.bitwise_or, (0,))
        free = active & (hits == 0)
        active = active & ~free
        ranks = jnp.where(free, front, ranks)
        return _Peeled(ranks, active, _pack(active), front + 1, done + jnp.sum(free, dtype=jnp.int32))

    start = _Peeled(jnp.full(valid.shape, -1, jnp.int32), valid, _pack(valid), jnp.int32(0), jnp.int32(0))
    end = jax.lax.while_loop(lambda carry: carry.done < wanted, body, start)
    return end.ranks, end.fronts


@partial(jax.jit, static_argnames=("until",))
def non_dominated_ranks(fitness: jax.Array, *, valid: jax.Array | None = None, until: int | None = None) -> jax.Array:
    """Sorts points into fronts: 0 for those that nothing dominates, 1 for the next once those are gone.

    Equal points do not dominate each other and share a rank.

    Args:
        fitness: float32[P, M], minimised.
        valid: bool[P], which rows are points at all; None for all of them.
        until: stop once this many points have their rank; those left share the next rank. None ranks all.

    Returns:
        int32[P]: the rank; P for rows that are not valid.

    Raises:
        ValueError: if fitness is no floating matrix, or valid is not of shape [P].

    Source: Deb et al. 2002, section III-A; sets of dominators as bits, 32 to a word.
    """
    keys = dominance_keys(fitness)
    P = keys.shape[0]
    known = jnp.ones(P, bool) if valid is None else valid
    check_shape("valid", known, (P,))
    spare = -P % _WORD
    columns = jnp.pad(keys.T, ((0, 0), (0, spare)), constant_values=_WORST)
    active = jnp.pad(known, (0, spare))
    ranks, fronts = _peel(_dominators(columns), active, P if until is None else until)
    ranks = jnp.where(ranks[:P] < 0, fronts, ranks[:P])
    return jnp.where(known, ranks, jnp.int32(P))


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
    M = keys.shape[1]
    spare = -others.shape[0] % _BLOCK
    blocks = jnp.pad(others, ((0, spare), (0, 0)), constant_values=_WORST).reshape(-1, _BLOCK, M)
    columns = keys.T

    def step(seen: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        hits = [_dominates(block[k][:, None], columns) for k in range(_BLOCK)]
        return reduce(jnp.logical_or, hits, seen), None

    return jax.lax.scan(step, jnp.zeros(keys.shape[0], bool), blocks)[0]


def _gaps(values: jax.Array, ranks: jax.Array) -> jax.Array:
    """One objective's share of the crowding distance: float32[P], int32[P] -> float32[P]."""
    P = values.shape[0]
    place = jnp.arange(P, dtype=jnp.int32)
    front, value, origin = jax.lax.sort((ranks, values, place), num_keys=2, is_stable=True)
    new = jnp.concatenate([jnp.ones(1, bool), front[1:] != front[:-1]])
    first, last = new, jnp.concatenate([new[1:], jnp.ones(1, bool)])
    start = jax.lax.cummax(jnp.where(first, place, 0))
    end = jax.lax.cummin(jnp.where(last, place, P - 1), reverse=True)
    spread = value[end] - value[start]
    informative = (spread > 0) & jnp.isfinite(spread)
    both = (value - jnp.roll(value, 1)) + (jnp.roll(value, -1) - value)
    inside = jnp.where(informative, both, 0) / jnp.where(informative, spread, 1)
    gap = jnp.where(informative & (first | last), jnp.inf, inside)
    gap = jnp.where(end - start < 2, jnp.inf, gap)
    return jnp.zeros(P, values.dtype).at[origin].set(gap)


@jax.jit
def crowding_distance(fitness: jax.Array, ranks: jax.Array) -> jax.Array:
    """How much room a point has within its own front: the mean over objectives of its neighbours' distance.

    In each objective a front is sorted (equal values by index), the gap between a point's two neighbours is
    divided by the front's range, and the two ends get infinity. An objective whose range within the front is
    zero or not finite counts nothing. All points of a front of one or two are infinite.

    Args:
        fitness: float32[P, M].
        ranks: int32[P], the front of each point, as from `non_dominated_ranks`.

    Returns:
        float32[P]: the distance, at least 0.

    Raises:
        ValueError: if fitness is no floating matrix, or ranks is not of shape [P].

    Source: Deb et al. 2002, section III-B.
    """
    check_matrix("fitness", fitness)
    check_shape("ranks", ranks, fitness.shape[:1])
    missing = jnp.any(jnp.isnan(fitness), axis=1, keepdims=True)
    values = jnp.where(missing, jnp.inf, fitness).astype(jnp.float32)
    gaps = jax.vmap(_gaps, in_axes=(1, None))(values, ranks)
    return jnp.sum(gaps, axis=0) / fitness.shape[1]


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
