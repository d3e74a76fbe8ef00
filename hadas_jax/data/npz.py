"""The user's arrays in one npz file."""

from pathlib import Path

import numpy as np

from hadas_jax.data.arrays import Splits, check_arrays
from hadas_jax.data.images import fit
from hadas_jax.data.splitting import TEST, TRAIN, Normalisation, identity_of_arrays, split

_KEYS = ("images", "labels", "test_images", "test_labels", "class_names")


def load_npz(
    path: Path,
    *,
    seed: int,
    image_size: int | None,
    normalisation: Normalisation | None,
    evaluation_images: int | None,
) -> Splits:
    """Returns the splits of a file with `images` and `labels`, and maybe a test set and names of the classes.

    Raises:
      ValueError: no such file, or it does not hold such arrays.
    """
    found = _read(path)
    source = str(path)
    images, labels = check_arrays(found["images"], found["labels"], source=source)
    classes = int(labels.max()) + 1
    test = None
    if "test_images" in found:
        test = check_arrays(found["test_images"], found["test_labels"], source=f"{source}: test set", classes=classes)
        if (test[0].shape[1:], test[0].dtype) != (images.shape[1:], images.dtype):
            raise ValueError(
                f"{source}: test images: expected {images.dtype} {images.shape[1:]} as the others, "
                f"got {test[0].dtype} {test[0].shape[1:]}"
            )
    names = _class_names(found.get("class_names"), classes, source)
    stored = {TRAIN: images} | ({} if test is None else {TEST: test[0]})
    identity = identity_of_arrays(stored)
    if image_size is not None and image_size != images.shape[1]:
        images = _resized(images, image_size, source)
        test = test and (_resized(test[0], image_size, source), test[1])
    return split(
        images,
        labels,
        seed=seed,
        source=source,
        test=test,
        evaluation_images=evaluation_images,
        normalisation=normalisation,
        class_names=names,
        identity=identity,
    )


def _resized(images: np.ndarray, size: int, source: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        got = f"{images.dtype} and {images.shape[3]} channels"
        raise ValueError(f"{source}: image size: expected uint8 images of 1 or 3 channels to resize, got {got}")
    return np.stack([fit(image, size) for image in images])


def _class_names(names: np.ndarray | None, classes: int, source: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if names.shape != (classes,) or names.dtype.kind != "U":
        got = f"shape {names.shape} of {names.dtype}"
        raise ValueError(f"{source}: class_names: expected {classes} strings, one for each class, got {got}")
    return tuple(str(name) for name in names)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"dataset file {path}: expected an npz file, got none at this path")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("not an archive")
            listed = arrays.files
            found = {key: arrays[key] for key in listed if key in _KEYS}
    except Exception as error:  # numpy and zipfile raise whatever the damage causes
        raise ValueError(f"dataset file {path}: expected an npz file of plain arrays, cannot read it") from error
    if not {"images", "labels"} <= set(found):
        raise ValueError(f"dataset file {path}: expected the arrays images and labels, got {', '.join(listed)}")
    if ("test_images" in found) != ("test_labels" in found):
        raise ValueError(f"dataset file {path}: expected both test_images and test_labels, got {', '.join(listed)}")
    return found
