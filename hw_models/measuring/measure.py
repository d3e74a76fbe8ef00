#!/usr/bin/env python3
"""Measures networks on the machine that it runs on: one file, for Python 3.6 and newer with NumPy.

    python measure.py [KIT] -o measurements.csv

A kit is a folder of networks as ONNX, which `hadas devices kit` writes, this file with it. They run on onnxruntime or,
as engines of TensorRT, in trtexec. A run of a network with exits is timed up to each of them: the image is
standardised, segment after segment is called, and each exit's score decides, as in a deployed network.

Every network is measured once a round, in another order each round, and its row is the median over the rounds: what
disturbs the machine for a while then disturbs one round of many networks and not all rounds of a few. A reference
network is measured alone when a round begins and then runs in turn with every other one, whose times are counted in
runs of it: the ratio of both is free of the drift of clocks and neighbours. A measurement during which clocks moved or
the machine throttled is INCONCLUSIVE: it is repeated, then left out and counted. Until its last round is done, a
network's rounds are kept beside the file, so that an interrupted profile can go on.

Clocks are read and held through cpufreq, devfreq or a Jetson's debugfs; power is read from the INA sensors of supply
rails, the energy counters of x86 (RAPL), or a log that tegrastats or jtop writes meanwhile. What a machine does not
have or does not let be read is None, and its columns stay empty.
Units: MHz, W, J, s, degrees Celsius. Shapes: R runs, S segments, B batch, H, W height and width, C channels, K classes.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, TextIO, Tuple

import numpy as np

FORM = "hadas_jax.kit/1"
CASES = "cases.json"
COLUMNS = (
    *("network", "layers", "family", "batch", "format", "segments", "core_mhz", "memory_mhz", "host_mhz"),
    *("latency_ms", "p95_ms", "p99_ms", "spread_ms", "power_w", "power_rail", "temperature_c", "runs"),
    *("machine", "runtime", "runtime_version", "provider", "kit"),
)
_TEXTS = {"network", "layers", "family", "format", "power_rail"} | set(COLUMNS[COLUMNS.index("machine") :])
_COUNTS = ("batch", "segments", "runs")
_LABELS = ("runtime", "runtime_version", "provider", "kit")
Row = Dict[str, Any]

SAME_CLOCK = 0.01  # relative difference up to which two clocks are the same setting
_MOVED = 0.05  # the same for a clock that nobody holds, between the beginning and the end of a measurement
_CLOCKS, _POWERS = (10.0, 20e3), (1e-4, 2e3)  # what a clock in MHz and a power in W can be
_STABLE = 0.05  # relative change of the median between two warm-up batches that counts as none
_LEAST_S = 1e-9  # a clock's tick, for a reference that takes no time
_WARM_BATCHES = 6  # after which timing starts on a machine that never becomes stable
_PER_TURN = 3  # timed runs of a network, and of the reference, before the other one's turn
_FOR_P95, _FOR_P99 = 20, 100  # runs of a round from which on it has these percentiles
_ATTEMPTS = 3  # at a round of a network
_SAMPLE_S = 0.02
_TRTEXEC_WARM_S = 0.2
_BUSY = 0.05  # share of the processor that other work takes, from which on it is said

_ROOT = Path("/")
# Kinds in devfreq, behind the address: of NVIDIA (gv11b, ga10b, ...; gpu-gpc-0 of Thor), Arm and Qualcomm.
_GPUS = r"g[a-z][0-9]{2}[a-z]|gpu|gpu-gpc-[0-9]+|mali[0-9]*|panfrost|panthor|(qcom,)?kgsl-3d[0-9]"
_MEMORIES = r"bwmgr|emc|dmc|actmon|(external-)?memory-controller"
# Rails that feed everything else: of TX1, TX2, Xavier NX and Orin NX and Nano, of the Nano, and of Thor.
_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
# Rails that together feed all: of AGX Orin, whose VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0, and of AGX Xavier.
_BOARD_SUMS = (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"))
_PARTS = {"CPU", "GPU", "SOC", "CV", "MSS", "DDR", "DDRQ"}
_ROUNDED_W = 1e-3  # difference of a total in whole mW from the sum of its rails
_LOGGED_RAIL = re.compile(r"(?:^|\s)([A-Za-z]\w*) ([0-9]+)(?:mW)?/[0-9]+(?:mW)?(?=\s|$)")  # of tegrastats


class ClockSetting(NamedTuple):
    """Clocks of an operating point in MHz; None: unknown, or to be left as it is.

    Attributes:
        core_mhz: Of the processor that computes.
        memory_mhz: Of the memory.
        host_mhz: Of the processor that launches kernels, if another one computes.
    """

    core_mhz: Optional[float] = None
    memory_mhz: Optional[float] = None
    host_mhz: Optional[float] = None


class State(NamedTuple):
    """How a machine is at a moment.

    Attributes:
        clocks: What they run at in MHz, by field of `ClockSetting`; those that can be read.
        throttled: Count of events that slow the machine down; a rise tells of one.
        temperature_c: Of its hottest sensor.
    """

    clocks: Dict[str, float]
    throttled: float = 0.0
    temperature_c: Optional[float] = None


class Clock(NamedTuple):
    """A clock and the files that show and set it; every folder has the same files.

    Folders may have different settings, as the clusters of a big.LITTLE processor do. The clock is then that of the
    fastest ones, which compute most, and the others follow it at the nearest setting that they have at or below.

    Attributes:
        name: For messages.
        folders: One for every part of the machine that is set together.
        held_by: The two files that hold it at a setting: the lowest and the highest clock that may be chosen, or with
            `has_lock` one that holds 1 while the clock stays where it is put, and one that puts it there.
        available: File of the settings; words that are no numbers are skipped.
        current: File of what it runs at.
        per_mhz: What the files count in one MHz.
        available_per_mhz: The same for `available`.
        has_lock: See `held_by`.
        bounds: The two files of the lowest and the highest clock that the hardware has; None: it shows no such files.
    """

    name: str
    folders: Tuple[Path, ...]
    held_by: Tuple[str, str]
    available: str
    current: str
    per_mhz: float
    available_per_mhz: float
    has_lock: bool = False
    bounds: Optional[Tuple[str, str]] = None

    @property
    def has_clusters(self) -> bool:
        """Whether some of its folders are slower than others."""
        return len(self._fastest()) < len(self.folders)

    def available_mhz(self) -> Optional[Tuple[float, ...]]:
        """Settings, ascending; of the fastest folders."""
        return self._settings(self._fastest()[0]) or None

    def fixed_mhz(self) -> Optional[float]:
        """The clock if it is held at one setting, None while a governor chooses or the fastest folders differ."""
        first, *others = (self._fixed(folder) for folder in self._fastest())
        if first is None or not _is_clock(first):  # files that count in something else tell nothing
            return None
        return first if all(one is not None and _is_same(one, first) for one in others) else None

    def current_mhz(self) -> Optional[float]:
        """What it runs at now: the fastest folder does, where they differ."""
        found = [self._read(folder, self.current) for folder in self._fastest()]
        return max((mhz for mhz in found if mhz is not None and _is_clock(mhz)), default=None)

    @contextlib.contextmanager
    def held(self, mhz: float) -> Iterator[None]:
        """Holds the clock at a setting, and gives it back when the block is left, in whatever way.

        Raises:
            ValueError: The machine has no such setting, or does not let the clock be set.
        """
        nearest = self._setting(mhz)
        with contextlib.ExitStack() as stack:
            for folder in self.folders:
                before = self._before(folder)
                stack.callback(self._restore, folder, before)
                value = f"{self._at_or_below(folder, nearest) * self.per_mhz:.0f}"
                self._set(folder, ("1" if self.has_lock else value, value))
            fixed = self.fixed_mhz()
            if fixed is None or not _is_same(fixed, nearest):
                shown = "one that varies" if fixed is None else f"{fixed:g} MHz"
                raise ValueError(
                    f"{self.name} clock: expected the machine to hold {nearest:g} MHz, got {shown}: "
                    "a power mode may cap it; choose a setting within its limits"
                )
            yield

    def _setting(self, mhz: float) -> float:
        """The setting that a clock is, or itself where the machine names no settings."""
        available = self.available_mhz()
        if available is None:
            low, high = self._bounds(self._fastest()[0])
            if not _is_clock(mhz) or not low * (1 - SAME_CLOCK) <= mhz <= high * (1 + SAME_CLOCK):
                likely = _in_other_units(mhz, lambda meant: low <= meant <= high and _is_clock(meant))
                raise ValueError(
                    f"{self.name} clock: expected {max(low, _CLOCKS[0]):g} to {min(high, _CLOCKS[1]):g} MHz, got "
                    f"{mhz:.10g}{likely}"
                )
            return min(max(mhz, low), high)
        settings = available

        def nearest(mhz: float) -> Optional[float]:
            setting = min(settings, key=lambda setting: abs(setting - mhz))
            return setting if _is_same(mhz, setting) else None

        found = nearest(mhz)
        if found is None:
            likely = _in_other_units(mhz, lambda meant: nearest(meant) is not None)
            shown = " ".join(f"{setting:g}" for setting in settings)
            raise ValueError(f"{self.name} clock: expected one of {shown} MHz, got {mhz:.10g}{likely}")
        return found

    def _fastest(self) -> Tuple[Path, ...]:
        """Folders whose highest clock is the highest of all."""
        highest = [self._highest(folder) for folder in self.folders]
        pairs = zip(self.folders, highest)
        return tuple(folder for folder, mhz in pairs if mhz >= max(highest) * (1 - SAME_CLOCK))

    def _highest(self, folder: Path) -> float:
        bound = self._bounds(folder)[1]
        settings = self._settings(folder)
        if settings:
            return settings[-1]
        return bound if math.isfinite(bound) else self._read(folder, self.held_by[1]) or 0.0

    def _bounds(self, folder: Path) -> Tuple[float, float]:
        """Lowest and highest clock that the hardware has; 0 and infinity where it does not show them."""
        if self.bounds is None:
            return 0.0, math.inf
        low, high = (self._read(folder, name) for name in self.bounds)
        return low or 0.0, high or math.inf

    def _settings(self, folder: Path) -> Tuple[float, ...]:
        words = (_text(folder / self.available) or "").split()
        clocks = {float(word) / self.available_per_mhz for word in words if re.fullmatch(r"[0-9]+", word)}
        return tuple(sorted(mhz for mhz in clocks if _is_clock(mhz)))

    def _at_or_below(self, folder: Path, mhz: float) -> float:
        """The nearest setting of a folder that is no faster, or its slowest one."""
        settings = self._settings(folder)
        if not settings:
            low, high = self._bounds(folder)
            return min(max(mhz, low), high)
        return max((setting for setting in settings if setting <= mhz * (1 + SAME_CLOCK)), default=settings[0])

    def _fixed(self, folder: Path) -> Optional[float]:
        if self.has_lock:
            return self._read(folder, self.held_by[1]) if _text(folder / self.held_by[0]) == "1" else None
        low, high = (self._read(folder, limit) for limit in self.held_by)
        return low if low == high else None

    def _read(self, folder: Path, name: str) -> Optional[float]:
        value = _number(folder / name)
        return None if value is None else value / self.per_mhz

    def _before(self, folder: Path) -> Tuple[str, str]:
        """What the files hold that are about to be written."""
        texts = [_text(folder / name) for name in self.held_by]
        for name, text in zip(self.held_by, texts):
            if text is None:
                raise ValueError(self._refusal(folder / name, "it cannot be read"))
        return str(texts[0]), str(texts[1])

    def _set(self, folder: Path, values: Tuple[str, str]) -> None:
        """Writes both files in the order that they need: limits must not cross, a lock comes first."""
        pairs = list(zip(self.held_by, values))
        low = _number(folder / self.held_by[0])
        if not self.has_lock and low is not None and float(values[1]) >= low:
            pairs.reverse()
        for name, value in pairs:
            self._write(folder / name, value)

    def _restore(self, folder: Path, values: Tuple[str, str]) -> None:
        """Writes back what was there, as far as possible."""
        with contextlib.suppress(ValueError):
            if self.has_lock:
                self._write(folder / self.held_by[1], values[1])
                self._write(folder / self.held_by[0], values[0])
            else:
                self._set(folder, values)

    def _write(self, path: Path, value: str) -> None:
        if _text(path) == value:
            return
        try:
            path.write_text(value, encoding="utf-8")
        except OSError as error:
            raise ValueError(self._refusal(path, error.strerror or "an error")) from None

    def _refusal(self, path: Path, reason: str) -> str:
        return (
            f"{self.name} clock: expected to be allowed to set it, got {reason} ({path}): run as root, or give no "
            "clocks to measure at those that the machine has"
        )


class Reading:
    """A power reading under way.

    Attributes:
        mean_w: Mean power over the block that was left; None where nothing could be read.
    """

    def __init__(self) -> None:
        self.mean_w: Optional[float] = None


class Rail(NamedTuple):
    """A supply rail with a sensor (INA3221 or another of its family).

    Attributes:
        label: Name of the rail as the machine gives it.
        files: Whose product is its power: of the power, or of voltage and current.
        per_watt: What the product is at one watt.
    """

    label: str
    files: Tuple[Path, ...]
    per_watt: float

    def watts(self) -> Optional[float]:
        """Power at this moment."""
        values = [_number(path) for path in self.files]
        return None if None in values else float(np.prod(values)) / self.per_watt  # type: ignore[arg-type]


class RailMeter(NamedTuple):
    """Averages samples of rails, taken by a thread.

    Attributes:
        rail: Board or core.
        rails: Whose powers are added.
    """

    rail: str
    rails: Tuple[Rail, ...]

    @property
    def sources(self) -> str:
        """What is read, in words."""
        return " + ".join(rail.label for rail in self.rails)

    @contextlib.contextmanager
    def read(self) -> Iterator[Reading]:
        """Reads power while its block runs."""
        result, samples, stop = Reading(), [self._sample()], threading.Event()

        def sample() -> None:
            while not stop.wait(_SAMPLE_S):
                samples.append(self._sample())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield result
        finally:
            stop.set()
            thread.join()
        # The first sample was taken before the block: it stands in only where the block was too short for others.
        result.mean_w = _mean(samples[1:] or samples)

    def _sample(self) -> Optional[float]:
        return _sum([rail.watts() for rail in self.rails])


class EnergyCounter(NamedTuple):
    """A counter of energy that starts again at zero when it is full (RAPL).

    Attributes:
        label: What it counts: `package-0`, `psys`, ...
        folder: Of its files.
    """

    label: str
    folder: Path

    def joules(self) -> Optional[float]:
        """What it shows now."""
        value = _number(self.folder / "energy_uj")
        return None if value is None else value * 1e-6

    def difference(self, before: Optional[float], after: Optional[float]) -> Optional[float]:
        """Energy between two readings that lie less than one round of the counter apart."""
        if before is None or after is None:
            return None
        if after >= before:
            return after - before
        full = _number(self.folder / "max_energy_range_uj")
        return None if full is None else after - before + full * 1e-6


class CounterMeter(NamedTuple):
    """Divides what energy counters counted by the time; the counters must not go round more than once.

    Attributes:
        rail: Board or core.
        counters: Whose energies are added.
        timer: Clock in seconds.
    """

    rail: str
    counters: Tuple[EnergyCounter, ...]
    timer: Callable[[], float] = time.perf_counter

    @property
    def sources(self) -> str:
        """What is read, in words."""
        return " + ".join(counter.label for counter in self.counters)

    @contextlib.contextmanager
    def read(self) -> Iterator[Reading]:
        """Reads power while its block runs."""
        result = Reading()
        start, before = self.timer(), [counter.joules() for counter in self.counters]
        yield result
        seconds, after = self.timer() - start, [counter.joules() for counter in self.counters]
        joules = _sum([counter.difference(*pair) for counter, *pair in zip(self.counters, before, after)])
        result.mean_w = joules / seconds if joules is not None and seconds > 0 else None


class LogMeter(NamedTuple):
    """Averages what is added to a log of tegrastats or jtop meanwhile; it should add lines several times a second.

    Attributes:
        rail: Board or core.
        path: Of the log.
        labels: Of the rails whose powers are added.
        columns: Header of a CSV file of jtop; empty: the lines are of tegrastats.
    """

    rail: str
    path: Path
    labels: Tuple[str, ...]
    columns: Tuple[str, ...] = ()

    @property
    def sources(self) -> str:
        """What is read, in words."""
        return "{} of {}".format(" + ".join(self.labels), self.path)

    @classmethod
    def of(cls, path: Path, processor: str) -> "LogMeter":
        """Returns the meter that a log allows.

        Raises:
            ValueError: The file cannot be read, or none of its lines has the power of the board or the processor.
        """
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise ValueError(f"{path}: expected a log of tegrastats or jtop, got: {error.strerror}") from None
        columns = tuple(next(csv.reader(lines[:1]), []))
        if "time" not in columns:
            found = next(filter(None, (_metered(_logged(line), processor) for line in reversed(lines))), None)
            columns = ()
        else:
            every = [_logged_by_jtop(line, columns) for line in reversed(lines[1:])]
            found = next(filter(None, (_metered_by_jtop(powers, processor) for powers in every)), None)
        if found is None:
            raise ValueError(
                f"{path}: expected lines of tegrastats, or of jtop's CSV logger, with the power of the board or of the "
                f"{processor.upper()}, got {len(lines)} lines without; start `tegrastats --interval 100 --logfile "
                f"{path}` as root first"
            )
        return cls(found[0], path, found[1], columns)

    @contextlib.contextmanager
    def read(self) -> Iterator[Reading]:
        """Reads power while its block runs."""
        result, start, begin = Reading(), self.path.stat().st_size, datetime.now()
        yield result
        end = datetime.now()
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").splitlines()
        # The first line tells of the time before the block too, the last one may be half a line.
        logged = [_logged(line) for line in lines[1:-1]]
        if self.columns:  # lines that jtop's logger wrote late tell of what was before
            logged = [_logged_by_jtop(line, self.columns, begin, end) for line in lines]
        result.mean_w = _mean([_sum([powers.get(label) for label in self.labels]) for powers in logged])


def _logged(line: str) -> Dict[str, float]:
    """Power of each rail in a line of tegrastats, by its name in capitals."""
    return {label.upper(): float(milliwatts) / 1e3 for label, milliwatts in _LOGGED_RAIL.findall(line)}


def _logged_by_jtop(
    line: str, columns: Sequence[str], begin: datetime = datetime.min, end: datetime = datetime.max
) -> Dict[str, float]:
    """Power of each rail and in all (TOT) in a line of jtop's CSV; nothing of half a line or of another time."""
    cells = next(csv.reader([line]), [])
    row = dict(zip(columns, cells))
    try:
        at = datetime.strptime(row.get("time", ""), "%Y-%m-%d %H:%M:%S.%f")
        if len(cells) != len(columns) or not begin <= at <= end:
            return {}
        named = {name[len("Power ") :]: cell for name, cell in row.items() if name.startswith("Power ")}
        if "power cur" in row:  # of jtop before 4.2
            named["TOT"] = row["power cur"]
        return {label.upper(): float(milliwatts) / 1e3 for label, milliwatts in named.items()}
    except ValueError:
        return {}


