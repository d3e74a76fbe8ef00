"""The plots of a report as tables, and these as CSV files and as PNGs.

Accuracies and savings in percent, latency in ms, energy in mJ, clocks in MHz.
"""

import csv
import io
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hadas_jax.evaluation import POLICIES
from hadas_jax.evaluation.score_quality import PROBABILITIES
from hadas_jax.methods.hadas.results import NOT_SHOWN, Result
from hadas_jax.report.darts import draw_cell
from hadas_jax.report.html.content import COSTS, METRICS, network_rows, starting_network
from hadas_jax.report.pictures import compare_on_equal_axes, new_figure, save_picture, write_ticks_in_full
from hadas_jax.runs.workdir import write_text
from hadas_jax.spaces.darts import CELLS, OPERATIONS
from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.training.run import ExitAccuracies

Rows = list[dict[str, Any]]
# What the picture of a front shows.
_CAPTION = (
    "Lines join the front of the samples that networks were chosen on, in its order; pale: not on it, or behind "
    "another one of it on the test split. Bars: 95 % intervals of accuracy"
)
_RUN_COLOURS = ("#0b62b8", "#c2470b", "#561051", "#199b83", "#d0658a", "#8f6a00", "#6b7280", "#17212e")
_KIND_COLOURS = {"ideal": "#0b62b8", "deployable": "#c2470b", "exits": "#561051", "static": "#17212e"}
_KIND_COLOURS |= {"static + DVFS": "#6b7280"}
_MARKERS = {"ideal": "o", "deployable": "s", "exits": "D", "static": "^", "static + DVFS": "v"}
_LABELS = {"accuracy": "accuracy (%)", "latency": "latency (ms)", "energy": "energy (mJ)"}
_COORDINATES = (*_LABELS, "blocks", "exits", "core_mhz", "memory_mhz", "host_mhz", "dissimilarity")


def plot_tables(content: dict[str, Any]) -> dict[str, Rows]:
    """Returns the rows of each plot that the content has data for, by the plot's name.

    Args:
        content: The content of a report, see `report_content`.

    Returns:
        `front` (networks with their metrics, also of parallel coordinates), `gains`, `exit_usage`, `clocks` (of the
        network that `starting_network` names, for each run), `networks` of the DARTS space, `alpha`, `progress`,
        `exits`, `corruptions`, `check`.
    """
    runs = content["runs"]
    tables = {
        "front": [row for run in runs for row in _front_rows(run["name"], run["networks"])],
        "gains": [{"run": run["name"], **row} for run in runs for row in run["levels"]],
        "exit_usage": [row for run in runs for row in _usage_rows(run)],
        "clocks": [row for run in runs for row in _clocks_rows(run)],
        "networks": [
            {
                "run": run["name"],
                **{name: run["darts"][name] for name in run["darts"] if name not in ("cells", "alpha")},
            }
            for run in runs
            if run["darts"]
        ],
        "alpha": [row for run in runs if run["darts"] and run["darts"]["alpha"] for row in _alpha_rows(run)],
        "progress": [row for run in runs for row in _progress_rows(run)],
        "exits": [
            {"run": run["name"], "backbone": backbone, "block": block, "accuracy": accuracy}
            | {f"auroc_{policy}": aurocs.get(policy) for policy in POLICIES}
            | {f"ece_{policy}": eces.get(policy) for policy in PROBABILITIES}
            for run in runs
            for backbone, curve in run["exits"].items()
            for block, accuracy, aurocs, eces in zip(*curve.values(), strict=True)
        ],
        "check": [{"run": run["name"], **point} for run in runs if run["check"] for point in run["check"]["points"]],
        "corruptions": [{"run": run["name"], **row} for run in runs for row in run["corruptions"]],
    }
    return {name: rows for name, rows in tables.items() if rows}


def _front_rows(run: str, networks: Sequence[dict[str, Any]]) -> Rows:
    rows = []
    for network in networks:
        row = {"run": run, "kind": network["kind"], "policy": network["policy"]}
        row |= {name: network[name] for name in (*METRICS, "accuracy_low", "accuracy_high")}
        percentiles = network["percentiles"].get(network["policy"], {})
        row |= {f"latency_{name}": percentiles.get(name) for name in ("p50", "p95", "p99", "longest")}
        sizes = network["sizes"] or {}
        row |= {"peak_memory_kb": sizes.get("memory"), "weights_kb": sizes.get("weights")}
        row |= network["backbone"] | {"blocks": sum(network["backbone"]["depth"])}
        row |= {
            name: network[name]
            for name in ("exits", "thresholds", "shares", "aurocs", "eces", "dissimilarity", "excess", "genome")
        }
        row |= {f"{name}_mhz": mhz for name, mhz in network["clocks"].items()}
        row |= {f"{part}_{cost}": network[part][cost] for part in ("joined", "holds") for cost in COSTS}
        rows.append(row | network["against"])
    return rows


