"""Image sets that tensorflow-datasets has prepared, read from its array_record files without TensorFlow.

tensorflow-datasets is imported where it is used: it is slow to import, and most runs do not need it.

Preparing an image set once, with tensorflow-datasets and TensorFlow.
"""

import importlib.util
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data.images import (
    CONTENTS_BYTES,
    FingerprintOf,
    ImageError,
    Source,
    decode,
    in_threads,
    source_fingerprints,
)
from hadas_jax.data.notes import counted
from hadas_jax.data.splits import Sources

SHORT_NAMES = ("cifar10", "cifar100", "fashion_mnist", "mnist", "imagenet2012")
PREFIX = "tfds:"
MANUAL = {"imagenet2012": "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org"}
_HELD_OUT = ("validation", "val", "valid")


@dataclass(frozen=True)
class PreparedSource:
    """A part of a prepared set as tensorflow-datasets' own data source.

    Attributes:
        records: Of the images, in the form that they are stored in.
        image_key: Of a record's image.
        label_key: Of a record's label.
        channels: C.
        name: Of the part.
        full_name: Of the set, with configuration and version, and of the part.
        stored_bytes: Of all records together.
    """

    records: Any
    image_key: str
    label_key: str
    channels: int
    name: str
    full_name: str
    stored_bytes: int

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N], read from the records where they are not too many; -1 where a record cannot be read."""
        if self.fingerprint_of != "contents":
            return None

        def label(row: int) -> int:
            try:
                return int(self._record(row)[self.label_key])
            except ImageError:
                return -1

        return np.array(in_threads(label, range(len(self))), np.int32)

    def __len__(self) -> int:
        """Returns N."""
        return len(self.records)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Returns an image uint8[H, W, C] and its label."""
        record = self._record(row)
        pixels = decode(record[self.image_key], channels=self.channels, name=self._named(row))
        return pixels, int(record[self.label_key])

    @property
    def fingerprint_of(self) -> FingerprintOf:
        """The images as they are stored, or where they are too much to read, the part, its size and their numbers."""
        return "contents" if self.stored_bytes <= CONTENTS_BYTES else "names and sizes"

    def fingerprints(self, rows: np.ndarray | None = None, *, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[n] of the images at these rows, of all where None."""
        read = self._content if (of or self.fingerprint_of) == "contents" else self._name_and_size
        return source_fingerprints(read, np.arange(len(self)) if rows is None else rows, name=self.name)

    @property
    def is_labelled(self) -> bool:
        """Whether the first image that can be read has a label."""
        for row in range(len(self)):
            try:
                return int(self._record(row)[self.label_key]) >= 0
            except ImageError:
                continue
        return True

    def _named(self, row: int) -> str:
        return f"{self.name} image {row}"

    def _record(self, row: int) -> Any:
        try:
            record = self.records[row]
        except (RuntimeError, ValueError, IndexError) as error:  # of a damaged file
            raise ImageError(self._named(row)) from error
        if not isinstance(record[self.image_key], bytes):  # a damaged file may also give empty records
            raise ImageError(self._named(row))
        return record

    def _content(self, row: int) -> bytes:
        return self._record(row)[self.image_key]

    def _name_and_size(self, row: int) -> bytes:
        return f"{self.full_name} {row} of {len(self)} {self.stored_bytes}".encode()


def open_prepared(name: str, data_dir: Path | None) -> Sources:
    """Finds a prepared image set with one label for each image.

    Its test images are the test set where they have labels; otherwise its validation images are.

    Args:
        name: As tensorflow-datasets writes it, with `/config` and `:version` where wanted.
        data_dir: Where it was prepared; tensorflow-datasets' own place where None.

    Raises:
        ValueError: No such set, not prepared there, not as array_record files, or not images of 8 bits with labels.
    """
    builder = make_builder(name, data_dir)
    info = builder.info
    image_key, label_key, shape, label = _features(info, name)
    if not info.splits:
        raise ValueError(
            f"dataset {name}: expected a prepared copy in {builder.data_dir}, got none; {how(name, data_dir)}"
        )
    if not is_random_access(builder):
        raise ValueError(
            f"dataset {name}: expected array_record files in {builder.data_dir}, got {info.file_format.value}; "
            f"{how(name, Path('OTHER_DIR'))}"
        )
    channels = 1 if shape[2] == 1 else 3
    found = {
        part: PreparedSource(
            _records(builder, part, image_key, name),
            image_key,
            label_key,
            channels,
            f"{name} {part}",
            f"{info.full_name} {part}",
            info.splits[part].num_bytes,
        )
        for part in ("train", "test", *_HELD_OUT)
        if part in info.splits
    }
    if "train" not in found:
        raise ValueError(f"dataset {name}: expected training images, got {', '.join(info.splits)} alone")
    held_out: Source | None = next((found[part] for part in _HELD_OUT if part in found), None)
    notes: tuple[str, ...] = ()
    test = found.get("test")
    if test is not None and not test.is_labelled:
        notes = (f"left out: {counted(len(test), 'image')} of test, which have no labels",)
        test = None
    if test is None:
        held_out, test = None, held_out
    size = shape[0] if shape[0] is not None and shape[0] == shape[1] else None
    names = tuple(label.names) if label.names else None
    return Sources(name, found["train"], held_out, test, size, label.num_classes, names, notes=notes)


def make_builder(name: str, data_dir: Path | None, **arguments: Any) -> Any:
    """Returns tensorflow-datasets' builder of a set, from prepared files of any version where there are some.

    Nothing is downloaded. Files alone are enough to read a set: the code that prepares it may need TensorFlow.

    Args:
        name: Of the set.
        data_dir: Where it is or will be prepared.
        arguments: For the builder.

    Raises:
        ValueError: tensorflow-datasets does not know the name, or cannot read what is there.
    """
    import tensorflow_datasets as tfds

    try:
        place = None if data_dir is None else str(data_dir.expanduser())
        parsed, details = tfds.core.naming.parse_builder_name_kwargs(name, data_dir=place)
        if parsed.namespace:
            raise ValueError("names of other collections need a network")
        try:
            return tfds.core.read_only_builder.builder_from_files(str(parsed), **details)
        except tfds.core.DatasetNotFoundError:
            return tfds.builder(name, data_dir=place, try_gcs=False, **arguments)
    except ImportError as error:
        missing = f"a prepared copy or the package {error.name}, which describing it needs"
        raise ValueError(f"dataset {name}: expected {missing}, got neither; {how(name, data_dir)}") from error
    except Exception as error:  # unknown names, sets that need what is not installed, damaged descriptions
        raise ValueError(
            f"dataset {name}: expected one that tensorflow-datasets can open, got: {first_line(error)}"
        ) from error


def how(name: str, data_dir: Path | None) -> str:
    """Returns what to run to prepare a set, and what to fetch by hand first."""
    manual = f"put {MANUAL[name]}, into {manual_folder(data_dir)} and " if name in MANUAL else ""
    known = name if name in SHORT_NAMES else f"{PREFIX}{name}"
    where = "" if data_dir is None else f" --data-dir {shlex.quote(str(data_dir))}"
    return f"{manual}run: pip install 'hadas-jax[tfds]' && hadas data prepare {shlex.quote(known)}{where}"


def manual_folder(data_dir: Path | None) -> Path:
    """Returns where tensorflow-datasets looks for files that are fetched by hand."""
    import tensorflow_datasets as tfds

    return (data_dir or Path(tfds.core.constants.DATA_DIR)) / "downloads" / "manual"


def is_random_access(builder: Any) -> bool:
    """Returns whether a prepared set has files in array_record form."""
    import tensorflow_datasets as tfds

    return tfds.core.FileFormat.ARRAY_RECORD in builder.info.available_file_formats()


def first_line(error: Exception) -> str:
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


def _records(builder: Any, part: str, image_key: str, name: str) -> Any:
    import tensorflow_datasets as tfds

    missing = [path for path in builder.info.splits[part].filepaths if not Path(path).exists()]
    if missing:
        raise ValueError(f"dataset {name}: expected the file {missing[0]}, got none at this path")
    return builder.as_data_source(
        split=part, decoders={image_key: tfds.decode.SkipDecoding()}, file_format="array_record"
    )


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
