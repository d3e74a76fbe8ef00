"""Who stops where in a selected network, and what part of the energy goes there.

Shapes: K = exits of the network + 1, the classifier last.
"""

from dataclasses import dataclass

import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.deploy.exit_costs import exit_costs


@dataclass(frozen=True)
class ExitUsage:
    """The exits of a network at its clocks, as deployed, on the samples that it was selected on.

    Attributes:
      shares: float64[K], of samples that stop there.
      latency_s: float64[K], of a sample that stops there.
      energy_j: float64[K], likewise.
      energy_shares: float64[K], of all energy, spent on the samples that stop there.
    """

    shares: np.ndarray
    latency_s: np.ndarray
    energy_j: np.ndarray
    energy_shares: np.ndarray


def exit_usage(architecture: Architecture) -> ExitUsage:
    """Computes the costs at the network's clocks by the cost model of its device.

    Raises:
      ValueError: the clocks are none of the device.
    """
    costs, clocks = exit_costs(architecture), architecture.clocks_mhz
    point = costs.point((clocks.core, clocks.memory, clocks.host))
    latency, energy = costs.latency_s[:, point], costs.energy_j[:, point]
    shares = np.asarray(architecture.selection.shares, np.float64)
    return ExitUsage(shares, latency, energy, shares * energy / np.sum(shares * energy))