def _usage_rows(run: dict[str, Any]) -> Rows:
    deployable = sorted((n for n in run["networks"] if n["policy"] == "deployable"), key=lambda n: n["energy"])
    return [
        {"run": run["name"], "network": index, "energy": network["energy"], "stops_at": stop, "share": 100 * share}
        for index, network in enumerate(deployable)
        for stop, share in zip([*network["exits"], "classifier"], network["shares"], strict=True)
    ]


def _clocks_rows(run: dict[str, Any]) -> Rows:
    network, grid = starting_network(run["networks"]), run["clock_grid"]
    if network is None or grid is None:
        return []
    curves, (core_at, memory_at, _) = network["curves"], network["curves"]["at"]
    return [
        {
            "run": run["name"],
            "core_mhz": grid["core"][core],
            "memory_mhz": grid["memory"][memory],
            "host_mhz": network["clocks"]["host"],
            "latency": curves["latency"][line][core],
            "energy": curves["energy"][line][core],
            "is_chosen": (core, memory) == (core_at, memory_at),
        }
        for line, memory in enumerate(curves["memory"])
        for core in range(len(grid["core"]))
    ]


def _alpha_rows(run: dict[str, Any]) -> Rows:
    alpha = run["darts"]["alpha"]
    return [
        {
            "run": run["name"],
            "cell": cell,
            "edge": edge,
            "operation": operation,
            "share": 100 * share,
            "is_kept": number == kept > 0,  # 0: the edge is absent
        }
        for cell, every, every_kept in zip(run["darts"]["cells"], alpha["shares"], alpha["kept"], strict=True)
        for edge, shares, kept in zip(alpha["edges"], every, every_kept, strict=True)
        for number, (operation, share) in enumerate(zip(alpha["operations"], shares, strict=True))
    ]


def _progress_rows(run: dict[str, Any]) -> Rows:
    return [
        {"run": run["name"], "stage": stage, "metric": metric, "step": step, "value": value}
        for stage, curves in run["curves"].items()
        for metric, curve in curves.items()
        for step, value in zip(curve["steps"], curve["values"], strict=True)
    ]


def write_figures(tables: dict[str, Rows], directory: Path) -> list[Path]:
    """Writes NAME.csv for each table, and a PNG for every plot that has one.

    Args:
        tables: The tables of `plot_tables`.
        directory: A directory that exists.

    Returns:
        The paths of the PNGs.

    Raises:
        ValueError: A file cannot be written.
    """
    for name, rows in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        write_text(directory / f"{name}.csv", text.getvalue())
    tables = {name: [_without_formulas(row) for row in rows] for name, rows in tables.items()}
    drawings: dict[str, tuple[str, Callable[[Rows], Figure]]] = {
        "front": ("front", _front),
        "front_3d": ("front", _front_3d),
        "parallel_coordinates": ("front", _parallel),
        "gains": ("gains", _gains),
        "exit_usage": ("exit_usage", _usage),
        "clocks": ("clocks", _clocks),
        "cells": ("networks", _cells),
        "alpha": ("alpha", _alpha),
        "progress": ("progress", _progress),
        "exits": ("exits", _exits),
        "check": ("check", _check),
    }
    paths = []
    for name, (table, drawing) in drawings.items():
        if table in tables:
            paths.append(directory / f"{name}.png")
            save_picture(drawing(tables[table]), paths[-1])
    return paths


