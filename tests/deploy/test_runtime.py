import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.export import export_network
from hadas_jax.deploy.runtime import Runtime, exit_score, main, read_manifest

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def images(data):
    """Some of the images, as the data set has them."""
    return np.asarray(data.images)[:23]


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """Its export as ONNX."""
    place = tmp_path_factory.mktemp("onnx") / "export"
    export_network(place, network, format="onnx")
    return place


def test_the_runtime_needs_no_jax(exported, images, tmp_path, capsys):
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(23, np.int64))
    code = (
        "import sys; import hadas_jax.deploy.runtime as runtime; "
        f"assert runtime.main([{str(exported)!r}, {str(tmp_path / 'images.npz')!r}]) == 0; "
        "assert not {'jax', 'flax', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "images 23"
    assert lines[1].startswith("accuracy 0.")
    shares = [float(line.split()[-1]) for line in lines[2:]]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert main([str(exported), str(tmp_path / "images.npz")]) == 0  # beside JAX, the same
    assert capsys.readouterr().out == done.stdout


def test_the_copy_beside_the_network_is_the_runtime(exported):
    done = subprocess.run([sys.executable, exported / "runtime.py", "--help"], capture_output=True, check=True)
    assert b"early exit" in done.stdout


def test_predictions_do_not_depend_on_the_batch(exported, images):
    network = Runtime(exported)
    whole, single = network(images), network(images, batch=1)
    np.testing.assert_array_equal(whole.labels, single.labels)
    np.testing.assert_array_equal(whole.exits, single.exits)
    np.testing.assert_allclose(whole.scores, single.scores, rtol=1e-5)
    assert len(np.unique(whole.exits)) > 1
    assert network(images[:0]).labels.shape == (0,)


def test_bytes_are_floats_over_255(exported, images):
    network = Runtime(exported)
    floats = network(images.astype(np.float32) / 255)
    np.testing.assert_array_equal(network(images).exits, floats.exits)
    np.testing.assert_array_equal(network(images[..., 0]).labels, floats.labels)


def test_a_sample_goes_on_only_where_it_is_not_sure(exported, network, images):
    runtime = Runtime(exported)
    first = runtime.run_segment(0, runtime.standardise(images))
    score = exit_score(first["logits"], None, "confidence")
    threshold = np.float32(network.architecture.thresholds[0])
    np.testing.assert_array_equal(runtime(images).exits == 0, score >= threshold)


def test_scores_are_those_of_the_policies():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]], np.float32))
    confidence = np.array([[2.0], [-1.0]], np.float32)
    np.testing.assert_allclose(exit_score(logits, confidence, "confidence"), [0.7, 1 / 3], rtol=1e-6)
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(exit_score(logits, confidence, "entropy"), [-entropy, -np.log(3)], rtol=1e-6)
    np.testing.assert_array_equal(exit_score(logits, confidence, "learned"), [2, -1])


