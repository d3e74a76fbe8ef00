import json

import numpy as np
import pytest
from experiment_scripts import script_module
from scipy.stats import multivariate_normal
from tiny_hadas import TINY


@pytest.fixture(scope="module")
def script():
    """The experiment as a module."""
    with script_module("hadas_published_exits") as module:
        yield module


@pytest.fixture(scope="module")
def a0(script):
    return script.published_accuracies("cifar-100")["a0"]


def test_every_backbone_has_an_accuracy_for_each_exit_and_the_classifier(script):
    lengths = {"a0": 13, "a1": 13, "a2": 14, "a3": 17, "a4": 16, "a5": 17}
    for data_set, more in (("cifar-100", {"a6": 18}), ("tiny-imagenet", {})):
        found = {name: len(shares) for name, shares in script.published_accuracies(data_set).items()}
        assert found == lengths | more


def test_exits_that_agree_gain_nothing_and_independent_ones_the_most(script, a0):
    assert script.ideal_accuracy(a0, 1 - 1e-9) == pytest.approx(a0.max(), abs=1e-3)
    assert script.ideal_accuracy(a0, 1e-12) == pytest.approx(1 - np.prod(1 - a0), abs=1e-6)
    found = [script.ideal_accuracy(a0, r) for r in (0.2, 0.5, 0.8, 0.95)]
    assert found == sorted(found, reverse=True)


def test_two_exits_are_right_together_as_a_bivariate_normal_says(script):
    shares, r = np.array([0.3, 0.6]), 0.7
    both_wrong = multivariate_normal(cov=[[1, r], [r, 1]]).cdf(-np.array([-0.5244005, 0.2533471]))
    assert script.ideal_accuracy(shares, r) == pytest.approx(1 - both_wrong, abs=1e-6)


def test_the_fitted_correlation_gives_the_published_ideal_accuracy(script, a0):
    correlation = script.fitted_correlation(a0, 0.8995)
    assert script.ideal_accuracy(a0, correlation) == pytest.approx(0.8995, abs=1e-7)
    with pytest.raises(ValueError, match="expected an accuracy between"):
        script.fitted_correlation(a0, 0.86)


def test_draws_have_the_published_accuracies_and_the_models_ideal_one(script, a0):
    available = np.isin(np.arange(20), np.arange(3, 15))
    drawn = script.drawn_outcomes(a0, available, correlation=0.9, samples=10_000, seed=3)
    rows = np.append(np.flatnonzero(available), 20)
    correct = np.asarray(drawn.correct)
    np.testing.assert_allclose(correct[rows].mean(axis=1), a0, atol=1e-9)
    assert not correct[:-1][~available].any()
    assert correct.any(axis=0).mean() == pytest.approx(script.ideal_accuracy(a0, 0.9), abs=0.006)
    # Confidence is a chance: of the samples that a head gives about one half, about one half are right.
    middle = np.abs(np.asarray(drawn.confidence)[rows[6]] - 0.5) < 0.1
    assert correct[rows[6]][middle].mean() == pytest.approx(0.5, abs=0.1)


BINS = "data_set,backbone,exit,confidence_below,samples,accuracy,mean_confidence\n"


def test_drawn_confidences_have_the_published_bins_among_right_and_wrong_samples(script, tmp_path):
    shares = np.array([[600, 300, 100], [200, 300, 500]])
    accuracy = np.array([[0.2, 0.5, 0.9], [0.1, 0.6, 0.95]])
    lines = [
        f"cifar-100,a0,{exit},{upper},{shares[exit, b]},{accuracy[exit, b]},0\n"
        for exit in (0, 1)
        for b, upper in enumerate((0.4, 0.7, 1.0))
    ]
    (tmp_path / "bins.csv").write_text(BINS + "".join(lines) + "cifar-100,a0,final,0.4,9,0.5,0\n")
    (sure,) = script.published_confidences(tmp_path / "bins.csv", "cifar-100").values()
    own, available = np.array([0.4, 0.7]), np.array([False, True])
    drawn = script.drawn_outcomes(own, available, correlation=0.9, samples=4000, seed=0, confidences=sure)
    correct, confidence = np.asarray(drawn.correct)[1:], np.asarray(drawn.confidence)[1:]
    np.testing.assert_allclose(correct.mean(axis=1), own)
    for exit in (0, 1):
        for is_right, part in ((True, accuracy[exit]), (False, 1 - accuracy[exit])):
            expected = shares[exit] * part / np.sum(shares[exit] * part)
            counted = np.histogram(confidence[exit][correct[exit] == is_right], [0, 0.4, 0.7, 1.0])[0]
            np.testing.assert_allclose(counted / counted.sum(), expected, atol=0.002)
    assert np.corrcoef(confidence)[0, 1] > 0.5
    (tmp_path / "other.csv").write_text("data_set,backbone\n")
    with pytest.raises(ValueError, match=r"other\.csv: expected a column accuracy, got data_set, backbone"):
        script.published_confidences(tmp_path / "other.csv", "cifar-100")
    (tmp_path / "half.csv").write_text(BINS + "".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"half\.csv: a0: expected 2 exits of 3 bins, got 5 rows"):
        script.published_confidences(tmp_path / "half.csv", "cifar-100")


def test_the_whole_experiment_runs_at_its_smallest(script, tmp_path, monkeypatch):
    accuracies = {"a0": np.array([0.55, 0.7, 0.79, 0.83])}
    for name, value in (("load_space", lambda _: TINY), ("published_in", lambda space, _: space.largest())):
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "published_accuracies", lambda _: accuracies)
    monkeypatch.setattr(script, "DEVICE", "tx2-cpu")
    script.main(["--smoke", "-o", str(tmp_path / "out.json"), "--picture", str(tmp_path / "out.png")])
    results = json.loads((tmp_path / "out.json").read_text())
    assert [each["device"] for each in results["results"]] == ["corrected", "roofline alone"]
    (row,) = results["results"][0]["backbones"]
    assert row == results["results"][1]["backbones"][0]  # this device has no correction
    assert row["backbone"] == "a0"
    assert row["ideal_accuracy_of_the_model"] == pytest.approx(0.8995, abs=1e-6)
    static = row["static"]["energy_j"]
    ideal, deployable = row["ideal, static accuracy"], row["deployable, static accuracy"]
    assert ideal["exits + clocks"]["energy_j"] < ideal["exits"]["energy_j"] < static
    assert ideal["exits"]["energy_j"] < deployable["exits"]["energy_j"] < static
    for rule in (ideal, deployable):
        assert rule["exits + clocks, as fast as static"]["latency_s"] <= row["static"]["latency_s"] * 1.00001
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
