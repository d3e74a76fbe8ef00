import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tfds import write_fake_set
from tiny_hadas import TINY

from hadas_jax.spaces import catalogue, load_space

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DEVICE = "tx2-cpu"


@pytest.fixture(scope="module", autouse=True)
def _listed_space():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.SPACES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def module():
    """name -> a module of the experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXPERIMENTS))
        yield importlib.import_module
        for name in [name for name in sys.modules if name.startswith(("hadas_paper", "supernet_fashion"))]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def run(module, tmp_path_factory):
    """(folder, further arguments) -> exit code of the experiment in smoke form on a fake CIFAR-100."""
    data = tmp_path_factory.mktemp("prepared")
    write_fake_set(data, "cifar100", classes=10, counts={"train": 600, "test": 100})

    def run(out, *arguments):
        given = ["--smoke", "--dataset", "cifar100", "--data-dir", str(data), "--space", "tiny", "--out", str(out)]
        return module("hadas_paper.__main__").main([*given, *arguments])

    return run


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder of all stages for a device and a seed, and their results."""
    out = tmp_path_factory.mktemp("experiment")
    files = ("-o", str(out / "results.json"), "--picture", str(out / "picture.png"))
    assert run(out / "runs", "--devices", DEVICE, "--seeds", "3", *files) == 0
    return out, json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_every_stage_gives_its_figures(finished):
    out, results = finished
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert [row["network"] for row in results["motivation"][DEVICE]["networks"]][2:] == ["b1, found", "b2, found"]
    found = results["hadas"][DEVICE]["3"]
    assert found["evaluations"] <= 16
    assert 0 < found["examined"] <= 6
    for policy in ("ideal", "deployable"):
        for split in ("selection", "test"):
            figures = found[policy][split]
            assert 0 < figures["hypervolume"] <= 1
            assert 0 <= figures["dominates"] <= 1
    assert results["ablations"]["device"] == DEVICE
    examined = results["ablations"]["3"]["elites"]["the best"]["against_the_baselines"]
    for policy in ("ideal", "deployable"):
        for split in ("selection", "test"):
            ratios = {name: found[policy][split][name] for name in ("dominates", "dominated")}
            assert examined[policy][split] == ratios  # the same search as that of the stage hadas
    assert set(results["ablations"]["3"]) == {"dissimilarity", "elites", "parts", "scores", "sequential"}
    assert set(results["training_s"]) == {"supernet", "exits_smallest", "exits_largest"}


@pytest.mark.slow
def test_more_freedom_never_makes_a_front_worse(finished):
    parts = finished[1]["ablations"]["3"]["parts"]
    volume = {name: entry["selection"] for name, entry in parts.items() if name != "seconds"}
    assert volume["neither"] <= volume["clocks"] + 1e-6
    for policy in ("ideal", "deployable"):
        assert volume["neither"] <= volume[f"exits, {policy}"] + 1e-6
        assert volume[f"exits, {policy}"] <= volume[f"exits + clocks, {policy}"] + 1e-6
        assert volume["clocks"] <= volume[f"exits + clocks, {policy}"] + 1e-6
    for row in finished[1]["inner"][DEVICE]["networks"]:
        assert row["ideal: exits + clocks"]["selection_accuracy"] == row["ideal: exits"]["selection_accuracy"]


@pytest.mark.slow
def test_the_dissimilarity_prefers_exits_that_differ_more_and_says_nothing_of_one_exit(finished):
    scores = finished[1]["ablations"]["3"]["scores"]
    for gamma in ("gamma 1", "gamma 2"):
        assert scores[gamma]["1 exits"] == scores["gamma 0"]["1 exits"]
        assert scores[gamma]["2 exits"]["dissimilarity"] >= scores["gamma 0"]["2 exits"]["dissimilarity"]
    assert sum(scores["gamma 0"]["exits_of_the_best"].values()) == finished[1]["hadas"][DEVICE]["3"]["examined"]


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_stages_can_be_chosen(finished, run, tmp_path):
    runs = finished[0] / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    arguments = ("--devices", DEVICE, "--seeds", "3", "--stages", "hadas", "-o", str(tmp_path / "part.json"))
    assert run(runs, *arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before
    part = json.loads((tmp_path / "part.json").read_text())
    assert part["hadas"] == finished[1]["hadas"]
    assert "inner" not in part


@pytest.mark.slow
def test_other_settings_do_not_go_into_the_same_folder(finished, run, capsys):
    assert run(finished[0] / "runs", "--checkpoint", str(finished[0] / "runs" / "supernet" / "supernet2")) == 2
    assert "expected the settings of the results that are there, got checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "toaster"], "got 'toaster'"),
        (["--picture", "x.png", "--stages", "inner"], "--picture: expected the stage hadas, which it shows, got inner"),
        (["--checkpoint", "none"], "none: expected a directory with a trained supernet, got none"),
        (["--dataset", "cifar10"], "hadas data prepare cifar10 --data-dir"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(run, tmp_path, capsys, arguments, message):
    assert run(tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("hadas_paper: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "outer"], "--stages: expected some of motivation, inner, hadas, ablations, got 'outer'"),
        (["--devices"], "--devices and --seeds: expected at least one each, got none"),
    ],
)
def test_settings_that_cannot_be_are_refused(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", *arguments)
    assert stop.value.code == 2
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in words
    assert not (tmp_path / "out").exists()


def test_baselines_grow_from_the_smallest_backbone_step_by_step(module):
    baselines = module("hadas_paper.baselines")
    space = load_space("attentivenas").adapt(in_channels=3, classes=100, image_size=224)
    steps = np.array(baselines.ladder(space))
    assert (steps[0] == space.smallest_genome).all()
    assert (steps[-1] == space.largest_genome).all()
    assert (np.diff(steps, axis=0).sum(axis=1) == 1).all()
    assert (np.diff(steps, axis=0) >= 0).all()
    found = baselines.like_published(space, ("a0", "a3", "a6"))
    sizes = [baselines.macs(space, genome) for genome in found]
    assert (found[0] == space.smallest_genome).all()
    assert sizes == sorted(sizes)
    # a6 has 709 of 201.8 to 1937.6 million at 100 classes: 0.56 of the way, by the logarithm.
    whole = baselines.macs(space, space.largest_genome) / sizes[0]
    assert np.log(sizes[2] / sizes[0]) / np.log(whole) == pytest.approx(0.556, abs=0.08)


def test_figures_of_two_fronts(module):
    metrics = module("hadas_paper.metrics")
    ours = np.array([[0.1, 1, 2], [0.2, 1, 1]], np.float32)
    theirs = np.array([[0.1, 2, 3], [0.2, 0.5, 1], [0.3, 2, 2]], np.float32)
    assert metrics.dominance(ours, theirs) == pytest.approx(2 / 3)
    assert metrics.dominance(theirs, ours) == pytest.approx(1 / 2)
    volume = metrics.relative_hypervolume(ours[:1], np.array([0.2, 2, 4]))
    assert volume == pytest.approx(0.5**3)
    assert metrics.energy_curve(np.array([[0.3, 1, 1e-3], [0.2, 1, 2e-3], [0.25, 1, 3e-3]])) == [[0.7, 1], [0.8, 2]]
