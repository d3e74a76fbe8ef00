import dataclasses
import json
from datetime import datetime

import numpy as np
import pytest
from levels import level

from hadas_jax.evaluation import accuracy_difference
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.eh_dnas.result import DnasResult
from hadas_jax.methods.eh_dnas.retrain import RetrainResult
from hadas_jax.report.html.content import report_content
from hadas_jax.report.html.record import RunRecord
from hadas_jax.spaces.darts import parse_code

CURVES = {"memory": [0, 1], "latency": [[4.0, 2.0], [3.0, 1.0]], "energy": [[2.0, 3.0], [1.0, 2.5]], "at": [1, 0, 0]}
GRID = {"core": [500.0, 1000.0], "memory": [800.0, 1600.0], "host": [2000.0]}
CODES = ("53 033 0303 00320  15 603 0022 00440", "44 330 0303 00033  11 330 3010 03001")
METRICS = tuple(
    {"stage": "search", "step": step, "evaluated": 8.0 * step, "hypervolume": 1 - 0.5**step} for step in (1, 2, 3)
)


def performance(error, latency_ms, energy_mj):
    return Performance(error, latency_ms / 1e3, energy_mj / 1e3)


def design(found_by, energy, *, exits=(2, 3), accuracy=0.9):
    return Design(
        found_by=found_by,
        genome=(0, 1, int(10 * energy)),
        backbone={"resolution": 28, "width": [8, 16, 24, 64], "depth": [2, 3], "kernel": [3, 5], "expand": [1, 2]},
        exits=exits,
        thresholds=(0.75, float("inf"))[: len(exits)],
        clocks_mhz={"core": 1000.0, "memory": 800.0, "host": 2000.0},
        dissimilarity=0.25,
        selection={"ideal": performance(0.05, energy, energy), "deployable": performance(0.1, energy, energy)},
        test={
            "ideal": performance(0.05, 1 * energy, energy),
            "deployable": performance(1 - accuracy, 2 * energy, 1.5 * energy),
        },
        static_selection=performance(0.08, 5.0, 8.0),
        static_test=performance(0.09, 5.0, 8.0),
        static_dvfs_selection=performance(0.08, 6.0, 6.0),
        static_dvfs_test=performance(0.09, 6.0, 6.0),
        static_dvfs_clocks_mhz={"core": 500.0, "memory": 800.0, "host": 2000.0},
        differences={
            "ideal": accuracy_difference(4, 0, images=100),
            "deployable": accuracy_difference(1, 2, images=100),
        },
        selection_shares=(0.5, 0.0, 0.5) if exits else (1.0,),
        test_shares=(0.6, 0.0, 0.4) if exits else (1.0,),
    )


def make_result():
    """Three ideal and three deployable designs, an exits-only network of each policy, a static one."""
    designs = [design(policy, energy) for policy in ("ideal", "deployable") for energy in (1.0, 2.0)]
    designs += [design("ideal", 4.0), design("deployable", 4.0, accuracy=0.85)]
    picks = {"ideal": designs[1], "deployable": designs[3]}
    static = dataclasses.replace(design("ideal", 3.0, exits=()), genome=(0, 0, 0))
    at_best = performance(0.09, 6.0, 6.0)
    by_clocks = dataclasses.replace(static, test=dict.fromkeys(("ideal", "deployable"), at_best))
    exits = {policy: dataclasses.replace(pick, genome=(0, 0, 1)) for policy, pick in picks.items()}
    difference = accuracy_difference(1, 2, images=100)
    found = level(0.92, static, static_dvfs=by_clocks, exits=exits, clocks=picks, difference=difference)
    return Result(
        designs=tuple(designs),
        levels=(found,),
        largest_test_accuracy=0.93,
        smallest_test_accuracy=0.88,
        backbones=24,
        candidates=123456,
        test_images=100,
        accuracy_tolerance=0.005,
    )


def make_record(path, *, device="tx2-gpu"):
    return RunRecord(
        path=path,
        kind="search",
        settings={"device": device, "dataset": "digits", "seed": 0, "strategy": "NSGA2"},
        data=None,
        versions={"jax": "0.10.2"},
        result=make_result(),
        metrics=METRICS,
        exits=(),
        outcome=None,
    )


