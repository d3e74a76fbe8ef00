"""Pictures: figures to draw in, the ticks of their axes, and their files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from hw_models.files import write_whole


def new_figure(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Returns a figure and its axes.

    Args:
        size: Width and height in inches.
        rows: Rows of axes.
        columns: Columns of axes.
        options: Further options of `Figure.subplots`.

    Returns:
        The figure, and an array of axes [rows, columns].
    """
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def spread_rows(count: int, most: int) -> np.ndarray:
    """Returns up to `most` of `count` rows, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def write_ticks_in_full(axis: Axis, *, minor: str = "{x:g}", size: float = 7) -> None:
    """Writes the ticks of a logarithmic axis as numbers, without powers of ten.

    Args:
        axis: The axis.
        minor: The form of the numbers between powers of ten.
        size: The size of the font.
    """
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(minor)
    axis.set_tick_params(which="both", labelsize=size)


def compare_on_equal_axes(axis: Axes, values: np.ndarray, *, below: float, above: float) -> None:
    """Gives both axes one logarithmic range around some values, and draws the line where both are equal.

    Args:
        axis: The axes.
        values: What the range holds.
        below: The lower end of the range, in units of the least value.
        above: The upper end, in units of the largest.
    """
    ends = (values.min() * below, values.max() * above)
    axis.plot(ends, ends, color="black", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for scale in (axis.xaxis, axis.yaxis):
        write_ticks_in_full(scale)


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Raises:
        ValueError: The picture cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_whole(path, content.getvalue())
