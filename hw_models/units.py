"""Units of what users write: exact conversion, sensible ranges, and which unit a number was likely meant in."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

_PREFIXES = {"G": 9, "M": 6, "k": 3, "": 0, "m": -3, "u": -6, "n": -9}
_DIMENSIONS = {
    "s": ("", "m", "u", "n"),
    "Hz": ("G", "M", "k", ""),
    "W": ("k", "", "m", "u"),
    "J": ("", "m", "u", "n"),
    "b/s": ("G", "M", "k", ""),
    "B/s": ("G", "M", "k", ""),
}
_EXPONENTS = {base: {prefix + base: _PREFIXES[prefix] for prefix in prefixes} for base, prefixes in _DIMENSIONS.items()}


def conversion(written: str, unit: str) -> Decimal | None:
    """Returns what one of a unit is in another one, exactly.

    Args:
        written: A unit as users write it: `us`, `µs`, `khz`, in any case.
        unit: A unit as this module spells it.

    Returns:
        The factor; None if the two measure different things or one is unknown.
    """
    plain = written.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u").casefold()
    for exponents in _EXPONENTS.values():
        named = {name.casefold(): exponent for name, exponent in exponents.items()}
        if unit in exponents and plain in named:
            return Decimal(10) ** (named[plain] - exponents[unit])
    return None


def in_other_units(value: float, unit: str, fits: Callable[[float], bool]) -> str:
    """Says what a number is if it was meant in another unit, in which it makes sense.

    Args:
        value: The number.
        unit: The unit that it was taken for.
        fits: Whether a number makes sense in `unit`.

    Returns:
        `1,300.5 MHz if it was in kHz`; empty if it makes sense in none.
    """
    units = next(exponents for exponents in _EXPONENTS.values() if unit in exponents)
    meant = {name: value * 10.0 ** (exponent - units[unit]) for name, exponent in units.items() if name != unit}
    return " or ".join(f"{number:,.6g} {unit} if it was in {name}" for name, number in meant.items() if fits(number))


@dataclass(frozen=True)
class Range:
    """What a quantity can be.

    Attributes:
        name: Of the quantity, with its article.
        unit: That it is given in.
        lowest: What a sensible number is at least.
        highest: What it is at most.
    """

    name: str
    unit: str
    lowest: float
    highest: float

    def contains(self, value: float) -> bool:
        """Whether a number is sensible."""
        return self.lowest <= value <= self.highest

    def expected(self, value: float) -> str:
        """Says what is expected in place of a number, and the unit that it was likely meant in."""
        likely = in_other_units(value, self.unit, self.contains)
        return f"{self.name} in {self.unit}, {self.lowest:,g} to {self.highest:,.10g}{f' ({likely})' if likely else ''}"


CLOCK = Range("a clock", "MHz", 10, 20_000)
"""From the slowest settings of memories to beyond any processor: a clock in GHz, kHz or Hz lies outside."""

LATENCY = Range("a latency", "ms", 1e-6, 1e6)
POWER = Range("a power", "W", 1e-4, 2_000)
"""From a sleeping microcontroller to the largest accelerator board."""
PART_OF_POWER = Range("a power", "W", 0, 2_000)

PORT_BANDWIDTH = Range("a bandwidth", "Gb/s", 0.1, 50_000)
MEMORY_BANDWIDTH = Range("a bandwidth at the highest memory clock", "GB/s", 1e-3, 1e6)
"""As the models understand it: caches may serve far more than a memory does."""
