"""What a sample costs that stops at each exit of a selected network, at every operating point of its device.

Shapes: K = exits of the network + 1, the classifier last; F operating points. Costs are of one sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.evaluation import segment_costs
from hw_models import operating_points


@dataclass(frozen=True)
class ExitCosts:
    """Costs by exit and operating point.

    Attributes:
      latency_s: float64[K, F], trunk and heads up to the exit, the constant cost of a run included.
      energy_j: float64[K, F], likewise.
      clocks_mhz: float64[F, 3], core, memory and host clock.
    """

    latency_s: np.ndarray
    energy_j: np.ndarray
    clocks_mhz: np.ndarray

    def expected(self, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean latency_s and energy_j, float64[F] each, of samples of which these shares stop where."""
        weights = np.asarray(shares, np.float64)
        return weights @ self.latency_s, weights @ self.energy_j

    def point(self, clocks_mhz: Sequence[float]) -> int:
        """Returns the operating point at these clocks.

        Raises:
          ValueError: there is none.
        """
        off = np.abs(self.clocks_mhz / np.asarray(clocks_mhz, np.float64) - 1).max(axis=1)
        nearest = int(off.argmin())
        if off[nearest] > 1e-4:
            asked = " ".join(f"{clock:g}" for clock in clocks_mhz)
            raise ValueError(f"clocks_mhz: expected an operating point of the network's device, got {asked} MHz")
        return nearest


def exit_costs(architecture: Architecture) -> ExitCosts:
    """Computes the costs of a network by the cost model of its device."""
    space, device, mask = architecture.space, architecture.device.load(), architecture.exit_mask
    genome = jnp.asarray(architecture.genome, jnp.int32)
    costs = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))(genome)
    places = np.append(np.flatnonzero(mask), space.num_exits)

    def reached(cost: jax.Array) -> np.ndarray:
        segments = np.asarray(cost, np.float64)
        trunk = np.cumsum(segments[: space.num_exits + 1], axis=0)
        heads = np.cumsum(segments[space.num_exits + 1 :][mask], axis=0)
        heads = np.concatenate([heads, heads[-1:]]) if len(heads) else np.zeros_like(trunk[:1])
        return trunk[places] + heads

    points = operating_points(device)
    hertz = np.stack([points.core_hz, points.memory_hz, points.host_hz], axis=1)
    return ExitCosts(reached(costs.latency_s), reached(costs.energy_j), hertz.astype(np.float64) / 1e6)
