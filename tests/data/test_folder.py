import os
import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from hadas_jax.data import Stream, load_dataset

CLASSES = ("cat", "dog", "eel")
SKIP = "`skip_unreadable` leaves them out"


def save(path, *, size=(6, 6), channels=3, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if channels == 1 else (*size, channels)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)).save(path)


def fill(folder, count, *, classes=CLASSES, inner="", ending="png", **options):
    """Writes so many images of every class; the first pixel tells the class."""
    for label, name in enumerate(classes):
        for number in range(count):
            save(folder / name / inner / f"{number}.{ending}", seed=1000 * label + number, **options)


def left_out(splits):
    """The notes but that on images which stand in training and elsewhere, as many of these sets have."""
    return tuple(note for note in splits.notes if not note.startswith("equal to training images"))


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
    message = "DIR: expected square images of one size, or a size to bring them to: give `image_size`"
    assert refused(tmp_path) == message
    assert load(tmp_path, image_size=4).train.images.shape[1:] == (4, 4, 3)


def test_images_that_are_not_square_need_an_image_size(tmp_path):
    fill(tmp_path, 10, size=(5, 7))
    assert "give `image_size`" in refused(tmp_path)
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
    assert (
        refused(tmp_path)
        == "DIR: expected at least 7 images of every class to split, got 3 of cat and too few of 2 more"
    )


def test_a_large_folder_becomes_a_stream(tmp_path):
    fill(tmp_path, 20)
    whole = load(tmp_path)
    splits = load(tmp_path, in_memory_bytes=60 * 6 * 6 * 3 - 1)
    assert isinstance(splits.train, Stream)
    assert not isinstance(load(tmp_path, in_memory_bytes=60 * 6 * 6 * 3).train, Stream)
    assert counts(splits) == counts(whole)
    assert (splits.test.images == whole.test.images).all()
    assert all_images(splits.train.sample(33)) == all_images(whole.train)
    np.testing.assert_allclose(splits.normalisation, whole.normalisation, rtol=1e-6)


SPELLINGS = [
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "VALID", "TEST"),
    ("training_set", "validation_set", "test_set"),
    ("trainset", "devset", "testset"),
    ("train-data", "dev", "tst"),
    ("images_train", "images_val", "images_test"),
    ("train2017", "val2017", "test2017"),
]


@pytest.mark.parametrize("names", SPELLINGS, ids=lambda names: names[0])
def test_usual_spellings_of_parts_are_parts(tmp_path, names):
    for name, count in zip(names, (4, 2, 1), strict=True):
        fill(tmp_path / name, count)
    splits = load(tmp_path)
    assert counts(splits) == [12, 3, 3, 3]
    assert splits.class_names == CLASSES


def test_two_folders_for_one_part_are_refused(tmp_path):
    for name in ("Train", "training", "test"):
        fill(tmp_path / name, 4)
    assert refused(tmp_path) == "DIR: expected one train folder, got Train, training; move all but one elsewhere"


def test_parts_without_one_for_training_are_refused(tmp_path):
    for name in ("Validation", "Testing"):
        fill(tmp_path / name, 4)
    message = "DIR: expected a folder train of training images beside Testing, Validation, got none"
    assert refused(tmp_path) == message


def test_parts_without_class_folders_are_no_classes(tmp_path):
    for name in ("train", "test"):
        save(tmp_path / name / "0.png")
    message = "DIR/train: expected a folder for each of at least two classes, got none, and 1 image in no folder"
    assert refused(tmp_path) == message


@pytest.mark.parametrize(
    ("first", "second"), [("a", "b"), ("fold1", "fold2"), ("seg_train/seg_train", "seg_test/seg_test")]
)
def test_folders_that_hold_the_same_folders_are_refused(tmp_path, first, second):
    fill(tmp_path / first, 10)
    fill(tmp_path / second, 10, classes=("dog", "Cat"))
    fill(tmp_path / "pred", 2, classes=("",))
    message = refused(tmp_path)
    names = ", ".join(sorted(name.split("/")[0] for name in (first, second)))
    assert f"expected a folder for each class, but {names} hold the same folders (cat, dog, eel) as parts do" in message
    assert "name them train, val and test" in message


def test_parts_inside_of_classes_are_refused(tmp_path):
    for name in CLASSES:
        fill(tmp_path / name, 4, classes=("train", "test"))
    assert "DIR/cat: expected images of one class, got the parts test, train; put" in refused(tmp_path)


def test_classes_may_have_folders_of_their_own(tmp_path):
    fill(tmp_path / "cat", 6, classes=("indoor", "outdoor"))
    fill(tmp_path / "dog", 6, classes=("poodle", "husky"))
    fill(tmp_path, 7, classes=("eel",))
    assert load(tmp_path).class_names == CLASSES
    (tmp_path / "cat").rename(tmp_path / "train")
    assert "expected train, val and test alone beside each other, got dog, eel" in refused(tmp_path)


def test_a_folder_around_the_data_set_is_named(tmp_path):
    fill(tmp_path / "images", 10)
    message = "DIR: expected a folder for each of at least two classes, got one, images; if the data set is in there"
    assert message in refused(tmp_path)


