"""What people see: progress, the table of savings, the picture of the front; tables and pictures of devices."""

from hadas_jax.report.console import LineProgress, LiveProgress, StepProgress
from hadas_jax.report.darts import plot_genotype
from hadas_jax.report.devices import plot_calibration, plot_device, print_calibration, print_device, print_devices
from hadas_jax.report.search import levels_table, plot_exits, plot_front, print_result

__all__ = [
    "LineProgress",
    "LiveProgress",
    "StepProgress",
    "levels_table",
    "plot_calibration",
    "plot_device",
    "plot_exits",
    "plot_front",
    "plot_genotype",
    "print_calibration",
    "print_device",
    "print_devices",
    "print_result",
]
