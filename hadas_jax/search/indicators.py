"""How good a front is: exact hypervolume in two and three objectives, ratio of dominance.

Zitzler and Thiele, "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto
approach", 1999, https://doi.org/10.1109/4235.797969 (hypervolume).
Shapes: P and Q points, M objectives, minimised.
"""

import jax
import jax.numpy as jnp

from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.pareto import dominance_keys, dominated_by

_Three = tuple[jax.Array, jax.Array, jax.Array]


@jax.jit
def hypervolume(points: jax.Array, reference: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """The measure of what the points dominate, up to a reference point.

    Points are swept in the order of the first objective. With three objectives the sweep keeps, for every
    level of the last one, the best middle objective so far: P steps of P elements. All terms are positive,
    and sums are compensated or taken by halves.

    Args:
        points: float32[P, M] with M = 2 or 3, finite or +inf. Points at or beyond the reference in any
            objective, rows with a NaN, and rows that dominate nothing new contribute nothing.
        reference: float32[M], finite.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        float32[]: the hypervolume, 0 where no point counts.

    Raises:
        ValueError: if points is no floating matrix, M is neither 2 nor 3, or another shape does not fit.
    """
    check_matrix("points", points)
    P, M = points.shape
    if M not in (2, 3):
        raise ValueError(f"points: expected 2 or 3 objectives, got {M}")
    known = jnp.ones(P, bool) if valid is None else valid
    check_shape("reference", reference, (M,))
    check_shape("valid", known, (P,))
    limit = jnp.broadcast_to(reference[None, :].astype(jnp.float32), (P, M))
    usable = known[:, None] & ~jnp.any(jnp.isnan(points), axis=1, keepdims=True)
    inside = jnp.minimum(jnp.where(usable, points.astype(jnp.float32), limit), limit)
    return _area(inside, limit[0]) if M == 2 else _volume(inside, limit[0])


def _area(points: jax.Array, reference: jax.Array) -> jax.Array:
    """Hypervolume of float32[P, 2], all at or below reference float32[2]."""
    x, y = jax.lax.sort(tuple(points.T), num_keys=1)
    width = jnp.append(x[1:], reference[0]) - x
    return pairwise_sum(width * (reference[1] - jax.lax.cummin(y)))


def _volume(points: jax.Array, reference: jax.Array) -> jax.Array:
    """Hypervolume of float32[P, 3], all at or below reference float32[3]."""
    x, y, z = jax.lax.sort(tuple(points.T), num_keys=1)
    width = jnp.append(x[1:], reference[0]) - x
    level = jnp.sort(z)
    height = jnp.append(level[1:], reference[2]) - level

    def step(carry: _Three, point: _Three) -> tuple[_Three, None]:
        best, total, lost = carry
        y, z, width = point
        best = jnp.where(z <= level, jnp.minimum(best, y), best)
        term = width * (reference[1] - best) - lost
        grown = total + term
        return (best, grown, (grown - total) - term), None

    zero = jnp.zeros_like(level)
    start = (jnp.full_like(level, reference[1]), zero, zero)
    (_, area, _), _ = jax.lax.scan(step, start, (y, z, width), unroll=4)
    return pairwise_sum(area * height)


def pairwise_sum(values: jax.Array) -> jax.Array:
    """Sums by halves, so that the rounding error grows with the logarithm of the length only.

    Args:
        values: float32[N].

    Returns:
        float32[]: the sum.
    """
    while values.shape[0] > 1:
        values = jnp.pad(values, (0, values.shape[0] % 2))
        values = values[0::2] + values[1::2]
    return jnp.sum(values)


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
        ValueError: if a or b is no floating matrix, their M differ, or a mask does not fit.

    Source: HADAS (https://arxiv.org/abs/2212.03354), RoD(A, B).
    """
    check_matrix("a", a)
    check_matrix("b", b, columns=a.shape[1])
    first = jnp.ones(a.shape[0], bool) if valid_a is None else valid_a
    second = jnp.ones(b.shape[0], bool) if valid_b is None else valid_b
    check_shape("valid_a", first, a.shape[:1])
    check_shape("valid_b", second, b.shape[:1])
    others = dominance_keys(jnp.where(first[:, None], a, jnp.nan))
    beaten = second & dominated_by(dominance_keys(b), others)
    count = jnp.sum(second, dtype=jnp.float32)
    return jnp.sum(beaten, dtype=jnp.float32) / jnp.maximum(count, 1)
