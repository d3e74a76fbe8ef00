import dataclasses

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.data import SplitRecord, load_dataset, split

NAMES = ("cat", "dog", "owl")
LABELS = np.repeat(np.arange(3, dtype=np.int32), 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)


def record(images=IMAGES, labels=LABELS, *, seed=0, names=NAMES, **arguments):
    return split(images, labels, seed=seed, source="x", class_names=names, **arguments).record


def test_the_same_images_make_the_same_record_whatever_is_evaluated_on():
    assert record() == record() == record(evaluation_images=3)
    assert record().difference(record(seed=5)) is None
    assert record(seed=5).seed == 5


def test_a_record_survives_json():
    assert (
        pydantic.TypeAdapter(SplitRecord).validate_json(pydantic.TypeAdapter(SplitRecord).dump_json(record()))
        == record()
    )
    assert record().as_json() == dataclasses.asdict(record())


def changed(row, value):
    images = IMAGES.copy()
    images[row] = value
    return images


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (
            record(np.concatenate([IMAGES, IMAGES[:1] ^ 1]), np.append(LABELS, 0)),
            "31 training images instead of 30",
        ),
        (record(changed(3, 0)), "as many training images, but other ones"),
        (record(labels=np.roll(LABELS, 1)), "the same training images with other labels"),
        (
            dataclasses.replace(record(), division="otherwise"),
            "the same images divided otherwise, as another version of scikit-learn may do",
        ),
        (dataclasses.replace(record(), rule="at random/1"), "images that are divided at random instead of by class"),
        (record(IMAGES[::-1], LABELS[::-1]), "the same training images in another order"),
        (record(names=("cat", "fox", "owl")), "class 1 called 'fox' instead of 'dog'"),
        (record(names=None), "classes without names"),
        (record(IMAGES.astype(np.float32)), "images of 4x4x1 float32 instead of 4x4x1 uint8"),
        (record(np.concatenate([IMAGES, IMAGES], 1)[:, ::2]), "as many training images, but other ones"),
        (record(test=(IMAGES[:9] ^ 7, LABELS[:9])), "test images and training images instead of training images"),
    ],
)
def test_what_differs_is_said(other, difference):
    assert record().difference(other) == difference


@settings(max_examples=25)
@given(st.permutations(range(30)), st.integers(0, 29), st.integers(1, 255))
def test_any_change_is_noticed(order, row, flipped):
    order = np.array(order)
    difference = record().difference(record(IMAGES[order], LABELS[order]))
    if (order == np.arange(30)).all():
        assert difference is None
    else:
        assert difference == "the same training images in another order"
    assert record().difference(record(changed(row, IMAGES[row] ^ np.uint8(flipped)))) is not None


def test_the_size_that_images_are_brought_to_is_no_part_of_the_data(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=LABELS)
    as_stored, smaller = (load_dataset(f"npz:{tmp_path / 'x.npz'}", seed=0, image_size=size) for size in (None, 2))
    assert as_stored.record.difference(smaller.record) is None
    assert as_stored.record.division == smaller.record.division
    assert (as_stored.evaluated_fingerprints == smaller.evaluated_fingerprints).all()
    assert as_stored.record.is_related(smaller.record)


def test_images_that_stand_in_training_and_elsewhere_too_are_counted():
    twice = np.concatenate([IMAGES, IMAGES])
    splits = split(twice, np.tile(LABELS, 2), seed=0, source="x", class_names=NAMES)
    trained = {image.tobytes() for image in np.asarray(splits.train.images)}
    counts = {
        name: sum(image.tobytes() in trained for image in np.asarray(getattr(splits, name).images))
        for name in ("validation", "calibration", "test")
    }
    listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    assert splits.notes == (f"equal to training images, so that accuracy is flattered: {listed}",)
    assert split(IMAGES, LABELS, seed=0, source="x").notes == ()


def test_sets_that_share_many_images_are_related_in_whatever_form():
    rng = np.random.default_rng(1)
    others = rng.integers(0, 256, IMAGES.shape, np.uint8)
    more = record(np.concatenate([IMAGES, others[:9]]), np.append(LABELS, np.arange(9) % 3))
    floats = record(IMAGES.astype(np.float32) / 255)
    for related in (record(seed=3), more, floats, record(IMAGES[::-1], LABELS[::-1])):
        assert record().is_related(related)
        assert related.is_related(record())
    assert not record().is_related(record(others))
    assert not record().is_related(record(np.concatenate([others[:-1], IMAGES[:1]])))
