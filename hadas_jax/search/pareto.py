"""Non-dominated sorting, crowding distance, survival order and an archive, on arrays of fixed shape.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017. Objectives are minimised. A row that holds a NaN is dominated by every row that
holds none; +inf is an ordinary, very bad value. Repeated genomes are found exactly, by sorting them.

Ranks are found in an order in which what dominates a row stands before it: the row's rank is one above the highest of
those. A block of rows is ranked, then hands on its ranks to all later rows. On a CPU small blocks stay in registers and
the order is lexicographic, so that the first objective need not be compared. An accelerator waits for every step, so
that a few large ones are quicker there: rows come by the sum of their places in all objectives, since rows of nearly
equal sums hardly dominate each other, and a block is ranked in a few sweeps over all its pairs.
Shapes: P points, M objectives, G genes (gene g takes the values 0 .. cardinalities[g] - 1), Q sorted points, B rows of
a block. Sorted rows that are the first of equal ones are heads; they alone hand on their rank.
"""

from collections.abc import Sequence
from functools import partial, reduce

import chex
import jax
import jax.numpy as jnp
from flax import struct

_RANGE = 2**32


def assert_matrix(name: str, array: jax.Array, *, columns: int | None = None) -> None:
    """Asserts that an argument is a floating matrix [rows, columns]; None for any number of columns."""
    chex.assert_shape(array, (None, columns), custom_message=name)
    chex.assert_type(array, float, custom_message=name)


def all_or(valid: jax.Array | None, rows: jax.Array, *, name: str) -> jax.Array:
    """Returns a mask bool[P] of rows [P, ...]; all of them where none is given."""
    mask = jnp.ones(rows.shape[0], bool) if valid is None else valid
    chex.assert_shape(mask, rows.shape[:1], custom_message=name)
    return mask


def _pack_genome(genome: jax.Array, cardinalities: Sequence[int]) -> tuple[jax.Array, ...]:
    """Writes genomes as mixed-radix numbers, as many genes to a 32-bit word as fit.

    Args:
        genome: int32[..., G], every gene within its cardinality.
        cardinalities: G values, static.

    Returns:
        words uint32[...]: two genomes have equal words exactly if they are equal.

    Raises:
        AssertionError: If the last axis has another length than cardinalities.
    """
    chex.assert_shape(genome, (*genome.shape[:-1], len(cardinalities)), custom_message="genome")
    words: list[jax.Array] = []
    room = 0
    for gene, cardinality in enumerate(cardinalities):
        value = genome[..., gene].astype(jnp.uint32)
        if room * cardinality > _RANGE or not words:
            words.append(value)
            room = cardinality
        else:
            words[-1] = words[-1] * jnp.uint32(cardinality) + value
            room *= cardinality
    return tuple(words)


def first_occurrences(genomes: jax.Array, cardinalities: Sequence[int]) -> jax.Array:
    """Marks every genome that no earlier row equals.

    Args:
        genomes: int32[P, G], every gene within its cardinality.
        cardinalities: G values, static.

    Returns:
        bool[P].

    Raises:
        AssertionError: If G does not fit.
    """
    words = _pack_genome(genomes, cardinalities)
    place = jnp.arange(genomes.shape[0], dtype=jnp.int32)
    *ordered, origin = jax.lax.sort((*words, place), num_keys=len(words), is_stable=True)
    return jnp.zeros(place.shape, bool).at[origin].set(_changes(ordered), unique_indices=True)


def _first_live(genomes: jax.Array, *, live: jax.Array) -> jax.Array:
    """Marks every live genome that no earlier live row equals, for genes of any range.

    Rows are sorted by one gene after the other, from the last to the first: G sorts of one key, which compile as
    one.

    Args:
        genomes: int32[P, G].
        live: bool[P], which rows count at all.

    Returns:
        bool[P].

    Raises:
        AssertionError: If live is not of shape [P].
    """
    chex.assert_shape(live, genomes.shape[:1], custom_message="live")

    def by(order: jax.Array, column: jax.Array) -> tuple[jax.Array, None]:
        return jax.lax.sort((column[order], order), num_keys=1, is_stable=True)[1], None

    place = jnp.arange(genomes.shape[0], dtype=jnp.int32)
    columns = jnp.concatenate([genomes.T, (~live)[None, :].astype(jnp.int32)])
    order, _ = jax.lax.scan(by, place, columns, reverse=True)
    fresh = _changes(tuple(genomes[order].T))
    return live & jnp.zeros(place.shape, bool).at[order].set(fresh, unique_indices=True)


