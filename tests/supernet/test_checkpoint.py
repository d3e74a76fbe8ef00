import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from hadas_jax.data import split
from hadas_jax.runs.checkpoints import Checkpoints
from hadas_jax.spaces import DIGITS
from hadas_jax.supernet.checkpoint import SupernetCheckpoint, load_supernet, rewrite_description, save_supernet


@pytest.fixture
def trained(small_space, small_network):
    return SupernetCheckpoint(
        space=small_space,
        params=small_network[0],
        trained_exits=(1, 3),
        normalisation=((0.5,), (0.25,)),
        class_names=("a", "b", "c"),
        source="drawn by a test",
        details={"seed": 0, "losses": [1.5, 1.25]},
    )


@pytest.fixture
def saved(trained, tmp_path):
    save_supernet(tmp_path / "net", trained)
    return tmp_path / "net"


def assert_same(found, expected):
    for field in dataclasses.fields(expected):
        if field.name not in ("params", "seen"):
            assert getattr(found, field.name) == getattr(expected, field.name)
    np.testing.assert_array_equal(found.seen, expected.seen)
    assert jax.tree.structure(found.params) == jax.tree.structure(expected.params)
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        assert isinstance(a, jax.Array)
        np.testing.assert_array_equal(a, b)


def rewrite(directory, **changes):
    path = directory / "supernet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_supernet_comes_back_as_it_was_saved(trained, saved):
    assert_same(load_supernet(saved), trained)


def test_what_is_not_known_stays_unknown(trained, tmp_path):
    bare = dataclasses.replace(trained, trained_exits=(), normalisation=None, class_names=None, details={})
    save_supernet(tmp_path / "a" / "b", bare)
    assert_same(load_supernet(tmp_path / "a" / "b"), bare)


def test_the_description_holds_form_and_versions(saved):
    content = json.loads((saved / "supernet.json").read_text())
    assert content["form"] == "hadas_jax.supernet/1"
    assert content["versions"]["jax"] == jax.__version__
    assert sorted(entry.name for entry in saved.iterdir()) == ["supernet.json", "weights.npz"]


def test_a_saved_supernet_is_replaced_only_when_asked(trained, saved):
    before = (saved / "supernet.json").read_bytes()
    other = dataclasses.replace(trained, source="another", params=jax.tree.map(lambda leaf: leaf + 1, trained.params))
    with pytest.raises(ValueError, match=r"holds supernet\.json: `overwrite` replaces it"):
        save_supernet(saved, other)
    assert (saved / "supernet.json").read_bytes() == before
    assert_same(load_supernet(saved), trained)
    save_supernet(saved, other, overwrite=True)
    assert_same(load_supernet(saved), other)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "weights", "weights.npz"])
def test_other_things_are_never_replaced(trained, tmp_path, overwrite, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"got one with {name}"):
        save_supernet(tmp_path, trained, overwrite=overwrite)
    with pytest.raises(ValueError, match="expected a directory, got a file"):
        save_supernet(tmp_path / name, trained, overwrite=overwrite)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_below_a_file_is_refused(trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"b: expected a place to write to, but .*file is none"):
        save_supernet(tmp_path / "file" / "a" / "b", trained)


def test_details_that_json_cannot_hold_leave_the_directory_alone(trained, saved):
    with pytest.raises(TypeError):
        save_supernet(saved, dataclasses.replace(trained, details={"path": saved}), overwrite=True)
    assert_same(load_supernet(saved), trained)


