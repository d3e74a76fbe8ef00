"""Tests of exits and clocks for a network that is given: one whole run, and what is made of it."""

import csv
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_networks import Graph, small_cnn

from hadas_jax import commands
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.deploy.runtime import Runtime, read_manifest
from hadas_jax.frozen.backbone import FrozenNetwork
from hadas_jax.frozen.description import GivenHeads
from hadas_jax.frozen.features import collect_features
from hadas_jax.frozen.run import ExitsRun
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.report.console import LineProgress, new_console
from hadas_jax.settings import ExitsSettings
from hw_models import load_device

QUIET = new_console(quiet=True)
SETTINGS = {
    "dataset": "digits",
    "device": "raspberry-pi-4",
    "new_classifier": True,
    "places": 3,
    "head_epochs": 8,
    "deviation": (0.5,),
    "front_size": 8,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "cnn.onnx"
    onnx.save(small_cnn(), path)
    return path


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """The work directory of a run."""
    workdir = tmp_path_factory.mktemp("runs") / "given"
    settings = ExitsSettings.of(model=str(model), **SETTINGS)
    commands.exits(settings, workdir=workdir, console=QUIET)
    commands.select_network(workdir, prefer="energy", console=QUIET)
    return workdir


@pytest.fixture(scope="module")
def exported(finished):
    commands.export(finished, format="onnx", console=QUIET)
    return finished / "export"


def test_a_run_finds_exits_that_save_energy(finished):
    result = read_search(finished).result
    design = min(result.front("deployable"), key=lambda design: design.selection["deployable"].energy_j)
    assert design.exits
    assert design.test["deployable"].energy_j < 0.9 * design.static_test.energy_j
    assert result.candidates == 2**3 * len(load_device("raspberry-pi-4").core_hz)
    assert result.largest_test_accuracy > 0.7  # of drawn weights and a trained classifier; a tenth by chance


def test_the_levels_are_of_the_network_without_exits(finished):
    with (finished / "levels.csv").open(encoding="utf-8") as file:
        static = next(row for row in csv.DictReader(file) if row["network"] == "static")
    result = read_search(finished).result
    assert float(static["test_accuracy"]) == pytest.approx(result.largest_test_accuracy)


def test_segments_give_what_the_whole_model_gives_at_every_exit(finished, exported):
    """The whole model is a graph of its own: never cut, all heads behind it."""
    network = network_at(finished)
    data = data_of(network.architecture).test
    whole, _ = network.predict(data)
    x = Runtime(exported).standardise(np.asarray(data.images))
    for number, segment in enumerate(read_manifest(exported)["segments"]):
        session = onnxruntime.InferenceSession(exported / segment["file"])
        outputs = dict(
            zip(segment["outputs"], session.run(list(segment["outputs"].values()), {segment["input"]: x}), strict=True)
        )
        np.testing.assert_allclose(outputs["logits"], whole[number], atol=1e-4 * np.abs(whole).max())
        x = outputs.get("features")
    assert x is None


def test_the_runtime_does_what_the_run_reported(finished, exported):
    network = network_at(finished)
    data, architecture = data_of(network.architecture).test, network.architecture
    found = Runtime(exported)(np.asarray(data.images))
    accuracy = float(np.mean(found.labels == np.asarray(data.labels)))
    assert accuracy == pytest.approx(architecture.test.deployable.accuracy, abs=1e-6)
    shares = np.bincount(found.exits, minlength=len(architecture.exits) + 1) / data.count
    np.testing.assert_allclose(shares, architecture.test.shares, atol=1e-6)


def test_the_manifest_keeps_how_the_model_takes_images(exported):
    about = read_manifest(exported)["input"]
    assert about["deviation"] == [0.5]
    assert about["given"] == {"layout": "nchw", "value_range": [0.0, 1.0], "mean": [], "deviation": [0.5]}


def test_the_weights_of_the_model_stay_as_they_are(finished, model):
    kept = onnx.load(finished / "given" / "model.onnx")
    assert [each.SerializeToString() for each in kept.graph.initializer] == [
        each.SerializeToString() for each in onnx.load(model).graph.initializer
    ]


def test_reports_and_tables_show_a_given_network(finished, capsys):
    commands.show_network(finished)
    assert "up to y" in capsys.readouterr().out
    assert commands.operating_points(finished, console=QUIET).evaluated == len(load_device("raspberry-pi-4").core_hz)
    commands.report([finished], console=QUIET)
    assert (finished / "report.html").is_file()


def test_a_finished_run_is_resumed_without_running_the_network_again(finished, monkeypatch):
    before = (finished / "front.csv").read_text(encoding="utf-8")
    monkeypatch.setattr("hadas_jax.frozen.features._batches", lambda *_: iter(()))
    monkeypatch.setattr("hadas_jax.frozen.run.train_head", None)
    commands.exits(workdir=finished, resume=True, console=QUIET)
    assert (finished / "front.csv").read_text(encoding="utf-8") == before
    commands.select_network(finished, prefer="energy", overwrite=True, console=QUIET)


def test_a_run_that_was_killed_goes_on_where_it_was(model, tmp_path, finished, monkeypatch):
    from hadas_jax.frozen import features

    batches, seen = features._batches, []

    def failing(splits, part, rows, batch):
        for each in batches(splits, part, rows, batch):
            if part == "validation" and not seen:
                seen.append(part)
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(features, "_batches", failing)
    settings = ExitsSettings.of(model=str(model), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        commands.exits(settings, workdir=tmp_path / "run", console=QUIET)
    done = json.loads((tmp_path / "run" / "features" / "features.json").read_text(encoding="utf-8"))["done"]
    assert done == {"train": 987}
    commands.exits(workdir=tmp_path / "run", resume=True, console=QUIET)
    again, whole = ((path / "front.csv").read_text(encoding="utf-8") for path in (tmp_path / "run", finished))
    assert again == whole


def test_a_channels_last_model_of_a_fixed_batch_gives_the_same(tmp_path, model, finished):
    """The same network behind a transposition, as converters from TensorFlow write it."""
    moved = onnx.load(model)
    moved.graph.node.insert(0, helper.make_node("Transpose", ["other"], ["x"], perm=[0, 3, 1, 2]))
    del moved.graph.input[:]
    moved.graph.input.append(helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [4, 8, 8, 1]))
    onnx.save(moved, tmp_path / "nhwc.onnx")
    network = FrozenNetwork(tmp_path / "nhwc.onnx", layout="nhwc")
    own = GivenHeads.read(finished / "given").network
    assert (network.batch, network.image_size, network.channels) == (4, 8, 1)
    assert network.layers.macs == own.layers.macs
    x = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    outputs = [
        onnxruntime.InferenceSession(each.model.SerializeToString()).run(None, {"images": x})[0]
        for each in (network, own)
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


def test_features_that_do_not_fit_on_disk_make_training_images_fewer_or_are_refused(model, tmp_path):
    run = ExitsRun(ExitsSettings.of(model=str(model), **SETTINGS))
    about = {"with_logits": False, "memory_mb": 2048.0, "seed": 0, "progress": LineProgress(QUIET)}
    place = run.network.penultimate
    found = collect_features(tmp_path / "few", run.network, [place], run.splits, disk_mb=0.2, **about)
    labels, few = found.labels("train"), found.of("train", 0)["mean"]
    assert 10 < len(labels) < 987
    assert few.shape == (len(labels), place.width)
    assert len(set(labels[:40].tolist())) > 5  # in a random order
    with pytest.raises(ValueError, match="features_mb: expected more than"):
        collect_features(tmp_path / "none", run.network, [place], run.splits, disk_mb=0.01, **about)


def _two_inputs():
    g = Graph("n", 1, 8, 8, rng=np.random.default_rng(0))
    model = g.model(g.gemm(g.add("Flatten", g.add("Add", "x", "z")), 64, 10))
    model.graph.input.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 1, 8, 8]))
    return model


