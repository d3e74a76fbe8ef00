"""The exact non-dominated set of every pair of a configuration and an operating point.

Terms and shapes are those of `hadas_jax.search.product`; N is the capacity. Configurations are streamed by rising
error. A table keeps the least energy seen so far in every latency bin; a candidate goes if a bin strictly
before its own holds at most its energy, for that one is faster, no worse in error and no worse in energy. The
few that are left are compared exactly, by a sweep in the order of the error (Kung, Luccio and Preparata, "On
finding the maxima of a set of vectors", 1975, https://doi.org/10.1145/321906.321910).
"""

import dataclasses
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.pareto import assert_matrix
from hadas_jax.search.product import Chunk, Product, cell_minima, float_bits, stream

_BINS = 512
_BLOCK = 256
_RANGE = 2.0**-12
_WORD = 32


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
        cells = jax.lax.cummin(cell_minima(bins, chunk.energy, size=_BINS), axis=1)
        before = jnp.concatenate([jnp.full((cells.shape[0], 1), jnp.inf), cells[:, :-1]], axis=1)
        seen = jax.lax.cummin(before.at[0].min(least), axis=0)
        survives = chunk.energy < jnp.take_along_axis(seen, bins, axis=1, mode="promise_in_bounds")
        where, selected = _select(survives.reshape(-1), capacity)
        kept = _append(kept, chunk, where=where, offset=jnp.minimum(count, capacity))
        return _Sweep(least, jnp.minimum(carry.after, seen[-1]), kept, count + selected)

    nothing = jnp.full(_BINS, jnp.inf)
    start = _Sweep(nothing, nothing, _empty(2 * capacity), jnp.int32(0))
    end = stream(step, start, dataclasses.replace(product, errors=rising, frequencies=rows, configs=feasible))
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
    low = float_bits(jnp.clip(jnp.min(shortest).astype(jnp.float32), top * _RANGE, top))
    steps = (float_bits(top) - low) // _BINS
    return low, _WORD - jax.lax.clz(jnp.maximum(steps, 0))


def _bins(latency: jax.Array, low: jax.Array, shift: jax.Array) -> jax.Array:
    """Bins that never fall when the latency rises: float32[C, F] -> int32[C, F]."""
    above = jnp.maximum(float_bits(jnp.maximum(latency, 0)), low) - low
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


def _empty(size: int) -> _Kept:
    cost, index = jnp.full(size, jnp.inf, jnp.float32), jnp.full(size, -1, jnp.int32)
    return _Kept(cost, cost, cost, index, index)


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