def plot_front(result: Result, path: Path) -> None:
    """Draws accuracy over energy and over latency, on the test split, as a PNG; constraints as thin lines.

    Args:
        result: What a search found.
        path: Where the picture goes.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure = _front(_front_rows("", [row for row in network_rows(result) if row["kind"] != "exits"]))
    limits = result.limits
    line: dict[str, Any] = {"color": "tab:red", "linewidth": 0.8, "linestyle": "--"}
    for axis, most in zip(figure.axes, (limits.max_energy_mj, limits.max_latency_ms), strict=True):
        if most is not None:
            axis.axvline(most, **line)
        if limits.min_accuracy is not None:
            axis.axhline(100 * limits.min_accuracy, **line)
    figure.suptitle("Dynamic networks found: exits and clocks against static networks")
    figure.supxlabel(f"{_CAPTION} on {result.test_images:,} test images.", fontsize=8)
    save_picture(figure, path)


def plot_exits(accuracies: Sequence[ExitAccuracies], path: Path) -> None:
    """Draws the test accuracy of every exit over its block, and of the classifier behind the last one, as a PNG.

    Args:
        accuracies: The accuracies of some backbones.
        path: Where the picture goes.

    Raises:
        ValueError: The picture cannot be written.
    """
    rows = []
    for each in accuracies:
        blocks = (*each.blocks, each.blocks[-1] + 1 if each.blocks else 0)
        for block, share in zip(blocks, (*each.exits, each.final), strict=True):
            rows.append({"run": "", "backbone": each.backbone, "block": block, "accuracy": 100 * share})
    save_picture(_exits(rows), path)


def _cell(value: Any) -> Any:
    """Numbers of a list side by side, "inf" for thresholds that no sample passes; empty where nothing is known."""
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join("inf" if each is None else f"{each:.9g}" for each in value)
    return f"{value:.9g}" if isinstance(value, float) else value


def _without_formulas(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row whose names are drawn as they are: a formula stands between dollars."""
    return {name: value.replace("$", r"\$") if isinstance(value, str) else value for name, value in row.items()}


def _groups(rows: Rows, *names: str) -> list[tuple[tuple[Any, ...], Rows]]:
    """Groups the rows that share values, in the order of their first ones."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in names)

    order = {value: index for index, value in enumerate(dict.fromkeys(map(key, rows)))}
    return [(value, list(group)) for value, group in groupby(sorted(rows, key=lambda row: order[key(row)]), key)]


def _colour(rows: Rows, run: str, kind: str) -> str:
    """Of runs where there are several, else of the kind of network."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    return _RUN_COLOURS[runs.index(run)] if len(runs) > 1 else _KIND_COLOURS.get(kind, _RUN_COLOURS[0])


def _label(run: str, name: str) -> str:
    return f"{run}: {name}" if run else name


def _values(rows: Rows, name: str) -> np.ndarray:
    return np.array([len(row[name]) if isinstance(row[name], list) else row[name] for row in rows], float)


def _log(axis: Axes, label: str) -> None:
    axis.set_xscale("log")
    write_ticks_in_full(axis.xaxis, minor="{x:.2g}")
    axis.set_xlabel(label)


def _front(rows: Rows) -> Figure:
    figure, (axes,) = new_figure((11, 4.8), 1, 2, sharey=True)
    for axis, name in zip(axes, ("energy", "latency"), strict=True):
        for (run, kind), group in _groups(rows, "run", "kind"):
            colour = _colour(rows, run, kind)
            line = sorted(
                (row for row in group if row[f"joined_{name}"] is not None), key=lambda r: r[f"joined_{name}"]
            )
            axis.plot(_values(line, name), _values(line, "accuracy"), color=colour, linewidth=1, alpha=0.6)
            holding = [row for row in group if row[f"holds_{name}"]]
            ends = (_values(holding, "accuracy_low"), _values(holding, "accuracy_high"))
            axis.vlines(_values(holding, name), *ends, color=colour, linewidth=0.6, alpha=0.5)
            style: dict[str, Any] = {"marker": _MARKERS[kind], "color": colour, "s": 22, "linewidths": 0}
            axis.scatter(_values(group, name), _values(group, "accuracy"), alpha=0.2, **style)
            shown = {"label": _label(run, kind), "zorder": 3}
            axis.scatter(_values(holding, name), _values(holding, "accuracy"), **style, **shown)
        _log(axis, f"{_LABELS[name]} per sample")
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(fontsize=7, loc="lower right")
    figure.supxlabel(f"{_CAPTION}.", fontsize=8)
    return figure


def _front_3d(rows: Rows) -> Figure:
    figure, [[axis]] = new_figure((7, 6), subplot_kw={"projection": "3d"})
    for (run, kind), group in _groups(rows, "run", "kind"):
        x, y = (np.log10(_values(group, name)) for name in ("latency", "energy"))
        style = {"marker": _MARKERS[kind], "color": _colour(rows, run, kind), "label": _label(run, kind)}
        axis.scatter(x, y, _values(group, "accuracy"), **style)
    axis.set_xlabel("log10 latency (ms)")
    axis.set_ylabel("log10 energy (mJ)")
    axis.set_zlabel("test accuracy (%)")
    axis.legend(fontsize=7)
    return figure


