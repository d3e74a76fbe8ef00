"""The content of a report as plain values: what the page, the plots and the tables are made of.

Accuracies and their differences in percent and points, latency in ms and energy in mJ of one sample, clocks in MHz;
accuracies are of the test split where nothing else is said.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.check import Check
from hadas_jax.deploy.fine_tune import FineTuneResult
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.robustness import UnderCorruption
from hadas_jax.evaluation import POLICIES, Difference, accuracy_interval
from hadas_jax.frozen.description import GivenDescription
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.eh_dnas.result import DnasResult
from hadas_jax.methods.eh_dnas.retrain import RetrainResult
from hadas_jax.methods.hadas.results import POLICY_NAMES, read_search
from hadas_jax.report.check import summary
from hadas_jax.report.console import milli
from hadas_jax.report.darts import LEFT, RIGHT, TOP, Point, cell_layout
from hadas_jax.report.html.record import RunRecord
from hadas_jax.report.pictures import spread_rows
from hadas_jax.report.search import legend
from hadas_jax.runs.names import GIVEN, SUPERNET, SUPERNET_FILE
from hadas_jax.settings import ExitsSettings, SearchSettings
from hadas_jax.spaces import AnySpace
from hadas_jax.spaces.darts import CELLS, EDGE_INPUT, EDGE_NODE, OPERATIONS, parse_code
from hadas_jax.spaces.genotypes import CellGraph, Genotype
from hadas_jax.supernet.checkpoint import Description
from hadas_jax.training.run import TrainingRun, at_resolutions
from hw_models import Device
from hw_models.catalogue import chosen_device

MOST_RUNS = 8  # as many colours as can be told apart
MOST_LINES = 5  # of memory clocks in a plot
METRICS = ("accuracy", "latency", "energy")
COSTS = {"energy": "energy_j", "latency": "latency_s"}
# Settings that are shown beside the name of a run: of a search, and of others.
_FACTS = (("device", "dataset", "strategy", "seed"), ("network", "hardware", "dataset", "epochs", "seed"))
_CLOCKS = ("core", "memory", "host")
_TOLERANCE = 1e-3  # of what the device model gives, relative to what the search reported


def report_content(
    records: Sequence[RunRecord], *, made: datetime, robustness: Sequence[tuple[UnderCorruption, ...] | str] = ()
) -> dict[str, Any]:
    """Brings runs together in one report.

    Args:
        records: The runs.
        made: When the report is made.
        robustness: Of each run what `read_robustness` returns; none: of no run.

    Returns:
        `made`; `start`, the identifier "run.network" of the network that is shown first, or None; and `runs`, each with
        its name, kind, settings and versions, `networks` (see `network_rows`, each with its `curves`, see
        `clock_curves`, where the device model can give them), `levels` with their `legend` in words, `clock_grid`,
        `curves` (steps and values by stage and metric), `exits`, `corruptions` (rows in percent, ms and mJ), `darts`
        (see `_darts_network`, or None), `check` (see `check_content`, or None), `facts` in words, and `notes` on what
        is missing.

    Raises:
        ValueError: There are none, more than `MOST_RUNS`, or one twice.
    """
    if not 1 <= len(records) <= MOST_RUNS:
        raise ValueError(f"work directories: expected 1 to {MOST_RUNS}, got {len(records)}")
    paths = Counter(record.path.resolve() for record in records)
    if len(paths) < len(records):
        raise ValueError(f"work directories: expected different ones, got {paths.most_common(1)[0][0]} twice")
    runs = [
        _run(record, name, found)
        for record, name, found in zip(records, _names(records), robustness or [()] * len(records), strict=True)
    ]
    networks = [(row, f"{r}.{n}") for r, run in enumerate(runs) for n, row in enumerate(run["networks"])]
    first = starting_network([row for row, _ in networks])
    start = next((identifier for row, identifier in networks if row is first), None)
    return {"made": made.strftime("%Y-%m-%d %H:%M"), "start": start, "runs": runs}


def starting_network(networks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the cheapest deployable network within one point of the best accuracy of them; None without any.

    Both are of the selection samples: nothing is chosen by the test split.
    """
    pool = [row for row in networks if row["kind"] == "deployable"]
    best = max((row["selection"]["accuracy"] for row in pool), default=0.0)
    near = [row for row in pool if row["selection"]["accuracy"] >= best - 1]
    return min(near, key=lambda row: row["selection"]["energy"], default=None)


