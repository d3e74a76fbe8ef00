"""Profile of a machine: many networks timed at its operating points, as rows of a file of measurements.

Every network is measured once a round, in another order each round, and its row has the lowest of the rounds'
medians: what disturbs a machine only ever adds time, and seldom lasts through all rounds. Until its last round is
done, a network's rounds are kept beside the file, so that an interrupted profile can go on.
"""

import dataclasses
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hw_models.formats import NumberFormat
from hw_models.layers import LayerTable
from hw_models.measuring.machine import ClockSetting, Machine
from hw_models.measuring.measurements import Measurement, format_layers, read_measurements, write_measurements
from hw_models.measuring.timing import Meter, Timing, measure

_SAME_CLOCK = 0.01  # relative difference of two clocks that are one setting


@dataclass(frozen=True)
class Case:
    """One network to measure.

    Attributes:
        name: of the network, unique within a profile.
        family: what cross-validation leaves out together.
        layers: what it asks of the hardware, for one sample; columns [L].
        build: returns the callable to time; called once a round, so what is dear in it (compiling) is better
            kept between calls, and what is large (weights) made anew.
        batch: samples per run.
        number_format: of weights and activations.
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
        done: measurements taken, earlier ones of a resumed profile included.
        total: measurements to take: rounds x operating points x networks.
        round: counted from 1.
        row: what was measured last; of this round alone.
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
        resume: Go on where an interrupted profile stopped; rows already there are kept and not measured again.
        on_step: Called after every measurement.
        time_one: Times one callable; takes `meter`.

    Returns:
        All rows of the file. `spread_ms` is the larger of two median absolute deviations: of a round's runs (the
        median over the rounds), and of the rounds' medians from the lowest.

    Raises:
        ValueError: The file exists and `resume` is not set, holds other networks under these names, or cannot be
            written; names repeat; clocks cannot be set.
    """
    target = Path(path)
    kept_rounds = target.with_name(target.name + ".rounds")
    _check(cases, settings, rounds)
    if not resume and (target.exists() or kept_rounds.exists()):
        raise ValueError(f"{target}: expected a new file, got one that exists: resume (--resume) continues it")
    if resume and not (target.exists() or kept_rounds.exists()):
        raise ValueError(f"{target}: expected measurements to continue, got no such file")
    rows, parts = _stored(target), _stored(kept_rounds)
    _check_stored(cases, [*rows, *parts], target)
    points = {
        (case.name, i): _Point.of(case, setting, rows, parts) for case in cases for i, setting in enumerate(settings)
    }
    total, done = rounds * len(points), sum(rounds if p.is_done else len(p.parts) for p in points.values())
    for i, setting in enumerate(settings):
        with machine.hold(setting) as known:
            for number in range(1, rounds + 1):
                for case in random.Random(number).sample(list(cases), len(cases)):
                    point = points[case.name, i]
                    if point.is_done or len(point.parts) >= number:
                        continue
                    row = _row(case, known, time_one(case.build(), meter=meter), meter)
                    point.parts.append(row)
                    write_measurements(kept_rounds, [row], append=True)
                    if number == rounds:
                        rows.append(_merged(point.parts))
                        write_measurements(target, rows[-1:], append=True)
                    done += 1
                    if on_step is not None:
                        on_step(Step(done, total, number, row))
    kept_rounds.unlink(missing_ok=True)
    return rows


class _Point(NamedTuple):
    """What is known already of a network at an operating point."""

    is_done: bool
    parts: list[Measurement]

    @classmethod
    def of(cls, case: Case, setting: ClockSetting, rows: list[Measurement], parts: list[Measurement]) -> "_Point":
        """Finds it among the rows of both files."""
        done = any(_is_of(row, case, setting) for row in rows)
        return cls(done, [part for part in parts if _is_of(part, case, setting)])


def _row(case: Case, clocks: ClockSetting, timing: Timing, meter: Meter | None) -> Measurement:
    power: dict[str, object] = {}
    if meter is not None and timing.power_w is not None and timing.power_w > 0:
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
            **power,
        }
    )


def _merged(parts: list[Measurement]) -> Measurement:
    """One row of a network's rounds."""
    latency = min(part.latency_ms for part in parts)
    within = statistics.median(part.spread_ms or 0.0 for part in parts)
    between = statistics.median(abs(part.latency_ms - latency) for part in parts)
    powers = [part.power_w for part in parts if part.power_w is not None]
    found = {
        "latency_ms": latency,
        "spread_ms": _rounded(max(within, between)),
        "power_w": _rounded(statistics.median(powers)) if powers else None,
        "power_rail": next((part.power_rail for part in parts if part.power_rail), None),
        "runs": sum(part.runs or 1 for part in parts),
    }
    return parts[0].model_copy(update=found)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _is_of(row: Measurement, case: Case, setting: ClockSetting) -> bool:
    """Whether a row is a case's at an operating point."""
    if row.network != case.name or row.batch != case.batch or row.format != case.number_format.name.lower():
        return False
    wanted = [(value, getattr(row, name)) for name, value in dataclasses.asdict(setting).items() if value is not None]
    return all(got is not None and abs(got - value) <= _SAME_CLOCK * value for value, got in wanted)


def _check(cases: Sequence[Case], settings: Sequence[ClockSetting], rounds: int) -> None:
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise ValueError(f"networks: expected one or more with different names, got {twice or 'none'}")
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
        if text and not text.endswith(b"\n"):
            path.write_bytes(text[: text.rfind(b"\n") + 1])
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be read and written, got: {error.strerror}") from None
    return read_measurements(path) if text.count(b"\n") > 1 else []
