import importlib
import json
import sys
from pathlib import Path

import pytest
from fake_tfds import write_fake_set

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def script():
    """The experiment as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield importlib.import_module("eh_dnas_paper")
        for name in [name for name in sys.modules if name.startswith("eh_dnas_")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def fitted(script, tmp_path_factory):
    """Arguments of the smallest predictors' stage, and its results."""
    out = tmp_path_factory.mktemp("predictors")
    arguments = ["--smoke", "--stages", "predictors", "--kinds", "mlp", "lookup", "--out", str(out / "fits")]
    arguments += ["-o", str(out / "out.json"), "--picture", str(out / "out.png")]
    assert script.main(arguments) == 0
    assert (out / "out.png").read_bytes().startswith(b"\x89PNG")
    return arguments, json.loads((out / "out.json").read_text())


@pytest.mark.slow
def test_errors_are_given_by_paradigm_kind_and_number_of_networks(fitted):
    rows = {(row["paradigm"], row["kind"], row["networks"]): row for row in fitted[1]["predictors"]["rows"]}
    assert set(rows) == {(p, k, n) for p in ("generic", "pipeline") for k in ("mlp", "lookup") for n in (200, 400)}
    # A lookup is the truth of the paradigm whose costs add up, and not of the other.
    assert rows["generic", "lookup", 400]["mean_error"] < 1e-4
    assert rows["pipeline", "lookup", 400]["mean_error"] > 1e-2
    assert rows["pipeline", "mlp", 400]["kendall_tau"] > 0.5


@pytest.mark.slow
def test_what_was_fitted_is_not_fitted_again(fitted, script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "fit_predictor", None)
    assert script.main([*fitted[0], "-o", str(tmp_path / "again.json")]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == fitted[1]


@pytest.mark.slow
def test_the_comparison_tells_how_long_searches_took(script, tmp_path):
    write_fake_set(tmp_path, "cifar10", classes=10, counts={"train": 300, "test": 60})
    arguments = ["--smoke", "--stages", "comparison", "--data", "cifar10", "--data-dir", str(tmp_path)]
    arguments += ["--hardware", "tx2-gpu", "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out.json")]
    assert script.main(arguments) == 0
    found = json.loads((tmp_path / "out.json").read_text())["comparison"]
    assert [each["guide"] for each in found["networks"]] == ["plain", "roofline"]
    assert all(each["search_s"] > 0 for each in found["networks"])
    assert {row["hardware"] for row in found["summary"]} == {"tx2-gpu"}


def test_few_networks_get_as_many_steps_as_many(script):
    for kind in ("mlp", "embedding", "lookup"):
        for networks in (100, 1000, 10_000, 1_000_000):
            recipe = script.recipe(kind, networks)
            assert recipe.epochs * networks / recipe.batch >= script.LEAST_STEPS
            assert recipe.batch <= max(networks / 2, 16)


def test_a_stage_that_is_none_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--stages", "outer"])
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "expected some of comparison, predictors, got 'outer'" in words