def test_a_folder_around_parts_is_passed(tmp_path):
    fill(tmp_path / "images" / "train", 10)
    fill(tmp_path / "images" / "test", 2)
    save(tmp_path / "logo.png")
    save(tmp_path / "images" / "logo.png")
    splits = load(tmp_path)
    assert counts(splits) == [22, 4, 4, 6]
    assert left_out(splits) == ("left out: 2 images beside the class folders",)


LITTER = ["._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0.png", ".thumbnails/a/0.png"]
LITTER += ["__MACOSX/._x.png", "__MACOSX/train/cat/._0.png", "@eaDir/0.png", ".hidden.jpg"]


@pytest.mark.parametrize("where", ["", "train", "train/cat", "test", "test/dog", "train/cat/more"])
def test_what_systems_leave_is_no_data_at_any_depth(tmp_path, where):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 2)
    save(tmp_path / "train" / "cat" / "more" / "9.png")
    before = load(tmp_path)
    for name in LITTER:
        path = tmp_path / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    splits = load(tmp_path)
    assert splits.class_names == CLASSES
    for part in ("train", "validation", "calibration", "test"):
        assert (getattr(splits, part).images == getattr(before, part).images).all()
    assert left_out(before) == ()
    assert left_out(splits) == ("left out: 9 hidden or system files",)


def test_images_are_read_as_viewers_show_them(tmp_path):
    fill(tmp_path, 10, size=(4, 6), ending="png", channels=1)
    for path in tmp_path.rglob("*.png"):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.open(path).save(path, exif=exif)
    splits = load(tmp_path, image_size=4)
    turned = {np.rot90(np.asarray(Image.open(path)), -1)[1:5].tobytes() for path in tmp_path.rglob("*.png")}
    assert all_images(splits.train, splits.validation, splits.calibration, splits.test) == turned


def test_all_endings_of_still_images_of_pillow_are_read_and_no_others(tmp_path):
    known = [
        "png",
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "bmp",
        "gif",
        "tif",
        "tiff",
        "webp",
        "ppm",
        "pgm",
        "tga",
        "avif",
        "jp2",
        "j2k",
        "qoi",
        "pcx",
        "mpo",
        "apng",
        "dib",
        "pnm",
    ]
    others = ["pdf", "eps", "ps", "mpg", "mpeg", "wmf", "emf", "h5", "hdf", "grib", "fli", "txt"]
    save(tmp_path / "x.png", seed=0)
    content = (tmp_path / "x.png").read_bytes()
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        for ending in (*known, *others):
            (tmp_path / "data" / name / f"x.{ending}").write_bytes(content)
    splits = load(tmp_path / "data")
    parts = (splits.train, splits.validation, splits.calibration, splits.test)
    assert sum(part.count for part in parts) == len(CLASSES) * len(known)
    counts = [f"{len(CLASSES)} of .{ending}" for ending in sorted(others)]
    (line,) = left_out(splits)
    assert line.startswith(f"left out: {len(CLASSES)} files of .emf, {', '.join(counts[1:10])} and 2 more")


def test_files_of_every_ending_are_read_or_named(tmp_path):
    for ending in ("png", "JPG", "jfif", "jpe", "TGA", "Bmp"):
        fill(tmp_path, 2, ending=ending)
    for name in ("readme.md", "cat/list.csv", "cat/a.txt", "dog/b.TXT", "dog/LICENSE", "eel/x.heic"):
        (tmp_path / name).write_text("x")
    splits = load(tmp_path)
    assert sum(counts(splits)) == 36
    assert left_out(splits) == ("left out: 2 files of .txt, 1 without an ending, 1 of .csv, 1 of .heic, 1 of .md",)


def test_images_beside_class_folders_are_named(tmp_path):
    fill(tmp_path, 10)
    save(tmp_path / "logo.png")
    assert left_out(load(tmp_path)) == ("left out: 1 image beside the class folders",)


@pytest.mark.parametrize("inner", ["", "images", "unknown/a"])
def test_test_images_without_classes_are_left_out(tmp_path, inner):
    fill(tmp_path / "train", 10)
    for number in range(6):
        save(tmp_path / "Test" / inner / f"{number}.png")
    splits = load(tmp_path)
    assert sum(counts(splits)) == 30
    assert left_out(splits) == ("left out: 6 images of Test, which has no class folders",)
    fill(tmp_path / "val", 2)
    assert counts(load(tmp_path)) == [22, 4, 4, 6]


def test_validation_images_without_classes_are_refused(tmp_path):
    fill(tmp_path / "train", 10)
    save(tmp_path / "val" / "0.png")
    message = "DIR/val: expected a folder for each class, got 1 image without; sort them into folders of the classes,"
    assert message in refused(tmp_path)


