"""Clocks and power sensors of Linux machines, as sysfs and debugfs show them.

Everything that reads returns None where the machine has no such thing or does not let it be read. `root` is where
the file system starts. Units: MHz, W, J.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hw_models.device import SAME_CLOCK

_ROOT = Path("/")
_GPU_NAMES = ("gv11b", "gp10b", "ga10b", "gm20b", "gpu")  # of Jetson GPUs in devfreq, behind the address


@dataclass(frozen=True)
class Clock:
    """A clock and the files that show and set it; every folder has the same files, and the first one is read.

    Attributes:
        name: for messages.
        folders: one for every part of the machine that is set alike.
        current: file of the clock at this moment.
        held_by: the two files that hold it at a setting: the lowest and the highest clock that may be chosen, or
            with `has_lock` one that holds 1 while the clock stays where it is put, and one that puts it there.
        available: file of the settings; words that are no numbers are skipped.
        per_mhz: what the files count in one MHz.
        available_per_mhz: the same for `available`.
        has_lock: see `held_by`.
    """

    name: str
    folders: tuple[Path, ...]
    current: str
    held_by: tuple[str, str]
    available: str
    per_mhz: float
    available_per_mhz: float
    has_lock: bool = False

    def available_mhz(self) -> tuple[float, ...] | None:
        """Settings, ascending."""
        words = (_text(self.folders[0] / self.available) or "").split()
        found = [float(word) / self.available_per_mhz for word in words if re.fullmatch(r"[0-9]+", word)]
        return tuple(sorted(found)) or None

    def current_mhz(self) -> float | None:
        """The clock at this moment."""
        return self._read(self.folders[0], self.current)

    def fixed_mhz(self) -> float | None:
        """The clock if it is held at one setting, None while a governor chooses."""
        if self.has_lock:
            return self.current_mhz() if _text(self.folders[0] / self.held_by[0]) == "1" else None
        low, high = (self._read(self.folders[0], limit) for limit in self.held_by)
        return low if low == high else None

    @contextlib.contextmanager
    def held(self, mhz: float) -> Iterator[None]:
        """Holds the clock at a setting, and gives it back when the block is left, in whatever way.

        Raises:
            ValueError: the machine has no such setting, or does not let the clock be set.
        """
        known = self.available_mhz()
        nearest = min(known, key=lambda setting: abs(setting - mhz)) if known else mhz
        if abs(nearest - mhz) > SAME_CLOCK * mhz:
            settings = " ".join(f"{setting:g}" for setting in known or ())
            raise ValueError(f"{self.name} clock: expected one of {settings} MHz, got {mhz:g}")
        value = f"{nearest * self.per_mhz:.0f}"
        with contextlib.ExitStack() as stack:
            for folder in self.folders:
                before = self._before(folder)
                stack.callback(self._restore, folder, before)
                self._set(folder, ("1" if self.has_lock else value, value))
            fixed = self.fixed_mhz()
            if fixed is None or abs(fixed - nearest) > SAME_CLOCK * nearest:
                shown = "one that varies" if fixed is None else f"{fixed:g} MHz"
                raise ValueError(
                    f"{self.name} clock: expected the machine to hold {nearest:g} MHz, got {shown}: "
                    "a power mode may cap it; choose a setting within its limits"
                )
            yield

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


def cpu_clock(root: Path = _ROOT) -> Clock | None:
    """Clock of all CPU cores (cpufreq)."""
    folders = _folders(root, "sys/devices/system/cpu/cpufreq/policy*")
    limits = ("scaling_min_freq", "scaling_max_freq")
    clock = Clock("CPU", folders, "scaling_cur_freq", limits, "scaling_available_frequencies", 1e3, 1e3)
    return clock if folders else None


def gpu_clock(root: Path = _ROOT) -> Clock | None:
    """Clock of a Jetson's GPU (devfreq)."""
    folders = tuple(f for f in _folders(root, "sys/class/devfreq/*") if f.name.rpartition(".")[2] in _GPU_NAMES)
    clock = Clock("GPU", folders[:1], "cur_freq", ("min_freq", "max_freq"), "available_frequencies", 1e6, 1e6)
    return clock if folders else None


def memory_clock(root: Path = _ROOT) -> Clock | None:
    """Clock of a Jetson's memory, in the debugfs of its boot processor or of the Nano; root alone may read them."""
    debug = root / "sys/kernel/debug"
    boot, nano = debug / "bpmp/debug/clk/emc", debug / "clk/override.emc"
    if _text(boot / "rate") is not None:
        files = ("mrq_rate_locked", "rate")
        return Clock("memory", (boot,), "rate", files, "../../emc/possible_rates", 1e6, 1e3, has_lock=True)
    if _text(nano / "clk_update_rate") is not None:
        files = ("clk_state", "clk_update_rate")
        return Clock("memory", (nano,), "clk_update_rate", files, "clk_possible_rates", 1e6, 1e6, has_lock=True)
    return None


@dataclass(frozen=True)
class Rail:
    """A supply rail with a sensor (INA3221).

    Attributes:
        label: name of the rail as the machine gives it.
        volt_ampere: files of mV and mA, or one file of mW.
    """

    label: str
    volt_ampere: tuple[Path, ...]

    def watts(self) -> float | None:
        """Power at this moment."""
        values = [_number(path) for path in self.volt_ampere]
        if len(values) == 1 and values[0] is not None:
            return values[0] * 1e-3
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            return values[0] * values[1] * 1e-6
        return None


def rails(root: Path = _ROOT) -> tuple[Rail, ...]:
    """Rails that can be read now: of hwmon, or of the driver of older Jetson kernels."""
    found = []
    for folder in _folders(root, "sys/class/hwmon/hwmon*"):
        for i in (1, 2, 3):  # further inputs of the chip are shunt voltages and sums
            label = _text(folder / f"in{i}_label")
            if _text(folder / "name") == "ina3221" and label:
                found.append(Rail(label, (folder / f"in{i}_input", folder / f"curr{i}_input")))
    for folder in _folders(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*"):
        for i in (0, 1, 2):
            label = _text(folder / f"rail_name_{i}")
            if label:
                found.append(Rail(label, (folder / f"in_power{i}_input",)))
    return tuple(rail for rail in found if rail.watts() is not None)


@dataclass(frozen=True)
class EnergyCounter:
    """A counter of energy that starts again at zero when it is full (RAPL).

    Attributes:
        label: what it counts: `package-0`, `psys`, ...
        folder: of its files.
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


def energy_counters(root: Path = _ROOT) -> tuple[EnergyCounter, ...]:
    """Counters of whole packages and of the platform that can be read now; their parts are left out."""
    folders = [f for f in _folders(root, "sys/class/powercap/intel-rapl:*") if re.fullmatch(r"[\w-]+:\d+", f.name)]
    counters = [EnergyCounter(_text(folder / "name") or folder.name, folder) for folder in folders]
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
