"""Operating points of a selected network for a run-time governor: which clocks for which deadline or power cap.

The network stays as it is: exits, thresholds and so the shares of samples that stop at each. Every operating point of
the device is judged, and those are kept that are the best for some deadline (least energy) or some cap on the mean
power (least latency). Costs are of one sample; the power is the mean one while samples follow each other.
Shapes: F operating points.

What a sample costs that stops at each exit of a selected network, at every operating point of its device.

Shapes: K = exits of the network + 1, the classifier last; F operating points. Costs are of one sample.

Who stops where in a selected network, and what part of the energy goes there.

Shapes: K = exits of the network + 1, the classifier last.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.evaluation import segment_costs
from hadas_jax.runs.workdir import write_text
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
            ValueError: There is none.
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
        ValueError: The clocks are none of the device.
    """
    costs, clocks = exit_costs(architecture), architecture.clocks_mhz
    point = costs.point((clocks.core, clocks.memory, clocks.host))
    latency, energy = costs.latency_s[:, point], costs.energy_j[:, point]
    shares = np.asarray(architecture.selection.shares, np.float64)
    return ExitUsage(shares, latency, energy, shares * energy / np.sum(shares * energy))


FORM = "hadas_jax.operating_points/1"
DEADLINES = ("mean", "longest")


@dataclass(frozen=True)
class Point:
    """An operating point and what the network does there.

    Attributes:
        clocks_mhz: Core, memory and host clock.
        latency_s: On average.
        longest_s: Of a sample that reaches the classifier.
        energy_j: On average.
        power_w: Energy over latency.
    """

    clocks_mhz: dict[str, float]
    latency_s: float
    longest_s: float
    energy_j: float
    power_w: float


@dataclass(frozen=True)
class OperatingPoints:
    """The table of a network.

    Attributes:
        of: The latency that deadlines are about, one of `DEADLINES`.
        selected: At the clocks that the network was selected with.
        deadlines: Best for some deadline: the latency rises and the energy falls.
        power_caps: Best for some cap: the power rises and the latency falls.
        judged: Operating points in all.
    """

    of: str
    selected: Point
    deadlines: tuple[Point, ...]
    power_caps: tuple[Point, ...]
    judged: int

    def by_deadline(self, deadline_s: float) -> Point | None:
        """Returns the point of least energy that keeps a deadline; None: no point does."""
        times = [self.time(point) for point in self.deadlines]
        return _last_within(self.deadlines, times, deadline_s)

    def by_power(self, cap_w: float) -> Point | None:
        """Returns the point of least latency that keeps a cap on the mean power; None: no point does."""
        return _last_within(self.power_caps, [point.power_w for point in self.power_caps], cap_w)

    def time(self, point: Point) -> float:
        """Returns the latency of a point that deadlines are about."""
        return point.latency_s if self.of == "mean" else point.longest_s


def operating_table(architecture: Architecture, *, of: str = "mean") -> OperatingPoints:
    """Judges all operating points of a network's device.

    Args:
        architecture: The network, with the shares of the samples that it was selected on.
        of: Deadlines hold for the `mean` latency, or for the `longest`: of a sample that reaches the classifier.

    Raises:
        ValueError: The network's clocks are none of its device.
    """
    if of not in DEADLINES:
        raise ValueError(f"--deadline-of: expected one of {', '.join(DEADLINES)}, got {of!r}")
    costs = exit_costs(architecture)
    latency, energy = costs.expected(architecture.selection.shares)
    time = latency if of == "mean" else costs.latency_s[-1]
    power = energy / latency
    clocks = architecture.clocks_mhz
    selected = costs.point((clocks.core, clocks.memory, clocks.host))

    def points(rows: Sequence[int]) -> tuple[Point, ...]:
        return tuple(_point(costs, row, float(latency[row]), float(energy[row])) for row in rows)

    return OperatingPoints(
        of=of,
        selected=points([selected])[0],
        deadlines=points(staircase(time, energy)),
        power_caps=points(staircase(power, latency)),
        judged=len(latency),
    )


def staircase(cost: np.ndarray, value: np.ndarray) -> list[int]:
    """Returns the rows that have the least value among all that cost no more, by rising cost.

    Args:
        cost: float[F].
        value: float[F].
    """
    order = np.lexsort((value, cost))
    least = np.minimum.accumulate(value[order])
    return order[np.append(True, least[1:] < least[:-1])].tolist()


def write_table(
    path: Path | str,
    table: OperatingPoints,
    *,
    architecture: Architecture,
    deadlines_s: Sequence[float] = (),
    power_caps_w: Sequence[float] = (),
) -> None:
    """Writes a table as JSON, with the answers for some deadlines and power caps; null where none keeps them.

    Args:
        path: Of the file.
        table: Of the network.
        architecture: The network.
        deadlines_s: To answer.
        power_caps_w: To answer.
    """
    device, shares = architecture.device, architecture.selection.shares
    network = {"genome": architecture.genome, "exits": architecture.exits, "shares": shares}
    by_deadline = [{"deadline_s": most, "point": _plain(table.by_deadline(most))} for most in deadlines_s]
    by_power = [{"power_cap_w": most, "point": _plain(table.by_power(most))} for most in power_caps_w]
    content = {
        "form": FORM,
        "device": device.file.name,
        "number_format": device.number_format,
        "power_mode": device.power_mode,
        "network": network,
        "deadlines_are_of": table.of,
        **{name: value for name, value in asdict(table).items() if name != "of"},
        "asked": {"deadlines": by_deadline, "power_caps": by_power},
    }
    write_text(Path(path), json.dumps(content, indent=1) + "\n")


def _plain(point: Point | None) -> dict | None:
    return None if point is None else asdict(point)


def _point(costs: ExitCosts, row: int, latency: float, energy: float) -> Point:
    clocks = dict(zip(("core", "memory", "host"), costs.clocks_mhz[row].round(3).tolist(), strict=True))
    return Point(clocks, latency, float(costs.latency_s[-1, row]), energy, energy / latency)


def _last_within(points: Sequence[Point], costs: Sequence[float], most: float) -> Point | None:
    within = [point for point, cost in zip(points, costs, strict=True) if cost <= most]
    return within[-1] if within else None
