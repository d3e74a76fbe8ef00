"""Lookup tables as CSV files: `position,choice,latency_ms,energy_mj`, one line per entry.

A line `base,,LATENCY,ENERGY` holds what every network takes on top. An empty energy was not measured; an entry
without a line is missing. Positions and choices count from 0.
"""

import csv
import io
import math
from pathlib import Path

import numpy as np

from hw_models.csv_files import read_table
from hw_models.lookup import LookupTable, lookup_table
from hw_models.whole_files import write_whole

_HEADER = ["position", "choice", "latency_ms", "energy_mj"]
_BASE = "base"
_MILLI = 1e-3


def write_lookup(table: LookupTable, path: str | Path) -> None:
    """Writes a table; missing entries get no line.

    Args:
        table: The table.
        path: A file that is not there yet.

    Raises:
        ValueError: The file is there already, or cannot be written.
    """
    latency_s, energy_j = np.asarray(table.latency_s, np.float64), np.asarray(table.energy_j, np.float64)
    lines = [[_BASE, "", _milli(float(table.base_latency_s)), _milli(float(table.base_energy_j))]]
    for position, choice in np.argwhere(~np.isnan(latency_s)).tolist():
        lines.append(
            [str(position), str(choice), _milli(latency_s[position, choice]), _milli(energy_j[position, choice])]
        )
    if Path(path).exists():
        raise ValueError(f"{path}: expected a new file, got one that exists")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEADER, *lines])
    write_whole(path, text.getvalue().encode("utf-8"))


def read_lookup(path: str | Path) -> LookupTable:
    """Reads a table.

    Args:
        path: The file.

    Returns:
        The table; its shape is set by the largest position and choice, entries without a line are NaN.

    Raises:
        ValueError: The file is missing or wrong; the message names file, line and what was expected.
    """
    table = read_table(path, columns=_HEADER, numbers=_HEADER[2:], required=_HEADER)
    entries: dict[tuple[int, int], tuple[float, float]] = {}
    base: tuple[float, float] | None = None
    for number, cells in table.rows:
        where = f"{path}, line {number}"
        costs = (
            _cost(cells["latency_ms"], where, "latency_ms"),
            _cost(cells["energy_mj"], where, "energy_mj", may_be_empty=True),
        )
        if cells["position"].casefold() == _BASE:
            if base is not None:
                raise ValueError(f"{where}: expected one line of the base, got another")
            base = costs
            continue
        key = _index(cells["position"], where, "position"), _index(cells["choice"], where, "choice")
        if key in entries:
            raise ValueError(f"{where}: expected each entry once, got position {key[0]}, choice {key[1]} again")
        entries[key] = costs
    if not entries:
        raise ValueError(f"{path}: expected at least one entry, got none")
    shape = [max(key[axis] for key in entries) + 1 for axis in (0, 1)]
    columns = np.full((2, *shape), np.nan, np.float32)
    for (position, choice), costs in entries.items():
        columns[:, position, choice] = costs
    base_latency_s, base_energy_j = (0.0 if math.isnan(value) else value for value in base or (0.0, 0.0))
    return lookup_table(columns[0], columns[1], base_latency_s=base_latency_s, base_energy_j=base_energy_j)


def _milli(value: float) -> str:
    return "" if math.isnan(value) else f"{value / _MILLI:.9g}"


def _index(text: str, where: str, name: str) -> int:
    if not text.strip().isdecimal() or int(text) > 10_000:
        raise ValueError(f"{where}: {name}: expected a whole number from 0 to 10000, got {text!r}")
    return int(text)


def _cost(text: str, where: str, name: str, *, may_be_empty: bool = False) -> float:
    if may_be_empty and not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{where}: {name}: expected a number of at least 0, got {text!r}")
    return value * _MILLI
