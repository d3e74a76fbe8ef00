"""Where the cells of a network stand and what they read and write."""

from typing import NamedTuple

from hw_models.accelerator.network import NODES, DartsNetwork


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
