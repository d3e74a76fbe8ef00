"""Clocks and power sensors of Linux machines, as sysfs and debugfs show them.

Everything that reads returns None where the machine has no such thing or does not let it be read. `root` is where
the file system starts. Units: MHz, W, J.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hw_models.device import SAME_CLOCK
from hw_models.units import CLOCK, in_other_units

_ROOT = Path("/")
# Kinds in devfreq, behind the address: of NVIDIA (gv11b, ga10b, ...; gpu-gpc-0 of Thor), Arm and Qualcomm.
_GPUS = re.compile(r"g[a-z][0-9]{2}[a-z]|gpu|gpu-gpc-[0-9]+|mali[0-9]*|panfrost|panthor|(qcom,)?kgsl-3d[0-9]")
_MEMORIES = re.compile(r"bwmgr|emc|dmc|actmon|(external-)?memory-controller")


@dataclass(frozen=True)
class Clock:
    """A clock and the files that show and set it; every folder has the same files.

    Folders may have different settings, as the clusters of a big.LITTLE processor do. The clock is then that of the
    fastest ones, which compute most, and the others follow it at the nearest setting that they have at or below.

    Attributes:
        name: for messages.
        folders: one for every part of the machine that is set together.
        current: file of the clock at this moment.
        held_by: the two files that hold it at a setting: the lowest and the highest clock that may be chosen, or
            with `has_lock` one that holds 1 while the clock stays where it is put, and one that puts it there.
        available: file of the settings; words that are no numbers are skipped.
        per_mhz: what the files count in one MHz.
        available_per_mhz: the same for `available`.
        has_lock: see `held_by`.
        bounds: the two files of the lowest and the highest clock that the hardware has; None: it shows no such files.
    """

    name: str
    folders: tuple[Path, ...]
    current: str
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

    def current_mhz(self) -> float | None:
        """The clock at this moment; None where the fastest folders differ."""
        return self._common(self._read(folder, self.current) for folder in self._fastest())

    def fixed_mhz(self) -> float | None:
        """The clock if it is held at one setting, None while a governor chooses or the fastest folders differ."""
        return self._common(self._fixed(folder) for folder in self._fastest())

    @contextlib.contextmanager
    def held(self, mhz: float) -> Iterator[None]:
        """Holds the clock at a setting, and gives it back when the block is left, in whatever way.

        Raises:
            ValueError: the machine has no such setting, or does not let the clock be set.
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
        known = self.available_mhz()
        if known is None:
            low, high = self._bounds(self._fastest()[0])
            if not CLOCK.contains(mhz) or not low * (1 - SAME_CLOCK) <= mhz <= high * (1 + SAME_CLOCK):
                likely = in_other_units(mhz, CLOCK.unit, lambda meant: low <= meant <= high and CLOCK.contains(meant))
                raise ValueError(
                    f"{self.name} clock: expected {max(low, CLOCK.lowest):g} to {min(high, CLOCK.highest):g} MHz, got "
                    f"{mhz:.10g}" + (f": {likely}" if likely else "")
                )
            return min(max(mhz, low), high)

        def nearest(mhz: float) -> float | None:
            setting = min(known, key=lambda setting: abs(setting - mhz))
            return setting if abs(setting - mhz) <= SAME_CLOCK * setting else None

        found = nearest(mhz)
        if found is None:
            likely = in_other_units(mhz, CLOCK.unit, lambda meant: nearest(meant) is not None)
            settings = " ".join(f"{setting:g}" for setting in known)
            raise ValueError(
                f"{self.name} clock: expected one of {settings} MHz, got {mhz:.10g}" + (f": {likely}" if likely else "")
            )
        return found

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
        found = {float(word) / self.available_per_mhz for word in words if re.fullmatch(r"[0-9]+", word)}
        return tuple(sorted(mhz for mhz in found if CLOCK.contains(mhz)))

    def _at_or_below(self, folder: Path, mhz: float) -> float:
        """The nearest setting of a folder that is no faster, or its slowest one."""
        settings = self._settings(folder)
        if not settings:
            low, high = self._bounds(folder)
            return min(max(mhz, low), high)
        return max((setting for setting in settings if setting <= mhz * (1 + SAME_CLOCK)), default=settings[0])

    def _fixed(self, folder: Path) -> float | None:
        if self.has_lock:
            return self._read(folder, self.current) if _text(folder / self.held_by[0]) == "1" else None
        low, high = (self._read(folder, limit) for limit in self.held_by)
        return low if low == high else None

    def _common(self, clocks: Iterable[float | None]) -> float | None:
        """The clock that all agree on."""
        first, *others = clocks
        if first is None or not CLOCK.contains(first):  # files that count in something else tell nothing
            return None
        same = all(one is not None and abs(one - first) <= SAME_CLOCK * first for one in others)
        return first if same else None

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
    """Clock of the CPU cores (cpufreq), whose policies are set together; those that are offline are left out."""
    policies = _folders(root, "sys/devices/system/cpu/cpufreq/policy*")
    limits, bounds = ("scaling_min_freq", "scaling_max_freq"), ("cpuinfo_min_freq", "cpuinfo_max_freq")
    folders = tuple(folder for folder in policies if _text(folder / "affected_cpus") != "")
    if not folders:
        return None
    return Clock("CPU", folders, "scaling_cur_freq", limits, "scaling_available_frequencies", 1e3, 1e3, bounds=bounds)


