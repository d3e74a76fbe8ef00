"""No image is judged on that a weight, a statistic, a threshold or a choice has seen, whichever commands follow."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_hadas import TINY
from tiny_search import SETTINGS, listed

from hadas_jax.commands import train
from hadas_jax.commands.hadas import search
from hadas_jax.commands.networks import fine_tune, materialise_network
from hadas_jax.commands.run import running
from hadas_jax.deploy.architecture import write_architecture
from hadas_jax.deploy.materialise import data_of
from hadas_jax.deploy.select import SearchedSupernet, architecture_of
from hadas_jax.deploy.static_network import load_network
from hadas_jax.methods import TrainingRun
from hadas_jax.methods.eh_dnas import DnasRun
from hadas_jax.methods.eh_dnas.retrain import RetrainRun
from hadas_jax.methods.hadas.archive import load_backbones
from hadas_jax.methods.hadas.results import FinishedSearch, read_search
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import NO_CONSTRAINTS, DnasSettings, FineTuneSettings, RetrainSettings, TrainSettings
from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.genotypes import read_architecture
from hadas_jax.supernet import initialise
from hadas_jax.supernet.checkpoint import load_supernet, save_supernet
from hw_models.catalogue import chosen_device

DARTS_V2 = format_code(read_architecture("DARTS_V2"))
PARTS = ("train", "validation", "calibration", "test")


def seen_in(splits):
    """The images of every part, as sets of bytes."""
    return {name: {image.tobytes() for image in np.asarray(getattr(splits, name).images)} for name in PARTS}


def assert_disjoint(stages):
    """Test images are none of the others, and validation and calibration none of training, over all stages."""
    found = [seen_in(splits) for splits in stages]
    trained, chosen, tested = (
        set().union(*(parts[name] for parts in found for name in names))
        for names in (("train",), ("validation", "calibration"), ("test",))
    )
    assert not tested & (trained | chosen)
    assert not chosen & trained
    assert all((trained, chosen, tested))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """(own validation, own test) -> name of a set of different images in three classes."""
    place = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def images(count):
        return {"images": rng.integers(0, 256, (count, 8, 8, 1), np.uint8), "labels": np.arange(count) % 3}

    found = {}
    for own_test in (False, True):
        path = place / f"{own_test}.npz"
        test = {f"test_{name}": array for name, array in images(30).items()} if own_test else {}
        np.savez(path, **images(90), **test)
        found[own_test] = f"npz:{path}"
    return found


@pytest.fixture(scope="module")
def untrained():
    """Parameters of the tiny space that nobody trained, by its number of classes."""
    shapes = jax.eval_shape(lambda: initialise(TINY.adapt(in_channels=1, classes=3, image_size=8), jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def command(settings, *, fine_tune=True):
    """What hadas train (or else hadas search) reads, without any training."""
    with listed():
        return TrainingRun(settings, fine_tune=fine_tune)


SEEDS, EVALUATED = st.integers(0, 3), st.sampled_from([None, 3, 7, 50])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    own_test=st.booleans(),
    split_seed=st.none() | SEEDS,
    first=st.tuples(SEEDS, EVALUATED),
    then=st.lists(st.tuples(st.sampled_from(["train", "exits", "search"]), SEEDS, EVALUATED), min_size=1, max_size=3),
)
def test_commands_that_follow_another_take_its_division(
    own_test, split_seed, first, then, datasets, untrained, tmp_path_factory
):
    place = tmp_path_factory.mktemp("checkpoints")
    base = TrainSettings.of(
        dataset=datasets[own_test], space="tiny", split_seed=split_seed, seed=first[0], evaluation_images=first[1]
    )
    run = command(base)
    stages = [run.splits]
    for number, (kind, seed, images) in enumerate(then):
        checkpoint = place / str(number)
        save_supernet(checkpoint, run.described(untrained, {}))
        changed = base.replace(
            checkpoint=str(checkpoint),
            split_seed=None,
            seed=seed,
            evaluation_images=images,
            epochs=1 if kind == "train" else 0,
        )
        run = command(changed, fine_tune=kind != "search")
        stages.append(run.splits)
    assert_disjoint(stages)
    assert all(splits.record == stages[0].record for splits in stages)


def write_genotype(place, record):
    """Writes what a search by gradient ends with, and returns its path."""
    content = {
        "form": "hadas_jax.genotype/1",
        "genotype": DARTS_V2,
        "code": DARTS_V2,
        "hardware": "generic",
        "images_per_s": 1.0,
        "energy_mj": None,
        "clocks_mhz": None,
        "within_budgets": True,
        "code_without_budgets": DARTS_V2,
        "alpha": np.zeros((28, 8)).tolist(),
        "data": record and record.as_json(),
    }
    path = place / "genotype.json"
    path.write_text(json.dumps(content))
    return path


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(split_seed=SEEDS, seed=SEEDS, images=EVALUATED, own_test=st.booleans())
def test_a_genotype_is_retrained_on_the_division_that_it_was_found_on(
    split_seed, seed, images, own_test, datasets, tmp_path_factory
):
    found = DnasRun(DnasSettings.of(dataset=datasets[own_test], split_seed=split_seed, weight=0.0, channels=2, cells=3))
    path = write_genotype(tmp_path_factory.mktemp("search"), found.splits.record)
    settings = RetrainSettings.of(
        dataset=datasets[own_test], genotype=str(path), seed=seed, evaluation_images=images, channels=2, cells=3
    )
    assert_disjoint([found.splits, RetrainRun(settings).splits])
    with pytest.raises(ValueError, match=f"split_seed {split_seed + 1}: expected none beside genotype"):
        RetrainRun(settings.replace(split_seed=split_seed + 1))


def test_a_genotype_is_not_retrained_on_its_images_changed_or_of_an_earlier_version(datasets, tmp_path):
    name, other = datasets[False], datasets[True]
    small = RetrainSettings.of(dataset=name, channels=2, cells=3)
    path = write_genotype(tmp_path, RetrainRun(small).splits.record)
    of_file = small.replace(genotype=str(path))
    for _, changed in changed_sets(pathlib_of(name), tmp_path):
        with pytest.raises(ValueError, match=f"data set {changed}: expected the images that genotype .* was made of"):
            RetrainRun(of_file.replace(dataset=changed))
    assert RetrainRun(of_file.replace(dataset=other)).splits.record.seed == 0
    write_genotype(tmp_path, None)
    with pytest.raises(ValueError, match="which does not; search anew, or give its code"):
        RetrainRun(of_file)


def pathlib_of(dataset):
    """The file of a data set."""
    return Path(dataset.removeprefix("npz:"))


def changed_sets(path, place):
    """What differs, and the name, of data sets in a folder that are those of a file, changed."""
    with np.load(path) as file:
        arrays = dict(file)
        images, labels = arrays["images"], arrays["labels"]
    named = "class_names" in arrays
    variants = {
        "91 training images instead of 90": (np.append(images, images[:1] ^ 1, 0), np.append(labels, 0)),
        "the same training images with other labels": (images, np.roll(labels, 1)),
        "the same training images in another order": (images[::-1], labels[::-1]),
        "class 1 called 'b' instead of 'x'": (images, labels),
    }
    for number, (difference, (pixels, classes)) in enumerate(variants.items()):
        changed = {"images": pixels, "labels": classes}
        if named:
            changed["class_names"] = np.array(["a", "b" if "called" in difference else "x", "c"])
        if named or "called" not in difference:
            np.savez(place / f"changed{number}.npz", **arrays | changed)
            yield difference, f"npz:{place / f'changed{number}.npz'}"


@pytest.mark.parametrize("kind", ["train", "exits", "search"])
def test_data_that_changed_since_are_refused(kind, untrained, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "data.npz"
    names = np.array(["a", "x", "c"])
    arrays = {"images": rng.integers(0, 256, (90, 8, 8, 1), np.uint8), "labels": np.arange(90) % 3}
    np.savez(path, **arrays, class_names=names)
    base = TrainSettings.of(dataset=f"npz:{path}", space="tiny")
    save_supernet(tmp_path / "net", command(base).described(untrained, {}))
    again = base.replace(checkpoint=str(tmp_path / "net"), epochs=1 if kind == "train" else 0)
    for difference, dataset in changed_sets(path, tmp_path):
        with pytest.raises(ValueError, match=f"data set {dataset}: expected the images that checkpoint") as error:
            command(again.replace(dataset=dataset), fine_tune=kind != "search")
        assert difference in str(error.value)


def test_a_supernet_may_be_trained_further_on_images_that_it_never_saw(untrained, datasets, tmp_path):
    first = command(TrainSettings.of(dataset=datasets[False], space="tiny"))
    save_supernet(tmp_path / "net", first.described(untrained, {}))
    other = TrainSettings.of(dataset=datasets[True], space="tiny", checkpoint=str(tmp_path / "net"), epochs=1)
    second = command(other)
    save_supernet(tmp_path / "further", second.described(untrained, {}))
    seen = load_supernet(tmp_path / "further").seen
    assert set(seen.tolist()) == set(first.splits.fingerprints.tolist()) | set(second.splits.fingerprints.tolist())
    assert "other images than the checkpoint's" in second.splits.summary()
    # What was seen first is still known.
    with pytest.raises(ValueError, match=r"has not seen, but 42 of its 42 validation, calibration and test images"):
        command(other.replace(dataset=datasets[False], checkpoint=str(tmp_path / "further")))
    with pytest.raises(ValueError, match=r"hadas train --checkpoint .* trains it for these"):
        command(other.replace(epochs=0), fine_tune=False)


def test_a_division_of_ones_own_is_refused_beside_a_checkpoint():
    with pytest.raises(ValueError, match="split_seed and checkpoint: expected one of them, got both"):
        TrainSettings.of(checkpoint="runs/x/supernet", split_seed=1)


def test_a_supernet_of_an_earlier_version_is_refused(untrained, datasets, tmp_path):
    run = command(TrainSettings.of(dataset=datasets[False], space="tiny"))
    without = dataclasses.replace(run.described(untrained, {"settings": {"seed": 0}}), data=None)
    save_supernet(tmp_path / "old", without)
    with pytest.raises(ValueError, match="expected a supernet that says which images trained it"):
        command(TrainSettings.of(dataset=datasets[False], checkpoint=str(tmp_path / "old"), epochs=0), fine_tune=False)
    save_supernet(tmp_path / "imported", dataclasses.replace(without, details={}))
    imported = TrainSettings.of(dataset=datasets[False], checkpoint=str(tmp_path / "imported"), epochs=0)
    assert command(imported, fine_tune=False).splits.record == run.splits.record


def test_backbones_that_were_chosen_on_another_division_are_no_warm_start(datasets, tmp_path):
    run = command(TrainSettings.of(dataset=datasets[False], space="tiny"))
    other = command(TrainSettings.of(dataset=datasets[False], space="tiny", split_seed=1))
    genome = run.space.smallest_genome.tolist()
    path = tmp_path / "front.json"

    def write(record):
        path.write_text(json.dumps({"designs": [{"genome": genome}], "data": record and record.as_json()}))

    write(other.splits.record)
    with pytest.raises(ValueError, match="got the same images divided with seed 0 instead of 1: test images of this"):
        load_backbones([str(path)], run.space, record=run.splits.record)
    assert load_backbones([str(path)], run.space, record=other.splits.record).tolist() == [genome]
    (_, dataset), *_ = changed_sets(pathlib_of(datasets[False]), tmp_path)
    changed = command(TrainSettings.of(dataset=dataset, space="tiny"))
    with pytest.raises(ValueError, match="got 91 training images instead of 90: test images of this search may"):
        load_backbones([str(path)], run.space, record=changed.splits.record)
    elsewhere = command(TrainSettings.of(dataset=datasets[True], space="tiny"))
    assert load_backbones([str(path)], run.space, record=elsewhere.splits.record).tolist() == [genome]
    write(None)
    with pytest.raises(ValueError, match="got one of an earlier version"):
        load_backbones([str(path)], run.space, record=run.splits.record)


def test_a_run_does_not_go_on_from_a_supernet_of_another_division(untrained, datasets, tmp_path):
    base = TrainSettings.of(dataset=datasets[False], space="tiny")
    save_supernet(tmp_path / "net", command(base).described(untrained, {}))
    settings = base.replace(checkpoint=str(tmp_path / "net"), space=None)
    workdir = WorkDir(tmp_path / "run", kind="train")
    with running(workdir, settings, command(settings).splits, resume=False, overwrite=False):
        pass
    with running(workdir, settings, command(settings).splits, resume=True, overwrite=False):
        pass
    replaced = command(base.replace(split_seed=5)).described(untrained, {})
    save_supernet(tmp_path / "net", replaced, overwrite=True)
    with (
        pytest.raises(ValueError, match="got the same images divided with seed 5 instead of 0"),
        running(workdir, settings, command(settings).splits, resume=True, overwrite=False),
    ):
        pass


def test_a_supernet_of_another_division_than_the_search_had_is_not_selected_from(untrained, datasets, tmp_path):
    base = TrainSettings.of(dataset=datasets[False], space="tiny")
    run, other = command(base), command(base.replace(split_seed=5))
    save_supernet(tmp_path / "supernet", run.described(untrained, {}))
    result = SimpleNamespace(number_formats=())
    found = FinishedSearch(tmp_path, SETTINGS, versions={}, result=result, data=run.splits.record)
    assert SearchedSupernet.of(found).space.name == "tiny"
    with pytest.raises(ValueError, match="got one of other images or of another division; search anew"):
        SearchedSupernet.of(dataclasses.replace(found, data=other.splits.record))


@pytest.fixture
def folder(tmp_path):
    """The folder of a data set of different images in three classes, in colour."""
    rng = np.random.default_rng(3)
    for number in range(60):
        place = tmp_path / "images" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("form", ["fewer", "npz", "floats"])
def test_images_are_known_again_in_another_form(form, folder, tmp_path, monkeypatch):
    shapes = jax.eval_shape(lambda: initialise(TINY.adapt(in_channels=3, classes=3, image_size=8), jax.random.key(0)))
    weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    settings = TrainSettings.of(dataset=f"folder:{folder}", space="tiny")
    if form == "fewer":  # so large that names and sizes are looked at, and then no more
        monkeypatch.setattr("hadas_jax.data.images.CONTENTS_BYTES", 60 * 200)
    splits = command(settings).splits
    save_supernet(tmp_path / "net", command(settings).described(weights, {}))
    if form == "fewer":
        assert splits.record.groups["training"].fingerprint_of == "names and sizes"
        monkeypatch.undo()
        (folder / "a" / "0.png").unlink()
        dataset = f"folder:{folder}"
    else:
        whole = (splits.test, splits.train, splits.validation, splits.calibration)
        pixels, labels = (
            np.concatenate([np.asarray(getattr(p, name)) for p in whole]) for name in ("images", "labels")
        )
        scaled = pixels if form == "npz" else pixels.astype(np.float32) / 255
        np.savez(tmp_path / "same.npz", images=scaled, labels=labels)
        dataset = f"npz:{tmp_path / 'same.npz'}"
    with pytest.raises(ValueError, match=r"expected the images that checkpoint .* was made of"):
        command(settings.replace(dataset=dataset, checkpoint=str(tmp_path / "net"), space=None))


def without_test_columns(path):
    """The rows of front.csv but for what is measured on the test split."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    measured = ("test", "saving", "difference", "verdict")
    kept = [number for number, name in enumerate(rows[0]) if not any(word in name for word in measured)]
    return [[row[number] for number in kept] for row in rows]