def _names(records: Sequence[RunRecord]) -> list[str]:
    """The last word of each path, or the whole path where that is no name of its own."""
    short = [record.path.resolve().name for record in records]
    count = Counter(short)
    return [name if count[name] == 1 else str(record.path) for name, record in zip(short, records, strict=True)]


def _run(record: RunRecord, name: str, robustness: tuple[UnderCorruption, ...] | str) -> dict[str, Any]:
    result, outcome = record.result, record.outcome
    darts = _darts_network(outcome, record.settings) if isinstance(outcome, DnasResult | RetrainResult) else None
    run: dict[str, Any] = {
        "name": name,
        "path": str(record.path),
        "kind": record.kind,
        "settings": record.settings,
        "versions": record.versions,
        "networks": [] if result is None else network_rows(result),
        "levels": [] if result is None else _level_rows(result),
        "clock_grid": None,
        "curves": _metric_curves(record.metrics),
        "exits": _exit_curves(record.exits),
        "corruptions": [] if isinstance(robustness, str) else [_corruption_row(each) for each in robustness],
        "darts": darts,
        "check": None if record.check is None else check_content(record.check),
        "facts": _facts(record),
        "legend": [] if result is None else legend(result),
        "notes": [robustness] if isinstance(robustness, str) else [],
    }
    if result is not None:
        try:
            search = read_search(record.path)
            device = chosen_device(search.settings.device, search.settings.operating)
            space = _searched_space(search.settings, record.path)
            run["clock_grid"], curves = clock_curves(space, device, run["networks"])
            run["networks"] = [row | {"curves": curve} for row, curve in zip(run["networks"], curves, strict=True)]
        except (ValueError, OSError) as error:
            run["notes"].append(f"Energy over clocks is left out: {' '.join(str(error).split())}")
    return run


def _corruption_row(found: UnderCorruption) -> dict[str, Any]:
    return {
        "corruption": found.corruption,
        "strength": found.strength,
        "accuracy": 100 * found.accuracy,
        "classifier_accuracy": 100 * found.classifier_accuracy,
        "stopped": 100 * found.stopped,
        "latency": 1e3 * found.latency_s,
        "p99": 1e3 * found.p99_s,
        "energy": 1e3 * found.energy_j,
    }


