"""The content of a report as plain values: what the page, the pictures and the tables are made of.

Latency and energy of the networks of a front over the clocks, by the device model.

A network's samples stop where its thresholds stopped them on the test split, so at the clocks of the design the model
gives again what the search reported; where it does not, the device or the space is no longer what it was then.
Shapes: E exits of the space, D = 2 E + 1 segments, F operating points, Nc and Nm settings of core and memory clock.

Networks of the DARTS space in a report: what a search by gradient found, what a retraining made of it.

Accuracies in percent, latency in ms and energy in mJ of one image, clocks in MHz.

The networks of a front as rows for people: designs found, and the static and exits-only ones beside them.

Accuracies in percent on the test split, their differences in points, latency in ms and energy in mJ of one sample.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.fine_tune import FineTuneResult
from hadas_jax.evaluation import Difference, accuracy_interval, segment_costs
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.eh_dnas.result import DnasResult
from hadas_jax.methods.eh_dnas.retrain import RetrainResult
from hadas_jax.methods.hadas.results import POLICY_NAMES
from hadas_jax.report.darts import LEFT, RIGHT, TOP, Point, arrows, node_places
from hadas_jax.report.html.record import RunRecord
from hadas_jax.report.search import drawn, legend
from hadas_jax.runs.workdir import SUPERNET
from hadas_jax.settings import SearchSettings
from hadas_jax.spaces import MBConvSpace, block_active
from hadas_jax.spaces.darts import CELLS, parse_code
from hadas_jax.spaces.genotypes import CellGraph, Genotype, cell_graph, genotype_of
from hadas_jax.supernet.checkpoint import read_description
from hadas_jax.training.run import TrainingRun
from hw_models import Cost, Device
from hw_models.accelerator.network import EDGE_INPUT, EDGE_NODE, OPERATIONS
from hw_models.catalogue import chosen_device

MOST_LINES = 5
_TOLERANCE = 1e-3


def clock_grid_mhz(device: Device) -> dict[str, list[float]]:
    """Returns the settings of each clock in MHz, ascending."""
    return {
        name: [round(float(hz) / 1e6, 3) for hz in getattr(device, f"{name}_hz")] for name in ("core", "memory", "host")
    }


def clock_curves(space: MBConvSpace, device: Device, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prices networks at all core clocks and a few memory clocks, the host at the clock of each.

    Args:
        space: Of the backbones.
        device: With the clocks that were searched.
        rows: Of `network_rows`.

    Returns:
        For each row: `memory`, indices of up to `MOST_LINES` memory clocks, the network's own among them; `latency` in
        ms and `energy` in mJ per sample when deployed, one list over the core clocks for each of them; `at`, indices of
        its own clocks.

    Raises:
        ValueError: The model does not give what the rows report.
    """
    grid = clock_grid_mhz(device)
    shape = tuple(len(settings) for settings in grid.values())

    @jax.jit
    def priced(genome: jax.Array) -> tuple[Cost, jax.Array]:
        backbone = space.decode(genome)
        return segment_costs(space, backbone, device), block_active(space, backbone)

    known: dict[tuple[int, ...], Any] = {}
    curves = []
    for row in rows:
        genome = tuple(row["genome"])
        if genome not in known:
            known[genome] = jax.tree.map(np.asarray, priced(jnp.asarray(genome, jnp.int32)))
        cost, active = known[genome]
        weights = segment_weights(space, active, exits=row["exits"], shares=row["shares"])
        latency, energy = (
            1e3 * (weights @ np.asarray(leaf, np.float64)).reshape(shape) for leaf in (cost.latency_s, cost.energy_j)
        )
        at = tuple(_nearest(settings, row["clocks"][name]) for name, settings in grid.items())
        _check(row, latency[at], energy[at], device)
        memory = _lines(shape[1], at[1])
        curves.append(
            {
                "memory": memory,
                "latency": [_short(latency[:, m, at[2]]) for m in memory],
                "energy": [_short(energy[:, m, at[2]]) for m in memory],
                "at": list(at),
            }
        )
    return curves


