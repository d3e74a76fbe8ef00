"""The device that a run's settings ask for: its power mode, number format and clocks."""

import dataclasses
from typing import Protocol

from hw_models import Device, load_device, with_clocks


class DeviceSettings(Protocol):
    """Settings that choose a device."""

    @property
    def device(self) -> str:
        """A device that comes with the package, or the path of a device file."""

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


def chosen_device(settings: DeviceSettings) -> Device:
    """Loads a device in its power mode, with the clocks to search and the number format to run in.

    Raises:
      ValueError: the device does not have what is asked for.
    """
    device = load_device(settings.device, mode=settings.power_mode)
    if settings.number_format is not None:
        names = [form.name.lower() for form in device.formats]
        if settings.number_format not in names:
            raise ValueError(
                f"--number-format: expected one that {device.name} runs ({', '.join(names)}), "
                f"got {settings.number_format!r}"
            )
        chosen = device.formats[names.index(settings.number_format)]
        others = tuple(form for form in device.formats if form != chosen)
        device = dataclasses.replace(device, formats=(chosen, *others))
    core, memory, host = (
        [1e6 * mhz for mhz in mhzs] or None for mhzs in (settings.core_mhz, settings.memory_mhz, settings.host_mhz)
    )
    return with_clocks(device, core_hz=core, memory_hz=memory, host_hz=host)
