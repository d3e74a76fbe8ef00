"""What a selected network costs at each exit and operating point: tables for people and for a run-time governor.

The network stays as it is: exits, thresholds and so the shares of samples that stop at each. Every operating point of
the device is evaluated, and those are kept that are the best for some deadline (least energy) or some cap on the mean
power (least latency). Costs are of one sample; the power is the mean one while samples follow each other.
Shapes: K = exits of the network + 1, the classifier last; F operating points.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.evaluation import segment_costs
from hadas_jax.evaluation.early_exit import path_costs, percentile_exit
from hadas_jax.runs.workdir import write_text
from hadas_jax.spaces import AnySpace, block_active
from hw_models import Cost, Device, operating_points

_FORM = "hadas_jax.operating_points/1"
_DEADLINES_OF = ("mean", "p99", "longest")
_CLOCKS = ("core", "memory", "host")


@dataclass(frozen=True)
class ExitCosts:
    """What a sample costs that stops at each exit, at every operating point.

    Attributes:
        latency_s: float64[K, F], trunk and heads up to the exit, the constant cost of a run included.
        energy_j: float64[K, F], likewise.
        clocks_mhz: float64[F, 3], core, memory and host clock.
    """

    latency_s: np.ndarray
    energy_j: np.ndarray
    clocks_mhz: np.ndarray

    @classmethod
    def of(cls, architecture: Architecture) -> "ExitCosts":
        """Computes the costs of a network by the cost model of its device."""
        network = (architecture.genome, architecture.exits)
        (costs,) = cls.of_networks([network], space=architecture.space, device=architecture.device.load())
        return costs

    @classmethod
    def of_networks(
        cls, networks: Iterable[tuple[Sequence[int], Sequence[int]]], *, space: AnySpace, device: Device
    ) -> list["ExitCosts"]:
        """Computes the costs of networks of one space on one device, and compiles once.

        Args:
            networks: Genome and exits of each; exits are the blocks that they follow, counted over the backbone's own
                blocks from 0.
            space: The space of the backbones.
            device: The cost model.
        """
        points = operating_points(device)
        hertz = np.stack([points.core_hz, points.memory_hz, points.host_hz], axis=1)
        clocks_mhz = hertz.astype(np.float64) / 1e6

        @jax.jit
        def segments_of(genome: jax.Array) -> tuple[Cost, jax.Array]:
            backbone = space.decode(genome)
            return segment_costs(space, backbone, device), block_active(space, backbone)

        found = []
        for genome, exits in networks:
            costs, active = segments_of(jnp.asarray(genome, jnp.int32))
            heads = np.flatnonzero(np.asarray(active))[list(exits)] - space.first_exit
            found.append(cls(path_costs(costs.latency_s, heads), path_costs(costs.energy_j, heads), clocks_mhz))
        return found

    def expected(self, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean latency_s and energy_j, float64[F] each, where these shares of samples stop at the exits."""
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

    def selected_point(self, architecture: Architecture) -> int:
        """Returns the operating point that a network was selected with.

        Raises:
            ValueError: Its clocks are none of its device.
        """
        return self.point([getattr(architecture.clocks_mhz, name) for name in _CLOCKS])


@dataclass(frozen=True)
class PointCosts:
    """An operating point and what the network costs there.

    Attributes:
        clocks_mhz: Core, memory and host clock.
        latency_s: The mean latency of a sample.
        p99_s: The latency that 99 % of the samples keep.
        longest_s: The latency of a sample that reaches the classifier.
        energy_j: The mean energy of a sample.
        power_w: Energy over latency.
    """

    clocks_mhz: dict[str, float]
    latency_s: float
    p99_s: float
    longest_s: float
    energy_j: float
    power_w: float


