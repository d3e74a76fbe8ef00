"""The user's arrays in one npz file.

Which array is which follows from its name, in any of the usual spellings: images, train_images, x_train, X, testLabels,
val_y, data, target, ... Labels are numbers, names, columns or one-hot rows. Nothing in a file is ever run: Python
objects are refused.

Shapes: N images, H, W height and width, C channels, K classes.
"""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hadas_jax.data.arrays import check_arrays
from hadas_jax.data.notes import PART_WORDS, first_few, letters, one_line, plural
from hadas_jax.data.splits import Options, Splits, as_groups, split_arrays

_CHANNELS_FIRST = (1, 3)  # C of arrays [N, C, H, W]
_SUFFIXES = {"train": "", "val": ": validation set", "test": ": test set"}
_Pair = tuple[np.ndarray, np.ndarray]
_LARGEST_WHOLE = 2.0**53  # up to which floating values tell whole numbers apart
_ENDING = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _Stored(NamedTuple):
    """Shape and type of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


class _Role(NamedTuple):
    """What an array is for: images or labels of train, val or test, or the names of the classes."""

    part: str
    kind: str


_CLASS_NAMES = _Role("", "class_names")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "images": ("images", "image", "imgs", "img", "x", "xs", "data", "pixels"),
    "labels": ("labels", "label", "y", "ys", "target", "targets"),
}
_ROLES = {
    letters(spelled): _Role(part, kind)
    for kind, words in _KINDS.items()
    for word in words
    for part, part_words in PART_WORDS.items()
    for part_word in part_words
    for spelled in (*((word,) if part == "train" else ()), part_word + word, word + part_word)
} | dict.fromkeys(("classnames", "labelnames", "targetnames"), _CLASS_NAMES)
_PLAIN = frozenset(f"{part}{kind}" for part in ("", "train_", "val_", "test_") for kind in ("images", "labels"))


def load_npz(path: Path, options: Options, *, image_size: int | None) -> Splits:
    """Returns the splits of a file with images and labels, and maybe validation and test sets and names of the classes.

    Where there is no test set, the validation set is the test set.

    Raises:
        ValueError: No such file, or it does not hold such arrays.
    """
    source = one_line(path)
    stored = _stored_arrays(path)
    roles = _find_roles(stored, source=f"dataset file {source}")
    for role, name in roles.items():
        array = stored[name]
        if array is not None and array.dtype.hasobject:
            numbers = "" if role == _CLASS_NAMES else f"as an array of numbers{' or ' if role.kind == 'labels' else ''}"
            texts = "" if role.kind == "images" else f"as np.array({one_line(name)}, dtype=str)"
            raise ValueError(
                f"{source}: {one_line(name)}: expected plain values, got Python objects, which are not read because "
                f"they may run programs; save it {numbers}{texts}"
            )
    arrays = _load_arrays(path, roles.values())
    notes = []
    for part, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        pair = [name for role, name in roles.items() if role.part == part]
        if not _PLAIN.issuperset(pair):
            notes.append(f"{word} images and labels are {first_few(sorted(pair))}")
    others = [(name, array) for name, array in stored.items() if name not in roles.values()]
    if others:
        listed = first_few(name if array is None else f"{name} of shape {array.shape}" for name, array in others)
        notes.append(f"left out: array{'s' if len(others) > 1 else ''} {listed}")
    pairs, names = _pairs({role: arrays[name] for role, name in roles.items()}, notes, source)
    return split_arrays(
        as_groups(pairs),
        options,
        name=source,
        image_size=image_size,
        class_names=names,
        notes=tuple(dict.fromkeys(notes)),  # parts may have the same
    )


def _pairs(
    arrays: dict[_Role, np.ndarray], notes: list[str], source: str
) -> tuple[dict[str, _Pair], tuple[str, ...] | None]:
    """Images and labels of each part, in the form that all data sets have, and names of the classes."""
    where = {part: source + suffix for part, suffix in _SUFFIXES.items() if _Role(part, "images") in arrays}
    images = {part: _as_images(arrays[_Role(part, "images")], notes, where[part]) for part in where}
    stored = {part: arrays[_Role(part, "labels")] for part in where}
    labels, names = _numbered_labels(stored, arrays.get(_CLASS_NAMES), where=where)
    if any(_is_one_hot(array) for array in stored.values()):
        notes.append("labels are one-hot rows")
    pairs: dict[str, _Pair] = {}
    classes = None
    for part in where:
        pairs[part] = check_arrays(images[part], labels[part], source=where[part], classes=classes)
        classes = classes or int(pairs[part][1].max()) + 1
        first, other = pairs["train"][0], pairs[part][0]
        if (other.shape[1:], other.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(
                f"{where[part]}: images: expected {first.dtype} {first.shape[1:]} as the others, "
                f"got {other.dtype} {other.shape[1:]}"
            )
    if names is not None and len(names) != classes:
        raise ValueError(f"{source}: class_names: expected {classes} names, one for each class, got {len(names)}")
    return pairs, names


def _as_images(images: np.ndarray, notes: list[str], source: str) -> np.ndarray:
    """Bytes that were saved as other integers as bytes, and channels behind the pixels where they come first."""
    if images.dtype.kind in "iu" and images.dtype != np.uint8 and images.size:
        low, high = images.min(), images.max()
        if low < 0 or high > 255:
            got = f"{images.dtype} from {low} to {high}; scale them to floating values from 0 to 1"
            raise ValueError(f"{source}: images: expected bytes, 0 .. 255, or floating values, got {got}")
        notes.append(f"images of {images.dtype} are taken as bytes")
        images = images.astype(np.uint8)
    if images.ndim == 4 and images.shape[1] in _CHANNELS_FIRST and images.shape[1] < images.shape[2] == images.shape[3]:
        notes.append("images are stored with channels first")
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    return images


def _find_roles(names: Iterable[str], *, source: str) -> dict[_Role, str]:
    """Returns the name of the array for each role.

    Args:
        names: Names of all arrays.
        source: Name of the file, for errors.

    Raises:
        ValueError: Several arrays for one role, images without labels or the other way, or no training images.
    """
    listed = list(names)
    roles: dict[_Role, str] = {}
    for name in listed:
        role = _ROLES.get(letters(name))
        if role in roles:
            what = "names of classes" if role == _CLASS_NAMES else f"{role.part} {role.kind}"
            raise ValueError(
                f"{source}: expected one array of {what}, got {first_few((roles[role], name))}; leave one out"
            )
        if role is not None:
            roles[role] = name
    for part in PART_WORDS:
        pair = {"images", "labels"} & {role.kind for role in roles if role.part == part}
        prefix = "" if part == "train" else f"{part}_"
        if len(pair) == 1 or (part == "train" and not pair):
            wanted = f"the arrays {prefix}images and {prefix}labels"
            raise ValueError(f"{source}: expected {wanted}, got {first_few(listed, most=10) or 'none'}; rename them so")
    return roles


def _stored_arrays(path: Path) -> dict[str, _Stored | None]:
    """Returns what a file holds, by name; None for what is no array.

    Raises:
        ValueError: No file, no archive, or several arrays of one name.
    """
    if not path.is_file():
        raise ValueError(f"dataset file {one_line(path)}: expected an npz file, got none at this path")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            stored = {member.removesuffix(_ENDING): _stored(archive, member) for member in members}
    except Exception as error:  # zipfile raises whatever the damage causes
        raise _damaged(path) from error
    doubled = sorted({member for member in members if members.count(member) > 1})
    if doubled or len(stored) < len(members):
        raise ValueError(f"dataset file {one_line(path)}: expected one array of each name, got {first_few(members)}")
    return stored


def _load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns arrays of a file by their names.

    Raises:
        ValueError: An array is damaged.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            try:
                with archive.open(name + _ENDING) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
                    is_longer = bool(file.read(1))  # reading to the end also compares the checksum
            except Exception as error:  # numpy and zipfile raise whatever the damage causes
                raise _damaged(path, f" (array {one_line(name)})") from error
            if is_longer:
                raise _damaged(path, f" (array {one_line(name)} goes on behind its end)")
    return arrays


def _damaged(path: Path, what: str = "") -> ValueError:
    return ValueError(f"dataset file {one_line(path)}: expected an npz file of plain arrays, cannot read it{what}")


def _stored(archive: zipfile.ZipFile, member: str) -> _Stored | None:
    if not member.endswith(_ENDING):
        return None
    try:
        with archive.open(member) as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception:  # whoever needs the array will say so
        return None
    return _Stored(shape, dtype)


def _numbered_labels(
    stored: Mapping[str, np.ndarray], class_names: np.ndarray | None, *, where: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Returns labels of every part as integers [N], and the names of the classes where there are some.

    Where labels are names, classes are numbered in the order of `class_names`, or by name.

    Args:
        stored: Labels of train, and of other parts, as `_one_label_each` takes them.
        class_names: Strings or UTF-8 bytes [K], or None.
        where: Names of the parts, for errors.

    Raises:
        ValueError: What is no single label for each image, or names that do not fit.
    """
    source = where["train"]
    names = None if class_names is None else _class_names(class_names, source)
    labels = {part: _one_label_each(array, source=where[part]) for part, array in stored.items()}
    occurring = sorted(set(labels["train"].tolist()))
    widths = {array.shape[1] for array in stored.values() if _is_one_hot(array)}
    if widths - {len(occurring)}:
        got = f"{len(occurring)} classes and rows of {first_few(sorted(widths))}"
        raise ValueError(f"{source}: labels: expected training images of every class of one-hot rows, got {got}")
    kinds = {array.dtype.kind == "U" for array in labels.values()}
    if kinds == {False}:
        return labels, names
    if len(kinds) > 1:
        raise ValueError(f"{source}: labels: expected names in all parts or numbers in all parts, got both")
    names = names or tuple(occurring)
    absent = [name for name in names if name not in occurring]
    if absent:
        raise ValueError(f"{source}: class_names: expected names that are labels of images, got {first_few(absent)}")
    return {part: _numbered(array, names, where[part]) for part, array in labels.items()}, names


