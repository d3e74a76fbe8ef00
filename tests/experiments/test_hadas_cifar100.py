import json
import shutil

import pytest
from experiment_scripts import script_module
from fake_tfds import write_fake_set
from tiny_hadas import TINY

from hadas_jax.spaces import catalogue
from hadas_jax.supernet.checkpoint import load_supernet

CLASSES = 10  # of the hundred, have images


@pytest.fixture(scope="module", autouse=True)
def _listed_space():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.SPACES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def script():
    """The experiment as a module."""
    with script_module("hadas_cifar100") as module:
        yield module


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    write_fake_set(place, "cifar100", classes=CLASSES, counts={"train": 600, "test": 100})
    return str(place)


@pytest.fixture(scope="module")
def run(script, data_dir):
    """(folder, further arguments) -> exit code of the experiment in smoke form."""

    def run(out, *arguments):
        return script.main(["--smoke", "--data-dir", data_dir, "--out", str(out), *arguments])

    return run


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder of an experiment from scratch for one device."""
    out = tmp_path_factory.mktemp("experiment") / "scratch"
    assert run(out, "--space", "tiny", "--devices", "tx2-cpu") == 0
    return out


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_every_stage_leaves_its_files_and_the_results_tell_of_all(finished, script):
    assert {path.name for path in finished.iterdir()} == {
        "supernet",
        "exits_smallest",
        "shared_exits_smallest.json",
        "search_tx2-cpu",
        "results.json",
    }
    results = json.loads((finished / "results.json").read_text())
    assert set(results["supernet"]) == {"largest", "smallest"}
    exits = results["exits"]
    assert exits["backbone"] == "smallest"
    assert len(exits["blocks"]) == len(exits["shared"]) == len(exits["own"]) == 1
    assert exits["classifier"] == pytest.approx(results["supernet"]["smallest"]["final"])
    assert exits["shared"][0] == pytest.approx(results["supernet"]["smallest"]["1"])
    found = results["search"]["tx2-cpu"]
    assert found["backbones"] > script.SMOKE_BUDGET["population"] / 2
    assert found["levels"][0]["network"] == "static"
    assert found["levels"][0]["energy_mj"] > 0
    assert load_supernet(finished / "supernet" / "supernet").space.classes == 100
    assert load_supernet(finished / "exits_smallest" / "supernet").exits_of == "smallest"


@pytest.mark.slow
def test_it_learns_far_beyond_chance(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["supernet"]["largest"]["final"] > 3 / CLASSES
    assert results["supernet"]["smallest"]["final"] > 3 / CLASSES
    assert max(row["test_accuracy"] for row in results["search"]["tx2-cpu"]["levels"]) > 3 / CLASSES


@pytest.mark.slow
def test_what_is_done_is_not_done_again(finished, run, capsys):
    before = files(finished)
    assert run(finished, "--space", "tiny", "--devices", "tx2-cpu") == 0
    after = files(finished)
    assert {path for path, moment in after.items() if before.get(path) != moment} == {finished / "results.json"}
    assert "starts" not in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_stage_ends_as_it_would_have(finished, run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for name in ("exits_smallest", "search_tx2-cpu"):  # their settings name the folder of the supernet
        shutil.rmtree(copy / name)
    shutil.rmtree(copy / "supernet" / "checkpoints" / "exits")
    shutil.rmtree(copy / "supernet" / "supernet")
    (copy / "supernet" / "exits.png").unlink()
    assert run(copy, "--space", "tiny", "--devices", "tx2-cpu") == 0
    printed = capsys.readouterr().out
    assert "supernet: 60 of 60 steps done before" in printed
    for name in ("supernet/exits.csv", "exits_smallest/exits.csv", "search_tx2-cpu/front.csv"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_checkpoint_is_fine_tuned_by_its_own_rate(finished, run, script, tmp_path, monkeypatch):
    asked = []

    def train(settings, *, workdir, resume, console):
        asked.append(settings)
        shutil.copytree(finished / workdir.name, workdir)

    monkeypatch.setattr(script, "train", train)
    checkpoint = str(finished / "supernet" / "supernet")
    assert run(tmp_path / "tuned", "--checkpoint", checkpoint, "--devices") == 0
    assert [settings.supernet.checkpoint for settings in asked] == [
        checkpoint,
        str(tmp_path / "tuned" / "supernet" / "supernet"),
    ]
    assert asked[0].training.learning_rate == script.FINE_TUNING["learning_rate"]
    assert asked[0].supernet.space is None
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert results["supernet"] == json.loads((finished / "results.json").read_text())["supernet"]
    assert results["search"] == {}


def test_the_full_recipe_is_that_of_the_papers(script):
    whole = script.Experiment(data_dir="x")
    training, exits, search = whole.training(), whole.paper_exits(), whole.searching("tx2-gpu")
    assert (training.data.dataset, training.supernet.space) == ("cifar100", "attentivenas")
    own, frozen = exits.evaluation, training.evaluation
    images = (frozen.stats_batches * training.training.batch, own.stats_batches * exits.training.batch)
    training, exits, search, exits_for = training.training, exits.training, search.search, exits.exits_for
    assert images == (64 * 64, 64 * 64)
    assert training.exit_epochs == 30
    assert (training.sampled, training.sampling, training.distillation) == (2, "bestup", "alpha")
    assert (training.dropout, training.drop_connect, training.dtype) == (0.2, 0.2, "bfloat16")
    assert (exits_for, exits.epochs, exits.exit_epochs, exits.batch) == ("a0", 0, 30, 64)
    assert exits.exit_learning_rate == 0.01
    assert (search.population, search.generations, search.elite_ratio) == (64, 7, 0.15)
    assert script.Experiment(native=True).training().supernet.space == "attentivenas-native"
    assert script.Experiment(checkpoint="net").training().supernet.space is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "toaster"], "got 'toaster'"),
        (["--exits-for", "a0"], "exits_for a0: expected a backbone of the space small-images"),
        (["--exits-for", "a9"], "exits_for: expected one of largest, smallest, a0"),
        (["--space", "outer"], "unknown space 'outer'"),
        (["--checkpoint", "none"], "none: expected a directory with a trained supernet, got none"),
        (["--dataset", "cifar10"], "hadas data prepare cifar10 --data-dir"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(run, tmp_path, capsys, arguments, message):
    assert run(tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("hadas_cifar100: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--native"], ["--space", "tiny"]])
def test_a_checkpoint_has_its_own_space(run, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", "--checkpoint", "net", *flags)
    assert stop.value.code == 2
    assert f"{flags[0]} and --checkpoint: expected one of them" in " ".join(capsys.readouterr().err.split())
