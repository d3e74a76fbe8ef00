"""Networks of the DARTS space as pictures of their cells, and how near a predictor of their throughput comes.

The layout of a cell is in points (x, y), x to the right from -0.7 to 9.5, y up from -2.5 to 2.5, whatever draws it. An
edge is a quadratic Bezier curve.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from rich.console import Console
from rich.table import Table

from hadas_jax.methods.eh_dnas import DnasResult
from hadas_jax.methods.eh_dnas.retrain import RetrainResult
from hadas_jax.report.console import megahertz, new_table
from hadas_jax.report.pictures import compare_on_equal_axes, new_figure, save_picture
from hadas_jax.spaces.darts_costs import PricedNetworks
from hadas_jax.spaces.genotypes import CellGraph, Genotype
from hw_models.predictors import FittedPredictor

Point = tuple[float, float]
LEFT, RIGHT, TOP = -0.7, 9.5, 2.5
# The two inputs, the four nodes and the output.
_PLACES = np.array([(0, 1.9), (0, -1.9), (1.5, 0.1), (3.6, 1.4), (5.2, -1.5), (7.0, 1.0), (8.8, -0.2)])
_BEND = 0.18
# Where on an edge its label may stand, the best place first: nearer to its end, where edges part.
_ALONG = (0.62, 0.5, 0.74, 0.4)
_LABEL, _NODE = np.array([1.7, 0.34]), np.array([1.1, 0.45])  # room of a label beside another one, and beside a node
_COLOURS = {"max": "#8c6bb1", "avg": "#9ebcda", "skip": "#969696", "sep": "#d95f0e", "dil": "#31a354"}


@dataclass(frozen=True)
class _Arrow:
    """An edge of a cell.

    Attributes:
        start: Where the curve starts.
        control: The control point of the curve.
        end: Where the curve ends.
        label: Where its operation is written.
        bend: Distance of `control` from the middle, in lengths of the edge, to the right of its way.
        operation: Empty where nodes are concatenated.
    """

    start: Point
    control: Point
    end: Point
    label: Point
    bend: float
    operation: str

    @property
    def kind(self) -> str:
        """The kind of the operation: max, avg, skip, sep, dil; empty where there is none."""
        return self.operation.partition("_")[0]


def cell_layout(graph: CellGraph) -> tuple[dict[str, Point], list[_Arrow]]:
    """Returns where each node of a cell stands, by its name, and its edges; they bend to both sides in turn."""
    edges: list[_Arrow] = []
    for k, (first, last, operation) in enumerate(graph.edges):
        start, end, bend = _PLACES[first], _PLACES[last], _BEND if k % 2 else -_BEND
        side = bend * np.array([end[1] - start[1], start[0] - end[0]])
        points = [start + t * (end - start) + 2 * t * (1 - t) * side for t in _ALONG]
        label = max(points, key=lambda point: _room(point, [arrow.label for arrow in edges if arrow.operation]))
        curve = (_point(start), _point((start + end) / 2 + side), _point(end))
        edges.append(_Arrow(*curve, _point(label), bend, operation))
    return {name: _point(place) for name, place in zip(graph.nodes, _PLACES, strict=True)}, edges


def _point(values: np.ndarray) -> Point:
    return float(values[0]), float(values[1])


def _room(point: np.ndarray, labels: list[Point]) -> float:
    """How free a point is of labels and nodes; 1: entirely."""
    near = [np.max(np.abs(point - label) / _LABEL) for label in labels]
    near += [np.max(np.abs(point - node) / _NODE) for node in _PLACES]
    return min(1.0, *near)


def plot_genotype(genotype: Genotype, path: Path) -> None:
    """Draws the normal and the reduce cell as a PNG.

    Args:
        genotype: The genotype.
        path: Where the picture goes.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure, axes = new_figure((9, 8), 2)
    for (axis,), cell in zip(axes, ("normal", "reduce"), strict=True):
        draw_cell(axis, genotype.graph(cell))
        axis.set_title(f"{cell} cell", loc="left", fontsize=11)
    save_picture(figure, path)