def with_most_exits(place):
    """Selects the network of a search that has the most exits."""
    found = read_search(place)
    design, supernet = max(found.result.designs, key=lambda each: len(each.exits)), SearchedSupernet.of(found)
    device = chosen_device(found.settings.device, found.settings.operating)
    (parameters,) = supernet.parameter_counts([design], device)
    architecture = architecture_of(
        found, design, supernet=supernet, parameters=int(parameters), folder=place, limits=NO_CONSTRAINTS, prefer="knee"
    )
    write_architecture(place / "architecture.json", architecture)
    return architecture


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Everything from the data to a fine-tuned network, on images that differ in the test set alone."""
    rng = np.random.default_rng(2)
    base = rng.integers(0, 256, (3, 8, 8, 1))

    def images(count, strength, seed):
        labels = np.arange(count) % 3
        noise = np.random.default_rng(seed).integers(-strength, strength + 1, (count, 8, 8, 1))
        return np.clip(base[labels] + noise, 0, 255).astype(np.uint8), labels

    runs = []
    for number in range(2):
        place = tmp_path_factory.mktemp(f"run{number}")
        (train, labels), (test, test_labels) = images(180, 60, 3), images(60, 60 + 140 * number, 4 + number)
        np.savez(place / "data.npz", images=train, labels=labels, test_images=test, test_labels=test_labels)
        with listed():
            settings = SETTINGS.replace(dataset=f"npz:{place / 'data.npz'}", batch=64, epochs=6)
            result = search(settings, workdir=place / "search")
            architecture = with_most_exits(place / "search")
            materialise_network(place / "search")
            fine_tune(FineTuneSettings(network=str(place / "search" / "network"), epochs=1), workdir=place / "tuned")
            splits = data_of(architecture)
        runs.append(SimpleNamespace(place=place, result=result, splits=splits))
    return runs


@pytest.mark.slow
def test_test_images_change_nothing_but_what_is_measured_on_them(two_runs):
    one, other = two_runs
    assert not seen_in(one.splits)["test"] & seen_in(other.splits)["test"]
    fronts = [without_test_columns(run.place / "search" / "front.csv") for run in two_runs]
    assert fronts[0] == fronts[1]
    weights = [load_supernet(run.place / "search" / "supernet").params for run in two_runs]
    assert jax.tree.all(jax.tree.map(np.array_equal, *weights))
    assert one.result.largest_test_accuracy != other.result.largest_test_accuracy
    tuned = [load_network(run.place / "tuned" / "network") for run in two_runs]
    assert tuned[0].architecture.exits
    for name in ("thresholds", "selection", "genome", "exits", "clocks_mhz"):
        assert getattr(tuned[0].architecture, name) == getattr(tuned[1].architecture, name)
    assert jax.tree.all(jax.tree.map(np.array_equal, *(network.weights for network in tuned)))


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A supernet that knows random labels of 300 random images by heart: the place, and its accuracy on them."""
    place, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    np.savez(
        place / "noise.npz",
        images=rng.integers(0, 256, (300, 8, 8, 1), np.uint8),
        labels=rng.permutation(np.arange(300) % 3),
    )
    settings = TrainSettings.of(
        dataset=f"npz:{place / 'noise.npz'}",
        space="tiny",
        epochs=100,
        exit_epochs=5,
        batch=64,
        augmentation="none",
        label_smoothing=0.0,
        learning_rate=0.2,
    )
    with listed():
        trained = train(settings, workdir=place / "trained").trained
        run = TrainingRun(settings)
        known = run.accuracies(trained.params, run.space.largest_genome[None], run.splits.train)[0, -1]
    return place, float(known)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "images"), [(0, None), (1, 30), (2, None)])
def test_random_labels_are_guessed_by_chance_whatever_the_seed(seed, images, noise):
    place, known = noise
    assert known > 0.6  # so that an image which was trained on would show
    settings = SETTINGS.replace(
        dataset=f"npz:{place / 'noise.npz'}",
        space=None,
        checkpoint=str(place / "trained" / "supernet"),
        seed=seed,
        evaluation_images=images,
        batch=64,
    )
    with listed():
        result = search(settings, workdir=place / f"search-{seed}-{images}")
    count = 45 if images is None else images
    error = np.sqrt(1 / 3 * 2 / 3 / count)
    found = [result.largest_test_accuracy, result.smallest_test_accuracy]
    found += [design.test["deployable"].accuracy for design in result.designs]
    assert np.abs(np.array(found[:2]) - 1 / 3).max() < 3 * error
    assert np.abs(np.mean(found) - 1 / 3) < 3 * error
