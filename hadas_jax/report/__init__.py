"""What people see: progress, the table of savings, the picture of the front; tables and pictures of devices.

Names are imported when they are first asked for, so that printing a line does not import JAX and Matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("console", "darts", "devices", "search"):
            found = importlib.import_module(f"{__name__}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
