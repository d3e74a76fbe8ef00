"""What a run finds, in plain Python values: designs, accuracy levels, and the files that hold them.

A saving is told against the static network at the default clocks and against the static network at its best clocks,
each beside the difference in accuracy from it on the test images.
Units: errors and differences are shares of samples; latency in s, energy in J inside, ms and mJ in the files.
"""

import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

from hadas_jax.data import SplitRecord
from hadas_jax.evaluation import Difference, least_images
from hadas_jax.evaluation.early_exit import percentile_exit
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.names import GIVEN, GIVEN_FILE, SUPERNET, SUPERNET_FILE
from hadas_jax.runs.workdir import WorkDir, write_text
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, ExitsSettings, FormatName, SearchSettings

POLICY_NAMES = ("ideal", "deployable")
FORM = "hadas_jax.front/2"
SHOWN, NOT_SHOWN = "as accurate", "not shown to be as accurate"
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

    def saving(self, reference: "Performance", cost: str = "energy_j") -> float:
        """Returns the share of the reference's energy, or latency, that this saves."""
        return 1.0 - getattr(self, cost) / getattr(reference, cost)


@dataclass(frozen=True)
class Percentiles:
    """The latency of a sample on a split in s: the one that 50, 95 and 99 % of the samples keep (nearest rank).

    `longest_s` is that of a sample that goes on to the classifier, whether the split has one or not.
    """

    p50_s: float
    p95_s: float
    p99_s: float
    longest_s: float

    @classmethod
    def of(cls, shares: Sequence[float], latency_s: Sequence[float] | np.ndarray) -> "Percentiles":
        """Returns those of a network by the exits, the classifier last: the shares that stop there, and what it takes.

        A sample's latency is that of the exit where it stops, so percentiles are steps.
        """
        steps = (percentile_exit(shares, percent) for percent in (50, 95, 99))
        p50, p95, p99 = (float(latency_s[exit]) for exit in steps)
        return cls(p50, p95, p99, float(latency_s[-1]))

    def as_ms(self) -> dict[str, float]:
        """Returns the latencies in ms by the names p50, p95, p99 and longest."""
        return {name.removesuffix("_s"): 1e3 * value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Design:
    """A dynamic network: a backbone, its exits with thresholds, and clocks.

    Attributes:
        found_by: The policy under which the design is on the front.
        genome: Genes of the backbone.
        backbone: Resolution, width, depth, kernel and expand.
        exits: Blocks that an exit follows, counted over the backbone's own blocks from 0.
        thresholds: Per exit, the least score at which a sample stops; inf where none may.
        clocks_mhz: Core, memory and host clock.
        dissimilarity: Mean over pairs of exits, on the selection samples.
        selection: By policy, on the validation and calibration splits together.
        test: By policy.
        static_selection: Without exits, at the default clocks.
        static_test: Likewise.
        static_dvfs_selection: Without exits, at the best clocks: of those within the limits the ones of least energy.
        static_dvfs_test: Likewise.
        static_dvfs_clocks_mhz: Those clocks.
        differences: By policy, in test accuracy from the network without exits.
        selection_shares: Share of the selection samples that stop at each exit, and last at the classifier, when
            deployed.
        test_shares: Likewise of the test samples.
        excess: By how much the design breaks the constraints on the selection samples under the policy that found it,
            relatively (see `hadas_jax.methods.hadas.constraints`); 0 within.
        point: Index of the clocks among `hw_models.operating_points` of the device; None in files of earlier versions.
        selection_percentiles: Of the latency, by policy, on the selection samples; empty in files of earlier versions.
        test_percentiles: Likewise on the test split.
        peak_memory_bytes: Of the activations of one sample, exits included, in the number format of the search; None in
            files of earlier versions.
        weight_bytes: Of the weights, likewise.
        test_aurocs: How well the score of each exit tells what that exit gets right on the test split (see
            `hadas_jax.evaluation.score_quality`), None where it gets all or nothing right; empty in files of earlier
            versions.
        test_eces: Expected calibration error of the score of each exit on the test split, None where the score is no
            probability; empty in files of earlier versions.
        number_format: What the network was evaluated in and runs in; None in files of earlier versions.
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
    static_dvfs_selection: Performance
    static_dvfs_test: Performance
    static_dvfs_clocks_mhz: dict[str, float]
    differences: dict[str, Difference]
    selection_shares: tuple[float, ...]
    test_shares: tuple[float, ...]
    excess: float = 0.0
    point: int | None = None
    selection_percentiles: dict[str, Percentiles] = field(default_factory=dict)
    test_percentiles: dict[str, Percentiles] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    weight_bytes: int | None = None
    test_aurocs: tuple[float | None, ...] = ()
    test_eces: tuple[float | None, ...] = ()
    number_format: FormatName | None = None


@dataclass(frozen=True)
class Versus:
    """Differences in test accuracy of a network from the static ones of its level.

    Attributes:
        static: From the one at the default clocks.
        static_dvfs: From the one at the best clocks, which may have another backbone.
    """

    static: Difference
    static_dvfs: Difference

    def is_shown(self, tolerance: float) -> bool:
        """Whether the network is shown to be as accurate as both."""
        return self.static.is_shown(tolerance) and self.static_dvfs.is_shown(tolerance)


@dataclass(frozen=True)
class AsAccurate:
    """A dynamic network that is shown to be as accurate as the static ones of a level.

    Attributes:
        accuracy: The level whose cheapest deployable network with exits and clocks it is.
        design: The network.
        versus: The static networks of the level that it is shown for.
    """

    accuracy: float
    design: Design
    versus: Versus


@dataclass(frozen=True)
class Level:
    """The cheapest networks of at least one accuracy on the selection samples, those within the limits first.

    Attributes:
        accuracy: The level, on the selection samples.
        static: The best static network, at the default clocks.
        static_dvfs: The best static network with clocks.
        exits: By policy, the best with exits at the default clocks.
        exits_and_clocks: By policy, the best with exits and clocks.
        versus: By name ("static", "static_dvfs", "ideal exits", "deployable exits_and_clocks", ...), how networks
            differ from the static ones.
        as_accurate: The cheapest deployable network of this level or a higher one that is shown to be as accurate as
            the static ones, see `hadas_jax.methods.hadas.selection`; None: none is.
    """

    accuracy: float
    static: Design
    static_dvfs: Design
    exits: dict[str, Design]
    exits_and_clocks: dict[str, Design]
    versus: dict[str, Versus]
    as_accurate: AsAccurate | None

    def rows(self) -> list["LevelRow"]:
        """Returns the networks in the order of tables: all that a rendering of the level shows."""
        static, static_dvfs = self.static.static_test, self.static_dvfs.test["ideal"]

        def row(network: str, policy: str, design: Design, versus: Versus) -> LevelRow:
            test = design.test[policy] if policy else {"static": static}.get(network, static_dvfs)
            return LevelRow(network, policy, design, test, versus, static, static_dvfs)

        rows = [
            row("static", "", self.static, self.versus["static"]),
            row("static + DVFS", "", self.static_dvfs, self.versus["static_dvfs"]),
        ]
        for policy in POLICY_NAMES:
            rows.append(row("exits", policy, self.exits[policy], self.versus[f"{policy} exits"]))
            both = self.exits_and_clocks[policy]
            rows.append(row("exits + clocks", policy, both, self.versus[f"{policy} exits_and_clocks"]))
        if self.as_accurate is not None:
            rows.append(row(SHOWN, "deployable", self.as_accurate.design, self.as_accurate.versus))
        return rows


@dataclass(frozen=True)
class LevelRow:
    """One network of a level.

    Attributes:
        network: `static`, `static + DVFS`, `exits`, `exits + clocks` or `as accurate`.
        policy: Empty without exits.
        design: The network.
        test: What it does on the test split.
        versus: The static networks.
        static: What the static network of the level does on the test split.
        static_dvfs: Likewise, the static network at its best clocks.
    """

    network: str
    policy: str
    design: Design
    test: Performance
    versus: Versus
    static: Performance
    static_dvfs: Performance

    @property
    def percentiles(self) -> Percentiles | None:
        """Of the latency on the test split; None in files of earlier versions."""
        if not self.policy:  # one path for all samples
            return Percentiles(*[self.test.latency_s] * 4)
        return self.design.test_percentiles.get(self.policy)


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        designs: The fronts of both policies; of one whose designs all break the limits, the few nearest to them.
        levels: From the highest accuracy down.
        largest_test_accuracy: Of the largest backbone without exits.
        smallest_test_accuracy: Of the smallest one.
        backbones: Evaluated in the search.
        candidates: Backbone, exits and clocks together, evaluated in the search.
        limits: Of the search.
        within_limits: By policy, whether the designs of its front keep the limits on the selection samples.
        test_images: In the test split.
        accuracy_tolerance: Share of images by which a network may be less accurate and still count as as accurate.
        number_formats: That were searched; empty in files of earlier versions.
        assumed_formats: Those of them whose speed on the device nobody measured.
    """

    designs: tuple[Design, ...]
    levels: tuple[Level, ...]
    largest_test_accuracy: float
    smallest_test_accuracy: float
    backbones: int
    candidates: int
    test_images: int
    accuracy_tolerance: float
    limits: Constraints = NO_CONSTRAINTS
    within_limits: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(POLICY_NAMES, True))
    number_formats: tuple[FormatName, ...] = ()
    assumed_formats: tuple[FormatName, ...] = ()

    def front(self, policy: str) -> list[Design]:
        """Returns the designs of one policy's front."""
        return [design for design in self.designs if design.found_by == policy]

    @property
    def can_tell(self) -> bool:
        """Whether the test split is large enough to show two networks that never differ as equally accurate."""
        least = least_images(self.accuracy_tolerance)
        return least is not None and self.test_images >= least

    def verdict(self, difference: Difference) -> str:
        """Returns in words whether a network is shown to be as accurate as another one."""
        return SHOWN if difference.is_shown(self.accuracy_tolerance) else NOT_SHOWN


