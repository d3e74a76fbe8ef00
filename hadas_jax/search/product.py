"""Exact search over every pair of a configuration and an operating point, in bounded memory, and its exact front.

A configuration s has an error and runs segment d frequencies[s, d] times on average; at operating point f a segment
costs latency[d, f] and energy[d, f]. The candidate (s, f) has the objectives
(errors[s], frequencies[s] @ latency[:, f], frequencies[s] @ energy[:, f]), all minimised.
Configurations are streamed in chunks: two matrix products give the costs of a chunk at a tile of operating points. How
many configurations and which points are visited may be traced; what is not visited costs no time.
For the front they come by rising error. A table keeps the least energy seen so far in every latency bin; a candidate
goes if a bin strictly before its own holds at most its energy, for that one is faster, no worse in error and no worse
in energy. The few that are left are compared exactly, by a sweep in the order of the error (Kung, Luccio and Preparata,
"On finding the maxima of a set of vectors", 1975, https://doi.org/10.1145/321906.321910).
Candidates with an objective that is not finite (a configuration of infinite error, say) are no candidates at all.
Shapes: S configurations, F operating points, D segments, L error levels, B latency bins, C configurations of a chunk, P
points of a tile, Q points to visit, N capacity of a front.
Units: error as given; latency and energy in those of the inputs.
"""

import dataclasses
from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.indicators import pairwise_sum
from hadas_jax.search.pareto import assert_matrix

_CHUNK, _ACCELERATOR_CHUNK = 2**18, 2**22
_TILE = 128
_GUIDE = 4096
_BINS = 512
_BLOCK = 256
_RANGE = 2.0**-12
_WORD = 32
Carry = TypeVar("Carry")


@struct.dataclass
class Product:
    """All pairs of some configurations and operating points.

    Attributes:
        errors: float32[S]; +inf for configurations that are not feasible.
        frequencies: float32[S, D], at least 0.
        latency: float32[D, F], at least 0.
        energy: float32[D, F].
        configs: int32[], only the first so many configurations are candidates; None for all.
        points: int32[Q], the operating points that are candidates, and -1 behind them; None for all.
        paths: float32[S, D], the segments of one path of each configuration, whose latency is limited; None: nothing
            is.
        longest: float32[], with `paths`: candidates with a path of more latency are none.
    """

    errors: jax.Array
    frequencies: jax.Array
    latency: jax.Array
    energy: jax.Array
    configs: jax.Array | None = None
    points: jax.Array | None = None
    paths: jax.Array | None = None
    longest: jax.Array | None = None

    def check(self) -> None:
        """Asserts that the arrays fit together: an AssertionError names the one that does not."""
        chex.assert_rank(self.frequencies, 2, custom_message="frequencies")
        chex.assert_rank(self.latency, 2, custom_message="latency")
        (S, D), F = self.frequencies.shape, self.latency.shape[1]
        shapes = {"errors": (S,), "latency": (D, F), "energy": (D, F)}
        for name, shape in shapes.items():
            chex.assert_shape(getattr(self, name), shape, custom_message=name)
        for name in ("frequencies", "latency", "energy"):
            chex.assert_type(getattr(self, name), float, custom_message=name)


class Chunk(NamedTuple):
    """The candidates of C configurations at P operating points; costs are +inf where there is no candidate.

    Attributes:
        config: int32[C].
        point: int32[P].
        error: float32[C].
        latency: float32[C, P].
        energy: float32[C, P].
        fresh: bool[], whether this is the first tile of these configurations.
    """

    config: jax.Array
    point: jax.Array
    error: jax.Array
    latency: jax.Array
    energy: jax.Array
    fresh: jax.Array


def stream(step: Callable[[Carry, Chunk], Carry], carry: Carry, product: Product) -> Carry:
    """Folds a step over all candidates, a chunk of configurations at a time, in their order.

    Args:
        step: (carry, Chunk) -> carry.
        carry: What the first step gets.
        product: The candidates.

    Returns:
        What the last step returned. A chunk holds about 2^18 candidates on a CPU and 2^22 elsewhere, where every
        step costs time, at least one configuration; its configurations see all points at once where `points` is None,
        otherwise tile after tile of up to 128.
    """
    ways = (partial(_streamed, step, at_once=at_once) for at_once in (_CHUNK, _ACCELERATOR_CHUNK))
    return jax.lax.platform_dependent(carry, product, cpu=next(ways), default=next(ways))


