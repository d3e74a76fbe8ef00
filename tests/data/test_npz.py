import numpy as np
import pytest

from hadas_jax.data import load_dataset

COUNT = 60
LABELS = np.arange(COUNT) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 3)).astype(np.uint8)
NAMES = ("cat", "dog", "eel")
PLAIN = {"images": IMAGES, "labels": LABELS}


@pytest.fixture
def read(tmp_path):
    """Writes arrays to a file and loads it."""

    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)
        return load_dataset(f"npz:{path}", seed=0)

    return write


@pytest.fixture
def refused(read):
    """The one-line message that loading arrays ends with."""

    def load(**arrays):
        with pytest.raises(ValueError, match=r".") as caught:
            read(**arrays)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return load


def pairs(*parts):
    """Of every image of some parts, its bytes and its label."""
    return {
        (image.tobytes(), int(label))
        for part in parts
        for image, label in zip(np.asarray(part.images), np.asarray(part.labels), strict=True)
    }


def expected(rows, images=IMAGES, labels=LABELS):
    return {(image.tobytes(), int(label)) for image, label in zip(images[rows], labels[rows], strict=True)}


def everything(splits):
    return pairs(splits.train, splits.validation, splits.calibration, splits.test)


def test_sets_of_medmnist_are_read_with_their_own_parts(read):
    column = LABELS[:, None].astype(np.uint8)
    train, val, test = np.arange(0, 36), np.arange(36, 48), np.arange(48, 60)
    splits = read(
        train_images=IMAGES[train],
        train_labels=column[train],
        val_images=IMAGES[val],
        val_labels=column[val],
        test_images=IMAGES[test],
        test_labels=column[test],
    )
    assert pairs(splits.train) == expected(train)
    assert pairs(splits.validation, splits.calibration) == expected(val)
    assert pairs(splits.test) == expected(test)
    assert splits.notes == ()


KEYS = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("trainX", "trainY", "testX", "testY"),
    ("TrainImages", "TrainLabels", "TestingImages", "TestingLabels"),
    ("X", "y", "X-test", "y-test"),
    ("data", "target", "test_data", "test_targets"),
    ("train.imgs", "train.label", "images_test", "labels_test"),
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: keys[0])
def test_the_usual_names_of_arrays_are_known(read, keys):
    splits = read(**dict(zip(keys, (IMAGES[:48], LABELS[:48], IMAGES[48:], LABELS[48:]), strict=True)))
    assert pairs(splits.test) == expected(np.arange(48, 60))
    assert pairs(splits.train, splits.validation, splits.calibration) == expected(np.arange(48))
    assert splits.notes[0] == f"training images and labels are {keys[0]}, {keys[1]}"


def test_validation_images_alone_are_the_test_part_as_in_folders(read):
    splits = read(images=IMAGES[:48], labels=LABELS[:48], x_val=IMAGES[48:], y_val=LABELS[48:])
    assert pairs(splits.test) == expected(np.arange(48, 60))
    assert splits.notes == ("validation images and labels are x_val, y_val",)


def test_several_arrays_for_one_role_are_named(refused):
    assert "expected one array of train images, got images, X; leave one out" in refused(**PLAIN, X=IMAGES)
    assert "expected one array of train labels, got labels, train_labels" in refused(**PLAIN, train_labels=LABELS)
    assert "one array of names of classes" in refused(**PLAIN, class_names=NAMES, target_names=NAMES)


def test_half_of_a_part_is_refused_with_what_is_there(refused):
    assert "expected the arrays images and labels, got X; rename them so" in refused(X=IMAGES)
    assert "expected the arrays val_images and val_labels, got images, labels, val_y" in refused(**PLAIN, val_y=LABELS)
    assert "expected the arrays images and labels, got X_test, y_test" in refused(X_test=IMAGES, y_test=LABELS)


ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (LABELS[:, None], ()),
        (LABELS.astype(np.float32), ()),
        (LABELS.astype(np.float64)[:, None], ()),
        (LABELS.astype(np.uint64), ()),
        (ONE_HOT, ("labels are one-hot rows",)),
        (ONE_HOT.astype(bool), ("labels are one-hot rows",)),
        (ONE_HOT.astype(np.uint8), ("labels are one-hot rows",)),
    ],
)
def test_columns_one_hot_rows_and_whole_floating_numbers_are_labels(read, labels, note):
    splits = read(images=IMAGES, labels=labels)
    assert everything(splits) == expected(np.arange(COUNT))
    assert (splits.classes, splits.class_names, splits.notes) == (3, None, note)


