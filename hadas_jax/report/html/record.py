"""What a work directory holds, read back: settings, versions, metrics, and what its kind of run found."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hadas_jax.data import SplitRecord
from hadas_jax.deploy import fine_tune as fine_tune_result
from hadas_jax.deploy.check import Check, read_check
from hadas_jax.deploy.fine_tune import NETWORK, FineTuneResult
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.deploy.robustness import UnderCorruption, under_corruptions
from hadas_jax.methods import Result
from hadas_jax.methods.eh_dnas import retrain as retrain_result
from hadas_jax.methods.eh_dnas.result import GENOTYPE, DnasResult, read_genotype
from hadas_jax.methods.eh_dnas.retrain import RetrainResult
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.runs.checkpoints import validated
from hadas_jax.runs.listing import read_metrics
from hadas_jax.runs.names import CHECK, CONFIG, RESULT

_Outcome = DnasResult | RetrainResult | FineTuneResult

_PREFIX = "hadas_jax."
# By kind of run, the file that is written when it is finished, and what reads it.
_OUTCOMES: dict[str, tuple[str, Callable[[Path], _Outcome]]] = {
    "dnas-search": (GENOTYPE, read_genotype),
    "dnas-retrain": (RESULT, retrain_result.read_result),
    "fine-tune": (RESULT, fine_tune_result.read_result),
}


@dataclass(frozen=True)
class RunRecord:
    """One run as its files tell it.

    Attributes:
        path: The work directory.
        kind: `search`, `train`, or another one that a work directory may hold.
        settings: The settings of the run.
        data: The record of its data set and division; None: of an earlier version.
        versions: The versions of what it ran on.
        result: What a search found; None for other kinds.
        metrics: The lines of metrics.jsonl, each with its stage and step.
        exits: The rows of exits.csv: backbone, block and test accuracy; `auroc_` columns but in earlier versions.
        outcome: What a search of architectures, a retraining or fine-tuning found; None for other kinds, or while
            unfinished.
        check: What hadas devices check found; None: it has not been run.
    """

    path: Path
    kind: str
    settings: dict[str, Any]
    data: SplitRecord | None
    versions: dict[str, str]
    result: Result | None
    metrics: tuple[dict[str, Any], ...]
    exits: tuple[dict[str, str], ...]
    outcome: _Outcome | None
    check: Check | None = None


def read_record(path: Path | str) -> RunRecord:
    """Reads a work directory.

    Args:
        path: The work directory.

    Returns:
        What is in it.

    Raises:
        ValueError: There is no run, it is unfinished, or its files are no such files.
    """
    workdir = Path(path)
    if not (workdir / CONFIG).is_file():
        raise ValueError(f"{workdir}: expected a work directory, got one without {CONFIG}")
    config = _read_json(workdir / CONFIG)
    form = str(config.get("form"))
    if not (form.startswith(_PREFIX) and form.endswith("/1") and isinstance(config.get("settings"), dict)):
        raise ValueError(f"{workdir / CONFIG}: expected form {_PREFIX}KIND/1 with settings, got {form!r}")
    kind, metrics = form[len(_PREFIX) : -2], tuple(read_metrics(workdir))
    result = read_search(workdir).result if kind in ("search", "exits") else None
    outcome = _outcome(kind, workdir)
    if result is None and outcome is None and not metrics:
        raise ValueError(f"{workdir}: expected a run with results, got one of kind {kind} that has none yet")
    return RunRecord(
        path=workdir,
        kind=kind,
        settings=config["settings"],
        data=validated(SplitRecord | None, config.get("data"), path=workdir / CONFIG),  # type: ignore[arg-type]
        versions=config.get("versions") or {},
        result=result,
        metrics=metrics,
        exits=_exits(workdir / "exits.csv"),
        outcome=outcome,
        check=read_check(workdir / CHECK) if (workdir / CHECK).is_file() else None,
    )


def read_robustness(record: RunRecord) -> tuple[UnderCorruption, ...] | str:
    """Evaluates the network of a run under corruptions of its test images.

    Args:
        record: Of a search from whose front a network was selected, or of fine-tuning.

    Returns:
        What it does, see `under_corruptions`; or in words why that cannot be told.
    """
    try:
        network = network_at(record.path / NETWORK if record.kind == "fine-tune" else record.path)
        return under_corruptions(network, data_of(network.architecture).test)
    except (ValueError, OSError) as error:
        return f"Corruptions are left out: {' '.join(str(error).split())}"


def _outcome(kind: str, workdir: Path) -> _Outcome | None:
    if kind not in _OUTCOMES:
        return None
    name, read = _OUTCOMES[kind]
    return read(workdir / name) if (workdir / name).is_file() else None


def _exits(path: Path) -> tuple[dict[str, str], ...]:
    if not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        rows = tuple(csv.DictReader(file))
    if rows and not {"backbone", "block", "test_accuracy"} <= set(rows[0]):
        raise ValueError(f"{path}: expected columns backbone, block, test_accuracy, got {', '.join(rows[0])}")
    return rows


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: expected a JSON file, cannot read it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got {type(content).__name__}")
    return content
