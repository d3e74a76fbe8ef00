"""Training through the commands, on a folder of image files."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from failing_commands import fails
from fake_tfds import class_image
from PIL import Image
from tiny_hadas import TINY, finished, started

from hadas_jax.cli import main
from hadas_jax.commands.supernets import train
from hadas_jax.settings import TrainSettings
from hadas_jax.spaces import catalogue
from hadas_jax.supernet.checkpoint import load_supernet

TWO_SIZES = dataclasses.replace(TINY, name="tiny-two", resolution=(8, 12))
CLASSES = ("ape", "bat", "cow")
QUICK = "--epochs 4 --exit-epochs 2 --batch 32 --augmentation none --learning-rate 0.2"
SEARCH = "--population 4 --generations 1 --elite-ratio 0.5 --front-size 4 --batch 32"


@pytest.fixture(scope="module", autouse=True)
def _listed_spaces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.SPACES, "tiny", TINY)
        patch.setitem(catalogue.SPACES, "tiny-two", TWO_SIZES)
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
        yield


def write_images(folder, classes, *, size=8, count=60, seed=0):
    rng = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = class_image(label, rng, height=size, width=size, channels=3)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "animals", CLASSES)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """The work directory of a training."""
    workdir = tmp_path_factory.mktemp("train") / "run"
    main(f"train --dataset folder:{images} --space tiny {QUICK} --workdir {workdir}".split())
    return workdir


def stages(workdir):
    return [json.loads(line)["stage"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def accuracies(workdir):
    with (workdir / "exits.csv").open() as file:
        return {(row["backbone"], row["block"]): float(row["test_accuracy"]) for row in csv.DictReader(file)}


def test_a_training_leaves_what_it_promises_and_nothing_else(trained):
    promised = {"supernet", "exits.csv", "exits.png", "config.json", "metrics.jsonl", "checkpoints"}
    assert {path.name for path in trained.iterdir()} == promised
    assert (trained / "exits.png").read_bytes().startswith(b"\x89PNG")
    assert stages(trained) == ["supernet"] * 4 + ["exits"] * 2
    found = load_supernet(trained / "supernet")
    assert (found.space.name, found.space.resolution, found.space.in_channels) == ("tiny", (8,), 3)
    assert found.class_names == CLASSES
    assert found.trained_exits == (1, 2, 3)
    assert found.source == "hadas train on folder:animals"
    assert found.details["settings"]["epochs"] == 4


def test_every_exit_of_the_largest_and_the_smallest_network_is_judged(trained):
    found = accuracies(trained)
    assert list(found) == [
        ("largest", "1"),
        ("largest", "2"),
        ("largest", "3"),
        ("largest", "final"),
        ("smallest", "1"),
        ("smallest", "final"),
    ]
    assert found["largest", "final"] > 0.8
    assert found["smallest", "final"] > 0.8
    kept = load_supernet(trained / "supernet").details["test_accuracy"]
    assert kept == {name: found[name, "final"] for name in ("largest", "smallest")}


def test_a_finished_training_is_only_judged_again(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "exits.csv").unlink()
    main(f"train --resume --workdir {copy}".split())
    for name in ("exits.csv", "metrics.jsonl", "config.json"):
        assert (copy / name).read_bytes() == (trained / name).read_bytes()
    printed = capsys.readouterr().out
    assert "supernet: 12 of 12 steps done before" in printed
    assert "exits: 6 of 6 steps done before" in printed


def test_a_run_goes_on_on_the_same_images_wherever_they_are_and_on_no_others(
    trained, images, tmp_path, monkeypatch, capsys
):
    copy, moved = tmp_path / "copy", tmp_path / "moved here" / "animals"
    shutil.copytree(trained, copy)
    shutil.copytree(images, moved)
    monkeypatch.chdir(moved.parent)
    main(["train", "--resume", "--workdir", str(copy), "--dataset", "folder:animals"])
    assert (copy / "exits.csv").read_bytes() == (trained / "exits.csv").read_bytes()
    wanted = f"Data: {moved}, 3 classes (ape, bat, cow), 8x8 pixels, colour; 99 images to train on, 27 validation"
    assert wanted in capsys.readouterr().out
    shutil.copyfile(moved / "ape" / "0.png", moved / "ape" / "again.png")
    message = fails(["train", "--resume", "--workdir", str(copy), "--dataset", "folder:animals"], capsys)
    assert "expected the images that the run in" in message
    assert "got 181 training images instead of 180; the same images are needed to go on" in message


def test_a_search_takes_the_supernet_as_it_is_and_gives_a_front(trained, images, tmp_path):
    workdir = tmp_path / "search"
    main(f"search --dataset folder:{images} --checkpoint {trained}/supernet {SEARCH} --workdir {workdir}".split())
    assert stages(workdir) == ["search"]
    front = json.loads((workdir / "front.json").read_text())
    assert front["designs"]
    assert front["largest_test_accuracy"] == pytest.approx(accuracies(trained)["largest", "final"])


@pytest.fixture(scope="module")
def one(trained, images, tmp_path_factory):
    """The work directory of exits for one backbone of that supernet."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    settings = f"--checkpoint {trained}/supernet --epochs 0 --exit-epochs 1 --exits-for smallest --batch 32"
    main(f"train --dataset folder:{images} {settings} --workdir {workdir}".split())
    return workdir


def test_exits_for_one_backbone_are_trained_alone(one, trained):
    assert stages(one) == ["exits"]
    found = load_supernet(one / "supernet")
    assert (found.exits_of, found.trained_exits) == ("smallest", (2,))
    assert found.source == "hadas train on folder:animals, from: hadas train on folder:animals"
    assert accuracies(one)["smallest", "final"] == accuracies(trained)["smallest", "final"]