def _one_label_each(labels: np.ndarray, *, source: str) -> np.ndarray:
    """Returns integers or names [N].

    Args:
        labels: [N] or [N, 1], whole numbers, True and False, or names; or one-hot rows [N, K].
        source: Name of the part, for errors.

    Raises:
        ValueError: Rows of several or no classes, numbers that are not whole, names that are no UTF-8 or empty, or
            values of another type.
    """
    if _is_one_hot(labels):
        labels = _of_rows(labels, source)
    elif labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{source}: labels: expected one for each image, got shape {labels.shape}")
    if labels.dtype.kind in "US":
        names = _texts(labels, f"{source}: labels")
        if "" in names:
            raise ValueError(f"{source}: labels: expected a name for every image, got none at index {names.index('')}")
        return np.array(names, str)
    if labels.dtype.kind == "f":
        values = labels.astype(np.float64)
        wrong = np.flatnonzero(~((np.abs(values) < _LARGEST_WHOLE) & (values == np.round(values))))
        if wrong.size:
            got = f"{values[wrong[0]]} at index {wrong[0]}"
            raise ValueError(f"{source}: labels: expected whole numbers or names, got {got}")
        return values.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise ValueError(f"{source}: labels: expected whole numbers or names, got {labels.dtype}")
    return labels.astype(np.int64) if labels.dtype == bool else labels


