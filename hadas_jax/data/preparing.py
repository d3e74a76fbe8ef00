"""Preparing an image set once, with tensorflow-datasets and TensorFlow."""

import importlib.util
from pathlib import Path

from hadas_jax.data.prepared import (
    MANUAL,
    PREFIX,
    SHORT_NAMES,
    first_line,
    how,
    is_random_access,
    make_builder,
    manual_folder,
)


def prepare_dataset(name: str, data_dir: Path | str | None = None) -> Path:
    """Downloads an image set and writes it in the form that `load_dataset` reads.

    A set that is prepared there already is left as it is.

    Args:
      name: `cifar10`, `cifar100`, `fashion_mnist`, `mnist`, `imagenet2012` (whose two archives are fetched by hand
        first), or `tfds:NAME` for any other of tensorflow-datasets'.
      data_dir: where to; tensorflow-datasets' own place, `~/tensorflow_datasets`, where None.

    Returns:
      The folder of the prepared set.

    Raises:
      ValueError: an unknown name, TensorFlow is not installed, files are missing, or the download fails.
    """
    known = name.removeprefix(PREFIX)
    if name not in SHORT_NAMES and not name.startswith(PREFIX):
        raise ValueError(f"dataset {name!r}: expected one of {', '.join(SHORT_NAMES)}, {PREFIX}NAME to prepare")
    place = None if data_dir is None else Path(data_dir)
    builder = make_builder(known, place)
    if builder.info.splits:
        if is_random_access(builder):
            return Path(builder.data_dir)
        raise ValueError(
            f"dataset {known}: is in {builder.data_dir} as {builder.info.file_format.value} files, expected "
            "array_record: give another folder"
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(f"dataset {known}: preparing it needs TensorFlow once, got none; {how(known, place)}")
    if known in MANUAL and not any(manual_folder(place).glob("*.tar")):
        raise ValueError(f"dataset {known}: expected {MANUAL[known]}, in {manual_folder(place)}, got none there")
    return _prepare(known, place)


def _prepare(name: str, data_dir: Path | None) -> Path:
    import tensorflow_datasets as tfds

    builder = make_builder(name, data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # whatever a set's own script and its server come up with
        raise ValueError(f"dataset {name}: could not be prepared: {first_line(error)}") from error
    return Path(builder.data_dir)
