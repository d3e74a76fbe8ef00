"""Clock tables of a device that is fitted: what of its base's tables the measurements bear out.

A table stays where two settings or more were measured. It shrinks to the one setting that was measured, or to its
highest if none is known; where the base merely assumes a table, other clocks that were measured take its place.
Clocks are in MHz, as in files.
"""

from collections.abc import Sequence

import numpy as np

from hw_models import schema
from hw_models.catalogue import to_device
from hw_models.device import SAME_CLOCK, match_settings
from hw_models.figures import Figure
from hw_models.fitting.units_of_rows import FAR
from hw_models.measuring.measurements import Measurement, clocks


def check_clock_columns(rows: Sequence[Measurement]) -> None:
    """Raises `ValueError` if a clock is known in some rows only."""
    for clock in schema.Clocks.model_fields:
        known = sum(getattr(row, f"{clock}_mhz") is not None for row in rows)
        if 0 < known < len(rows):
            raise ValueError(
                f"measurements: {clock}_mhz: expected a clock in every row or in none, got one in {known} of "
                f"{len(rows)} rows"
            )


def with_measured_clocks(
    rows: Sequence[Measurement], base: schema.DeviceFile, source: str
) -> tuple[schema.DeviceFile, list[str]]:
    """Gives a base the clock tables of measurements.

    Args:
        rows: The measurements, each clock in all of them or in none.
        base: The file to start from.
        source: Of the measurements, for the file.

    Returns:
        The file, and warnings of clocks that are not known.

    Raises:
        ValueError: A clock is none of the base's, whose table is not merely assumed.
    """
    warnings, tables = [], {}
    for clock in schema.Clocks.model_fields:
        figure: Figure = getattr(base.clocks, clock)
        mhz = np.array([getattr(row, f"{clock}_mhz") for row in rows if getattr(row, f"{clock}_mhz") is not None])
        tables[clock] = _clock_table(figure, mhz, source)
        if not mhz.size and len(figure.value) > 1:
            warnings.append(
                f"{clock} clock unknown in all rows: the device gets one setting, {figure.value[-1]:g} MHz, the "
                f"highest of {base.name}; give {clock}_mhz to search over it"
            )
        warnings += _doubts(clock, mhz, base)
    is_whole = all(table.value == getattr(base.clocks, clock).value for clock, table in tables.items())
    changed = {"clocks": schema.Clocks(**tables), "modes": base.modes if is_whole else {}}
    file = base.model_copy(update=changed)
    try:
        clocks(list(rows), to_device(file))
    except ValueError as error:
        raise ValueError(f"{error}; take a base whose clocks are assumed, or edit the table in a copy of it") from None
    return file, warnings


def _doubts(clock: str, mhz: np.ndarray, base: schema.DeviceFile) -> list[str]:
    """A warning if clocks are far from all of a base's."""
    table = getattr(base.clocks, clock).value
    if not mhz.size or table[0] / FAR < np.median(mhz) < table[-1] * FAR:
        return []
    times = np.median(mhz) / table[-1]
    return [f"{clock} clocks are {times:.3g} times those of {base.name}: check that {clock}_mhz is in MHz"]


def _clock_table(figure: Figure, mhz: np.ndarray, source: str) -> Figure:
    """Returns the clock table of measurements at some clocks; the base's own where these do not fit it."""
    table = np.asarray(figure.value)
    if not mhz.size:
        unknown = {"provenance": "assumed", "source": "clock unknown while measuring; stands for it", "error": None}
        return figure.model_copy(update={"value": [figure.value[-1]], **unknown})
    nearest, is_known = match_settings(table, mhz)
    used = np.unique(nearest)
    if is_known.all() and used.size == 1:
        settings = table[used]
    elif figure.provenance == "assumed" and not is_known.any():
        settings = _settings(mhz)
    else:
        return figure
    update = {"value": settings.tolist(), "provenance": "measured", "source": source, "error": None}
    return figure.model_copy(update=update)


def _settings(mhz: np.ndarray) -> np.ndarray:
    """Merges clocks that differ by no more than reading them does, ascending."""
    groups: list[list[float]] = []
    for value in np.unique(mhz).tolist():
        if groups and value <= (1 + SAME_CLOCK) * groups[-1][0]:
            groups[-1].append(value)
        else:
            groups.append([value])
    return np.array([group[len(group) // 2] for group in groups])
