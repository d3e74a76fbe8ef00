"""A selected network for people: blocks and exits, who stops where at what cost, its export, and how it was chosen."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.architecture import Architecture, SplitMetrics
from hadas_jax.deploy.export import ExportCheck
from hadas_jax.deploy.fine_tune import FineTuneResult
from hadas_jax.deploy.operating_points import ExitCosts, OperatingPoints, PointCosts
from hadas_jax.deploy.robustness import UnderCorruption
from hadas_jax.deploy.select import Selection
from hadas_jax.evaluation import Difference
from hadas_jax.evaluation.early_exit import percentile_exit
from hadas_jax.methods.hadas.results import NOT_SHOWN, SHOWN, Design, Performance
from hadas_jax.report.console import megahertz, milli, new_table, print_line
from hadas_jax.report.pictures import new_figure, save_picture, spread_rows
from hadas_jax.report.search import constraint_texts, difference_text
from hadas_jax.settings import Constraints, DeploymentSettings
from hadas_jax.spaces import AnySpace, Backbone, GivenNetwork
from hw_models import NumberFormat
from hw_models.schema import DeviceFile

_ENDS = "#d9d9d9"
_STAGES = ("#c6dbef", "#c7e9c0", "#fdd0a2", "#dadaeb", "#fcbba1", "#d4b9da", "#ccece6")
_EXIT: dict[str, Any] = {"boxstyle": "round,pad=0.3", "facecolor": "#fff7bc", "edgecolor": "#d95f0e"}
_MOST_STEPS = 12  # of a staircase that are printed


class _Part(NamedTuple):
    """A part of a backbone.

    Attributes:
        name: Stem, stage 1, ..., classifier.
        size: Height and width of its output in pixels.
        channels: The channels of its output.
        block: Its number among the backbone's own blocks, from 0; None: stem and classifier.
        kernel: The size of the depthwise convolution of a block.
        expand: The ratio of middle to input channels of a block.
        ends_stage: Whether it is the last one of its name.
    """

    name: str
    size: int
    channels: int
    block: int | None = None
    kernel: int | None = None
    expand: int | None = None
    ends_stage: bool = True


class _Usage(NamedTuple):
    """How a network uses its K = e + 1 exits at its clocks, as deployed, on the samples that it was selected on.

    Attributes:
        shares: float64[K], the share of samples that stop there.
        latency_s: float64[K], of a sample that stops there.
        energy_j: float64[K], likewise.
        energy_shares: float64[K], the share of all energy that is spent on the samples that stop there.
    """

    shares: np.ndarray
    latency_s: np.ndarray
    energy_j: np.ndarray
    energy_shares: np.ndarray


def _usage(architecture: Architecture) -> _Usage:
    """Computes the usage by the cost model of the network's device."""
    costs = ExitCosts.of(architecture)
    point = costs.selected_point(architecture)
    latency, energy = costs.latency_s[:, point], costs.energy_j[:, point]
    shares = np.asarray(architecture.selection.shares, np.float64)
    return _Usage(shares, latency, energy, shares * energy / np.sum(shares * energy))


