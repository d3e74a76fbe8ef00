"""The work directories below some folders: what runs they hold, how far those are, and what they found."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hadas_jax.runs.names import CONFIG, FORM, METRICS, RESULT


@dataclass(frozen=True)
class RunState:
    """A run in its work directory.

    Attributes:
        path: The work directory.
        kind: Search, train, fine-tune, dnas-search or dnas-retrain; empty where config.json cannot be read.
        dataset: Data set of its settings, without folders; of fine-tuning the network, which names it.
        hardware: Device or accelerator of its settings; empty where there is none.
        steps: Steps done of each stage, by name.
        result: What it found, in words; None: not finished.
        changed: When something was last written, in seconds since 1970.
    """

    path: Path
    kind: str
    dataset: str
    hardware: str
    steps: dict[str, int]
    result: str | None
    changed: float


def find_runs(folders: Sequence[Path | str]) -> list[RunState]:
    """Returns the runs in some folders, the newest first.

    Args:
        folders: Work directories, or folders of them.

    Raises:
        ValueError: A folder does not exist.
    """
    runs: dict[Path, RunState] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"{folder}: expected a work directory or a folder of them, got none")
        for path in [folder, *folder.iterdir()]:
            if (path / CONFIG).is_file():
                runs[path.resolve()] = _run_state(path)
    return sorted(runs.values(), key=lambda run: (-run.changed, str(run.path)))


def _run_state(path: Path) -> RunState:
    """Returns the state of the run in a work directory."""
    config = _mapping(path / CONFIG)
    form, settings = str(config.get("form")), config.get("settings")
    kind = form.removeprefix(FORM).partition("/")[0] if form.startswith(FORM) else ""
    settings = settings if isinstance(settings, dict) else {}
    network = Path(str(settings.get("network") or ""))
    written = [entry.stat().st_mtime for entry in path.iterdir() if entry.is_file()]
    return RunState(
        path=path,
        kind=kind,
        dataset=_without_folders(settings.get("dataset")) or "/".join(network.parts[-2:]),
        hardware=_without_folders(settings.get("device") or settings.get("hardware")),
        steps={entry["stage"]: entry["step"] for entry in read_metrics(path)},
        result=_result(kind, path),
        changed=max(written),
    )


def _without_folders(name: object) -> str:
    """A data set, device or hardware without folders and ending."""
    kind, colon, path = str(name or "").rpartition(":")
    return f"{kind}{colon}{Path(path).stem}"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl of a work directory that tell a stage and a step; none where there is no file.

    A run that was killed may leave half a line, which is left out as is whatever else is no such line.
    """
    path = workdir / METRICS
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("stage"), str) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


def _result(kind: str, path: Path) -> str | None:
    if kind not in _RESULTS:
        return None
    name, describe = _RESULTS[kind]
    if not (path / name).is_file():
        return None
    try:
        return describe(path / name)
    except (ValueError, KeyError, IndexError, TypeError):
        return f"{name} cannot be read"


def _of_search(path: Path) -> str:
    rows = [row for row in _rows(path) if row["network"] == "exits + clocks" and row["policy"] == "deployable"]
    best = rows[0]
    accuracy, latency, energy = (float(best[name]) for name in ("test_accuracy", "latency_ms", "energy_mj"))
    costs, saved = f"{accuracy:.1%} at {latency:.3g} ms, {energy:.3g} mJ", f"{float(best['energy_saving']):.0%} saved"
    if "verdict" not in best:  # of a version that compared with the default clocks alone
        return f"{costs} ({saved})"
    points = 100 * float(best["accuracy_difference"])
    by_clocks = f"{float(best['energy_saving_dvfs']):.0%} of static + DVFS"
    return f"{costs} ({saved}, {by_clocks}; {points:+.1f} points, {best['verdict']})"


def _of_training(path: Path) -> str:
    finals = [row for row in _rows(path) if row["block"] == "final"]
    return ", ".join(f"{row['backbone']} {float(row['test_accuracy']):.1%}" for row in finals)


def _of_dnas_search(path: Path) -> str:
    result = _mapping(path)
    energy = "" if result["energy_mj"] is None else f", {result['energy_mj']:.3g} mJ"
    return f"{result['images_per_s']:,.0f} images/s{energy}"


def _of_retraining(path: Path) -> str:
    result = _mapping(path)
    return f"{result['test_accuracy']:.1%}, {result['parameters']:,} weights"


def _of_fine_tuning(path: Path) -> str:
    result = _mapping(path)["after"]["deployable"]
    return f"{1 - result['error']:.1%} at {1e3 * result['latency_s']:.3g} ms, {1e3 * result['energy_j']:.3g} mJ"


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


# By kind of run, the file that is written when it is finished, and what it says.
_RESULTS: dict[str, tuple[str, Callable[[Path], str]]] = {
    "search": ("levels.csv", _of_search),
    "exits": ("levels.csv", _of_search),
    "train": ("exits.csv", _of_training),
    "dnas-search": ("genotype.json", _of_dnas_search),
    "fine-tune": (RESULT, _of_fine_tuning),
    "dnas-retrain": (RESULT, _of_retraining),
}
