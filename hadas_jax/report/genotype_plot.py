"""Pictures of genotypes: both cells as graphs."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hadas_jax.spaces.genotypes import CellGraph, Genotype, cell_graph

_COLOURS = {"max": "#8c6bb1", "avg": "#9ebcda", "skip": "#969696", "sep": "#d95f0e", "dil": "#31a354"}
# Column and row of the two inputs, the four nodes and the output.
_PLACES = np.array([(0, 1.9), (0, -1.9), (1.5, 0.1), (3.6, 1.4), (5.2, -1.5), (7.0, 1.0), (8.8, -0.2)])

# Where on an edge its label stands: nearer to its end, where edges part.
_ALONG = 0.62


def plot_genotype(genotype: Genotype, path: Path) -> None:
    """Draws the normal and the reduce cell as a PNG.

    Args:
        genotype: To draw.
        path: Of the picture.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    for axis, cell in zip(figure.subplots(2, 1), ("normal", "reduce"), strict=True):
        _draw(axis, cell_graph(genotype, cell))
        axis.set_title(f"{cell} cell", loc="left", fontsize=11)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise ValueError(f"{path}: expected a picture that can be written, got: {error.strerror}") from None


def _draw(axis: Axes, graph: CellGraph) -> None:
    label = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    for k, (start, end, operation) in enumerate(graph.edges):
        colour = _COLOURS.get(operation.split("_")[0], "#cccccc")
        bend = 0.18 if k % 2 else -0.18
        arrow = {
            "arrowstyle": "-|>",
            "color": colour,
            "connectionstyle": f"arc3,rad={bend}",
            "shrinkA": 15,
            "shrinkB": 15,
        }
        axis.annotate("", _PLACES[end], _PLACES[start], arrowprops=arrow)
        if operation:
            along = _PLACES[end] - _PLACES[start]
            bow = 2 * _ALONG * (1 - _ALONG) * bend * np.array([along[1], -along[0]])
            x, y = _PLACES[start] + _ALONG * along + bow
            axis.text(x, y, operation, fontsize=7.5, ha="center", va="center", color=colour, bbox=label)
    for name, (x, y) in zip(graph.nodes, _PLACES, strict=True):
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}
        axis.text(x, y, f"${name}$", ha="center", va="center", fontsize=10, bbox=box, zorder=5)
    axis.set_xlim(-0.7, 9.5)
    axis.set_ylim(-2.5, 2.5)
    # Edges bend by screen distances, labels by those of the data.
    axis.set_aspect("equal")
    axis.axis("off")
