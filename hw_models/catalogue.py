"""Catalogue: the devices that come with the package, and files of the user's own.

The device that a run's settings ask for: its power mode, number format and clocks.
"""

import dataclasses
import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

import jax.numpy as jnp

from hw_models import schema
from hw_models.device import Device, NumberFormat, OperatingPoint, with_caps, with_clocks
from hw_models.files import dump_yaml, read_checked, write_whole
from hw_models.layers import LayerKind
from hw_models.schema import DeviceFile

_SUFFIXES = (".yaml", ".yml")
_HZ_PER_MHZ = 1e6


class DeviceFileError(ValueError):
    """A device is unknown or its file is wrong; the message is one line."""


def device_names() -> list[str]:
    """Names of the devices that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_device(name_or_path: str | Path, *, mode: str | None = None) -> Device:
    """Loads a device by name or from a file.

    Args:
        name_or_path: A name of `device_names`, or the path of a YAML file: a `Path`, or a text that ends in
            `.yaml` or `.yml` or has a folder in it.
        mode: A power mode of the device: keeps the clock settings that it allows. None: all settings.

    Returns:
        The device, numbers as float32.

    Raises:
        DeviceFileError: The name or the mode is unknown, or the file is missing or wrong.
    """
    return device_in_mode(read_device_file(name_or_path), mode)


def device_in_mode(file: schema.DeviceFile, mode: str | None) -> Device:
    """Returns the device of a file with the clock settings that a power mode allows, or with all.

    Raises:
        DeviceFileError: The file has no such mode.
    """
    device = to_device(file)
    if mode is None:
        return device
    if mode not in file.modes:
        known = f"one of {', '.join(file.modes)}" if file.modes else "none, as the device file names no power modes"
        raise DeviceFileError(f"power mode of {file.name}: expected {known}, got {mode!r}")
    return with_caps(device, mode_caps(file, mode))


def mode_caps(file: schema.DeviceFile, mode: str) -> OperatingPoint:
    """Highest settings that a power mode allows, leaves f32[], infinity where a clock has no cap."""
    caps = (getattr(file.modes[mode], clock) for clock in schema.Clocks.model_fields)
    return OperatingPoint(*(jnp.float32(cap.value * _HZ_PER_MHZ if cap else jnp.inf) for cap in caps))


def read_device_file(name_or_path: str | Path) -> schema.DeviceFile:
    """Reads and checks a device file, with units, provenance and errors of its figures.

    Args:
        name_or_path: As `load_device`.

    Returns:
        The file's content.

    Raises:
        DeviceFileError: As `load_device`.
    """
    source = _find(name_or_path)
    shown = source.name if _is_name(name_or_path) else str(name_or_path)
    try:
        return read_checked(source, schema.DeviceFile, shown=shown, version=schema.SCHEMA_VERSION)
    except ValueError as error:
        raise DeviceFileError(str(error)) from None


def write_device_file(path: str | Path, file: schema.DeviceFile, *, overwrite: bool = False) -> None:
    """Writes a device file as YAML.

    Raises:
        DeviceFileError: The path does not end in .yaml or .yml, the file exists and `overwrite` is false, or it
            cannot be written.
    """
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise DeviceFileError(f"{path}: expected a path that ends in .yaml, got {target.suffix or 'no ending'!r}")
    if target.exists() and not overwrite:
        raise DeviceFileError(f"{path}: expected a new file, got one that exists; nothing was written")
    content = dump_yaml(file.model_dump(exclude_none=True))
    try:
        write_whole(target, content.encode("utf-8"))
    except ValueError as error:
        raise DeviceFileError(str(error)) from None


def to_device(file: schema.DeviceFile) -> Device:
    """Converts the figures of a device file to SI units and float32 arrays."""
    clocks, latency, power = file.clocks, file.latency, file.power
    rates = [getattr(latency.macs_per_cycle, kind.name.lower()).value for kind in LayerKind]
    speedups = {form: getattr(latency.format_speedup, form.name.lower()) for form in NumberFormat}
    core_weights = latency.core_weight_bytes_per_cycle
    formats = tuple(form for form, figure in speedups.items() if figure is not None)
    numbers = {
        "core_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.core.value],
        "memory_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.memory.value],
        "host_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.host.value],
        "macs_per_cycle": rates,
        "format_speedup": [1.0 if figure is None else figure.value for figure in speedups.values()],
        "weight_bytes_per_cycle": latency.weight_bytes_per_cycle.value,
        "activation_bytes_per_cycle": latency.activation_bytes_per_cycle.value,
        "core_cycles_per_weight_byte": 1 / core_weights.value if core_weights else 0.0,
        "norm_order": latency.norm_order.value,
        "launch_cycles": latency.launch_cycles.value,
        "run_cycles": latency.run_cycles.value,
        "run_s": latency.run_time.value * 1e-6,
        "board_w": power.board.value,
        "core_idle_w": power.core_idle.value,
        "core_w_per_hz": power.core_load.value * 1e-9,
        "core_stalled_share": power.core_stalled_share.value,
        "voltage_hz": [mhz * _HZ_PER_MHZ for mhz in power.core_voltage.clock],
        "voltage_ratio": power.core_voltage.value,
        "memory_w_per_hz": power.memory_clock.value * 1e-9,
        "byte_j": power.byte_energy.value * 1e-12,
        "host_curve_hz": [mhz * _HZ_PER_MHZ for mhz in power.host.clock],
        "host_curve_w": power.host.value,
    }
    leaves = {key: jnp.asarray(value, jnp.float32) for key, value in numbers.items()}
    return Device(name=file.name, formats=formats, **leaves)


def _folder() -> Traversable:
    return importlib.resources.files("hw_models") / "devices"


def _is_name(name_or_path: str | Path) -> bool:
    return isinstance(name_or_path, str) and not (
        name_or_path.endswith(_SUFFIXES) or "/" in name_or_path or "\\" in name_or_path
    )


def _find(name_or_path: str | Path) -> Traversable:
    if not _is_name(name_or_path):
        return Path(name_or_path)
    if name_or_path not in device_names():
        raise DeviceFileError(
            f"device: expected one of {', '.join(device_names())}, or the path of a .yaml file, "
            f"got {str(name_or_path)!r}"
        )
    return _folder() / f"{name_or_path}.yaml"


class DeviceUse(Protocol):
    """How a device is used."""

    @property
    def number_format(self) -> str | None:
        """fp32, fp16 or int8; None: the device's first."""

    @property
    def power_mode(self) -> str | None:
        """A power mode of the device."""

    @property
    def core_mhz(self) -> tuple[float, ...]:
        """Settings of the core clock, all where there is none; likewise of the other clocks."""

    @property
    def memory_mhz(self) -> tuple[float, ...]:
        """Settings of the memory clock."""

    @property
    def host_mhz(self) -> tuple[float, ...]:
        """Settings of the host clock."""


def chosen_device(name_or_path: str | Path, use: DeviceUse) -> Device:
    """Loads a device in its power mode, with the clocks to search and the number format to run in.

    Args:
        name_or_path: As `load_device`.
        use: Power mode, clocks and number format.

    Raises:
        ValueError: The device does not have what is asked for.
    """
    return device_of(read_device_file(name_or_path), use)


def device_of(file: DeviceFile, use: DeviceUse) -> Device:
    """Returns the device of a file, as `chosen_device`."""
    device = device_in_mode(file, use.power_mode)
    if use.number_format is not None:
        names = [form.name.lower() for form in device.formats]
        if use.number_format not in names:
            raise ValueError(
                f"number_format: expected one that {device.name} runs ({', '.join(names)}), got {use.number_format!r}"
            )
        chosen = device.formats[names.index(use.number_format)]
        others = tuple(form for form in device.formats if form != chosen)
        device = dataclasses.replace(device, formats=(chosen, *others))
    core, memory, host = ([1e6 * mhz for mhz in mhzs] or None for mhzs in (use.core_mhz, use.memory_mhz, use.host_mhz))
    return with_clocks(device, core_hz=core, memory_hz=memory, host_hz=host)
