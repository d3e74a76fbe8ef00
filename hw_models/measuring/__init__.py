"""Measuring: files of measurements, and the one file `measure.py` that takes them, on a board without this package too.

`Measurement` is a row of the file and `profile` writes such rows: of any `Case`, on the `Machine` whose clocks it sets
and whose power it reads. `read_kit`, `find_engine` and `kit_cases` make cases of a folder that `hadas devices kit`
wrote, `open_case` loads one of them.
"""

from hw_models.measuring.measure import (
    Case,
    ClockSetting,
    Engine,
    Machine,
    Step,
    find_engine,
    kit_cases,
    kit_labels,
    open_case,
    profile,
    read_kit,
)
from hw_models.measuring.measurements import (
    Measurement,
    format_layers,
    layer_tables,
    read_measurements,
    write_measurements,
)

__all__ = [
    "Case",
    "ClockSetting",
    "Engine",
    "Machine",
    "Measurement",
    "Step",
    "find_engine",
    "format_layers",
    "kit_cases",
    "kit_labels",
    "layer_tables",
    "open_case",
    "profile",
    "read_kit",
    "read_measurements",
    "write_measurements",
]
