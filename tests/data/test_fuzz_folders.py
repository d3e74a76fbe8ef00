"""Drawn folders of tiny images, with an account of their own of what must come out of each."""

import io
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fuzzing import DRAWS
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from hadas_jax.data import load_dataset

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where folders come and go quickly
PARTS = {
    "train": [
        "train",
        "Train",
        "TRAINING",
        "training_set",
        "train-set",
        "trainset",
        "trn",
        "train data",
        "images_train",
    ],
    "val": ["val", "Valid", "validation", "Validation_Set", "dev", "devset", "val2017", "VALIDATION"],
    "test": ["test", "Test", "testing", "Testing", "test_set", "testset", "TEST_DATA", "test images"],
}
CLASSES = [
    "cat",
    "Dog",
    "a b",
    "[x]",
    "it's",
    '"q"',
    "日本",
    "käse",
    "l\nf",
    "100%",
    "-n",
    "train station",
    "0",
    "1",
    "e.g.",
]
LITTER = [
    "._0.png",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints/0.png",
    "__MACOSX/cat/._1.png",
    ".a/b.jpg",
]
OTHERS = ["notes.txt", "labels.CSV", "x.heic", "LICENSE", "clip.mp4", "paper.pdf", "d.npy", "i.png.bak"]
GREY = ["png", "PNG", "bmp", "tga", "tif", "TIFF", "pgm", "Tga", "apng", "dib"]
COLOUR = ["png", "bmp", "Tga", "tiff", "ppm", "webp", "QOI", "pcx"]
WITH_EXIF = {"png", "webp", "tif", "tiff", "apng"}
FAULTS = [None] * 8 + [
    "broken",
    "empty class",
    "class that training lacks",
    "two folders for a part",
    "folder that is no part",
    "unlabelled test",
    "unlabelled validation",
    "no training images",
    "one class",
    "same folders in all",
]
BROKEN = [b"", b"text", b"<html>\n", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff\xe0"]


class Drawn(NamedTuple):
    """Files by their path, the images that must be found by part, and whether all must be refused."""

    files: dict[str, bytes]
    images: dict[str, set[tuple[bytes, str]]]
    is_refused: bool
    skips: bool
    notes: tuple[str, ...]


def stored(shown, orientation):
    """The pixels that a camera stores for what is to be shown."""
    turned = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: np.swapaxes(shown, 0, 1),
        6: np.rot90(shown, 1),
        7: np.swapaxes(shown[::-1, ::-1], 0, 1),
        8: np.rot90(shown, -1),
    }
    return np.ascontiguousarray(turned[orientation])


def as_file(pixels, ending, orientation=1):
    """A file's bytes, without loss."""
    file = io.BytesIO()
    form = Image.registered_extensions()[f".{ending.lower()}"]
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    if ending.lower() in WITH_EXIF:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
        pixels = stored(pixels, orientation)
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


