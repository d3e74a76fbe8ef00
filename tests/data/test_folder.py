import shutil

import numpy as np
import pytest
from PIL import Image

from hadas_jax.data import Stream, load_dataset

CLASSES = ("cat", "dog", "eel")
SKIP = "--skip-unreadable leaves them out"


def save(path, *, size=(6, 6), channels=3, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if channels == 1 else (*size, channels)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)).save(path)


def fill(folder, count, *, classes=CLASSES, inner="", ending="png", **options):
    """Writes so many images of every class; the first pixel tells the class."""
    for label, name in enumerate(classes):
        for number in range(count):
            save(folder / name / inner / f"{number}.{ending}", seed=1000 * label + number, **options)


def load(folder, **arguments):
    return load_dataset(f"folder:{folder}", seed=0, **arguments)


def refused(folder, **arguments):
    with pytest.raises(ValueError, match=r".") as caught:
        load(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "DIR")


def counts(splits):
    return [part.count for part in (splits.train, splits.validation, splits.calibration, splits.test)]


def all_images(*parts):
    return {image.tobytes() for part in parts for image in np.asarray(part.images)}


def test_class_folders_are_split(tmp_path):
    fill(tmp_path, 20)
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    splits = load(tmp_path)
    assert counts(splits) == [33, 9, 9, 9]
    assert (splits.classes, splits.class_names, splits.image_size, splits.channels) == (3, CLASSES, 6, 3)
    assert splits.train.images.dtype == np.uint8
    for image, label in zip(np.asarray(splits.test.images), np.asarray(splits.test.labels), strict=True):
        folder = tmp_path / CLASSES[label]
        assert any((np.asarray(Image.open(path)) == image).all() for path in folder.glob("*.png"))


def test_a_validation_folder_alone_is_the_test_part(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "val", 4)
    assert counts(load(tmp_path)) == [42, 9, 9, 12]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_and_test_folders_are_what_their_names_say(tmp_path, name):
    fill(tmp_path / "train", 2)
    fill(tmp_path / name, 4, size=(6, 6))
    fill(tmp_path / "test", 1)
    splits = load(tmp_path)
    assert counts(splits) == [6, 6, 6, 3]
    held_out = {np.asarray(Image.open(path)).tobytes() for path in (tmp_path / name).rglob("*.png")}
    assert all_images(splits.validation, splits.calibration) == held_out


def test_a_class_may_be_missing_from_the_test_folder(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 2, classes=("dog",))
    splits = load(tmp_path)
    assert splits.classes == 3
    assert splits.test.labels.tolist() == [1, 1]