def write_result(result: Result, directory: Path, *, context: dict[str, Any]) -> None:
    """Writes front.csv, front.json and levels.csv.

    Args:
        result: Of a run.
        directory: The work directory.
        context: Settings and versions, stored in front.json.
    """
    rows = [_row(result, design) for design in result.designs]
    write_text(directory / "front.csv", _csv(rows))
    write_text(directory / "levels.csv", _csv(level_rows(result)))
    content = {"form": FORM, **context, **TypeAdapter(Result).dump_python(result, mode="json")}
    write_text(directory / "front.json", json.dumps(content, indent=1) + "\n")


def level_rows(result: Result) -> list[dict[str, Any]]:
    """Returns one row for each network of each level, on the test split."""
    return [_level_row(result, level, row) for level in result.levels for row in level.rows()]


def _level_row(result: Result, level: Level, row: LevelRow) -> dict[str, Any]:
    found = row.test
    return {
        "selection_accuracy_level": level.accuracy,
        "network": row.network,
        "policy": row.policy,
        "number_format": row.design.number_format or "",
        "test_accuracy": found.accuracy,
        "latency_ms": found.latency_s * 1e3,
        "energy_mj": found.energy_j * 1e3,
        "energy_saving": found.saving(row.static),
        "energy_saving_dvfs": found.saving(row.static_dvfs),
        **_difference("accuracy_difference", row.versus.static),
        **_difference("accuracy_difference_dvfs", row.versus.static_dvfs),
        "verdict": "" if row.network == "static" else result.verdict(row.versus.static),
        **_percentile_columns("", row.percentiles),
    }


