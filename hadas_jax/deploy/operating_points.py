"""Operating points of a selected network for a run-time governor: which clocks for which deadline or power cap.

The network stays as it is: exits, thresholds and so the shares of samples that stop at each. Every operating point of
the device is judged, and those are kept that are the best for some deadline (least energy) or some cap on the mean
power (least latency). Costs are of one sample; the power is the mean one while samples follow each other.
Shapes: F operating points.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.deploy.exit_costs import ExitCosts, exit_costs
from hadas_jax.workdir import write_text

FORM = "hadas_jax.operating_points/1"
DEADLINES = ("mean", "longest")


@dataclass(frozen=True)
class Point:
    """An operating point and what the network does there.

    Attributes:
      clocks_mhz: core, memory and host clock.
      latency_s: on average.
      longest_s: of a sample that reaches the classifier.
      energy_j: on average.
      power_w: energy over latency.
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
      of: the latency that deadlines are about, one of `DEADLINES`.
      selected: at the clocks that the network was selected with.
      deadlines: best for some deadline: the latency rises and the energy falls.
      power_caps: best for some cap: the power rises and the latency falls.
      judged: operating points in all.
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
      architecture: the network, with the shares of the samples that it was selected on.
      of: deadlines hold for the `mean` latency, or for the `longest`: of a sample that reaches the classifier.

    Raises:
      ValueError: the network's clocks are none of its device.
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
      path: of the file.
      table: of the network.
      architecture: the network.
      deadlines_s: to answer.
      power_caps_w: to answer.
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
