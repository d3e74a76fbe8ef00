"""Pictures of genotypes: both cells as graphs."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hadas_jax.report.cell_layout import LEFT, RIGHT, TOP, arrows, node_places
from hadas_jax.report.picture_file import save_picture
from hadas_jax.spaces.genotypes import CellGraph, Genotype, cell_graph

_COLOURS = {"max": "#8c6bb1", "avg": "#9ebcda", "skip": "#969696", "sep": "#d95f0e", "dil": "#31a354"}


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
        draw_cell(axis, cell_graph(genotype, cell))
        axis.set_title(f"{cell} cell", loc="left", fontsize=11)
    save_picture(figure, path)


def draw_cell(axis: Axes, graph: CellGraph) -> None:
    """Draws one cell.

    Args:
        axis: To draw on.
        graph: The cell.
    """
    label = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    for edge in arrows(graph):
        colour = _COLOURS.get(edge.kind, "#cccccc")
        arrow = {
            "arrowstyle": "-|>",
            "color": colour,
            "connectionstyle": f"arc3,rad={edge.bend}",
            "shrinkA": 15,
            "shrinkB": 15,
        }
        axis.annotate("", edge.end, edge.start, arrowprops=arrow)
        if edge.operation:
            x, y = edge.label
            axis.text(x, y, edge.operation, fontsize=7.5, ha="center", va="center", color=colour, bbox=label)
    for name, (x, y) in node_places(graph).items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}
        axis.text(x, y, f"${name}$", ha="center", va="center", fontsize=10, bbox=box, zorder=5)
    axis.set_xlim(LEFT, RIGHT)
    axis.set_ylim(-TOP, TOP)
    # Edges bend by screen distances, labels by those of the data.
    axis.set_aspect("equal")
    axis.axis("off")
