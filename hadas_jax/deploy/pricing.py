"""What any network costs on a device, layer by layer: at the default clocks, and at the best ones for what is asked.

Costs are of one run for one sample; a device with a correction corrects the whole run, not its layers.
Shapes: L layers, F operating points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hw_models import (
    Device,
    GraphLayers,
    OperatingPoint,
    cost,
    default_point,
    network_cost_everywhere,
    operating_points,
)


@dataclass(frozen=True)
class PricedPoint:
    """A network at one operating point.

    Attributes:
        asked: Why these clocks, in words.
        clocks_mhz: Core, memory and host clock.
        latency_s: Of a run.
        energy_j: Of a run.
        layers_s: float64[L], what each layer adds to the latency.
        layers_j: float64[L], likewise to the energy.
    """

    asked: str
    clocks_mhz: dict[str, float]
    latency_s: float
    energy_j: float
    layers_s: np.ndarray
    layers_j: np.ndarray

    @property
    def power_w(self) -> float:
        """Energy over latency."""
        return self.energy_j / self.latency_s


@dataclass(frozen=True)
class NetworkPrice:
    """A network on a device.

    Attributes:
        layers: Its layers.
        device: Name of the device.
        element_bytes: Of its number format.
        points: The default clocks first, then the best for what was asked.
    """

    layers: GraphLayers
    device: str
    element_bytes: int
    points: tuple[PricedPoint, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as JSON holds it; names of tensors aside."""
        rows = [
            {
                "name": layer.name,
                "operator": layer.operator,
                "kind": layer.kind.name.lower(),
                "macs": layer.macs,
                "weights": layer.weights,
                "activation_bytes": layer.memory * self.element_bytes,
                "latency_s": [float(point.layers_s[row]) for point in self.points],
                "energy_j": [float(point.layers_j[row]) for point in self.points],
            }
            for row, layer in enumerate(self.layers.layers)
        ]
        points = [
            {name: value for name, value in vars(point).items() if not name.startswith("layers_")}
            for point in self.points
        ]
        totals = {"macs": self.layers.macs, "weights": self.layers.weights, "unknown": self.layers.unknown}
        return {"form": "hadas_jax.price/1", "device": self.device, **totals, "points": points, "layers": rows}


def price_network(
    layers: GraphLayers, device: Device, *, max_latency_s: Sequence[float] = (), max_power_w: Sequence[float] = ()
) -> NetworkPrice:
    """Prices a network.

    Args:
        layers: The network.
        device: The cost model; its first number format counts.
        max_latency_s: Deadlines: the clocks of least energy that keep each.
        max_power_w: Caps on the mean power: the clocks of least latency that keep each.

    Raises:
        ValueError: No clocks keep a deadline or a cap.
    """
    if device.blocks is not None:
        raise ValueError(f"{device.name}: expected a device that prices layers, got a table of blocks")
    table, every = layers.table(), operating_points(device)
    whole = network_cost_everywhere(table, device)
    latency, energy = (np.asarray(leaf, np.float64) for leaf in (whole.latency_s, whole.energy_j))
    by_layer = jax.jit(lambda point: cost(table, device, point))

    def priced(asked: str, row: int, point: OperatingPoint) -> PricedPoint:
        found = by_layer(point)
        clocks = {name: float(getattr(point, f"{name}_hz")) / 1e6 for name in ("core", "memory", "host")}
        of_layers = (np.asarray(leaf, np.float64) for leaf in (found.latency_s, found.energy_j))
        return PricedPoint(asked, clocks, float(latency[row]), float(energy[row]), *of_layers)

    def best(asked: str, value: np.ndarray, within: np.ndarray, nearest: str) -> PricedPoint:
        if not within.any():
            raise ValueError(f"{asked}: expected clocks of {device.name} that keep it, got none; {nearest}")
        row = int(np.argmin(np.where(within, value, np.inf)))
        return priced(asked, row, jax.tree.map(lambda leaf: leaf[row], every))

    points = [priced("highest clocks", len(latency) - 1, default_point(device))]
    points.append(best("least energy", energy, np.ones(len(energy), bool), ""))
    for deadline in max_latency_s:
        fastest = f"the fastest take {1e3 * latency.min():.4g} ms"
        points.append(best(f"within {1e3 * deadline:g} ms", energy, latency <= deadline, fastest))
    for cap in max_power_w:
        least = f"the least power is {(energy / latency).min():.4g} W"
        points.append(best(f"below {cap:g} W", latency, energy / latency <= cap, least))
    element_bytes = device.formats[0].element_bytes
    return NetworkPrice(layers, device.name, element_bytes, tuple(points))
