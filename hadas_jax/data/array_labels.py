"""Labels as they are saved beside arrays of images: numbers, names, columns or one-hot rows.

Shapes: N images, K classes.
"""

from collections.abc import Mapping

import numpy as np

from hadas_jax.data.notes import counted, shown, some

_LARGEST_WHOLE = 2.0**53  # up to which floating values tell whole numbers apart


def numbered_labels(
    stored: Mapping[str, np.ndarray], class_names: np.ndarray | None, *, where: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Returns labels of every part as integers [N], and the names of the classes where there are some.

    Where labels are names, classes are numbered in the order of `class_names`, or by name.

    Args:
      stored: labels of train, and of other parts, as `one_label_each` takes them.
      class_names: strings or UTF-8 bytes [K], or None.
      where: names parts in errors.

    Raises:
      ValueError: what is no single label for each image, or names that do not fit.
    """
    source = where["train"]
    names = None if class_names is None else _class_names(class_names, source)
    labels = {part: one_label_each(array, source=where[part]) for part, array in stored.items()}
    occurring = sorted(set(labels["train"].tolist()))
    widths = {array.shape[1] for array in stored.values() if is_one_hot(array)}
    if widths - {len(occurring)}:
        got = f"{len(occurring)} classes and rows of {some(sorted(widths))}"
        raise ValueError(f"{source}: labels: expected training images of every class of one-hot rows, got {got}")
    kinds = {array.dtype.kind == "U" for array in labels.values()}
    if kinds == {False}:
        return labels, names
    if len(kinds) > 1:
        raise ValueError(f"{source}: labels: expected names in all parts or numbers in all parts, got both")
    names = names or tuple(occurring)
    absent = [name for name in names if name not in occurring]
    if absent:
        raise ValueError(f"{source}: class_names: expected names that are labels of images, got {some(absent)}")
    return {part: _numbered(array, names, where[part]) for part, array in labels.items()}, names


def one_label_each(labels: np.ndarray, *, source: str) -> np.ndarray:
    """Returns integers or names [N].

    Args:
      labels: [N] or [N, 1], whole numbers, True and False, or names; or one-hot rows [N, K].
      source: named in errors.

    Raises:
      ValueError: rows of several or no classes, numbers that are not whole, names that are no UTF-8 or empty, or
        values of another type.
    """
    if is_one_hot(labels):
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


def is_one_hot(labels: np.ndarray) -> bool:
    """Returns whether labels are rows of several numbers, as one-hot labels are."""
    return labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf"


def _of_rows(labels: np.ndarray, source: str) -> np.ndarray:
    where = f"{source}: labels: expected one class for each image, as [N] or as one-hot rows [N, K]"
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"{where}, got shape {labels.shape} with other values than 0 and 1")
    ones = labels.astype(np.int64).sum(1)
    wrong = np.flatnonzero(ones != 1)
    if wrong.size:
        raise ValueError(f"{where}, got row {wrong[0]} with {counted(int(ones[wrong[0]]), 'one')}; choose one label")
    return labels.argmax(1)


def _class_names(names: np.ndarray, source: str) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        got = f"shape {names.shape} of {names.dtype}"
        raise ValueError(f"{source}: class_names: expected strings, one for each class, got {got}")
    found = _texts(names, f"{source}: class_names")
    doubled = sorted({name for name in found if found.count(name) > 1})
    if doubled:
        raise ValueError(f"{source}: class_names: expected different names, got {some(doubled)} more than once")
    return tuple(found)


def _texts(names: np.ndarray, source: str) -> list[str]:
    """Strings or UTF-8 bytes [n] as strings."""
    try:
        found = [name.decode() if isinstance(name, bytes) else name for name in names.tolist()]
        for name in found:
            name.encode()
    except (ValueError, SystemError) as error:
        raise ValueError(f"{source}: expected names in UTF-8, got others") from error
    return found


def _numbered(labels: np.ndarray, names: tuple[str, ...], source: str) -> np.ndarray:
    places = {name: place for place, name in enumerate(names)}
    found = [places.get(label, -1) for label in labels.tolist()]
    if -1 in found:
        index = found.index(-1)
        got = f"{shown(labels[index])} at index {index}"
        raise ValueError(f"{source}: labels: expected {some(names, most=10)}, got {got}")
    return np.array(found, np.int64)
