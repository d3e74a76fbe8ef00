"""Image sets of tensorflow-datasets: prepared once with TensorFlow, then read from array_record files without it.

tensorflow-datasets is imported where it is used: it is slow to import, and most runs do not need it.
"""

import importlib.util
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data.images import ImageError, Source, decode, in_threads
from hadas_jax.data.notes import plural
from hadas_jax.data.splits import Sources, as_groups

SHORT_NAMES = ("cifar10", "cifar100", "fashion_mnist", "mnist", "imagenet2012")
PREFIX = "tfds:"
_MANUAL = {"imagenet2012": "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org"}
_HELD_OUT = ("validation", "val", "valid")


def open_prepared(name: str, data_dir: Path | None) -> Sources:
    """Finds a prepared image set with one label for each image.

    Its test images are the test set where they have labels; otherwise its validation images are.

    Args:
        name: Name of the set as tensorflow-datasets writes it, with `/config` and `:version` where wanted.
        data_dir: Where it was prepared; tensorflow-datasets' own place where None.

    Raises:
        ValueError: No such set, not prepared there, not as array_record files, or not images of 8 bits with labels.
    """
    builder = _builder(name, data_dir)
    info = builder.info
    image_key, label_key, shape, label = _features(info, name)
    if not info.splits:
        raise ValueError(
            f"dataset {name}: expected a prepared copy in {builder.data_dir}, got none; {_instructions(name, data_dir)}"
        )
    if not _is_random_access(builder):
        raise ValueError(
            f"dataset {name}: expected array_record files in {builder.data_dir}, got {info.file_format.value}; "
            f"{_instructions(name, Path('OTHER_DIR'))}"
        )
    channels = 1 if shape[2] == 1 else 3
    given = {
        part: _source(builder, name, part, image_key=image_key, label_key=label_key, channels=channels)
        for part in ("train", "test", *_HELD_OUT)
        if part in info.splits
    }
    if "train" not in given:
        raise ValueError(f"dataset {name}: expected training images, got {', '.join(info.splits)} alone")
    parts, held_out = {"train": given["train"]}, [given[part] for part in _HELD_OUT if part in given]
    if held_out:
        parts["val"] = held_out[0]
    notes: tuple[str, ...] = ()
    if "test" in given and _is_labelled(given["test"]):
        parts["test"] = given["test"]
    elif "test" in given:
        notes = (f"left out: {plural(len(given['test']), 'image')} of test, which have no labels",)
    size = shape[0] if shape[0] == shape[1] else None
    names = tuple(label.names) if label.names else None
    return Sources(name, as_groups(parts), size, label.num_classes, names, notes=notes)


def prepare_dataset(name: str, data_dir: Path | str | None = None) -> Path:
    """Downloads an image set and writes it in the form that `load_dataset` reads.

    A set that is prepared there already is left as it is.

    Args:
        name: `cifar10`, `cifar100`, `fashion_mnist`, `mnist`, `imagenet2012` (whose two archives are fetched by hand
            first), or `tfds:NAME` for any other of tensorflow-datasets'.
        data_dir: Where to; tensorflow-datasets' own place, `~/tensorflow_datasets`, where None.

    Returns:
        The folder of the prepared set.

    Raises:
        ValueError: An unknown name, TensorFlow is not installed, files are missing, or the download fails.
    """
    import tensorflow_datasets as tfds

    set_name = name.removeprefix(PREFIX)
    if name not in SHORT_NAMES and not name.startswith(PREFIX):
        raise ValueError(f"dataset {name!r}: expected one of {', '.join(SHORT_NAMES)}, {PREFIX}NAME to prepare")
    folder = None if data_dir is None else Path(data_dir)
    builder = _builder(set_name, folder)
    if builder.info.splits:
        if _is_random_access(builder):
            return Path(builder.data_dir)
        raise ValueError(
            f"dataset {set_name}: is in {builder.data_dir} as {builder.info.file_format.value} files, expected "
            "array_record: give another folder"
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"dataset {set_name}: preparing it needs TensorFlow once, got none; {_instructions(set_name, folder)}"
        )
    if set_name in _MANUAL and not any(_manual_folder(folder).glob("*.tar")):
        raise ValueError(
            f"dataset {set_name}: expected {_MANUAL[set_name]}, in {_manual_folder(folder)}, got none there"
        )
    builder = _builder(set_name, folder, file_format="array_record")
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except Exception as error:  # whatever a set's own script and its server come up with
        raise ValueError(f"dataset {set_name}: could not be prepared: {_first_line(error)}") from error
    return Path(builder.data_dir)


