"""The front as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hadas_jax.evaluation import accuracy_interval
from hadas_jax.methods.results import Performance, Result
from hadas_jax.report.picture_file import save_picture
from hadas_jax.report.selection_front import drawn

_STYLES = {"ideal": ("tab:blue", "o"), "deployable": ("tab:orange", "s")}
_LIMIT: dict[str, Any] = {"color": "tab:red", "linewidth": 0.8, "linestyle": "--"}
_PALE = 0.25


def plot_front(result: Result, path: Path) -> None:
    """Draws accuracy over energy and over latency, on the test split, as a PNG; limits of the search as thin lines.

    Args:
      result: of a run.
      path: of the picture.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    limits = result.limits
    for axis, cost, label, most in (
        (axes[0], "energy_j", "energy per sample (mJ)", limits.max_energy_mj),
        (axes[1], "latency_s", "latency per sample (ms)", limits.max_latency_ms),
    ):
        for policy, (colour, marker) in _STYLES.items():
            _draw_front(axis, result, policy, cost, {"color": colour, "marker": marker})
        static = [level.static.static_test for level in result.levels]
        by_clocks = [level.static_dvfs.test["ideal"] for level in result.levels]
        for found, label_of, face in (
            (static, "static, default clocks", "black"),
            (by_clocks, "static + DVFS", "white"),
        ):
            each = list(dict.fromkeys(found))
            _intervals(axis, each, result.test_images, cost, "black")
            style = {"marker": "^", "s": 46, "c": face, "edgecolors": "black", "zorder": 4}
            axis.scatter(_costs(each, cost), _accuracies(each), label=label_of, **style)
        if most is not None:
            axis.axvline(most, **_LIMIT)
        if limits.min_accuracy is not None:
            axis.axhline(100 * limits.min_accuracy, **_LIMIT)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:.2g}")
        axis.tick_params(axis="x", which="both", labelsize=8)
        axis.set_xlabel(label)
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle("Dynamic networks found: exits and clocks against static networks")
    figure.supxlabel(
        "Lines join the front of the samples that networks were chosen on, in its order; pale: not on it, or behind "
        f"another one of it on the test split. Bars: 95 % intervals of accuracy on {result.test_images:,} test images.",
        fontsize=8,
    )
    save_picture(figure, path)


def _draw_front(axis: Axes, result: Result, policy: str, cost: str, style: dict[str, Any]) -> None:
    """All designs of a front as pale points; its members in this picture joined, in full colour where they hold."""
    designs = result.front(policy)
    test = [design.test[policy] for design in designs]
    members, holding = ([test[row] for row in rows] for rows in drawn(designs, policy, cost))
    axis.plot(_costs(members, cost), _accuracies(members), color=style["color"], linewidth=1, alpha=0.6)
    _intervals(axis, holding, result.test_images, cost, style["color"])
    for found, shown in ((test, {"alpha": _PALE}), (holding, {"label": f"exits + DVFS, {policy}", "zorder": 3})):
        axis.scatter(_costs(found, cost), _accuracies(found), s=22, linewidths=0, **style, **shown)


def _intervals(axis: Axes, found: Sequence[Performance], images: int, cost: str, colour: str) -> None:
    """Thin bars of the exact 95 % intervals of accuracies."""
    ends = [accuracy_interval(round(each.accuracy * images), images=images) for each in found]
    low, high = 100 * np.array(ends).reshape(-1, 2).T
    axis.vlines(_costs(found, cost), low, high, color=colour, linewidth=0.6, alpha=0.5)


def _costs(found: Sequence[Performance], cost: str) -> list[float]:
    return [1e3 * getattr(each, cost) for each in found]


def _accuracies(found: Sequence[Performance]) -> list[float]:
    return [100 * each.accuracy for each in found]
