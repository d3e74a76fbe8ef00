"""What a run finds, in plain Python values: designs, accuracy levels, and the files that hold them.

Units: errors are shares of samples; latency in s, energy in J inside, ms and mJ in the files.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from hadas_jax.methods.limits import NO_LIMITS, Limits
from hadas_jax.workdir import write_text

POLICY_NAMES = ("ideal", "deployable")
FORM = "hadas_jax.front/1"

# JSON has no infinity: null stands for it in files.
Threshold = Annotated[
    float,
    BeforeValidator(lambda value: math.inf if value is None else value),
    PlainSerializer(lambda value: None if value == math.inf else value, when_used="json"),
]


@dataclass(frozen=True)
class Performance:
    """What a network does on a split, per sample: error, latency_s, energy_j."""

    error: float
    latency_s: float
    energy_j: float

    @property
    def accuracy(self) -> float:
        """1 - error."""
        return 1.0 - self.error

    def saving(self, reference: "Performance") -> float:
        """Returns the share of the reference's energy that this saves."""
        return 1.0 - self.energy_j / reference.energy_j


@dataclass(frozen=True)
class Design:
    """A dynamic network: a backbone, its exits with thresholds, and clocks.

    Attributes:
      found_by: the policy under which the design is on the front.
      genome: genes of the backbone.
      backbone: resolution, width, depth, kernel and expand.
      exits: blocks that an exit follows, counted over the backbone's own blocks from 0.
      thresholds: per exit, the least score at which a sample stops; inf where none may.
      clocks_mhz: core, memory and host clock.
      dissimilarity: mean over pairs of exits, on the selection samples.
      selection: by policy, on the validation and calibration splits together.
      test: by policy.
      static_selection: without exits, at the default clocks.
      static_test: likewise.
      selection_shares: share of the selection samples that stop at each exit, and last at the classifier, when
        deployed.
      test_shares: likewise of the test samples.
      excess: by how much the design exceeds the limits on the selection samples under the policy that found it,
        relatively (see `hadas_jax.methods.limits`); 0 within.
    """

    found_by: str
    genome: tuple[int, ...]
    backbone: dict[str, Any]
    exits: tuple[int, ...]
    thresholds: tuple[Threshold, ...]
    clocks_mhz: dict[str, float]
    dissimilarity: float
    selection: dict[str, Performance]
    test: dict[str, Performance]
    static_selection: Performance
    static_test: Performance
    selection_shares: tuple[float, ...]
    test_shares: tuple[float, ...]
    excess: float = 0.0


@dataclass(frozen=True)
class Level:
    """The cheapest networks of at least one accuracy on the selection samples, those within the limits first.

    Attributes:
      accuracy: the level, on the selection samples.
      static: the best static network, at the default clocks.
      exits: by policy, the best with exits at the default clocks.
      exits_and_clocks: by policy, the best with exits and clocks.
    """

    accuracy: float
    static: Design
    exits: dict[str, Design]
    exits_and_clocks: dict[str, Design]


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
      designs: the fronts of both policies; of one whose designs all break the limits, the few nearest to them.
      levels: from the highest accuracy down.
      largest_test_accuracy: of the largest backbone without exits.
      smallest_test_accuracy: of the smallest one.
      backbones: evaluated in the search.
      candidates: backbone, exits and clocks together, judged in the search.
      limits: of the search.
      within_limits: by policy, whether the designs of its front keep the limits on the selection samples.
    """

    designs: tuple[Design, ...]
    levels: tuple[Level, ...]
    largest_test_accuracy: float
    smallest_test_accuracy: float
    backbones: int
    candidates: int
    limits: Limits = NO_LIMITS
    within_limits: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(POLICY_NAMES, True))

    def front(self, policy: str) -> list[Design]:
        """Returns the designs of one policy's front."""
        return [design for design in self.designs if design.found_by == policy]


def write_result(result: Result, directory: Path, *, context: dict[str, Any]) -> None:
    """Writes front.csv, front.json and levels.csv.

    Args:
      result: of a run.
      directory: the work directory.
      context: settings and versions, stored in front.json.
    """
    rows = [_row(design) for design in result.designs]
    write_text(directory / "front.csv", _csv(rows))
    write_text(directory / "levels.csv", _csv([row for level in result.levels for row in level_rows(level)]))
    content = {"form": FORM, **context, **asdict(result)}
    write_text(directory / "front.json", json.dumps(_plain(content), indent=1) + "\n")


def level_rows(level: Level) -> list[dict[str, Any]]:
    """Returns one row for each variant and policy of a level, on the test split."""
    static = level.static.static_test
    rows = [_level_row(level.accuracy, "static", "", static, static)]
    for policy in POLICY_NAMES:
        for variant, designs in (("exits", level.exits), ("exits + clocks", level.exits_and_clocks)):
            rows.append(_level_row(level.accuracy, variant, policy, designs[policy].test[policy], static))
    return rows


def _level_row(accuracy: float, variant: str, policy: str, found: Performance, static: Performance) -> dict[str, Any]:
    return {
        "selection_accuracy_level": accuracy,
        "network": variant,
        "policy": policy,
        "test_accuracy": found.accuracy,
        "latency_ms": found.latency_s * 1e3,
        "energy_mj": found.energy_j * 1e3,
        "energy_saving": found.saving(static),
    }


def _row(design: Design) -> dict[str, Any]:
    row: dict[str, Any] = {"found_by": design.found_by, "genome": _words(design.genome)}
    row |= {name: _words(value) for name, value in design.backbone.items()}
    row |= {"exits": _words(design.exits), "thresholds": _words(design.thresholds)}
    row |= {f"{name}_mhz": value for name, value in design.clocks_mhz.items()}
    row["dissimilarity"] = design.dissimilarity
    columns = {f"{p}_selection": design.selection[p] for p in POLICY_NAMES}
    columns |= {f"{p}_test": design.test[p] for p in POLICY_NAMES}
    columns |= {"static_selection": design.static_selection, "static_test": design.static_test}
    for name, found in columns.items():
        row[f"{name}_error"] = found.error
        row[f"{name}_latency_ms"] = found.latency_s * 1e3
        row[f"{name}_energy_mj"] = found.energy_j * 1e3
    row["selection_shares"] = _words(design.selection_shares)
    row["test_shares"] = _words(design.test_shares)
    row["excess"] = design.excess
    return row


def _words(value: Any) -> str:
    """Numbers of a list side by side."""
    return " ".join(map(_number, value)) if isinstance(value, Sequence) else _number(value)


def _number(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([_number(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Replaces infinities, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value == float("inf") else value
