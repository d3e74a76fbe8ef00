"""Exact search over every pair of a configuration and an operating point, in bounded memory.

A configuration s has an error and runs segment d frequencies[s, d] times on average; at operating point f a segment
costs latency[d, f] and energy[d, f]. The candidate (s, f) has the objectives
(errors[s], frequencies[s] @ latency[:, f], frequencies[s] @ energy[:, f]), all minimised.
Configurations are streamed in chunks: two matrix products give the costs of a chunk at a tile of operating points. How
many configurations and which points are visited may be traced; what is not visited costs no time.
Candidates with an objective that is not finite (a configuration of infinite error, say) are no candidates at all.
Shapes: S configurations, F operating points, D segments, L error levels, B latency bins, C configurations of a chunk, P
points of a tile, Q points to visit.
Units: error as given; latency and energy in those of the inputs.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.backend import on_cpu
from hadas_jax.search.indicators import pairwise_sum

_CHUNK, _ACCELERATOR_CHUNK = 2**18, 2**22
_TILE = 128
_GUIDE = 4096
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
    """

    errors: jax.Array
    frequencies: jax.Array
    latency: jax.Array
    energy: jax.Array
    configs: jax.Array | None = None
    points: jax.Array | None = None

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
    configs, points = product.configs, product.points
    S, F = product.frequencies.shape[0], product.latency.shape[1]
    visited = jnp.arange(F, dtype=jnp.int32) if points is None else points
    P = F if points is None else min(len(points), _TILE)
    C = max(1, min(S, (_CHUNK if on_cpu() else _ACCELERATOR_CHUNK) // P))
    visited = jnp.pad(visited, (0, -len(visited) % P), constant_values=-1)
    chunks = -(-S // C) if configs is None else (jnp.minimum(configs, S) + C - 1) // C
    tiles = 1 if points is None else (jnp.sum(visited >= 0, dtype=jnp.int32) + P - 1) // P
    padded = jnp.pad(product.errors.astype(jnp.float32), (0, -S % C), constant_values=jnp.inf)
    rows = jnp.pad(product.frequencies.astype(jnp.float32), ((0, -S % C), (0, 0)))
    costs = [
        jnp.take(cost.astype(jnp.float32), jnp.maximum(visited, 0), axis=1)
        for cost in (product.latency, product.energy)
    ]

    def chunk(c: jax.Array, t: jax.Array) -> Chunk:
        config = c * C + jnp.arange(C, dtype=jnp.int32)
        error = jax.lax.dynamic_slice_in_dim(padded, c * C, C)
        frequency = jax.lax.dynamic_slice_in_dim(rows, c * C, C)
        point = jax.lax.dynamic_slice_in_dim(visited, t * P, P)
        tile = [jax.lax.dynamic_slice_in_dim(cost, t * P, P, axis=1) for cost in costs]
        times, joules = (jnp.matmul(frequency, cost, precision=jax.lax.Precision.HIGHEST) for cost in tile)
        feasible = jnp.isfinite(error) if configs is None else jnp.isfinite(error) & (config < configs)
        real = jnp.isfinite(times) & jnp.isfinite(joules) & feasible[:, None] & (point >= 0)[None, :]
        return Chunk(config, point, error, jnp.where(real, times, jnp.inf), jnp.where(real, joules, jnp.inf), t == 0)

    def over_tiles(c: jax.Array, carry: Carry) -> Carry:
        return jax.lax.fori_loop(0, tiles, lambda t, inner: step(inner, chunk(c, t)), carry)

    return jax.lax.fori_loop(0, chunks, over_tiles, carry)


def cell_minima(bins: jax.Array, values: jax.Array, *, size: int) -> jax.Array:
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
    cells = cell_minima(guided_bins(latency_edges, chunk.latency), chunk.energy, size=table.shape[1])
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
    low, top = (float_bits(jnp.maximum(edge, 0)) for edge in (edges[0], edges[-1]))
    shift = _WORD - jax.lax.clz((top - low) // _GUIDE)
    starts = low + jnp.minimum(jnp.left_shift(jnp.arange(_GUIDE, dtype=jnp.int32), shift), top - low)
    guide = jnp.searchsorted(edges, jax.lax.bitcast_convert_type(starts, jnp.float32)).astype(jnp.int32).at[0].set(0)
    place = jnp.right_shift(jnp.maximum(float_bits(values) - low, 0), jnp.broadcast_to(shift, values.shape))
    fence = jnp.append(edges, jnp.inf)

    def climb(_: jax.Array, bins: jax.Array) -> jax.Array:
        return bins + (fence[bins] < values).astype(jnp.int32)

    steps = jnp.max(jnp.diff(guide, append=jnp.int32(len(edges))[None]))
    return jax.lax.fori_loop(0, steps, climb, guide[jnp.minimum(place, _GUIDE - 1)])


def float_bits(values: jax.Array) -> jax.Array:
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
