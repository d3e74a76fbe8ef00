"""Whether measurements are in the units of their columns, judged by what a base device would take.

A board is seldom twenty times as fast or as hungry as one of its kind, while a wrong unit is a factor of a thousand.
"""

from collections.abc import Sequence

import numpy as np

from hw_models.device import Device
from hw_models.fitting.device_parameters import Measured, predict
from hw_models.measuring.measurements import Measurement
from hw_models.units import in_other_units

FAR = 20.0
"""Ratio to a base that calls for a warning."""
_NO_BOARD = 50.0
_STRAY = 300.0


def doubts_of_units(rows: Sequence[Measurement], measured: Measured, base: Device) -> list[str]:
    """Compares measurements with a base.

    Args:
        rows: N measurements.
        measured: The same as arrays.
        base: The device to compare with, at the clocks of the measurements.

    Returns:
        Warnings of latencies and powers, one line each.

    Raises:
        ValueError: Powers are beyond what a board of the base's kind takes.
    """
    latency_s, power_w = (np.asarray(quantity, np.float64) for quantity in predict(measured, base))
    latency, power = np.asarray(measured.latency_s) / latency_s, np.asarray(measured.power_w) / power_w
    warnings = _doubts("latency_ms", "latencies", "ms", rows=rows, ratios=latency, base=base.name)
    if not np.isfinite(power).any():
        return warnings
    doubts = _doubts("power_w", "powers", "W", rows=rows, ratios=power, base=base.name)
    if np.nanmedian(power) > _NO_BOARD:
        raise ValueError(f"measurements: {doubts[0]}; name a base of the board's kind if they are right")
    return warnings + doubts


def _doubts(
    column: str, what: str, unit: str, *, rows: Sequence[Measurement], ratios: np.ndarray, base: str
) -> list[str]:
    doubts = []
    typical = float(np.nanmedian(ratios))
    if not _is_near(typical):
        value = float(np.nanmedian([getattr(row, column) or np.nan for row in rows]))
        likely = in_other_units(value, unit, lambda meant: _is_near(typical * meant / value))
        hint = f" (the median, {value:,.6g}, is {likely})" if likely else ""
        doubts.append(
            f"measured {what} are {typical:.3g} times those of {base}: check that {column} is in {unit}{hint} and that "
            "layers, batch and base device fit"
        )
    stray = np.flatnonzero(np.abs(np.log(ratios / typical)) > np.log(_STRAY))
    if stray.size:
        first = rows[stray[0]]
        doubts.append(
            f"{stray.size} of {len(rows)} rows, the first of {first.network}, have a {column} "
            f"({getattr(first, column):g}) more than {_STRAY:g} times off what the others make likely: check that all "
            f"are in {unit}"
        )
    return doubts


def _is_near(ratio: float) -> bool:
    """Whether a ratio to a base needs no explanation."""
    return 1 / FAR < ratio < FAR
