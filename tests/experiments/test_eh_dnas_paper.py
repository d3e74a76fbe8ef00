import importlib
import json
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def quick(script, monkeypatch):
    """Searches and retrainings that do nothing but leave their last files; the list of what was searched."""
    comparison, searched = sys.modules["eh_dnas_comparison"], []
    codes = {0.0: "56 057 0406 50070  56 605 0064 10060", 0.3: "33 033 0303 30030  33 303 0033 30030"}

    def write(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def search(settings, *, workdir, resume, console):
        searched.append((settings.hardware, settings.loss.weight, settings.seed))
        write(workdir / "genotype.json", {"code": codes[settings.loss.weight]})

    def retrain(settings, *, workdir, resume, console):
        write(workdir / "result.json", {"test_accuracy": 0.9})

    monkeypatch.setattr(comparison, "search", search)
    monkeypatch.setattr(comparison, "retrain", retrain)
    return searched


def test_the_comparison_tells_how_long_searches_took(script, quick, tmp_path):
    arguments = ["--smoke", "--stages", "comparison", "--hardware", "raspberry-pi-4"]
    arguments += ["--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out.json")]
    assert script.main(arguments) == 0
    found = json.loads((tmp_path / "out.json").read_text())["comparison"]
    assert [each["guide"] for each in found["networks"]] == ["plain", "roofline"]
    assert all(each["search_s"] >= 0 for each in found["networks"])
    assert found["summary"][1]["speed_over_plain"] > 0
    assert {row["hardware"] for row in found["summary"]} == {"raspberry-pi-4"}
    assert [weight for _, weight, _ in quick] == [0.0, 0.3]


def test_searches_of_earlier_runs_are_kept_without_a_time(script, quick, tmp_path):
    arguments = ["--smoke", "--stages", "comparison", "--hardware", "raspberry-pi-4"]
    arguments += ["--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out.json")]
    assert script.main(arguments) == 0
    for path in (tmp_path / "runs").rglob("search_seconds.txt"):
        path.unlink()
    assert script.main(arguments) == 0
    assert len(quick) == 2
    networks = json.loads((tmp_path / "out.json").read_text())["comparison"]["networks"]
    assert [each["search_s"] for each in networks] == [None, None]


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