def _is_one_hot(labels: np.ndarray) -> bool:
    """Returns whether labels are rows of several numbers, as one-hot labels are."""
    return labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf"


def _of_rows(labels: np.ndarray, source: str) -> np.ndarray:
    where = f"{source}: labels: expected one class for each image, as [N] or as one-hot rows [N, K]"
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{where}, got shape {labels.shape} with other values than 0 and 1")
    ones = labels.astype(np.int64).sum(1)
    wrong = np.flatnonzero(ones != 1)
    if wrong.size:
        raise ValueError(f"{where}, got row {wrong[0]} with {plural(int(ones[wrong[0]]), 'one')}; choose one label")
    return labels.argmax(1)


def _class_names(names: np.ndarray, source: str) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        got = f"shape {names.shape} of {names.dtype}"
        raise ValueError(f"{source}: class_names: expected strings, one for each class, got {got}")
    texts = _texts(names, f"{source}: class_names")
    doubled = sorted({name for name in texts if texts.count(name) > 1})
    if doubled:
        raise ValueError(f"{source}: class_names: expected different names, got {first_few(doubled)} more than once")
    return tuple(texts)


def _texts(names: np.ndarray, source: str) -> list[str]:
    """Strings or UTF-8 bytes [n] as strings."""
    try:
        texts = [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
        for name in texts:
            name.encode()
    except (ValueError, SystemError) as error:
        raise ValueError(f"{source}: expected names in UTF-8, got others") from error
    return texts


def _numbered(labels: np.ndarray, names: tuple[str, ...], source: str) -> np.ndarray:
    number_of = {name: number for number, name in enumerate(names)}
    numbers = [number_of.get(label, -1) for label in labels.tolist()]
    if -1 in numbers:
        index = numbers.index(-1)
        got = f"{one_line(labels[index])} at index {index}"
        raise ValueError(f"{source}: labels: expected {first_few(names, most=10)}, got {got}")
    return np.array(numbers, np.int64)
