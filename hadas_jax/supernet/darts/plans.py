"""Where the cells of a network stand and what they read and write."""

from typing import NamedTuple

import numpy as np

from hw_models.accelerator.network import EDGE_INPUT, EDGE_NODE, NODES, DartsNetwork

STATES = NODES + 1
"""States of a cell that edges leave: its two inputs and all nodes but the last."""


class CellPlan(NamedTuple):
    """One cell.

    Attributes:
        inputs: Channels of the output of the cell before the last, and of the last.
        channels: Of its nodes; it writes four times as many.
        is_reduced: Its edges from the inputs have stride 2.
        was_reduced: The last cell halved the map, so input 0 has to be halved too.
    """

    inputs: tuple[int, int]
    channels: int
    is_reduced: bool
    was_reduced: bool

    def stride(self, state: int) -> int:
        """Stride of the edges that leave a state."""
        return 2 if self.is_reduced and state < 2 else 1


def cell_plans(network: DartsNetwork) -> tuple[CellPlan, ...]:
    """Returns the cells in order."""
    channels = network.channels
    before = last = 3 * channels if network.stem == "cifar" else channels
    was_reduced = network.stem == "imagenet"
    plans = []
    for cell in range(network.cells):
        is_reduced = cell in network.reductions
        channels *= 2 if is_reduced else 1
        plans.append(CellPlan((before, last), channels, is_reduced, was_reduced))
        before, last, was_reduced = last, NODES * channels, is_reduced
    return tuple(plans)


def edges_from(state: int) -> np.ndarray:
    """Returns which of the 14 edges leave a state, int[T], in the order of the nodes that they lead to."""
    return np.flatnonzero(state == EDGE_INPUT)


def nodes_from(state: int) -> np.ndarray:
    """Returns the nodes that the edges leaving a state lead to, int[T]."""
    return EDGE_NODE[edges_from(state)]
