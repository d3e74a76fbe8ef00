"""Device file, version 1: the pydantic models of a device's YAML."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from hw_models.figures import (
    AtLeastOne,
    ClockMHz,
    ClockTable,
    Curve,
    Figure,
    NonNegative,
    PartOfPowerW,
    Positive,
    Powers,
    Share,
    Strict,
    Text,
    VoltageRatios,
)
from hw_models.units import MEMORY_BANDWIDTH, POWER
from hw_models.yaml_files import checked

SCHEMA_VERSION = 1

ModeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Clocks(Strict):
    """Settings of each clock."""

    core: Figure[Literal["MHz"], ClockTable]
    memory: Figure[Literal["MHz"], ClockTable]
    host: Figure[Literal["MHz"], ClockTable]


class MacsPerCycle(Strict):
    """Compute rate by kind of layer, in fp32; the fields follow `hw_models.LayerKind`."""

    dense: Figure[Literal["MAC/cycle"], Positive]
    pointwise: Figure[Literal["MAC/cycle"], Positive]
    depthwise: Figure[Literal["MAC/cycle"], Positive]
    pooling: Figure[Literal["op/cycle"], Positive]
    elementwise: Figure[Literal["op/cycle"], Positive]
    linear: Figure[Literal["MAC/cycle"], Positive]


class FormatSpeedup(Strict):
    """Compute rate relative to `MacsPerCycle`; the fields follow `hw_models.NumberFormat`.

    A format that is absent does not run on the device; the first one present is the device's default.
    """

    fp32: Figure[Literal["1"], Positive] | None = None
    fp16: Figure[Literal["1"], Positive] | None = None
    int8: Figure[Literal["1"], Positive] | None = None

    @pydantic.model_validator(mode="after")
    def _runs_something(self) -> "FormatSpeedup":
        if self.fp32 is None and self.fp16 is None and self.int8 is None:
            raise PydanticCustomError("no_format", "at least one of fp32, fp16, int8")
        return self


class PowerMode(Strict):
    """A named power mode: the highest setting of each clock that it allows; an absent clock has no cap."""

    core: Figure[Literal["MHz"], ClockMHz] | None = None
    memory: Figure[Literal["MHz"], ClockMHz] | None = None
    host: Figure[Literal["MHz"], ClockMHz] | None = None


class Latency(Strict):
    """Parameters of `hw_models.roofline`; without `core_weight_bytes_per_cycle`, weights cost the core nothing."""

    macs_per_cycle: MacsPerCycle
    format_speedup: FormatSpeedup
    weight_bytes_per_cycle: Figure[Literal["B/cycle"], Positive]
    activation_bytes_per_cycle: Figure[Literal["B/cycle"], Positive]
    core_weight_bytes_per_cycle: Figure[Literal["B/cycle"], Positive] | None = None
    norm_order: Figure[Literal["1"], AtLeastOne]
    launch_cycles: Figure[Literal["cycle"], NonNegative]
    run_cycles: Figure[Literal["cycle"], NonNegative]
    run_time: Figure[Literal["us"], NonNegative]


class Power(Strict):
    """Parameters of `hw_models.power`, all at the board's input."""

    board: Figure[Literal["W"], PartOfPowerW]
    core_idle: Figure[Literal["W"], PartOfPowerW]
    core_load: Figure[Literal["mW/MHz"], NonNegative]
    core_stalled_share: Figure[Literal["1"], Share]
    core_voltage: Curve[Literal["1"], VoltageRatios]
    memory_clock: Figure[Literal["W/GHz"], NonNegative]
    byte_energy: Figure[Literal["pJ/B"], NonNegative]
    host: Curve[Literal["W"], Powers]


class DeviceFile(Strict):
    """A whole device file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: Text
    measured_on: Text | None = None  # the machine that all measurements of a fit were taken on
    clocks: Clocks
    latency: Latency
    power: Power
    modes: dict[ModeName, PowerMode] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _modes_allow_a_setting(self) -> "DeviceFile":
        for name, mode in self.modes.items():
            for clock in Clocks.model_fields:
                cap, lowest = getattr(mode, clock), getattr(self.clocks, clock).value[0]
                if cap is not None and cap.value < lowest:
                    where = f"modes.{name}.{clock}.value"
                    wanted = f"{where} of at least {lowest:g} MHz, the lowest setting"
                    raise PydanticCustomError("empty_mode", "{wanted}", {"wanted": wanted, "got": cap.value})
        return self

    @pydantic.model_validator(mode="after")
    def _highest_clocks_give_sensible_rates_and_powers(self) -> "DeviceFile":
        """Figures per cycle, per clock and per byte tell their unit by what they come to at the highest clocks."""
        core_mhz, memory_mhz = self.clocks.core.value[-1], self.clocks.memory.value[-1]
        latency, power = self.latency, self.power
        rates = {
            name: getattr(latency, name).value for name in ("weight_bytes_per_cycle", "activation_bytes_per_cycle")
        }
        for name, rate in rates.items():
            if not MEMORY_BANDWIDTH.contains(rate * memory_mhz * 1e-3):
                lowest, highest = MEMORY_BANDWIDTH.lowest, MEMORY_BANDWIDTH.highest
                wanted = f"latency.{name}.value to give {lowest:g} to {highest:,.10g} GB/s at the highest memory clock"
                raise PydanticCustomError("range", "{wanted}", {"wanted": wanted, "got": rate})
        for name, (unit, other), watts in (
            ("core_load", ("mW/MHz", "uW/MHz"), core_mhz * 1e-3 * max(power.core_voltage.value) ** 2),
            ("memory_clock", ("W/GHz", "mW/GHz"), memory_mhz * 1e-3),
            ("byte_energy", ("pJ/B", "fJ/B"), max(rates.values()) * memory_mhz * 1e-6),
        ):
            value = getattr(power, name).value
            if value * watts > POWER.highest:
                likely = f"{value * 1e-3:,.6g} {unit} if it was in {other}"
                wanted = f"power.{name}.value to give at most {POWER.highest:,} W at the highest clocks ({likely})"
                raise PydanticCustomError("range", "{wanted}", {"wanted": wanted, "got": value})
        return self


def parse(content: object) -> DeviceFile:
    """Checks the content of a device file.

    Args:
        content: What the YAML held.

    Returns:
        The checked file.

    Raises:
        ValueError: One line: field path, what was expected and what came.
    """
    return checked(content, DeviceFile, version=SCHEMA_VERSION)
