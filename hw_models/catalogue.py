"""Devices by name or file: those that come with the package, files of the user's own, and what of one a run uses."""

import dataclasses
import importlib.resources
import re
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from hw_models.blocks import BASE, BlockCost, block_table
from hw_models.correction import device_correction
from hw_models.device import Device, NumberFormat, OperatingPoint, default_point, table_device, with_caps, with_clocks
from hw_models.files import dump_yaml, packaged_names, read_packaged_or_own, write_whole
from hw_models.layers import LayerKind
from hw_models.lookup import read_block_costs
from hw_models.schema import SCHEMA_VERSION, Clocks, DeviceFile

_FOLDER = importlib.resources.files("hw_models") / "devices"
_HZ_PER_MHZ = 1e6
LATENCY_QUANTITIES = {
    "weight_bytes_per_cycle": ("weight_bytes_per_cycle", 1.0),
    "activation_bytes_per_cycle": ("activation_bytes_per_cycle", 1.0),
    "norm_order": ("norm_order", 1.0),
    "launch_cycles": ("launch_cycles", 1.0),
    "run_cycles": ("run_cycles", 1.0),
    "run_time": ("run_s", 1e-6),
}
"""Quantities of a file's `latency`: the parameter of `Device` that each gives, and SI units per unit of the file."""
POWER_QUANTITIES = {
    "board": ("board_w", 1.0),
    "core_idle": ("core_idle_w", 1.0),
    "core_load": ("core_w_per_hz", 1e-9),
    "core_stalled_share": ("core_stalled_share", 1.0),
    "memory_clock": ("memory_w_per_hz", 1e-9),
    "byte_energy": ("byte_j", 1e-12),
    "host": ("host_curve_w", 1.0),
}
"""Likewise of its `power`."""


def device_names() -> list[str]:
    """Names of the devices that come with the package, sorted."""
    return packaged_names(_FOLDER)


def load_device(name_or_path: str | Path, *, mode: str | None = None) -> Device:
    """Loads a device by name or from a file.

    Args:
        name_or_path: A name of `device_names`, or the path of a YAML file: a `Path`, or a text that ends in
            `.yaml` or `.yml` or has a folder in it.
        mode: A power mode of the device: keeps the clock settings that it allows. None: all settings.

    Returns:
        The device, numbers as float32.

    Raises:
        ValueError: The name or the mode is unknown, or the file is missing or wrong.
    """
    return _in_mode(read_device_file(name_or_path), mode)


def _in_mode(file: DeviceFile, mode: str | None) -> Device:
    """Returns the device of a file with the clock settings that a power mode allows, or with all."""
    device = to_device(file)
    if mode is None:
        return device
    if mode not in file.modes:
        expected = f"one of {', '.join(file.modes)}" if file.modes else "none, as the device file names no power modes"
        raise ValueError(f"power mode of {file.name}: expected {expected}, got {mode!r}")
    return with_caps(device, mode_caps(file, mode))


def mode_caps(file: DeviceFile, mode: str) -> OperatingPoint:
    """Highest settings that a power mode allows, leaves f32[], infinity where a clock has no cap."""
    caps = (getattr(file.modes[mode], clock) for clock in Clocks.model_fields)
    return OperatingPoint(*(jnp.float32(cap.value * _HZ_PER_MHZ if cap else jnp.inf) for cap in caps))


def read_device_file(name_or_path: str | Path) -> DeviceFile:
    """Reads and checks a device file, with units, provenance and errors of its quantities.

    Args:
        name_or_path: As `load_device`, or the path of a table of measured blocks: a CSV file, or a YAML file as
            Once-for-All's users have them (see `hw_models.blocks`).

    Returns:
        The file's content.

    Raises:
        ValueError: As `load_device`.
    """
    costs = read_block_costs(name_or_path)
    if costs is not None:
        return _table_file(Path(name_or_path), costs)
    return read_packaged_or_own(name_or_path, _FOLDER, DeviceFile, what="device", version=SCHEMA_VERSION)


