"""What people see of a run: progress, the table of savings, the picture of the front."""

from hadas_jax.report.plot import plot_front
from hadas_jax.report.progress import LineProgress, LiveProgress
from hadas_jax.report.table import levels_table, print_result

__all__ = ["LineProgress", "LiveProgress", "levels_table", "plot_front", "print_result"]
