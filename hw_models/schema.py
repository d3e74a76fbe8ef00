"""Device file, version 1: the pydantic models of a device's YAML.

Every number of a device file is a quantity: a value with a unit, a provenance, a source and an error. Each place allows
one unit and one range, so that a quantity in another unit is refused and never misread: `Quantity[Literal["W"],
NonNegative]`.
"""

import itertools
import math
from typing import Annotated, Generic, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from hw_models.blocks import BlockCost
from hw_models.units import CLOCK, LATENCY, MEMORY_BANDWIDTH, PART_OF_POWER, PORT_BANDWIDTH, POWER, Range

# Quantities stay finite and above zero as float32 in SI units.
_SMALLEST, _LARGEST = 1e-12, 1e12
UnitT = TypeVar("UnitT")
ValueT = TypeVar("ValueT")


def _plain_number(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "a finite number")
    return value


def _fits_float32(value: float) -> float:
    if value != 0 and not _SMALLEST <= abs(value) <= _LARGEST:
        raise PydanticCustomError("magnitude", f"a number of magnitude {_SMALLEST:g} to {_LARGEST:g}")
    return value


def _within(sensible: Range) -> AfterValidator:
    def check(value: float) -> float:
        if not sensible.contains(value):
            raise PydanticCustomError("range", "{wanted}", {"wanted": sensible.expected(value)})
        return value

    return AfterValidator(check)


def _ascending(values: list[float]) -> list[float]:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise PydanticCustomError("order", "strictly ascending numbers")
    return values


def _not_falling(values: list[float]) -> list[float]:
    if any(low > high for low, high in itertools.pairwise(values)):
        raise PydanticCustomError("order", "numbers that do not fall")
    return values


# Magnitude is checked last: an error of sign is the clearer message.
_Number = Annotated[float, BeforeValidator(_plain_number), Field(allow_inf_nan=False)]
Positive = Annotated[_Number, Field(gt=0), AfterValidator(_fits_float32)]
NonNegative = Annotated[_Number, Field(ge=0), AfterValidator(_fits_float32)]
PartOfPowerW = Annotated[NonNegative, _within(PART_OF_POWER)]
Share = Annotated[_Number, Field(ge=0, le=1), AfterValidator(_fits_float32)]
AtLeastOne = Annotated[_Number, Field(ge=1), AfterValidator(_fits_float32)]
ClockMHz = Annotated[Positive, _within(CLOCK)]
PortGbS = Annotated[Positive, _within(PORT_BANDWIDTH)]
LatencyMs = Annotated[Positive, _within(LATENCY)]
PowerW = Annotated[Positive, _within(POWER)]
ClockTable = Annotated[list[ClockMHz], Field(min_length=1), AfterValidator(_ascending)]
VoltageRatios = Annotated[list[AtLeastOne], Field(min_length=1), AfterValidator(_not_falling)]
Powers = Annotated[list[PartOfPowerW], Field(min_length=1), AfterValidator(_not_falling)]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A part of a file that allows no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FitError(Strict):
    """Error of a fitted quantity, or of the model that it is part of.

    Attributes:
        value: The error, as a fraction (0.1 is 10 %).
        metric: What is averaged.
        held_out: What was left out of the fit and predicted.
    """

    value: NonNegative
    metric: Text
    held_out: Text


class _Sourced(Strict):
    provenance: Literal["measured", "fitted", "assumed"]
    source: Text
    error: FitError | None = None

    @pydantic.model_validator(mode="after")
    def _fitted_quantities_state_an_error(self) -> "_Sourced":
        if self.provenance == "fitted" and self.error is None:
            raise PydanticCustomError("no_error", "an 'error' beside a fitted figure")
        return self


class Quantity(_Sourced, Generic[UnitT, ValueT]):
    """A number, or a list of numbers, with its unit and origin.

    Attributes:
        value: The number.
        unit: The one unit that the schema allows here.
        provenance: Measured, fitted to measurements, or assumed.
        source: Where it comes from; for an assumed quantity, the arithmetic.
        error: Error of a fitted quantity.
    """

    value: ValueT
    unit: UnitT


class Curve(_Sourced, Generic[UnitT, ValueT]):
    """A quantity over a clock: linear between the knots, constant beyond them.

    Attributes:
        clock: Knots, strictly ascending.
        clock_unit: Their unit.
        value: The quantity at the knots.
        unit: Its unit.
        provenance: As in `Quantity`.
        source: As in `Quantity`.
        error: As in `Quantity`.
    """

    clock: ClockTable
    clock_unit: Literal["MHz"]
    value: ValueT
    unit: UnitT

    @pydantic.model_validator(mode="after")
    def _one_value_per_knot(self) -> "Curve[UnitT, ValueT]":
        if len(self.clock) != len(self.value):  # type: ignore[arg-type]
            raise PydanticCustomError("lengths", "as many values as clocks")
        return self


SCHEMA_VERSION = 1
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Clocks(Strict):
    """Settings of each clock."""

    core: Quantity[Literal["MHz"], ClockTable]
    memory: Quantity[Literal["MHz"], ClockTable]
    host: Quantity[Literal["MHz"], ClockTable]


class _MacsPerCycle(Strict):
    """Compute rate by kind of layer, in fp32; the fields follow `hw_models.LayerKind`."""

    dense: Quantity[Literal["MAC/cycle"], Positive]
    pointwise: Quantity[Literal["MAC/cycle"], Positive]
    depthwise: Quantity[Literal["MAC/cycle"], Positive]
    pooling: Quantity[Literal["op/cycle"], Positive]
    elementwise: Quantity[Literal["op/cycle"], Positive]
    linear: Quantity[Literal["MAC/cycle"], Positive]


