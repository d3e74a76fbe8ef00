"""The user's arrays in one npz file.

Shapes: N images, H, W height and width, C channels, K classes.
"""

from pathlib import Path

import numpy as np

from hadas_jax.data.archive import Stored, load_arrays, stored_arrays
from hadas_jax.data.array_labels import is_one_hot, numbered_labels
from hadas_jax.data.array_names import CLASS_NAMES, Role, find_roles, renaming_notes
from hadas_jax.data.arrays import Splits, check_arrays
from hadas_jax.data.images import fit
from hadas_jax.data.notes import shown, some
from hadas_jax.data.splitting import HELD_OUT, TEST, TRAIN, Normalisation, identity_of_arrays, split

_CHANNELS_FIRST = (1, 3)  # C of arrays [N, C, H, W]
_CALLED = {"train": "", "val": ": validation set", "test": ": test set"}

Pair = tuple[np.ndarray, np.ndarray]


def load_npz(
    path: Path,
    *,
    seed: int,
    image_size: int | None,
    normalisation: Normalisation | None,
    evaluation_images: int | None,
) -> Splits:
    """Returns the splits of a file with images and labels, and maybe validation and test sets and names of the classes.

    Arrays may have any of the usual names (`array_names`). Where there is no test set, the validation set is.

    Raises:
      ValueError: no such file, or it does not hold such arrays.
    """
    source = shown(path)
    stored = stored_arrays(path)
    roles = find_roles(stored, source=f"dataset file {source}")
    _check_types({role: stored[name] for role, name in roles.items()}, roles, source)
    arrays = load_arrays(path, roles.values())
    found = {role: arrays[name] for role, name in roles.items()}
    notes = [*renaming_notes(roles), *_left_out(stored, roles)]
    pairs, names = _pairs(found, notes, source)
    has_test = "test" in pairs
    groups = {TRAIN: "train", HELD_OUT: "val" if has_test else None, TEST: "test" if has_test else "val"}
    identity = identity_of_arrays({group: pairs[part][0] for group, part in groups.items() if part in pairs})
    if image_size is not None and image_size != pairs["train"][0].shape[1]:
        pairs = {part: (_resized(images, image_size, source), labels) for part, (images, labels) in pairs.items()}
    images, labels = pairs["train"]
    return split(
        images,
        labels,
        seed=seed,
        source=source,
        held_out=pairs.get("val") if has_test else None,
        test=pairs.get("test" if has_test else "val"),
        evaluation_images=evaluation_images,
        normalisation=normalisation,
        class_names=names,
        identity=identity,
        notes=tuple(notes),
    )


def _check_types(stored: dict[Role, Stored | None], roles: dict[Role, str], source: str) -> None:
    for role, found in stored.items():
        if found is not None and found.dtype.hasobject:
            name = shown(roles[role])
            numbers = "" if role == CLASS_NAMES else f"as an array of numbers{' or ' if role.kind == 'labels' else ''}"
            texts = "" if role.kind == "images" else f"as np.array({name}, dtype=str)"
            raise ValueError(
                f"{source}: {name}: expected plain values, got Python objects, which are not read because they may run "
                f"programs; save it {numbers}{texts}"
            )


def _left_out(stored: dict[str, Stored | None], roles: dict[Role, str]) -> list[str]:
    others = [name for name in stored if name not in roles.values()]
    found = [name if (kind := stored[name]) is None else f"{name} of shape {kind.shape}" for name in others]
    return [f"left out: array{'s' if len(found) > 1 else ''} {some(found)}"] if found else []


def _pairs(
    found: dict[Role, np.ndarray], notes: list[str], source: str
) -> tuple[dict[str, Pair], tuple[str, ...] | None]:
    """Images and labels of each part, in the form that all data sets have, and names of the classes."""
    where = {part: source + called for part, called in _CALLED.items() if Role(part, "images") in found}
    images = {part: _as_images(found[Role(part, "images")], notes, where[part]) for part in where}
    stored = {part: found[Role(part, "labels")] for part in where}
    labels, names = numbered_labels(stored, found.get(CLASS_NAMES), where=where)
    if any(is_one_hot(array) for array in stored.values()):
        _note(notes, "labels are one-hot rows")
    pairs: dict[str, Pair] = {}
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
        _note(notes, f"images of {images.dtype} are taken as bytes")
        images = images.astype(np.uint8)
    if images.ndim == 4 and images.shape[1] in _CHANNELS_FIRST and images.shape[1] < images.shape[2] == images.shape[3]:
        _note(notes, "images are stored with channels first")
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    return images


def _note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _resized(images: np.ndarray, size: int, source: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        got = f"{images.dtype} and {images.shape[3]} channels"
        raise ValueError(f"{source}: image size: expected uint8 images of 1 or 3 channels to resize, got {got}")
    return np.stack([fit(image, size) for image in images])
