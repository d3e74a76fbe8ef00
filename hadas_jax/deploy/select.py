"""Which design of a front to take: limits, a preference among those that keep them, and what each limit costs.

Every preference gives a design a merit that does not depend on the limits, and the design of the best merit among
those within the limits is taken. So a choice is never dominated by another design within them, and a wider limit never
makes it worse.
Shapes: M designs. Objectives are error, latency_s and energy_j.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hadas_jax.methods.hadas.fronts import constraint_violation
from hadas_jax.methods.hadas.results import Design, Result
from hadas_jax.settings import Constraints

PREFERENCES = ("knee", "accuracy", "latency", "energy")
NEIGHBOURS = ("more accurate", "faster", "less energy")  # in the order of the objectives


@dataclass(frozen=True)
class Selection:
    """A choice among M designs, by their rows.

    Attributes:
        chosen: The best within the limits; the nearest to them where none is.
        excess: By how much it exceeds the limits, relatively; 0 within.
        neighbours: By `NEIGHBOURS`, the design of the next better value of that objective, within the limits or not;
            absent where there is no better one.
        without: What would be chosen without a limit, by the name of each limit that is set.
    """

    chosen: int
    excess: float
    neighbours: dict[str, int]
    without: dict[str, int]


def candidates(result: Result, policy: str) -> tuple[Design, ...]:
    """Returns the designs of a search to select from: the front of a policy and the best of each accuracy level.

    Those that another one dominates on the selection samples are left out, and all but one of equals.

    Args:
        result: Of the search.
        policy: Ideal or deployable.

    Raises:
        ValueError: The search found no design under this policy.
    """
    every = [*result.front(policy), *(level.exits_and_clocks[policy] for level in result.levels)]
    if not every:
        raise ValueError(f"expected designs found under the {policy} policy, got none")
    _, rows = np.unique(objectives(every, policy), axis=0, return_index=True)
    designs = [every[row] for row in sorted(rows)]
    found = objectives(designs, policy)
    no_worse = np.all(found[:, None] <= found[None], axis=-1)
    beaten = no_worse.sum(axis=0) > 1  # by another than itself
    return tuple(design for design, gone in zip(designs, beaten.tolist(), strict=True) if not gone)


def objectives(designs: Sequence[Design], policy: str) -> np.ndarray:
    """Returns float64[M, 3] on the selection samples under a policy."""
    found = [design.selection[policy] for design in designs]
    return np.array([(each.error, each.latency_s, each.energy_j) for each in found], np.float64).reshape(-1, 3)


def select(objectives: np.ndarray, limits: Constraints, *, weights: np.ndarray, prefer: str = "knee") -> Selection:
    """Chooses a design.

    Args:
        objectives: float64[M, 3], M > 0, positive latency and energy; none dominates another.
        limits: To keep.
        weights: int[M], of the backbones.
        prefer: What counts among the designs within the limits, one of `PREFERENCES`, see `merit`.

    Raises:
        ValueError: An unknown preference.
    """
    order = _by_merit(objectives, prefer)

    def first(limits: Constraints) -> tuple[int, float]:
        found = excess(objectives, limits, weights=weights)[order]
        best = int(np.argmin(found))  # of equals the first, which has the best merit
        return int(order[best]), float(found[best])

    chosen, beyond = first(limits)
    names = [field.name for field in dataclasses.fields(Constraints) if getattr(limits, field.name) is not None]
    return Selection(
        chosen=chosen,
        excess=beyond,
        neighbours=_neighbours(objectives, chosen),
        without={name: first(dataclasses.replace(limits, **{name: None}))[0] for name in names},
    )


def merit(objectives: np.ndarray, prefer: str) -> np.ndarray:
    """Returns float64[M]: how far designs are from the best, less is better.

    `accuracy`, `latency` and `energy` look at that objective; `knee` at the Euclidean distance to the best value of
    all three at once, in error and in the logarithms of latency and energy, each over its range on the whole front.

    Raises:
        ValueError: An unknown preference.
    """
    if prefer not in PREFERENCES:
        raise ValueError(f"--prefer: expected one of {', '.join(PREFERENCES)}, got {prefer!r}")
    if prefer != "knee":
        return objectives[:, ("accuracy", "latency", "energy").index(prefer)]
    scaled = np.column_stack([objectives[:, 0], np.log(objectives[:, 1:])])
    scaled = scaled - scaled.min(axis=0)
    span = scaled.max(axis=0)
    return np.linalg.norm(scaled / np.where(span > 0, span, 1.0), axis=1)


def excess(objectives: np.ndarray, limits: Constraints, *, weights: np.ndarray) -> np.ndarray:
    """Returns float32[M]: by how much designs exceed the limits, relatively; 0 within."""
    heavy = np.asarray(weights / limits.params - 1, np.float32)
    return np.maximum(constraint_violation(objectives, limits), heavy)


def _by_merit(objectives: np.ndarray, prefer: str) -> np.ndarray:
    """Rows from the best merit on; equal ones by error, energy and latency."""
    error, latency, energy = objectives.T
    return np.lexsort((latency, energy, error, merit(objectives, prefer)))


def _neighbours(objectives: np.ndarray, row: int) -> dict[str, int]:
    """The designs of the next better value of each objective, of several the one that costs the least energy."""
    found = {}
    for m, name in enumerate(NEIGHBOURS):
        better = np.flatnonzero(objectives[:, m] < objectives[row, m])
        if len(better):
            order = np.lexsort((objectives[better, 2], objectives[better, 0], -objectives[better, m]))
            found[name] = int(better[order[0]])
    return found
