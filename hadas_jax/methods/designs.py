"""Dynamic designs (backbone, exits, thresholds, clocks) in lists: fronts, limits, choices from them.

Shapes: E exits, M candidates. Objectives are error, latency_s and energy_j.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.limits import Limits, relative_excess
from hadas_jax.search import non_dominated_mask

_relative_excess = jax.jit(relative_excess)


@dataclass(frozen=True)
class Candidates:
    """Backbones of the pool with a plan and an operating point each.

    Attributes:
      backbone: int[M], index in the pool.
      levels: int32[M, E], the plan: 0 for no exit, else its risk level from 1 on.
      point: int[M].
      objectives: float32[M, 3].
    """

    backbone: np.ndarray
    levels: np.ndarray
    point: np.ndarray
    objectives: np.ndarray

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Returns some of the candidates."""
        return Candidates(self.backbone[rows], self.levels[rows], self.point[rows], self.objectives[rows])

    def excess(self, limits: Limits) -> np.ndarray:
        """Returns float32[M]: by how much candidates exceed the limits, relatively; 0 within."""
        return excess_of(self.objectives, limits)

    def cheapest(self, max_error: float, *, limits: Limits) -> int | None:
        """Returns the row of at most this error and least excess, of those the least energy; or None."""
        enough = np.flatnonzero(self.objectives[:, 0] <= max_error)
        if not len(enough):
            return None
        order = np.lexsort((self.objectives[enough, 2], self.excess(limits)[enough]))
        return int(enough[order[0]])


@dataclass(frozen=True)
class Choice:
    """A design by its indices.

    Attributes:
      found_by: policy.
      backbone: of the pool.
      levels: int32[E], the plan: 0 for no exit, else its risk level from 1 on.
      point: operating point.
      excess: over the limits under its policy, 0 within.
    """

    found_by: str
    backbone: int
    levels: np.ndarray
    point: int
    excess: float


@dataclass(frozen=True)
class Choices:
    """What to report.

    Attributes:
      designs: of the fronts of both policies.
      levels: accuracy levels, each with its cheapest networks by name.
      within: by policy, whether the designs keep the limits; otherwise they are those nearest to them.
    """

    designs: list[Choice]
    levels: list[tuple[float, dict[str, Choice]]]
    within: dict[str, bool]


def merge(parts: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of all parts that no other one dominates, in the order of the parts."""
    every = join(parts)
    return every.take(non_dominated(every.objectives))


def join(parts: Sequence[Candidates]) -> Candidates:
    """Returns the candidates of all parts, in their order."""
    fields = ("backbone", "levels", "point", "objectives")
    return Candidates(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def excess_of(objectives: np.ndarray, limits: Limits) -> np.ndarray:
    """Returns float32[M]: by how much objectives float[M, 3] exceed the limits, relatively; 0 within."""
    if not limits.any:
        return np.zeros(len(objectives), np.float32)
    padded = _pad(np.asarray(objectives, np.float32))
    found = _relative_excess(tuple(jnp.asarray(padded.T)), jnp.asarray(limits.objectives))
    return np.maximum(np.asarray(found)[: len(objectives)], 0)


def non_dominated(objectives: np.ndarray) -> np.ndarray:
    """Returns the rows of float32[M, 3] that no other row dominates."""
    padded = _pad(objectives)
    mask = non_dominated_mask(jnp.asarray(padded, jnp.float32), jnp.arange(len(padded)) < len(objectives))
    return np.flatnonzero(np.asarray(mask))


def _pad(objectives: np.ndarray) -> np.ndarray:
    """Pads with infinite rows to a power of two of at least 1,024, so that few shapes are compiled."""
    size = max(1 << (len(objectives) - 1).bit_length(), 1024)
    return np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.inf)


def spread(objectives: np.ndarray, size: int) -> np.ndarray:
    """Picks points that cover a front: the best of each objective, then always the one farthest from all picked.

    Distances are Euclidean, in error over its range and in the logarithm of latency and energy over theirs.

    Args:
      objectives: float[M, 3], positive latency and energy.
      size: how many to pick.

    Returns:
      Sorted rows, int[min(M, size)].
    """
    scaled = np.column_stack([objectives[:, :1], np.log(objectives[:, 1:])]).astype(np.float64)
    scaled -= scaled.min(axis=0)
    scaled /= np.where(scaled.max(axis=0) > 0, scaled.max(axis=0), 1)
    picked: list[int] = []
    nearest = np.full(len(scaled), np.inf)
    best = [int(row) for row in np.argmin(scaled, axis=0)]
    while len(picked) < min(size, len(scaled)):
        row = next((r for r in best if r not in picked), int(np.argmax(nearest)))
        picked.append(row)
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[row], axis=1))
        nearest[row] = -1
    return np.sort(picked)