def _source(builder: Any, set_name: str, part: str, *, image_key: str, label_key: str, channels: int) -> Source:
    """A part of a prepared set, whose images stay as they are stored until they are read."""
    import tensorflow_datasets as tfds

    split = builder.info.splits[part]
    missing = [path for path in split.filepaths if not Path(path).exists()]
    if missing:
        raise ValueError(f"dataset {set_name}: expected the file {missing[0]}, got none at this path")
    decoders = {image_key: tfds.decode.SkipDecoding()}
    records = builder.as_data_source(split=part, decoders=decoders, file_format="array_record")
    name, full_name, size = f"{set_name} {part}", f"{builder.info.full_name} {part}", split.num_bytes

    def record(row: int) -> Any:
        try:
            values = records[row]
        except (RuntimeError, ValueError, IndexError) as error:  # of a damaged file
            raise ImageError(f"{name} image {row}") from error
        if not isinstance(values[image_key], bytes):  # a damaged file may also give empty records
            raise ImageError(f"{name} image {row}")
        return values

    def read(row: int) -> tuple[np.ndarray, int]:
        values = record(row)
        return decode(values[image_key], channels=channels, name=f"{name} image {row}"), int(values[label_key])

    def label(row: int) -> int:
        try:
            return int(record(row)[label_key])
        except ImageError:
            return -1

    def read_labels() -> np.ndarray | None:
        is_small = source.fingerprint_of == "contents"
        return np.array(in_threads(label, range(len(records))), np.int32) if is_small else None

    source = Source(
        name=name,
        channels=channels,
        stored_bytes=size,
        rows=np.arange(len(records)),
        read=read,
        content=lambda row: record(row)[image_key],
        name_and_size=lambda row: f"{full_name} {row} of {len(records)} {size}".encode(),
        read_labels=read_labels,
    )
    return source


def _is_labelled(source: Source) -> bool:
    """Whether the first image that can be read has a label."""
    for row in range(len(source)):
        try:
            return source[row][1] >= 0
        except ImageError:
            continue
    return True


def _builder(name: str, data_dir: Path | None, **arguments: Any) -> Any:
    """Returns tensorflow-datasets' builder of a set, from prepared files of any version where there are some.

    Nothing is downloaded. Files alone are enough to read a set: the code that prepares it may need TensorFlow.

    Args:
        name: Name of the set.
        data_dir: Where it is or will be prepared.
        arguments: Arguments of the builder.

    Raises:
        ValueError: tensorflow-datasets does not know the name, or cannot read what is there.
    """
    import tensorflow_datasets as tfds

    try:
        folder = None if data_dir is None else str(data_dir.expanduser())
        parsed, details = tfds.core.naming.parse_builder_name_kwargs(name, data_dir=folder)
        if parsed.namespace:
            raise ValueError("names of other collections need a network")
        try:
            return tfds.core.read_only_builder.builder_from_files(str(parsed), **details)
        except tfds.core.DatasetNotFoundError:
            return tfds.builder(name, data_dir=folder, try_gcs=False, **arguments)
    except ImportError as error:
        missing = f"a prepared copy or the package {error.name}, which describing it needs"
        raise ValueError(f"dataset {name}: expected {missing}, got neither; {_instructions(name, data_dir)}") from error
    except Exception as error:  # unknown names, sets that need what is not installed, damaged descriptions
        raise ValueError(
            f"dataset {name}: expected one that tensorflow-datasets can open, got: {_first_line(error)}"
        ) from error


def _instructions(name: str, data_dir: Path | None) -> str:
    """Returns what to run to prepare a set, and what to fetch by hand first."""
    manual = f"put {_MANUAL[name]}, into {_manual_folder(data_dir)} and " if name in _MANUAL else ""
    full_name = name if name in SHORT_NAMES else f"{PREFIX}{name}"
    folder = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"{manual}run: pip install 'hadas-jax[tfds]' && hadas data prepare {shlex.quote(full_name)}{folder}"


def _manual_folder(data_dir: Path | None) -> Path:
    """Returns where tensorflow-datasets looks for files that are fetched by hand."""
    import tensorflow_datasets as tfds

    return (data_dir or Path(tfds.core.constants.DATA_DIR)) / "downloads" / "manual"


def _is_random_access(builder: Any) -> bool:
    """Returns whether a prepared set has files in array_record form."""
    import tensorflow_datasets as tfds

    return tfds.core.FileFormat.ARRAY_RECORD in builder.info.available_file_formats()


def _first_line(error: Exception) -> str:
    """Returns the first line of an error's message that has text, without a final full stop."""
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _features(info: Any, name: str) -> tuple[str, str, tuple[int | None, int | None, int | None], Any]:
    """Keys of image and label, the images' shape, and the feature of the label."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys
    is_pair = info.features is not None and keys is not None and len(keys) == 2
    image, label = (info.features[key] for key in keys) if is_pair else (None, None)
    if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
        if image.np_dtype == np.uint8:
            return keys[0], keys[1], image.shape, label
        raise ValueError(f"dataset {name}: expected images of 8 bits, got {image.np_dtype.__name__}")
    got = " and ".join(type(x).__name__ for x in (image, label) if x is not None) or "no such pair"
    raise ValueError(f"dataset {name}: expected images with one class each, got {got}")