def _difference(name: str, found: Difference) -> dict[str, float]:
    return {name: found.difference, f"{name}_low": found.low, f"{name}_high": found.high}


def _percentile_columns(prefix: str, found: Percentiles | None) -> dict[str, Any]:
    """Returns latencies in ms; empty cells where they are not known."""
    known = dict.fromkeys(("p50", "p95", "p99", "longest"), "") if found is None else found.as_ms()
    return {f"{prefix}{name}_latency_ms": value for name, value in known.items()}


def _row(result: Result, design: Design) -> dict[str, Any]:
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
    for name, found in (("selection", design.static_dvfs_selection), ("test", design.static_dvfs_test)):
        row[f"static_dvfs_{name}_latency_ms"] = found.latency_s * 1e3
        row[f"static_dvfs_{name}_energy_mj"] = found.energy_j * 1e3
    row |= {f"static_dvfs_{name}_mhz": value for name, value in design.static_dvfs_clocks_mhz.items()}
    for policy in POLICY_NAMES:
        test, difference = design.test[policy], design.differences[policy]
        row[f"{policy}_energy_saving"] = test.saving(design.static_test)
        row[f"{policy}_energy_saving_dvfs"] = test.saving(design.static_dvfs_test)
        row |= _difference(f"{policy}_accuracy_difference", difference)
        row[f"{policy}_verdict"] = result.verdict(difference)
    for split, percentiles in (("selection", design.selection_percentiles), ("test", design.test_percentiles)):
        for policy in POLICY_NAMES:
            row |= _percentile_columns(f"{policy}_{split}_", percentiles.get(policy))
    for name, size in (("peak_memory_kb", design.peak_memory_bytes), ("weights_kb", design.weight_bytes)):
        row[name] = "" if size is None else size / 1e3
    for name, values in (("test_aurocs", design.test_aurocs), ("test_eces", design.test_eces)):
        row[name] = _words(["-" if value is None else value for value in values])
    row["number_format"] = design.number_format or ""
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