def segment_weights(
    space: MBConvSpace, active: np.ndarray, *, exits: Sequence[int], shares: Sequence[float]
) -> np.ndarray:
    """Returns how often a sample runs each segment, float64[D]: the trunk's, then the heads'.

    Args:
        space: Of the backbone.
        active: bool[N], block positions that the backbone uses.
        exits: The backbone's own blocks that an exit follows, ascending.
        shares: Of the samples that stop at each exit, and last at the classifier.
    """
    taken = np.flatnonzero(active)[list(exits)] - space.first_exit
    stopped = np.zeros(space.num_exits + 1)
    stopped[taken + 1] = shares[:-1]
    trunk = 1.0 - np.cumsum(stopped)
    heads = np.zeros(space.num_exits)
    heads[taken] = trunk[taken]
    return np.concatenate([trunk, heads])


def _check(row: dict[str, Any], latency: float, energy: float, device: Device) -> None:
    reported = row["figures"]["deployable"]
    for name, found in (("latency", latency), ("energy", energy)):
        if abs(found / reported[name] - 1) > _TOLERANCE:
            raise ValueError(
                f"{device.name}: expected a device model that gives the {name} of the search, "
                f"{reported[name]:.4g}, got {found:.4g}"
            )


def _nearest(settings: list[float], mhz: float) -> int:
    return int(np.argmin(np.abs(np.asarray(settings) - mhz)))


def _lines(count: int, own: int) -> list[int]:
    """Returns a few of the memory clocks, evenly spread, with the network's own in place of its neighbour."""
    spread = np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round().astype(int))
    spread[np.argmin(np.abs(spread - own))] = own
    return spread.tolist()


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


_SCALE = 64.0  # pixels per unit of the layout
_RADIUS = 17.0  # of a node
_BUDGETS = ("min_fps", "max_latency_ms", "max_energy_mj")
# Columns of the table of networks: heading, and the value in words, where a network has one.
_COLUMNS = (
    ("hardware", "hardware", str),
    ("images/s", "images_per_s", "{:,.1f}".format),
    ("latency, ms", "latency", "{:.4g}".format),
    ("energy, mJ", "energy", "{:.4g}".format),
    ("clocks, MHz", "clocks", lambda clocks: " ".join(f"{mhz:.5g}" for mhz in clocks)),
    ("budgets", "budgets", str),
    ("validation", "validation_accuracy", "{:.2f} %".format),
    ("test", "test_accuracy", "{:.2f} %".format),
    ("weights", "parameters", "{:,}".format),
    ("million MACs", "macs", lambda macs: f"{macs / 1e6:,.2f}"),
)
# Values of a network that a table of numbers has.
NETWORK_VALUES = ("code", "genotype", *(name for _, name, _ in _COLUMNS))


