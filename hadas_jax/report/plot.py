"""The front as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hadas_jax.methods.results import Design, Result
from hadas_jax.report.picture_file import save_picture

_STYLES = {"ideal": ("tab:blue", "o"), "deployable": ("tab:orange", "s")}
_LIMIT: dict[str, Any] = {"color": "tab:red", "linewidth": 0.8, "linestyle": "--"}


def plot_front(result: Result, path: Path) -> None:
    """Draws accuracy over energy and over latency, on the test split, as a PNG; limits of the search as thin lines.

    Args:
      result: of a run.
      path: of the picture.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    limits = result.limits
    for axis, quantity, label, most in (
        (axes[0], "energy_j", "energy per sample (mJ)", limits.max_energy_mj),
        (axes[1], "latency_s", "latency per sample (ms)", limits.max_latency_ms),
    ):
        for policy, (colour, marker) in _STYLES.items():
            designs = result.front(policy)
            axis.scatter(
                [1e3 * getattr(d.test[policy], quantity) for d in designs],
                [100 * d.test[policy].accuracy for d in designs],
                s=22,
                c=colour,
                marker=marker,
                alpha=0.75,
                linewidths=0,
                label=f"exits + DVFS, {policy}",
            )
        static = _static(result)
        axis.scatter(
            [1e3 * getattr(d.static_test, quantity) for d in static],
            [100 * d.static_test.accuracy for d in static],
            s=46,
            c="black",
            marker="^",
            label="static, default clocks",
        )
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
    save_picture(figure, path)


def _static(result: Result) -> list[Design]:
    """Returns the static networks of the levels, each once."""
    return list({level.static.genome: level.static for level in result.levels}.values())
