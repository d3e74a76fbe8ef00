"""Latency and energy of the networks of a front over the clocks, by the device model.

A network's samples stop where its thresholds stopped them on the test split, so at the clocks of the design the model
gives again what the search reported; where it does not, the device or the space is no longer what it was then.
Shapes: E exits of the space, D = 2 E + 1 segments, F operating points, Nc and Nm settings of core and memory clock.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import segment_costs
from hadas_jax.spaces import MBConvSpace, block_active
from hw_models import Cost, Device

MOST_LINES = 5
_TOLERANCE = 1e-3


def clock_grid_mhz(device: Device) -> dict[str, list[float]]:
    """Returns the settings of each clock in MHz, ascending."""
    return {
        name: [round(float(hz) / 1e6, 3) for hz in getattr(device, f"{name}_hz")] for name in ("core", "memory", "host")
    }


def clock_curves(space: MBConvSpace, device: Device, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prices networks at all core clocks and a few memory clocks, the host at the clock of each.

    Args:
      space: of the backbones.
      device: with the clocks that were searched.
      rows: of `network_rows`.

    Returns:
      For each row: `memory`, indices of up to `MOST_LINES` memory clocks, the network's own among them; `latency` in
      ms and `energy` in mJ per sample when deployed, one list over the core clocks for each of them; `at`, indices of
      its own clocks.

    Raises:
      ValueError: the model does not give what the rows report.
    """
    grid = clock_grid_mhz(device)
    shape = tuple(len(settings) for settings in grid.values())

    @jax.jit
    def priced(genome: jax.Array) -> tuple[Cost, jax.Array]:
        backbone = space.decode(genome)
        return segment_costs(space, backbone, device), block_active(space, backbone)

    known: dict[tuple[int, ...], Any] = {}
    curves = []
    for row in rows:
        genome = tuple(row["genome"])
        if genome not in known:
            known[genome] = jax.tree.map(np.asarray, priced(jnp.asarray(genome, jnp.int32)))
        cost, active = known[genome]
        weights = segment_weights(space, active, exits=row["exits"], shares=row["shares"])
        latency, energy = (
            1e3 * (weights @ np.asarray(leaf, np.float64)).reshape(shape) for leaf in (cost.latency_s, cost.energy_j)
        )
        at = tuple(_nearest(settings, row["clocks"][name]) for name, settings in grid.items())
        _check(row, latency[at], energy[at], device)
        memory = _lines(shape[1], at[1])
        curves.append(
            {
                "memory": memory,
                "latency": [_short(latency[:, m, at[2]]) for m in memory],
                "energy": [_short(energy[:, m, at[2]]) for m in memory],
                "at": list(at),
            }
        )
    return curves


def segment_weights(
    space: MBConvSpace, active: np.ndarray, *, exits: Sequence[int], shares: Sequence[float]
) -> np.ndarray:
    """Returns how often a sample runs each segment, float64[D]: the trunk's, then the heads'.

    Args:
      space: of the backbone.
      active: bool[N], block positions that the backbone uses.
      exits: the backbone's own blocks that an exit follows, ascending.
      shares: of the samples that stop at each exit, and last at the classifier.
    """
    taken = np.flatnonzero(active)[list(exits)] - space.first_exit
    stopped = np.zeros(space.num_exits + 1)
    stopped[taken + 1] = shares[:-1]
    trunk = 1.0 - np.cumsum(stopped)
    heads = np.zeros(space.num_exits)
    heads[taken] = trunk[taken]
    return np.concatenate([trunk, heads])


def _check(row: dict[str, Any], latency: float, energy: float, device: Device) -> None:
    reported = row["figures"]["deployable"]
    for name, found in (("latency", latency), ("energy", energy)):
        if abs(found / reported[name] - 1) > _TOLERANCE:
            raise ValueError(
                f"{device.name}: expected a device model that gives the {name} of the search, "
                f"{reported[name]:.4g}, got {found:.4g}"
            )


def _nearest(settings: list[float], mhz: float) -> int:
    return int(np.argmin(np.abs(np.asarray(settings) - mhz)))


def _lines(count: int, own: int) -> list[int]:
    """Returns a few of the memory clocks, evenly spread, with the network's own in place of its neighbour."""
    spread = np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(int))
    spread[np.argmin(np.abs(spread - own))] = own
    return spread.tolist()


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
