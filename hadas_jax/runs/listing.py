"""The work directories below some folders: what runs they hold, how far those are, and what they found."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hadas_jax.runs.names import CONFIG, METRICS, RESULT

_FORM = "hadas_jax."


@dataclass(frozen=True)
class RunState:
    """A run in its work directory.

    Attributes:
        path: Of the work directory.
        kind: Search, train, fine-tune, dnas-search or dnas-retrain; empty where config.json cannot be read.
        dataset: Of its settings, without folders; of fine-tuning its network, which names that.
        hardware: Device or accelerator of its settings; empty where there is none.
        steps: Done of each stage, by name.
        figures: What it found, in words; None: not finished.
        changed: When something was last written, in seconds since 1970.
    """

    path: Path
    kind: str
    dataset: str
    hardware: str
    steps: dict[str, int]
    figures: str | None
    changed: float


def find_runs(folders: Sequence[Path | str]) -> list[RunState]:
    """Returns the runs in some folders, the newest first.

    Args:
        folders: Work directories, or folders of them.

    Raises:
        ValueError: A folder does not exist.
    """
    found: dict[Path, RunState] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"{folder}: expected a work directory or a folder of them, got none")
        for place in [folder, *folder.iterdir()]:
            if (place / CONFIG).is_file():
                found[place.resolve()] = run_state(place)
    return sorted(found.values(), key=lambda run: (-run.changed, str(run.path)))


def run_state(path: Path) -> RunState:
    """Returns the state of the run in a work directory."""
    config = _mapping(path / CONFIG)
    form, settings = str(config.get("form")), config.get("settings")
    kind = form.removeprefix(_FORM).partition("/")[0] if form.startswith(_FORM) else ""
    settings = settings if isinstance(settings, dict) else {}
    written = [entry.stat().st_mtime for entry in path.iterdir() if entry.is_file()]
    return RunState(
        path=path,
        kind=kind,
        dataset=_short(settings.get("dataset")) or _ending(settings.get("network")),
        hardware=_short(settings.get("device") or settings.get("hardware")),
        steps=_steps(path / METRICS),
        figures=_figures(kind, path),
        changed=max(written),
    )


def _short(name: object) -> str:
    """A data set, device or hardware without folders and ending."""
    kind, colon, place = str(name or "").rpartition(":")
    return f"{kind}{colon}{Path(place).stem}"


def _ending(place: object) -> str:
    """The last two parts of the path of a network."""
    return "/".join(Path(str(place or "")).parts[-2:])


def _steps(path: Path) -> dict[str, int]:
    """The last step of each stage in metrics.jsonl."""
    found: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
            found[str(entry["stage"])] = int(entry["step"])
        except (ValueError, KeyError, TypeError):  # the last line of a killed run
            continue
    return found


def _figures(kind: str, path: Path) -> str | None:
    if kind not in _RESULTS:
        return None
    name, told = _RESULTS[kind]
    if not (path / name).is_file():
        return None
    try:
        return told(path / name)
    except (ValueError, KeyError, IndexError, TypeError):
        return f"{name} cannot be read"


def _of_search(path: Path) -> str:
    rows = [row for row in _rows(path) if row["network"] == "exits + clocks" and row["policy"] == "deployable"]
    best = rows[0]
    accuracy, latency, energy = (float(best[name]) for name in ("test_accuracy", "latency_ms", "energy_mj"))
    found, saved = f"{accuracy:.1%} at {latency:.3g} ms, {energy:.3g} mJ", f"{float(best['energy_saving']):.0%} saved"
    if "verdict" not in best:  # of a version that compared with the default clocks alone
        return f"{found} ({saved})"
    points = 100 * float(best["accuracy_difference"])
    by_clocks = f"{float(best['energy_saving_dvfs']):.0%} of static + DVFS"
    return f"{found} ({saved}, {by_clocks}; {points:+.1f} points, {best['verdict']})"


def _of_training(path: Path) -> str:
    finals = [row for row in _rows(path) if row["block"] == "final"]
    return ", ".join(f"{row['backbone']} {float(row['test_accuracy']):.1%}" for row in finals)


def _of_dnas_search(path: Path) -> str:
    found = _mapping(path)
    energy = "" if found["energy_mj"] is None else f", {found['energy_mj']:.3g} mJ"
    return f"{found['images_per_s']:,.0f} images/s{energy}"


def _of_retraining(path: Path) -> str:
    found = _mapping(path)
    return f"{found['test_accuracy']:.1%}, {found['parameters']:,} weights"


def _of_fine_tuning(path: Path) -> str:
    found = _mapping(path)["after"]["deployable"]
    return f"{1 - found['error']:.1%} at {1e3 * found['latency_s']:.3g} ms, {1e3 * found['energy_j']:.3g} mJ"


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
    "train": ("exits.csv", _of_training),
    "dnas-search": ("genotype.json", _of_dnas_search),
    "fine-tune": (RESULT, _of_fine_tuning),
    "dnas-retrain": (RESULT, _of_retraining),
}
