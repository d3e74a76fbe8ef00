"""Networks of the DARTS space as PNGs, drawn from the tables of a report."""

from itertools import groupby

import numpy as np
from matplotlib.figure import Figure

from hadas_jax.report.genotype_plot import draw_cell
from hadas_jax.report.html.tables import Rows
from hadas_jax.spaces.darts import CELLS, OPERATIONS
from hadas_jax.spaces.genotypes import cell_graph, parse_genotype


def draw_cells(rows: Rows) -> Figure:
    """Draws both cells of every network.

    Args:
      rows: of the table `networks`.
    """
    figure = Figure(figsize=(12, 3.6 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
        for axis, cell in zip(axes, CELLS, strict=True):
            draw_cell(axis, cell_graph(parse_genotype(row["genotype"]), cell))
            axis.set_title(f"{row['run']}: {cell} cell", loc="left", fontsize=9)
    return figure


def draw_alpha(rows: Rows) -> Figure:
    """Draws the share of each operation on each edge, with rings on those that the network has.

    Args:
      rows: of the table `alpha`.
    """
    maps = [(where, list(own)) for where, own in groupby(rows, lambda row: (row["run"], row["cell"]))]
    figure = Figure(figsize=(12, 2.5 * len(maps)), layout="constrained")
    for axis, ((run, cell), own) in zip(
        figure.subplots(-(-len(maps) // 2), 2, squeeze=False).ravel(), maps, strict=True
    ):
        shares = np.array([row["share"] for row in own]).reshape(-1, len(OPERATIONS))
        image = axis.imshow(shares, cmap="Blues", aspect="auto")
        kept = [divmod(k, len(OPERATIONS)) for k, row in enumerate(own) if row["is_kept"]]
        axis.plot([c for _, c in kept], [r for r, _ in kept], "o", ms=9, mfc="none", mec="#c2470b", mew=2)
        axis.set_xticks(range(len(OPERATIONS)), OPERATIONS, rotation=30, ha="right", fontsize=7)
        axis.set_yticks(range(len(shares)), [row["edge"] for row in own[:: len(OPERATIONS)]], fontsize=7)
        axis.set_title(f"{run}: {cell} cell", loc="left", fontsize=9)
        figure.colorbar(image, ax=axis, format="{x:.1f} %", shrink=0.9)
    return figure