def _metered_by_jtop(powers: Dict[str, float], processor: str) -> Optional[Tuple[str, Tuple[str, ...]]]:
    """As `_metered`: jtop shows the rail that feeds the board as the total, and else the sum of all rails as that."""
    found = _metered([label for label in powers if label != "TOT"], processor)
    if (found is None or found[0] == "core") and "TOT" in powers:
        rails = sum(watts for label, watts in powers.items() if label != "TOT")
        if abs(powers["TOT"] - rails) > _ROUNDED_W:
            return "board", ("TOT",)
    return found


class Machine(NamedTuple):
    """A Linux machine, on whose CPU or GPU networks run.

    Attributes:
        processor: What computes, `cpu` or `gpu`; a CPU is core and host in one, and has a core clock alone.
        root: Where its file system starts.
        accelerator: Model of a GPU that computes; empty: that of the machine tells.
    """

    processor: str = "cpu"
    root: Path = _ROOT
    accelerator: str = ""

    @property
    def name(self) -> str:
        """What it is, in words: machines of one name should take the same time."""
        return f"{self.accelerator or _model(self.root)}, {self.processor.upper()}, {os.cpu_count()} CPU cores"

    def clocks(self) -> Dict[str, Clock]:
        """The clocks that it has, by field of `ClockSetting`."""
        cpu, memory = _cpu_clock(self.root), _memory_clock(self.root)
        if self.processor == "cpu":
            clocks = {"core_mhz": cpu, "memory_mhz": memory}
        else:
            clocks = {"core_mhz": _gpu_clock(self.root), "memory_mhz": memory, "host_mhz": cpu}
        return {name: clock for name, clock in clocks.items() if clock is not None}

    @contextlib.contextmanager
    def hold(self, setting: ClockSetting) -> Iterator[ClockSetting]:
        """Sets clocks and restores them afterwards; yields those that are held, by this or by somebody before.

        Raises:
            ValueError: It has no such clock or setting, or does not let it be set.
        """
        clocks = self.clocks()
        with contextlib.ExitStack() as stack:
            for name, mhz in setting._asdict().items():
                if mhz is None:
                    continue
                if name not in clocks:
                    own = ", ".join(clocks) or "none"
                    raise ValueError(f"{name}: expected a clock that can be set on this machine ({own}), got {mhz:g}")
                stack.enter_context(clocks[name].held(mhz))
            yield ClockSetting(**{name: clock.fixed_mhz() for name, clock in clocks.items()})

    def state(self) -> State:
        """Clocks, throttling and temperature at this moment."""
        found = {name: clock.current_mhz() for name, clock in self.clocks().items()}
        clocks = {name: mhz for name, mhz in found.items() if mhz is not None}
        return State(clocks, _throttled(self.root), _temperature_c(self.root))

    def meter(self) -> Any:
        """What reads power here, the board's rather than the processor's; None where nothing can be read."""
        by_label = {rail.label.upper(): rail for rail in _rails(self.root)}
        found = _metered(by_label, self.processor)
        if found is not None:
            return RailMeter(found[0], tuple(by_label[label] for label in found[1]))
        counters = _energy_counters(self.root)
        platforms = [counter for counter in counters if counter.label == "psys"]
        packages = [counter for counter in counters if counter.label.startswith("package")]
        if platforms:
            return CounterMeter("board", tuple(platforms))
        return CounterMeter("core", tuple(packages)) if packages and self.processor == "cpu" else None

    def power_in_words(self, meter: Any) -> str:
        """What power is read from, or why none is.

        Args:
            meter: What reads it; None: nothing does.
        """
        if meter is not None:
            what = "board" if meter.rail == "board" else f"{self.processor.upper()} alone"
            return f"power of the {what}, read from {meter.sources}"
        shared = ", ".join(rail.label for rail in _rails(self.root))
        if shared:
            return f"no power, as its rails ({shared}) are neither all that feed the board nor the processor's alone"
        return "no power, as nothing that may be read was found"

    def clocks_in_words(self) -> str:
        """The clocks that it has with what they can be set to, and those that it does not show."""
        clocks, shown = self.clocks(), []
        for name, clock in clocks.items():
            table = clock.available_mhz()
            settings = f"{table[0]:g} to {table[-1]:g} MHz" if table else "settings not shown"
            shown.append("{} ({}{})".format(name, settings, " for its fastest cores" if clock.has_clusters else ""))
        wanted = ("core_mhz", "memory_mhz") if self.processor == "cpu" else ("core_mhz", "memory_mhz", "host_mhz")
        missing = ", ".join(name for name in wanted if name not in clocks)
        return (", ".join(shown) or "none that can be read") + (f"; left empty: {missing}" if missing else "")


