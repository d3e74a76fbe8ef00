"""How a front is drawn in a picture of accuracy over one cost.

Members are chosen by the selection samples, so these say which designs are joined and in which order. On the test
split some members fall behind others: they are drawn pale, for there they are no front.
"""

from collections.abc import Sequence

import numpy as np

from hadas_jax.methods.results import Design, Performance


def drawn(designs: Sequence[Design], policy: str, cost: str) -> tuple[list[int], list[int]]:
    """Returns which designs of a front to join, and which of those to draw in full colour.

    Args:
      designs: of a front.
      policy: that they are judged under.
      cost: `energy_j` or `latency_s`.

    Returns:
      Rows of the designs that no other one beats on the selection samples, the cheapest there first; and the rows of
      these that none of these beats on the test split.
    """
    selection = [design.selection[policy] for design in designs]
    members = np.flatnonzero(~beaten(selection, cost)).tolist()
    members.sort(key=lambda row: getattr(selection[row], cost))
    behind = beaten([designs[row].test[policy] for row in members], cost)
    return members, [row for row, is_behind in zip(members, behind.tolist(), strict=True) if not is_behind]


def beaten(found: Sequence[Performance], cost: str) -> np.ndarray:
    """Returns bool[M]: where another one is no less accurate and costs no more, and is better in one of both."""
    values = np.array([(each.error, getattr(each, cost)) for each in found]).reshape(-1, 2)
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    return np.any(no_worse & better, axis=0)