def _table_file(path: Path, costs: dict[str, BlockCost]) -> DeviceFile:
    """Returns the device file of a table of blocks, which tells neither clocks nor, perhaps, energies."""
    has_energy = any(cost.energy_mj is not None for name, cost in costs.items() if name != BASE)
    energy = "" if has_energy else "; it has no energies, so they are those of 1 W: joules rank as seconds do"
    assumed = {"value": [1000], "unit": "MHz", "provenance": "assumed", "source": "the table tells of one setting"}
    return DeviceFile.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "name": re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "table",
            "description": f"Table of {len(costs)} measured blocks{energy}",
            "clocks": dict.fromkeys(Clocks.model_fields, assumed),
            "blocks": {"costs": costs, "provenance": "measured", "source": path.name},
        }
    )


def write_device_file(path: str | Path, file: DeviceFile, *, overwrite: bool = False) -> None:
    """Writes a device file as YAML.

    Raises:
        ValueError: The path does not end in .yaml or .yml, the file exists and `overwrite` is false, or it
            cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".yaml", ".yml"):
        raise ValueError(f"{path}: expected a path that ends in .yaml, got {target.suffix or 'no ending'!r}")
    if target.exists() and not overwrite:
        raise ValueError(f"{path}: expected a new file, got one that exists; nothing was written")
    write_whole(target, dump_yaml(file.model_dump(exclude_none=True)).encode("utf-8"))


def to_device(file: DeviceFile) -> Device:
    """Converts the quantities of a device file to SI units and float32 arrays."""
    if file.blocks is not None:
        costs = file.blocks.costs
        has_energy = any(cost.energy_mj is not None for name, cost in costs.items() if name != BASE)
        return table_device(block_table(costs), name=file.name, board_w=0.0 if has_energy else 1.0)
    clocks, (latency, power) = file.clocks, file.roofline()
    rates = [getattr(latency.macs_per_cycle, kind.name.lower()).value for kind in LayerKind]
    speedups = {form: getattr(latency.format_speedup, form.name.lower()) for form in NumberFormat}
    core_weights = latency.core_weight_bytes_per_cycle
    formats = tuple(form for form, speedup in speedups.items() if speedup is not None)
    numbers: dict[str, Any] = {
        "core_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.core.value],
        "memory_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.memory.value],
        "host_hz": [mhz * _HZ_PER_MHZ for mhz in clocks.host.value],
        "macs_per_cycle": rates,
        "format_speedup": [1.0 if speedup is None else speedup.value for speedup in speedups.values()],
        "core_cycles_per_weight_byte": 1 / core_weights.value if core_weights else 0.0,
        "segment_cycles": latency.segment_cycles.value if latency.segment_cycles else 0.0,
        "voltage_hz": [mhz * _HZ_PER_MHZ for mhz in power.core_voltage.clock],
        "voltage_ratio": power.core_voltage.value,
        "host_curve_hz": [mhz * _HZ_PER_MHZ for mhz in power.host.clock],
    }
    for part, quantities in ((latency, LATENCY_QUANTITIES), (power, POWER_QUANTITIES)):
        for field, (parameter, unit) in quantities.items():
            numbers[parameter] = np.asarray(getattr(part, field).value) * unit
    leaves: dict[str, Any] = {key: jnp.asarray(value, jnp.float32) for key, value in numbers.items()}
    device = Device(name=file.name, formats=formats, **leaves)
    if file.correction is None:
        return device
    source = file.correction.board or file.correction.npz or ""
    correction = device_correction(source, default_point(device), formats[0])
    return dataclasses.replace(device, correction=correction)


class _DeviceUse(Protocol):
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


def chosen_device(name_or_path: str | Path, use: _DeviceUse) -> Device:
    """Loads a device in its power mode, with the clocks to search and the number format to run in.

    Args:
        name_or_path: As `load_device`.
        use: Power mode, clocks and number format.

    Raises:
        ValueError: The device does not have what is asked for.
    """
    return device_of(read_device_file(name_or_path), use)


def device_of(file: DeviceFile, use: _DeviceUse) -> Device:
    """Returns the device of a file, as `chosen_device`."""
    device = _in_mode(file, use.power_mode)
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
