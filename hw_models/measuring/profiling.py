"""Profile of a machine: many networks timed at its operating points, as rows of a file of measurements.

Every network is measured once a round, in another order each round, and its row is the median over the rounds:
what disturbs the machine for a while then disturbs one round of many networks and not all rounds of a few. A
reference network may run in turn with every other one: the ratio of both is free of the drift of clocks and
neighbours. Until its last round is done, a network's rounds are kept beside the file, so that an interrupted profile
can go on.
"""

import dataclasses
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hw_models.device import SAME_CLOCK, NumberFormat
from hw_models.files import write_whole
from hw_models.layers import LayerTable
from hw_models.measuring.machine import ClockSetting, Machine
from hw_models.measuring.measurements import Measurement, format_layers, read_measurements, write_measurements
from hw_models.measuring.timing import Meter, Reference, Timing, measure
from hw_models.units import POWER


@dataclass(frozen=True)
class Case:
    """One network to measure.

    Attributes:
        name: Of the network, unique within a profile.
        family: What cross-validation leaves out together.
        layers: What it asks of the hardware, for one sample; columns [L].
        build: Returns the callable to time; called once a round, so that nothing large is kept in between.
        batch: Samples per run.
        number_format: Of weights and activations.
    """

    name: str
    family: str
    layers: LayerTable
    build: Callable[[], Callable[[], Any]]
    batch: int = 1
    number_format: NumberFormat = NumberFormat.FP32


@dataclass(frozen=True)
class Step:
    """How far a profile is.

    Attributes:
        done: Measurements taken, earlier ones of a resumed profile included.
        total: Measurements to take: rounds x operating points x networks.
        round: Counted from 1.
        row: What was measured last; of this round alone.
    """

    done: int
    total: int
    round: int
    row: Measurement


def profile(
    cases: Sequence[Case],
    path: str | Path,
    *,
    machine: Machine,
    meter: Meter | None = None,
    settings: Sequence[ClockSetting] = (ClockSetting(),),
    rounds: int = 3,
    reference: str | None = None,
    resume: bool = False,
    on_step: Callable[[Step], None] | None = None,
    time_one: Callable[..., Timing] = measure,
) -> list[Measurement]:
    """Measures networks and writes a row for each as soon as its last round is done.

    Args:
        cases: The networks; names differ.
        path: Of the CSV file; while the profile runs, its rounds are in a file of this name and `.rounds`.
        machine: Whose clocks are set and read.
        meter: What reads power; None: power is left empty.
        settings: The operating points; an empty clock is left as it is, all set the same clocks.
        rounds: Measurements per network and operating point.
        reference: Name of a network that runs in turn with every other one, whose times are then counted in runs of
            it; what they count as is its latency when it was measured first. None: every network runs alone.
        resume: Go on where an interrupted profile stopped; rows already there are kept and not measured again.
        on_step: Called after every measurement.
        time_one: Times one callable; takes `meter` and `reference`.

    Returns:
        All rows of the file. `spread_ms` is the larger of two median absolute deviations: of a round's runs (the
        median over the rounds), and of the rounds' medians.

    Raises:
        ValueError: The file exists and `resume` is not set, holds other networks under these names, or cannot be
            written; names repeat; clocks cannot be set.
    """
    target = Path(path)
    kept_rounds = target.with_name(target.name + ".rounds")
    _check(cases, settings, rounds, reference)
    if not resume and (target.exists() or kept_rounds.exists()):
        raise ValueError(f"{target}: expected a new file, got one that exists: `resume` continues it")
    if resume and not (target.exists() or kept_rounds.exists()):
        raise ValueError(f"{target}: expected measurements to continue, got no such file")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: expected a folder that exists, got {target.parent}")
    rows, parts = _stored(target), _stored(kept_rounds)
    _check_stored(cases, [*rows, *parts], target)
    done, total, name = 0, rounds * len(cases) * len(settings), machine.name
    for setting in settings:
        with machine.hold(setting) as clocks:
            taken = _Taken.of(cases, clocks, rows, parts)
            rows += taken.finish(target, rounds)
            done += taken.count(rounds)
            pace: Reference | None = None
            for number in range(1, rounds + 1):
                for case in _order(cases, number, reference):
                    if not taken.lacks(case, number):
                        continue
                    if pace is None and reference is not None:
                        pace = taken.pace(next(case for case in cases if case.name == reference))
                    row = _row(case, clocks, time_one(case.build(), meter=meter, reference=pace), meter, name)
                    write_measurements(kept_rounds, [row], append=True)
                    parts.append(row)
                    taken.parts[case.name].append(row)
                    rows += taken.finish(target, rounds)
                    done += 1
                    if on_step is not None:
                        on_step(Step(done, total, number, row))
    if {part.network for part in parts} <= {row.network for row in rows}:
        kept_rounds.unlink(missing_ok=True)
    return rows


