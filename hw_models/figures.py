"""Figures of a device file: numbers with a unit, a provenance, a source and an error.

Each place in a file allows one unit and one range, so that a figure in another unit is refused and never
misread: `Figure[Literal["W"], NonNegative]`.
"""

import itertools
import math
from typing import Annotated, Generic, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from hw_models.units import CLOCK, LATENCY, PART_OF_POWER, PORT_BANDWIDTH, POWER, Range

# Figures stay finite and above zero as float32 in SI units.
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
    """Error of a fitted figure, or of the model that it is part of.

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
    def _fitted_figures_state_an_error(self) -> "_Sourced":
        if self.provenance == "fitted" and self.error is None:
            raise PydanticCustomError("no_error", "an 'error' beside a fitted figure")
        return self


class Figure(_Sourced, Generic[UnitT, ValueT]):
    """A number, or a list of numbers, with its unit and origin.

    Attributes:
        value: The number.
        unit: The one unit that the schema allows here.
        provenance: Measured, fitted to measurements, or assumed.
        source: Where it comes from; for an assumed figure, the arithmetic.
        error: Error of a fitted figure.
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
        provenance: As in `Figure`.
        source: As in `Figure`.
        error: As in `Figure`.
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
