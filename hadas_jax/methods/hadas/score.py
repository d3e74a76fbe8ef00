"""What the dynamic candidates of a backbone are worth: tables of least energy, constraints, the dynamic score.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. A dynamic candidate of a backbone b is a subset x of its exits and an operating
point f.
Shapes: K exits considered, W words of a bit set, S exit subsets, F operating points, L error levels, B latency bins.
Costs are of one sample, in seconds and joules.
"""

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.evaluation import dissimilarity
from hadas_jax.search.product import grid_hypervolume
from hw_models import Cost

ERROR_LEVELS, LATENCY_BINS = 512, 256  # the grid of tables: 0.2 % of error, 2.7 % of latency
LATENCY_SPAN = 1000.0  # from the shortest bin's end to the reference


@struct.dataclass
class InnerResult:
    """What the dynamic candidates of a backbone reach.

    Attributes:
        table: float32[L, B], least energy of the candidates within the constraints, by error and latency; +inf for
            empty cells, and possibly for cells that hold dominated candidates only.
        violation: float32[], 0 if a candidate keeps all constraints, else by how much the nearest breaks them.
        score: float32[], the best dynamic score D(x, f | b) within the constraints, 0 where nothing is.
        evaluations: int32[], candidates evaluated; in an exact search those that exist.
    """

    table: jax.Array
    violation: jax.Array
    score: jax.Array
    evaluations: jax.Array


def error_levels() -> jax.Array:
    """Returns float32[L]: upper ends of the table's error levels."""
    return jnp.arange(ERROR_LEVELS, dtype=jnp.float32) / ERROR_LEVELS


def latency_edges(longest: jax.Array) -> jax.Array:
    """Returns float32[B]: upper ends of the table's latency bins, the last at `longest` (float32[])."""
    steps = jnp.arange(1 - LATENCY_BINS, 1, dtype=jnp.float32) / LATENCY_BINS
    return longest * LATENCY_SPAN**steps


@jax.jit
def table_hypervolume(table: jax.Array, *, reference: jax.Array, limits: jax.Array) -> jax.Array:
    """Returns float32[]: the share of the box within reference and limits that a table dominates, a lower bound.

    Args:
        table: float32[L, B], made with this reference.
        reference: float32[3].
        limits: float32[3], +inf for none.
    """
    corner = jnp.minimum(reference, limits)
    volume = grid_hypervolume(
        table, error_levels=error_levels(), latency_edges=latency_edges(reference[1]), reference=corner
    )
    return volume / jnp.maximum(jnp.prod(corner), jnp.finfo(jnp.float32).tiny)


@jax.jit
def front_cells(table: jax.Array) -> jax.Array:
    """Returns int32[]: cells of a table that no other cell dominates."""
    least = jax.lax.cummin(jax.lax.cummin(table, axis=0), axis=1)
    above = jnp.pad(least, ((1, 0), (1, 0)), constant_values=jnp.inf)
    return jnp.sum(table < jnp.minimum(above[:-1, 1:], above[1:, :-1]), dtype=jnp.int32)


def exit_shares(
    chosen: jax.Array, frequencies: jax.Array, correct: jax.Array, *, gamma: jax.Array | float
) -> jax.Array:
    """What each exit of a subset adds to the score by its outcomes: N_i dissim_i^gamma / number of exits.

    The score is D(x, f | b) = mean over the exits i of x of N_i (1 - L_i / L_b) (1 - E_i / E_b) dissim_i^gamma, as
    far as the paper's text gives it. N_i is the share of samples that stop at exit i, L_i and E_i the cost of a
    sample that runs the trunk up to exit i and its head at f, L_b and E_b the static cost at the default clocks,
    and dissim_i the mean dissimilarity to the other exits of x, 1 for an exit that is alone.

    Args:
        chosen: bool[S, K], the subsets x.
        frequencies: float32[S, 2 K + 1], how often each segment runs.
        correct: uint32[K, W], bit sets of the samples that each exit gets right.
        gamma: float32[].

    Returns:
        float32[S, K].
    """
    reached, after = frequencies[:, : len(correct)], frequencies[:, 1 : len(correct) + 1]
    members = chosen.astype(jnp.float32)
    size = jnp.sum(members, axis=1, keepdims=True)
    to_others = members @ jnp.where(jnp.eye(len(correct), dtype=bool), 0.0, dissimilarity(correct))
    mean = jnp.where(size > 1, to_others / jnp.maximum(size - 1, 1.0), 1.0)
    return (reached - after) * jnp.maximum(mean, 0.0) ** gamma / jnp.maximum(size, 1.0)


def exit_gains(costs: Cost) -> jax.Array:
    """(1 - L_i / L_b) (1 - E_i / E_b) of each exit at each operating point, the last being the default.

    Factors below 0 count as 0: the product of two losses is no gain.

    Args:
        costs: float32[2 K + 1, F].

    Returns:
        float32[K, F].
    """

    def saved(cost: jax.Array) -> jax.Array:
        slots = cost.shape[0] // 2
        trunk = jnp.cumsum(cost[: slots + 1], axis=0)
        return jnp.maximum(1.0 - (trunk[:-1] + cost[slots + 1 :]) / trunk[-1, -1], 0.0)

    return saved(costs.latency_s) * saved(costs.energy_j)