def gpu_clock(root: Path = _ROOT) -> Clock | None:
    """Clock of the GPU that computes (devfreq): not of the video decoders beside it."""
    folders = _of_kind(root, _GPUS)
    parts = tuple(folder for folder in folders if "-gpc-" in folder.name)
    return _devfreq("GPU", parts or folders[:1])


def _of_kind(root: Path, kind: re.Pattern[str]) -> tuple[Path, ...]:
    folders = _folders(root, "sys/class/devfreq/*")
    return tuple(folder for folder in folders if kind.fullmatch(folder.name.rpartition(".")[2]))


def _devfreq(name: str, folders: tuple[Path, ...]) -> Clock | None:
    clock = Clock(name, folders, "cur_freq", ("min_freq", "max_freq"), "available_frequencies", 1e6, 1e6)
    return clock if folders else None


def memory_clock(root: Path = _ROOT) -> Clock | None:
    """Clock of the memory: in a Jetson's debugfs, which root alone may read, or in devfreq."""
    debug = root / "sys/kernel/debug"
    boot, nano = debug / "bpmp/debug/clk/emc", debug / "clk/override.emc"
    if _text(boot / "rate") is not None:
        files = ("mrq_rate_locked", "rate")
        return Clock("memory", (boot,), "rate", files, "../../emc/possible_rates", 1e6, 1e3, has_lock=True)
    if _text(nano / "clk_update_rate") is not None:
        files = ("clk_state", "clk_update_rate")
        return Clock("memory", (nano,), "clk_update_rate", files, "clk_possible_rates", 1e6, 1e6, has_lock=True)
    return _devfreq("memory", _of_kind(root, _MEMORIES)[:1])


@dataclass(frozen=True)
class Rail:
    """A supply rail with a sensor (INA3221 or another of its family).

    Attributes:
        label: name of the rail as the machine gives it.
        files: whose product is its power: of the power, or of voltage and current.
        per_watt: what the product is at one watt.
    """

    label: str
    files: tuple[Path, ...]
    per_watt: float

    def watts(self) -> float | None:
        """Power at this moment."""
        values = [_number(path) for path in self.files]
        known = [value for value in values if value is not None]
        return math.prod(known) / self.per_watt if len(known) == len(values) else None


def rails(root: Path = _ROOT) -> tuple[Rail, ...]:
    """Rails that can be read now: of hwmon, or of the driver of older Jetson kernels."""
    found = []
    for folder in _folders(root, "sys/class/hwmon/hwmon*"):
        chip = _text(folder / "name") or ""
        for i in (1, 2, 3) if chip == "ina3221" else (1,) if chip.startswith("ina") else ():
            # Further inputs of the chips are shunt voltages and sums.
            names = (f"in{i}_label", f"power{i}_label", f"curr{i}_label", *(("label",) if chip != "ina3221" else ()))
            label = next(filter(None, (_text(folder / name) for name in names)), None)
            if label:
                found.append(_hwmon_rail(label, folder, i))
    for folder in _folders(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*"):
        for i in (0, 1, 2):
            label = _text(folder / f"rail_name_{i}")
            if label:
                found.append(Rail(label, (folder / f"in_power{i}_input",), 1e3))
    return tuple(rail for rail in found if rail.watts() is not None)


def _hwmon_rail(label: str, folder: Path, channel: int) -> Rail:
    """A rail whose power is shown in uW, or else as mV and mA."""
    power = Rail(label, (folder / f"power{channel}_input",), 1e6)
    if power.watts() is not None:
        return power
    return Rail(label, (folder / f"in{channel}_input", folder / f"curr{channel}_input"), 1e6)


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