FRONT = "front.json"


@dataclass(frozen=True)
class FinishedSearch:
    """What a search left in its work directory.

    Attributes:
        path: Of the work directory.
        settings: Of the search.
        versions: Of the packages that it ran with.
        result: What it found.
        data: The data set that it was found on and its division.
    """

    path: Path
    settings: SearchSettings | ExitsSettings
    versions: dict[str, str]
    result: Result
    data: SplitRecord

    @property
    def supernet(self) -> Path:
        """Where its supernet or given network is: in its work directory, or for a supernet the checkpoint given.

        Raises:
            ValueError: It is not there any more.
        """
        if isinstance(self.settings, ExitsSettings):
            if not (self.path / GIVEN / GIVEN_FILE).is_file():
                raise ValueError(f"{self.path}: expected the given network of the run in {GIVEN}/, got none")
            return (self.path / GIVEN).absolute()
        trained, given = self.path / SUPERNET, self.settings.supernet.checkpoint
        if (trained / SUPERNET_FILE).is_file():
            return trained.absolute()
        if given is None:
            raise ValueError(
                f"{self.path}: expected the supernet of the search in {SUPERNET}/, got none; "
                f"{shlex.join(['hadas', 'search', '--resume', '--workdir', str(self.path)])} writes it"
            )
        return Path(given)


def read_search(workdir: Path | str) -> FinishedSearch:
    """Reads what a search found.

    Raises:
        ValueError: One line: the directory holds no search, an unfinished one, one of an earlier version, or a front of
            another form.
    """
    place = WorkDir(Path(workdir))
    if not place.holds_run:
        raise ValueError(f"{workdir}: expected the work directory of a search, got none (no config.json)")
    kind: type[SearchSettings] | type[ExitsSettings] = SearchSettings
    if place.kind == ExitsSettings.KIND:
        kind, place = ExitsSettings, WorkDir(Path(workdir), kind=ExitsSettings.KIND)
    place.settings()  # refuses the work directories of other commands
    path = place.path / FRONT
    again = shlex.join(["hadas", kind.KIND, "--resume", "--workdir", str(workdir)])
    if not path.is_file():
        raise ValueError(f"{workdir}: expected a finished search, got one without {FRONT}; {again} finishes it")
    if place.data() is None:
        raise ValueError(
            f"{workdir}: expected a search that says which images it used, got one of an earlier version, which does "
            "not; search anew"
        )
    hint = f"; {again} writes it anew"
    content = read_json(path, FORM, what="the front of a search", hint=hint)
    return FinishedSearch(
        path=place.path,
        settings=kind.from_mapping(content.get("settings"), source=str(path)),
        versions=content.get("versions", {}),
        result=validated(Result, content, path=path, hint=hint),
        data=validated(SplitRecord, content.get("data"), path=path, hint=hint),
    )
