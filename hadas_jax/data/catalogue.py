"""Data sets by name: what is bundled with the dependencies, prepared sets, and the user's own files."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from hadas_jax.data.arrays import Normalisation, check_arrays
from hadas_jax.data.folder import open_folder
from hadas_jax.data.npz import load_npz
from hadas_jax.data.record import TRAINING, SplitRecord
from hadas_jax.data.splits import Options, Splits, assemble, split_arrays
from hadas_jax.data.tfds import PREFIX, SHORT_NAMES, open_prepared
from hadas_jax.settings import DataSettings, expand_home

IMAGENET_NORMALISATION: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, by which most published weights standardise images."""

_NPZ = "npz:"
_FOLDER = "folder:"


def dataset_names() -> tuple[str, ...]:
    """Returns what `load_dataset` takes."""
    return ("digits", *SHORT_NAMES, f"{PREFIX}NAME", f"{_FOLDER}DIR", f"{_NPZ}FILE")


def load_dataset(
    name: str,
    *,
    seed: int,
    stream_seed: int | None = None,
    data_dir: Path | str | None = None,
    image_size: int | None = None,
    normalisation: Normalisation | None = None,
    in_memory_bytes: int = 2**31,
    evaluation_images: int | None = None,
    skip_unreadable: bool = False,
) -> Splits:
    """Loads and splits a data set. Nothing is downloaded.

    A test set of the data set's own is the test part, and validation images of its own are halved into validation and
    calibration. Parts that it lacks are cut off the training images, by class: 15 % for each, of validation and
    calibration at most 5,000, of test at most 10,000. The parts follow from the images and the seed alone, and the
    splits carry a record of both (`SplitRecord`). Files and prepared sets whose training images need more than
    `in_memory_bytes` become a stream; then at most 10,000 test images are used.

    Args:
        name: One of `digits`: 1,797 handwritten digits of 8x8 pixels, from scikit-learn; `npz:FILE`: arrays `images`
            [N, H, W] or [N, H, W, channels], uint8 or floating, and `labels` [N]; maybe `val_images`, `val_labels`,
            `test_images`, `test_labels` and `class_names`, all in other usual forms too; `folder:DIR`: image files in
            one folder for each class, or in such folders inside `train`, `val` and `test`; `cifar10`, `cifar100`,
            `fashion_mnist`, `mnist`, `imagenet2012`, `tfds:NAME`: sets that tensorflow-datasets has prepared
            (`prepare_dataset`).
        seed: Random seed of the division.
        stream_seed: Random seed of the order and the samples of a stream; that of the division where None.
        data_dir: Where the prepared copy is; tensorflow-datasets' own place where None.
        image_size: Height and width that images are brought to, by resizing the short side and cropping the middle.
        normalisation: Mean and standard deviation of every channel in 0 .. 1; those of the training images where None.
        in_memory_bytes: The most bytes of training images that are held in memory.
        evaluation_images: The most images of validation, calibration and test each, chosen of these parts; training
            images stay the same.
        skip_unreadable: Whether files and records that cannot be read as images are left out before the data set is cut
            into parts, instead of refused. Of a stream's images, files whose headers cannot be read are left out.

    Raises:
        ValueError: An unknown name, or data that is not there or not as it is expected.
    """
    for what, given in (("image size", image_size), ("evaluation images", evaluation_images)):
        if given is not None and given < 1:
            raise ValueError(f"{what}: expected at least 1, got {given}")
    name = expand_home(name)
    options = Options(seed, evaluation_images, normalisation)
    if name == "digits":
        digits = load_digits()
        arrays = check_arrays(np.asarray(digits.images, np.float32) / 16, digits.target, source=name)
        if image_size not in (None, arrays[0].shape[1]):
            raise ValueError(f"{name}: image size: expected {arrays[0].shape[1]}, got {image_size}")
        return split_arrays({TRAINING: arrays}, options, name=name)
    if name.startswith(_NPZ):
        return load_npz(Path(name.removeprefix(_NPZ)), options, image_size=image_size)
    if name.startswith(_FOLDER):
        sources = open_folder(Path(name.removeprefix(_FOLDER)), skip_unreadable=skip_unreadable)
    elif name.startswith(PREFIX) or name in SHORT_NAMES:
        sources = open_prepared(name.removeprefix(PREFIX), None if data_dir is None else Path(data_dir))
    else:
        raise ValueError(f"unknown dataset {name!r}: expected one of {', '.join(dataset_names())}")
    return assemble(
        sources,
        options,
        stream_seed=seed if stream_seed is None else stream_seed,
        image_size=image_size,
        in_memory_bytes=in_memory_bytes,
        skip_unreadable=skip_unreadable,
    )


def load(settings: DataSettings, *, stream_seed: int, record: SplitRecord | None = None) -> Splits:
    """Loads the data of a run.

    Args:
        settings: Settings of the data.
        stream_seed: Seed of the order of a stream.
        record: Record of the images that something was made of; its seed divides them.

    Raises:
        ValueError: As `load_dataset`.
    """
    return load_dataset(
        settings.dataset,
        seed=(settings.split_seed or 0) if record is None else record.seed,
        stream_seed=stream_seed,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        evaluation_images=settings.evaluation_images,
        skip_unreadable=settings.skip_unreadable,
    )