@pytest.mark.slow
def test_a_search_trains_exits_anew_where_they_are_one_backbones(one, images, tmp_path):
    data = f"--dataset folder:{images} --exit-epochs 1"
    main(f"search {data} --checkpoint {one}/supernet {SEARCH} --workdir {tmp_path}/search".split())
    assert stages(tmp_path / "search") == ["exits", "search"]


@pytest.mark.slow
def test_a_supernet_is_fine_tuned_for_other_classes(trained, tmp_path):
    images = write_images(tmp_path / "more", (*CLASSES, "doe"), seed=1)  # none of those that it was trained on
    tuned = tmp_path / "tuned"
    main(f"train --dataset folder:{images} --checkpoint {trained}/supernet {QUICK} --workdir {tuned}".split())
    found = load_supernet(tuned / "supernet")
    assert found.class_names == (*CLASSES, "doe")
    assert found.normalisation == load_supernet(trained / "supernet").normalisation
    assert accuracies(tuned)["largest", "final"] > 0.8


@pytest.mark.slow
def test_two_devices_train_what_one_does(trained, images, tmp_path):
    command = f"train --dataset folder:{images} --space tiny {QUICK} --data-parallel --workdir {tmp_path}/run"
    finished(started(*command.split(), JAX_NUM_CPU_DEVICES="2"))
    losses = []
    for workdir in (trained, tmp_path / "run"):
        entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        losses.append([entry["loss"] for entry in entries])
    np.testing.assert_allclose(*losses, rtol=0.01)


@pytest.mark.slow
def test_networks_of_two_resolutions_are_trained_and_searched_together(images, tmp_path):
    net, workdir = tmp_path / "net", tmp_path / "search"
    data = f"--dataset folder:{images}"
    main(f"train {data} --space tiny-two {QUICK} --workdir {net}".split())
    assert load_supernet(net / "supernet").space.resolution == (8, 12)
    assert accuracies(net)["largest", "final"] > 0.8
    main(f"search {data} --checkpoint {net}/supernet {SEARCH} --workdir {workdir}".split())
    designs = json.loads((workdir / "front.json").read_text())["designs"]
    assert {design["backbone"]["resolution"] for design in designs} <= {8, 12}


MISTAKES = [
    ("train --dataset folder:{one}", "one: expected"),
    ("train --dataset folder:{broken}", "broken.png"),
    ("train --dataset folder:none", "none: expected a folder with one folder of images for each class"),
    ("train --epochs 0", "--epochs: expected a whole number of at least 1 without --checkpoint, got 0"),
    ("train --space outer", "unknown space 'outer': expected one of digits"),
    ("train --exits-for a9", "--exits-for: expected one of largest, smallest, a0"),
    ("train --space attentivenas --resolutions 32", "--resolutions: expected some of 192, 224, 256, 288"),
    ("train --checkpoint none", "none: expected a directory with a trained supernet, got none"),
    ("train --checkpoint {damaged} --dataset folder:{images}", "those in weights.npz are damaged, missing or others"),
    ("search --checkpoint {damaged} --dataset folder:{images}", "those in weights.npz are damaged, missing or others"),
    ("train --checkpoint {net}", "--dataset digits: expected images of 3 channels as checkpoint"),
    ("search --checkpoint {net} --space digits --dataset folder:{images}", "--space digits: expected tiny as"),
    ("search --checkpoint {net} --resolutions 9 --dataset folder:{images}", "--resolutions: expected some of 8"),
    ("search --checkpoint {net} --dataset folder:{more}", "expected at most 3 classes as checkpoint"),
    ("train --resume --workdir {search}", "expected form hadas_jax.train/1, got 'hadas_jax.search/1'"),
    ("train --workdir {net}", "expected none, an empty one or a run's, got one with "),
    ("train --population 4", "--population"),
]


@pytest.fixture(scope="module")
def places(trained, images, tmp_path_factory):
    """Things to get wrong, by name."""
    folder = tmp_path_factory.mktemp("wrong")
    damaged = shutil.copytree(trained / "supernet", folder / "damaged")
    weights = damaged / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-9])
    write_images(folder / "one", CLASSES[:1], count=8)
    write_images(folder / "broken", CLASSES[:2], count=8)
    (folder / "broken" / "bat" / "broken.png").write_bytes(b"no image")
    write_images(folder / "more", "abcd", count=8, seed=1)
    (folder / "search").mkdir()
    (folder / "search" / "config.json").write_text('{"form": "hadas_jax.search/1", "settings": {}}')
    own = {name: folder / name for name in ("one", "broken", "more", "damaged", "search")}
    return own | {"net": trained / "supernet", "images": images}


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(command, message, places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for place in places.values() for path in place.rglob("*")}
    assert message in fails(command.format(**places), capsys)
    assert list(tmp_path.iterdir()) == []
    assert before == {path: path.stat().st_mtime_ns for place in places.values() for path in place.rglob("*")}


def test_a_run_is_replaced_only_when_asked(trained, capsys):
    before = (trained / "config.json").read_bytes()
    assert "--resume continues it, --overwrite replaces it" in fails(f"train --workdir {trained}", capsys)
    assert (trained / "config.json").read_bytes() == before


def test_resuming_with_other_settings_is_refused(trained, images):
    settings = TrainSettings.of(dataset=f"folder:{images}", space="tiny", epochs=9)
    with pytest.raises(ValueError, match="got epochs 9 instead of 4"):
        train(settings, workdir=trained, resume=True)
