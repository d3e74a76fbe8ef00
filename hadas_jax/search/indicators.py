"""How good a front is: hypervolume exact and estimated, IGD+.

Zitzler and Thiele, "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto
approach", 1999, https://doi.org/10.1109/4235.797969 (hypervolume). Ishibuchi et al., "Modified distance calculation
in generational distance and inverted generational distance", 2015, https://doi.org/10.1007/978-3-319-15892-1_8
(IGD+).
Shapes: P and Q points, M objectives, minimised; S samples.
"""

from functools import partial, reduce

import chex
import jax
import jax.numpy as jnp

from hadas_jax.search.pareto import all_or, assert_matrix

_Three = tuple[jax.Array, jax.Array, jax.Array]
_MOST_EXACT = 5
_DRAWN = 1024


@jax.jit
def hypervolume(points: jax.Array, reference: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """The measure of what the points dominate, up to a reference point.

    Points are swept in the order of the first objective. With three objectives the sweep keeps, for every
    level of the last one, the best middle objective so far: P steps of P elements. Each further objective cuts
    the space into P slices with one objective less, so that the time is O(P^(M-1)) from three objectives on, and
    the memory O(P M). All terms are positive, and sums are compensated or taken by halves.

    Args:
        points: float32[P, M] with M = 2 .. 5, finite or +inf. Points at or beyond the reference in any
            objective, rows with a NaN, and rows that dominate nothing new contribute nothing.
        reference: float32[M], finite.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        float32[]: the hypervolume, 0 where no point counts.

    Raises:
        ValueError: If M is not within 2 .. 5.
        AssertionError: If points is no floating matrix, or another shape does not fit.
    """
    assert_matrix("points", points)
    M = points.shape[1]
    if not 2 <= M <= _MOST_EXACT:
        raise ValueError(f"points: expected 2 to {_MOST_EXACT} objectives, got {M}")
    limit = reference.astype(jnp.float32)
    inside = _inside(points, limit, valid)
    if M == 2:
        return _area(inside, limit)
    columns = jax.lax.sort(tuple(inside.T), num_keys=1)
    width = jnp.append(columns[0][1:], limit[0]) - columns[0]
    return _content(columns[1:], limit[1:], width)


def _inside(points: jax.Array, limit: jax.Array, valid: jax.Array | None) -> jax.Array:
    """Points moved to the reference where they are no points or lie beyond it: [P, M], [M] -> float32[P, M]."""
    chex.assert_shape(limit, points.shape[1:], custom_message="reference")
    usable = all_or(valid, points, name="valid") & ~jnp.any(jnp.isnan(points), axis=1)
    return jnp.where(usable[:, None], jnp.minimum(points.astype(jnp.float32), limit[None, :]), limit[None, :])


def _area(points: jax.Array, reference: jax.Array) -> jax.Array:
    """Hypervolume of float32[P, 2], all at or below reference float32[2]."""
    x, y = jax.lax.sort(tuple(points.T), num_keys=1)
    width = jnp.append(x[1:], reference[0]) - x
    return pairwise_sum(width * (reference[1] - jax.lax.cummin(y)))


def _content(columns: tuple[jax.Array, ...], reference: jax.Array, width: jax.Array) -> jax.Array:
    """Hypervolume of points sorted by a first objective: the others, their reference, the way to the next point."""
    *rest, last = columns
    if len(rest) == 1:
        return _volume(rest[0], last, reference, width)
    level = jnp.sort(last)
    depth = jnp.append(level[1:], reference[-1]) - level

    def slice_content(top: jax.Array) -> jax.Array:
        left = tuple(jnp.where(last <= top, column, reference[m]) for m, column in enumerate(rest))
        return _content(left, reference[:-1], width)

    return pairwise_sum(jax.lax.map(slice_content, level) * depth)


def _volume(y: jax.Array, z: jax.Array, reference: jax.Array, width: jax.Array) -> jax.Array:
    """Hypervolume in three objectives, by steps along the first: float32[P] each, reference float32[2]."""
    level = jnp.sort(z)
    height = jnp.append(level[1:], reference[1]) - level

    def step(carry: _Three, point: _Three) -> tuple[_Three, None]:
        best, total, lost = carry
        y, z, width = point
        best = jnp.where(z <= level, jnp.minimum(best, y), best)
        term = width * (reference[0] - best) - lost
        grown = total + term
        return (best, grown, (grown - total) - term), None

    zero = jnp.zeros_like(level)
    start = (jnp.full_like(level, reference[0]), zero, zero)
    (_, area, _), _ = jax.lax.scan(step, start, (y, z, width), unroll=4)
    return pairwise_sum(area * height)


@partial(jax.jit, static_argnames=("samples",))
def hypervolume_estimate(
    points: jax.Array,
    reference: jax.Array,
    *,
    key: jax.Array,
    samples: int,
    ideal: jax.Array | None = None,
    valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The hypervolume by Monte Carlo, for any number of objectives: O(S P M) time, S in chunks of 1024.

    Samples are uniform in the box from the ideal point to the reference; the share of them that some point
    dominates, times the volume of the box, has the hypervolume as its mean.

    Args:
        points: float32[P, M], finite or +inf; what counts is as in `hypervolume`.
        reference: float32[M], finite.
        key: Typed PRNG key.
        samples: S, how many to draw, static.
        ideal: float32[M], the lower corner of the box, to compare fronts in one box; what points dominate outside
            the box is not counted. None: the least of each objective.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        float32[]: the estimate; and float32[]: its standard error, from (hits + 1) / (S + 2) as the share (Laplace),
            so that it is above 0 even where all samples or none were dominated. Both are 0 for a box of no volume.

    Raises:
        ValueError: If samples is below 1.
        AssertionError: If points is no floating matrix, or another shape does not fit.
    """
    assert_matrix("points", points)
    if samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}")
    limit = reference.astype(jnp.float32)
    inside = _inside(points, limit, valid)
    counted = jnp.all(inside < limit[None, :], axis=1, keepdims=True)
    corner = jnp.min(jnp.where(counted, inside, limit[None, :]), axis=0) if ideal is None else ideal
    chex.assert_shape(corner, limit.shape, custom_message="ideal")
    sides = jnp.maximum(limit - corner.astype(jnp.float32), 0)
    chunk = min(samples, _DRAWN)

    def count(start: jax.Array) -> jax.Array:
        unit = jax.random.uniform(jax.random.fold_in(key, start), (chunk, points.shape[1]))
        drawn = corner[None, :] + unit * sides[None, :]
        covers = [inside[:, None, m] <= drawn[None, :, m] for m in range(points.shape[1])]
        hit = jnp.any(counted & reduce(jnp.logical_and, covers), axis=0)
        return jnp.sum(hit & (start + jnp.arange(chunk) < samples), dtype=jnp.int32)

    hits = jnp.sum(jax.lax.map(count, jnp.arange(0, samples, chunk))).astype(jnp.float32)
    share = (hits + 1) / (samples + 2)
    box = jnp.prod(sides)
    return box * (hits / samples), box * jnp.sqrt(share * (1 - share) / samples)


@jax.jit
def igd_plus(points: jax.Array, reference_front: jax.Array, *, valid: jax.Array | None = None) -> jax.Array:
    """How far a front is from a reference front, counting only what is worse: 0 where all of that is reached.

    Args:
        points: float32[P, M], minimised. Rows with a NaN are no points.
        reference_front: float32[Q, M], finite.
        valid: bool[P], which rows are points at all; None for all of them.

    Returns:
        float32[]: the mean over reference points of the distance to the nearest point, where objectives in which
            the point is better count 0; +inf where there is no point. Weakly Pareto compliant.

    Raises:
        AssertionError: If points or reference_front is no floating matrix, their M differ, or valid does not fit.

    Source: Ishibuchi et al. 2015, equations 17 and 18.
    """
    assert_matrix("points", points)
    assert_matrix("reference_front", reference_front, columns=points.shape[1])
    usable = all_or(valid, points, name="valid") & ~jnp.any(jnp.isnan(points), axis=1)
    excess = [
        jnp.maximum(points[:, m, None] - reference_front[None, :, m], 0).astype(jnp.float32)
        for m in range(points.shape[1])
    ]
    squares = reduce(jnp.add, [gap * gap for gap in excess])
    nearest = jnp.min(jnp.where(usable[:, None], squares, jnp.inf), axis=0)
    return pairwise_sum(jnp.sqrt(nearest)) / reference_front.shape[0]


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