def darts_network(outcome: DnasResult | RetrainResult, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a network as plain values.

    Args:
        outcome: Of the run.
        settings: Of the run.

    Returns:
        `code`, `genotype`, `cells` with a `drawing` of each, `alpha`: the `shares` of
        all operations on each edge and which `kept` in the network, or None without alpha; and those of hardware,
        images_per_s, latency, energy, clocks, budgets, validation_accuracy, test_accuracy, parameters and macs that are
        known.
    """
    code = parse_code(outcome.code)
    genotype = genotype_of(code)
    network = {"code": outcome.code, "genotype": str(genotype), "cells": _cells(genotype), "alpha": None}
    if isinstance(outcome, RetrainResult):
        shares = {name: 100 * getattr(outcome, name) for name in ("validation_accuracy", "test_accuracy")}
        return network | shares | {"parameters": outcome.parameters, "macs": outcome.macs}
    costs = {
        "hardware": outcome.hardware,
        "images_per_s": outcome.images_per_s,
        "latency": 1e3 / outcome.images_per_s if outcome.images_per_s > 0 else None,
        "energy": outcome.energy_mj,
        "clocks": None if outcome.clocks_mhz is None else list(outcome.clocks_mhz),
        "budgets": None,
    }
    if any(settings.get(name) is not None for name in _BUDGETS):
        costs["budgets"] = "kept" if outcome.within_budgets else "not kept"
    return network | costs | {"alpha": _alpha(outcome, code)}


def network_columns(networks: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns the headings and the rows of a table of networks; what none of them has is left out."""
    known = [column for column in _COLUMNS if any(network.get(column[1]) is not None for network in networks)]
    rows = [["" if n.get(name) is None else told(n[name]) for _, name, told in known] for n in networks]
    return [heading for heading, _, _ in known], rows


def _alpha(outcome: DnasResult, code: np.ndarray) -> dict[str, Any]:
    shares = np.asarray(jax.nn.softmax(jnp.asarray(outcome.alpha, jnp.float32), axis=-1), np.float64)
    edges = [_edge(int(start), int(node)) for start, node in zip(EDGE_INPUT, EDGE_NODE, strict=True)]
    return {
        "operations": list(OPERATIONS),
        "edges": edges,
        "shares": np.round(shares, 6).reshape(len(CELLS), len(edges), len(OPERATIONS)).tolist(),
        "kept": code.reshape(len(CELLS), len(edges)).tolist(),
    }


def _edge(start: int, node: int) -> str:
    """An edge in words; inputs 0 and 1 are the two cells before, 2 + i is node i."""
    return f"{('k-2', 'k-1', *range(4))[start]} to {node}"


def _cells(genotype: Genotype) -> dict[str, Any]:
    return {cell: {"drawing": _drawing(cell_graph(genotype, cell))} for cell in CELLS}


def _drawing(graph: CellGraph) -> dict[str, Any]:
    """A cell in pixels: its size, paths with the kind of their operation, labels and nodes."""
    paths, labels = [], []
    for edge in arrows(graph):
        start, control, end = map(_pixels, (edge.start, edge.control, edge.end))
        way = end - control
        end = end - _RADIUS * way / np.linalg.norm(way)  # at the rim of the node
        points = [round(float(value), 1) for value in (*start, *control, *end)]
        paths.append({"kind": edge.kind or "joins", "points": points})
        if edge.operation:
            labels.append({"kind": edge.kind, "at": _rounded(edge.label), "text": edge.operation.replace("_", " ")})
    nodes = [{"at": _rounded(place), "name": name.strip("c_{}")} for name, place in node_places(graph).items()]
    size = _pixels((RIGHT, -TOP))
    return {"size": size.tolist(), "paths": paths, "labels": labels, "nodes": nodes, "radius": _RADIUS}


def _pixels(point: Point) -> np.ndarray:
    """From the layout, y up, to a drawing, y down."""
    return _SCALE * np.array([point[0] - LEFT, TOP - point[1]])


def _rounded(point: Point) -> list[float]:
    return [round(float(value), 1) for value in _pixels(point)]


FIGURES = ("accuracy", "latency", "energy")
COSTS = {"energy": "energy_j", "latency": "latency_s"}


def network_rows(result: Result) -> list[dict[str, Any]]:
    """Returns every network of a result once.

    Args:
        result: Of a search.

    Returns:
        A row for each: `kind` (`ideal` and `deployable` of the fronts, `exits` with exits at the default clocks,
        `static` without exits, `static + DVFS` at its best clocks), the `policy` that its accuracy, latency and energy
        are of ("" without exits), the ends of the 95 % interval of its accuracy, backbone, exits, thresholds (None
        where
        no sample may stop), clocks in MHz, shares of samples by exit when deployed, and figures of all policies;
        `against` its own backbone without exits, the savings and the difference when deployed, with the `verdict`.
        `joined` and `holds` tell by cost how designs of a front are drawn (see `hadas_jax.report.search`): the
        place in the line, None beside it, and whether it is in full colour.
    """
    rows = [_row(result, design, design.found_by, design.found_by) for design in result.designs]
    for policy in POLICY_NAMES:
        front = [row for row in rows if row["kind"] == policy]
        for cost, name in COSTS.items():
            members, holding = drawn(result.front(policy), policy, name)
            for index, row in enumerate(front):
                row["joined"][cost] = members.index(index) if index in members else None
                row["holds"][cost] = index in holding
    baselines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in result.levels:
        found = [_row(result, level.static, "static", ""), _row(result, level.static_dvfs, "static + DVFS", "")]
        found += [_row(result, level.exits[name], "exits", name) for name in POLICY_NAMES if level.exits[name].exits]
        for row in found:
            key = (row["kind"], row["policy"], *row["genome"], *row["exits"], *row["thresholds"])
            baselines.setdefault(key, row)
    return rows + list(baselines.values())


def level_rows(result: Result) -> list[dict[str, Any]]:
    """Returns what exits and clocks save at each accuracy level, against its static networks.

    Args:
        result: Of a search.

    Returns:
        Rows with level, network (see `LevelRow`), policy, figures, the savings of energy and latency in percent against
        the static network at the default and (`_dvfs`) at its best clocks, the difference in accuracy from the former
        with its interval, and the `verdict` ("" of that network itself).
    """
    rows = []
    for level in result.levels:
        for each in level.rows():
            row = {"level": 100 * level.accuracy, "network": each.network, "policy": each.policy}
            row |= _figures(each.test)
            for suffix, reference in (("", each.static), ("_dvfs", each.static_dvfs)):
                row |= {
                    f"{cost}_saved{suffix}": 100 * each.test.saving(reference, name) for cost, name in COSTS.items()
                }
            difference = each.versus.static
            row |= _difference(difference)
            rows.append(row | {"verdict": "" if each.network == "static" else result.verdict(difference)})
    return rows


def _row(result: Result, design: Design, kind: str, policy: str) -> dict[str, Any]:
    every = {name: _figures(design.test[name]) for name in POLICY_NAMES}
    every |= {"static": _figures(design.static_test), "static + DVFS": _figures(design.static_dvfs_test)}
    own = every[policy or kind]
    right = round(own["accuracy"] / 100 * result.test_images)
    low, high = accuracy_interval(right, images=result.test_images)
    deployed, difference = design.test["deployable"], design.differences["deployable"]
    return {
        "kind": kind,
        "policy": policy,
        **own,
        "accuracy_low": 100 * low,
        "accuracy_high": 100 * high,
        "figures": every,
        "backbone": dict(design.backbone),
        "genome": list(design.genome),
        "exits": list(design.exits),
        "thresholds": [None if math.isinf(value) else value for value in design.thresholds],
        "clocks": dict(design.clocks_mhz),
        "shares": list(design.test_shares),
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


def _figures(performance: Performance) -> dict[str, float]:
    return {
        "accuracy": 100 * performance.accuracy,
        "latency": 1e3 * performance.latency_s,
        "energy": 1e3 * performance.energy_j,
    }


def _difference(found: Difference) -> dict[str, float]:
    return {
        "accuracy_difference": 100 * found.difference,
        "accuracy_difference_low": 100 * found.low,
        "accuracy_difference_high": 100 * found.high,
    }


MOST_RUNS = 8  # as many colours as can be told apart
# Settings that are shown beside the name of a run: of a search, and of others.
_FACTS = (("device", "dataset", "strategy", "seed"), ("network", "hardware", "dataset", "epochs", "seed"))


def report_content(records: Sequence[RunRecord], *, made: datetime) -> dict[str, Any]:
    """Brings runs together in one report.

    Args:
        records: Of the runs.
        made: When the report is made.

    Returns:
        `made` and `runs`, each with its name, kind, settings and versions, `networks` (see `network_rows`, each with
        its
        `clock_curves` where the device model can give them), `levels` with their `legend` in words, `clock_grid`,
        `curves` (steps and values by stage and metric), `exits`, `darts` (a `darts_network` or None), `facts` in words,
        and `notes` on what is missing.

    Raises:
        ValueError: There are none, more than `MOST_RUNS`, or one twice.
    """
    if not 1 <= len(records) <= MOST_RUNS:
        raise ValueError(f"work directories: expected 1 to {MOST_RUNS}, got {len(records)}")
    places = Counter(record.path.resolve() for record in records)
    if len(places) < len(records):
        raise ValueError(f"work directories: expected different ones, got {places.most_common(1)[0][0]} twice")
    runs = [_run(record, name) for record, name in zip(records, _names(records), strict=True)]
    return {"made": made.strftime("%Y-%m-%d %H:%M"), "runs": runs}


def metric_curves(metrics: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Returns steps and values by stage and metric, in the order of the lines; None for values that are not finite."""
    curves: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for entry in metrics:
        for name, value in entry.items():
            if name in ("stage", "step") or not isinstance(value, int | float):
                continue
            curve = curves.setdefault(entry["stage"], {}).setdefault(name, {"steps": [], "values": []})
            curve["steps"].append(entry["step"])
            curve["values"].append(value if math.isfinite(value) else None)
    return curves


def space_of(settings: SearchSettings, workdir: Path) -> MBConvSpace:
    """Returns the space that a search went through, as its supernet has it, or else from its data.

    Raises:
        ValueError: Neither supernet nor data are where they were.
    """
    places = [Path(place) for place in (settings.supernet.checkpoint, workdir / SUPERNET) if place is not None]
    for place in places:
        if (place / "supernet.json").is_file():
            space = read_description(place).space
            chosen = tuple(size for size in space.resolution if size in settings.supernet.resolutions)
            return dataclasses.replace(space, resolution=chosen or space.resolution)
    return TrainingRun(settings, fine_tune=False).space


def _run(record: RunRecord, name: str) -> dict[str, Any]:
    run: dict[str, Any] = {
        "name": name,
        "path": str(record.path),
        "kind": record.kind,
        "settings": record.settings,
        "versions": record.versions,
        "networks": [],
        "levels": [],
        "clock_grid": None,
        "curves": metric_curves(record.metrics),
        "exits": _exit_curves(record.exits),
        "darts": _darts(record),
        "facts": _facts(record),
        "legend": [],
        "notes": [],
    }
    if record.result is not None:
        run["networks"], run["levels"] = network_rows(record.result), level_rows(record.result)
        run["legend"] = legend(record.result)
        try:
            _add_clock_curves(run, record)
        except (ValueError, OSError) as error:
            run["notes"].append(f"Energy over clocks is left out: {' '.join(str(error).split())}")
    return run


def _add_clock_curves(run: dict[str, Any], record: RunRecord) -> None:
    settings = SearchSettings.from_mapping(record.settings, source=str(record.path))
    device = chosen_device(settings.device, settings.operating)
    curves = clock_curves(space_of(settings, record.path), device, run["networks"])
    run["clock_grid"] = clock_grid_mhz(device)
    run["networks"] = [row | {"curves": curve} for row, curve in zip(run["networks"], curves, strict=True)]


def _darts(record: RunRecord) -> dict[str, Any] | None:
    if isinstance(record.outcome, DnasResult | RetrainResult):
        return darts_network(record.outcome, record.settings)
    return None


def _exit_curves(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, list[float]]]:
    """Returns blocks and test accuracies in percent of each backbone; the classifier's block is one past the last."""
    curves: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        curve = curves.setdefault(row["backbone"], {"blocks": [], "accuracies": []})
        last = curve["blocks"][-1] + 1 if curve["blocks"] else 0
        curve["blocks"].append(int(row["block"]) if row["block"].isdigit() else last)
        curve["accuracies"].append(100 * float(row["test_accuracy"]))
    return curves


def _facts(record: RunRecord) -> list[list[str]]:
    """Pairs of a name and a value in words, the most telling ones first."""
    facts = [[name, str(record.settings[name])] for name in _FACTS[record.result is None] if name in record.settings]
    if record.data is not None:
        parts = ", ".join(f"{count:,} {name}" for name, count in record.data.parts.items())
        facts.append(["images", f"{parts}; divided {record.data.rule.partition('/')[0]}, seed {record.data.seed}"])
    if isinstance(record.outcome, FineTuneResult):
        facts += _tuned_facts(record.outcome)
    return facts if record.result is None else facts + _result_facts(record.result)


def _tuned_facts(tuned: FineTuneResult) -> list[list[str]]:
    return [
        [f"{when} fine-tuning", f"{100 * f.accuracy:.2f} %, {1e3 * f.latency_s:.3g} ms, {1e3 * f.energy_j:.3g} mJ"]
        for when, f in (("before", tuned.before.deployable), ("after", tuned.after.deployable))
    ]


def _result_facts(result: Result) -> list[list[str]]:
    facts = [
        ["searched", f"{result.backbones:,} backbones, {result.candidates:,} dynamic candidates"],
        ["largest backbone", f"{100 * result.largest_test_accuracy:.1f} % right without exits"],
        ["smallest backbone", f"{100 * result.smallest_test_accuracy:.1f} % right without exits"],
    ]
    limits = {name: limit for name, limit in dataclasses.asdict(result.limits).items() if limit is not None}
    for policy, is_kept in result.within_limits.items() if limits else ():
        words = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
        facts.append([f"limits, {policy}", f"{words}: {'kept' if is_kept else 'broken'}"])
    return facts


def _names(records: Sequence[RunRecord]) -> list[str]:
    """The last word of each path, or the whole path where that is no name of its own."""
    short = [record.path.resolve().name for record in records]
    count = Counter(short)
    return [name if count[name] == 1 else str(record.path) for name, record in zip(short, records, strict=True)]