def _parallel(rows: Rows) -> Figure:
    figure, [[axis]] = new_figure((11, 4.8))
    columns = {name: _values(rows, name) for name in _COORDINATES}
    varied = [name for name, values in columns.items() if np.ptp(values) > 0]
    scaled = np.stack([(columns[name] - columns[name].min()) / np.ptp(columns[name]) for name in varied])
    for row, line in zip(rows, scaled.T, strict=True):
        axis.plot(line, color=_colour(rows, row["run"], row["kind"]), alpha=0.35, linewidth=0.9)
    for at, name in enumerate(varied):
        axis.text(at, 1.03, f"{columns[name].max():.4g}", ha="center", fontsize=8)
        axis.text(at, -0.03, f"{columns[name].min():.4g}", ha="center", va="top", fontsize=8)
    axis.set_xticks(range(len(varied)), [_LABELS.get(name, name.replace("_mhz", " (MHz)")) for name in varied])
    axis.set_yticks([])
    axis.set_ylim(-0.1, 1.1)
    axis.grid(visible=True, axis="x", alpha=0.4)
    return figure


def _gains(rows: Rows) -> Figure:
    """Savings against both static networks; hatched where a network is not shown to be as accurate."""
    figure, (axes,) = new_figure((11, 4.8), 1, 2, sharey=True)
    levels = list(dict.fromkeys((row["run"], row["level"]) for row in rows))
    variants = _groups([row for row in rows if row["network"] != "static"], "network", "policy")
    width = 0.84 / len(variants)
    for axis, name, reference in zip(
        axes, ("energy_saved", "energy_saved_dvfs"), ("static", "static + DVFS"), strict=True
    ):
        for index, ((network, policy), group) in enumerate(variants):
            at = [levels.index((row["run"], row["level"])) + width * (index - (len(variants) - 1) / 2) for row in group]
            hatches = ["////" if row["verdict"] == NOT_SHOWN else "" for row in group]
            style: dict[str, Any] = {"color": _RUN_COLOURS[index], "edgecolor": "white", "linewidth": 0}
            axis.bar(at, _values(group, name), width=0.95 * width, hatch=hatches, **style)
            axis.bar(0, 0, color=_RUN_COLOURS[index], label=f"{network}, {policy}" if policy else network)
        axis.set_xticks(range(len(levels)), [f"≥ {level:.1f} %\n{run}" for run, level in levels], fontsize=7)
        axis.set_ylabel(f"energy saved against {reference} (%)")
        axis.grid(visible=True, axis="y", alpha=0.25)
    axes[1].legend(fontsize=7)
    figure.supxlabel(f"Hatched: {NOT_SHOWN} by the test split", fontsize=8)
    return figure


def _usage(rows: Rows) -> Figure:
    runs = _groups(rows, "run")
    figure, axes = new_figure((11, 3.2 * len(runs)), len(runs))
    for (axis,), ((run,), group) in zip(axes, runs, strict=True):
        blocks = sorted({row["stops_at"] for row in group if row["stops_at"] != "classifier"})
        bottom = np.zeros(1 + max(row["network"] for row in group))
        for stop in [*blocks, "classifier"]:
            heights = np.zeros_like(bottom)
            for row in group:
                if row["stops_at"] == stop:
                    heights[row["network"]] = row["share"]
            shade = 0.15 + 0.7 * (blocks.index(stop) / max(len(blocks) - 1, 1) if stop in blocks else 0)
            colour = (shade, 0.35 + 0.6 * shade, 0.9) if stop in blocks else "#6b7280"
            label = f"block {stop}" if stop in blocks else "classifier"
            axis.bar(range(len(bottom)), heights, bottom=bottom, width=0.92, color=colour, label=label)
            bottom += heights
        axis.set_title(f"{run}: deployable networks by energy", loc="left", fontsize=9)
        axis.set_ylabel("samples (%)")
        axis.set_xticks([])
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _clocks(rows: Rows) -> Figure:
    runs = _groups(rows, "run")
    figure, grid = new_figure((11, 4 * len(runs)), len(runs), 2)
    for axes, ((run,), group) in zip(grid, runs, strict=True):
        for axis, name in zip(axes, ("energy", "latency"), strict=True):
            for (memory,), line in _groups(group, "memory_mhz"):
                axis.plot(_values(line, "core_mhz"), _values(line, name), marker=".", label=f"memory {memory:g} MHz")
            chosen = [row for row in group if row["is_chosen"]]
            axis.plot(_values(chosen, "core_mhz"), _values(chosen, name), "o", ms=11, mfc="none", mec="black")
            axis.set_yscale("log")
            write_ticks_in_full(axis.yaxis, minor="{x:.2g}")
            axis.set_xlabel("core clock (MHz)")
            axis.set_ylabel(_LABELS[name])
            axis.grid(visible=True, which="both", alpha=0.25)
        axes[0].set_title(f"{run}; ring: the design's own clocks", loc="left", fontsize=9)
        axes[0].legend(fontsize=7)
    return figure


