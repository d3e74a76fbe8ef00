"""A selected network as a picture: blocks with the exits between them, and who stops where."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.deploy.exit_usage import ExitUsage
from hadas_jax.deploy.outline import Part, outline
from hadas_jax.report.picture_file import save_picture

_ENDS = "#d9d9d9"
_STAGES = ("#c6dbef", "#c7e9c0", "#fdd0a2", "#dadaeb", "#fcbba1", "#d4b9da", "#ccece6")
_EXIT: dict[str, Any] = {"boxstyle": "round,pad=0.3", "facecolor": "#fff7bc", "edgecolor": "#d95f0e"}
_SAMPLES, _ENERGY = "tab:blue", "tab:orange"


def plot_architecture(architecture: Architecture, usage: ExitUsage, path: Path) -> None:
    """Draws a network as a PNG: its blocks, exits and clocks, and the shares of samples and energy of every exit.

    Args:
      architecture: the network.
      usage: of its exits.
      path: of the picture.

    Raises:
      ValueError: the picture cannot be written.
    """
    parts = outline(architecture.space, architecture.decoded)
    figure = Figure(figsize=(max(9.0, 1.0 + 0.82 * len(parts)), 6.6), layout="constrained")
    chain, bars = figure.subplots(2, 1, gridspec_kw={"height_ratios": (1.15, 1)})
    _draw_chain(chain, parts, architecture, usage)
    _draw_bars(bars, architecture, usage)
    figure.suptitle(_title(architecture), fontsize=10)
    save_picture(figure, path)


def _title(architecture: Architecture) -> str:
    device, clocks, found = architecture.device, architecture.clocks_mhz, architecture.selection
    deployed = found.deployable
    return (
        f"{architecture.space.name} on {device.file.name} ({device.number_format}) at core {clocks.core:g}, memory "
        f"{clocks.memory:g}, host {clocks.host:g} MHz\nas deployed: accuracy {deployed.accuracy:.1%}, "
        f"{deployed.latency_s * 1e3:.3g} ms, {deployed.energy_j * 1e3:.3g} mJ per sample; static at the highest "
        f"clocks: {found.static.accuracy:.1%}, {found.static.latency_s * 1e3:.3g} ms, "
        f"{found.static.energy_j * 1e3:.3g} mJ"
    )


def _draw_chain(axis: Axes, parts: list[Part], architecture: Architecture, usage: ExitUsage) -> None:
    largest = parts[0].size
    number = {block: k for k, block in enumerate(architecture.exits)}
    stages = list(dict.fromkeys(part.name for part in parts if part.block is not None))
    for x, part in enumerate(parts):
        half = 0.32 + 0.4 * part.size / largest
        colour = _ENDS if part.block is None else _STAGES[stages.index(part.name) % len(_STAGES)]
        box = FancyBboxPatch((x - 0.36, -half), 0.72, 2 * half, boxstyle="round,pad=0.02", facecolor=colour)
        axis.add_patch(box)
        within = part.name if part.block is None else f"k{part.kernel} e{part.expand}"
        axis.text(x, 0, f"{within}\n{part.channels}", ha="center", va="center", fontsize=8)
        axis.text(x, -0.86, f"{part.size}x{part.size}", ha="center", va="top", fontsize=7, color="#555555")
        if x:
            axis.annotate("", (x - 0.38, 0), (x - 0.62, 0), arrowprops={"arrowstyle": "-|>", "color": "black"})
        if part.block in number:
            k = number[part.block]
            above = f"exit {part.block}\n≥ {architecture.thresholds[k]:.3g}\n{usage.shares[k]:.0%}"
            arrow = {"arrowstyle": "<|-", "color": "#d95f0e"}  # drawn from the label down
            axis.annotate(
                above, (x, half), (x, 1.5), ha="center", va="center", fontsize=8, bbox=_EXIT, arrowprops=arrow
            )
    for name in stages:
        places = [x for x, part in enumerate(parts) if part.name == name]
        axis.text(sum(places) / len(places), -1.12, name, ha="center", va="top", fontsize=8)
    axis.set_xlim(-0.7, len(parts) - 0.3)
    axis.set_ylim(-1.4, 2.0)
    axis.axis("off")
    axis.set_title("kernel, expand ratio, channels; below, the map in pixels", loc="left", fontsize=8)


def _draw_bars(axis: Axes, architecture: Architecture, usage: ExitUsage) -> None:
    names = [f"exit {block}" for block in architecture.exits] + ["classifier"]
    places = np.arange(len(names))
    for shift, shares, colour, label in (
        (-0.2, usage.shares, _SAMPLES, "samples that stop there"),
        (0.2, usage.energy_shares, _ENERGY, "energy, spent on them"),
    ):
        drawn = axis.bar(places + shift, 100 * shares, 0.38, color=colour, label=label)
        axis.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    costs = [f"{ms * 1e3:.3g} ms, {mj * 1e3:.3g} mJ" for ms, mj in zip(usage.latency_s, usage.energy_j, strict=True)]
    axis.set_xticks(places, [f"{name}\n{cost}" for name, cost in zip(names, costs, strict=True)], fontsize=8)
    axis.set_axisbelow(True)
    axis.set_ylabel("share (%)")
    axis.set_ylim(0, 112 * float(max(usage.shares.max(), usage.energy_shares.max())))
    axis.grid(visible=True, axis="y", alpha=0.25)
    axis.legend(fontsize=8)
