"""The plots of a report as tables: one CSV file for each, with what the plot shows.

Accuracies and savings in percent, latency in ms, energy in mJ, clocks in MHz.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hadas_jax.report.html.content import COSTS, METRICS, NETWORK_VALUES, starting_network
from hadas_jax.runs.workdir import write_text

Rows = list[dict[str, Any]]


def plot_tables(content: dict[str, Any]) -> dict[str, Rows]:
    """Returns the rows of each plot that the content has data for, by the plot's name.

    Args:
        content: The content of a report, see `report_content`.

    Returns:
        `front` (networks with their metrics, also of parallel coordinates), `gains`, `exit_usage`, `clocks` (of the
        network that `starting_network` names, for each run), `networks` of the DARTS space, `alpha`, `progress`,
        `exits`.
    """
    runs = content["runs"]
    tables = {
        "front": [row for run in runs for row in _networks(run)],
        "gains": [{"run": run["name"], **row} for run in runs for row in run["levels"]],
        "exit_usage": [row for run in runs for row in _usage(run)],
        "clocks": [row for run in runs for row in _clocks(run)],
        "networks": [row for run in runs if run["darts"] for row in _found(run)],
        "alpha": [row for run in runs if run["darts"] and run["darts"]["alpha"] for row in _alpha(run)],
        "progress": [row for run in runs for row in _progress(run)],
        "exits": [
            {"run": run["name"], "backbone": backbone, "block": block, "accuracy": accuracy}
            for run in runs
            for backbone, curve in run["exits"].items()
            for block, accuracy in zip(curve["blocks"], curve["accuracies"], strict=True)
        ],
    }
    return {name: rows for name, rows in tables.items() if rows}


def write_tables(tables: dict[str, Rows], directory: Path) -> None:
    """Writes NAME.csv for each plot.

    Args:
        tables: The tables of `plot_tables`.
        directory: A directory that exists.
    """
    for name, rows in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        write_text(directory / f"{name}.csv", text.getvalue())


def _networks(run: dict[str, Any]) -> Rows:
    rows = []
    for network in run["networks"]:
        row = {"run": run["name"], "kind": network["kind"], "policy": network["policy"]}
        row |= {name: network[name] for name in (*METRICS, "accuracy_low", "accuracy_high")}
        row |= network["backbone"] | {"blocks": sum(network["backbone"]["depth"])}
        row |= {name: network[name] for name in ("exits", "thresholds", "shares", "dissimilarity", "excess", "genome")}
        row |= {f"{name}_mhz": mhz for name, mhz in network["clocks"].items()}
        row |= {f"{part}_{cost}": network[part][cost] for part in ("joined", "holds") for cost in COSTS}
        rows.append(row | network["against"])
    return rows


def _usage(run: dict[str, Any]) -> Rows:
    deployable = sorted((n for n in run["networks"] if n["policy"] == "deployable"), key=lambda n: n["energy"])
    return [
        {"run": run["name"], "network": index, "energy": network["energy"], "stops_at": stop, "share": 100 * share}
        for index, network in enumerate(deployable)
        for stop, share in zip([*network["exits"], "classifier"], network["shares"], strict=True)
    ]


def _clocks(run: dict[str, Any]) -> Rows:
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


def _found(run: dict[str, Any]) -> Rows:
    return [{"run": run["name"], **{name: run["darts"].get(name) for name in NETWORK_VALUES}}]


def _alpha(run: dict[str, Any]) -> Rows:
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


def _progress(run: dict[str, Any]) -> Rows:
    return [
        {"run": run["name"], "stage": stage, "metric": metric, "step": step, "value": value}
        for stage, curves in run["curves"].items()
        for metric, curve in curves.items()
        for step, value in zip(curve["steps"], curve["values"], strict=True)
    ]


def _cell(value: Any) -> Any:
    """Numbers of a list side by side, "inf" for thresholds that no sample passes; empty where nothing is known."""
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join("inf" if each is None else f"{each:.9g}" for each in value)
    return f"{value:.9g}" if isinstance(value, float) else value