def _model(root: Path) -> str:
    """Model of a board or, where there is none, of the CPU."""
    board, cpu = root / "proc/device-tree/model", root / "proc/cpuinfo"
    if board.is_file():
        return board.read_text(encoding="utf-8", errors="replace").strip(" \0\n")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.is_file() else []
    for name, _, value in (line.partition(":") for line in lines):
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _metered(labels: Iterable[str], processor: str) -> Optional[Tuple[str, Tuple[str, ...]]]:
    """Board or core, and the rails whose sum that is, among rails by name; None where none tells of either."""
    names = tuple(labels)
    for board in (*((label,) for label in _BOARD_RAILS), *_BOARD_SUMS):
        if all(label in names for label in board):
            return "board", board
    core = tuple(name for name in names if _parts_of(name) == {processor.upper()})
    return ("core", core) if core else None


def _parts_of(label: str) -> Set[str]:
    """Parts of the chip that a rail feeds, by its label: some feed two, and tell nothing of one alone."""
    return _PARTS & set(re.split(r"[^A-Z]+", label.upper()))


def _cpu_clock(root: Path) -> Optional[Clock]:
    """Clock of the CPU cores (cpufreq), whose policies are set together; those that are offline are left out."""
    policies = _folders(root, "sys/devices/system/cpu/cpufreq/policy*")
    limits, bounds = ("scaling_min_freq", "scaling_max_freq"), ("cpuinfo_min_freq", "cpuinfo_max_freq")
    folders = tuple(folder for folder in policies if _text(folder / "affected_cpus") != "")
    if not folders:
        return None
    return Clock("CPU", folders, limits, "scaling_available_frequencies", "scaling_cur_freq", 1e3, 1e3, bounds=bounds)


def _gpu_clock(root: Path) -> Optional[Clock]:
    """Clock of the GPU that computes (devfreq): not of the video decoders beside it."""
    folders = _of_kind(root, _GPUS)
    parts = tuple(folder for folder in folders if "-gpc-" in folder.name)
    return _devfreq("GPU", parts or folders[:1])


def _memory_clock(root: Path) -> Optional[Clock]:
    """Clock of the memory: in a Jetson's debugfs, which root alone may read, or in devfreq."""
    debug = root / "sys/kernel/debug"
    boot, nano = debug / "bpmp/debug/clk/emc", debug / "clk/override.emc"
    if _text(boot / "rate") is not None:
        files = ("mrq_rate_locked", "rate")
        return Clock("memory", (boot,), files, "../../emc/possible_rates", "rate", 1e6, 1e3, has_lock=True)
    if _text(nano / "clk_update_rate") is not None:
        files = ("clk_state", "clk_update_rate")
        return Clock("memory", (nano,), files, "clk_possible_rates", "clk_update_rate", 1e6, 1e6, has_lock=True)
    return _devfreq("memory", _of_kind(root, _MEMORIES)[:1])


def _of_kind(root: Path, kind: str) -> Tuple[Path, ...]:
    folders = _folders(root, "sys/class/devfreq/*")
    return tuple(folder for folder in folders if re.fullmatch(kind, folder.name.rpartition(".")[2]))


def _devfreq(name: str, folders: Tuple[Path, ...]) -> Optional[Clock]:
    clock = Clock(name, folders, ("min_freq", "max_freq"), "available_frequencies", "cur_freq", 1e6, 1e6)
    return clock if folders else None


