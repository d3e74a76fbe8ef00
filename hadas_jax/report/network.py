"""A selected network as tables: its blocks with the exits between them, and what happens at each exit.

A backbone as a list of parts, from the images to the classifier, for tables and pictures.

A selected network as a picture: blocks with the exits between them, and who stops where.

An export for people: whether it does what JAX does, and its latency per exit beside the device model.

The operating points of a selected network as tables.

A selection in tables: the choice, its neighbours on the front, and what each limit costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.architecture import Architecture, OnSplit
from hadas_jax.deploy.export import ExportCheck
from hadas_jax.deploy.fine_tune import FineTuneResult
from hadas_jax.deploy.operating_points import ExitUsage, OperatingPoints, Point
from hadas_jax.deploy.select import Selection
from hadas_jax.methods.hadas.results import Design, Performance
from hadas_jax.report.console import say
from hadas_jax.report.pictures import save_picture
from hadas_jax.report.search import saving_text
from hadas_jax.settings import Constraints, DeploymentSettings
from hadas_jax.spaces import Backbone, MBConvSpace
from hw_models.schema import DeviceFile


@dataclass(frozen=True)
class Part:
    """A part of a backbone.

    Attributes:
        name: Stem, stage 1, ..., classifier.
        block: Its number among the backbone's own blocks, from 0; None: stem and classifier.
        size: Height and width of its output in pixels.
        channels: Of its output.
        kernel: Of the depthwise convolution; None: stem and classifier.
        expand: Ratio of middle to input channels; None: stem and classifier.
        ends_stage: It is the last one of its name.
    """

    name: str
    block: int | None
    size: int
    channels: int
    kernel: int | None = None
    expand: int | None = None
    ends_stage: bool = False


def outline(space: MBConvSpace, backbone: Backbone) -> list[Part]:
    """Returns the parts of one concrete backbone of a space."""
    widths, depths, kernels, expands = (
        np.asarray(field).tolist() for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)
    )
    size = _strided(int(backbone.resolution), space.stem_stride)
    parts = [Part("stem", None, size, widths[0], ends_stage=True)]
    for s, stage in enumerate(space.stages):
        size = _strided(size, stage.stride)
        for d in range(depths[s]):
            is_last, block = d == depths[s] - 1, sum(depths[:s]) + d
            parts.append(Part(f"stage {s + 1}", block, size, widths[s + 1], kernels[s], expands[s], is_last))
    return [*parts, Part("classifier", None, 1, space.classes, ends_stage=True)]


def _strided(size: int, stride: int) -> int:
    return (size + stride - 1) // stride


_ENDS = "#d9d9d9"
_STAGES = ("#c6dbef", "#c7e9c0", "#fdd0a2", "#dadaeb", "#fcbba1", "#d4b9da", "#ccece6")
_EXIT: dict[str, Any] = {"boxstyle": "round,pad=0.3", "facecolor": "#fff7bc", "edgecolor": "#d95f0e"}
_SAMPLES, _ENERGY = "tab:blue", "tab:orange"


def plot_architecture(architecture: Architecture, usage: ExitUsage, path: Path) -> None:
    """Draws a network as a PNG: its blocks, exits and clocks, and the shares of samples and energy of every exit.

    Args:
        architecture: The network.
        usage: Of its exits.
        path: Of the picture.

    Raises:
        ValueError: The picture cannot be written.
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


def print_architecture(architecture: Architecture, usage: ExitUsage, console: Console) -> None:
    """Prints a network.

    Args:
        architecture: The network.
        usage: Of its exits, see `hadas_jax.deploy.operating_points`.
        console: To print on.
    """
    device, clocks = architecture.device, architecture.clocks_mhz
    mode = f", power mode {device.power_mode}" if device.power_mode else ""
    for line in (
        f"{architecture.space.name}, {architecture.weights:,} weights, {architecture.space.classes} classes, found by "
        f"the {architecture.found_by} policy",
        f"On {device.file.name} in {device.number_format}{mode}, at core {clocks.core:g}, memory {clocks.memory:g}, "
        f"host {clocks.host:g} MHz",
    ):
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
    console.print(_blocks_table(architecture))
    console.print(exits_table(architecture, usage))
    console.print(_performance_table(architecture))
    test = architecture.test
    tolerance = architecture.origin.settings.get("accuracy_tolerance", DeploymentSettings.accuracy_tolerance)
    text = saving_text(test.deployable, test.static, test.static_dvfs, difference=test.difference, tolerance=tolerance)
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def _blocks_table(architecture: Architecture) -> Table:
    table = Table(title="Network", title_style="bold")
    table.add_column("part")
    for heading in ("block", "map\npixels", "channels", "kernel", "expand"):
        table.add_column(heading, justify="right")
    table.add_column("exit")
    exits = dict(zip(architecture.exits, architecture.thresholds, strict=True))
    for part in outline(architecture.space, architecture.decoded):
        threshold = exits.get(part.block) if part.block is not None else None
        table.add_row(
            part.name,
            "" if part.block is None else str(part.block),
            f"{part.size} x {part.size}",
            str(part.channels),
            "" if part.kernel is None else str(part.kernel),
            "" if part.expand is None else str(part.expand),
            "" if threshold is None else f"if {architecture.policy} ≥ {threshold:.4g}",
            end_section=part.ends_stage,
        )
    return table