def _progress(rows: Rows) -> Figure:
    panels = _groups(rows, "stage", "metric")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = new_figure((4 * columns, 2.8 * lines), lines, columns)
    axes = axes.ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, ((stage, metric), group) in zip(axes, panels, strict=False):
        for (run,), line in _groups(group, "run"):
            axis.plot(
                _values(line, "step"), _values(line, "value"), marker=".", color=_colour(rows, run, ""), label=run
            )
        axis.set_title(f"{stage}: {metric.replace('_', ' ')}", loc="left", fontsize=9)
        axis.grid(visible=True, alpha=0.25)
    axes[0].legend(fontsize=7)
    return figure


def _exits(rows: Rows) -> Figure:
    figure, [[axis]] = new_figure((6.4, 4.2))
    for (run, backbone), group in _groups(rows, "run", "backbone"):
        axis.plot(_values(group, "block"), _values(group, "accuracy"), marker="o", label=_label(run, backbone))
    axis.set_xlabel("block that the exit follows; last: the classifier")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("test accuracy (%)")
    axis.grid(visible=True, alpha=0.25)
    axis.legend(fontsize=8)
    return figure


def _check(rows: Rows) -> Figure:
    figure, [[axis]] = new_figure((6, 5.6))
    for (run, exit), group in _groups(rows, "run", "exit"):
        label = f"{run}: {'expected' if exit is None else f'exit {exit}'}"
        axis.scatter(_values(group, "measured"), _values(group, "predicted"), s=18, alpha=0.75, label=label)
    values = np.array([[row["measured"], row["predicted"]] for row in rows])
    compare_on_equal_axes(axis, values, below=0.8, above=1.25)
    axis.set_xlabel("measured latency (ms)")
    axis.set_ylabel("predicted latency (ms)")
    axis.grid(visible=True, which="both", alpha=0.25)
    axis.legend(fontsize=7)
    return figure


def _cells(rows: Rows) -> Figure:
    """Both cells of every network."""
    figure, grid = new_figure((12, 3.6 * len(rows)), len(rows), 2)
    for axes, row in zip(grid, rows, strict=True):
        for axis, cell in zip(axes, CELLS, strict=True):
            draw_cell(axis, Genotype.parse(row["genotype"]).graph(cell))
            axis.set_title(f"{row['run']}: {cell} cell", loc="left", fontsize=9)
    return figure


def _alpha(rows: Rows) -> Figure:
    """The share of each operation on each edge, with rings on those that the network has."""
    maps = _groups(rows, "run", "cell")
    figure, axes = new_figure((12, 2.5 * len(maps)), -(-len(maps) // 2), 2)
    for axis, ((run, cell), group) in zip(axes.ravel(), maps, strict=True):
        shares = np.array([row["share"] for row in group]).reshape(-1, len(OPERATIONS))
        image = axis.imshow(shares, cmap="Blues", aspect="auto")
        kept = [divmod(k, len(OPERATIONS)) for k, row in enumerate(group) if row["is_kept"]]
        axis.plot([c for _, c in kept], [r for r, _ in kept], "o", ms=9, mfc="none", mec="#c2470b", mew=2)
        axis.set_xticks(range(len(OPERATIONS)), OPERATIONS, rotation=30, ha="right", fontsize=7)
        axis.set_yticks(range(len(shares)), [row["edge"] for row in group[:: len(OPERATIONS)]], fontsize=7)
        axis.set_title(f"{run}: {cell} cell", loc="left", fontsize=9)
        figure.colorbar(image, ax=axis, format="{x:.1f} %", shrink=0.9)
    return figure
