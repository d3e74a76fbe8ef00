"""Tables and pictures of predictors: how near they come on networks left out of the fit."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.table import Table

from hadas_jax.report.picture_file import save_picture
from hw_models.predictors import FittedPredictor


def held_out_table(fitted: FittedPredictor) -> Table:
    """Returns the errors on networks left out."""
    errors, notes = fitted.held_out, fitted.predictor.notes
    table = Table(title=f"{fitted.predictor.kind}, {notes.paradigm}: {len(errors.actual):,} networks left out")
    for heading in ("mean error", "median", "95 of 100 below", "Kendall tau"):
        table.add_column(heading, justify="right")
    shares = (errors.mean, errors.median, errors.percentile_95)
    table.add_row(*(f"{share:.3%}" for share in shares), f"{errors.kendall_tau:.4f}")
    return table


def plot_held_out(fitted: FittedPredictor, path: Path) -> None:
    """Draws predicted against true throughput of networks left out as a PNG.

    Args:
        fitted: The predictor and its errors.
        path: Of the picture.

    Raises:
        ValueError: The picture cannot be written.
    """
    errors, notes = fitted.held_out, fitted.predictor.notes
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axis = figure.subplots()
    both = np.concatenate([errors.actual, errors.predicted])
    ends = (both.min() * 0.97, both.max() * 1.03)
    bins = np.geomspace(*ends, 121)
    counts, _, _ = np.histogram2d(errors.actual, errors.predicted, bins=bins)
    image = axis.pcolormesh(bins, bins, np.ma.masked_equal(counts.T, 0), norm="log", cmap="viridis")
    axis.plot(ends, ends, color="black", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))
        scale.set_minor_formatter("{x:g}")
    axis.tick_params(which="both", labelsize=7)
    axis.set_xlabel("true images/s")
    axis.set_ylabel("predicted images/s")
    title = f"{fitted.predictor.kind}, {notes.paradigm} on {notes.fpga}: {errors.mean:.2%} mean error"
    axis.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axis, label="networks", shrink=0.8)
    save_picture(figure, path)
