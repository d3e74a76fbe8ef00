"""Measuring: files of measurements, and the profile of a machine that writes them.

`Measurement` is a row of the file, `measure` times a callable, `Machine` sets clocks and reads power, and `profile`
brings them together.
"""

from hw_models.measuring.machine import ClockSetting, Machine
from hw_models.measuring.measurements import (
    Measurement,
    format_layers,
    layer_tables,
    read_measurements,
    write_measurements,
)
from hw_models.measuring.profiling import Case, Step, profile
from hw_models.measuring.timing import Meter, Reading, Timing, measure

__all__ = [
    "Case",
    "ClockSetting",
    "Machine",
    "Measurement",
    "Meter",
    "Reading",
    "Step",
    "Timing",
    "format_layers",
    "layer_tables",
    "measure",
    "profile",
    "read_measurements",
    "write_measurements",
]
