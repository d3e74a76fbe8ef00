import zlib

import numpy as np
import pytest

from hadas_jax.data import IMAGENET_NORMALISATION, dataset_names, load_dataset

COUNT = 60
LABELS = np.arange(COUNT) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 2)).astype(np.uint8)


@pytest.fixture
def save(tmp_path):
    """Writes arrays to a file and returns its name for `load_dataset`."""

    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez_compressed(path, **arrays)
        return f"npz:{path}"

    return write


def refused(name, **arguments):
    """The one-line message that loading ends with."""
    with pytest.raises(ValueError, match=r".") as caught:
        load_dataset(name, seed=0, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def with_value(array, index, value):
    array = np.array(array, np.result_type(array, type(value)))
    array[index] = value
    return array


def test_digits_are_standardised_and_split_by_class():
    splits = load_dataset("digits", seed=0)
    parts = (splits.train, splits.validation, splits.calibration, splits.test)
    assert [len(part.labels) for part in parts] == [1797 - 3 * 270, 270, 270, 270]
    assert splits.train.images.shape[1:] == (8, 8, 1)
    assert splits.classes == 10


def test_unknown_names_are_refused_with_the_known_ones():
    names = "digits, cifar10, cifar100, fashion_mnist, mnist, imagenet2012, tfds:NAME, folder:DIR, npz:FILE"
    assert refused("svhn") == f"unknown dataset 'svhn': expected one of {names}"
    assert ", ".join(dataset_names()) == names


def test_digits_have_one_size_alone():
    assert load_dataset("digits", seed=0, image_size=8).image_size == 8
    assert refused("digits", image_size=16) == "digits: image size: expected 8, got 16"
    assert refused("digits", image_size=0) == "image size: expected at least 1, got 0"


def test_evaluation_parts_are_no_larger_than_asked():
    splits = load_dataset("digits", seed=0, evaluation_images=40)
    parts = (splits.validation, splits.calibration, splits.test)
    assert [part.count for part in parts] == [40] * 3
    assert splits.train.count == load_dataset("digits", seed=0).train.count
    assert refused("digits", evaluation_images=0) == "evaluation images: expected at least 1, got 0"
    assert (
        refused("digits", evaluation_images=9) == "digits: evaluation images: expected at least 10, the classes, got 9"
    )


def test_the_normalisation_of_published_weights_is_used_where_it_is_given(save):
    name = save(images=np.concatenate([IMAGES, IMAGES[..., :1]], axis=-1), labels=LABELS)
    splits = load_dataset(name, seed=0, normalisation=IMAGENET_NORMALISATION)
    assert splits.normalisation == IMAGENET_NORMALISATION
    assert "expected 1 means and deviations (channels), got 3 and 3" in refused(
        "digits", normalisation=IMAGENET_NORMALISATION
    )


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., 0], IMAGES / 255, IMAGES.astype(np.float32)])
def test_a_file_of_images_and_labels_is_loaded(save, images):
    splits = load_dataset(save(images=images, labels=LABELS), seed=0)
    assert splits.train.images.shape == (33, 6, 6, images.shape[3] if images.ndim == 4 else 1)
    assert splits.train.images.dtype == (np.uint8 if images.dtype == np.uint8 else np.float32)
    assert splits.train.labels.dtype == np.int32


def test_a_missing_file_is_refused(tmp_path):
    assert "expected an npz file, got none at this path" in refused(f"npz:{tmp_path / 'none.npz'}")


def test_a_directory_is_refused(tmp_path):
    assert "expected an npz file, got none at this path" in refused(f"npz:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 but broken"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "data.npz").write_bytes(content)
    assert "expected an npz file of plain arrays, cannot read it" in refused(f"npz:{tmp_path / 'data.npz'}")


def test_a_single_array_instead_of_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "data.npy", IMAGES)
    assert "expected an npz file of plain arrays" in refused(f"npz:{tmp_path / 'data.npy'}")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_truncated_archive_is_refused(save, share):
    name = save(images=IMAGES, labels=LABELS)
    path = name.removeprefix("npz:")
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[: int(share * len(content))])
    assert "expected an npz file of plain arrays, cannot read it" in refused(name)


def test_damaged_compressed_data_is_refused(save):
    name = save(images=IMAGES, labels=LABELS)
    path = name.removeprefix("npz:")
    with open(path, "r+b") as file:
        file.seek(60)
        file.write(bytes([0xFF] * 40))
    with pytest.raises((ValueError, zlib.error)), np.load(path) as arrays:
        arrays["images"]
    assert "expected an npz file of plain arrays, cannot read it" in refused(name)


def test_pickled_objects_are_refused(save):
    name = save(images=np.array([IMAGES, None], object), labels=LABELS)
    assert "images: expected plain values, got Python objects, which are not read" in refused(name)


