import dataclasses
import errno
import io
import json
import os
import sys
from functools import partial

import numpy as np
import pytest
from full_disk import disk
from rich.console import Console

from hadas_jax.deploy.export import check_export, export_network
from hadas_jax.deploy.runtime import read_manifest
from hadas_jax.deploy.static_network import exits_taken, load_network, outcomes_at_exits, predict, save_network
from hadas_jax.report.network import print_architecture


@pytest.mark.parametrize(("format", "batch"), [("stablehlo", None), ("saved", None), ("onnx", None), ("onnx", 32)])
def test_an_export_stops_every_image_where_jax_does(network, data, tmp_path, format, batch):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    export_network(tmp_path / "export", network, format=format, batch=batch)
    check = check_export(tmp_path / "export", network, data)
    assert check.difference < 1e-4
    assert (check.other_exits, check.other_labels) == (0, 0)
    assert check.is_equal
    assert 0.2 < check.shares[0] < 0.8
    assert check.shares[1] > 0
    assert check.shares[2] > 0
    assert len(check.latency_s) == 3
    assert 0 < check.latency_s[0] < check.latency_s[2]


def test_a_network_with_other_weights_is_noticed(network, data, tmp_path):
    export_network(tmp_path / "export", network, format="saved")
    logits = {**network.weights["logits"], "kernel": network.weights["logits"]["kernel"] * 1.01}
    other = dataclasses.replace(network, weights={**network.weights, "logits": logits})
    check = check_export(tmp_path / "export", other, data)
    assert check.difference > 1e-4
    assert not check.is_equal


def test_the_manifest_says_what_a_device_needs(network, data, tmp_path):
    export_network(tmp_path / "export", network, format="saved", trained_on=data)
    manifest = read_manifest(tmp_path / "export")
    assert manifest["form"] == "hadas_jax.export/1"
    assert manifest["class_names"] == ["a", "b", "c"]
    assert manifest["input"] == {
        "shape": [9, 9, 1],
        "dtype": "uint8",
        "range": [0, 255],
        "bytes_are_divided_by": 255,
        "mean": [0.25],
        "deviation": [0.5],
    }
    segments = manifest["segments"]
    assert [segment["name"] for segment in segments] == ["exit after block 1", "exit after block 2", "classifier"]
    assert [segment["threshold"] for segment in segments[:2]] == list(network.architecture.thresholds)
    assert segments[2]["threshold"] is None
    latency = [segment["latency_s"] for segment in segments]
    assert latency == sorted(latency)
    assert manifest["clocks"]["device"] == "tx2-gpu"
    assert manifest["clocks"]["deadlines"]


def test_a_network_is_shown_block_by_block(network):
    shown = Console(file=io.StringIO(), width=200)
    print_architecture(network.architecture, shown)
    table = shown.file.getvalue().split("Exits, as deployed")[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line[0] == "│"]
    assert [row[1] for row in rows] == ["", "0", "1", "2", ""]
    assert [row[2] for row in rows] == [f"{size} x {size}" for size in (5, 3, 2, 2, 1)]
    assert [row[3] for row in rows] == ["16", "16", "24", "24", "3"]
    assert [row[4] for row in rows[1:-1]] == ["5", "3", "3"]
    assert [k for k, row in enumerate(rows) if row[6].startswith("if confidence ≥ ")] == [2, 3]


def test_an_exit_where_none_may_stop_has_no_threshold(network, tmp_path):
    never = network.architecture.model_copy(update={"thresholds": (float("inf"), 0.5)})
    export_network(tmp_path / "export", dataclasses.replace(network, architecture=never), format="saved")
    assert read_manifest(tmp_path / "export")["segments"][0]["threshold"] is None


def test_a_network_is_read_back_as_it_was_written(network, tmp_path):
    save_network(tmp_path / "network", network)
    found = load_network(tmp_path / "network")
    assert found.segments == network.segments
    assert found.architecture == network.architecture
    for layer, own in network.weights.items():
        for name, leaf in own.items():
            np.testing.assert_array_equal(found.weights[layer][name], leaf)


def test_damaged_and_foreign_networks_are_refused(network, tmp_path):
    place = tmp_path / "network"
    with pytest.raises(ValueError, match="expected a network as hadas materialise writes, got none"):
        load_network(place)
    save_network(place, network)
    with pytest.raises(ValueError, match="`overwrite` replaces it"):
        save_network(place, network)
    (place / "weights.npz").write_bytes((place / "weights.npz").read_bytes()[:-9])
    with pytest.raises(ValueError, match="are damaged, missing or others"):
        load_network(place)
    content = json.loads((place / "network.json").read_text())
    (place / "network.json").write_text(json.dumps(content | {"form": "hadas_jax.network/9"}))
    with pytest.raises(ValueError, match=r"expected form hadas_jax\.network/1, got .hadas_jax\.network/9."):
        load_network(place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("unsaved")
    with pytest.raises(ValueError, match=r"got one with thesis\.txt"):
        save_network(tmp_path / "mine", network, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "unsaved"


@pytest.mark.parametrize(
    ("write", "breaks", "code"),
    [
        (save_network, range(8), errno.ENOSPC),
        (save_network, range(8), errno.EROFS),
        (partial(export_network, format="saved"), (2, 10), errno.ENOSPC),
    ],
)
def test_a_disk_that_breaks_leaves_the_network_that_was_there(network, tmp_path, write, breaks, code):
    """And none that is half there where there was none."""
    place = tmp_path / "place" / "network"
    place.parent.mkdir()
    write(place, network)
    before = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    for most in breaks:
        for target, overwrite in ((place, True), (place.with_name("new"), False)):
            with (
                disk(place.parent, most=most, code=code),
                pytest.raises(ValueError, match=rf"{target}.*got: {os.strerror(code)}$"),
            ):
                write(target, network, overwrite=overwrite)
        assert {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()} == before
        assert not (place.with_name("new") / "network.json").exists()
        assert code == errno.EROFS or not place.with_name("new").exists()


@pytest.mark.parametrize("is_swapped", [0, 1, 2])
def test_a_process_that_died_while_it_replaced_a_network_does_not_keep_it_out(network, tmp_path, is_swapped):
    save_network(tmp_path / "network", network)
    staged = tmp_path / "network" / ".partial"
    staged.mkdir()
    for name in ("network.json", "weights.npz", "architecture.json")[: 3 - is_swapped]:
        (tmp_path / "network" / name).rename(staged / name)
    with pytest.raises(ValueError, match="got none"):
        load_network(tmp_path / "network")
    save_network(tmp_path / "network", network)
    assert load_network(tmp_path / "network").segments == network.segments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format: expected one of stablehlo, onnx, saved, got 'tflite'"),
        ({"batch": 0}, "batch"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(network, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_network(tmp_path / "export", network, **arguments)
    assert not (tmp_path / "export").exists()


def test_a_missing_extra_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"expected the extra onnx, got none; pip install 'hadas-jax\[onnx\]'"):
        export_network(tmp_path / "export", network, format="onnx")
    assert not (tmp_path / "export").exists()


def test_a_sample_stops_at_the_first_exit_that_is_sure_enough(network, data):
    logits, confidence = predict(network.segments, network.weights, data, batch=16)
    outcomes = outcomes_at_exits(logits, confidence, np.asarray(data.labels))
    taken = exits_taken(outcomes, network.architecture.thresholds, "confidence")
    sure = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for sample, exit_ in enumerate(taken):
        passed = [sure[e, sample].max() >= network.architecture.thresholds[e] for e in range(2)]
        assert exit_ == (passed.index(True) if any(passed) else 2)
