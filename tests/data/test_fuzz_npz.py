"""Drawn npz files, whole and damaged, with an account of their own of what must come out of each."""

import io
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fuzzing import DRAWS
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hadas_jax.data import load_dataset

KEYS = {
    "train": [
        ("images", "labels"),
        ("train_images", "train_labels"),
        ("x_train", "y_train"),
        ("X", "y"),
        ("data", "target"),
        ("TrainImages", "TrainLabels"),
        ("training-data", "training-targets"),
        ("imgs", "Label"),
    ],
    "val": [("val_images", "val_labels"), ("x_val", "y_val"), ("X_valid", "Y_valid"), ("validation_data", "devTarget")],
    "test": [("test_images", "test_labels"), ("x_test", "y_test"), ("XTest", "yTest"), ("testing.x", "testing.y")],
}
EXTRAS = ["note", "ids", "train_masks", "l\nf", "日本", "fold", "images2", "y_score"]
NAMES = ["cat", "Dog", "ä b", "10", "9", "l\nf", "日本"]
FAULTS = [
    "another length",
    "labels from 1",
    "labels with a gap",
    "half a label",
    "no or several labels",
    "a label that training lacks",
    "objects",
    "two of a kind",
    "no labels",
    "no training images",
    "NaN",
    "not square",
    "more than bytes",
    "a name too many",
    "a name twice",
    "one class",
]


class Drawn(NamedTuple):
    """Arrays of a file, the images that must be found by part, and whether all must be refused."""

    arrays: dict[str, np.ndarray]
    pairs: dict[str, list[tuple[bytes, str]]]
    is_refused: bool
    notes: tuple[str, ...]


def saved_images(shown, form, is_first):
    """Bytes uint8[N, H, H, C] as somebody saved them, and as they must come out."""
    if form.startswith(("f", ">f")):
        found = (shown / np.float32(7)).astype(form)
        out = found.astype(np.float32)
    else:
        found, out = shown.astype(form), shown
    if is_first:
        return np.moveaxis(found, -1, 1), out
    return (found[..., 0] if shown.shape[-1] == 1 else found), out


def saved_labels(labels, form, names):
    """Labels int[N] as somebody saved them."""
    if form == "one-hot":
        return np.eye(len(names))[labels]
    if form == "one-hot bytes":
        return np.eye(len(names), dtype=np.uint8)[labels]
    if form == "names":
        return np.array(names)[labels]
    if form == "encoded names":
        return np.array([name.encode() for name in names])[labels]
    if form == "column":
        return labels[:, None].astype(np.uint8)
    return labels.astype(form)


@st.composite
def archives(draw):
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    fault = draw(st.sampled_from([None] * len(FAULTS) + FAULTS))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=3, unique=True))
    parts = ["train", *pick((), ("val",), ("test",), ("val", "test"))]
    if fault == "a label that training lacks" and len(parts) < 2:
        parts = ["train", "test"]
    channels = pick(1, 2, 3)
    is_first = channels != 2 and draw(st.booleans())
    side = draw(st.integers(4 if is_first else 1, 5))
    form = pick("u1", "u1", "i8", ">i2", "u4", "f2", "f4", "f8", ">f8")
    label_form = pick(
        "i8", "i1", "u8", ">i4", "f4", "f8", "column", "one-hot", "one-hot bytes", "names", "encoded names"
    )
    is_named = label_form in ("names", "encoded names")
    class_names = pick(None, "text", "bytes")
    if fault in ("a name too many", "a name twice"):
        class_names = "text"
    order = names if class_names else (sorted(names) if is_named else [str(n) for n in range(len(names))])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = {"train": 8 * len(names) if len(parts) < 3 else 4, "val": 4, "test": 3}
    arrays, pairs, notes = {}, {}, []
    for part in parts:
        labels = rng.permutation(np.arange(counts[part]) % len(names))
        shown = rng.integers(0, 256, (len(labels), side, side, channels)).astype(np.uint8)
        shown[:, 0, 0, 0] = np.arange(len(labels)) + {"train": 0, "val": 100, "test": 200}[part]
        images, out = saved_images(shown, form, is_first)
        given = names if class_names or not is_named else order
        saved = saved_labels(labels, label_form, given)
        keys = draw(st.sampled_from(KEYS[part]))
        pairs[part] = [(image.tobytes(), order[label]) for image, label in zip(out, labels, strict=True)]
        if fault and part == parts[-1]:
            images, saved = spoiled(draw, fault, images, saved, is_numbers=not is_named and saved.ndim == 1)
        arrays |= dict(zip(keys, (images, saved), strict=True))
    if class_names:
        listed = [*names, "more"] if fault == "a name too many" else names
        listed = [names[0], *names[:-1]] if fault == "a name twice" else listed
        array = np.array(listed) if class_names == "text" else np.array([name.encode() for name in listed])
        arrays[pick("class_names", "classNames", "label_names")] = array
    if fault == "two of a kind":
        arrays[pick("IMAGE", "train_img", "trainX")] = images
        arrays[pick("pixels", "X-train", "traindata")] = images
    if fault == "no labels":
        arrays = {key: array for key, array in arrays.items() if array is not saved}
    if fault == "no training images":
        arrays = {f"test_{key}" if key in ("images", "labels") else key: array for key, array in arrays.items()}
        for key in [key for keys in KEYS["train"] for key in keys]:
            arrays.pop(key, None)
    for name in draw(st.lists(st.sampled_from(EXTRAS), max_size=3, unique=True)):
        arrays[name] = pick(np.zeros((2, 3)), np.array([None, "x"]), np.array("text"), np.array(["a"]))
        notes.append("left out: array")
    shuffled = {key: arrays[key] for key in draw(st.permutations(sorted(arrays)))}
    return Drawn(shuffled, pairs, fault is not None, tuple(notes))