@st.composite
def folders(draw):
    side = draw(st.integers(1, 4))
    colour = draw(st.booleans())
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True))
    fault = draw(st.sampled_from(FAULTS))
    parts = draw(st.sampled_from([(), ("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]))
    if fault in ("class that training lacks", "two folders for a part", "folder that is no part", "unlabelled test"):
        parts = ("train", "test")
    if fault == "unlabelled validation":
        parts = ("train", "val")
    if fault == "no training images":
        parts = ("train", "val", "test")
    if fault == "same folders in all":
        parts = ("train", "test")
    names = {part: draw(st.sampled_from(PARTS[part])) for part in parts}
    if fault == "same folders in all":
        names = {"train": "one", "test": "two"}
    if fault == "one class":
        classes = classes[:1]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    files, images, notes = {}, {}, []
    skips = draw(st.booleans())
    broken = 0
    is_refused = fault in (
        "empty class",
        "class that training lacks",
        "two folders for a part",
        "folder that is no part",
        "unlabelled validation",
        "one class",
        "same folders in all",
        "no training images",
    )

    def write(folder, number, inners=("", "", "deep/er/", "a [b] 'c'/", "Ω/")):
        """One image in a form of its own, and what must be seen of it."""
        shape = (side, side, 3) if colour else (side, side)
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        count = len(files)
        pixels[0, 0] = (count % 256, count // 256, 7) if colour else count
        ending = (COLOUR if colour else GREY)[rng.integers(8)]
        orientation = int(rng.integers(1, 9)) if rng.random() < 0.4 else 1
        inner = inners[rng.integers(len(inners))]
        stem = ["{}", "IMG {}", "x[{}]", "it's {}", "é{}", "a.b.{}"][rng.integers(6)].format(number)
        files[f"{folder}/{inner}{stem}.{ending}"] = as_file(pixels, ending, orientation)
        return pixels.reshape(side, side, -1).tobytes()

    counted = {"train": 7 if len(set(parts) - {"train"}) < 2 or fault == "unlabelled test" else 1, "val": 1, "test": 1}
    if fault == "same folders in all":
        counted["test"] = 7
    for part in parts or ("train",):
        if fault == "no training images" and part == "train":
            continue
        root = f"{names[part]}/" if parts else ""
        images[part] = set()
        for name in classes:
            for number in range(counted[part] + int(rng.integers(2))):
                images[part].add((write(root + name, number), name))
    if fault == "broken":
        broken = draw(st.integers(1, 4))
        for number in range(broken):
            root = f"{names[draw(st.sampled_from(parts))]}/" if parts else ""
            whole = as_file(rng.integers(0, 256, (side, side, 3) if colour else (side, side)).astype(np.uint8), "png")
            content = draw(st.sampled_from([*BROKEN, whole[: draw(st.integers(8, 45))]]))
            files[f"{root}{draw(st.sampled_from(classes))}/broken{number}.png"] = content
        is_refused = is_refused or not skips
    if fault == "empty class":
        root = f"{names['train']}/" if parts else ""
        files[f"{root}hollow/readme.txt"] = b"x"
    if fault == "class that training lacks":
        write(f"{names['test']}/yak", 0)
    if fault == "two folders for a part":
        other = draw(st.sampled_from([name for name in PARTS["test"] if name != names["test"]]))
        write(f"{other}/{classes[0]}", 0)
    if fault == "folder that is no part":
        write("tset/" + classes[0], 0)
    if fault in ("unlabelled test", "unlabelled validation"):
        name = names["test" if fault == "unlabelled test" else "val"]
        files = {path: content for path, content in files.items() if not path.startswith(f"{name}/")}
        images.pop("test", None)
        inner = draw(st.sampled_from(["", "/unknown", "/images/a"]))
        for number in range(3):
            write(name + inner, number, inners=("",))
        notes.append("left out: 3 images of ")
    places = sorted({"", *(str(parent) + "/" for path in files for parent in Path(path).parents if parent.name)})
    for name in draw(st.lists(st.sampled_from(LITTER), max_size=3)):
        files[draw(st.sampled_from(places)) + name] = as_file(np.zeros((side, side), np.uint8), "png")
    others = set()
    for name in draw(st.lists(st.sampled_from(OTHERS), max_size=3, unique=True)):
        others.add(draw(st.sampled_from(places)) + name)
    files |= dict.fromkeys(others, b"x")
    notes += [f" of {Path(name).suffix.lower()}" for name in others if Path(name).suffix]
    if broken and skips:
        notes.append(f"left out: {broken} image")
    return Drawn(files, images, is_refused, skips, tuple(notes))


def write_files(place, files):
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def load(place, **options):
    """What is read, or the one line that says why nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        try:
            return load_dataset(f"folder:{place}", seed=0, **options)
        except ValueError as error:
            message = str(error)
    assert len(message.encode().splitlines()) == 1
    return message


def found(splits, *parts):
    """Pixels and names of classes of all images of some parts."""
    return [
        (image.tobytes(), splits.class_names[label])
        for part in parts
        for image, label in zip(np.asarray(part.images), np.asarray(part.labels), strict=True)
    ]


FUZZ = settings(
    max_examples=DRAWS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.slow
@FUZZ
@given(folders())
def test_folders_are_taken_for_what_they_are(drawn):
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        write_files(Path(place), drawn.files)
        splits = load(Path(place), skip_unreadable=drawn.skips)
    event("refused" if drawn.is_refused else "read")
    assert isinstance(splits, str) == drawn.is_refused, splits
    if isinstance(splits, str):
        return
    own_test = "test" if "test" in drawn.images else "val"
    if own_test in drawn.images:
        test = found(splits, splits.test)
        assert len(test) == len(drawn.images[own_test])
        assert set(test) == drawn.images[own_test]
        rest = set().union(*(images for part, images in drawn.images.items() if part != own_test))
        left = found(splits, splits.train, splits.validation, splits.calibration)
    else:
        rest = drawn.images["train"]
        left = found(splits, splits.train, splits.validation, splits.calibration, splits.test)
    assert len(left) == len(rest)
    assert set(left) == rest
    if own_test == "test" and "val" in drawn.images:
        assert set(found(splits, splits.train)) == drawn.images["train"]
    summary = splits.summary()
    assert len(summary.splitlines()) == 1
    assert all(note in summary for note in drawn.notes)


NAMES = ["train", "Test", "val", "cat", "dog", "a b", ".hidden", "__MACOSX", "x[1]", "images", "l\nf", "0"]
FILES = ["0.png", "1.PNG", "2.bmp", "._3.png", "n.txt", "Thumbs.db", "val_annotations.txt", "4.gif", "5"]


@st.composite
def trees(draw):
    """Paths of files below two classes, and of a few in any folders."""
    roots = draw(
        st.sampled_from([[""], ["train/"], ["train/", "Test/"], ["train/", "val/", "test/"], ["in/train/", "in/Test/"]])
    )
    deeper = st.lists(st.sampled_from(NAMES), max_size=2)
    files = st.sampled_from(FILES)
    known = st.builds(
        lambda root, name, inner, file: root + "/".join([name, *inner, file]),
        st.sampled_from(roots),
        st.sampled_from(["cat", "dog"]),
        deeper,
        files,
    )
    anywhere = st.builds(lambda inner, file: "/".join([*inner, file]), deeper, files)
    paths = draw(st.lists(known, min_size=4, max_size=16)) + draw(st.lists(anywhere, max_size=2))
    return sorted({*paths, *(f"{root}{name}/0.png" for root in roots for name in ("cat", "dog"))})


@pytest.mark.slow
@FUZZ
@given(trees(), st.booleans(), st.integers(0, 12))
def test_no_image_of_any_tree_is_lost_or_used_twice(paths, skips, broken):
    files = {}
    for number, path in enumerate(paths):
        for copy in range(7 if path.endswith("png") else 1):
            name = path.removesuffix(".png") + f"-{copy}.png" if path.endswith("png") else path
            ending = Path(name).suffix.lower().removeprefix(".")
            pixels = np.array([[number]], np.uint8).repeat(2, 0).repeat(2, 1)
            pixels[1] = copy
            files[name] = as_file(pixels, ending) if ending in ("png", "bmp", "gif") else b"x"
            if number == broken and copy == 0:
                files[name] = b"\x89PNG"
    is_hidden = re.compile(r"(^|/)(\.|__MACOSX/|Thumbs\.db)").search
    images = {name for name in files if name.lower().endswith((".png", ".bmp", ".gif")) and not is_hidden(name)}
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        write_files(Path(place), files)
        splits = load(Path(place), skip_unreadable=skips)
    event("refused" if isinstance(splits, str) else "read")
    if isinstance(splits, str):
        return
    by_pixels = {}
    for name in images:
        if files[name] != b"\x89PNG":
            pixels = np.asarray(Image.open(io.BytesIO(files[name])).convert("L"))
            by_pixels.setdefault((pixels.tobytes()), []).append(name)
    used = found(splits, splits.train, splits.validation, splits.calibration, splits.test)
    assert len(set(used)) == len(used)
    for pixels, label in used:
        key = np.frombuffer(pixels, np.uint8).reshape(2, 2, -1)[..., 0].tobytes()
        assert any(label in name.split("/")[:-1] for name in by_pixels[key])
    left_out = [int(count) for count in re.findall(r"left out: (\d+) images? ", splits.summary())]
    assert len(used) + sum(left_out) == len(images)