def test_missing_arrays_are_refused_with_those_found(save):
    name = save(pictures=IMAGES, labels=LABELS)
    assert "expected the arrays images and labels, got pictures, labels; rename them so" in refused(name)


BAD = {
    "other lengths": ({"labels": LABELS[:-1]}, "labels: expected one for each of 60 images, got shape (59,)"),
    "labels of another rank": ({"labels": LABELS[:, None, None]}, "got shape (60, 1, 1)"),
    "a label too large": (
        {"labels": with_value(LABELS, 7, 4)},
        "got 0, 1, 2, 4 (label 4 at index 7)",
    ),
    "a negative label": ({"labels": with_value(LABELS, 9, -1)}, "label -1 at index 9"),
    "a gap in the labels": ({"labels": LABELS * 2}, "label 4 at index 2"),
    "labels in floating point": ({"labels": LABELS * 0.5}, "labels: expected whole numbers or names, got 0.5"),
    "NaN": ({"images": with_value(IMAGES, 11, np.nan)}, "got NaN or infinity in image 11"),
    "infinity": ({"images": with_value(IMAGES, (13, 0, 0), -np.inf)}, "got NaN or infinity in image 13"),
    "images that are not square": ({"images": IMAGES[:, :5]}, "got shape (60, 5, 6, 2)"),
    "flat images": ({"images": IMAGES.reshape(COUNT, -1)}, "got shape (60, 72)"),
    "no images": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "got shape (0, 6, 6, 2)"),
    "images of whole numbers": (
        {"images": IMAGES.astype(np.int32) - 1},
        "or floating values, got int32 from -1",
    ),
    "images of text": ({"images": IMAGES.astype(str)}, "uint8 or floating values, got <U"),
    "one class": ({"labels": LABELS * 0}, "labels: expected at least two classes, got 0 alone"),
    "a class too small": (
        {"labels": np.where(np.arange(COUNT) < 6, 1, 0)},
        "expected at least 7 images of every class to split, got 6",
    ),
    "constant images": ({"images": IMAGES * 0 + 7}, "images: expected different values"),
    "constant floating images": (
        {"images": np.full((COUNT, 6, 6), 0.1)},
        "images: expected different values",
    ),
}


TEST = {"images": IMAGES, "labels": LABELS, "test_images": IMAGES[:9], "test_labels": LABELS[:9]}
BAD |= {
    "a test set without labels": (
        {"test_images": IMAGES[:9]},
        "expected the arrays test_images and test_labels, got images, labels, test_images",
    ),
    "a test label too large": (
        TEST | {"test_labels": LABELS[:9] + 1},
        "expected 0 .. 2 as among the training",
    ),
    "test images of another size": (TEST | {"test_images": IMAGES[:9, :5, :5]}, "got uint8 (5, 5, 2)"),
    "test images of another type": (TEST | {"test_images": IMAGES[:9] / 255}, "got float32 (6, 6, 2)"),
    "too few names": ({"class_names": np.array(["a", "b"])}, "class_names: expected 3 names, one for each class"),
    "names that are numbers": ({"class_names": np.arange(3)}, "got shape (3,) of int64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_with_what_was_found(save, case):
    changes, message = BAD[case]
    assert message in refused(save(**({"images": IMAGES, "labels": LABELS} | changes)))


def test_a_test_set_and_names_of_classes_are_used(save):
    splits = load_dataset(save(**TEST, class_names=np.array(["a", "b", "c"])), seed=0)
    assert [part.count for part in (splits.train, splits.validation, splits.calibration, splits.test)] == [42, 9, 9, 9]
    assert (splits.test.images == IMAGES[:9]).all()
    assert splits.class_names == ("a", "b", "c")


def test_a_test_set_may_lack_a_class(save):
    splits = load_dataset(save(**(TEST | {"test_labels": LABELS[:9] * 0})), seed=0)
    assert splits.classes == 3


def test_bytes_are_resized_where_it_is_asked_for(save):
    arrays = {key: value[..., 0] if value.ndim == 4 else value for key, value in TEST.items()}
    splits = load_dataset(save(**arrays), seed=0, image_size=12)
    assert splits.train.images.shape == (42, 12, 12, 1)
    assert splits.test.images.shape == (9, 12, 12, 1)
    assert "expected uint8 images of 1 or 3 channels to resize, got uint8 and 2" in refused(save(**TEST), image_size=3)
    name = save(images=IMAGES[..., :1] / 255, labels=LABELS)
    assert "expected uint8 images of 1 or 3 channels to resize, got float32 and 1" in refused(name, image_size=3)
    assert load_dataset(name, seed=0, image_size=6).image_size == 6