def test_a_directory_without_supernet_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"expected a directory with a trained supernet, got none"):
            load_supernet(place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected the description of a trained supernet, cannot read it"),
        ("[]", "expected the description of a trained supernet, cannot read it"),
        ("{}", "expected the description of a trained supernet, cannot read it"),
        ('{"form": "hadas_jax.supernet/2"}', "expected form hadas_jax.supernet/1, got 'hadas_jax.supernet/2'"),
        ('{"form": "hadas_jax.supernet/1"}', "source: expected a value, got nothing"),
    ],
)
def test_another_description_is_refused(saved, content, message):
    (saved / "supernet.json").write_text(content)
    with pytest.raises(ValueError, match=r"supernet\.json: " + message):
        load_supernet(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained_exits": [0]}, r"trained_exits: expected rising positions in 1 \.\. 4, got \(0,\)"),
        ({"trained_exits": [3, 1]}, r"trained_exits: expected rising positions in 1 \.\. 4, got \(3, 1\)"),
        ({"trained_exits": [5]}, r"trained_exits: expected rising positions in 1 \.\. 4, got \(5,\)"),
        ({"trained_exits": "all"}, r"trained_exits: expected .*, got 'all'"),
        ({"class_names": ["a"]}, "class_names: expected 3, one for every class, got 1"),
        ({"normalisation": [[0.0, 0.0], [1.0, 1.0]]}, "normalisation: .* of 1 channels"),
        ({"normalisation": [[0.0], [0.0]]}, "normalisation: expected means and positive deviations"),
        ({"source": None}, "source: expected text, got nothing"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(saved, changes, message):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=message):
        load_supernet(saved)


def test_weights_of_another_space_are_refused(saved):
    space = json.loads((saved / "supernet.json").read_text())["space"]
    rewrite(saved, space=space | {"exit_width": 16})
    with pytest.raises(ValueError, match=r"expected the weights that supernet\.json describes"):
        load_supernet(saved)


def test_damaged_and_missing_weights_are_refused(saved):
    weights = saved / "weights.npz"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    weights.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"those in weights\.npz are damaged, missing or others"):
        load_supernet(saved)
    weights.unlink()
    with pytest.raises(ValueError, match=r"those in weights\.npz are damaged, missing or others"):
        load_supernet(saved)
    assert not weights.exists()


@pytest.fixture
def saved_by_orbax(trained, saved):
    """A supernet as earlier versions wrote it: weights in Orbax's form, of which the description says nothing."""
    content = json.loads((saved / "supernet.json").read_text())
    del content["weights"]
    (saved / "supernet.json").write_text(json.dumps(content))
    (saved / "weights.npz").unlink()
    Checkpoints(saved / "weights").save(0, trained.params)
    return saved


def test_weights_of_earlier_versions_are_read_described_anew_and_replaced(trained, saved_by_orbax):
    assert_same(load_supernet(saved_by_orbax), trained)
    other = dataclasses.replace(trained, source="another")
    rewrite_description(saved_by_orbax, other)
    assert_same(load_supernet(saved_by_orbax), other)
    save_supernet(saved_by_orbax, trained, overwrite=True)
    assert sorted(entry.name for entry in saved_by_orbax.iterdir()) == ["supernet.json", "weights.npz"]
    assert_same(load_supernet(saved_by_orbax), trained)


def test_damaged_and_missing_weights_of_earlier_versions_are_refused(saved_by_orbax):
    weights = saved_by_orbax / "weights"
    largest = max((path for path in weights.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    largest.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"those in weights/ are damaged, missing or others"):
        load_supernet(saved_by_orbax)
    shutil.rmtree(weights)
    with pytest.raises(ValueError, match=r"those in weights/ are damaged, missing or others"):
        load_supernet(saved_by_orbax)
    assert not weights.exists()


def test_a_new_description_keeps_its_weights(trained, saved):
    other = dataclasses.replace(trained, source="another")
    rewrite_description(saved, other)
    assert_same(load_supernet(saved), other)


def test_a_space_that_was_not_adapted_is_refused(small_network):
    with pytest.raises(ValueError, match="space: expected one that was adapted to its data"):
        SupernetCheckpoint(space=DIGITS, params=small_network[0], trained_exits=(), source="")


def test_a_supernet_whose_writing_was_interrupted_is_replaced(trained, saved):
    (saved / "supernet.json").unlink()
    with pytest.raises(ValueError, match=r"got one with weights\.npz"):  # it may be anybody's
        save_supernet(saved, trained, overwrite=True)
    (saved / ".partial").mkdir()  # where a process that is killed has what it did not move yet
    save_supernet(saved, trained)
    assert_same(load_supernet(saved), trained)


def test_the_images_that_it_saw_come_back_with_it_or_their_loss_is_said(trained, tmp_path):
    labels = np.repeat(np.arange(3), 10)
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
    splits = split(images, labels, seed=3, source="x")
    known = dataclasses.replace(trained, data=splits.record, seen=splits.fingerprints)
    save_supernet(tmp_path / "net", known)
    assert_same(load_supernet(tmp_path / "net"), known)
    (tmp_path / "net" / "images.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="expected fingerprints of the images that the weights saw, cannot read it"):
        load_supernet(tmp_path / "net")
    (tmp_path / "net" / "images.npz").unlink()
    with pytest.raises(ValueError, match=r"images\.npz: expected fingerprints"):
        load_supernet(tmp_path / "net")