def exits_table(architecture: Architecture, usage: ExitUsage) -> Table:
    """Returns a table of who stops where and what that costs, on the selection samples and as deployed."""
    table = Table(title="Exits, as deployed, on the selection samples", title_style="bold")
    table.add_column("stops at")
    for heading in ("threshold", "samples", "latency\nms", "energy\nmJ", "share of\nenergy", "test\nsamples"):
        table.add_column(heading, justify="right")
    names = [f"exit after block {block}" for block in architecture.exits] + ["classifier"]
    thresholds = [f"{threshold:.4g}" for threshold in architecture.thresholds] + [""]
    for k, (name, threshold) in enumerate(zip(names, thresholds, strict=True)):
        table.add_row(
            name,
            threshold,
            f"{usage.shares[k]:.1%}",
            f"{usage.latency_s[k] * 1e3:.3g}",
            f"{usage.energy_j[k] * 1e3:.3g}",
            f"{usage.energy_shares[k]:.1%}",
            f"{architecture.test.shares[k]:.1%}",
        )
    mean = np.asarray(usage.shares) @ np.stack([usage.latency_s, usage.energy_j], axis=1)
    table.add_section()
    table.add_row("mean", "", "", f"{mean[0] * 1e3:.3g}", f"{mean[1] * 1e3:.3g}", "", "")
    return table


def _performance_table(architecture: Architecture) -> Table:
    table = Table(title="Per sample", title_style="bold", box=HORIZONTALS, padding=(0, 1, 0, 0))
    table.add_column("samples")
    table.add_column("network", no_wrap=True)
    for heading in ("accuracy", "latency\nms", "energy\nmJ", "saved\nagainst\nstatic", "saved\nagainst\n+ DVFS"):
        table.add_column(heading, justify="right")
    for name in ("selection", "test"):
        split: OnSplit = getattr(architecture, name)
        for kind in ("deployable", "ideal", "static", "static_dvfs"):
            found: Performance | None = getattr(split, kind)
            if found is None:
                continue
            saved = "" if kind == "static" else f"{found.saving(split.static):.0%}"
            dynamic = kind in ("deployable", "ideal")
            by_clocks = f"{found.saving(split.static_dvfs):.0%}" if split.static_dvfs and dynamic else ""
            shown = (f"{found.accuracy:.2%}", f"{found.latency_s * 1e3:.3g}", f"{found.energy_j * 1e3:.3g}")
            row = (name if kind == "deployable" else "", kind.replace("_dvfs", " + DVFS"))
            table.add_row(*row, *shown, saved, by_clocks)
        table.add_section()
    return table


def print_export(
    check: ExportCheck, manifest: dict[str, Any], *, device: DeviceFile, machine: str, console: Console
) -> None:
    """Prints what an export was found to do.

    Args:
        check: Of the export.
        manifest: Of the export.
        device: Whose model gave the latencies of the manifest.
        machine: That the latencies of the check were measured on, as `hw_models.measuring.machine.Machine.name`.
        console: Where to.
    """
    say(
        console,
        f"{check.images} test images: largest difference to JAX {check.difference:.1e}, relative; "
        f"{check.other_exits} stop elsewhere, {check.other_labels} get another class; accuracy {check.accuracy:.2%}",
    )
    is_own = device.measured_on == machine
    table = Table(title="Latency of one image that stops there")
    headings = ("", "share", f"device model: {device.name}", "measured here", *(["measured / model"] if is_own else []))
    for heading in headings:
        table.add_column(heading, justify="left" if not heading else "right")
    for segment, share, measured in zip(manifest["segments"], check.shares, check.latency_s, strict=True):
        modelled = segment["latency_s"]
        ratio = [f"{measured / modelled:.2f}"] if is_own else []
        table.add_row(segment["name"], f"{share:.1%}", f"{modelled * 1e3:.3f} ms", f"{measured * 1e3:.3f} ms", *ratio)
    console.print(table)
    say(console, comparison(device, machine, runs_as=manifest["format"]))