def _streamed(step: Callable[[Carry, Chunk], Carry], carry: Carry, product: Product, *, at_once: int) -> Carry:
    """Folds a step over all candidates with chunks of about so many."""
    configs, points = product.configs, product.points
    S, F = product.frequencies.shape[0], product.latency.shape[1]
    visited = jnp.arange(F, dtype=jnp.int32) if points is None else points
    P = F if points is None else min(len(points), _TILE)
    C = max(1, min(S, at_once // P))
    visited = jnp.pad(visited, (0, -len(visited) % P), constant_values=-1)
    chunks = -(-S // C) if configs is None else (jnp.minimum(configs, S) + C - 1) // C
    tiles = 1 if points is None else (jnp.sum(visited >= 0, dtype=jnp.int32) + P - 1) // P
    padded = jnp.pad(product.errors.astype(jnp.float32), (0, -S % C), constant_values=jnp.inf)
    rows = jnp.pad(product.frequencies.astype(jnp.float32), ((0, -S % C), (0, 0)))
    paths = None if product.paths is None else jnp.pad(product.paths.astype(jnp.float32), ((0, -S % C), (0, 0)))
    costs = [
        jnp.take(cost.astype(jnp.float32), jnp.maximum(visited, 0), axis=1)
        for cost in (product.latency, product.energy)
    ]

    matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def chunk(c: jax.Array, t: jax.Array) -> Chunk:
        config = c * C + jnp.arange(C, dtype=jnp.int32)
        error = jax.lax.dynamic_slice_in_dim(padded, c * C, C)
        frequency = jax.lax.dynamic_slice_in_dim(rows, c * C, C)
        point = jax.lax.dynamic_slice_in_dim(visited, t * P, P)
        tile = [jax.lax.dynamic_slice_in_dim(cost, t * P, P, axis=1) for cost in costs]
        times, joules = (matmul(frequency, cost) for cost in tile)
        feasible = jnp.isfinite(error) if configs is None else jnp.isfinite(error) & (config < configs)
        real = jnp.isfinite(times) & jnp.isfinite(joules) & feasible[:, None] & (point >= 0)[None, :]
        if paths is not None and product.longest is not None:
            path = jax.lax.dynamic_slice_in_dim(paths, c * C, C)
            real = real & (matmul(path, tile[0]) <= product.longest)
        return Chunk(config, point, error, jnp.where(real, times, jnp.inf), jnp.where(real, joules, jnp.inf), t == 0)

    def over_tiles(c: jax.Array, carry: Carry) -> Carry:
        return jax.lax.fori_loop(0, tiles, lambda t, inner: step(inner, chunk(c, t)), carry)

    return jax.lax.fori_loop(0, chunks, over_tiles, carry)


def _cell_minima(bins: jax.Array, values: jax.Array, *, size: int) -> jax.Array:
    """The least value of every row in every bin.

    Args:
        bins: int32[C, F], within 0 .. size - 1.
        values: float32[C, F].
        size: Number of bins.

    Returns:
        float32[C, size]: +inf for empty bins.
    """
    rows = jnp.broadcast_to(jnp.arange(bins.shape[0], dtype=jnp.int32)[:, None], bins.shape)
    empty = jnp.full((bins.shape[0], size), jnp.inf, values.dtype)
    return empty.at[rows, bins].min(values, mode="promise_in_bounds")


def fill_cells(table: jax.Array, chunk: Chunk, *, error_levels: jax.Array, latency_edges: jax.Array) -> jax.Array:
    """Enters the candidates of a chunk into a grid over error and latency: the least energy of every cell.

    Args:
        table: float32[L + 1, B + 1]; the last row and column take what lies above the last level and edge.
        chunk: The candidates.
        error_levels: float32[L], ascending upper ends: level l holds errors in (levels[l - 1], levels[l]].
        latency_edges: float32[B], ascending upper ends of the latency bins, likewise.

    Returns:
        float32[L + 1, B + 1].
    """
    level = jnp.searchsorted(error_levels, chunk.error, method="scan_unrolled")
    cells = _cell_minima(guided_bins(latency_edges, chunk.latency), chunk.energy, size=table.shape[1])
    return table.at[level, :].min(cells)


def guided_bins(edges: jax.Array, values: jax.Array) -> jax.Array:
    """`jnp.searchsorted` for many values of at least 0 and few edges.

    The leading bits of a value look up how many edges lie below all values that share them; then it climbs past
    the edges in between, of which edges spaced by a ratio leave at most one or two.

    Args:
        edges: float32[B], ascending.
        values: float32[...], at least 0; +inf is above all edges.

    Returns:
        int32[...]: the number of edges below each value.
    """
    low, top = (_float_bits(jnp.maximum(edge, 0)) for edge in (edges[0], edges[-1]))
    shift = _WORD - jax.lax.clz((top - low) // _GUIDE)
    starts = low + jnp.minimum(jnp.left_shift(jnp.arange(_GUIDE, dtype=jnp.int32), shift), top - low)
    guide = jnp.searchsorted(edges, jax.lax.bitcast_convert_type(starts, jnp.float32)).astype(jnp.int32).at[0].set(0)
    place = jnp.right_shift(jnp.maximum(_float_bits(values) - low, 0), jnp.broadcast_to(shift, values.shape))
    fence = jnp.append(edges, jnp.inf)

    def climb(_: jax.Array, bins: jax.Array) -> jax.Array:
        return bins + (fence[bins] < values).astype(jnp.int32)

    steps = jnp.max(jnp.diff(guide, append=jnp.int32(len(edges))[None]))
    return jax.lax.fori_loop(0, steps, climb, guide[jnp.minimum(place, _GUIDE - 1)])


def _float_bits(values: jax.Array) -> jax.Array:
    """The bits of floats of at least 0: int32 that rise with the value, about as its logarithm does.

    Args:
        values: float32[...].

    Returns:
        int32[...].
    """
    return jax.lax.bitcast_convert_type(values, jnp.int32)


@jax.jit
def grid_hypervolume(
    table: jax.Array, *, error_levels: jax.Array, latency_edges: jax.Array, reference: jax.Array
) -> jax.Array:
    """A lower bound of the hypervolume of all candidates, from a grid of `fill_cells`.

    Whatever a cell holds lies at or below the cell's upper ends, so the boxes between the upper ends, as high
    as the best energy at or below them leaves, are dominated. The bound rises to the exact value as the grid
    gets finer.

    Args:
        table: float32[L, B], the least energy of every cell, +inf for empty ones.
        error_levels: float32[L], as for `fill_cells`.
        latency_edges: float32[B], as for `fill_cells`.
        reference: float32[3], (error, latency, energy).

    Returns:
        float32[]: the bound, at least 0.
    """
    chex.assert_shape(table, (*error_levels.shape, *latency_edges.shape), custom_message="table")
    chex.assert_shape(reference, (3,), custom_message="reference")
    least = jax.lax.cummin(jax.lax.cummin(table, axis=0), axis=1)
    height = jnp.maximum(reference[2] - least, 0)
    depth = _widths(error_levels, reference[0])
    width = _widths(latency_edges, reference[1])
    return pairwise_sum(depth * jax.vmap(pairwise_sum)(height * width[None, :]))


def _widths(ends: jax.Array, last: jax.Array) -> jax.Array:
    """Distance from every end to the next, all cut off at the last."""
    cut = jnp.minimum(ends, last)
    return jnp.append(cut[1:], last) - cut


@struct.dataclass
class ProductFront:
    """A front of fixed capacity N, sorted by error, then latency, then energy.

    Attributes:
        config: int32[N]; -1 where not valid.
        point: int32[N], the operating point; -1 where not valid.
        objectives: float32[N, 3], (error, latency, energy); +inf where not valid.
        valid: bool[N].
        size: int32[], the number of members. Above N the capacity was too small: candidates were lost, the
            members are not the front, and a capacity of `size` is enough.
    """

    config: jax.Array
    point: jax.Array
    objectives: jax.Array
    valid: jax.Array
    size: jax.Array


class _Kept(NamedTuple):
    """Candidates in a buffer of capacity N, and N more so that a whole block can be written at any offset."""

    error: jax.Array
    latency: jax.Array
    energy: jax.Array
    config: jax.Array
    point: jax.Array


class _Sweep(NamedTuple):
    """Least energies by latency bin before and after the configurations at hand, and the candidates that are left."""

    before: jax.Array
    after: jax.Array
    kept: _Kept
    left: jax.Array


@partial(jax.jit, static_argnames=("capacity",))
def product_front(product: Product, *, capacity: int) -> ProductFront:
    """Finds all candidates that no other dominates; of equal objectives the first configuration, then point, is kept.

    Args:
        product: The candidates.
        capacity: N, how many candidates the exact comparison can hold: the front and those close to it.

    Returns:
        The front; `size` above capacity says that it did not fit.

    Raises:
        ValueError: A capacity below 1.
        AssertionError: Arrays that do not fit together.
    """
    product.check()
    if capacity < 1:
        raise ValueError(f"capacity: expected at least 1, got {capacity}")
    errors = product.errors
    if product.configs is not None:
        errors = jnp.where(jnp.arange(len(errors)) < product.configs, errors, jnp.inf)
    order = jnp.argsort(errors, stable=True).astype(jnp.int32)
    rising, rows = errors[order].astype(jnp.float32), product.frequencies[order]
    feasible = jnp.sum(jnp.isfinite(rising), dtype=jnp.int32)
    low, shift = _scale(rising, rows, product.latency)

    def step(carry: _Sweep, chunk: Chunk) -> _Sweep:
        # Tiles of the same configurations see what earlier ones left: an earlier tile also holds some of higher error.
        least = jnp.where(chunk.fresh, carry.after, carry.before)
        kept, count = carry.kept, carry.left
        bins = _bins(chunk.latency, low, shift)
        cells = jax.lax.cummin(_cell_minima(bins, chunk.energy, size=_BINS), axis=1)
        before = jnp.concatenate([jnp.full((cells.shape[0], 1), jnp.inf), cells[:, :-1]], axis=1)
        seen = jax.lax.cummin(before.at[0].min(least), axis=0)
        survives = chunk.energy < jnp.take_along_axis(seen, bins, axis=1, mode="promise_in_bounds")
        where, selected = _select(survives.reshape(-1), capacity)
        kept = _append(kept, chunk, where=where, offset=jnp.minimum(count, capacity))
        return _Sweep(least, jnp.minimum(carry.after, seen[-1]), kept, count + selected)

    nothing = jnp.full(_BINS, jnp.inf)
    cost, index = jnp.full(2 * capacity, jnp.inf, jnp.float32), jnp.full(2 * capacity, -1, jnp.int32)
    start = _Sweep(nothing, nothing, _Kept(cost, cost, cost, index, index), jnp.int32(0))
    paths = None if product.paths is None else product.paths[order]
    sorted_product = dataclasses.replace(product, errors=rising, frequencies=rows, configs=feasible, paths=paths)
    end = stream(step, start, sorted_product)
    kept = _Kept(*(field[:capacity] for field in end.kept))
    config = jnp.where(kept.config < 0, kept.config, order[kept.config])
    return _exact(kept._replace(config=config), end.left)


def whole_product_front(product: Product, *, capacity: int = 4096) -> ProductFront:
    """`product_front` with as much capacity as it takes; runs on the host, so it cannot be traced.

    Args:
        product: The candidates.
        capacity: What to try first; doubled until everything fits.
    """
    while True:
        front = product_front(product, capacity=capacity)
        wanted = int(front.size)
        if wanted <= capacity:
            return front
        while capacity < wanted:
            capacity *= 2


@partial(jax.jit, static_argnames=("capacity",))
def listed_front(objectives: jax.Array, *, capacity: int) -> tuple[jax.Array, jax.Array]:
    """The front of candidates that were evaluated one by one; of equal ones the first is kept.

    Args:
        objectives: float32[Q, 3], all to be minimised; rows with a value that is not finite are no candidates.
        capacity: N, how many members to return.

    Returns:
        int32[N]: the members, sorted by their objectives from the first to the last, -1 where there are no more;
            and int32[]: how many there are, which may be above N.

    Raises:
        ValueError: A capacity outside 1 .. Q.
        AssertionError: If objectives is no floating matrix of three columns.
    """
    assert_matrix("objectives", objectives, columns=3)
    rows = jnp.arange(objectives.shape[0], dtype=jnp.int32)
    if not 0 < capacity <= len(rows):
        raise ValueError(f"capacity: expected 1 .. {len(rows)}, got {capacity}")
    real = jnp.all(jnp.isfinite(objectives), axis=1)
    error, latency, energy = jnp.where(real[:, None], objectives, jnp.inf).T
    front = _exact(_Kept(error, latency, energy, jnp.where(real, rows, -1), jnp.zeros_like(rows)), jnp.int32(0))
    return front.config[:capacity], front.size


def _scale(errors: jax.Array, frequencies: jax.Array, latency: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the latency bins start, as a float's bits, and how many bits apart they are: int32[], int32[]."""
    feasible = jnp.isfinite(errors)
    shortest = jnp.where(feasible, frequencies @ jnp.min(latency, axis=1), jnp.inf)
    longest = jnp.where(feasible, frequencies @ jnp.max(latency, axis=1), 0)
    top = jnp.max(longest).astype(jnp.float32)
    low = _float_bits(jnp.clip(jnp.min(shortest).astype(jnp.float32), top * _RANGE, top))
    steps = (_float_bits(top) - low) // _BINS
    return low, _WORD - jax.lax.clz(jnp.maximum(steps, 0))


def _bins(latency: jax.Array, low: jax.Array, shift: jax.Array) -> jax.Array:
    """Bins that never fall when the latency rises: float32[C, F] -> int32[C, F]."""
    above = jnp.maximum(_float_bits(jnp.maximum(latency, 0)), low) - low
    return jnp.minimum(jnp.right_shift(above, jnp.broadcast_to(shift, above.shape)), _BINS - 1)


def _select(flags: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Places of the set flags in a fixed order: bool[n] -> int32[size] (-1: no more), and their number."""
    rows = jnp.pad(flags, (0, -flags.shape[0] % _WORD)).reshape(_WORD, -1).astype(jnp.uint32)
    words = reduce(jnp.bitwise_or, [rows[b] << b for b in range(_WORD)])
    ends = jnp.cumsum(jax.lax.population_count(words).astype(jnp.int32))
    slot = jnp.arange(size, dtype=jnp.int32)
    index = jnp.searchsorted(ends, slot, side="right").astype(jnp.int32)
    index = jnp.minimum(index, words.shape[0] - 1)
    word = words[index]
    rest = slot - (ends[index] - jax.lax.population_count(word).astype(jnp.int32))
    bit = jnp.zeros(size, jnp.int32)
    for half in (16, 8, 4, 2, 1):  # the bit of a word that has `rest` set bits below it, by halving
        lower = (word >> bit.astype(jnp.uint32)) & jnp.uint32(2**half - 1)
        count = jax.lax.population_count(lower).astype(jnp.int32)
        above = rest >= count
        rest, bit = jnp.where(above, rest - count, rest), jnp.where(above, bit + half, bit)
    return jnp.where(slot < ends[-1], bit * words.shape[0] + index, -1), ends[-1]


def _append(kept: _Kept, chunk: Chunk, *, where: jax.Array, offset: jax.Array) -> _Kept:
    """Writes the chosen candidates of a chunk at an offset; what lies behind them is empty."""
    real, place = where >= 0, jnp.maximum(where, 0)
    row, column = jnp.divmod(place, chunk.latency.shape[1])
    costs = (chunk.error[row], chunk.latency.reshape(-1)[place], chunk.energy.reshape(-1)[place])
    fields = [jnp.where(real, cost, jnp.inf) for cost in costs]
    fields += [jnp.where(real, index, -1) for index in (chunk.config[row], chunk.point[column])]
    write = jax.lax.dynamic_update_slice
    return _Kept(*(write(old, new, (offset,)) for old, new in zip(kept, fields, strict=True)))


def _exact(kept: _Kept, count: jax.Array) -> ProductFront:
    """Sorts candidates, drops those that another one dominates or repeats, and moves the rest to the head."""
    kept = _Kept(*jax.lax.sort(tuple(kept), num_keys=5))
    valid = (kept.config >= 0) & ~_beaten(kept.latency, kept.energy)
    _, order = jax.lax.sort((~valid, jnp.arange(valid.shape[0])), num_keys=1, is_stable=True)
    objectives = jnp.stack(kept[:3], axis=1)
    valid = valid[order]
    size = jnp.where(count > valid.shape[0], count, jnp.sum(valid, dtype=jnp.int32))
    return ProductFront(
        config=jnp.where(valid, kept.config[order], -1),
        point=jnp.where(valid, kept.point[order], -1),
        objectives=jnp.where(valid[:, None], objectives[order], jnp.inf),
        valid=valid,
        size=size,
    )


def _beaten(latency: jax.Array, energy: jax.Array) -> jax.Array:
    """Whether an earlier row is no slower and takes no more energy: float32[N], float32[N] -> bool[N].

    Blocks of rows: the least energy of earlier blocks by latency rank answers for those, pairs for the block
    itself.
    """
    N = latency.shape[0]
    sorted_latency = jnp.sort(latency)
    rank = jnp.searchsorted(sorted_latency, latency).astype(jnp.int32)
    spare = -N % _BLOCK
    ranks = jnp.pad(rank, (0, spare), constant_values=N - 1).reshape(-1, _BLOCK)
    energies = jnp.pad(energy, (0, spare), constant_values=jnp.inf).reshape(-1, _BLOCK)
    earlier = jnp.arange(_BLOCK)[:, None] < jnp.arange(_BLOCK)[None, :]

    def step(least: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rank, energy = block
        before = jax.lax.cummin(least)[rank] <= energy
        pairs = earlier & (rank[:, None] <= rank[None, :]) & (energy[:, None] <= energy[None, :])
        return least.at[rank].min(energy), before | jnp.any(pairs, axis=0)

    return jax.lax.scan(step, jnp.full(N, jnp.inf), (ranks, energies))[1].reshape(-1)[:N]