def test_the_form_of_tiny_imagenet_is_read(tmp_path):
    fill(tmp_path / "train", 10, inner="images", ending="JPEG")
    fill(tmp_path / "test", 3, classes=("images",), ending="JPEG")
    lines = []
    for number in range(6):
        save(tmp_path / "val" / "images" / f"val_{number}.JPEG", seed=number)
        lines.append(f"val_{number}.JPEG\t{CLASSES[2 - number % 3]}\t0\t32\t44\t62\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    splits = load(tmp_path)
    assert counts(splits) == [22, 4, 4, 6]
    assert splits.test.labels.tolist() == [2, 1, 0, 2, 1, 0]
    first = np.asarray(Image.open(tmp_path / "val" / "images" / "val_0.JPEG"))
    assert (np.asarray(splits.test.images)[0] == first).all()


def test_annotations_of_unknown_classes_are_refused_with_their_line(tmp_path):
    fill(tmp_path / "train", 10)
    save(tmp_path / "val" / "images" / "a.png")
    (tmp_path / "val" / "val_annotations.txt").write_text("a.png\tcat\na.png\tyak\n")
    assert "line 2: expected a file and a class of the training images, got 'a.png\\tyak'" in refused(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text("")
    assert "expected a line for each image, got none" in refused(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text("gone.png\tcat\n")
    assert refused(tmp_path) == f"DIR: expected images of 8 bits, cannot read 1: DIR/val/images/gone.png; {SKIP}"


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path):
    fill(tmp_path, 10, channels=1)
    assert load(tmp_path).channels == 1
    save(tmp_path / "eel" / "colour.png")
    assert load(tmp_path).channels == 3


def test_a_class_called_train_is_a_class(tmp_path):
    fill(tmp_path, 10, classes=("bus", "train"))
    assert load(tmp_path).class_names == ("bus", "train")


@pytest.mark.parametrize("odd", [(7, 7), (6, 8)])
def test_images_of_several_sizes_need_an_image_size(tmp_path, odd):
    fill(tmp_path, 10)
    save(tmp_path / "cat" / "other.png", size=odd)
    message = "DIR: expected square images of one size, or a size to bring them to: give --image-size"
    assert refused(tmp_path) == message
    assert load(tmp_path, image_size=4).train.images.shape[1:] == (4, 4, 3)


def test_images_that_are_not_square_need_an_image_size(tmp_path):
    fill(tmp_path, 10, size=(5, 7))
    assert "give --image-size" in refused(tmp_path)
    assert load(tmp_path, image_size=5).image_size == 5


def test_unreadable_images_are_named(tmp_path):
    fill(tmp_path, 10)
    for number in (3, 5, 7, 8):
        (tmp_path / "dog" / f"{number}.png").write_bytes(b"broken")
    named = "DIR/dog/3.png, DIR/dog/5.png, DIR/dog/7.png and 1 more"
    assert refused(tmp_path) == f"DIR: expected images of 8 bits, cannot read 4: {named}; {SKIP}"


def test_truncated_images_are_named(tmp_path):
    fill(tmp_path, 10, size=(30, 30))
    path = tmp_path / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(tmp_path) == f"DIR: expected images of 8 bits, cannot read 1: DIR/dog/3.png; {SKIP}"


def test_folders_without_enough_classes_are_refused(tmp_path):
    assert "expected a folder with one folder of images for each class, got none" in refused(tmp_path / "none")
    assert refused(tmp_path) == "DIR: expected a folder for each of at least two classes, got none"
    fill(tmp_path, 10, classes=("cat",))
    assert refused(tmp_path) == "DIR: expected a folder for each of at least two classes, got one, cat"


def test_classes_without_images_are_refused(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
    assert refused(tmp_path).endswith("of every class, got none in any folder")
    fill(tmp_path, 10, classes=("cat", "eel"))
    assert refused(tmp_path).endswith("of every class, got none in dog")


def test_classes_that_training_lacks_are_refused(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 2, classes=("cat", "yak"))
    assert (
        refused(tmp_path)
        == "DIR/test: expected the classes of the training images, got yak beside them; rename or remove them"
    )


def test_folders_beside_train_that_are_no_parts_are_refused(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "tset", 2)
    message = (
        "DIR: expected train, val and test alone beside each other, got tset; name folders so or move them elsewhere"
    )
    assert refused(tmp_path) == message
    shutil.rmtree(tmp_path / "tset")
    for name in ("val", "valid"):
        fill(tmp_path / name, 2)
    assert refused(tmp_path) == "DIR: expected one val folder, got val, valid; move all but one elsewhere"


def test_classes_that_are_too_small_are_refused(tmp_path):
    fill(tmp_path, 3)
    assert refused(tmp_path) == "DIR: expected at least 7 images of every class to split, got 3"


def test_a_large_folder_becomes_a_stream(tmp_path):
    fill(tmp_path, 20)
    whole = load(tmp_path)
    splits = load(tmp_path, in_memory_bytes=60 * 6 * 6 * 3 - 1)
    assert isinstance(splits.train, Stream)
    assert not isinstance(load(tmp_path, in_memory_bytes=60 * 6 * 6 * 3).train, Stream)
    assert counts(splits) == counts(whole)
    assert (splits.test.images == whole.test.images).all()
    assert all_images(splits.train.sample(33)) == all_images(whole.train)
    np.testing.assert_allclose(splits.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(splits.deviation, whole.deviation, rtol=1e-6)
