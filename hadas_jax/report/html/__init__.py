"""The report of runs as one HTML page, with PNG and CSV versions of its plots."""

from hadas_jax.report.html.content import MOST_RUNS, report_content
from hadas_jax.report.html.page import render_page
from hadas_jax.report.html.pictures import draw_plots
from hadas_jax.report.html.record import RunRecord, read_record
from hadas_jax.report.html.tables import plot_tables, write_tables

__all__ = [
    "MOST_RUNS",
    "RunRecord",
    "draw_plots",
    "plot_tables",
    "read_record",
    "render_page",
    "report_content",
    "write_tables",
]
