import dataclasses

import numpy as np
import pytest
from fake_tfds import write_fake_set
from PIL import Image

from hadas_jax.data import images as sources
from hadas_jax.data.folder import open_folder
from hadas_jax.data.images import ImageError, Source, array_fingerprints
from hadas_jax.data.record import TEST, TRAINING
from hadas_jax.data.splits import Options, Sources, assemble
from hadas_jax.data.tfds import open_prepared


@pytest.fixture
def images(tmp_path):
    """A folder of 2 classes with 4 different images each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (6, 6)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def of(folder):
    return open_folder(folder).groups[TRAINING].fingerprints()


def test_fingerprints_of_files_are_of_their_contents_wherever_they_are(images):
    before = of(images)
    assert (before.dtype, len(set(before))) == (np.uint64, 8)
    assert open_folder(images).groups[TRAINING].fingerprint_of == "contents"
    moved = images.rename(images.parent / "moved")
    (moved / "cat" / "3.png").rename(moved / "cat" / "9.png")
    assert (of(moved) == before).all()
    (moved / "dog" / "1.png").write_bytes((moved / "cat" / "0.png").read_bytes())
    changed = before.copy()
    changed[5] = before[0]
    assert (of(moved) == changed).all()


def test_fingerprints_of_many_bytes_are_of_names_inside_the_folder_and_sizes(images, monkeypatch):
    monkeypatch.setattr(sources, "CONTENTS_BYTES", 100)
    before = of(images)
    assert len(set(before)) == 8
    assert open_folder(images).groups[TRAINING].fingerprint_of == "names and sizes"
    moved = images.rename(images.parent / "moved")
    assert (of(moved) == before).all()
    (moved / "cat" / "3.png").rename(moved / "cat" / "9.png")
    (moved / "dog" / "1.png").write_bytes((moved / "dog" / "1.png").read_bytes() + b"x")
    assert np.flatnonzero(of(moved) != before).tolist() == [3, 5]


def test_files_that_are_gone_are_named(images):
    source = open_folder(images).groups[TRAINING]
    (images / "dog" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"cannot read 1: .*dog/1.png"):
        source.fingerprints()


def test_fingerprints_of_prepared_images_are_of_their_records(tmp_path, monkeypatch):
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_fake_set(tmp_path / place, "mnist", counts={"train": 20, "test": 5}, seed=seed)
    one, same, other = (open_prepared("mnist", tmp_path / place).groups[TRAINING] for place in "abc")
    assert one.fingerprint_of == "contents"
    assert (one.fingerprints() == same.fingerprints()).all()
    assert not set(one.fingerprints()) & set(other.fingerprints())
    monkeypatch.setattr(sources, "CONTENTS_BYTES", 100)
    assert one.fingerprint_of == "names and sizes"
    assert (one.fingerprints() == same.fingerprints()).all()
    assert len(set(one.fingerprints())) == 20


def test_fingerprints_of_arrays_are_of_type_shape_and_values():
    drawn = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 1)).astype(np.uint8)
    found = array_fingerprints(drawn)
    assert (found.dtype, len(set(found))) == (np.uint64, 5)
    assert (array_fingerprints(np.asfortranarray(drawn)[::-1]) == found[::-1]).all()
    floats = drawn.astype(np.float32)
    assert (array_fingerprints(floats) == array_fingerprints(floats.astype(">f4"))).all()
    others = [drawn.view(np.int8), drawn.reshape(5, 6, 4, 1), drawn[..., 0], floats, floats.astype(np.float64)]
    assert not any(set(array_fingerprints(other)) & set(found) for other in others)
    assert array_fingerprints(drawn[:0]).shape == (0,)


def records(broken):
    """Images with labels inside, as prepared sets have them; some cannot be read."""

    def read(row):
        if row in broken:
            raise ImageError(f"image {row}")
        return np.full((4, 4, 1), row, np.uint8), row % 3

    return Source(
        name="x",
        channels=1,
        stored_bytes=1000,
        rows=np.arange(60),
        read=read,
        content=lambda row: read(row)[0].tobytes(),
        name_and_size=lambda row: f"{row}".encode(),
        read_labels=lambda: None,
    )


def read(source, **options):
    sources = Sources("x", {TRAINING: source}, image_size=4, classes=3, class_names=None)
    return assemble(sources, Options(seed=0), stream_seed=0, image_size=None, in_memory_bytes=2**20, **options)


def test_records_that_cannot_be_read_are_left_out_where_it_is_asked_for():
    with pytest.raises(ValueError, match="cannot read 2: image 7, image 50; `skip_unreadable` leaves them out"):
        read(records({7, 50}))
    splits = read(records({7, 50}), skip_unreadable=True)
    parts = (splits.train, splits.validation, splits.calibration, splits.test)
    values = np.concatenate([np.asarray(part.images)[:, 0, 0, 0] for part in parts])
    assert sorted(values.tolist()) == [row for row in range(60) if row not in (7, 50)]
    assert splits.notes == ("left out: 2 images that cannot be read (image 7, image 50)",)
    with pytest.raises(
        ValueError, match="training images that can be read, got none of them: image 0, image 1, image 2"
    ):
        read(records(set(range(60))), skip_unreadable=True)


def test_without_labels_parts_are_drawn_from_all_images():
    def many(count):
        def read(row):
            return np.array([[[row // 256], [row % 256]]] * 2, np.uint8), row % 3

        return dataclasses.replace(
            records(set()), rows=np.arange(count), read=read, content=lambda row: f"{count} {row}".encode()
        )

    sources = Sources("x", {TRAINING: many(1000), TEST: many(300)}, image_size=2, classes=3, class_names=None)
    options = Options(seed=0, evaluation_images=100)
    splits = assemble(sources, options, stream_seed=0, image_size=None, in_memory_bytes=1)
    evaluated = [np.asarray(part.images) @ [1] for part in (splits.validation, splits.calibration, splits.test)]
    rows = [256 * pixels[:, 0, 0] + pixels[:, 0, 1] for pixels in evaluated]
    assert [len(set(part.tolist())) for part in rows] == [100, 100, 100]
    assert splits.record.parts == {"train": 700, "validation": 150, "calibration": 150, "test": 300}
    assert len(set(np.concatenate([*rows[:2], splits.train.source.rows]).tolist())) == 900
    assert rows[2].tolist() == sorted(rows[2].tolist())


def test_what_is_left_of_a_source_has_the_fingerprints_that_it_had():
    whole = records(set())
    left, failed = records({0, 9}).readable()
    assert failed == ["image 0", "image 9"]
    rows = np.setdiff1d(np.arange(60), [0, 9])
    assert (left.fingerprints() == whole.fingerprints()[rows]).all()
    names = whole.fingerprints("names and sizes")
    assert (left.fingerprints("names and sizes") == names[rows]).all()
    assert (len(left), left.labels, left.channels, left[0][1]) == (58, None, 1, 1)
    every = records(set())
    assert every.readable() == (every, [])