def _changes(columns: Sequence[jax.Array]) -> jax.Array:
    """Marks the rows of a sorted table that differ from the row before.

    Args:
        columns: [P] each.

    Returns:
        bool[P]: True for the first row.
    """
    fresh = reduce(jnp.logical_or, [column != jnp.roll(column, 1) for column in columns])
    return fresh | (jnp.arange(fresh.shape[0]) == 0)


_SMALL_BLOCK, _LARGE_BLOCK = 16, 2048
_CHUNK = 1024  # later rows that a small block hands its ranks on to at once
_SWEEPS = 2  # of a large block before looking whether its ranks are settled


def _no_worse(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Whether keys a are at most keys b in every objective; one array for each objective."""
    return reduce(jnp.logical_and, [mine <= theirs for mine, theirs in zip(a, b, strict=True)])


def _ranks_by_small_blocks(columns: Sequence[jax.Array]) -> jax.Array:
    """Returns the ranks int32[P] of rows by their keys int32[P], one array for each objective; quick on CPUs."""
    points = columns[0].shape[0]
    length = points + -points % _SMALL_BLOCK
    length += -length % min(length, _CHUNK)
    *ordered, origin = _sorted(_padded(columns, length), keys=len(columns))
    head, chain = _changes(ordered), _chain(ordered)
    best = _ranked_in_small_blocks(ordered[1:] or ordered, head=head & ~chain)
    return _as_given(best, head=head, chain=chain, origin=origin)[:points]


def _ranks_by_large_blocks(columns: Sequence[jax.Array]) -> jax.Array:
    """Returns the same as `_ranks_by_small_blocks` in few, large steps, which suits accelerators."""
    points = columns[0].shape[0]
    size = min(points + -points % _SMALL_BLOCK, _LARGE_BLOCK)
    padded = _padded(columns, points + -points % size)
    sums = jnp.sum(jax.lax.map(_dense_places, jnp.stack(padded)), axis=0)
    _, *ordered, origin = _sorted([sums, *padded], keys=len(columns) + 1)
    head, chain = _changes(ordered), _chain(ordered)
    best = _ranked_in_large_blocks(ordered, head=head & ~chain, size=size)
    return _as_given(best, head=head, chain=chain, origin=origin)[:points]


def _padded(columns: Sequence[jax.Array], length: int) -> list[jax.Array]:
    return [jnp.pad(column, (0, length - column.shape[0]), constant_values=_WORST) for column in columns]


def _sorted(columns: Sequence[jax.Array], *, keys: int) -> Sequence[jax.Array]:
    """Sorts rows by their first `keys` columns and appends where they came from."""
    return jax.lax.sort((*columns, jnp.arange(columns[0].shape[0], dtype=jnp.int32)), num_keys=keys, is_stable=False)


def _dense_places(keys: jax.Array) -> jax.Array:
    """How many different keys are lower: int32[Q] -> int32[Q]."""
    ordered, origin = _sorted([keys], keys=1)
    places = jnp.cumsum(_changes([ordered]).astype(jnp.int32)) - 1
    return jnp.zeros_like(keys).at[origin].set(places, unique_indices=True)


def _chain(ordered: Sequence[jax.Array]) -> jax.Array:
    """Marks the sorted rows bool[Q] that come after all others and of which any two are comparable, or equal.

    Those are the rows that break a constraint, hold a NaN or are no points, and all rows where one objective is all.
    """
    return jnp.ones(ordered[0].shape, bool) if len(ordered) == 1 else ordered[0] > _INFINITE


def _as_given(best: jax.Array, *, head: jax.Array, chain: jax.Array, origin: jax.Array) -> jax.Array:
    """Ranks of the sorted rows in the order that they came in.

    Args:
        best: int32[Q], one above the highest rank of the heads before a row that are no worse.
        head: bool[Q], rows that differ from the one before.
        chain: bool[Q], the rows of `_chain`, which `best` is not asked about.
        origin: int32[Q], where the rows came from.
    """
    ranks = best - (~head).astype(jnp.int32)  # copies received their heads' rank, one too high
    last = jnp.max(jnp.where(chain, -1, ranks))
    ranks = jnp.where(chain, last + jnp.cumsum((head & chain).astype(jnp.int32)), ranks)
    return jnp.zeros_like(ranks).at[origin].set(ranks, unique_indices=True)


def _ranked_in_small_blocks(columns: Sequence[jax.Array], *, head: jax.Array) -> jax.Array:
    """Returns int32[Q], one above the highest rank of the heads before a row that are no worse."""
    length = head.shape[0]
    chunk = min(length, _CHUNK)
    place = jnp.arange(length, dtype=jnp.int32)

    def block(index: jax.Array, best: jax.Array) -> jax.Array:
        start = index * _SMALL_BLOCK
        mine, heads = [_cut(column, start, _SMALL_BLOCK) for column in columns], _cut(head, start, _SMALL_BLOCK)
        ranks = _one_by_one(mine, _cut(best, start, _SMALL_BLOCK), head=heads)
        best = jax.lax.dynamic_update_slice(best, ranks, (start,))
        scores = jnp.where(heads, ranks + 1, 0)

        def push(index: jax.Array, best: jax.Array) -> jax.Array:
            at = index * chunk
            rows, old = [_cut(column, at, chunk) for column in columns], _cut(best, at, chunk)
            hits = [jnp.where(_no_worse([key[k] for key in mine], rows), scores[k], 0) for k in range(_SMALL_BLOCK)]
            later = _cut(place, at, chunk) >= start + _SMALL_BLOCK
            new = jnp.where(later, reduce(jnp.maximum, hits, old), old)
            return jax.lax.dynamic_update_slice(best, new, (at,))

        return jax.lax.fori_loop((start + _SMALL_BLOCK) // chunk, length // chunk, push, best)

    return jax.lax.fori_loop(0, length // _SMALL_BLOCK, block, jnp.zeros_like(place))


def _one_by_one(columns: Sequence[jax.Array], best: jax.Array, *, head: jax.Array) -> jax.Array:
    """What `best` becomes by the rows of the block itself, one after the other: int32[B] -> int32[B]."""
    row = jnp.arange(_SMALL_BLOCK)

    def pass_on(k: jax.Array, ranks: jax.Array) -> jax.Array:
        below = head[k] & (row > k) & _no_worse([column[k] for column in columns], columns)
        return jnp.maximum(ranks, jnp.where(below, ranks[k] + 1, 0))

    return jax.lax.fori_loop(0, _SMALL_BLOCK, pass_on, best)


def _ranked_in_large_blocks(columns: Sequence[jax.Array], *, head: jax.Array, size: int) -> jax.Array:
    """Returns int32[Q] as `_ranked_in_small_blocks` does, in a step for each block and a few for each of its chains."""
    length = head.shape[0]
    place = jnp.arange(length, dtype=jnp.int32)

    def block(best: jax.Array, start: jax.Array) -> tuple[jax.Array, None]:
        mine, heads = [_cut(column, start, size) for column in columns], _cut(head, start, size)
        ranks = _settled(mine, _cut(best, start, size), head=heads)
        best = jax.lax.dynamic_update_slice(best, ranks, (start,))
        hits = heads[:, None] & _no_worse([key[:, None] for key in mine], [column[None] for column in columns])
        handed = jnp.max(jnp.where(hits, ranks[:, None] + 1, 0), axis=0)
        return jnp.where(place >= start + size, jnp.maximum(best, handed), best), None

    return jax.lax.scan(block, jnp.zeros_like(place), size * jnp.arange(length // size, dtype=jnp.int32))[0]


def _settled(columns: Sequence[jax.Array], best: jax.Array, *, head: jax.Array) -> jax.Array:
    """What `best` becomes by the rows of the block itself, all at once until nothing rises: int32[B] -> int32[B]."""
    row = jnp.arange(head.shape[0])
    above = head[:, None] & (row[:, None] < row[None])
    above = above & _no_worse([key[:, None] for key in columns], [key[None] for key in columns])

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


_WORST = 2**31 - 1
_INFINITE = 0x7F800000  # the bits of +inf
_INFEASIBLE = _INFINITE + 1


def _dominance_keys(fitness: jax.Array, violation: jax.Array | None = None) -> jax.Array:
    """Maps fitness to integers that compare the same way, NaN rows to the worst of all.

    Args:
        fitness: float32[P, M], minimised.
        violation: float32[P], at least 0, by how much each row breaks its constraints; None: by nothing.

    Returns:
        int32[P, M]: keys[i] <= keys[j] exactly where fitness[i] <= fitness[j]; all of a NaN row above +inf. A row
            that breaks a constraint has one key in all columns, which is above those of all feasible rows and
            rises with the violation (constraint domination, Deb et al. 2002, section VI); NaN rows stay the worst.
    """
    assert_matrix("fitness", fitness)
    values = fitness.astype(jnp.float32)
    values = jnp.where(values == 0, jnp.zeros_like(values), values)  # -0.0 and 0.0 are one value
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    keys = jnp.where(bits < 0, bits ^ jnp.int32(_WORST), bits)
    missing = jnp.any(jnp.isnan(values), axis=1)
    if violation is not None:
        chex.assert_shape(violation, fitness.shape[:1], custom_message="violation")
        # How many rows break less: far below the room between +inf and the worst.
        levels = jnp.searchsorted(jnp.sort(violation), violation, method="sort").astype(jnp.int32)
        keys = jnp.where((violation > 0)[:, None], _INFEASIBLE + levels[:, None], keys)
        missing = missing | jnp.isnan(violation)
    return jnp.where(missing[:, None], jnp.int32(_WORST), keys)


def _dominates(a: jax.Array, b: jax.Array) -> jax.Array:
    """Whether keys a dominate keys b, objectives along the leading axis, the rest broadcast."""
    better = reduce(jnp.logical_or, [a[m] < b[m] for m in range(a.shape[0])])
    return _no_worse(tuple(a), tuple(b)) & better


@jax.jit
def non_dominated_ranks(
    fitness: jax.Array, *, violation: jax.Array | None = None, valid: jax.Array | None = None
) -> jax.Array:
    """Sorts points into fronts: 0 for those that nothing dominates, 1 for the next once those are gone.

    Equal points do not dominate each other and share a rank. Rows are sorted so that what dominates a row stands before
    it: its rank is one above the highest of those. Every pair is compared about once, in O(P^2 M) time whatever the
    number of fronts, in memory O(P M); on accelerators twice, and those within a block once more for every front of it.

    Args:
        fitness: float32[P, M], minimised.
        violation: float32[P], by how much each row breaks its constraints; None: by nothing. A row that breaks one
            comes after all that break none, by its violation (constraint domination, section VI).
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        int32[P]: the rank; P for rows that are not valid.

    Raises:
        AssertionError: If fitness is no floating matrix, or violation or valid is not of shape [P].

    Source: Deb et al. 2002, section III-A, for what the fronts are.
    """
    keys = _dominance_keys(fitness, violation)
    valid = all_or(valid, fitness, name="valid")
    columns = tuple(jnp.where(valid[None, :], keys.T, _WORST))
    ranks = jax.lax.platform_dependent(columns, cpu=_ranks_by_small_blocks, default=_ranks_by_large_blocks)
    return jnp.where(valid, ranks, jnp.int32(keys.shape[0]))


@jax.jit
def non_dominated_mask(fitness: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Marks the points of the first front, in memory proportional to P.

    Args:
        fitness: float32[P, M], minimised.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        bool[P]: valid and dominated by no valid row. All of several equal points are kept.

    Raises:
        AssertionError: If fitness is no floating matrix, or valid is not of shape [P].
    """
    keys = _dominance_keys(fitness)
    valid = all_or(valid, fitness, name="valid")
    return valid & ~_dominated_by(keys, jnp.where(valid[:, None], keys, jnp.int32(_WORST)))


@jax.jit
def ratio_of_dominance(
    a: jax.Array, b: jax.Array, *, valid_a: jax.Array | None = None, valid_b: jax.Array | None = None
) -> jax.Array:
    """The share of b's points that some point of a dominates.

    Args:
        a: float32[P, M], minimised.
        b: float32[Q, M], minimised. A row with a NaN is dominated by every row of a without one.
        valid_a: bool[P], which rows of a are points at all; None for all of them.
        valid_b: bool[Q], the same for b.

    Returns:
        float32[]: within 0 .. 1; 0 where b has no point.

    Raises:
        AssertionError: If a or b is no floating matrix, their M differ, or a mask does not fit.

    Source: HADAS (https://arxiv.org/abs/2212.03354), RoD(A, B).
    """
    assert_matrix("a", a)
    assert_matrix("b", b, columns=a.shape[1])
    first, second = all_or(valid_a, a, name="valid_a"), all_or(valid_b, b, name="valid_b")
    others = _dominance_keys(jnp.where(first[:, None], a, jnp.nan))
    beaten = second & _dominated_by(_dominance_keys(b), others)
    count = jnp.sum(second, dtype=jnp.float32)
    return jnp.sum(beaten, dtype=jnp.float32) / jnp.maximum(count, 1)


def _dominated_by(keys: jax.Array, others: jax.Array) -> jax.Array:
    """Marks the rows that some row of another array dominates.

    Args:
        keys: int32[P, M] from `_dominance_keys`.
        others: int32[Q, M] from `_dominance_keys`.

    Returns:
        bool[P]: whether any row of others dominates the row of keys.
    """
    ways = (partial(_dominated_by_blocks, size=size) for size in (_SMALL_BLOCK, _LARGE_BLOCK))
    return jax.lax.platform_dependent(keys, others, cpu=next(ways), default=next(ways))


def _dominated_by_blocks(keys: jax.Array, others: jax.Array, *, size: int) -> jax.Array:
    """Compares with a block of the others at once: row by row in small blocks, all pairs in large ones."""
    spare = -others.shape[0] % size
    blocks = jnp.pad(others, ((0, spare), (0, 0)), constant_values=_WORST).reshape(-1, size, others.shape[1])
    columns = keys.T

    def step(seen: jax.Array, block: jax.Array) -> tuple[jax.Array, None]:
        if size > _SMALL_BLOCK:
            return seen | jnp.any(_dominates(block.T[:, :, None], columns[:, None, :]), axis=0), None
        hits = [_dominates(block[k][:, None], columns) for k in range(size)]
        return reduce(jnp.logical_or, hits, seen), None

    return jax.lax.scan(step, jnp.zeros(keys.shape[0], bool), blocks)[0]


def _gaps(values: jax.Array, ranks: jax.Array) -> jax.Array:
    """Distance between the neighbours in the own front, +inf at its ends: float32[P], int32[P] -> float32[P]."""
    place = jnp.arange(values.shape[0], dtype=jnp.int32)
    front, value, origin = jax.lax.sort((ranks, values, place), num_keys=2, is_stable=True)
    first = _changes([front])
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
        AssertionError: If fitness is no floating matrix, or ranks is not of shape [P].

    Source: Deb et al. 2002, section III-B.
    """
    assert_matrix("fitness", fitness)
    chex.assert_shape(ranks, fitness.shape[:1], custom_message="ranks")
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
        size: How many to return, at most P.

    Returns:
        int32[size]: indices, the best first.

    Raises:
        ValueError: If size is not within 1 .. P.
        AssertionError: If the shapes differ.
    """
    P = ranks.shape[0]
    chex.assert_shape(crowding, ranks.shape, custom_message="crowding")
    if not 0 < size <= P:
        raise ValueError(f"size: expected 1 .. {P}, got {size}")
    place = jnp.arange(P, dtype=jnp.int32)
    return jax.lax.sort((ranks, -crowding, place), num_keys=2, is_stable=True)[2][:size]


@struct.dataclass
class Archive:
    """The non-dominated genomes of all that were ever inserted, N at most, the least crowded first.

    Where more are non-dominated than fit, the most crowded go, as in Deb et al. 2002. B genomes are inserted at once.

    Attributes:
        genomes: int32[N, G]; -1 where not valid.
        fitness: float32[N, M]; +inf where not valid.
        violation: float32[N], by how much each member breaks its constraints; +inf where not valid.
        valid: bool[N].
    """

    genomes: jax.Array
    fitness: jax.Array
    violation: jax.Array
    valid: jax.Array

    @classmethod
    def empty(cls, capacity: int, genes: int, objectives: int) -> "Archive":
        """Returns an archive without members, of capacity N, for genomes of G genes and M objectives.

        Raises:
            ValueError: If any of them is below 1.
        """
        for name, value in (("capacity", capacity), ("genes", genes), ("objectives", objectives)):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        return cls(
            genomes=jnp.full((capacity, genes), -1, jnp.int32),
            fitness=jnp.full((capacity, objectives), jnp.inf, jnp.float32),
            violation=jnp.full(capacity, jnp.inf, jnp.float32),
            valid=jnp.zeros(capacity, bool),
        )


@jax.jit
def insert(archive: Archive, genomes: jax.Array, fitness: jax.Array, *, violation: jax.Array | None = None) -> Archive:
    """Adds genomes and keeps the non-dominated ones.

    A genome that is a member already, or stands earlier among the new ones, is not looked at again. Rows with a NaN
    never enter. Until something feasible comes, the members are those that break their constraints least. Where
    more than N are left, those of the greatest crowding distance stay; that of the ends of each objective is
    infinite, so that they stay if N is at least 2 M.

    Args:
        archive: Of capacity N.
        genomes: int32[B, G].
        fitness: float32[B, M].
        violation: float32[B], at least 0, by how much each genome breaks its constraints; None: by nothing.

    Returns:
        The archive after that: the non-dominated ones of its members and the new genomes.

    Raises:
        AssertionError: For a wrong shape or dtype of genomes, fitness or violation.
    """
    B = genomes.shape[0]
    assert_matrix("fitness", fitness, columns=archive.fitness.shape[1])
    chex.assert_shape(genomes, (fitness.shape[0], archive.genomes.shape[1]), custom_message="genomes")
    chex.assert_type(genomes, jnp.int32, custom_message="genomes")
    broken = jnp.zeros(B, jnp.float32) if violation is None else violation.astype(jnp.float32)
    chex.assert_shape(broken, (B,), custom_message="violation")
    values = fitness.astype(jnp.float32)
    new = Archive(genomes, values, broken, ~(jnp.any(jnp.isnan(values), axis=1) | jnp.isnan(broken)))
    merged = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), archive, new)
    unique = _first_live(merged.genomes, live=merged.valid)
    ranks = non_dominated_ranks(merged.fitness, violation=merged.violation, valid=unique)
    kept = truncate(ranks, crowding_distance(merged.fitness, ranks), size=archive.valid.shape[0])
    member = ranks[kept] == 0
    chosen = jax.tree.map(lambda leaf: leaf[kept], merged)
    return Archive(
        genomes=jnp.where(member[:, None], chosen.genomes, -1),
        fitness=jnp.where(member[:, None], chosen.fitness, jnp.inf),
        violation=jnp.where(member, chosen.violation, jnp.inf),
        valid=member,
    )