def spoiled(draw, fault, images, labels, *, is_numbers):
    """Images and labels of which something is wrong."""
    numbers = labels if is_numbers else np.arange(len(labels)) % 2
    if fault == "another length":
        return images, labels[:-1]
    if fault == "labels from 1":
        return images, numbers + 1 if numbers.max() else numbers + 5
    if fault == "labels with a gap":
        return images, (numbers.astype(np.int64) + 1) * 10
    if fault == "half a label":
        return images, numbers + 0.5
    if fault == "no or several labels":
        rows = np.eye(3, dtype=int)[np.arange(len(labels)) % 3]
        rows[draw(st.integers(0, len(rows) - 1))] = draw(st.sampled_from([[0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 2, 0]]))
        return images, rows
    if fault == "a label that training lacks":
        return images, numbers.astype(np.int64) + draw(st.sampled_from([-1, 3, 100]))
    if fault == "objects":
        return (images.astype(object), labels) if draw(st.booleans()) else (images, labels.astype(object))
    if fault == "NaN":
        wrong = images.astype(np.float32)
        wrong[draw(st.integers(0, len(wrong) - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        return wrong, labels
    if fault == "not square":
        return np.concatenate([images, images], axis=1), labels
    if fault == "more than bytes":
        return images.astype(np.int64) + draw(st.sampled_from([-300, 300, 70_000])), labels
    if fault == "one class":
        return images, np.full_like(numbers, 7)
    return images, labels


def load(path):
    """What is read, or the one line that says why nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of damaged headers
        try:
            return load_dataset(f"npz:{path}", seed=0)
        except ValueError as error:
            message = str(error)
    assert len(message.encode().splitlines()) == 1
    return message


def found(splits, *parts):
    """Values and classes of all images of some parts."""
    names = splits.class_names or [str(label) for label in range(splits.classes)]
    return sorted(
        (image.tobytes(), names[label])
        for part in parts
        for image, label in zip(np.asarray(part.images), np.asarray(part.labels), strict=True)
    )


def check(splits, pairs):
    own_test = "test" if "test" in pairs else "val"
    rest = [splits.train, splits.validation, splits.calibration]
    if own_test in pairs:
        assert found(splits, splits.test) == sorted(pairs[own_test])
    else:
        rest.append(splits.test)
    assert found(splits, *rest) == sorted(pair for part in pairs if part != own_test for pair in pairs[part])
    if own_test == "test" and "val" in pairs:
        assert found(splits, splits.train) == sorted(pairs["train"])


FUZZ = settings(
    max_examples=DRAWS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.slow
@FUZZ
@given(archives())
def test_arrays_are_taken_for_what_they_are(drawn):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.npz"
        np.savez(path, **drawn.arrays)
        splits = load(path)
    event("refused" if isinstance(splits, str) else "read")
    assert isinstance(splits, str) == drawn.is_refused, splits
    if not isinstance(splits, str):
        check(splits, drawn.pairs)
        summary = splits.summary()
        assert len(summary.splitlines()) == 1
        assert all(note in summary for note in drawn.notes)


@st.composite
def damages(draw):
    """A file that is cut, overwritten or longer than it should be, and what was in it."""
    count = 24
    labels = np.arange(count) % 2
    images = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (count, 2, 2)).astype(np.uint8)
    arrays = {"images": images, "labels": labels, "class_names": np.array(["a", "b"])}
    file = io.BytesIO()
    draw(st.sampled_from([np.savez, np.savez_compressed]))(file, **arrays)
    content = bytearray(file.getvalue())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["flip", "overwrite", "cut", "insert", "remove"]))
        if kind == "flip":
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "overwrite":
            new = draw(st.binary(min_size=1, max_size=8))
            content[start : start + len(new)] = new
        elif kind == "cut":
            del content[max(start, 1) :]
        elif kind == "insert":
            content[start:start] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[start : start + draw(st.integers(1, 8))]
        content = content or bytearray(b"x")
    pairs = [(image[..., None].tobytes(), "ab"[label]) for image, label in zip(images, labels, strict=True)]
    return bytes(content), pairs


@pytest.mark.slow
@FUZZ
@given(damages())
def test_damaged_files_are_refused_or_read_as_if_nothing_had_happened(drawn):
    content, pairs = drawn
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "data.npz"
        path.write_bytes(content)
        splits = load(path)
    event("refused" if isinstance(splits, str) else "read")
    if not isinstance(splits, str):
        names = splits.class_names or "ab"  # the name of the array of names may be what is damaged
        assert tuple(names) == ("a", "b")
        parts = (splits.train, splits.validation, splits.calibration, splits.test)
        read = [(image, names["01ab".index(label) % 2]) for image, label in found(splits, *parts)]
        assert sorted(read) == sorted(pairs)