def comparison(device: DeviceFile, machine: str, *, runs_as: str) -> str:
    """Says in one sentence whether a device model and latencies measured on a machine belong together.

    Args:
        device: Its file.
        machine: That was measured.
        runs_as: Format of the export.
    """
    if device.measured_on == machine:
        runtime = ", and onnxruntime from JAX, which was measured" if runs_as == "onnx" else ""
        return (
            f"{device.name} was fitted to measurements of this machine ({machine}): the ratio is of one call "
            f"for each segment to whole networks, and says by how much the model is off{runtime}."
        )
    own = "the latencies do not compare. hadas devices profile and hadas devices fit make a model of this machine."
    if device.measured_on is not None:
        return f"{device.name} was fitted on {device.measured_on}, this is {machine}: {own}"
    return f"{device.name} is no model of this machine ({machine}): {own}"


_MOST = 12  # rows of a staircase that are printed


def print_operating_points(
    table: OperatingPoints, *, deadlines_s: Sequence[float], power_caps_w: Sequence[float], console: Console
) -> None:
    """Prints the best points for some deadlines and power caps, or some of all steps where none are asked for.

    Args:
        table: Of a network.
        deadlines_s: Asked for.
        power_caps_w: Asked for.
        console: To print on.
    """
    asks_nothing = not deadlines_s and not power_caps_w
    if deadlines_s or asks_nothing:
        steps = _spread(table.deadlines)
        rows = [(most, table.by_deadline(most)) for most in deadlines_s or map(table.time, steps)]
        shown = [(f"{most * 1e3:.4g}", point) for most, point in rows]
        title = f"Least energy for a deadline of the {table.of} latency"
        console.print(_table(title, "deadline\nms", shown))
    if power_caps_w or asks_nothing:
        rows = [(most, table.by_power(most)) for most in power_caps_w or [p.power_w for p in _spread(table.power_caps)]]
        console.print(
            _table("Least latency for a cap on the mean power", "cap\nW", [(f"{most:.4g}", p) for most, p in rows])
        )
    console.print(
        f"Of {table.judged:,} operating points {len(table.deadlines)} are the best for some deadline and "
        f"{len(table.power_caps)} for some power cap. At the clocks of the network: "
        f"{table.selected.latency_s * 1e3:.3g} ms, {table.selected.energy_j * 1e3:.3g} mJ, "
        f"{table.selected.power_w:.3g} W.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )


def _table(title: str, bound: str, rows: Sequence[tuple[str, Point | None]]) -> Table:
    table = Table(title=title, title_style="bold")
    headings = ("core\nMHz", "memory\nMHz", "host\nMHz", "mean\nms", "longest\nms", "energy\nmJ", "power\nW")
    for heading in (bound, *headings):
        table.add_column(heading, justify="right")
    for asked, point in rows:
        table.add_row(asked, *(("none",) if point is None else _cells(point)))
    return table


def _cells(point: Point) -> tuple[str, ...]:
    costs = (point.latency_s * 1e3, point.longest_s * 1e3, point.energy_j * 1e3, point.power_w)
    return (*(f"{mhz:.5g}" for mhz in point.clocks_mhz.values()), *(f"{cost:.4g}" for cost in costs))


def _spread(points: Sequence[Point]) -> list[Point]:
    """Some of a staircase's steps, both ends among them."""
    rows = np.unique(np.linspace(0, len(points) - 1, _MOST).round().astype(int))
    return [points[row] for row in rows]


_LIMITS = {
    "max_latency_ms": "latency ≤ {:g} ms",
    "max_energy_mj": "energy ≤ {:g} mJ",
    "min_accuracy": "accuracy ≥ {:.4g} %",
    "max_params": "weights ≤ {:,}",
}


def print_selection(
    designs: Sequence[Design],
    selection: Selection,
    *,
    limits: Constraints,
    policy: str,
    console: Console,
    tolerance: float = DeploymentSettings.accuracy_tolerance,
) -> None:
    """Prints a choice.

    Args:
        designs: That it was made among.
        selection: The choice.
        limits: That it keeps, or is the nearest to.
        policy: That designs were judged under.
        console: To print on.
        tolerance: See `hadas_jax.report.search.saving_text`.
    """
    console.print(_designs_table(designs, selection, policy))
    chosen = designs[selection.chosen]
    text = saving_text(
        chosen.test[policy],
        chosen.static_test,
        chosen.static_dvfs_test,
        difference=chosen.differences[policy],
        tolerance=tolerance,
    )
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)
    if selection.without:
        console.print(_limits_table(designs, selection, limits, policy))


