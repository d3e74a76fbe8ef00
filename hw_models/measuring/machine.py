"""The machine that measurements are taken on: its clocks, and what reads its power, as Linux shows them in sysfs.

A clock is read and held through cpufreq, devfreq or a Jetson's debugfs, power through the INA sensors of supply rails
or the energy counters of x86 (RAPL). Everything that reads gives None where the machine has no such thing or does not
let it be read. `root` is where the file system starts.
Units: MHz, W, J, s.
"""

import contextlib
import math
import os
import platform
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hw_models.device import SAME_CLOCK
from hw_models.measuring.timing import Reading
from hw_models.units import CLOCK, in_other_units

_ROOT = Path("/")
# Kinds in devfreq, behind the address: of NVIDIA (gv11b, ga10b, ...; gpu-gpc-0 of Thor), Arm and Qualcomm.
_GPUS = re.compile(r"g[a-z][0-9]{2}[a-z]|gpu|gpu-gpc-[0-9]+|mali[0-9]*|panfrost|panthor|(qcom,)?kgsl-3d[0-9]")
_MEMORIES = re.compile(r"bwmgr|emc|dmc|actmon|(external-)?memory-controller")
# Rails that feed everything else: of TX1, TX2, Xavier NX and Orin NX and Nano, of the Nano, and of Thor.
_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
# Rails that together feed all: of AGX Orin, whose VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0, and of AGX Xavier.
_BOARD_SUMS = (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"))
_PARTS = {"CPU", "GPU", "SOC", "CV", "MSS", "DDR", "DDRQ"}
_SAMPLE_S = 0.02


@dataclass(frozen=True)
class ClockSetting:
    """Clocks of an operating point in MHz; None: unknown, or to be left as it is.

    Attributes:
        core_mhz: Of the processor that computes.
        memory_mhz: Of the memory.
        host_mhz: Of the processor that launches kernels, if another one computes.
    """

    core_mhz: float | None = None
    memory_mhz: float | None = None
    host_mhz: float | None = None


@dataclass(frozen=True)
class _Clock:
    """A clock and the files that show and set it; every folder has the same files.

    Folders may have different settings, as the clusters of a big.LITTLE processor do. The clock is then that of the
    fastest ones, which compute most, and the others follow it at the nearest setting that they have at or below.

    Attributes:
        name: For messages.
        folders: One for every part of the machine that is set together.
        held_by: The two files that hold it at a setting: the lowest and the highest clock that may be chosen, or with
            `has_lock` one that holds 1 while the clock stays where it is put, and one that puts it there.
        available: File of the settings; words that are no numbers are skipped.
        per_mhz: What the files count in one MHz.
        available_per_mhz: The same for `available`.
        has_lock: See `held_by`.
        bounds: The two files of the lowest and the highest clock that the hardware has; None: it shows no such files.
    """

    name: str
    folders: tuple[Path, ...]
    held_by: tuple[str, str]
    available: str
    per_mhz: float
    available_per_mhz: float
    has_lock: bool = False
    bounds: tuple[str, str] | None = None

    @property
    def has_clusters(self) -> bool:
        """Whether some of its folders are slower than others."""
        return len(self._fastest()) < len(self.folders)

    def available_mhz(self) -> tuple[float, ...] | None:
        """Settings, ascending; of the fastest folders."""
        return self._settings(self._fastest()[0]) or None

    def fixed_mhz(self) -> float | None:
        """The clock if it is held at one setting, None while a governor chooses or the fastest folders differ."""
        first, *others = (self._fixed(folder) for folder in self._fastest())
        if first is None or not CLOCK.contains(first):  # files that count in something else tell nothing
            return None
        same = all(one is not None and abs(one - first) <= SAME_CLOCK * first for one in others)
        return first if same else None

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
            if fixed is None or abs(fixed - nearest) > SAME_CLOCK * nearest:
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
            if not CLOCK.contains(mhz) or not low * (1 - SAME_CLOCK) <= mhz <= high * (1 + SAME_CLOCK):
                likely = in_other_units(mhz, CLOCK.unit, lambda meant: low <= meant <= high and CLOCK.contains(meant))
                raise ValueError(
                    f"{self.name} clock: expected {max(low, CLOCK.lowest):g} to {min(high, CLOCK.highest):g} MHz, got "
                    f"{mhz:.10g}" + (f": {likely}" if likely else "")
                )
            return min(max(mhz, low), high)

        def nearest(mhz: float) -> float | None:
            setting = min(available, key=lambda setting: abs(setting - mhz))
            return setting if abs(setting - mhz) <= SAME_CLOCK * setting else None

        setting = nearest(mhz)
        if setting is None:
            likely = in_other_units(mhz, CLOCK.unit, lambda meant: nearest(meant) is not None)
            settings = " ".join(f"{setting:g}" for setting in available)
            raise ValueError(
                f"{self.name} clock: expected one of {settings} MHz, got {mhz:.10g}" + (f": {likely}" if likely else "")
            )
        return setting

    def _fastest(self) -> tuple[Path, ...]:
        """Folders whose highest clock is the highest of all."""
        highest = [self._highest(folder) for folder in self.folders]
        return tuple(
            folder for folder, mhz in zip(self.folders, highest, strict=True) if mhz >= max(highest) * (1 - SAME_CLOCK)
        )

    def _highest(self, folder: Path) -> float:
        bound = self._bounds(folder)[1]
        settings = self._settings(folder)
        if settings:
            return settings[-1]
        return bound if math.isfinite(bound) else self._read(folder, self.held_by[1]) or 0.0

    def _bounds(self, folder: Path) -> tuple[float, float]:
        """Lowest and highest clock that the hardware has; 0 and infinity where it does not show them."""
        if self.bounds is None:
            return 0.0, math.inf
        low, high = (self._read(folder, name) for name in self.bounds)
        return low or 0.0, high or math.inf

    def _settings(self, folder: Path) -> tuple[float, ...]:
        words = (_text(folder / self.available) or "").split()
        clocks = {float(word) / self.available_per_mhz for word in words if re.fullmatch(r"[0-9]+", word)}
        return tuple(sorted(mhz for mhz in clocks if CLOCK.contains(mhz)))

    def _at_or_below(self, folder: Path, mhz: float) -> float:
        """The nearest setting of a folder that is no faster, or its slowest one."""
        settings = self._settings(folder)
        if not settings:
            low, high = self._bounds(folder)
            return min(max(mhz, low), high)
        return max((setting for setting in settings if setting <= mhz * (1 + SAME_CLOCK)), default=settings[0])

    def _fixed(self, folder: Path) -> float | None:
        if self.has_lock:
            return self._read(folder, self.held_by[1]) if _text(folder / self.held_by[0]) == "1" else None
        low, high = (self._read(folder, limit) for limit in self.held_by)
        return low if low == high else None

    def _read(self, folder: Path, name: str) -> float | None:
        value = _number(folder / name)
        return None if value is None else value / self.per_mhz

    def _before(self, folder: Path) -> tuple[str, str]:
        """What the files hold that are about to be written."""
        texts = [_text(folder / name) for name in self.held_by]
        for name, text in zip(self.held_by, texts, strict=True):
            if text is None:
                raise ValueError(self._refusal(folder / name, "it cannot be read"))
        return str(texts[0]), str(texts[1])

    def _set(self, folder: Path, values: tuple[str, str]) -> None:
        """Writes both files in the order that they need: limits must not cross, a lock comes first."""
        pairs = list(zip(self.held_by, values, strict=True))
        low = _number(folder / self.held_by[0])
        if not self.has_lock and low is not None and float(values[1]) >= low:
            pairs.reverse()
        for name, value in pairs:
            self._write(folder / name, value)

    def _restore(self, folder: Path, values: tuple[str, str]) -> None:
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


@dataclass(frozen=True)
class _Rail:
    """A supply rail with a sensor (INA3221 or another of its family).

    Attributes:
        label: Name of the rail as the machine gives it.
        files: Whose product is its power: of the power, or of voltage and current.
        per_watt: What the product is at one watt.
    """

    label: str
    files: tuple[Path, ...]
    per_watt: float

    def watts(self) -> float | None:
        """Power at this moment."""
        product = _combined(math.prod, [_number(path) for path in self.files])
        return None if product is None else product / self.per_watt


@dataclass(frozen=True)
class _EnergyCounter:
    """A counter of energy that starts again at zero when it is full (RAPL).

    Attributes:
        label: What it counts: `package-0`, `psys`, ...
        folder: Of its files.
    """

    label: str
    folder: Path

    def joules(self) -> float | None:
        """What it shows now."""
        value = _number(self.folder / "energy_uj")
        return None if value is None else value * 1e-6

    def difference(self, before: float, after: float) -> float | None:
        """Energy between two readings that lie less than one round of the counter apart."""
        if after >= before:
            return after - before
        full = _number(self.folder / "max_energy_range_uj")
        return None if full is None else after - before + full * 1e-6


@dataclass(frozen=True)
class _RailMeter:
    """Averages samples of rails, taken by a thread.

    Attributes:
        rail: Board or core.
        rails: Whose powers are added.
    """

    rail: Literal["board", "core"]
    rails: tuple[_Rail, ...]

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
        values = [value for value in samples[1:] or samples if value is not None]
        result.mean_w = statistics.fmean(values) if values else None

    def _sample(self) -> float | None:
        return _combined(sum, [rail.watts() for rail in self.rails])


@dataclass(frozen=True)
class _CounterMeter:
    """Divides what energy counters counted by the time; the counters must not go round more than once.

    Attributes:
        rail: Board or core.
        counters: Whose energies are added.
        timer: Clock in seconds.
    """

    rail: Literal["board", "core"]
    counters: tuple[_EnergyCounter, ...]
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
        used = [
            None if a is None or b is None else counter.difference(a, b)
            for counter, a, b in zip(self.counters, before, after, strict=True)
        ]
        joules = _combined(sum, used)
        result.mean_w = joules / seconds if joules is not None and seconds > 0 else None


@dataclass(frozen=True)
class Machine:
    """A Linux machine, on whose CPU or GPU networks run.

    Attributes:
        processor: What computes; a CPU is core and host in one, and has a core clock alone.
        root: Where its file system starts.
        accelerator: Model of a GPU that computes; empty: that of the machine tells.
    """

    processor: Literal["cpu", "gpu"] = "cpu"
    root: Path = _ROOT
    accelerator: str = ""

    @property
    def name(self) -> str:
        """What it is, in words: machines of one name should take the same time."""
        return f"{self.accelerator or _model(self.root)}, {self.processor.upper()}, {os.cpu_count()} CPU cores"

    def clocks(self) -> dict[str, _Clock]:
        """The clocks that it has, by field of `ClockSetting`."""
        if self.processor == "cpu":
            clocks = {"core_mhz": _cpu_clock(self.root), "memory_mhz": _memory_clock(self.root)}
        else:
            core, memory, host = _gpu_clock(self.root), _memory_clock(self.root), _cpu_clock(self.root)
            clocks = {"core_mhz": core, "memory_mhz": memory, "host_mhz": host}
        return {name: clock for name, clock in clocks.items() if clock is not None}

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
                    own = ", ".join(clocks) or "none"
                    raise ValueError(f"{name}: expected a clock that can be set on this machine ({own}), got {mhz:g}")
                stack.enter_context(clocks[name].held(mhz))
            yield ClockSetting(**{name: clock.fixed_mhz() for name, clock in clocks.items()})

    def meter(self) -> "_RailMeter | _CounterMeter | None":
        """What reads power here, the board's rather than the processor's; None where nothing can be read."""
        by_label = {rail.label.upper(): rail for rail in _rails(self.root)}
        for labels in (*((label,) for label in _BOARD_RAILS), *_BOARD_SUMS):
            if all(label in by_label for label in labels):
                return _RailMeter("board", tuple(by_label[label] for label in labels))
        core = tuple(rail for rail in by_label.values() if _parts_of(rail) == {self.processor.upper()})
        if core:
            return _RailMeter("core", core)
        counters = _energy_counters(self.root)
        platform = [counter for counter in counters if counter.label == "psys"]
        packages = [counter for counter in counters if counter.label.startswith("package")]
        if platform:
            return _CounterMeter("board", tuple(platform))
        return _CounterMeter("core", tuple(packages)) if packages and self.processor == "cpu" else None

    def power_in_words(self) -> str:
        """What power is read from, or why none is."""
        meter = self.meter()
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
            shown.append(f"{name} ({settings}{' for its fastest cores' if clock.has_clusters else ''})")
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


def _parts_of(rail: _Rail) -> set[str]:
    """Parts of the chip that a rail feeds, by its label: some feed two, and tell nothing of one alone."""
    return _PARTS & set(re.split(r"[^A-Z]+", rail.label.upper()))


def _cpu_clock(root: Path) -> _Clock | None:
    """Clock of the CPU cores (cpufreq), whose policies are set together; those that are offline are left out."""
    policies = _folders(root, "sys/devices/system/cpu/cpufreq/policy*")
    limits, bounds = ("scaling_min_freq", "scaling_max_freq"), ("cpuinfo_min_freq", "cpuinfo_max_freq")
    folders = tuple(folder for folder in policies if _text(folder / "affected_cpus") != "")
    if not folders:
        return None
    return _Clock("CPU", folders, limits, "scaling_available_frequencies", 1e3, 1e3, bounds=bounds)


def _gpu_clock(root: Path) -> _Clock | None:
    """Clock of the GPU that computes (devfreq): not of the video decoders beside it."""
    folders = _of_kind(root, _GPUS)
    parts = tuple(folder for folder in folders if "-gpc-" in folder.name)
    return _devfreq("GPU", parts or folders[:1])


def _memory_clock(root: Path) -> _Clock | None:
    """Clock of the memory: in a Jetson's debugfs, which root alone may read, or in devfreq."""
    debug = root / "sys/kernel/debug"
    boot, nano = debug / "bpmp/debug/clk/emc", debug / "clk/override.emc"
    if _text(boot / "rate") is not None:
        files = ("mrq_rate_locked", "rate")
        return _Clock("memory", (boot,), files, "../../emc/possible_rates", 1e6, 1e3, has_lock=True)
    if _text(nano / "clk_update_rate") is not None:
        files = ("clk_state", "clk_update_rate")
        return _Clock("memory", (nano,), files, "clk_possible_rates", 1e6, 1e6, has_lock=True)
    return _devfreq("memory", _of_kind(root, _MEMORIES)[:1])


def _of_kind(root: Path, kind: re.Pattern[str]) -> tuple[Path, ...]:
    folders = _folders(root, "sys/class/devfreq/*")
    return tuple(folder for folder in folders if kind.fullmatch(folder.name.rpartition(".")[2]))


def _devfreq(name: str, folders: tuple[Path, ...]) -> _Clock | None:
    clock = _Clock(name, folders, ("min_freq", "max_freq"), "available_frequencies", 1e6, 1e6)
    return clock if folders else None


def _rails(root: Path) -> tuple[_Rail, ...]:
    """Rails that can be read now: of hwmon, or of the driver of older Jetson kernels."""
    every = []
    for folder in _folders(root, "sys/class/hwmon/hwmon*"):
        chip = _text(folder / "name") or ""
        for i in (1, 2, 3) if chip == "ina3221" else (1,) if chip.startswith("ina") else ():
            # Further inputs of the chips are shunt voltages and sums.
            names = (f"in{i}_label", f"power{i}_label", f"curr{i}_label", *(("label",) if chip != "ina3221" else ()))
            label = next(filter(None, (_text(folder / name) for name in names)), None)
            if label:
                every.append(_hwmon_rail(label, folder, i))
    for folder in _folders(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*"):
        for i in (0, 1, 2):
            label = _text(folder / f"rail_name_{i}")
            if label:
                every.append(_Rail(label, (folder / f"in_power{i}_input",), 1e3))
    return tuple(rail for rail in every if rail.watts() is not None)


def _hwmon_rail(label: str, folder: Path, channel: int) -> _Rail:
    """A rail whose power is shown in uW, or else as mV and mA."""
    power = _Rail(label, (folder / f"power{channel}_input",), 1e6)
    if power.watts() is not None:
        return power
    return _Rail(label, (folder / f"in{channel}_input", folder / f"curr{channel}_input"), 1e6)


def _energy_counters(root: Path) -> tuple[_EnergyCounter, ...]:
    """Counters of whole packages and of the platform that can be read now; their parts are left out."""
    folders = [f for f in _folders(root, "sys/class/powercap/intel-rapl:*") if re.fullmatch(r"[\w-]+:\d+", f.name)]
    counters = [_EnergyCounter(_text(folder / "name") or folder.name, folder) for folder in folders]
    return tuple(counter for counter in counters if counter.joules() is not None)


def _folders(root: Path, pattern: str) -> tuple[Path, ...]:
    try:
        return tuple(sorted(root.glob(pattern)))
    except OSError:
        return ()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _combined(combine: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    """Sum or product of readings; None where one of them is missing."""
    known = [value for value in values if value is not None]
    return combine(known) if len(known) == len(values) else None
