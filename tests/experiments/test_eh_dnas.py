import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fake_tfds import write_fake_set

from hadas_jax.methods.eh_dnas import DnasRun
from hadas_jax.report import LineProgress
from hadas_jax.runs.workdir import WorkDir, write_text

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CODE = "56 057 0406 50070  56 605 0064 10060"
pytestmark = pytest.mark.slow


def _load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comparison():
    """What the scripts share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield _load("eh_dnas_comparison")
        for name in [name for name in sys.modules if name.startswith("eh_dnas_")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def finished(comparison, tmp_path_factory):
    """The arguments of a small experiment on a fake CIFAR-10, its folder and its figures."""
    place, out = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("experiment")
    write_fake_set(place, "cifar10", classes=10, counts={"train": 300, "test": 60})
    arguments = ["--smoke", "--data-dir", str(place), "--hardware", "tx2-gpu", "--search.training.order", "first"]
    arguments += ["--out", str(out / "runs"), "-o", str(out / "figures.json")]
    comparison.main(_load("eh_dnas_cifar10").DEFAULT, arguments)
    return arguments, out, json.loads((out / "figures.json").read_text())


def test_all_searches_are_compared_with_plain_darts(finished):
    _, _, figures = finished
    rows = {(row["hardware"], row["guide"]): row for row in figures["summary"]}
    assert set(rows) == {("tx2-gpu", "plain"), ("tx2-gpu", "roofline")}
    for (hardware, guide), row in rows.items():
        assert row["images_per_s"] > 0, hardware
        assert 0 <= row["test_accuracy"] <= 1
        if guide == "plain":
            assert row["speed_over_plain"] == 1
            assert row["points_over_plain"] == 0
    assert len(figures["networks"]) == 2
    assert figures["versions"]["jax"]


def test_a_finished_experiment_runs_nothing_anew(comparison, finished):
    arguments, out, figures = finished
    files = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    comparison.main(_load("eh_dnas_cifar10").DEFAULT, arguments)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()} == files
    assert json.loads((out / "figures.json").read_text())["networks"] == figures["networks"]


def test_searches_for_an_accelerator_are_guided_by_predictors_that_fit_it(comparison, tmp_path, monkeypatch):
    guides = []

    def search(settings, *, workdir, resume, console):
        if settings.loss.weight > 0:
            guides.append(DnasRun(settings).hardware(WorkDir(workdir), LineProgress(console)).name)
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / "genotype.json", json.dumps({"code": CODE}))

    def retrain(settings, *, workdir, resume, console):
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / "result.json", json.dumps({"test_accuracy": 0.9}))

    monkeypatch.setattr(comparison, "search", search)
    monkeypatch.setattr(comparison, "retrain", retrain)
    arguments = ["--smoke", "--hardware", "pipeline", "--out", str(tmp_path / "runs"), "-o", str(tmp_path / "out.json")]
    comparison.main(_load("eh_dnas_digits").DEFAULT, arguments)
    rows = json.loads((tmp_path / "out.json").read_text())["summary"]
    assert [(row["guide"], row["speed_over_plain"]) for row in rows] == [("plain", 1), ("lookup", 1), ("predictor", 1)]
    assert guides == ["pipeline accelerator on ku115"] * 2


@pytest.mark.parametrize("name", ["eh_dnas_digits", "eh_dnas_fashion_mnist"])
def test_defaults_of_the_other_data_sets_are_settings_that_fit(comparison, name):
    assert _load(name).DEFAULT.search.priced == "e2e-perf"