def _rails(root: Path) -> Tuple[Rail, ...]:
    """Rails that can be read now: of hwmon, or of the driver of older Jetson kernels."""
    every = []
    for folder in _folders(root, "sys/class/hwmon/hwmon*"):
        chip = _text(folder / "name") or ""
        for i in (1, 2, 3) if chip == "ina3221" else (1,) if chip.startswith("ina") else ():
            # Further inputs of the chips are shunt voltages and sums.
            names = [f"in{i}_label", f"power{i}_label", f"curr{i}_label", *(["label"] if chip != "ina3221" else [])]
            label = next(filter(None, (_text(folder / name) for name in names)), None)
            if label:
                every.append(_hwmon_rail(label, folder, i))
    for folder in _folders(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*"):
        for i in (0, 1, 2):
            label = _text(folder / f"rail_name_{i}")
            if label:
                every.append(Rail(label, (folder / f"in_power{i}_input",), 1e3))
    return tuple(rail for rail in every if rail.watts() is not None)


def _hwmon_rail(label: str, folder: Path, channel: int) -> Rail:
    """A rail whose power is shown in uW, or else as mV and mA."""
    power = Rail(label, (folder / f"power{channel}_input",), 1e6)
    if power.watts() is not None:
        return power
    return Rail(label, (folder / f"in{channel}_input", folder / f"curr{channel}_input"), 1e6)


def _energy_counters(root: Path) -> Tuple[EnergyCounter, ...]:
    """Counters of whole packages and of the platform that can be read now; their parts are left out."""
    folders = [f for f in _folders(root, "sys/class/powercap/intel-rapl:*") if re.fullmatch(r"[\w-]+:\d+", f.name)]
    counters = [EnergyCounter(_text(folder / "name") or folder.name, folder) for folder in folders]
    return tuple(counter for counter in counters if counter.joules() is not None)


def _throttled(root: Path) -> float:
    """Events that slow the machine down: counters of x86 and Jetson, steps of thermal cooling, bits of Raspberry Pi."""
    counters = (
        *_folders(root, "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
        *_folders(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"),
    )
    cooling = [
        folder / "cur_state"
        for folder in _folders(root, "sys/class/thermal/cooling_device*")
        if "fan" not in (_text(folder / "type") or "fan").lower()
    ]
    events = sum(max(_number(path) or 0.0, 0.0) for path in (*counters, *cooling))
    bits = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or "0"
    return events + (bin(int(bits, 16) & 0xF).count("1") if re.fullmatch(r"(0x)?[0-9a-fA-F]+", bits) else 0)


def _temperature_c(root: Path) -> Optional[float]:
    """Of the hottest zone; a zone that shows what no machine survives shows something else."""
    zones = _folders(root, "sys/class/thermal/thermal_zone*")
    found = [_number(zone / "temp") for zone in zones if "pmic" not in (_text(zone / "type") or "").lower()]
    return max((value / 1e3 for value in found if value is not None and -50e3 < value < 200e3), default=None)


def _folders(root: Path, pattern: str) -> Tuple[Path, ...]:
    try:
        return tuple(sorted(root.glob(pattern)))
    except OSError:
        return ()


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> Optional[float]:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _sum(values: Sequence[Optional[float]]) -> Optional[float]:
    """Sum of readings; None where one of them is missing."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _is_clock(mhz: float) -> bool:
    return _CLOCKS[0] <= mhz <= _CLOCKS[1]


def _is_same(mhz: float, setting: float) -> bool:
    return abs(mhz - setting) <= SAME_CLOCK * setting


def _in_other_units(mhz: float, fits: Callable[[float], bool]) -> str:
    """Says which unit a clock was likely in: `: 1,300.5 MHz if it was in kHz`; empty where none makes sense."""
    meant = {name: mhz * factor for name, factor in (("GHz", 1e3), ("kHz", 1e-3), ("Hz", 1e-6))}
    likely = [f"{number:,.6g} MHz if it was in {name}" for name, number in meant.items() if fits(number)]
    return ": {}".format(" or ".join(likely)) if likely else ""


class Timing(NamedTuple):
    """What was measured of a network in one round.

    Attributes:
        latency_s: Median time of the runs up to the end of each segment.
        spread_s: Median absolute deviation of the runs from it.
        p95_s: What 95 % of the runs stay within; None where the runs are too few to tell.
        p99_s: The same for 99 %.
        runs: Number of timed runs.
        power_w: Mean power while it repeated; None where nothing could be read.
        before: The machine before the timed runs.
        after: The machine after them.
        ran: Share of that time in which this process ran; on a CPU, other work took the rest. Beyond 1 with several
            threads, or where the time of a process is counted coarsely.
    """

    latency_s: Tuple[float, ...]
    spread_s: Tuple[float, ...]
    p95_s: Tuple[Optional[float], ...]
    p99_s: Tuple[Optional[float], ...]
    runs: int
    power_w: Optional[float] = None
    before: State = State({})
    after: State = State({})
    ran: float = 1.0


class Reference(NamedTuple):
    """A network that runs in turn with what is timed, so that a machine whose speed drifts is no ruler that shrinks.

    Attributes:
        run: Runs it once, as what is timed.
        latency_s: What one run of it counts as.
    """

    run: Callable[[], Tuple[float, ...]]
    latency_s: float


def time_case(
    opened: Any,
    *,
    seconds: float = 0.5,
    least_runs: int = 7,
    warm_seconds: float = 0.05,
    reference: Optional[Reference] = None,
    meter: Any = None,
    meter_seconds: float = 1.0,
    state: Callable[[], State] = partial(State, {}),
    timer: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Times an opened case.

    It first runs untimed in batches until the medians of two batches agree. Power is read in a loop of its own behind
    the timed one, so that reading does not slow the timed runs. In turn with a reference, a few runs follow as many of
    that; the first of either is not timed, as the other one has just emptied the caches.

    Args:
        opened: Its `run()` runs it once and returns the seconds up to the end of each segment; what times itself has
            `timing(seconds, meter, meter_seconds, state)` instead.
        seconds: Time to spend on timed runs and those of the reference, at least.
        least_runs: Timed runs, at least.
        warm_seconds: Time of one batch of the warm-up, at least; the batch has two runs or more.
        reference: In whose runs times are counted; None: it runs alone.
        meter: What reads power; None: power is left out.
        meter_seconds: Time of the loop that power is averaged over, at least.
        state: Returns the state of the machine.
        timer: Clock in seconds.

    Returns:
        The timing.

    Raises:
        ValueError: A duration or count is not positive.
    """
    for name, value in (("seconds", seconds), ("least_runs", least_runs), ("meter_seconds", meter_seconds)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    if hasattr(opened, "timing"):
        return opened.timing(seconds, meter, meter_seconds, state)
    _warm_up(opened.run, warm_seconds, timer)
    before, begin, ran = state(), time.perf_counter(), time.process_time()
    times, paces = _times(opened.run, seconds, least_runs, timer, reference)
    ran = (time.process_time() - ran) / max(time.perf_counter() - begin, _LEAST_S)
    after, power = state(), None
    if meter is not None:
        with meter.read() as reading:
            _times(opened.run, meter_seconds, 1, timer)
        power = reading.mean_w
    return _summary(times, paces, power, before, after)._replace(ran=ran)


def _warm_up(run: Callable[[], Tuple[float, ...]], seconds: float, timer: Callable[[], float]) -> None:
    before = 0.0
    for _ in range(_WARM_BATCHES):
        now = float(np.median(_times(run, seconds, 2, timer)[0][:, -1]))
        if abs(now - before) <= _STABLE * before:
            return
        before = now


def _times(
    run: Callable[[], Tuple[float, ...]],
    seconds: float,
    least_runs: int,
    timer: Callable[[], float],
    reference: Optional[Reference] = None,
) -> Tuple[np.ndarray, np.ndarray]:
    """Runs for at least so long and so often; returns the times [R, S] of the runs and the reference's pace [R]."""
    times = []  # type: List[Tuple[float, ...]]
    paces = []  # type: List[float]
    begin = timer()
    while len(times) < least_runs or timer() - begin < seconds:
        if reference is None:
            times.append(run())
            paces.append(1.0)
            continue
        reference.run()
        typical = statistics.median(reference.run()[-1] for _ in range(_PER_TURN))
        run()
        times += [run() for _ in range(_PER_TURN)]
        paces += [reference.latency_s / max(typical, _LEAST_S)] * _PER_TURN
    return np.array(times), np.array(paces)


def _summary(times: np.ndarray, paces: np.ndarray, power_w: Optional[float], before: State, after: State) -> Timing:
    """Sums up the times [R, S] of runs; a percentile is one of runs and not of the reference's noise."""
    paced, runs = times * paces[:, None], len(times)
    latency = np.median(paced, axis=0)

    def percentile(share: float, least: int) -> Tuple[Optional[float], ...]:
        if runs < least:
            return (None,) * len(latency)
        return tuple(np.maximum(np.percentile(times, share, axis=0) * np.median(paces), latency).tolist())

    return Timing(
        latency_s=tuple(latency.tolist()),
        spread_s=tuple(np.median(np.abs(paced - latency), axis=0).tolist()),
        p95_s=percentile(95, _FOR_P95),
        p99_s=percentile(99, _FOR_P99),
        runs=runs,
        power_w=power_w,
        before=before,
        after=after,
    )


def disturbance(timing: Timing, held: ClockSetting) -> str:
    """Says what disturbed a measurement; empty where nothing did that can be read.

    Args:
        timing: With the machine before and after it.
        held: The clocks that should not have moved.
    """
    before, after = timing.before, timing.after
    for name, mhz in after.clocks.items():
        asked, started = getattr(held, name), before.clocks.get(name, mhz)
        moved = [one for one in (started, mhz) if asked is not None and not _is_same(one, asked)]
        if moved:
            return f"{name} was to be held at {asked:g} MHz and ran at {moved[-1]:g}"
        if asked is None and abs(mhz - started) > _MOVED * started:
            return f"{name} moved from {started:g} to {mhz:g} MHz"
    if after.throttled > before.throttled:
        return f"the machine throttled ({after.throttled - before.throttled:g} times)"
    return ""


class Case(NamedTuple):
    """A network to measure; any object with these attributes is one.

    Attributes:
        name: Of the network, unique within a profile.
        family: What cross-validation leaves out together.
        layers: The layer table of each segment as the text of the column `layers`, for one sample.
        start: Returns what `time_case` takes; called once a round, so that nothing large is kept in between.
        kind: `path`: every prefix of its segments is a row; otherwise it is one row.
        batch: Samples per run.
        format: Of weights and activations.
    """

    name: str
    family: str
    layers: Tuple[str, ...]
    start: Callable[[], Any]
    kind: str = "whole"
    batch: int = 1
    format: str = "fp32"


class Step(NamedTuple):
    """How far a profile is.

    Attributes:
        done: Measurements taken, earlier ones of a resumed profile included.
        total: Measurements to take: rounds x operating points x networks.
        round: Counted from 1.
        name: What was measured last.
        latency_ms: Of this round alone; None where it was disturbed.
        trouble: What disturbed it; empty where nothing did.
        ran: Share of the time in which this process ran, see `Timing`.
    """

    done: int
    total: int
    round: int
    name: str
    latency_ms: Optional[float]
    trouble: str = ""
    ran: float = 1.0


def row_names(case: Any) -> Tuple[str, ...]:
    """Returns the names of a case's rows: of a path NAME/1, NAME/2, ..., one for every prefix; otherwise NAME."""
    if getattr(case, "kind", "path" if len(case.layers) > 1 else "whole") == "path":
        return tuple(f"{case.name}/{count}" for count in range(1, len(case.layers) + 1))
    return (case.name,)


def require_output(output: Any, *, resume: bool) -> None:
    """Raises unless measurements can be written to a file, or continued there.

    Args:
        output: CSV file.
        resume: Whether it is to be continued.

    Raises:
        ValueError: It exists and is not to be continued, or the other way round, or has no folder.
    """
    target = Path(output)
    exists = target.exists() or _kept_rounds(target).exists()
    if exists and not resume:
        raise ValueError(f"{target}: expected a new file, got one that exists: `resume` continues it")
    if resume and not exists:
        raise ValueError(f"{target}: expected measurements to continue, got no such file")
    if not target.parent.is_dir():
        raise ValueError(f"{target}: expected a folder that exists, got {target.parent}")


def _kept_rounds(output: Path) -> Path:
    """Where the rounds are while a profile runs."""
    return output.with_name(output.name + ".rounds")


def profile(
    cases: Sequence[Any],
    output: Any,
    *,
    machine: Any,
    meter: Any = None,
    clocks: Sequence[ClockSetting] = (ClockSetting(),),
    rounds: int = 3,
    reference: Optional[str] = None,
    resume: bool = False,
    labels: Optional[Dict[str, Optional[str]]] = None,
    on_step: Optional[Callable[[Step], None]] = None,
    on_inconclusive: Optional[Callable[[str, str], None]] = None,
    time_one: Callable[..., Timing] = time_case,
) -> List[Row]:
    """Measures networks and writes the rows of each as soon as its last round is done.

    A disturbed measurement is repeated twice at most and then left out; a network keeps its row if most of its rounds
    are left. A signal that ends the process restores clocks first.

    Args:
        cases: The networks, see `Case`; names differ.
        output: CSV file; while the profile runs, its rounds are in a file of this name and `.rounds`.
        machine: Whose clocks are set and whose state is read.
        meter: What reads power; None: power is left empty. It is that of whole networks, prefixes have none.
        clocks: The operating points; an empty clock is left as it is, all set the same clocks.
        rounds: Measurements per network and operating point.
        reference: Name of a network that runs in turn with every other one, whose times are then counted in runs of
            it; what they count as is its latency alone when the round began. None: every network runs alone.
        resume: Go on where an interrupted profile stopped; rows already there are kept and not measured again.
        labels: Columns that are the same in all rows: runtime, runtime_version, provider, kit.
        on_step: Called after every measurement.
        on_inconclusive: Called for a network that has no row at an operating point, with its name and the reason.
        time_one: Times an opened case; takes `meter`, `reference` and `state`.

    Returns:
        All rows of the file. `spread_ms` is the larger of two median absolute deviations: of a round's runs (the
        median over the rounds), and of the rounds' medians.

    Raises:
        ValueError: The file exists and `resume` is not set, holds other networks under these names or what another
            runtime measured, or cannot be written; names repeat; clocks cannot be set.
    """
    target = Path(output)
    kept_rounds = _kept_rounds(target)
    fixed = dict({name: (labels or {}).get(name) for name in _LABELS}, machine=machine.name)
    _check(cases, clocks, rounds, reference)
    require_output(output, resume=resume)
    rows, parts = _stored(target), _stored(kept_rounds)
    _check_stored(cases, rows + parts, fixed, target)
    done, total = 0, rounds * len(cases) * len(clocks)
    with _unwound_by_signals():
        for setting in clocks:
            with machine.hold(setting) as held:
                taken, beside = _Taken.of(cases, held, rows, parts), None  # type: _Taken, Any
                troubles = {}  # type: Dict[str, str]
                rows += taken.finish(target, rounds)
                done += taken.count(rounds)
                for number, case in _turns(cases, rounds, reference):
                    if not taken.lacks(case, number):
                        continue
                    time_it = partial(time_one, meter=meter, reference=None, state=machine.state)  # type: Any
                    if reference not in (None, case.name):
                        other = next(one for one in cases if one.name == reference)
                        beside, seconds = beside or other.start(), taken.latest_s(other)
                        pace = None if seconds is None else Reference(beside.run, seconds)
                        time_it = None if pace is None else partial(time_it, reference=pace)
                    for timing, trouble, is_last in _attempts(case, time_it, held):
                        done += is_last
                        found = [] if timing is None else _rows(case, held, timing, meter, fixed)
                        step = Step(done, total, number, case.name, None, trouble)
                        if timing is not None:
                            step = step._replace(latency_ms=found[-1]["latency_ms"], ran=timing.ran)
                        if on_step is not None:
                            on_step(step)
                        troubles[case.name] = trouble
                    _append(kept_rounds, found)
                    parts += found
                    taken.add(found)
                    rows += taken.finish(target, rounds)
                rows += taken.finish(target, rounds // 2 + 1)
                for case in cases:
                    if on_inconclusive is not None and taken.lacks(case, rounds):
                        on_inconclusive(case.name, troubles.get(case.name) or "too few rounds are left")
    if {part["network"] for part in parts} <= {row["network"] for row in rows} and kept_rounds.exists():
        kept_rounds.unlink()
    return rows


def _turns(cases: Sequence[Any], rounds: int, reference: Optional[str]) -> Iterator[Tuple[int, Any]]:
    """The number of the round and the case to measure, one after the other: another order each round."""
    for number in range(1, rounds + 1):
        shuffled = random.Random(number).sample(list(cases), len(cases))
        for case in sorted(shuffled, key=lambda case: case.name != reference):  # the reference comes first
            yield number, case


def _attempts(
    case: Any, time_it: Optional[Callable[[Any], Timing]], held: ClockSetting
) -> Iterator[Tuple[Optional[Timing], str, bool]]:
    """Times a case until nothing disturbs it; yields the timing if so, what disturbed it, and whether this was all."""
    if time_it is None:
        yield None, "its reference could not be measured", True
        return
    for left in reversed(range(_ATTEMPTS)):
        timing = time_it(case.start())
        trouble = disturbance(timing, held)
        yield (None if trouble else timing), trouble, not (trouble and left)
        if not trouble:
            return


class _Taken(NamedTuple):
    """What is known already of each network at one operating point.

    Attributes:
        names: The cases and the names of their rows.
        parts: Rounds by row.
        rows: Finished rows by name.
    """

    names: Tuple[Tuple[Any, Tuple[str, ...]], ...]
    parts: Dict[str, List[Row]]
    rows: Dict[str, Row]

    @classmethod
    def of(cls, cases: Sequence[Any], clocks: ClockSetting, rows: List[Row], parts: List[Row]) -> "_Taken":
        """Finds it among the rows of both files."""
        names = tuple((case, row_names(case)) for case in cases)
        known = {}  # type: Dict[str, List[Row]]
        for case, own in names:
            every = {name: [part for part in parts if _is_of(part, name, case, clocks)] for name in own}
            whole = min(len(of_one) for of_one in every.values())  # a killed profile may have left half a round
            known.update({name: of_one[:whole] for name, of_one in every.items()})
        finished = {name: row for case, own in names for name in own for row in rows if _is_of(row, name, case, clocks)}
        return cls(names, known, finished)

    def lacks(self, case: Any, number: int) -> bool:
        """Whether a round of a network is still to be measured."""
        last = row_names(case)[-1]
        return last not in self.rows and len(self.parts[last]) < number

    def count(self, rounds: int) -> int:
        """Rounds that need not be measured any more."""
        return sum(rounds if own[-1] in self.rows else min(len(self.parts[own[-1]]), rounds) for _, own in self.names)

    def add(self, found: List[Row]) -> None:
        """Adds a round of a network."""
        for row in found:
            self.parts[row["network"]].append(row)

    def finish(self, path: Path, rounds: int) -> List[Row]:
        """Writes and returns the rows of networks that have so many rounds and no row yet."""
        ready = [name for name, parts in self.parts.items() if name not in self.rows and len(parts) >= rounds]
        new = {name: _merged(self.parts[name]) for name in ready}
        _append(path, list(new.values()))
        self.rows.update(new)
        return list(new.values())

    def latest_s(self, case: Any) -> Optional[float]:
        """Latency of a whole network when it was measured last; None until it was."""
        last = row_names(case)[-1]
        measured = [*(row for name, row in self.rows.items() if name == last), *self.parts[last]]
        return 1e-3 * measured[-1]["latency_ms"] if measured else None


def _rows(case: Any, clocks: ClockSetting, timing: Timing, meter: Any, fixed: Dict[str, Optional[str]]) -> List[Row]:
    """One row for each name of a case, with every column."""
    names, last = row_names(case), len(case.layers) - 1
    power = timing.power_w if meter is not None else None
    if power is not None and not _POWERS[0] <= power <= _POWERS[1]:
        power = None
    rows = []
    for name, end in zip(names, range(len(case.layers) - len(names), len(case.layers))):
        row = dict.fromkeys(COLUMNS)  # type: Row
        row.update(fixed)
        row.update({name: _rounded(mhz) for name, mhz in clocks._asdict().items()})
        row.update(
            network=name,
            layers=";".join(filter(None, case.layers[: end + 1])),
            family=case.family,
            batch=case.batch,
            format=case.format,
            segments=end + 1,
            latency_ms=_rounded(1e3 * timing.latency_s[end]),
            p95_ms=_rounded(timing.p95_s[end], 1e3),
            p99_ms=_rounded(timing.p99_s[end], 1e3),
            spread_ms=_rounded(1e3 * timing.spread_s[end]),
            power_w=_rounded(power) if end == last else None,
            power_rail=meter.rail if power is not None and end == last else None,
            temperature_c=_rounded(timing.after.temperature_c),
            runs=timing.runs,
        )
        rows.append(row)
    return rows


def _merged(parts: List[Row]) -> Row:
    """One row of a network's rounds."""
    latency = statistics.median(part["latency_ms"] for part in parts)
    within = statistics.median(part["spread_ms"] or 0.0 for part in parts)
    between = statistics.median(abs(part["latency_ms"] - latency) for part in parts)
    merged = dict(parts[0], latency_ms=_rounded(latency), spread_ms=_rounded(max(within, between)))
    for name in ("p95_ms", "p99_ms", "power_w"):
        known = [part[name] for part in parts if part[name] is not None]
        merged[name] = _rounded(statistics.median(known)) if known else None
    merged["power_rail"] = next((part["power_rail"] for part in parts if part["power_rail"]), None)
    merged["temperature_c"] = max((part["temperature_c"] for part in parts if part["temperature_c"]), default=None)
    merged["runs"] = sum(part["runs"] or 1 for part in parts)
    return merged


def _rounded(value: Optional[float], factor: float = 1.0) -> Optional[float]:
    return None if value is None else float(f"{factor * value:.6g}")


def _is_of(row: Row, name: str, case: Any, clocks: ClockSetting) -> bool:
    """Whether a row is a case's at an operating point, clocks that nobody holds included."""
    if row["network"] != name or row["batch"] != case.batch or row["format"] != case.format:
        return False
    pairs = [(mhz, row[clock]) for clock, mhz in clocks._asdict().items()]
    return all(got is None if mhz is None else got is not None and _is_same(got, mhz) for mhz, got in pairs)


def _check(cases: Sequence[Any], clocks: Sequence[ClockSetting], rounds: int, reference: Optional[str]) -> None:
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise ValueError("networks: expected one or more with different names, got {}".format(twice or "none"))
    if reference is not None and reference not in names:
        raise ValueError(f"reference: expected the name of one of the networks, got {reference!r}")
    if rounds < 1:
        raise ValueError(f"rounds: expected 1 or more, got {rounds}")
    if len({tuple(mhz is None for mhz in setting) for setting in clocks}) != 1:
        raise ValueError("operating points: expected one or more that all set the same clocks, got a mixture or none")


def _check_stored(cases: Sequence[Any], stored: List[Row], labels: Dict[str, Optional[str]], path: Path) -> None:
    layers = {}
    for case in cases:
        names = row_names(case)
        for name, end in zip(names, range(len(case.layers) - len(names) + 1, len(case.layers) + 1)):
            layers[name] = ";".join(filter(None, case.layers[:end]))
    for row in stored:
        for name, wanted in labels.items():
            if row[name] != wanted:
                shown = "{} {}, got {}".format(name, wanted or "none", row[name] or "none")
                raise ValueError(f"{path}: expected rows of {shown}: write to another file")
        if row["layers"] != layers.get(row["network"], row["layers"]):
            raise ValueError(
                "{}: expected the network {} that is to be measured, got another one of this name: resume with the "
                "same networks, or write to another file".format(path, row["network"])
            )


def _stored(path: Path) -> List[Row]:
    """Rows of a file that may be missing, empty or cut off within its last line."""
    if not path.exists():
        return []
    try:
        content = path.read_bytes()
        first, newline, _ = content.partition(b"\n")
        header = ",".join(COLUMNS).encode()
        if b"latency_ms" not in first if newline else not header.startswith(content.rstrip(b"\r")):
            raise ValueError(
                f"{path}: expected a file of measurements to continue, got another one; write to a new file"
            )
        if content and not content.endswith(b"\n"):
            content = content[: content.rfind(b"\n") + 1]
            partial_path = path.with_name(path.name + ".partial")
            partial_path.write_bytes(content)
            os.replace(str(partial_path), str(path))
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be read and written, got: {error.strerror}") from None
    try:
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        return [_read_row(line) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path}: expected a file of measurements as this one writes it, cannot read it; write to a new file"
        ) from None


def _read_row(line: Dict[str, str]) -> Row:
    row = dict.fromkeys(COLUMNS)  # type: Row
    for name, text in line.items():
        if text and name in _COUNTS:
            row[name] = int(text)
        elif text:
            row[name] = text if name in _TEXTS else float(text)
    row["batch"], row["segments"] = row["batch"] or 1, row["segments"] or 1
    return row


def _append(path: Path, rows: List[Row]) -> None:
    """Adds rows to a file, or begins it, in one piece: a killed process leaves all of them or none."""
    if not rows:
        return
    try:
        is_new = not path.exists() or not path.stat().st_size
        columns = list(COLUMNS) if is_new else _header(path)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        if is_new:
            writer.writeheader()
        for row in rows:
            lost = [name for name in COLUMNS if row[name] is not None and name not in columns]
            if lost:
                raise ValueError(
                    "{}: expected columns {} to append to, got none; write a new file".format(path, ", ".join(lost))
                )
            writer.writerow({name: "" if row[name] is None else row[name] for name in columns})
        with path.open("ab", buffering=0) as file:
            file.write(text.getvalue().encode("utf-8"))
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be written, got: {error.strerror}") from None


def _header(path: Path) -> List[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        columns = next(csv.reader(file))
    if not set(columns) <= set(COLUMNS):
        raise ValueError("{}: expected a header as this file writes it, got {}".format(path, ",".join(columns)))
    return columns


@contextlib.contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Lets a signal that ends the process leave its blocks, so that clocks are restored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]

    def leave(number: int, _: Any) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in numbers:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def read_kit(folder: Any) -> Dict[str, Any]:
    """Reads what `cases.json` of a kit says, and checks its files.

    Args:
        folder: The kit.

    Returns:
        Its content: `digest`, `reference`, `cases`.

    Raises:
        ValueError: One line: there is none, of another form, or a file is missing or damaged.
    """
    path = Path(folder) / CASES
    if not path.is_file():
        raise ValueError(f"{folder}: expected a kit as `hadas devices kit` writes, got none (no {CASES})")
    try:
        kit = json.loads(path.read_text(encoding="utf-8"))
        form, files, names = kit["form"], dict(kit["files"]), [case["name"] for case in kit["cases"]]
        if form == FORM:
            digests = [(each["file"], each["sha256"]) for case in kit["cases"] for each in case["segments"]]
            text = json.dumps(kit["cases"], sort_keys=True, separators=(",", ":"))
            whole = kit["digest"] == hashlib.sha256(text.encode("utf-8")).hexdigest()[:12] and kit["reference"] in names
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: expected what a kit holds, cannot read it; copy the kit again") from None
    if form != FORM:
        raise ValueError(f"{path}: expected a kit of form {FORM}, got {form!r}; take the measure.py of its folder")
    if not whole:
        raise ValueError(f"{path}: expected cases of the digest that it names, it is damaged; copy the kit again")
    for name, wanted in sorted(set(files.items()) | set(digests)):
        file = Path(folder) / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
            what = "damaged" if file.is_file() else "missing"
            raise ValueError(f"{file}: expected the file that {CASES} describes, it is {what}; copy the kit again")
    return kit


class Engine(NamedTuple):
    """What runs networks.

    Attributes:
        runtime: `onnxruntime` or `tensorrt`.
        version: Of the runtime; None: unknown.
        provider: Which of its back ends computes: CPU, CUDA or TensorRT; GPU in trtexec.
    """

    runtime: str
    version: Optional[str]
    provider: str

    @property
    def processor(self) -> str:
        """What computes, `cpu` or `gpu`."""
        return "cpu" if self.provider == "CPU" else "gpu"


def find_engine(runtime: str = "auto", provider: Optional[str] = None) -> Engine:
    """Returns the runtime to use on this machine.

    Args:
        runtime: `onnxruntime`, `tensorrt` (by trtexec), or `auto`: the first of these that is there.
        provider: Of onnxruntime: CPU, CUDA or TensorRT; None: CPU, which exported networks run on.

    Raises:
        ValueError: It is not there, with what to install, or does not have the provider.
    """
    if runtime in ("auto", "onnxruntime"):
        try:
            import onnxruntime
        except ImportError:
            onnxruntime = None
        if onnxruntime is not None:
            name = _provider(provider or "CPU")
            available = onnxruntime.get_available_providers()
            if name not in available:
                own = ", ".join(each.replace("ExecutionProvider", "") for each in available)
                raise ValueError(
                    f"provider: expected one that this onnxruntime has ({own}), got {provider}: its package for "
                    "NVIDIA is onnxruntime-gpu, for a Jetson in NVIDIA's Jetson Zoo"
                )
            return Engine("onnxruntime", onnxruntime.__version__, provider or "CPU")
        if runtime == "onnxruntime":
            raise ValueError("runtime: expected the package onnxruntime, got none: pip install onnxruntime")
    if provider is not None:
        raise ValueError(f"provider: expected none, as trtexec has no choice, got {provider}")
    if _trtexec() is None:
        wanted = "trtexec of TensorRT on PATH" if runtime == "tensorrt" else "onnxruntime or trtexec"
        raise ValueError(
            f"runtime: expected {wanted}, got none: pip install onnxruntime, or install TensorRT (on a Jetson the "
            "package tensorrt) and add the folder of trtexec to PATH"
        )
    return Engine("tensorrt", _trtexec_version(), "GPU")


def _provider(name: str) -> str:
    """Name that onnxruntime has for a provider."""
    return {"TensorRT": "Tensorrt"}.get(name, name) + "ExecutionProvider"


def kit_labels(kit: Dict[str, Any], engine: Engine, *, threads: int = 1) -> Dict[str, Optional[str]]:
    """Returns what rows say of a kit and what runs it, for `profile`; more threads than one are named.

    Args:
        kit: Its content, from `read_kit`.
        engine: What runs it.
        threads: Of onnxruntime on a CPU.
    """
    several = f", {threads} threads" if engine.provider == "CPU" and threads != 1 else ""
    provider = engine.provider + several
    return dict(zip(_LABELS, (engine.runtime, engine.version, provider, kit["digest"])))


def kit_cases(
    folder: Any, kit: Dict[str, Any], engine: Engine, *, threads: int = 1, scratch: Optional[Any] = None
) -> List[Case]:
    """Returns the cases of a kit for `profile`.

    Args:
        folder: The kit.
        kit: Its content, from `read_kit`.
        engine: What runs them.
        threads: Of onnxruntime on a CPU.
        scratch: Folder for engines of TensorRT, which are built once; None: they are built in each round.
    """
    how = {"runtime": engine.runtime, "provider": engine.provider}  # type: Dict[str, Any]
    return [
        Case(
            name=case["name"],
            family=case["family"],
            layers=tuple(segment["layers"] for segment in case["segments"]),
            start=partial(open_case, folder, case, threads=threads, scratch=scratch, **how),
            kind=case["kind"],
            batch=case["batch"],
            format=case["format"],
        )
        for case in kit["cases"]
    ]


def open_case(
    folder: Any,
    case: Dict[str, Any],
    *,
    runtime: str = "onnxruntime",
    provider: str = "CPU",
    threads: int = 1,
    scratch: Optional[Any] = None,
) -> Any:
    """Loads a case of a kit.

    Args:
        folder: The kit.
        case: One of its `cases`.
        runtime: `onnxruntime` or `tensorrt`.
        provider: Of onnxruntime.
        threads: Of onnxruntime on a CPU.
        scratch: Folder for engines of TensorRT; None: a temporary one.

    Returns:
        What `time_case` takes.

    Raises:
        ValueError: The runtime cannot load the network.
    """
    if runtime == "tensorrt":
        return TrtexecCase(Path(folder), case, None if scratch is None else Path(scratch))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    name = _provider(provider)
    settings = {}  # type: Dict[str, Any]
    if provider == "TensorRT":
        settings = {"trt_fp16_enable": case["format"] == "fp16", "trt_engine_cache_enable": scratch is not None}
        if scratch is not None:
            settings["trt_engine_cache_path"] = str(scratch)
    sessions = []
    for file in (Path(folder) / segment["file"] for segment in case["segments"]):
        try:
            providers = [(name, settings)] if settings else [name]
            session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # onnxruntime's own, which no common class announces
            raise ValueError(f"{file}: expected a network that onnxruntime runs, got: {_one_line(error)}") from None
        if session.get_providers()[0] != name:
            raise ValueError(
                f"provider: expected {provider}, got {session.get_providers()[0]}: onnxruntime could not load it; are "
                "the versions of CUDA, cuDNN and TensorRT those that it was built for?"
            )
        sessions.append(session)
    return SessionCase(case, sessions)


class SessionCase:
    """A case in sessions of onnxruntime, run as `hadas_jax.deploy.runtime` runs a network.

    Args:
        case: Of the kit.
        sessions: One for each of its segments.
    """

    def __init__(self, case: Dict[str, Any], sessions: Sequence[Any]) -> None:
        self._segments, self._sessions, self._description = case["segments"], sessions, case["images"]
        rng = np.random.RandomState(0)
        self._inputs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in case["inputs"].items()}
        if self._description is not None:
            self.images = rng.randint(0, 256, [case["batch"]] + self._description["shape"]).astype(np.uint8)

    def run(self) -> Tuple[float, ...]:
        """Runs it once; returns the seconds until the images are classified that stop at the end of each segment."""
        begin, stopping, stamps = time.perf_counter(), 0.0, []
        for number, (outputs, score) in enumerate(self.steps()):
            decided = time.perf_counter()
            if score is not None:
                _classify(outputs["logits"], score, number)
            end = time.perf_counter()
            stamps.append(end - begin - stopping)
            stopping += end - decided  # images that go on do not pay it
        return tuple(stamps)

    def steps(self) -> Iterator[Tuple[Dict[str, np.ndarray], Optional[np.ndarray]]]:
        """Yields outputs and score [B] of each segment, when its exit has decided that no image stops."""
        feeds, outputs = self._inputs, {}  # type: Dict[str, np.ndarray], Dict[str, np.ndarray]
        if self._description is not None:
            feeds = {self._segments[0]["input"]: standardised(self.images, self._description)}
        for segment, session in zip(self._segments, self._sessions):
            if outputs:
                feeds = {segment["input"]: outputs["features"]}
            names, score = segment["outputs"], None
            outputs = dict(zip(names, session.run(list(names.values()), feeds)))
            if segment["score"] is not None:
                score = exit_score(outputs["logits"], outputs.get("confidence"), segment["score"])
                bool(score[0] >= np.float32(math.inf))
            yield outputs, score


def _classify(logits: np.ndarray, score: np.ndarray, number: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the runtime says of images that stop: classes, exits and scores."""
    return logits.argmax(axis=1), np.full(len(score), number), score


def standardised(images: np.ndarray, description: Dict[str, Any]) -> np.ndarray:
    """Returns images uint8[B, H, W, C] as float32[B, C, H, W] without the mean, in units of the deviation."""
    values = images.astype(np.float32) / np.float32(255)
    mean, deviation = (np.asarray(description[name], np.float32) for name in ("mean", "deviation"))
    return np.ascontiguousarray(((values - mean) / deviation).transpose(0, 3, 1, 2))


def exit_score(logits: np.ndarray, confidence: Optional[np.ndarray], policy: str) -> np.ndarray:
    """Returns float32[B]: how sure an exit is, higher is surer.

    Args:
        logits: float32[B, K].
        confidence: float32[B, 1], the exit's own, for the policy `learned`.
        policy: Confidence (largest probability), entropy (its negative, in nats) or learned.
    """
    if policy == "learned" and confidence is not None:
        return confidence[:, 0]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if policy == "confidence":
        return np.exp(logarithms).max(axis=1)
    return (np.exp(logarithms) * logarithms).sum(axis=1)


class TrtexecCase:
    """A case as engines that trtexec builds and times, one for each segment; their medians add up.

    Percentiles of a path are not known of segments that ran one by one, and are left out.

    Args:
        kit: The folder of the kit.
        case: One of its cases.
        scratch: Folder of engines, which are used again; None: a temporary one.
    """

    def __init__(self, kit: Path, case: Dict[str, Any], scratch: Optional[Path]) -> None:
        self._kit, self._format, self._scratch = kit, case["format"], scratch
        self._files = [segment["file"] for segment in case["segments"]]

    def timing(self, seconds: float, meter: Any, meter_seconds: float, state: Callable[[], State]) -> Timing:
        """Times it, with power while trtexec infers."""
        with contextlib.ExitStack() as stack:
            folder = self._scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            length = max(seconds, meter_seconds if meter is not None else 0.0) / len(self._files)
            each = [self._time(name, folder, length, meter, state) for name in self._files]
        latency = np.cumsum([one.latency_s[0] for one in each])
        powers = [one.power_w for one in each]
        joules = _sum([None if one.power_w is None else one.power_w * one.latency_s[0] for one in each])
        without = (None,) * (len(each) - 1)
        throttled = sum(one.after.throttled - one.before.throttled for one in each)
        return Timing(
            latency_s=tuple(latency.tolist()),
            spread_s=tuple(np.sqrt(np.cumsum([one.spread_s[0] ** 2 for one in each])).tolist()),
            p95_s=each[0].p95_s + without,
            p99_s=each[0].p99_s + without,
            runs=min(one.runs for one in each),
            power_w=None if joules is None or None in powers else joules / float(latency[-1]),
            before=each[0].before,
            after=each[-1].after._replace(throttled=each[0].before.throttled + throttled),
        )

    def _time(self, name: str, folder: Path, seconds: float, meter: Any, state: Callable[[], State]) -> Timing:
        """Times one segment; the first time, its engine is built."""
        stem = str(folder / name.replace("/", "-"))
        engine, new, times = Path(stem + ".engine"), Path(stem + ".partial"), Path(stem + ".json")
        source = [f"--loadEngine={engine}"]
        if not engine.exists():
            source = [f"--onnx={self._kit / name}", f"--saveEngine={new}"]
            source += [] if self._format == "fp32" else [f"--{self._format}"]
        with contextlib.suppress(FileNotFoundError):
            times.unlink()
        command = [
            str(_trtexec()),
            *source,
            f"--exportTimes={times}",
            f"--warmUp={1e3 * _TRTEXEC_WARM_S:.0f}",
            f"--duration={seconds:.3f}",
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
        )
        said, power, before = "nothing", None, state()
        after = before
        try:
            lines = iter(process.stdout or ())
            for line in lines:
                said = line.strip() or said
                if "Starting inference" in line:
                    time.sleep(_TRTEXEC_WARM_S)
                    before = state()
                    with contextlib.ExitStack() as stack:
                        reading = stack.enter_context(meter.read()) if meter is not None else Reading()
                        said = next(lines, "").strip() or said  # the next line, when it has inferred
                    power, after = reading.mean_w, state()
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        found = _trtexec_times(times) if code == 0 else None
        if found is None:
            raise ValueError(f"{self._kit / name}: expected times from trtexec, got exit code {code} and: {said}")
        if new.exists():
            os.replace(str(new), str(engine))
        return _summary(found[:, None], np.ones(len(found)), power, before, after)


def _trtexec() -> Optional[str]:
    return shutil.which("trtexec")


def _trtexec_version() -> Optional[str]:
    """Version of TensorRT, which trtexec names in its first lines: v8502 is 8.5.2, v100300 is 10.3.0."""
    said = subprocess.run(
        [str(_trtexec()), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ).stdout
    found = re.search(r"TensorRT v([0-9]{4,6})", said)
    if found is None:
        return None
    number, step = int(found.group(1)), 10 if len(found.group(1)) == 4 else 100
    return f"{number // (100 * step)}.{number // 100 % step}.{number % 100}"


def _trtexec_times(path: Path) -> Optional[np.ndarray]:
    """Seconds of each run [R], inputs and outputs copied; None where the file has none."""
    try:
        found = [float(run["latencyMs"]) for run in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return np.array(found) / 1e3 if found else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def summary(steps: Sequence[Step], provider: Optional[str]) -> List[str]:
    """Returns lines on what disturbed measurements, and whether other work did.

    Args:
        steps: All of a profile.
        provider: What computed; what waits for a GPU need not run.
    """
    lines = [f"{sum(bool(step.trouble) for step in steps)} disturbed measurements left out"]
    taken = 1 - (_mean([step.ran for step in steps]) or 1.0)
    if provider is not None and provider.startswith("CPU") and taken > _BUSY:
        lines.append(
            f"Other work took {taken:.0%} of the processor meanwhile, which p95 and p99 tell of too: an idle machine "
            "is measured better"
        )
    return lines


def _accelerator() -> str:
    """Model of the GPU of a machine that is no board; empty where nvidia-smi does not tell."""
    if shutil.which("nvidia-smi") is None or Path("/proc/device-tree/model").is_file():
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", errors="replace"
    )
    return said.stdout.strip().partition("\n")[0] if said.returncode == 0 else ""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measures a kit; returns the exit code: 1 where a case is INCONCLUSIVE, 2 after a mistake."""
    parsed = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        _print_whatever_the_locale(stream)
    try:
        return _measure(parsed)
    except (ValueError, OSError) as error:
        print(f"measure: error: {_one_line(error)}".replace("`resume`", "--resume"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nmeasure: interrupted; --resume goes on", file=sys.stderr)
        return 130


def _print_whatever_the_locale(stream: TextIO) -> None:
    """Lets text be printed that the locale's encoding does not have, which Python 3.6 does not make easy."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measures a kit of networks on this machine.")
    here = Path(__file__).resolve().parent
    parser.add_argument("kit", nargs="?", type=Path, default=here, help="folder; by default that of this file")
    parser.add_argument("-o", "--output", type=Path, default=Path("measurements.csv"), help="CSV file to write")
    parser.add_argument(
        "--runtime", choices=("auto", "onnxruntime", "tensorrt"), default="auto", help="tensorrt runs in trtexec"
    )
    parser.add_argument("--provider", choices=("CPU", "CUDA", "TensorRT"), help="of onnxruntime; by default CPU")
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime on a CPU; exported networks run on 1")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each network; its row is their median")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for the timed runs of one measurement")
    for name, what in (("core", "processor that computes"), ("memory", "memory"), ("host", "CPU beside a GPU")):
        parser.add_argument(
            f"--{name}-mhz", type=float, nargs="+", default=[], help=f"clocks of the {what} to measure at, as root"
        )
    parser.add_argument("--power-log", type=Path, help="log that tegrastats or jtop writes, for power")
    parser.add_argument("--resume", action="store_true", help="continue the measurements in the output")
    parser.add_argument("--dry-run", action="store_true", help="list what would be done, and do nothing")
    return parser


def _measure(parsed: argparse.Namespace) -> int:
    if not parsed.seconds > 0 or parsed.threads < 1:
        raise ValueError(f"expected --seconds above 0 and --threads from 1, got {parsed.seconds} and {parsed.threads}")
    kit, engine = read_kit(parsed.kit), find_engine(parsed.runtime, parsed.provider)
    machine = Machine(engine.processor, accelerator=_accelerator() if engine.processor == "gpu" else "")
    meter = LogMeter.of(parsed.power_log, engine.processor) if parsed.power_log else machine.meter()
    tables = (parsed.core_mhz, parsed.memory_mhz, parsed.host_mhz)
    clocks = [ClockSetting(*setting) for setting in itertools.product(*(table or [None] for table in tables))]
    scratch = parsed.output.with_name(parsed.output.name + ".engines") if engine.provider != "CPU" else None
    cases = kit_cases(parsed.kit, kit, engine, threads=parsed.threads, scratch=scratch)
    total = len(cases) * parsed.rounds * len(clocks)
    threads = f", threads {parsed.threads}" if engine.provider == "CPU" else ""
    print("Kit {}: {} cases, reference {}".format(kit["digest"], len(cases), kit["reference"]))
    print(f"Runtime: {engine.runtime} {engine.version or 'of unknown version'}, provider {engine.provider}{threads}")
    print(f"Machine: {machine.name}; {machine.power_in_words(meter)}")
    print(f"Clocks: {machine.clocks_in_words()}", flush=True)
    if parsed.dry_run:
        for setting in clocks:
            with_clocks = [f"{name} {mhz:g}" for name, mhz in setting._asdict().items() if mhz is not None]
            print("Operating point: {}".format(", ".join(with_clocks) or "clocks are left as they are"))
        for case in cases:
            print(f"Case: {case.name}, {case.kind}, {len(case.layers)} segments, batch {case.batch}, {case.format}")
        minutes = total * (parsed.seconds + 0.3 + (1.0 if meter is not None else 0.0)) / 60
        more = ", and what trtexec takes to build engines" if engine.runtime == "tensorrt" else ""
        print(f"{total} measurements, about {max(minutes, 1):.0f} minutes{more}; nothing was done or written")
        return 0
    if scratch is not None:
        scratch.mkdir(exist_ok=True)
    steps, without = [], []  # type: List[Step], List[str]

    def show(step: Step) -> None:
        steps.append(step)
        what = f"INCONCLUSIVE: {step.trouble}" if step.trouble else f"{step.latency_ms:.4g} ms"
        print(f"{step.done} of {step.total}, round {step.round}: {step.name} {what}", flush=True)

    def note(name: str, reason: str) -> None:
        print(f"INCONCLUSIVE: {name} has no row: {reason}")
        without.append(name)

    rows = profile(
        cases,
        parsed.output,
        machine=machine,
        meter=meter,
        clocks=clocks,
        rounds=parsed.rounds,
        reference=kit["reference"] if engine.runtime == "onnxruntime" else None,
        resume=parsed.resume,
        labels=kit_labels(kit, engine, threads=parsed.threads),
        on_step=show,
        on_inconclusive=note,
        time_one=partial(time_case, seconds=parsed.seconds),
    )
    if scratch is not None and not without:
        shutil.rmtree(str(scratch), ignore_errors=True)
    for line in summary(steps, engine.provider):
        print(line)
    print(f"Written: {parsed.output}, {len(rows)} rows")
    if without:
        every = len(cases) * len(clocks)
        print(f"INCONCLUSIVE: {len(without)} of {every} cases have no row; --resume measures them again")
        return 1
    print(f"To fit a device to it: hadas devices fit {parsed.output} -o my_device.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