def _with_branch():
    model = small_cnn()
    value = helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph(
        [helper.make_node("Identity", [model.graph.node[-2].output[0]], ["b"])], "b", [], [value]
    )
    last = model.graph.node[-1]
    condition = helper.make_node(
        "Constant", [], ["c"], value=helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
    )
    node = helper.make_node("If", ["c"], ["chosen"], then_branch=branch, else_branch=branch)
    last.input[0] = "chosen"
    model.graph.node.insert(len(model.graph.node) - 1, condition)
    model.graph.node.insert(len(model.graph.node) - 1, node)
    return model


def _of_vectors():
    g = Graph("n", 64, rng=np.random.default_rng(0))
    return g.model(g.gemm("x", 64, 10))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_two_inputs, "expected a model with one input, its images, got 2: x, z"),
        (_with_branch, "expected a graph without control flow, got If"),
        (_of_vectors, "expected a model that takes square images"),
        (lambda: small_cnn(classes=7), "expected 7 classes as .* tells, got 10; `new_classifier` trains one"),
        (lambda: small_cnn(channels=3), "expected images of 3 channels"),
    ],
    ids=["two inputs", "control flow", "vectors", "other classes", "other channels"],
)
def test_what_cannot_be_done_is_said_in_one_line(build, message, tmp_path):
    onnx.save(build(), tmp_path / "model.onnx")
    settings = ExitsSettings.of(model=str(tmp_path / "model.onnx"), dataset="digits")
    with pytest.raises(ValueError, match=message):
        commands.exits(settings, workdir=tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_kit_for_a_board_has_the_segments_and_layers_of_the_front(finished, tmp_path):
    commands.check_front(finished, networks=2, kit=tmp_path / "kit", console=QUIET)
    cases = json.loads((tmp_path / "kit" / "cases.json").read_text(encoding="utf-8"))["cases"]
    assert {case["inputs"]["images"][1] for case in cases if case["kind"] == "path"} == {1}
    trunk = GivenHeads.read(finished / "given").description.space.trunk
    rows = [row for case in cases[:1] for part in case["segments"] for row in part["layers"].split(";")]
    assert len(rows) >= sum(map(len, trunk))
    for case in cases:
        for part in case["segments"]:
            onnx.checker.check_model(onnx.load(tmp_path / "kit" / part["file"]), full_check=True)


@pytest.mark.slow
def test_a_front_of_a_given_network_is_measured_here(finished, tmp_path):
    found = commands.check_front(finished, networks=2, rounds=1, output=tmp_path / "check.json", console=QUIET)
    assert 1 <= len(found.networks) <= 2
    assert all(each.measured_s > 0 for each in found.networks)


def test_places_are_spread_over_the_latency(finished):
    network = GivenHeads.read(finished / "given").network
    device = load_device("raspberry-pi-4")
    every = network.useful_places(device, 13)
    some = network.useful_places(device, 2)
    assert [place.row for place in every] == sorted({place.row for place in every})
    assert {place.tensor for place in some} <= {place.tensor for place in network.places}
    assert len(some) == 2