class _Taken(NamedTuple):
    """What is known already of each network at one operating point.

    Attributes:
        parts: Rounds by network.
        rows: Finished rows by network.
    """

    parts: dict[str, list[Measurement]]
    rows: dict[str, Measurement]

    @classmethod
    def of(
        cls, cases: Sequence[Case], clocks: ClockSetting, rows: list[Measurement], parts: list[Measurement]
    ) -> "_Taken":
        """Finds it among the rows of both files."""
        return cls(
            {case.name: [part for part in parts if _is_of(part, case, clocks)] for case in cases},
            {case.name: row for case in cases for row in rows if _is_of(row, case, clocks)},
        )

    def lacks(self, case: Case, number: int) -> bool:
        """Whether a round of a network is still to be measured."""
        return case.name not in self.rows and len(self.parts[case.name]) < number

    def count(self, rounds: int) -> int:
        """Rounds that need not be measured any more."""
        return sum(rounds if name in self.rows else min(len(parts), rounds) for name, parts in self.parts.items())

    def finish(self, path: Path, rounds: int) -> list[Measurement]:
        """Writes and returns the rows of networks that have all their rounds and no row yet."""
        ready = [name for name, parts in self.parts.items() if name not in self.rows and len(parts) >= rounds]
        new = {name: _merged(self.parts[name]) for name in ready}
        if new:
            write_measurements(path, new.values(), append=True)
        self.rows.update(new)
        return list(new.values())

    def pace(self, case: Case) -> Reference | None:
        """The reference at its first measured latency; None until it has one."""
        measured = [*self.parts[case.name], *(row for name, row in self.rows.items() if name == case.name)]
        return Reference(case.build(), 1e-3 * measured[0].latency_ms) if measured else None


def _order(cases: Sequence[Case], number: int, reference: str | None) -> list[Case]:
    """Another order each round; the reference comes first."""
    shuffled = random.Random(number).sample(list(cases), len(cases))
    return sorted(shuffled, key=lambda case: case.name != reference)


def _row(case: Case, clocks: ClockSetting, timing: Timing, meter: Meter | None, machine: str) -> Measurement:
    power: dict[str, object] = {}
    if meter is not None and timing.power_w is not None and POWER.contains(timing.power_w):
        power = {"power_w": _rounded(timing.power_w), "power_rail": meter.rail}
    return Measurement.model_validate(
        {
            "network": case.name,
            "layers": format_layers(case.layers),
            "family": case.family,
            "batch": case.batch,
            "format": case.number_format.name.lower(),
            **{name: mhz and _rounded(mhz) for name, mhz in dataclasses.asdict(clocks).items()},
            "latency_ms": _rounded(1e3 * timing.latency_s),
            "spread_ms": _rounded(1e3 * timing.spread_s),
            "runs": timing.runs,
            "machine": machine,
            **power,
        }
    )


def _merged(parts: list[Measurement]) -> Measurement:
    """One row of a network's rounds."""
    latency = _rounded(statistics.median(part.latency_ms for part in parts))
    within = statistics.median(part.spread_ms or 0.0 for part in parts)
    between = statistics.median(abs(part.latency_ms - latency) for part in parts)
    powers = [part.power_w for part in parts if part.power_w is not None]
    merged = {
        "latency_ms": latency,
        "spread_ms": _rounded(max(within, between)),
        "power_w": _rounded(statistics.median(powers)) if powers else None,
        "power_rail": next((part.power_rail for part in parts if part.power_rail), None),
        "runs": sum(part.runs or 1 for part in parts),
    }
    return parts[0].model_copy(update=merged)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _is_of(row: Measurement, case: Case, clocks: ClockSetting) -> bool:
    """Whether a row is a case's at an operating point, clocks that nobody holds included."""
    if row.network != case.name or row.batch != case.batch or row.format != case.number_format.name.lower():
        return False
    pairs = [(value, getattr(row, name)) for name, value in dataclasses.asdict(clocks).items()]
    return all(
        got is None if value is None else got is not None and abs(got - value) <= SAME_CLOCK * value
        for value, got in pairs
    )


def _check(cases: Sequence[Case], settings: Sequence[ClockSetting], rounds: int, reference: str | None) -> None:
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise ValueError(f"networks: expected one or more with different names, got {twice or 'none'}")
    if reference is not None and reference not in names:
        raise ValueError(f"reference: expected the name of one of the networks, got {reference!r}")
    if rounds < 1:
        raise ValueError(f"rounds: expected 1 or more, got {rounds}")
    set_clocks = {tuple(value is None for value in dataclasses.astuple(setting)) for setting in settings}
    if len(set_clocks) != 1:
        raise ValueError("operating points: expected one or more that all set the same clocks, got a mixture or none")


def _check_stored(cases: Sequence[Case], stored: list[Measurement], path: Path) -> None:
    layers = {case.name: format_layers(case.layers) for case in cases}
    for row in stored:
        if row.network in layers and row.layers != layers[row.network]:
            raise ValueError(
                f"{path}: expected the network {row.network} that is to be measured, got another one of this name: "
                "resume with the same space, seed and sizes, or write to another file"
            )


def _stored(path: Path) -> list[Measurement]:
    """Rows of a file that may be missing, empty or cut off within its last line."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes()
        first, newline, _ = text.partition(b"\n")
        header = ",".join(Measurement.model_fields).encode()
        if b"latency_ms" not in first if newline else not header.startswith(text.rstrip(b"\r")):
            raise ValueError(
                f"{path}: expected a file of measurements to continue, got another one; write to a new file"
            )
        if text and not text.endswith(b"\n"):
            write_whole(path, text[: text.rfind(b"\n") + 1])
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be read and written, got: {error.strerror}") from None
    return read_measurements(path) if text.count(b"\n") > 1 else []