def test_one_column_of_noughts_and_ones_is_no_one_hot_row(read):
    splits = read(images=IMAGES, labels=(LABELS > 1)[:, None].astype(int))
    assert everything(splits) == expected(np.arange(COUNT), labels=LABELS > 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.maximum(ONE_HOT, [0, 0, 1]), "got row 0 with 2 ones; choose one label"),
        (ONE_HOT * 0, "got row 0 with 0 ones"),
        (ONE_HOT * 0.5, "got shape (60, 3) with other values than 0 and 1"),
        (np.eye(4)[LABELS], "every class of one-hot rows, got 3 classes and rows of 4"),
        (LABELS + 0.5, "expected whole numbers or names, got 0.5 at index 0"),
        (LABELS * np.nan, "got nan at index 0"),
        (LABELS + 1, "expected 0 .. K - 1 without gaps, got 1, 2, 3 (label 3 at index 2); renumber them: np.unique"),
        (LABELS * 5, "got 0, 5, 10 (label 5 at index 1)"),
        (LABELS - 1, "got -1, 0, 1 (label -1 at index 0)"),
        (LABELS.astype("M8[s]"), "expected whole numbers or names, got datetime64[s]"),
        (LABELS * 1j, "expected whole numbers or names, got complex128"),
        (np.array([b"\xff", b"a", b"b"])[LABELS], "expected names in UTF-8, got others"),
        (np.array(["", "a", "b"])[LABELS], "expected a name for every image, got none at index 0"),
    ],
)
def test_labels_that_are_not_one_class_each_are_refused(refused, labels, message):
    assert message in refused(images=IMAGES, labels=labels)


@pytest.mark.parametrize("kind", [str, bytes])
def test_labels_may_be_names(read, kind):
    names = np.array(["dög", "cat", "eel"])
    labels = names[LABELS] if kind is str else np.char.encode(names, "utf-8")[LABELS]
    splits = read(images=IMAGES, labels=labels)
    assert splits.class_names == ("cat", "dög", "eel")
    assert everything(splits) == expected(np.arange(COUNT), labels=np.array([1, 0, 2])[LABELS])


def test_class_names_number_labels_that_are_names(read, refused):
    arrays = {"images": IMAGES, "labels": np.array(NAMES)[LABELS]}
    splits = read(**arrays, class_names=NAMES[::-1])
    assert splits.class_names == NAMES[::-1]
    assert everything(splits) == expected(np.arange(COUNT), labels=2 - LABELS)
    assert "labels: expected cat, dog, got eel at index 2" in refused(**arrays, class_names=NAMES[:2])
    assert "that are labels of images, got yak" in refused(**arrays, class_names=[*NAMES, "yak"])
    numbers = {"test_images": IMAGES, "test_labels": LABELS}
    assert "expected names in all parts or numbers in all parts, got both" in refused(**arrays, **numbers)
    names = {"test_images": IMAGES[:2], "test_labels": ["cat", "Cat"]}
    assert "test set: labels: expected cat, dog, eel, got Cat at index 1" in refused(**arrays, **names)


def test_class_names_may_be_bytes_and_are_never_unpickled(read, refused):
    assert read(**PLAIN, class_names=np.char.encode(["a", "ä", "b"], "utf-8")).class_names == ("a", "ä", "b")
    message = refused(**PLAIN, class_names=np.array(NAMES, object))
    assert "class_names: expected plain values, got Python objects, which are not read" in message
    assert message.endswith("save it as np.array(class_names, dtype=str)")
    message = refused(images=IMAGES, y=LABELS.astype(object))
    assert message.endswith("save it as an array of numbers or as np.array(y, dtype=str)")
    message = refused(X=IMAGES.astype(object), y=LABELS)
    assert message.endswith("save it as an array of numbers")
    assert "expected different names, got a more than once" in refused(**PLAIN, class_names=["a", "b", "a"])


def test_bytes_that_were_saved_as_integers_are_bytes(read, refused):
    splits = read(images=IMAGES.astype(np.int64), labels=LABELS)
    assert splits.train.images.dtype == np.uint8
    assert everything(splits) == expected(np.arange(COUNT))
    assert splits.notes == ("images of int64 are taken as bytes",)
    message = refused(images=IMAGES.astype(np.int16) * 2, labels=LABELS)
    assert "expected bytes, 0 .. 255, or floating values, got int16 from 0 to 510; scale them" in message


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_come_first_are_moved_to_the_end(read, channels):
    images = np.ascontiguousarray(IMAGES[..., :channels])
    splits = read(images=np.moveaxis(images, -1, 1), labels=LABELS)
    assert everything(splits) == expected(np.arange(COUNT), images=images)
    assert splits.notes == ("images are stored with channels first",)


def test_images_as_small_as_their_channels_have_channels_last(read):
    splits = read(images=IMAGES[:, :3, :3], labels=LABELS)
    assert everything(splits) == expected(np.arange(COUNT), images=IMAGES[:, :3, :3])
    assert splits.notes == ()


def test_arrays_that_are_not_used_are_named(read):
    splits = read(**PLAIN, extra=np.zeros((2, 3)), classes=np.array(["a", None]))
    assert splits.notes == ("left out: arrays extra of shape (2, 3), classes of shape (2,)",)


def test_parts_of_another_form_are_refused(refused):
    val = {"val_images": IMAGES[:6, ..., 0], "val_labels": LABELS[:6]}
    assert "validation set: images: expected uint8 (6, 6, 3) as the others, got uint8 (6, 6, 1)" in refused(
        **PLAIN, **val
    )
