"""The content of a report as plain values: what the page, the pictures and the tables are made of."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hadas_jax.deploy.fine_tune_result import TunedFigures
from hadas_jax.methods import Result, Settings
from hadas_jax.methods.device_choice import chosen_device
from hadas_jax.methods.eh_dnas.result import FoundNetwork
from hadas_jax.methods.retrain_result import RetrainedNetwork
from hadas_jax.methods.training_run import TrainingRun
from hadas_jax.report.html.clock_curves import clock_curves, clock_grid_mhz
from hadas_jax.report.html.darts_networks import darts_network
from hadas_jax.report.html.designs import level_rows, network_rows
from hadas_jax.report.html.record import RunRecord
from hadas_jax.report.table import legend
from hadas_jax.spaces import MBConvSpace
from hadas_jax.trained import read_description
from hadas_jax.workdir import SUPERNET

MOST_RUNS = 8  # as many colours as can be told apart
# Settings that are shown beside the name of a run: of a search, and of others.
_FACTS = (("device", "dataset", "strategy", "seed"), ("network", "hardware", "dataset", "epochs", "seed"))


def report_content(records: Sequence[RunRecord], *, made: datetime) -> dict[str, Any]:
    """Brings runs together in one report.

    Args:
      records: of the runs.
      made: when the report is made.

    Returns:
      `made` and `runs`, each with its name, kind, settings and versions, `networks` (see `network_rows`, each with its
      `clock_curves` where the device model can give them), `levels` with their `legend` in words, `clock_grid`,
      `curves` (steps and values by stage and metric), `exits`, `darts` (a `darts_network` or None), `facts` in words,
      and `notes` on what is missing.

    Raises:
      ValueError: there are none, more than `MOST_RUNS`, or one twice.
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


def space_of(settings: Settings, workdir: Path) -> MBConvSpace:
    """Returns the space that a search went through, as its supernet has it, or else from its data.

    Raises:
      ValueError: neither supernet nor data are where they were.
    """
    places = [Path(place) for place in (settings.checkpoint, workdir / SUPERNET) if place is not None]
    for place in places:
        if (place / "supernet.json").is_file():
            space = read_description(place).space
            chosen = tuple(size for size in space.resolution if size in settings.resolutions)
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
    settings = Settings.from_mapping(record.settings, source=str(record.path))
    device = chosen_device(settings)
    curves = clock_curves(space_of(settings, record.path), device, run["networks"])
    run["clock_grid"] = clock_grid_mhz(device)
    run["networks"] = [row | {"curves": curve} for row, curve in zip(run["networks"], curves, strict=True)]


def _darts(record: RunRecord) -> dict[str, Any] | None:
    if isinstance(record.outcome, FoundNetwork | RetrainedNetwork):
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
    if isinstance(record.outcome, TunedFigures):
        facts += _tuned_facts(record.outcome)
    return facts if record.result is None else facts + _result_facts(record.result)


def _tuned_facts(tuned: TunedFigures) -> list[list[str]]:
    return [
        [f"{when} fine-tuning", f"{100 * f.accuracy:.2f} %, {1e3 * f.latency_s:.3g} ms, {1e3 * f.energy_j:.3g} mJ"]
        for when, f in (("before", tuned.before.deployable), ("after", tuned.after.deployable))
    ]


def _result_facts(result: Result) -> list[list[str]]:
    facts = [
        ["searched", f"{result.backbones:,} backbones, {result.candidates:,} dynamic versions"],
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
