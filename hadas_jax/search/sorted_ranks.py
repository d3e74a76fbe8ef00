"""Ranks of points in lexicographic order: in small blocks on CPUs, in large ones on accelerators.

What dominates a row stands before it, and the row's rank is one above the highest of those. A block of rows is ranked,
then hands on its ranks to all later rows. On a CPU small blocks stay in registers; an accelerator waits for every step,
so that a few large ones are quicker there (an H100 ranked 2,048 points by the small ones in 90 ms).
Shapes: Q points, B rows of a block. Rows that are the first of equal ones are heads; they alone hand on their rank.
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp

from hadas_jax.backend import on_cpu

SMALL_BLOCK, LARGE_BLOCK = 16, 1024
_CHUNK = 1024  # later rows that a small block hands its ranks on to at once
_SWEEPS = 4  # of a large block before looking whether its ranks are settled


def padded_length(points: int) -> int:
    """Returns the least number Q of rows, at least `points`, that both ways can deal with."""
    length = points + -points % SMALL_BLOCK
    return length + -length % min(length, _CHUNK)


def no_worse(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Whether keys a are at most keys b in every objective; one array for each objective."""
    return reduce(jnp.logical_and, [mine <= theirs for mine, theirs in zip(a, b, strict=True)])


def sorted_ranks(columns: Sequence[jax.Array], *, head: jax.Array) -> jax.Array:
    """Returns the ranks of rows in lexicographic order.

    Args:
        columns: int32[Q] each, the keys without the first objective, which the order takes care of; Q as from
            `padded_length`.
        head: bool[Q], rows that differ from the one before.

    Returns:
        int32[Q].
    """
    best = (ranked_in_small_blocks if on_cpu() else ranked_in_large_blocks)(columns, head=head)
    return best - (~head).astype(jnp.int32)  # copies received their heads' rank, one too high


def ranked_in_small_blocks(columns: Sequence[jax.Array], *, head: jax.Array) -> jax.Array:
    """Returns int32[Q], one above the highest rank of the heads before a row that are no worse."""
    length = head.shape[0]
    chunk = min(length, _CHUNK)
    place = jnp.arange(length, dtype=jnp.int32)

    def block(index: jax.Array, best: jax.Array) -> jax.Array:
        start = index * SMALL_BLOCK
        mine, heads = [_cut(column, start, SMALL_BLOCK) for column in columns], _cut(head, start, SMALL_BLOCK)
        ranks = _one_by_one(mine, _cut(best, start, SMALL_BLOCK), head=heads)
        best = jax.lax.dynamic_update_slice(best, ranks, (start,))
        scores = jnp.where(heads, ranks + 1, 0)

        def push(index: jax.Array, best: jax.Array) -> jax.Array:
            at = index * chunk
            rows, old = [_cut(column, at, chunk) for column in columns], _cut(best, at, chunk)
            hits = [jnp.where(no_worse([key[k] for key in mine], rows), scores[k], 0) for k in range(SMALL_BLOCK)]
            later = _cut(place, at, chunk) >= start + SMALL_BLOCK
            new = jnp.where(later, reduce(jnp.maximum, hits, old), old)
            return jax.lax.dynamic_update_slice(best, new, (at,))

        return jax.lax.fori_loop((start + SMALL_BLOCK) // chunk, length // chunk, push, best)

    return jax.lax.fori_loop(0, length // SMALL_BLOCK, block, jnp.zeros_like(place))


def _one_by_one(columns: Sequence[jax.Array], best: jax.Array, *, head: jax.Array) -> jax.Array:
    """What `best` becomes by the rows of the block itself, one after the other: int32[B] -> int32[B]."""
    row = jnp.arange(SMALL_BLOCK)

    def pass_on(k: jax.Array, ranks: jax.Array) -> jax.Array:
        below = head[k] & (row > k) & no_worse([column[k] for column in columns], columns)
        return jnp.maximum(ranks, jnp.where(below, ranks[k] + 1, 0))

    return jax.lax.fori_loop(0, SMALL_BLOCK, pass_on, best)


def ranked_in_large_blocks(columns: Sequence[jax.Array], *, head: jax.Array) -> jax.Array:
    """Returns int32[Q] as `ranked_in_small_blocks` does, in a step for each block and each of its fronts."""
    length = head.shape[0]
    size = min(length, LARGE_BLOCK)
    place = jnp.arange(length, dtype=jnp.int32)

    def block(best: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        mine, heads = [_cut(column, start, size) for column in columns], _cut(head, start, size)
        ranks = _settled(mine, _cut(best, start, size), head=heads)
        best = jax.lax.dynamic_update_slice(best, ranks, (start,))
        hits = heads[:, None] & no_worse([key[:, None] for key in mine], [column[None] for column in columns])
        handed = jnp.max(jnp.where(hits, ranks[:, None] + 1, 0), axis=0)
        return jnp.where(place >= start + size, jnp.maximum(best, handed), best), None

    return jax.lax.scan(block, jnp.zeros_like(place), size * jnp.arange(length // size, dtype=jnp.int32))[0]


def _settled(columns: Sequence[jax.Array], best: jax.Array, *, head: jax.Array) -> jax.Array:
    """What `best` becomes by the rows of the block itself, all at once until nothing rises: int32[B] -> int32[B]."""
    row = jnp.arange(head.shape[0])
    above = head[:, None] & (row[:, None] < row[None])
    above = above & no_worse([key[:, None] for key in columns], [key[None] for key in columns])

    def sweep(ranks: jax.Array) -> jax.Array:
        return jnp.maximum(best, jnp.max(jnp.where(above, ranks[:, None] + 1, 0), axis=0))

    def sweeps(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        ranks = both[1]
        for _ in range(_SWEEPS):
            ranks = sweep(ranks)
        return both[1], ranks

    return jax.lax.while_loop(lambda both: jnp.any(both[0] != both[1]), sweeps, (best, sweep(best)))[1]


def _cut(values: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return jax.lax.dynamic_slice(values, (start,), (size,))
