"""Mixtures of objectives: points spread over the simplex, and the one number that an objective vector is worth at one.

Das and Dennis, "Normal-boundary intersection", 1998, https://doi.org/10.1137/S1052623496307510 (lattices); Steuer and
Choo, "An interactive weighted Tchebycheff procedure for multiple objective programming", 1983,
https://doi.org/10.1007/BF02591870 (scalarisation).
Lattices are static: numpy at trace time. Shapes: N directions, M objectives.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np


def reference_directions(objectives: int, *, size: int, divisions: int | None = None) -> np.ndarray:
    """The points of the unit simplex whose coordinates are multiples of 1 / divisions.

    Args:
        objectives: M.
        size: The population's, where divisions are None: then the lattice has as many directions as fit into it, M of
            them at least. Where there are so many objectives that it has no point inside the simplex, a second lattice,
            shrunk by half towards the centre, takes the room that is left.
        divisions: At least 1; None: by size.

    Returns:
        float64[N, M], rows sum to 1; N at most max(size, M) where the size decides.

    Source: Deb and Jain 2014 (https://doi.org/10.1109/TEVC.2013.2281535), sections IV-B and V.
    """
    if divisions is not None:
        return _lattice(objectives, divisions)
    outer = _divisions(objectives, size)
    directions = _lattice(objectives, max(outer, 1))
    inner = _divisions(objectives, size - len(directions)) if outer < objectives else 0
    if not inner:
        return directions
    return np.concatenate([directions, (_lattice(objectives, inner) + 1 / objectives) / 2])


def spread_weights(objectives: int, *, count: int) -> np.ndarray:
    """A given number of weight vectors, spread over the simplex.

    A lattice where one has exactly this size, otherwise points of a fine lattice, each the farthest from those
    before it, the first at the centre.

    Args:
        objectives: M.
        count: N, at least 1.

    Returns:
        float64[N, M], rows sum to 1.

    Raises:
        ValueError: For a count below 1.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    if objectives == 1:
        return np.ones((count, 1))
    divisions = _divisions(objectives, count)
    if divisions and _size(objectives, divisions) == count:
        return _lattice(objectives, divisions)
    fine = _lattice(objectives, max(_divisions(objectives, 50 * count), 1) + 1)
    picked = np.square(fine - 1 / objectives).sum(1).argmin(keepdims=True)
    while len(picked) < count:
        room = np.square(fine[:, None] - fine[picked][None]).sum(-1).min(1)
        picked = np.append(picked, room.argmax())
    return fine[picked]


def tchebycheff(distance: jax.Array, weight: jax.Array, *, augmentation: jax.Array | float) -> jax.Array:
    """Augmented Tchebycheff function: the worst weighted objective, and a little of all objectives, float32[].

    Args:
        distance: float32[M], from the ideal point, in units of each objective's span.
        weight: float32[M].
        augmentation: float32[], weight of the sum; above 0 the least is not dominated, whatever the weights.
    """
    return jnp.max(weight * distance) + augmentation * jnp.sum(distance)


def _lattice(objectives: int, divisions: int) -> np.ndarray:
    """float64[N, M] with N = binomial(divisions + M - 1, M - 1)."""
    slots = divisions + objectives - 1
    bars = np.array(list(itertools.combinations(range(slots), objectives - 1)), np.int64)
    bars = bars.reshape(_size(objectives, divisions), objectives - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, slots)))
    return (np.diff(edges, axis=1) - 1) / divisions


def _size(objectives: int, divisions: int) -> int:
    return math.comb(divisions + objectives - 1, objectives - 1)


def _divisions(objectives: int, size: int) -> int:
    """The most divisions whose lattice has at most `size` points; 0 where even one has more."""
    if objectives == 1:
        return int(size >= 1)
    divisions = 0
    while _size(objectives, divisions + 1) <= size:
        divisions += 1
    return divisions
