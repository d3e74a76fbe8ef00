"""The machine that measurements are taken on: its clocks as an operating point, and what reads its power.

Units: MHz, W, s.
"""

import contextlib
import os
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hw_models.measuring.sysfs import (
    Clock,
    EnergyCounter,
    Rail,
    cpu_clock,
    energy_counters,
    gpu_clock,
    memory_clock,
    rails,
)
from hw_models.measuring.timing import Meter, Reading

_BOARD_RAILS = ("VDD_IN", "POM_5V_IN")  # rails of Jetson modules that feed everything else
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class ClockSetting:
    """Clocks of an operating point in MHz; None: unknown, or to be left as it is.

    Attributes:
        core_mhz: of the processor that computes.
        memory_mhz: of the memory.
        host_mhz: of the processor that launches kernels, if another one computes.
    """

    core_mhz: float | None = None
    memory_mhz: float | None = None
    host_mhz: float | None = None


@dataclass(frozen=True)
class Machine:
    """A Linux machine, on whose CPU or GPU networks run.

    Attributes:
        processor: what computes; a CPU is core and host in one, and has a core clock alone.
        root: where its file system starts.
        accelerator: model of a GPU that computes; empty: that of the machine tells.
    """

    processor: Literal["cpu", "gpu"] = "cpu"
    root: Path = Path("/")
    accelerator: str = ""

    @property
    def name(self) -> str:
        """What it is, in words: machines of one name should take the same time."""
        return f"{self.accelerator or _model(self.root)}, {self.processor.upper()}, {os.cpu_count()} CPU cores"

    def clocks(self) -> dict[str, Clock]:
        """The clocks that it has, by field of `ClockSetting`."""
        if self.processor == "cpu":
            found = {"core_mhz": cpu_clock(self.root), "memory_mhz": memory_clock(self.root)}
        else:
            core, memory, host = gpu_clock(self.root), memory_clock(self.root), cpu_clock(self.root)
            found = {"core_mhz": core, "memory_mhz": memory, "host_mhz": host}
        return {name: clock for name, clock in found.items() if clock is not None}

    @contextlib.contextmanager
    def hold(self, setting: ClockSetting) -> Iterator[ClockSetting]:
        """Sets clocks and restores them afterwards; yields those that are held, by this or by somebody before.

        Raises:
            ValueError: It has no such clock or setting, or does not let it be set.
        """
        clocks = self.clocks()
        with contextlib.ExitStack() as stack:
            for name, mhz in asdict(setting).items():
                if mhz is None:
                    continue
                if name not in clocks:
                    known = ", ".join(clocks) or "none"
                    raise ValueError(f"{name}: expected a clock that can be set on this machine ({known}), got {mhz:g}")
                stack.enter_context(clocks[name].held(mhz))
            yield ClockSetting(**{name: clock.fixed_mhz() for name, clock in clocks.items()})

    def meter(self) -> Meter | None:
        """What reads power here, the board's rather than the processor's; None where nothing can be read."""
        found = rails(self.root)
        board = [rail for rail in found if rail.label in _BOARD_RAILS]
        core = [rail for rail in found if _parts_of(rail) == {self.processor.upper()}]
        if board or core:
            return RailMeter("board" if board else "core", tuple(board[:1] or core[:1]))
        counters = energy_counters(self.root)
        platform = [counter for counter in counters if counter.label == "psys"]
        packages = [counter for counter in counters if counter.label.startswith("package")]
        if platform:
            return CounterMeter("board", tuple(platform))
        return CounterMeter("core", tuple(packages)) if packages and self.processor == "cpu" else None


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


def _parts_of(rail: Rail) -> set[str]:
    """Parts of the chip that a rail feeds, by its label: some feed two, and tell nothing of one alone."""
    return {"CPU", "GPU", "SOC", "CV"} & set(re.split(r"[^A-Z]+", rail.label.upper()))


@dataclass
class _Mean:
    mean_w: float | None = None


@dataclass(frozen=True)
class RailMeter:
    """Averages samples of rails, taken by a thread.

    Attributes:
        rail: board or core.
        rails: whose powers are added.
    """

    rail: Literal["board", "core"]
    rails: tuple[Rail, ...]

    @contextlib.contextmanager
    def read(self) -> Iterator[Reading]:
        """Reads power while its block runs."""
        result, samples, stop = _Mean(), [self._sample()], threading.Event()

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
        values = [value for value in samples[1:] or samples if value is not None]
        result.mean_w = statistics.fmean(values) if values else None

    def _sample(self) -> float | None:
        values = [rail.watts() for rail in self.rails]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class CounterMeter:
    """Divides what energy counters counted by the time; the counters must not go round more than once.

    Attributes:
        rail: board or core.
        counters: whose energies are added.
        timer: clock in seconds.
    """

    rail: Literal["board", "core"]
    counters: tuple[EnergyCounter, ...]
    timer: Callable[[], float] = time.perf_counter

    @contextlib.contextmanager
    def read(self) -> Iterator[Reading]:
        """Reads power while its block runs."""
        result = _Mean()
        start, before = self.timer(), [counter.joules() for counter in self.counters]
        yield result
        seconds, after = self.timer() - start, [counter.joules() for counter in self.counters]
        used = [
            None if a is None or b is None else counter.difference(a, b)
            for counter, a, b in zip(self.counters, before, after, strict=True)
        ]
        known = [value for value in used if value is not None]
        result.mean_w = sum(known) / seconds if len(known) == len(used) and seconds > 0 else None
