"""Folders of image files, one for each class.

    DIR/CLASS/...                                     split by us
    DIR/train/CLASS/..., DIR/val/CLASS/..., DIR/test/CLASS/...    val (or validation) and test may be missing
    DIR/train/CLASS/images/..., DIR/val/images/..., DIR/val/val_annotations.txt    the form of Tiny ImageNet

Below a class any depth of folders is searched. Classes are numbered in the order of their names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hadas_jax.data.assembly import Sources
from hadas_jax.data.images import FILE_ENDINGS, ImageError, decode, read_header
from hadas_jax.data.sources import check_readable, in_threads

_VALIDATION = ("val", "valid", "validation")
_ANNOTATIONS = "val_annotations.txt"
_HEADERS = 200_000  # files whose headers are all looked at; of more, as many evenly spaced ones


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files and their labels int32[N]."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    channels: int

    def __len__(self) -> int:
        """Returns N."""
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Returns an image uint8[H, W, C] and its label."""
        path = self.paths[row]
        return decode(path, channels=self.channels, name=str(path)), int(self.labels[row])


Listing = list[tuple[Path, int]]


def open_folder(folder: Path) -> Sources:
    """Finds the images of a folder and looks at their headers.

    Images are grey if all are; otherwise they have three channels.

    Raises:
      ValueError: no folder, fewer than two classes, classes without images, classes that training does not have,
        or images that cannot be read.
    """
    name = str(folder)
    if not folder.is_dir():
        raise ValueError(f"{name}: expected a folder with one folder of images for each class, got none at this path")
    inner = {path.name: path for path in _folders(folder)}
    if "train" in inner and _folders(inner["train"]):
        held_out, test = (_one_of(inner, names, name) for names in (_VALIDATION, ("test",)))
        others = set(inner) - {"train", "test", *_VALIDATION}
        if others:
            raise ValueError(f"{name}: expected train, val and test alone beside each other, got {_some(others)}")
        whole = inner["train"]
    else:
        whole, held_out, test = folder, None, None
    classes = _classes(whole)
    train = _listing(whole, classes)
    if held_out is not None and (held_out / _ANNOTATIONS).is_file():
        return _sources(name, (train, None, _annotated(held_out, classes)), classes)  # its test images have no labels
    if test is None:
        held_out, test = None, held_out
    own = [None if inner is None else _listing(inner, classes, whole=False) for inner in (held_out, test)]
    return _sources(name, (train, own[0], own[1]), classes)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _one_of(inner: dict[str, Path], names: Sequence[str], name: str) -> Path | None:
    found = [inner[key] for key in names if key in inner]
    if len(found) > 1:
        raise ValueError(f"{name}: expected one validation folder, got {_some(path.name for path in found)}")
    return found[0] if found else None


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _classes(whole: Path) -> dict[str, int]:
    names = [path.name for path in _folders(whole)]
    if len(names) < 2:
        found = f"one, {names[0]}" if names else "none"
        raise ValueError(f"{whole}: expected a folder for each of at least two classes, got {found}")
    return {key: label for label, key in enumerate(names)}


def _listing(folder: Path, classes: dict[str, int], *, whole: bool = True) -> Listing:
    """The image files of class folders with their labels; of the training images, every class has some."""
    found: Listing = []
    empty, unknown = [], []
    for inner in _folders(folder):
        if inner.name not in classes:
            unknown.append(inner.name)
            continue
        files = sorted(path for path in inner.rglob("*") if path.suffix.lower() in FILE_ENDINGS and path.is_file())
        found += [(path, classes[inner.name]) for path in files]
        if not files:
            empty.append(inner.name)
    if unknown:
        raise ValueError(f"{folder}: expected the classes of the training images, got {_some(unknown)} beside them")
    if not found or (whole and empty):
        where = "any folder" if not found else _some(empty)
        raise ValueError(f"{folder}: expected images ({', '.join(FILE_ENDINGS)}) of every class, got none in {where}")
    return found


def _annotated(folder: Path, classes: dict[str, int]) -> Listing:
    """The images that a file lists with their classes, separated by tabs."""
    path = folder / _ANNOTATIONS
    found: Listing = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in classes:
            raise ValueError(f"{path}: line {number}: expected a file and a class of the training images, got {line!r}")
        found.append((folder / "images" / fields[0], classes[fields[1]]))
    if not found:
        raise ValueError(f"{path}: expected a line for each image, got none")
    return found


def _sources(name: str, listings: tuple[Listing, Listing | None, Listing | None], classes: dict[str, int]) -> Sources:
    paths = [path for listing in listings for path, _ in listing or ()]
    looked_at = paths[:: -(-len(paths) // _HEADERS)]
    found = in_threads(_header, looked_at)
    check_readable([header if isinstance(header, str) else None for header in found], name=name)
    headers = [header for header in found if not isinstance(header, str)]
    channels = max(header[2] for header in headers)
    sizes = {header[:2] for header in headers}
    height, width = next(iter(sizes))
    are_alike = len(sizes) == 1 and height == width and len(looked_at) == len(paths)

    def source(listing: Listing) -> FolderSource:
        labels = np.array([label for _, label in listing], np.int32)
        return FolderSource(tuple(path for path, _ in listing), labels, channels)

    train, held_out, test = listings
    return Sources(
        name,
        source(train),
        None if held_out is None else source(held_out),
        None if test is None else source(test),
        image_size=height if are_alike else None,
        classes=len(classes),
        class_names=tuple(classes),
    )


def _header(path: Path) -> tuple[int, int, int] | str:
    try:
        return read_header(path)
    except ImageError as error:
        return error.image
