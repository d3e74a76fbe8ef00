"""Search throughput as a table and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from hadas_jax.profiling.throughput import WORK, Throughput
from hadas_jax.report.picture_file import save_picture


def throughput_table(rows: Sequence[Throughput], *, title: str) -> Table:
    """Returns candidates per second by work and population, and how many times as fast as pymoo that is."""
    table = Table(title=title, title_style="bold")
    table.add_column("work", no_wrap=True)
    peers = ("times\npymoo", "times\npymoo\nunique") if any(row.peer_seconds for row in rows) else ()
    for name in ("popu-\nlation", "candidates\nper second", "one call\nms", "first call\ns", *peers):
        table.add_column(name, justify="right", no_wrap=True)
    for work in WORK:
        for row in (row for row in rows if row.work == work):
            own = (_short(row.per_second), f"{1e3 * row.seconds:.3g}", f"{row.first_call_s:.2f}")
            ratios = (_times(row.peer_seconds, row.seconds), _times(row.peer_unique_seconds, row.seconds))
            table.add_row(work, f"{row.population:,}", *own, *(ratios if peers else ()))
        table.add_section()
    return table


def plot_throughput(rows: Sequence[Throughput], path: Path, *, title: str) -> None:
    """Draws candidates per second over population size as a PNG; pymoo's dashed.

    Args:
      rows: of `profiling.throughput.measure_throughput`.
      path: of the picture.
      title: above it.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    for number, work in enumerate(WORK):
        found = [row for row in rows if row.work == work]
        colour = f"C{number}"
        axis.plot([r.population for r in found], [r.per_second for r in found], "o-", c=colour, label=work)
        peers = [(r.population, r.candidates / r.peer_seconds) for r in found if r.peer_seconds]
        if peers:
            axis.plot(*zip(*peers, strict=True), "s--", c=colour, alpha=0.6, label=f"{work}, pymoo")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("population (exit subsets for the inner search)")
    axis.set_ylabel("candidates per second")
    axis.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, ncols=4)
    axis.set_title(title, fontsize=10)
    save_picture(figure, path)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _times(peer: float | None, own: float) -> str:
    return "" if peer is None else f"{peer / own:.1f}"
