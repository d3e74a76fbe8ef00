"""Exact search over every pair of a plan and an operating point, in bounded memory.

A plan s has an error and runs segment d weights[s, d] times on average; at operating point f a segment costs
latency[d, f] and energy[d, f]. The candidate (s, f) has the objectives
(errors[s], weights[s] @ latency[:, f], weights[s] @ energy[:, f]), all minimised.
Plans are streamed in chunks: two matrix products give the costs of a chunk at a tile of operating points. How
many plans and which points are visited may be traced; what is not visited costs no time.
Candidates with an objective that is not finite (a plan of infinite error, say) are no candidates at all.
Shapes: S plans, F operating points, D segments, L error levels, B latency bins, C plans of a chunk, P points of a
tile, Q points to visit.
Units: error as given; latency and energy in those of the inputs.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.backend import on_cpu
from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.indicators import pairwise_sum

_CHUNK, _ACCELERATOR_CHUNK = 2**18, 2**22
_TILE = 128
_GUIDE = 4096
_WORD = 32
OBJECTIVES = ("error", "latency", "energy")
Carry = TypeVar("Carry")


class Chunk(NamedTuple):
    """The candidates of C plans at P operating points; costs are +inf where there is no candidate.

    Attributes:
        plan: int32[C].
        point: int32[P].
        error: float32[C].
        latency: float32[C, P].
        energy: float32[C, P].
        fresh: bool[], whether this is the first tile of these plans.
    """

    plan: jax.Array
    point: jax.Array
    error: jax.Array
    latency: jax.Array
    energy: jax.Array
    fresh: jax.Array


def check_product(errors: jax.Array, weights: jax.Array, latency: jax.Array, energy: jax.Array) -> None:
    """Raises unless the four arrays describe one product of plans and operating points.

    Args:
        errors: [S].
        weights: [S, D].
        latency: [D, F].
        energy: [D, F].

    Raises:
        ValueError: For shapes or dtypes that do not fit together.
    """
    check_matrix("weights", weights)
    check_shape("errors", errors, weights.shape[:1])
    check_matrix("latency", latency)
    check_shape("latency", latency, (weights.shape[1], latency.shape[1]))
    check_matrix("energy", energy)
    check_shape("energy", energy, latency.shape)


def stream(
    step: Callable[[Carry, Chunk], Carry],
    carry: Carry,
    *,
    errors: jax.Array,
    weights: jax.Array,
    latency: jax.Array,
    energy: jax.Array,
    plans: jax.Array | None = None,
    points: jax.Array | None = None,
) -> Carry:
    """Folds a step over all candidates, a chunk of plans at a time, in the order of the plans.

    Args:
        step: (carry, Chunk) -> carry.
        carry: What the first step gets.
        errors: float32[S].
        weights: float32[S, D], at least 0.
        latency: float32[D, F].
        energy: float32[D, F].
        plans: int32[], only the first so many plans are visited; None for all.
        points: int32[Q], the operating points to visit, and -1 behind them; None for all.

    Returns:
        What the last step returned. A chunk holds about 2^18 candidates on a CPU and 2^22 elsewhere, where every
        step costs time, at least one plan; its plans see all points at once where `points` is None, otherwise tile
        after tile of up to 128.
    """
    S, F = weights.shape[0], latency.shape[1]
    visited = jnp.arange(F, dtype=jnp.int32) if points is None else points
    P = F if points is None else min(len(points), _TILE)
    C = max(1, min(S, (_CHUNK if on_cpu() else _ACCELERATOR_CHUNK) // P))
    visited = jnp.pad(visited, (0, -len(visited) % P), constant_values=-1)
    chunks = -(-S // C) if plans is None else (jnp.minimum(plans, S) + C - 1) // C
    tiles = 1 if points is None else (jnp.sum(visited >= 0, dtype=jnp.int32) + P - 1) // P
    padded = jnp.pad(errors.astype(jnp.float32), (0, -S % C), constant_values=jnp.inf)
    rows = jnp.pad(weights.astype(jnp.float32), ((0, -S % C), (0, 0)))
    costs = [jnp.take(cost.astype(jnp.float32), jnp.maximum(visited, 0), axis=1) for cost in (latency, energy)]

    def chunk(c: jax.Array, t: jax.Array) -> Chunk:
        plan = c * C + jnp.arange(C, dtype=jnp.int32)
        error = jax.lax.dynamic_slice_in_dim(padded, c * C, C)
        weight = jax.lax.dynamic_slice_in_dim(rows, c * C, C)
        point = jax.lax.dynamic_slice_in_dim(visited, t * P, P)
        tile = [jax.lax.dynamic_slice_in_dim(cost, t * P, P, axis=1) for cost in costs]
        times, joules = (jnp.matmul(weight, cost, precision=jax.lax.Precision.HIGHEST) for cost in tile)
        known = jnp.isfinite(error) if plans is None else jnp.isfinite(error) & (plan < plans)
        real = jnp.isfinite(times) & jnp.isfinite(joules) & known[:, None] & (point >= 0)[None, :]
        return Chunk(plan, point, error, jnp.where(real, times, jnp.inf), jnp.where(real, joules, jnp.inf), t == 0)

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


@jax.jit
def grid_front(
    errors: jax.Array,
    weights: jax.Array,
    *,
    latency: jax.Array,
    energy: jax.Array,
    error_levels: jax.Array,
    latency_edges: jax.Array,
    plans: jax.Array | None = None,
    points: jax.Array | None = None,
) -> jax.Array:
    """The least energy in every cell of a grid over error and latency.

    Args:
        errors: float32[S]; +inf for plans that are not feasible.
        weights: float32[S, D], at least 0.
        latency: float32[D, F], at least 0.
        energy: float32[D, F].
        error_levels: float32[L], ascending upper ends: level l holds errors in (levels[l - 1], levels[l]].
        latency_edges: float32[B], ascending upper ends of the latency bins, likewise.
        plans: int32[], only the first so many plans are candidates; None for all.
        points: int32[Q], the operating points that are candidates, and -1 behind them; None for all.

    Returns:
        float32[L, B]: +inf for empty cells. Candidates above the last level or edge are left out.

    Raises:
        ValueError: For shapes or dtypes that do not fit together.
    """
    check_product(errors, weights, latency, energy)

    def step(table: jax.Array, chunk: Chunk) -> jax.Array:
        return fill_cells(table, chunk, error_levels=error_levels, latency_edges=latency_edges)

    start = jnp.full((error_levels.shape[0] + 1, latency_edges.shape[0] + 1), jnp.inf, jnp.float32)
    table = stream(
        step, start, errors=errors, weights=weights, latency=latency, energy=energy, plans=plans, points=points
    )
    return table[:-1, :-1]


def fill_cells(table: jax.Array, chunk: Chunk, *, error_levels: jax.Array, latency_edges: jax.Array) -> jax.Array:
    """Enters the candidates of a chunk into the grid of `grid_front`.

    Args:
        table: float32[L + 1, B + 1]; the last row and column take what lies above the last level and edge.
        chunk: The candidates.
        error_levels: float32[L], as for `grid_front`.
        latency_edges: float32[B], as for `grid_front`.

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
    """A lower bound of the hypervolume of all candidates, from the grid of `grid_front`.

    Whatever a cell holds lies at or below the cell's upper ends, so the boxes between the upper ends, as high
    as the best energy at or below them leaves, are dominated. The bound rises to the exact value as the grid
    gets finer.

    Args:
        table: float32[L, B] from `grid_front`.
        error_levels: float32[L], the same as there.
        latency_edges: float32[B], the same as there.
        reference: float32[3], (error, latency, energy).

    Returns:
        float32[]: the bound, at least 0.

    Raises:
        ValueError: For shapes that do not fit together.
    """
    check_matrix("table", table)
    check_shape("error_levels", error_levels, table.shape[:1])
    check_shape("latency_edges", latency_edges, table.shape[1:])
    check_shape("reference", reference, (3,))
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
class Best:
    """The cheapest candidate under budgets.

    Attributes:
        plan: int32[]; -1 if there is none.
        point: int32[]; -1 if there is none.
        objectives: float32[3], (error, latency, energy); +inf if there is none.
        feasible: bool[], whether there is one.
    """

    plan: jax.Array
    point: jax.Array
    objectives: jax.Array
    feasible: jax.Array


