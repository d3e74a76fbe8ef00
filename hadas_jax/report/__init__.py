"""What people see: progress, tables, pictures of fronts, networks and devices, and a page about runs."""

from hadas_jax.report.console import LineProgress, LiveProgress, StepProgress

__all__ = ["LineProgress", "LiveProgress", "StepProgress"]
