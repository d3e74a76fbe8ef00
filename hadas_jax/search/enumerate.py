"""Exact search over every pair of a plan and an operating point, in bounded memory.

A plan s has an error and runs segment d weights[s, d] times on average; at operating point f a segment costs
latency[d, f] and energy[d, f]. The candidate (s, f) has the objectives
(errors[s], weights[s] @ latency[:, f], weights[s] @ energy[:, f]), all minimised.
Plans are streamed in chunks: two matrix products give the costs of a chunk at all operating points.
Candidates with an objective that is not finite (a plan of infinite error, say) are no candidates at all.
Shapes: S plans, F operating points, D segments, L error levels, B latency bins, C plans of a chunk.
Units: error as given; latency and energy in those of the inputs.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.indicators import pairwise_sum

_CHUNK = 2**18
Carry = TypeVar("Carry")


class Chunk(NamedTuple):
    """The candidates of C plans; costs are +inf where there is no candidate.

    Attributes:
        plan: int32[C].
        error: float32[C].
        latency: float32[C, F].
        energy: float32[C, F].
    """

    plan: jax.Array
    error: jax.Array
    latency: jax.Array
    energy: jax.Array


def check_product(errors: jax.Array, weights: jax.Array, latency: jax.Array, energy: jax.Array) -> None:
    """Raises unless the four arrays describe one product of plans and operating points.

    Args:
        errors: [S].
        weights: [S, D].
        latency: [D, F].
        energy: [D, F].

    Raises:
        ValueError: for shapes or dtypes that do not fit together.
    """
    check_matrix("weights", weights)
    check_shape("errors", errors, weights.shape[:1])
    check_matrix("latency", latency)
    check_shape("latency", latency, (weights.shape[1], latency.shape[1]))
    check_matrix("energy", energy)
    check_shape("energy", energy, latency.shape)


def stream(
    step: Callable[[Carry, Chunk], tuple[Carry, jax.Array | None]],
    carry: Carry,
    *,
    errors: jax.Array,
    weights: jax.Array,
    latency: jax.Array,
    energy: jax.Array,
) -> Carry:
    """Folds a step over all candidates, a chunk of plans at a time, in the order of the plans.

    Args:
        step: (carry, Chunk) -> (carry, None).
        carry: what the first step gets.
        errors: float32[S].
        weights: float32[S, D], at least 0.
        latency: float32[D, F].
        energy: float32[D, F].

    Returns:
        What the last step returned. A chunk holds about 2^18 candidates, at least one plan.
    """
    S, D = weights.shape
    C = max(1, min(S, _CHUNK // latency.shape[1]))
    spare = -S % C
    plans = jnp.arange(S + spare, dtype=jnp.int32).reshape(-1, C)
    padded = jnp.pad(errors.astype(jnp.float32), (0, spare), constant_values=jnp.inf).reshape(-1, C)
    rows = jnp.pad(weights.astype(jnp.float32), ((0, spare), (0, 0))).reshape(-1, C, D)

    def body(carry: Carry, block: tuple[jax.Array, ...]) -> tuple[Carry, jax.Array | None]:
        plan, error, weight = block
        times = jnp.matmul(weight, latency.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        joules = jnp.matmul(weight, energy.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        real = jnp.isfinite(times) & jnp.isfinite(joules) & jnp.isfinite(error)[:, None]
        return step(carry, Chunk(plan, error, jnp.where(real, times, jnp.inf), jnp.where(real, joules, jnp.inf)))

    return jax.lax.scan(body, carry, (plans, padded, rows))[0]


def cell_minima(bins: jax.Array, values: jax.Array, *, size: int) -> jax.Array:
    """The least value of every row in every bin.

    Args:
        bins: int32[C, F], within 0 .. size - 1.
        values: float32[C, F].
        size: number of bins.

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
) -> jax.Array:
    """The least energy in every cell of a grid over error and latency.

    Args:
        errors: float32[S]; +inf for plans that are not feasible.
        weights: float32[S, D], at least 0.
        latency: float32[D, F], at least 0.
        energy: float32[D, F].
        error_levels: float32[L], ascending upper ends: level l holds errors in (levels[l - 1], levels[l]].
        latency_edges: float32[B], ascending upper ends of the latency bins, likewise.

    Returns:
        float32[L, B]: +inf for empty cells. Candidates above the last level or edge are left out.

    Raises:
        ValueError: for shapes or dtypes that do not fit together.
    """
    check_product(errors, weights, latency, energy)
    L, B = error_levels.shape[0], latency_edges.shape[0]

    def step(table: jax.Array, chunk: Chunk) -> tuple[jax.Array, None]:
        level = jnp.searchsorted(error_levels, chunk.error, method="scan_unrolled")
        bins = jnp.searchsorted(latency_edges, chunk.latency, method="scan_unrolled")
        cells = cell_minima(bins.astype(jnp.int32), chunk.energy, size=B + 1)
        return table.at[level, :].min(cells), None

    start = jnp.full((L + 1, B + 1), jnp.inf, jnp.float32)
    table = stream(step, start, errors=errors, weights=weights, latency=latency, energy=energy)
    return table[:L, :B]


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
        ValueError: for shapes that do not fit together.
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


@jax.jit
def best_under(
    errors: jax.Array,
    weights: jax.Array,
    *,
    latency: jax.Array,
    energy: jax.Array,
    max_error: jax.Array | float,
    max_latency: jax.Array | float,
) -> Best:
    """The candidate of least energy whose error and latency keep their budgets.

    Args:
        errors: float32[S]; +inf for plans that are not feasible.
        weights: float32[S, D], at least 0.
        latency: float32[D, F], at least 0.
        energy: float32[D, F].
        max_error: float32[], inclusive.
        max_latency: float32[], inclusive.

    Returns:
        The best; of equal energies the first plan, then the first operating point.

    Raises:
        ValueError: for shapes or dtypes that do not fit together.
    """
    check_product(errors, weights, latency, energy)

    def step(best: Best, chunk: Chunk) -> tuple[Best, None]:
        within = (chunk.error <= max_error)[:, None] & (chunk.latency <= max_latency)
        cost = jnp.where(within, chunk.energy, jnp.inf)
        row = jnp.argmin(jnp.min(cost, axis=1))
        point = jnp.argmin(cost[row])
        found = cost[row, point]
        new = Best(
            plan=chunk.plan[row],
            point=point.astype(jnp.int32),
            objectives=jnp.stack([chunk.error[row], chunk.latency[row, point], found]),
            feasible=jnp.isfinite(found),
        )
        better = found < best.objectives[2]
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best), None

    none = jnp.int32(-1)
    nothing = jnp.full(3, jnp.inf, jnp.float32)
    start = Best(plan=none, point=none, objectives=nothing, feasible=jnp.bool_(False))
    return stream(step, start, errors=errors, weights=weights, latency=latency, energy=energy)
