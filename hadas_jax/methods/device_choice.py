"""The device that a run's settings ask for: its power mode, number format and clocks."""

import dataclasses
from typing import Protocol

from hw_models import Device, read_device_file, with_clocks
from hw_models.catalogue import device_in_mode
from hw_models.schema import DeviceFile


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


class DeviceSettings(DeviceUse, Protocol):
    """Settings that choose a device."""

    @property
    def device(self) -> str:
        """A device that comes with the package, or the path of a device file."""


def chosen_device(settings: DeviceSettings) -> Device:
    """Loads a device in its power mode, with the clocks to search and the number format to run in.

    Raises:
      ValueError: the device does not have what is asked for.
    """
    return device_of(read_device_file(settings.device), settings)


def device_of(file: DeviceFile, use: DeviceUse) -> Device:
    """Returns the device of a file, as `chosen_device`."""
    device = device_in_mode(file, use.power_mode)
    if use.number_format is not None:
        names = [form.name.lower() for form in device.formats]
        if use.number_format not in names:
            raise ValueError(
                f"--number-format: expected one that {device.name} runs ({', '.join(names)}), got {use.number_format!r}"
            )
        chosen = device.formats[names.index(use.number_format)]
        others = tuple(form for form in device.formats if form != chosen)
        device = dataclasses.replace(device, formats=(chosen, *others))
    core, memory, host = ([1e6 * mhz for mhz in mhzs] or None for mhzs in (use.core_mhz, use.memory_mhz, use.host_mhz))
    return with_clocks(device, core_hz=core, memory_hz=memory, host_hz=host)