class _FormatSpeedup(Strict):
    """Compute rate relative to `_MacsPerCycle`; the fields follow `hw_models.NumberFormat`.

    A format that is absent does not run on the device; the first one present is the device's default.
    """

    fp32: Quantity[Literal["1"], Positive] | None = None
    fp16: Quantity[Literal["1"], Positive] | None = None
    int8: Quantity[Literal["1"], Positive] | None = None

    @pydantic.model_validator(mode="after")
    def _runs_something(self) -> "_FormatSpeedup":
        if self.fp32 is None and self.fp16 is None and self.int8 is None:
            raise PydanticCustomError("no_format", "at least one of fp32, fp16, int8")
        return self


class _PowerMode(Strict):
    """A named power mode: the highest setting of each clock that it allows; an absent clock has no cap."""

    core: Quantity[Literal["MHz"], ClockMHz] | None = None
    memory: Quantity[Literal["MHz"], ClockMHz] | None = None
    host: Quantity[Literal["MHz"], ClockMHz] | None = None


class Latency(Strict):
    """Parameters of `hw_models.cost`.

    Without `core_weight_bytes_per_cycle`, weights cost the core nothing, without `segment_cycles` a call the host.
    """

    macs_per_cycle: _MacsPerCycle
    format_speedup: _FormatSpeedup
    weight_bytes_per_cycle: Quantity[Literal["B/cycle"], Positive]
    activation_bytes_per_cycle: Quantity[Literal["B/cycle"], Positive]
    core_weight_bytes_per_cycle: Quantity[Literal["B/cycle"], Positive] | None = None
    norm_order: Quantity[Literal["1"], AtLeastOne]
    launch_cycles: Quantity[Literal["cycle"], NonNegative]
    run_cycles: Quantity[Literal["cycle"], NonNegative]
    run_time: Quantity[Literal["us"], NonNegative]
    segment_cycles: Quantity[Literal["cycle"], NonNegative] | None = None


class Power(Strict):
    """Parameters of `hw_models.cost`, all at the board's input."""

    board: Quantity[Literal["W"], PartOfPowerW]
    core_idle: Quantity[Literal["W"], PartOfPowerW]
    core_load: Quantity[Literal["mW/MHz"], NonNegative]
    core_stalled_share: Quantity[Literal["1"], Share]
    core_voltage: Curve[Literal["1"], VoltageRatios]
    memory_clock: Quantity[Literal["W/GHz"], NonNegative]
    byte_energy: Quantity[Literal["pJ/B"], NonNegative]
    host: Curve[Literal["W"], Powers]


class LearnedCorrection(_Sourced):
    """What was learned of whole networks on top of the roofline: a board of the package, or an npz file as text.

    Attributes:
        board: Name of a board that comes with the package.
        npz: An npz file in base64, as `hw_models.correction.encode_correction` writes it.
    """

    board: Name | None = None
    npz: Text | None = None

    @pydantic.model_validator(mode="after")
    def _is_one_of_both(self) -> "LearnedCorrection":
        if (self.board is None) == (self.npz is None):
            raise PydanticCustomError("one_of", "either 'board' or 'npz'")
        return self


class MeasuredBlocks(_Sourced):
    """What blocks of networks were measured to take, see `hw_models.blocks`.

    Attributes:
        costs: By the name of the block.
    """

    costs: Annotated[dict[Text, BlockCost], Field(min_length=1)]


class Runtime(Strict):
    """What ran the networks that a device was fitted to: another runtime takes other times on the same board."""

    name: Literal["onnxruntime", "tensorrt", "jax"]
    version: Text
    provider: Text | None = None

    def __str__(self) -> str:
        """Returns it in words."""
        return f"{self.name} {self.version}" + (f" ({self.provider})" if self.provider else "")


class DeviceFile(Strict):
    """A whole device file: of a roofline, or of a table of measured blocks."""

    schema_version: Literal[1]
    name: Name
    description: Text
    measured_on: Text | None = None  # the machine that all measurements of a fit were taken on
    runtime: Runtime | None = None
    yardsticks_ms: dict[Text, LatencyMs] | None = None  # of single layers when the device was measured
    clocks: Clocks
    latency: Latency | None = None
    power: Power | None = None
    blocks: MeasuredBlocks | None = None
    correction: LearnedCorrection | None = None
    modes: dict[Name, _PowerMode] = Field(default_factory=dict)

    def roofline(self) -> tuple[Latency, Power]:
        """Returns its latency and power.

        Raises:
            ValueError: It is a table of blocks, which has neither.
        """
        if self.latency is None or self.power is None:
            raise ValueError(
                f"{self.name}: expected a device with a roofline, got a table of blocks, which prices networks of "
                "MBConv blocks alone; hadas devices fit makes a device of it"
            )
        return self.latency, self.power

    def doubt_of_runtime(self, name: str) -> str | None:
        """Says in one line that the device was measured on another runtime than this one; None if it was not."""
        if self.runtime is None or self.runtime.name == name:
            return None
        return (
            f"{self.name} was measured on {self.runtime.name}, this is {name}: expect other latencies; measure with "
            f"hadas devices profile --runtime {name}, then hadas devices fit"
        )

    @pydantic.model_validator(mode="after")
    def _is_a_roofline_or_a_table(self) -> "DeviceFile":
        for name in ("latency", "power"):
            if (getattr(self, name) is None) == (self.blocks is None):
                got = None if self.blocks is None else "both"
                raise PydanticCustomError(
                    "one_of", "{wanted}", {"wanted": f"{name} of a roofline, or blocks of a table", "got": got}
                )
        return self

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
        """Quantities per cycle, per clock and per byte tell their unit by what they come to at the highest clocks."""
        if self.latency is None or self.power is None:
            return self
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