def limit_text(name: str, limits: Constraints) -> str:
    """Returns one limit in words."""
    value = getattr(limits, name)
    return _LIMITS[name].format(100 * value if name == "min_accuracy" else value)


def _designs_table(designs: Sequence[Design], selection: Selection, policy: str) -> Table:
    title = f"Per sample, {policy} policy; chosen on the selection samples"
    table = Table(title=title, title_style="bold", box=HORIZONTALS, padding=(0, 1, 0, 0))
    table.add_column("design", min_width=len("backbone"))
    for name in ("accuracy", "latency\nms", "energy\nmJ", "test\naccuracy", "test\nenergy\nmJ", "exits\nafter"):
        table.add_column(name, justify="right", no_wrap=name != "exits\nafter")
    table.add_column("core memory\nhost MHz", justify="right", min_width=len("highest"))
    rows = {"chosen" if selection.excess == 0 else "nearest": selection.chosen}
    rows |= {f"next {name}": row for name, row in selection.neighbours.items()}
    for name, row in rows.items():
        design = designs[row]
        test = design.test[policy]
        clocks = " ".join(f"{clock:.5g}" for clock in design.clocks_mhz.values())
        exits = " ".join(map(str, design.exits)) or "none"
        shown = (
            *_selection_cells(design.selection[policy]),
            f"{test.accuracy:.2%}",
            f"{test.energy_j * 1e3:.3g}",
            exits,
            clocks,
        )
        table.add_row(name, *shown, style="bold" if row == selection.chosen else None)
    chosen = designs[selection.chosen]
    table.add_section()
    by_clocks = " ".join(f"{clock:.5g}" for clock in chosen.static_dvfs_clocks_mhz.values())
    for name, selection_of, test, clocks in (
        ("its static backbone", chosen.static_selection, chosen.static_test, "highest"),
        ("static + DVFS", chosen.static_dvfs_selection, chosen.static_dvfs_test, by_clocks),
    ):
        cells = (*_selection_cells(selection_of), f"{test.accuracy:.2%}", f"{test.energy_j * 1e3:.3g}")
        table.add_row(name, *cells, "none", clocks)
    return table


def _limits_table(designs: Sequence[Design], selection: Selection, limits: Constraints, policy: str) -> Table:
    table = Table(title="Without a limit, the choice would have", title_style="bold")
    table.add_column("without")
    for name in ("accuracy", "latency", "energy"):
        table.add_column(name, justify="right")
    here = designs[selection.chosen].selection[policy]
    for name, row in selection.without.items():
        there = designs[row].selection[policy]
        same = row == selection.chosen
        table.add_row(limit_text(name, limits), *(("no difference", "", "") if same else _differences(here, there)))
    return table


def _selection_cells(found: Performance) -> tuple[str, str, str]:
    return f"{found.accuracy:.2%}", f"{found.latency_s * 1e3:.3g}", f"{found.energy_j * 1e3:.3g}"


def _differences(here: Performance, there: Performance) -> tuple[str, str, str]:
    latency, energy = there.latency_s / here.latency_s - 1, there.energy_j / here.energy_j - 1
    return f"{100 * (there.accuracy - here.accuracy):+.2f} points", f"{latency:+.1%}", f"{energy:+.1%}"


def fine_tune_table(result: FineTuneResult) -> Table:
    """Returns what a network does on the test split before and after its fine-tuning."""
    table = Table(title="Test split, as deployed")
    for heading in ("", "accuracy", "latency ms", "energy mJ", "stop at each exit", "classifier alone"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in (("before", result.before), ("after", result.after)):
        deployed = found.deployable
        shares = " ".join(f"{share:.1%}" for share in found.shares)
        costs = (f"{deployed.latency_s * 1e3:.3f}", f"{deployed.energy_j * 1e3:.3g}")
        table.add_row(name, f"{deployed.accuracy:.2%}", *costs, shares, f"{found.static.accuracy:.2%}")
    return table
