"""What people see: progress, the table of savings, the picture of the front; tables and pictures of devices."""

from hadas_jax.report.device_plots import plot_calibration, plot_device
from hadas_jax.report.device_tables import print_calibration, print_device, print_devices
from hadas_jax.report.exit_plot import plot_exits
from hadas_jax.report.genotype_plot import plot_genotype
from hadas_jax.report.plot import plot_front
from hadas_jax.report.progress import LineProgress, LiveProgress, StepProgress
from hadas_jax.report.table import levels_table, print_result

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