def _metric_curves(metrics: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Steps and values by stage and metric, in the order of the lines; None for values that are not finite."""
    curves: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for entry in metrics:
        for name, value in entry.items():
            if name in ("stage", "step") or not isinstance(value, int | float):
                continue
            curve = curves.setdefault(entry["stage"], {}).setdefault(name, {"steps": [], "values": []})
            curve["steps"].append(entry["step"])
            curve["values"].append(value if math.isfinite(value) else None)
    return curves


def _exit_curves(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, list[Any]]]:
    """Blocks, test accuracies, AUROC and ECE by score of each backbone; the classifier's block is one past the last."""
    curves: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        curve = curves.setdefault(row["backbone"], {"blocks": [], "accuracies": [], "aurocs": [], "eces": []})
        last = curve["blocks"][-1] + 1 if curve["blocks"] else 0
        curve["blocks"].append(int(row["block"]) if row["block"].isdigit() else last)
        curve["accuracies"].append(100 * float(row["test_accuracy"]))
        for name in ("auroc", "ece"):
            known = {policy: row.get(f"{name}_{policy}") for policy in POLICIES}
            curve[f"{name}s"].append({policy: float(value) for policy, value in known.items() if value})
    return curves


def check_content(check: Check) -> dict[str, Any]:
    """Returns what a check found: `summary` in sentences, its `protocol` in words, and `points`.

    Each point has the `network`, the number of the `exit` from 1, None for the expected latency, and `measured` and
    `predicted` latency.
    """
    points = [
        {
            "network": network.name,
            "exit": exit.segments if exit is not None else None,
            "measured": 1e3 * (exit.measured_s if exit is not None else network.expected_s),
            "predicted": 1e3 * (exit.predicted_s if exit is not None else network.predicted_s),
        }
        for network in check.networks
        for exit in (*network.exits, None)
    ]
    told = {name: value for name, value in check.protocol.items() if value and not isinstance(value, dict)}
    protocol = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
    return {"summary": summary(check), "protocol": protocol, "points": points}


def _facts(record: RunRecord) -> list[list[str]]:
    """Pairs of a name and a value in words, the most telling ones first."""
    facts = [[name, str(record.settings[name])] for name in _FACTS[record.result is None] if name in record.settings]
    if record.data is not None:
        parts = ", ".join(f"{count:,} {name}" for name, count in record.data.parts.items())
        facts.append(["images", f"{parts}; divided {record.data.rule.partition('/')[0]}, seed {record.data.seed}"])
    if isinstance(record.outcome, FineTuneResult):
        for when, split in (("before", record.outcome.before), ("after", record.outcome.after)):
            deployed = split.deployable
            costs = f"{milli(deployed.latency_s)} ms, {milli(deployed.energy_j)} mJ"
            facts.append([f"{when} fine-tuning", f"{100 * deployed.accuracy:.2f} %, {costs}"])
    return facts if record.result is None else facts + _result_facts(record.result)


def _result_facts(result: Result) -> list[list[str]]:
    if result.backbones == 1:
        facts = [
            ["searched", f"{result.candidates:,} exits and clocks of the network"],
            ["the network", f"{100 * result.largest_test_accuracy:.1f} % right without exits"],
        ]
    else:
        facts = [
            ["searched", f"{result.backbones:,} backbones, {result.candidates:,} dynamic candidates"],
            ["largest backbone", f"{100 * result.largest_test_accuracy:.1f} % right without exits"],
            ["smallest backbone", f"{100 * result.smallest_test_accuracy:.1f} % right without exits"],
        ]
    limits = {name: limit for name, limit in asdict(result.limits).items() if limit is not None}
    for policy, is_kept in result.within_limits.items() if limits else ():
        words = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
        facts.append([f"limits, {policy}", f"{words}: {'kept' if is_kept else 'broken'}"])
    return facts


def _front_members(designs: Sequence[Design], policy: str, cost: str) -> tuple[list[int], list[int]]:
    """Returns which designs of a front a picture joins, and which of those it draws in full colour.

    Args:
        designs: The designs of a front.
        policy: The policy that they are evaluated under.
        cost: `energy_j` or `latency_s`.

    Returns:
        Rows of the designs that no other one dominates on the selection samples, the cheapest there first; and the rows
        of these that none of these dominates on the test split.
    """
    selection = [design.selection[policy] for design in designs]
    members = np.flatnonzero(~_dominated(selection, cost)).tolist()
    members.sort(key=lambda row: getattr(selection[row], cost))
    behind = _dominated([designs[row].test[policy] for row in members], cost)
    return members, [row for row, is_behind in zip(members, behind.tolist(), strict=True) if not is_behind]


def _dominated(points: Sequence[Performance], cost: str) -> np.ndarray:
    """Returns bool[M]: where another one is no less accurate and costs no more, and is better in one of both."""
    values = np.array([(each.error, getattr(each, cost)) for each in points]).reshape(-1, 2)
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    return np.any(no_worse & better, axis=0)


def network_rows(result: Result) -> list[dict[str, Any]]:
    """Returns every network of a result once: designs found, and the static and exits-only ones beside them.

    Args:
        result: What a search found.

    Returns:
        A row for each: `kind` (`ideal` and `deployable` of the fronts, `exits` with exits at the default clocks,
        `static` without exits, `static + DVFS` at its best clocks), the `policy` that its accuracy, latency and energy
        are of ("" without exits), the ends of the 95 % interval of its accuracy, backbone, exits, thresholds (None
        where no sample may stop), clocks in MHz, shares of samples by exit when deployed, `aurocs` and `eces`
        of the exits' scores (empty where they are not known), and `metrics` of all
        policies; `percentiles` of the latency in ms by policy, empty where they are not known; `sizes`, the peak memory
        of activations and the weights in kB, None where they are not known; `selection`, its metrics on the selection
        samples; `against` its own backbone without exits, the savings and the difference when deployed, with the
        `verdict`. `joined` and `holds` tell by cost how designs of a front are drawn (see `_front_members`): the place
        in the line, None beside it, and whether it is in full colour.
    """
    rows = [_network_row(result, design, design.found_by, design.found_by) for design in result.designs]
    for policy in POLICY_NAMES:
        front = [row for row in rows if row["kind"] == policy]
        for cost, name in COSTS.items():
            members, holding = _front_members(result.front(policy), policy, name)
            for index, row in enumerate(front):
                row["joined"][cost] = members.index(index) if index in members else None
                row["holds"][cost] = index in holding
    baselines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in result.levels:
        variants = [("static", "", level.static), ("static + DVFS", "", level.static_dvfs)]
        variants += [("exits", name, level.exits[name]) for name in POLICY_NAMES if level.exits[name].exits]
        for kind, policy, design in variants:
            row = _network_row(result, design, kind, policy)
            key = (kind, policy, *row["genome"], *row["exits"], *row["thresholds"])
            baselines.setdefault(key, row)
    return rows + list(baselines.values())


def _network_row(result: Result, design: Design, kind: str, policy: str) -> dict[str, Any]:
    test = design.test | {"static": design.static_test, "static + DVFS": design.static_dvfs_test}
    selection = design.selection | {"static": design.static_selection, "static + DVFS": design.static_dvfs_selection}
    accuracy = test[policy or kind].accuracy
    low, high = accuracy_interval(round(accuracy * result.test_images), images=result.test_images)
    deployed, difference = test["deployable"], design.differences["deployable"]
    return {
        "kind": kind,
        "policy": policy,
        **_metrics(test[policy or kind]),
        "accuracy_low": 100 * low,
        "accuracy_high": 100 * high,
        "metrics": {name: _metrics(each) for name, each in test.items()},
        "selection": _metrics(selection[policy or kind]),
        "sizes": None
        if design.weight_bytes is None
        else {"memory": (design.peak_memory_bytes or 0) / 1e3, "weights": design.weight_bytes / 1e3},
        "percentiles": {name: each.as_ms() for name, each in design.test_percentiles.items()},
        "backbone": dict(design.backbone),
        "genome": list(design.genome),
        "exits": list(design.exits),
        "thresholds": [None if math.isinf(value) else value for value in design.thresholds],
        "clocks": dict(design.clocks_mhz),
        "shares": list(design.test_shares),
        "aurocs": list(design.test_aurocs),
        "eces": [] if None in design.test_eces else list(design.test_eces),
        "dissimilarity": design.dissimilarity,
        "excess": design.excess,
        "joined": dict.fromkeys(COSTS),
        "holds": dict.fromkeys(COSTS, True),
        "against": {
            "energy_saved": 100 * deployed.saving(design.static_test),
            "energy_saved_dvfs": 100 * deployed.saving(design.static_dvfs_test),
            **_difference(difference),
            "verdict": result.verdict(difference),
        },
    }


def _metrics(performance: Performance) -> dict[str, float]:
    return {
        "accuracy": 100 * performance.accuracy,
        "latency": 1e3 * performance.latency_s,
        "energy": 1e3 * performance.energy_j,
    }


def _level_rows(result: Result) -> list[dict[str, Any]]:
    """Returns the rows of the table of levels, with savings of both costs.

    Savings are against the static network of the level at the default and (`_dvfs`) at its best clocks; the difference
    in accuracy is from the former.
    """
    return [
        {
            "level": 100 * level.accuracy,
            "network": row.network,
            "policy": row.policy,
            **_metrics(row.test),
            **{f"{cost}_saved": 100 * row.test.saving(row.static, name) for cost, name in COSTS.items()},
            **{f"{cost}_saved_dvfs": 100 * row.test.saving(row.static_dvfs, name) for cost, name in COSTS.items()},
            **_difference(row.versus.static),
            "verdict": "" if row.network == "static" else result.verdict(row.versus.static),
        }
        for level in result.levels
        for row in level.rows()
    ]


def _difference(difference: Difference) -> dict[str, float]:
    return {
        "accuracy_difference": 100 * difference.difference,
        "accuracy_difference_low": 100 * difference.low,
        "accuracy_difference_high": 100 * difference.high,
    }


def clock_curves(
    space: AnySpace, device: Device, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Computes what networks cost at all core clocks and a few memory clocks, the host at the clock of each.

    A network's samples stop where its thresholds stopped them on the test split, so at the clocks of the design the
    model gives again what the search reported; where it does not, the device or the space is no longer what it was.

    Args:
        space: The space of the backbones.
        device: The cost model with the clocks that were searched.
        rows: Networks as `network_rows` returns them.

    Returns:
        The settings of each clock in MHz, ascending; and for each row: `memory`, indices of up to `MOST_LINES` memory
        clocks, the network's own among them; `latency` in ms and `energy` in mJ per sample when deployed, one list over
        the core clocks for each of them; `at`, indices of its own clocks.

    Raises:
        ValueError: The model does not give what the rows report.
    """
    grid = {name: [round(float(hz) / 1e6, 3) for hz in getattr(device, f"{name}_hz")] for name in _CLOCKS}
    shape = tuple(len(settings) for settings in grid.values())
    networks = [(row["genome"], row["exits"]) for row in rows]
    curves = []
    for row, found in zip(rows, ExitCosts.of_networks(networks, space=space, device=device), strict=True):
        expected = found.expected(row["shares"])
        costs = {name: 1e3 * cost.reshape(shape) for name, cost in zip(("latency", "energy"), expected, strict=True)}
        at = tuple(int(np.argmin(np.abs(np.asarray(grid[name]) - row["clocks"][name]))) for name in _CLOCKS)
        for name, cost in costs.items():
            reported = row["metrics"]["deployable"][name]
            if abs(cost[at] / reported - 1) > _TOLERANCE:
                raise ValueError(
                    f"{device.name}: expected a device model that gives the {name} of the search, {reported:.4g}, got "
                    f"{cost[at]:.4g}"
                )
        memory = spread_rows(shape[1], MOST_LINES)
        memory[np.argmin(np.abs(memory - at[1]))] = at[1]  # the network's own in place of its neighbour
        lines = {
            name: [[float(f"{value:.4g}") for value in cost[:, m, at[2]]] for m in memory]
            for name, cost in costs.items()
        }
        curves.append({"memory": memory.tolist(), **lines, "at": list(at)})
    return grid, curves


def _searched_space(settings: SearchSettings | ExitsSettings, workdir: Path) -> AnySpace:
    """Returns the space that a search went through, as its supernet has it, or else from its data; or a given network.

    Raises:
        ValueError: Neither supernet nor data are where they were.
    """
    if isinstance(settings, ExitsSettings):
        return GivenDescription.read(workdir / GIVEN).space
    for supernet in (Path(settings.supernet.checkpoint or workdir / SUPERNET), workdir / SUPERNET):
        if (supernet / SUPERNET_FILE).is_file():
            return at_resolutions(Description.read(supernet).space, settings.supernet.resolutions)
    return TrainingRun(settings, fine_tune=False).space


_SCALE = 64.0  # pixels per unit of the layout
_RADIUS = 17.0  # of a node
_BUDGETS = ("min_fps", "max_latency_ms", "max_energy_mj")
# What may be known of a network, besides its cells and alpha.
_COSTS = ("hardware", "images_per_s", "latency", "energy", "clocks", "budgets")
_KNOWN = (*_COSTS, "validation_accuracy", "test_accuracy", "parameters", "macs")


def _darts_network(outcome: DnasResult | RetrainResult, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a network of the DARTS space as plain values.

    Args:
        outcome: What the run found or retrained.
        settings: The settings of the run.

    Returns:
        `code`, `genotype`, hardware, images_per_s, latency, energy, clocks, budgets, validation_accuracy,
        test_accuracy, parameters and macs, None where they are not known; `cells` with a `drawing` of each, and
        `alpha`: the `shares` of all operations on each edge and which `kept` in the network, or None without alpha.
    """
    code = parse_code(outcome.code)
    genotype = Genotype.of(code)
    drawings = {cell: {"drawing": _drawing(genotype.graph(cell))} for cell in CELLS}
    network: dict[str, Any] = {"code": outcome.code, "genotype": str(genotype)}
    network |= {**dict.fromkeys(_KNOWN), "cells": drawings, "alpha": None}
    if isinstance(outcome, RetrainResult):
        shares = {name: 100 * getattr(outcome, name) for name in ("validation_accuracy", "test_accuracy")}
        return network | shares | {"parameters": outcome.parameters, "macs": outcome.macs}
    has_budgets = any(settings.get(name) is not None for name in _BUDGETS)
    costs = {
        "hardware": outcome.hardware,
        "images_per_s": outcome.images_per_s,
        "latency": 1e3 / outcome.images_per_s if outcome.images_per_s > 0 else None,
        "energy": outcome.energy_mj,
        "clocks": None if outcome.clocks_mhz is None else list(outcome.clocks_mhz),
        "budgets": ("kept" if outcome.within_budgets else "not kept") if has_budgets else None,
    }
    return network | costs | {"alpha": _alpha(outcome, code)}


def _alpha(outcome: DnasResult, code: np.ndarray) -> dict[str, Any]:
    shares = np.asarray(jax.nn.softmax(jnp.asarray(outcome.alpha, jnp.float32), axis=-1), np.float64)
    # Inputs 0 and 1 are the two cells before, 2 + i is node i.
    names = ("k-2", "k-1", *range(4))
    edges = [f"{names[int(start)]} to {int(node)}" for start, node in zip(EDGE_INPUT, EDGE_NODE, strict=True)]
    return {
        "operations": list(OPERATIONS),
        "edges": edges,
        "shares": np.round(shares, 6).reshape(len(CELLS), len(edges), len(OPERATIONS)).tolist(),
        "kept": code.reshape(len(CELLS), len(edges)).tolist(),
    }


def _drawing(graph: CellGraph) -> dict[str, Any]:
    """A cell in pixels: its size, paths with the kind of their operation, labels and nodes."""
    paths, labels = [], []
    places, edges = cell_layout(graph)
    for edge in edges:
        start, control, end = map(_pixels, (edge.start, edge.control, edge.end))
        way = end - control
        end = end - _RADIUS * way / np.linalg.norm(way)  # at the rim of the node
        points = [round(float(value), 1) for value in (*start, *control, *end)]
        paths.append({"kind": edge.kind or "joins", "points": points})
        if edge.operation:
            labels.append({"kind": edge.kind, "at": _rounded(edge.label), "text": edge.operation.replace("_", " ")})
    nodes = [{"at": _rounded(place), "name": name.strip("c_{}")} for name, place in places.items()]
    size = _pixels((RIGHT, -TOP))
    return {"size": size.tolist(), "paths": paths, "labels": labels, "nodes": nodes, "radius": _RADIUS}


def _pixels(point: Point) -> np.ndarray:
    """From the layout, y up, to a drawing, y down."""
    return _SCALE * np.array([point[0] - LEFT, TOP - point[1]])


def _rounded(point: Point) -> list[float]:
    return [round(float(value), 1) for value in _pixels(point)]