def with_curves(content):
    """The content as if the device models had been at hand."""
    runs = [
        run | {"notes": [], "clock_grid": GRID, "networks": [row | {"curves": CURVES} for row in run["networks"]]}
        for run in content["runs"]
    ]
    return content | {"runs": runs}


@pytest.fixture
def record(tmp_path):
    return make_record(tmp_path / "one")


@pytest.fixture(scope="session")
def content(tmp_path_factory):
    """Of one run."""
    record = make_record(tmp_path_factory.mktemp("runs") / "<b>one</b>")
    return with_curves(report_content([record], made=datetime(2026, 1, 2, 3, 4)))


@pytest.fixture(scope="session")
def overlay(tmp_path_factory):
    """Of two searches and a training."""
    folder = tmp_path_factory.mktemp("runs")
    exits = tuple(
        {"backbone": "largest", "block": block, "test_accuracy": share}
        for block, share in (("2", "0.8"), ("3", "0.85"), ("final", "0.9"))
    )
    metrics = tuple(
        {"stage": "supernet", "step": step, "accuracy": 0.1 * step, "loss": float("nan")} for step in (1, 2)
    )
    trained = dataclasses.replace(
        make_record(folder / "trained"), kind="train", result=None, metrics=metrics, exits=exits
    )
    records = [make_record(folder / "a"), make_record(folder / "b", device="agx-xavier-gpu"), trained]
    return with_curves(report_content(records, made=datetime(2026, 1, 2, 3, 4)))


@pytest.fixture
def workdir(tmp_path):
    """A work directory of a training that has metrics."""
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.json").write_text(
        json.dumps({"form": "hadas_jax.train/1", "settings": {"seed": 1}, "versions": {"jax": "0.10.2"}})
    )
    (place / "metrics.jsonl").write_text('{"stage": "supernet", "step": 1, "loss": 0.5}\n{"stage": "sup')
    return place


def found_network(code=CODES[0], **changes):
    """What a search by gradient found; alpha leans towards the network."""
    alpha = np.zeros((28, 8))
    alpha[np.arange(28), parse_code(code)] = 2.0
    costs = {"hardware": "tx2-gpu", "images_per_s": 1250.0, "energy_mj": 4.5, "clocks_mhz": (1300.5, 1866.0, 2035.2)}
    rest = {"within_budgets": True, "code_without_budgets": code, "alpha": tuple(map(tuple, alpha.tolist()))}
    return DnasResult(code=code, **(costs | rest | changes))


@pytest.fixture(scope="session")
def architectures(tmp_path_factory):
    """Of a search by gradient on a device, one on an accelerator, a retraining of the first and a HADAS search."""
    folder = tmp_path_factory.mktemp("runs")
    steps = tuple(
        {"stage": "architecture", "step": 7 * k, "loss": 2.0 / k, "images_per_s": 900.0 + k, "rollbacks": 0.0}
        for k in (1, 2, 3)
    )
    settings = {"hardware": "tx2-gpu", "dataset": "digits", "max_latency_ms": 1.0}
    device = dataclasses.replace(
        make_record(folder / "device"),
        kind="dnas-search",
        settings=settings,
        result=None,
        metrics=steps,
        outcome=found_network(),
    )
    generic = found_network(CODES[1], hardware="generic", images_per_s=0.0, energy_mj=None, clocks_mhz=None)
    accelerator = dataclasses.replace(device, path=folder / "accelerator", settings={}, outcome=generic)
    retrained = dataclasses.replace(
        device,
        path=folder / "retrained",
        kind="dnas-retrain",
        metrics=({"stage": "retrain", "step": 5, "loss": 0.5},),
        outcome=RetrainResult(CODES[0], 0.9, 0.875, 123456, 7_890_000),
    )
    records = [device, accelerator, retrained, make_record(folder / "search")]
    return with_curves(report_content(records, made=datetime(2026, 1, 2, 3, 4)))