def test_what_a_file_of_annotations_does_not_list_is_named(tmp_path):
    fill(tmp_path / "train", 10, inner="images")
    for number in range(4):
        save(tmp_path / "val" / "images" / f"{number}.png", seed=number)
    (tmp_path / "val" / "val_annotations.txt").write_text("0.png\tcat\n1.png\tdog\n\n")
    splits = load(tmp_path)
    assert splits.test.labels.tolist() == [0, 1]
    assert left_out(splits) == ("left out: 2 images that val_annotations.txt does not list",)
    (tmp_path / "val" / "val_annotations.txt").write_text("0.png\tcat\n0.png\tdog\n")
    assert "line 2: expected every file once, got 0.png again" in refused(tmp_path)


def test_unreadable_images_are_left_out_where_it_is_asked_for(tmp_path):
    fill(tmp_path, 10, size=(30, 30))
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    (tmp_path / "cat" / "4.png").write_text("<html>")
    path = tmp_path / "dog" / "5.png"
    path.write_bytes(path.read_bytes()[:1000])
    splits = load(tmp_path, skip_unreadable=True)
    assert left_out(splits) == (
        f"left out: 3 images that cannot be read ({tmp_path}/cat/3.png, {tmp_path}/cat/4.png, {tmp_path}/dog/5.png)",
    )
    for name in ("cat/3.png", "cat/4.png", "dog/5.png"):
        (tmp_path / name).unlink()
    alone = load(tmp_path)
    for part in ("train", "validation", "calibration", "test"):
        assert (getattr(splits, part).images == getattr(alone, part).images).all()


def test_a_stream_leaves_out_what_has_no_header_and_names_what_breaks_off_later(tmp_path, monkeypatch):
    monkeypatch.setattr("hadas_jax.data.images.CONTENTS_BYTES", 1000)  # too much to be read before the cut
    fill(tmp_path / "train", 10, size=(30, 30))
    fill(tmp_path / "val", 2, size=(30, 30))
    (tmp_path / "train" / "cat" / "3.png").write_bytes(b"")
    splits = load(tmp_path, skip_unreadable=True, in_memory_bytes=1000)
    assert isinstance(splits.train, Stream)
    assert sum(counts(splits)) == 35
    assert left_out(splits) == (f"left out: 1 image that cannot be read ({tmp_path}/train/cat/3.png)",)
    path = tmp_path / "val" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:1000])
    message = "DIR: expected images of 8 bits, cannot read 1: DIR/val/dog/1.png; remove them"
    assert refused(tmp_path, skip_unreadable=True, in_memory_bytes=1000) == message


def test_what_breaks_off_is_left_out_of_memory_however_large_the_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr("hadas_jax.data.images.CONTENTS_BYTES", 1000)
    fill(tmp_path, 10, size=(30, 30))
    path = tmp_path / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:1000])
    splits = load(tmp_path, skip_unreadable=True)
    assert left_out(splits) == (f"left out: 1 image that cannot be read ({path})",)


@pytest.mark.parametrize("length", [0, 1000])
def test_classes_and_parts_of_which_no_image_can_be_read_are_refused(tmp_path, length):
    fill(tmp_path / "train", 10, size=(30, 30))
    fill(tmp_path / "test", 2, size=(30, 30))
    for path in [*(tmp_path / "test").rglob("*.png"), *(tmp_path / "train" / "dog").glob("*.png")]:
        path.write_bytes(path.read_bytes()[:length])
    expected = "training images that can be read, got none of a class" if length else "got none in test, dog"
    assert expected in refused(tmp_path, skip_unreadable=True)


ODD = ["with space", "[x]", "it's", 'say "a"', "日本", "käse", "a\nb", "100%", "{x}", "$HOME", "-n", "a,b", "#1"]


def test_odd_names_are_names(tmp_path):
    place = tmp_path / "odd\nplace [1] 'é'"
    fill(place, 7, classes=ODD)
    splits = load(place)
    assert splits.class_names == tuple(sorted(ODD))
    assert "\n" not in splits.summary()
    (place / "a\nb" / "0.png").write_bytes(b"")
    refused(place)


def test_class_names_that_are_no_text_are_refused(tmp_path):
    fill(tmp_path, 7, classes=("cat", os.fsdecode(b"caf\xe9")))
    assert refused(tmp_path) == r"DIR: expected names of classes in UTF-8, got caf\udce9; rename it"


def test_links_are_followed_and_loops_are_not(tmp_path):
    fill(tmp_path / "store", 8)
    data = tmp_path / "data"
    data.mkdir()
    for name in CLASSES:
        (data / name).symlink_to(tmp_path / "store" / name)
    fill(tmp_path / "more", 2, classes=("x",))
    (tmp_path / "store" / "cat" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "store" / "dog" / "loop").symlink_to(tmp_path / "store" / "dog")
    splits = load(data)
    assert sum(counts(splits)) == 26
    assert left_out(splits) == ("left out: 1 hidden or system file",)
    (data / "cat" / "gone.png").symlink_to(tmp_path / "nothing")
    (data / "cat" / "self.png").symlink_to(data / "cat" / "self.png")
    assert "cannot read 2: " in refused(data)
    os.mkfifo(data / "cat" / "pipe.png")
    assert load(data, skip_unreadable=True).notes[0] == "left out: 2 hidden or system files"