def draw_cell(axis: Axes, graph: CellGraph) -> None:
    """Draws one cell.

    Args:
        axis: The axes to draw in.
        graph: The cell.
    """
    label = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    places, edges = cell_layout(graph)
    for edge in edges:
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
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "black"}
        axis.text(x, y, f"${name}$", ha="center", va="center", fontsize=10, bbox=box, zorder=5)
    axis.set_xlim(LEFT, RIGHT)
    axis.set_ylim(-TOP, TOP)
    # Edges bend by screen distances, labels by those of the data.
    axis.set_aspect("equal")
    axis.axis("off")


def print_held_out(fitted: FittedPredictor, console: Console, *, picture: Path) -> None:
    """Prints the errors on networks left out, and draws predicted against true throughput.

    Args:
        fitted: The predictor and its errors.
        console: The console.
        picture: PNG file for the picture.

    Raises:
        ValueError: The picture cannot be written.
    """
    _plot_held_out(fitted, picture)
    errors, notes = fitted.held_out, fitted.predictor.notes
    title = f"{fitted.predictor.kind}, {notes.paradigm}: {len(errors.actual):,} networks left out"
    table = new_table(title, "mean error", "median", "95 of 100 below", "Kendall tau", names=0)
    shares = (errors.mean, errors.median, errors.percentile_95)
    table.add_row(*(f"{share:.3%}" for share in shares), f"{errors.kendall_tau:.4f}")
    console.print(table)


def _plot_held_out(fitted: FittedPredictor, path: Path) -> None:
    errors, notes = fitted.held_out, fitted.predictor.notes
    figure, [[axis]] = new_figure((6.2, 5.4))
    both = np.concatenate([errors.actual, errors.predicted])
    bins = np.geomspace(both.min() * 0.97, both.max() * 1.03, 121)
    counts, _, _ = np.histogram2d(errors.actual, errors.predicted, bins=bins)
    image = axis.pcolormesh(bins, bins, np.ma.masked_equal(counts.T, 0), norm="log", cmap="viridis")
    compare_on_equal_axes(axis, both, below=0.97, above=1.03)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))
    axis.set_xlabel("true images/s")
    axis.set_ylabel("predicted images/s")
    title = f"{fitted.predictor.kind}, {notes.paradigm} on {notes.fpga}: {errors.mean:.2%} mean error"
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="networks", shrink=0.8)
    save_picture(figure, path)


def cost_table(result: DnasResult, *, has_budgets: bool) -> Table:
    """Returns what the network of a search costs, and whether it keeps its budgets."""
    headings = ("images/s", "ms per image", "mJ per image", "clocks (MHz)", "budgets")
    table = new_table(f"{result.code} on the {result.hardware}", *headings, names=0)
    table.add_row(
        f"{result.images_per_s:,.1f}",
        f"{1e3 / result.images_per_s:.4g}" if result.images_per_s > 0 else "inf",
        "-" if result.energy_mj is None else f"{result.energy_mj:.4g}",
        "-" if result.clocks_mhz is None else megahertz(result.clocks_mhz),
        "-" if not has_budgets else "kept" if result.within_budgets else "not kept",
    )
    return table


def retrained_table(result: RetrainResult) -> Table:
    """Returns accuracy and size of a retrained network."""
    table = new_table(result.code, "validation", "test", "parameters", "MMACs", names=0)
    accuracies = (f"{100 * share:.2f} %" for share in (result.validation_accuracy, result.test_accuracy))
    table.add_row(*accuracies, f"{result.parameters:,}", f"{result.macs / 1e6:,.2f}")
    return table


def sample_table(priced: PricedNetworks) -> Table:
    """Returns how the throughputs of a data set are spread, by paradigm."""
    title = f"{len(priced.codes):,} networks on {priced.fpga}, images/s"
    table = new_table(title, "paradigm", "mean", "spread", "lowest", "highest", "do not fit")
    for name, column in priced.throughputs.items():
        found = column[column > 0].astype(float)
        values = (found.mean(), found.std(), found.min(), found.max()) if len(found) else (float("nan"),) * 4
        shown = f"{name}, {priced.table} table" if name == "generic" else name
        table.add_row(shown, *(f"{value:,.1f}" for value in values), f"{len(column) - len(found):,}")
    return table
