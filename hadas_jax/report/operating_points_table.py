"""The operating points of a selected network as tables."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.operating_points import OperatingPoints, Point

_MOST = 12  # rows of a staircase that are printed


def print_operating_points(
    table: OperatingPoints, *, deadlines_s: Sequence[float], power_caps_w: Sequence[float], console: Console
) -> None:
    """Prints the best points for some deadlines and power caps, or some of all steps where none are asked for.

    Args:
      table: of a network.
      deadlines_s: asked for.
      power_caps_w: asked for.
      console: to print on.
    """
    asks_nothing = not deadlines_s and not power_caps_w
    if deadlines_s or asks_nothing:
        steps = _spread(table.deadlines)
        rows = [(most, table.by_deadline(most)) for most in deadlines_s or map(table.time, steps)]
        shown = [(f"{most * 1e3:.4g}", point) for most, point in rows]
        title = f"Least energy for a deadline of the {table.of} latency"
        console.print(_table(title, "deadline\nms", shown))
    if power_caps_w or asks_nothing:
        rows = [(most, table.by_power(most)) for most in power_caps_w or [p.power_w for p in _spread(table.power_caps)]]
        console.print(
            _table("Least latency for a cap on the mean power", "cap\nW", [(f"{most:.4g}", p) for most, p in rows])
        )
    console.print(
        f"Of {table.judged:,} operating points {len(table.deadlines)} are the best for some deadline and "
        f"{len(table.power_caps)} for some power cap. At the clocks of the network: "
        f"{table.selected.latency_s * 1e3:.3g} ms, {table.selected.energy_j * 1e3:.3g} mJ, "
        f"{table.selected.power_w:.3g} W.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )


def _table(title: str, bound: str, rows: Sequence[tuple[str, Point | None]]) -> Table:
    table = Table(title=title, title_style="bold")
    headings = ("core\nMHz", "memory\nMHz", "host\nMHz", "mean\nms", "longest\nms", "energy\nmJ", "power\nW")
    for heading in (bound, *headings):
        table.add_column(heading, justify="right")
    for asked, point in rows:
        table.add_row(asked, *(("none",) if point is None else _cells(point)))
    return table


def _cells(point: Point) -> tuple[str, ...]:
    costs = (point.latency_s * 1e3, point.longest_s * 1e3, point.energy_j * 1e3, point.power_w)
    return (*(f"{mhz:.5g}" for mhz in point.clocks_mhz.values()), *(f"{cost:.4g}" for cost in costs))


def _spread(points: Sequence[Point]) -> list[Point]:
    """Some of a staircase's steps, both ends among them."""
    rows = np.unique(np.linspace(0, len(points) - 1, _MOST).round().astype(int))
    return [points[row] for row in rows]