@dataclass(frozen=True)
class OperatingPoints:
    """The operating points of a network that are the best for something.

    Attributes:
        deadline_of: The latency that deadlines are about: `mean`, `p99` or `longest`.
        selected: The point that the network was selected with.
        deadlines: The best points for some deadline: the latency rises and the energy falls.
        power_caps: The best points for some cap: the power rises and the latency falls.
        evaluated: How many operating points there are in all.
    """

    deadline_of: str
    selected: PointCosts
    deadlines: tuple[PointCosts, ...]
    power_caps: tuple[PointCosts, ...]
    evaluated: int

    def by_deadline(self, deadline_s: float) -> PointCosts | None:
        """Returns the point of least energy that keeps a deadline; None: no point does."""
        return next((point for point in reversed(self.deadlines) if self.time(point) <= deadline_s), None)

    def by_power(self, cap_w: float) -> PointCosts | None:
        """Returns the point of least latency that keeps a cap on the mean power; None: no point does."""
        return next((point for point in reversed(self.power_caps) if point.power_w <= cap_w), None)

    def time(self, point: PointCosts) -> float:
        """Returns the latency of a point that deadlines are about."""
        return {"mean": point.latency_s, "p99": point.p99_s, "longest": point.longest_s}[self.deadline_of]

    def as_json(self) -> dict[str, Any]:
        """Returns the points as JSON holds them."""
        points = {name: [asdict(point) for point in getattr(self, name)] for name in ("deadlines", "power_caps")}
        return {"selected": asdict(self.selected), **points}

    def write(
        self,
        path: Path | str,
        architecture: Architecture,
        *,
        deadlines_s: Sequence[float] = (),
        power_caps_w: Sequence[float] = (),
    ) -> None:
        """Writes the points as JSON, with the answers for some deadlines and power caps; null where none keeps them.

        Args:
            path: The file.
            architecture: The network.
            deadlines_s: Deadlines to answer.
            power_caps_w: Power caps to answer.
        """

        def answer(name: str, bound: float, point: PointCosts | None) -> dict[str, Any]:
            return {name: bound, "point": point and asdict(point)}

        device, shares = architecture.device, architecture.selection.shares
        content = {
            "form": _FORM,
            "device": device.file.name,
            "number_format": device.number_format,
            "power_mode": device.power_mode,
            "network": {"genome": architecture.genome, "exits": architecture.exits, "shares": shares},
            "deadlines_are_of": self.deadline_of,
            **self.as_json(),
            "judged": self.evaluated,
            "asked": {
                "deadlines": [answer("deadline_s", bound, self.by_deadline(bound)) for bound in deadlines_s],
                "power_caps": [answer("power_cap_w", bound, self.by_power(bound)) for bound in power_caps_w],
            },
        }
        write_text(Path(path), json.dumps(content, indent=1) + "\n")


def operating_table(
    architecture: Architecture, *, deadline_of: str = "mean", costs: ExitCosts | None = None
) -> OperatingPoints:
    """Evaluates a network at all operating points of its device.

    Args:
        architecture: The network, with the shares of the samples that it was selected on.
        deadline_of: Deadlines hold for the `mean` latency, for the one that 99 % of the samples keep (`p99`), or for
            the `longest`: that of a sample that reaches the classifier.
        costs: What its exits cost, if that is known.

    Raises:
        ValueError: The network's clocks are none of its device.
    """
    if deadline_of not in _DEADLINES_OF:
        raise ValueError(f"deadline_of: expected one of {', '.join(_DEADLINES_OF)}, got {deadline_of!r}")
    costs = costs or ExitCosts.of(architecture)
    latency, energy = costs.expected(architecture.selection.shares)
    p99, longest = costs.latency_s[percentile_exit(architecture.selection.shares, 99)], costs.latency_s[-1]
    power = energy / latency

    def points(rows: Sequence[int]) -> tuple[PointCosts, ...]:
        return tuple(
            PointCosts(
                dict(zip(_CLOCKS, costs.clocks_mhz[row].round(3).tolist(), strict=True)),
                *(float(column[row]) for column in (latency, p99, longest, energy, power)),
            )
            for row in rows
        )

    return OperatingPoints(
        deadline_of=deadline_of,
        selected=points([costs.selected_point(architecture)])[0],
        deadlines=points(staircase({"mean": latency, "p99": p99, "longest": longest}[deadline_of], energy)),
        power_caps=points(staircase(power, latency)),
        evaluated=len(latency),
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