def test_damaged_exports_are_refused_in_one_line(exported, images, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected an export as hadas export writes, got none"):
        read_manifest(tmp_path)
    place = tmp_path / "copy"
    shutil.copytree(exported, place)
    (place / "segment1.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"segment1.onnx: expected the file that manifest.json describes"):
        Runtime(place)
    assert main([str(place), "none.npz"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    manifest = json.loads((place / "manifest.json").read_text())
    for change, message in (
        ({"form": "hadas_jax.export/2"}, "expected form hadas_jax.export/1"),
        ({"format": "saved", "files": {}}, "expected an export of format onnx, got saved"),
        ({"files": 3}, "cannot read it"),
    ):
        (place / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ValueError, match=message):
            Runtime(place)
    with pytest.raises(ValueError, match=r"expected shape \[N, 9, 9, 1\], got \[23, 8, 8, 1\]"):
        Runtime(exported)(images[:, :8, :8])


def test_integers_that_are_no_bytes_are_refused_instead_of_misread(exported, images):
    with pytest.raises(ValueError, match="images: expected uint8 or floating values, got int64"):
        Runtime(exported)(images.astype(np.int64))


def trained_on(exported, dtype, low, high):
    """The runtime of an export whose images were of a type and range."""
    runtime = Runtime(exported)
    runtime.manifest["input"] |= {"dtype": dtype, "range": [low, high]}
    return runtime


def test_floats_in_the_range_of_bytes_are_refused_by_a_network_of_bytes(exported, images):
    network = trained_on(exported, "uint8", 0, 255)
    floats = images.astype(np.float32)
    np.testing.assert_array_equal(network(floats / 255).labels, network(images).labels)
    message = (
        r"expected bytes, or floating values in 0 .. 1, .* got floating values in \d+ .. 25\d; pass uint8, or divide"
    )
    for given in (floats, floats.astype(np.float64), floats[:1]):
        with pytest.raises(ValueError, match=message) as raised:
            network(given)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="before standardising"):
        network((floats / 255 - 0.45) / 0.22)
    with pytest.raises(ValueError, match="scale them to 0"):
        network.standardise(floats * 257)
    network(floats / 255 * 1.1 - 0.05)  # as resizing leaves them
    network(floats[:0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_refused_also_by_older_exports(exported, images, value):
    floats = images.astype(np.float32) / 255
    floats[3, 2, 2, 0] = value
    for network in (Runtime(exported), trained_on(exported, "uint8", 0, 255), trained_on(exported, "float32", 0, 1)):
        with pytest.raises(ValueError, match="images: expected finite values, got NaN or infinity in image 3"):
            network(floats)


def test_older_exports_take_what_they_took(exported, images):
    network = Runtime(exported)
    del network.manifest["input"]["dtype"], network.manifest["input"]["range"]
    floats = images.astype(np.float32)
    assert len(network(floats).labels) == len(network(images).labels) == 23


def test_a_network_of_floats_in_0_to_1_takes_bytes_over_255(exported, images):
    network = trained_on(exported, "float32", 0, 1)
    np.testing.assert_array_equal(network(images).labels, network(images.astype(np.float32) / 255).labels)
    with pytest.raises(ValueError, match=r"expected floating values in 0 .. 1 as .*; pass uint8, or divide by 255"):
        network(images.astype(np.float32))


def test_a_network_of_other_floats_refuses_bytes_and_values_far_away(exported, images):
    floats = images.astype(np.float32)
    network = trained_on(exported, "float32", 0, 255)
    network(floats)
    with pytest.raises(
        ValueError, match=r"expected floating values in 0 .. 255 .* got bytes, which are divided by 255"
    ):
        network(images)
    with pytest.warns(UserWarning, match=r"floating values in 0 .. 1, but the network was trained on .* 0 .. 255"):
        network(floats / 255)
    with pytest.warns(UserWarning, match="but the network was trained on floating values in -1 .. 1"):
        trained_on(exported, "float32", -1, 1)(floats / 64)
    with pytest.raises(ValueError, match=r"expected floating values in -1 .. 1 as the network was trained on, got"):
        trained_on(exported, "float32", -1, 1)(floats)


def test_the_manifest_says_which_values_images_had(exported, network, images, tmp_path):
    assert read_manifest(exported)["input"]["dtype"] is None
    data = LabelledImages(jnp.asarray(images), jnp.zeros(23, jnp.int32))
    floats = LabelledImages(jnp.asarray(images, jnp.float32) / 16 - 1, jnp.zeros(23, jnp.int32))
    for trained_on, dtype, ends in (
        (data, "uint8", [0, 255]),
        (floats, "float32", [images.min() / 16 - 1, images.max() / 16 - 1]),
    ):
        place = tmp_path / dtype
        export_network(place, network, format="saved", trained_on=trained_on)
        described = read_manifest(place)["input"]
        assert (described["dtype"], described["range"]) == (dtype, ends)


def test_lists_of_images_are_taken_and_what_is_no_array_is_refused(exported, images):
    network = Runtime(exported)
    np.testing.assert_array_equal(network(list(images[:4])).labels, network(images[:4]).labels)
    for kind in (bool, np.int16, np.uint16):
        with pytest.raises(ValueError, match=r"got .*; images\.astype\(numpy\.uint8\) makes bytes"):
            network(images.astype(kind))


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (b"", [], "images.npz: expected an npz file with images, cannot read it"),
        (b"PK\x03\x04 cut off", [], "images.npz: expected an npz file with images, cannot read it"),
        (np.zeros(3), [], "images.npz: expected an npz file with images, cannot read it"),
        ({"images": np.float32(3)}, [], "images: expected [N, H, W, C], got shape []"),
        ({"images": np.zeros((3, 9, 9, 1)), "labels": np.zeros(2)}, [], "labels: expected one for each of 3 images"),
        (
            {"images": np.full((3, 9, 9, 1), np.nan)},
            [],
            "images: expected finite values, got NaN or infinity in image 0",
        ),
        ({"images": np.zeros((3, 9, 9, 1))}, ["--batch", "-1"], "batch: expected at least 1, got -1"),
    ],
)
def test_images_that_cannot_be_used_are_one_line_and_exit_code_2(content, flags, message, exported, tmp_path, capsys):
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        if isinstance(content, dict):
            np.savez(file, **content)
        elif isinstance(content, bytes):
            file.write(content)
        else:
            np.save(file, content)
    assert main([str(exported), str(path), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
