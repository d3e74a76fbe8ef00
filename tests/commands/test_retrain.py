"""Retraining through the command, on arrays in a file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from failing_commands import fails

from hadas_jax.cli import main
from hadas_jax.commands.dnas import retrain
from hadas_jax.data import load_dataset
from hadas_jax.methods.eh_dnas.retrain import RetrainRun
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import RetrainSettings
from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import network_rows
from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.supernet.darts.checkpoint import load_derived, save_derived

CELL = (
    *(("avg_pool_3x3", 0), ("skip_connect", 1), ("skip_connect", 0), ("skip_connect", 2)),
    *(("dil_conv_3x3", 2), ("skip_connect", 0), ("skip_connect", 3), ("skip_connect", 4)),
)
GENOTYPE = Genotype(CELL, CELL)
QUICK = {"channels": 4, "cells": 2, "epochs": 4, "batch": 20, "augmentation": "none", "learning_rate": 0.1}
FLAGS = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in QUICK.items())


class InterruptionError(Exception):
    pass


class Interrupting:
    """Progress that stops a run after some updates."""

    def __init__(self, updates):
        self.left = updates

    def stage(self, name, total):
        pass

    def update(self, done, metrics):
        self.left -= bool(metrics)
        if not self.left:
            raise InterruptionError


@pytest.fixture(scope="module", autouse=True)
def _caches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """150 images of 6x6 pixels in three classes, by the row of a bright bar."""
    rng, labels = np.random.default_rng(3), np.arange(150) % 3
    images = rng.normal(0, 0.3, (150, 6, 6, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 2.0
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=images, labels=labels)
    return f"npz:{path}"


@pytest.fixture(scope="module")
def found(dataset, tmp_path_factory):
    """The file of a genotype, as a search writes it."""
    code = "".join(map(str, code_of(GENOTYPE)))
    path = tmp_path_factory.mktemp("search") / "genotype.json"
    content = {
        "form": "hadas_jax.genotype/1",
        "genotype": str(GENOTYPE),
        "code": code,
        "hardware": "generic",
        "images_per_s": 1.0,
        "energy_mj": None,
        "clocks_mhz": None,
        "within_budgets": True,
        "code_without_budgets": code,
        "alpha": np.zeros((28, 8)).tolist(),
        "data": load_dataset(dataset, seed=0).record.as_json(),
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def retrained(dataset, found, tmp_path_factory):
    """The work directory of a retraining."""
    workdir = tmp_path_factory.mktemp("retrain") / "run"
    main(f"dnas retrain --genotype {found} --dataset {dataset} {FLAGS} --workdir {workdir}".split())
    return workdir


def test_a_retraining_leaves_accuracy_size_and_picture(retrained):
    result = json.loads((retrained / "result.json").read_text())
    assert result["form"] == "hadas_jax.retrained/1"
    assert result["test_accuracy"] > 0.9
    trained = load_derived(retrained / "derived")
    assert result["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(trained.weights))
    rows = network_rows(trained.network)
    layers = np.asarray(rows.layer_counts(darts_counts(jnp.asarray(code_of(trained.genotype)))))
    assert result["macs"] == np.sum((layers * rows.macs)[rows.is_weighted])
    assert (retrained / "genotype.png").read_bytes()[1:4] == b"PNG"
    lines = [json.loads(line) for line in (retrained / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["retrain"] * 4
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_loaded_network_has_the_reported_accuracy(retrained, dataset):
    trained = load_derived(retrained / "derived")
    assert code_of(trained.genotype).tolist() == code_of(GENOTYPE).tolist()
    assert "auxiliary" not in trained.weights
    test = load_dataset(dataset, seed=0).test
    images, labels = test.take(jnp.arange(test.count))
    share = np.mean(np.argmax(trained.logits(images), -1) == labels)
    assert share == pytest.approx(json.loads((retrained / "result.json").read_text())["test_accuracy"])


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bits(retrained, found, dataset, tmp_path, capsys):
    settings = RetrainSettings.of(genotype=str(found), dataset=dataset, **QUICK)
    workdir = tmp_path / "run"
    place = WorkDir(workdir, kind="dnas-retrain")
    run = RetrainRun(settings)
    data = run.splits.record.as_json()
    with (
        pytest.raises(InterruptionError),
        place.run(settings.flat(), data=data, resume=False, overwrite=False),
    ):
        run.execute(place, Interrupting(2))
    main(f"dnas retrain --workdir {workdir} --resume".split())
    assert "done before" in capsys.readouterr().out
    whole, resumed = (load_derived(path / "derived") for path in (retrained, workdir))
    for name in ("weights", "statistics"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, name), getattr(resumed, name))


def test_a_finished_run_is_judged_again_with_another_batch(retrained):
    before = json.loads((retrained / "result.json").read_text())
    settings = RetrainSettings.of(**before["settings"] | {"eval_batch": 7})
    result = retrain(settings, workdir=retrained, resume=True)
    assert result.test_accuracy == pytest.approx(before["test_accuracy"])


@pytest.mark.slow
def test_a_network_without_auxiliary_head_and_drops_in_half_precision_is_trained(found, dataset, tmp_path):
    changed = {"auxiliary_weight": 0.0, "drop_path": 0.0, "cutout": 0, "dtype": "bfloat16", "remat": True, "cells": 1}
    settings = RetrainSettings.of(genotype=str(found), dataset=dataset, **(QUICK | changed))
    result = retrain(settings, workdir=tmp_path / "run")
    assert 0 < result.validation_accuracy <= 1
    assert all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(load_derived(tmp_path / "run" / "derived").weights)
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--genotype DARTS_V9", "--genotype DARTS_V9: architecture: expected one of DARTS_V1"),
        ("--genotype 0000", "expected 28 digits"),
        ("--channels 5", "--channels: expected an even number, got 5"),
        ("--cells 0", "--cells: expected a whole number of at least 1, got 0"),
        ("--cutout 9", "--cutout: expected at most the 8 pixels of the images, got 9"),
        ("--cutout -1", "--cutout: expected a whole number of at least 0, got -1"),
        ("--drop-path 1", "--drop-path: expected a number of at least 0 and below 1, got 1.0"),
        ("--style mobile", "--style: expected one of cifar, imagenet, got 'mobile'"),
        ("--augmentation mixup", "--augmentation: expected one of none"),
        ("--learning-rate 0", "--learning-rate: expected a number above 0"),
        ("--dataset nothing", "unknown dataset 'nothing'"),
        ("--resume", "--resume: expected --workdir"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, capsys):
    assert message in fails(f"dnas retrain {flags}", capsys)


def test_another_commands_work_directory_is_refused(retrained, capsys):
    error = fails(f"train --workdir {retrained} --resume", capsys)
    assert "expected form hadas_jax.train/1, got 'hadas_jax.dnas-retrain/1'" in error


def test_a_work_directory_points_to_its_network(retrained, tmp_path):
    with pytest.raises(ValueError, match=r"no derived.json.*derived has one"):
        load_derived(retrained)
    with pytest.raises(ValueError, match="expected a directory with a retrained network"):
        load_derived(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "hadas_jax.supernet/1"}, "expected form hadas_jax.derived/1"),
        ({"code": "12"}, "expected 28 digits"),
        ({"network": {"channels": 3}}, "channels: expected an even number"),
        ({"network": {"channels": 8, "cells": 2}}, "damaged, missing or others"),
    ],
)
def test_a_changed_description_is_refused(retrained, tmp_path, change, message):
    save_derived(tmp_path / "derived", load_derived(retrained / "derived"))
    path = tmp_path / "derived" / "derived.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_derived(tmp_path / "derived")
