"""Accuracy along the depth as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hadas_jax.methods.train import ExitAccuracies
from hadas_jax.report.picture_file import save_picture


def plot_exits(accuracies: Sequence[ExitAccuracies], path: Path) -> None:
    """Draws the test accuracy of every exit over its block, and of the classifier behind the last one, as a PNG.

    Args:
      accuracies: of some backbones.
      path: of the picture.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for each in accuracies:
        blocks, shares = list(each.blocks), [100 * share for share in each.exits]
        last = blocks[-1] + 1 if blocks else 0
        (line,) = axis.plot(blocks, shares, marker="o", markersize=4, label=each.backbone)
        axis.plot([last], [100 * each.final], marker="*", markersize=12, color=line.get_color(), linestyle="none")
    axis.set_xlabel("block that the exit follows; star: the classifier")
    axis.set_ylabel("test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, alpha=0.25)
    axis.legend(loc="lower right")
    save_picture(figure, path)