@partial(jax.jit, static_argnames=("minimise",))
def best_under(
    errors: jax.Array,
    weights: jax.Array,
    *,
    latency: jax.Array,
    energy: jax.Array,
    max_error: jax.Array | float = jnp.inf,
    max_latency: jax.Array | float = jnp.inf,
    max_energy: jax.Array | float = jnp.inf,
    minimise: str = "energy",
    plans: jax.Array | None = None,
    points: jax.Array | None = None,
) -> Best:
    """The candidate that is best in one objective and keeps the budgets of all.

    Args:
        errors: float32[S]; +inf for plans that are not feasible.
        weights: float32[S, D], at least 0.
        latency: float32[D, F], at least 0.
        energy: float32[D, F].
        max_error: float32[], inclusive.
        max_latency: float32[], inclusive.
        max_energy: float32[], inclusive.
        minimise: One of "error", "latency", "energy"; static.
        plans: int32[], only the first so many plans are candidates; None for all.
        points: int32[Q], the operating points that are candidates, and -1 behind them; None for all.

    Returns:
        The best; of equal ones the first plan, then the operating point that comes first.

    Raises:
        ValueError: For shapes or dtypes that do not fit together, or another objective.
    """
    check_product(errors, weights, latency, energy)
    if minimise not in OBJECTIVES:
        raise ValueError(f"minimise: expected one of {', '.join(OBJECTIVES)}, got {minimise!r}")
    goal = OBJECTIVES.index(minimise)

    def step(best: Best, chunk: Chunk) -> Best:
        within = (chunk.error <= max_error)[:, None] & (chunk.latency <= max_latency) & (chunk.energy <= max_energy)
        within = within & jnp.isfinite(chunk.energy)
        values = (jnp.broadcast_to(chunk.error[:, None], within.shape), chunk.latency, chunk.energy)
        cost = jnp.where(within, values[goal], jnp.inf)
        row = jnp.argmin(jnp.min(cost, axis=1))
        column = jnp.argmin(cost[row])
        found = cost[row, column]
        new = Best(
            plan=chunk.plan[row],
            point=chunk.point[column],
            objectives=jnp.stack([value[row, column] for value in values]),
            feasible=jnp.isfinite(found),
        )
        tie = (found == best.objectives[goal]) & (new.plan < best.plan)
        better = (found < best.objectives[goal]) | tie
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)

    none = jnp.int32(-1)
    nothing = jnp.full(3, jnp.inf, jnp.float32)
    start = Best(plan=none, point=none, objectives=nothing, feasible=jnp.bool_(False))
    return stream(
        step, start, errors=errors, weights=weights, latency=latency, energy=energy, plans=plans, points=points
    )