def _outline(space: AnySpace, backbone: Backbone) -> list[_Part]:
    """Returns the parts of one concrete backbone of a space, or of a given network between its places for exits."""
    if isinstance(space, GivenNetwork):
        parts = [_Part("images", space.image_size, space.in_channels)]
        for block, (place, (pixels, channels)) in enumerate(zip(space.places, space.maps, strict=True)):
            parts.append(_Part(f"up to {place}", math.isqrt(pixels), channels, block))
        return [*parts, _Part("classifier", 1, space.classes)]
    widths, depths, kernels, expands = (
        np.asarray(field).tolist() for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)
    )
    size, block = -(-int(backbone.resolution) // space.stem_stride), 0
    parts = [_Part("stem", size, widths[0])]
    for s, stage in enumerate(space.stages):
        size = -(-size // stage.stride)
        for d in range(depths[s]):
            is_last = d == depths[s] - 1
            parts.append(_Part(f"stage {s + 1}", size, widths[s + 1], block, kernels[s], expands[s], is_last))
            block += 1
    return [*parts, _Part("classifier", 1, space.classes)]


def _plot_architecture(architecture: Architecture, usage: _Usage, path: Path) -> None:
    """Draws a network as a PNG: its blocks, exits and clocks, and the shares of samples and energy of every exit."""
    parts = _outline(architecture.space, architecture.decoded)
    size = (max(9.0, 1.0 + 0.82 * len(parts)), 6.6)
    figure, [[chain], [bars]] = new_figure(size, 2, gridspec_kw={"height_ratios": (1.15, 1)})
    _draw_chain(chain, parts, architecture, usage)
    _draw_bars(bars, architecture, usage)
    figure.suptitle(_title(architecture), fontsize=10)
    save_picture(figure, path)


def _title(architecture: Architecture) -> str:
    device, clocks, metrics = architecture.device, architecture.clocks_mhz, architecture.selection
    return (
        f"{architecture.space.name} on {device.file.name} ({device.number_format}) at core {clocks.core:g}, memory "
        f"{clocks.memory:g}, host {clocks.host:g} MHz\nas deployed: accuracy {_performance(metrics.deployable)} per "
        f"sample; static at the highest clocks: {_performance(metrics.static)}"
    )


def _performance(found: Performance) -> str:
    return f"{found.accuracy:.1%}, {milli(found.latency_s)} ms, {milli(found.energy_j)} mJ"


def _draw_chain(axis: Axes, parts: list[_Part], architecture: Architecture, usage: _Usage) -> None:
    largest = parts[0].size
    number = {block: k for k, block in enumerate(architecture.exits)}
    stages = list(dict.fromkeys(part.name for part in parts if part.block is not None))
    for x, part in enumerate(parts):
        half = 0.32 + 0.4 * part.size / largest
        colour = _ENDS if part.block is None else _STAGES[stages.index(part.name) % len(_STAGES)]
        box = FancyBboxPatch((x - 0.36, -half), 0.72, 2 * half, boxstyle="round,pad=0.02", facecolor=colour)
        axis.add_patch(box)
        within = part.name if part.block is None else f"k{part.kernel} e{part.expand}"
        within = str(part.block) if part.block is not None and part.kernel is None else within
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
        positions = [x for x, part in enumerate(parts) if part.name == name]
        axis.text(sum(positions) / len(positions), -1.12, name, ha="center", va="top", fontsize=8)
    axis.set_xlim(-0.7, len(parts) - 0.3)
    axis.set_ylim(-1.4, 2.0)
    axis.axis("off")
    axis.set_title("kernel, expand ratio, channels; below, the map in pixels", loc="left", fontsize=8)


def _draw_bars(axis: Axes, architecture: Architecture, usage: _Usage) -> None:
    names = [f"exit {block}" for block in architecture.exits] + ["classifier"]
    positions = np.arange(len(names))
    for shift, shares, colour, label in (
        (-0.2, usage.shares, "tab:blue", "samples that stop there"),
        (0.2, usage.energy_shares, "tab:orange", "energy, spent on them"),
    ):
        bars = axis.bar(positions + shift, 100 * shares, 0.38, color=colour, label=label)
        axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    costs = [f"{milli(s)} ms, {milli(j)} mJ" for s, j in zip(usage.latency_s, usage.energy_j, strict=True)]
    axis.set_xticks(positions, [f"{name}\n{cost}" for name, cost in zip(names, costs, strict=True)], fontsize=8)
    axis.set_axisbelow(True)
    axis.set_ylabel("share (%)")
    axis.set_ylim(0, 112 * float(max(usage.shares.max(), usage.energy_shares.max())))
    axis.grid(visible=True, axis="y", alpha=0.25)
    axis.legend(fontsize=8)


def print_architecture(architecture: Architecture, console: Console, *, picture: Path | None = None) -> None:
    """Prints a network: its blocks, who stops where at what cost, and what it does on both splits.

    Args:
        architecture: The network.
        console: The console.
        picture: PNG file for a picture.

    Raises:
        ValueError: The network's clocks are none of its device, or the picture cannot be written.
    """
    usage = _usage(architecture)
    device, clocks, space = architecture.device, architecture.clocks_mhz, architecture.space
    mode = f", power mode {device.power_mode}" if device.power_mode else ""
    memory, flash = architecture.peak_memory_bytes, architecture.weight_bytes
    sizes = (
        ""
        if memory is None or flash is None
        else (
            f"Exits included, {memory / 1e3:,.4g} kB of activations at their peak and {flash / 1e3:,.4g} kB of weights"
        )
    )
    for line in (
        f"{space.name}, {architecture.weights:,} weights, {space.classes} classes, found by the "
        f"{architecture.found_by} policy",
        f"On {device.file.name} in {device.number_format}{mode}, at core {clocks.core:g}, memory {clocks.memory:g}, "
        f"host {clocks.host:g} MHz",
        sizes,
    ):
        if line:
            print_line(console, line, wrap=True)
    for table in (_blocks_table(architecture), _exits_table(architecture, usage), _performance_table(architecture)):
        console.print(table)
    print_line(console, _saving_of(architecture.test, architecture), wrap=True)
    if picture is not None:
        _plot_architecture(architecture, usage, picture)


def _blocks_table(architecture: Architecture) -> Table:
    table = new_table("Network", "part", "block", "map\npixels", "channels", "kernel", "expand")
    table.add_column("exit")
    exits = dict(zip(architecture.exits, architecture.thresholds, strict=True))
    for part in _outline(architecture.space, architecture.decoded):
        block, kernel, expand = ("" if each is None else str(each) for each in (part.block, part.kernel, part.expand))
        threshold = None if part.block is None else exits.get(part.block)
        stops = "" if threshold is None else f"if {architecture.policy} ≥ {threshold:.4g}"
        cells = (part.name, block, f"{part.size} x {part.size}", str(part.channels), kernel, expand, stops)
        table.add_row(*cells, end_section=part.ends_stage)
    return table


def _exits_table(architecture: Architecture, usage: _Usage) -> Table:
    """Who stops where and what that costs, on the selection samples and as deployed."""
    headings = ("least\nscore", "samples", "latency\nms", "energy\nmJ", "energy\nshare", "test\nsamples", "test\nAUROC")
    table = new_table("Exits, as deployed, on the selection samples", "stops at", *headings, dense=True)
    table.columns[0].no_wrap = True
    thresholds = [f"{threshold:.4g}" for threshold in architecture.thresholds] + [""]
    aurocs = ["-" if value is None else f"{value:.3f}" for value in architecture.test.aurocs or ()]
    aurocs += [""] * (len(thresholds) - len(aurocs))
    for k, (name, threshold) in enumerate(zip(architecture.exit_names, thresholds, strict=True)):
        costs = (milli(usage.latency_s[k]), milli(usage.energy_j[k]))
        shares = (f"{usage.energy_shares[k]:.1%}", f"{architecture.test.shares[k]:.1%}")
        table.add_row(name, threshold, f"{usage.shares[k]:.1%}", *costs, *shares, aurocs[k])
    table.add_section()
    table.add_row(
        "mean", "", "", *(milli(usage.shares @ cost) for cost in (usage.latency_s, usage.energy_j)), "", "", ""
    )
    for percent in (50, 95, 99):
        latency = usage.latency_s[percentile_exit(architecture.selection.shares, percent)]
        table.add_row(f"p{percent}", "", "", milli(latency), "", "", "", "")
    return table


def _performance_table(architecture: Architecture) -> Table:
    headings = ("accuracy", "latency\nms", "energy\nmJ", "saved\nagainst\nstatic", "saved\nagainst\n+ DVFS")
    table = new_table("Per sample", "samples", "network", *headings, names=2, dense=True)
    table.columns[1].no_wrap = True
    for name in ("selection", "test"):
        split: SplitMetrics = getattr(architecture, name)
        for kind in ("deployable", "ideal", "static", "static_dvfs"):
            found: Performance | None = getattr(split, kind)
            if found is None:
                continue
            is_dynamic = kind in ("deployable", "ideal")
            saved = "" if kind == "static" else f"{found.saving(split.static):.0%}"
            by_clocks = f"{found.saving(split.static_dvfs):.0%}" if split.static_dvfs and is_dynamic else ""
            row = (name if kind == "deployable" else "", kind.replace("_dvfs", " + DVFS"))
            table.add_row(*row, *_performance_cells(found), saved, by_clocks)
        table.add_section()
    return table


def _performance_cells(found: Performance) -> tuple[str, str, str]:
    return f"{found.accuracy:.2%}", milli(found.latency_s), milli(found.energy_j)


def print_operating_points(
    table: OperatingPoints, *, deadlines_s: Sequence[float], power_caps_w: Sequence[float], console: Console
) -> None:
    """Prints the best points for some deadlines and power caps, or some of all steps where none are asked for.

    Args:
        table: The operating points of a network.
        deadlines_s: Deadlines asked for.
        power_caps_w: Power caps asked for.
        console: The console.
    """
    asks_nothing = not deadlines_s and not power_caps_w
    if deadlines_s or asks_nothing:
        bounds = deadlines_s or [table.time(point) for point in _spread(table.deadlines)]
        title = f"Least energy for a deadline of the {table.deadline_of} latency"
        console.print(_points_table(title, "deadline\nms", [(s * 1e3, table.by_deadline(s)) for s in bounds]))
    if power_caps_w or asks_nothing:
        bounds = power_caps_w or [point.power_w for point in _spread(table.power_caps)]
        title = "Least latency for a cap on the mean power"
        console.print(_points_table(title, "cap\nW", [(watts, table.by_power(watts)) for watts in bounds]))
    selected = table.selected
    print_line(
        console,
        f"Of {table.evaluated:,} operating points {len(table.deadlines)} are the best for some deadline and "
        f"{len(table.power_caps)} for some power cap. At the clocks of the network: {milli(selected.latency_s)} ms, "
        f"{milli(selected.energy_j)} mJ, {selected.power_w:.3g} W.",
        wrap=True,
    )


def _points_table(title: str, bound: str, rows: Sequence[tuple[float, PointCosts | None]]) -> Table:
    headings = ("core\nMHz", "memory\nMHz", "host\nMHz", "mean\nms", "p99\nms", "longest\nms", "energy\nmJ", "power\nW")
    table = new_table(title, bound, *headings, names=0, dense=True)
    for asked, point in rows:
        cells = ["none"]
        if point is not None:
            times = (point.latency_s, point.p99_s, point.longest_s)
            costs = (*(1e3 * time for time in times), point.energy_j * 1e3, point.power_w)
            cells = [*(f"{mhz:.5g}" for mhz in point.clocks_mhz.values()), *(f"{cost:.4g}" for cost in costs)]
        table.add_row(f"{asked:.4g}", *cells)
    return table


def _spread(points: Sequence[PointCosts]) -> list[PointCosts]:
    """Some of a staircase's steps, both ends among them."""
    return [points[row] for row in spread_rows(len(points), _MOST_STEPS)]


def print_selection(
    designs: Sequence[Design],
    selection: Selection,
    *,
    limits: Constraints,
    policy: str,
    console: Console,
    tolerance: float,
) -> None:
    """Prints a choice.

    Args:
        designs: The designs that it was made among.
        selection: The choice.
        limits: The constraints that it keeps, or is the nearest to.
        policy: The policy that designs were evaluated under.
        console: The console.
        tolerance: Share of images by which a network may be less accurate and still count as as accurate.
    """
    console.print(_designs_table(designs, selection, policy))
    chosen = designs[selection.chosen]
    text = _saving_text(
        chosen.test[policy],
        chosen.static_test,
        chosen.static_dvfs_test,
        difference=chosen.differences[policy],
        tolerance=tolerance,
    )
    print_line(console, text, wrap=True)
    if selection.without:
        console.print(_constraints_table(designs, selection, limits, policy))


def _designs_table(designs: Sequence[Design], selection: Selection, policy: str) -> Table:
    table = new_table(f"Per sample, {policy} policy; chosen on the selection samples", dense=True)
    table.add_column("design", min_width=len("backbone"))
    for name in ("accuracy", "latency\nms", "energy\nmJ", "test\naccuracy", "test\nenergy\nmJ"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("exits\nafter", justify="right")
    table.add_column("core memory\nhost MHz", justify="right", min_width=len("highest"))
    chosen = designs[selection.chosen]
    rows = {"nearest" if selection.violation else "chosen": chosen}
    rows |= {f"next {name}": designs[row] for name, row in selection.neighbours.items()}
    for name, design in rows.items():
        exits = " ".join(map(str, design.exits)) or "none"
        cells = (*_on_both(design.selection[policy], design.test[policy]), exits, megahertz(design.clocks_mhz.values()))
        table.add_row(name, *cells, style="bold" if design is chosen else None)
    table.add_section()
    static = _on_both(chosen.static_selection, chosen.static_test)
    table.add_row("its static backbone", *static, "none", "highest")
    by_clocks = _on_both(chosen.static_dvfs_selection, chosen.static_dvfs_test)
    table.add_row("static + DVFS", *by_clocks, "none", megahertz(chosen.static_dvfs_clocks_mhz.values()))
    return table


def _on_both(selection: Performance, test: Performance) -> tuple[str, ...]:
    return (*_performance_cells(selection), f"{test.accuracy:.2%}", milli(test.energy_j))


def _constraints_table(designs: Sequence[Design], selection: Selection, limits: Constraints, policy: str) -> Table:
    table = new_table("Without a limit, the choice would have", "without", "accuracy", "latency", "energy")
    here, texts = designs[selection.chosen].selection[policy], constraint_texts(limits)
    for name, row in selection.without.items():
        there = designs[row].selection[policy]
        cells = ["no difference"]
        if row != selection.chosen:
            points = f"{100 * (there.accuracy - here.accuracy):+.2f} points"
            costs = (there.latency_s / here.latency_s - 1, there.energy_j / here.energy_j - 1)
            cells = [points, *(f"{cost:+.1%}" for cost in costs)]
        table.add_row(texts[name], *cells)
    return table


def corruptions_table(name: str, rows: Sequence[UnderCorruption]) -> Table:
    """Returns a table of what a network does under corruptions.

    Args:
        name: The network, or its run.
        rows: One for each corruption and strength.
    """
    headings = ("strength", "accuracy", "classifier\nalone", "stop at\nan exit", "mean\nms", "p99\nms", "energy\nmJ")
    table = new_table(f"{name}: the test split under corruption, as deployed", "corruption", *headings, dense=True)
    for row in rows:
        shares = (f"{share:.1%}" for share in (row.accuracy, row.classifier_accuracy, row.stopped))
        costs = map(milli, (row.latency_s, row.p99_s, row.energy_j))
        table.add_row(row.corruption, str(row.strength), *shares, *costs)
    return table


def print_export(
    check: ExportCheck, manifest: dict[str, Any], *, device: DeviceFile, machine: str, console: Console
) -> None:
    """Prints what an export was found to do.

    Args:
        check: The comparison of the export with JAX.
        manifest: The manifest of the export.
        device: The device whose model gave the latencies of the manifest.
        machine: The machine that the latencies of the check were measured on, as
            `hw_models.measuring.machine.Machine.name`.
        console: The console.
    """
    print_line(
        console,
        f"{check.images} test images: largest difference to JAX {check.difference:.1e}, relative; "
        f"{check.other_exits} stop elsewhere, {check.other_labels} get another class; accuracy {check.accuracy:.2%}",
    )
    if check.number_format != NumberFormat.FP32:
        form = check.number_format.name.lower()
        print_line(console, f"In {form}; simulated in JAX the accuracy is {check.expected_accuracy:.2%}")
    compares = device.measured_on == machine
    ratio = ["measured / model"] if compares else []
    title = "Latency of one image that stops there"
    table = new_table(title, "", "share", f"device model: {device.name}", "measured here", *ratio)
    for segment, share, measured in zip(manifest["segments"], check.shares, check.latency_s, strict=True):
        modelled = segment["latency_s"]
        cells = [segment["name"], f"{share:.1%}", f"{modelled * 1e3:.3f} ms", f"{measured * 1e3:.3f} ms"]
        table.add_row(*cells, *([f"{measured / modelled:.2f}"] if compares else []))
    console.print(table)
    runtime = "onnxruntime" if manifest["format"] == "onnx" else "jax"
    print_line(console, _comparison(device, machine, runtime=runtime))
    doubt = device.doubt_of_runtime(runtime)
    if doubt is not None:
        console.print(f"Warning: {doubt}", style="yellow", highlight=False, soft_wrap=not console.is_terminal)


def _comparison(device: DeviceFile, machine: str, *, runtime: str) -> str:
    """Says in one sentence whether a device model and latencies measured on a machine belong together."""
    if device.measured_on == machine:
        measured = "JAX" if device.runtime is None else device.runtime.name
        apart = f", and {runtime} from {measured}, which was measured" if runtime != measured.lower() else ""
        return (
            f"{device.name} was fitted to measurements of this machine ({machine}): the ratio says by how much the "
            f"model is off{apart}."
        )
    hint = "the latencies do not compare. hadas devices profile and hadas devices fit make a model of this machine."
    if device.measured_on is not None:
        return f"{device.name} was fitted on {device.measured_on}, this is {machine}: {hint}"
    return f"{device.name} is no model of this machine ({machine}): {hint}"


def print_fine_tuning(result: FineTuneResult, architecture: Architecture, console: Console) -> None:
    """Prints what a network does on the test split before and after its fine-tuning.

    Args:
        result: What it does.
        architecture: The network.
        console: The console.
    """
    headings = ("", "accuracy", "latency ms", "energy mJ", "stop at each exit", "classifier alone")
    table = new_table("Test split, as deployed", *headings)
    for name, found in (("before", result.before), ("after", result.after)):
        deployed = found.deployable
        shares = " ".join(f"{share:.1%}" for share in found.shares)
        costs = (f"{deployed.latency_s * 1e3:.3f}", milli(deployed.energy_j))
        table.add_row(name, f"{deployed.accuracy:.2%}", *costs, shares, f"{found.static.accuracy:.2%}")
    console.print(table)
    print_line(console, _saving_of(result.after, architecture))


def _saving_of(split: SplitMetrics, architecture: Architecture) -> str:
    tolerance = architecture.origin.settings.get("accuracy_tolerance", DeploymentSettings.accuracy_tolerance)
    costs = (split.deployable, split.static, split.static_dvfs)
    return _saving_text(*costs, difference=split.difference, tolerance=tolerance)


def _saving_text(
    network: Performance,
    static: Performance,
    static_dvfs: Performance | None,
    *,
    difference: Difference | None,
    tolerance: float,
) -> str:
    """What a network saves on the test split against its backbone without exits, in one sentence."""
    by_clocks = "" if static_dvfs is None else f", {network.saving(static_dvfs):.0%} at its best clocks"
    beside = ""
    if difference is not None:
        verdict = SHOWN if difference.is_shown(tolerance) else NOT_SHOWN
        beside = f"; accuracy against it, in points [95% interval]: {difference_text(difference)}, {verdict}"
    return (
        f"On the test split the network saves {network.saving(static):.0%} of the energy of its backbone without exits "
        f"at the highest clocks{by_clocks}{beside}."
    )
