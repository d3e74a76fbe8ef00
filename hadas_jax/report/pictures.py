"""Pictures: figures to draw in, the ticks of their axes, and their files."""

import io
from pathlib import Path
from typing import Any

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


def save_picture(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all.

    Raises:
        ValueError: The picture cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_whole(path, content.getvalue())
