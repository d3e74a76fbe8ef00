"""Folders of image files, one for each class.

    DIR/CLASS/...                                     split by us
    DIR/train/CLASS/..., DIR/val/CLASS/..., DIR/test/CLASS/...    val and test may be missing
    DIR/train/CLASS/images/..., DIR/val/images/..., DIR/val/val_annotations.txt    the form of Tiny ImageNet

Parts have any of their usual names. Below a class any depth of folders is searched. Classes are numbered in the order
of their names.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hadas_jax.data.images import (
    CONTENTS_BYTES,
    SKIPPING,
    FingerprintOf,
    ImageError,
    check_readable,
    decode,
    in_threads,
    read_header,
    source_fingerprints,
)
from hadas_jax.data.layout import Listing, read_layout
from hadas_jax.data.notes import shown
from hadas_jax.data.splits import Sources

_HEADERS = 200_000  # files whose headers are all looked at; of more, as many evenly spaced ones


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files below a folder and their labels int32[N]."""

    folder: Path
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

    @property
    def fingerprint_of(self) -> FingerprintOf:
        """The files' contents, or where they are too much to read, their paths inside the folder and their sizes."""
        return "contents" if sum(self._file_sizes) <= CONTENTS_BYTES else "names and sizes"

    def fingerprints(self, rows: np.ndarray | None = None, *, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[n] of the files at these rows, of all where None."""
        read = self._content if (of or self.fingerprint_of) == "contents" else self._name_and_size
        return source_fingerprints(read, np.arange(len(self)) if rows is None else rows, name=str(self.folder))

    @cached_property
    def _file_sizes(self) -> list[int]:
        return in_threads(_file_size, self.paths)

    def _content(self, row: int) -> bytes:
        try:
            return self.paths[row].read_bytes()
        except OSError as error:
            raise ImageError(str(self.paths[row])) from error

    def _name_and_size(self, row: int) -> bytes:
        return os.fsencode(f"{self.paths[row].relative_to(self.folder).as_posix()} {self._file_sizes[row]}")


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # whoever reads it will say so


def open_folder(folder: Path, *, skip_unreadable: bool = False) -> Sources:
    """Finds the images of a folder and looks at their headers.

    Images are grey if all are; otherwise they have three channels. Where there are no test images with labels, the
    validation images are the test images.

    Args:
        folder: Of the data set.
        skip_unreadable: Whether images whose headers cannot be read are left out; otherwise they are refused.

    Raises:
        ValueError: No folder, fewer than two classes, classes without images, classes that training does not have,
            folders that may be parts as well as classes, or images that cannot be read.
    """
    name = shown(folder)
    if not folder.is_dir():
        raise ValueError(f"{name}: expected a folder with one folder of images for each class, got none at this path")
    layout = read_layout(folder)
    paths = [path for listing in layout.parts.values() for path, _ in listing]
    looked_at = paths if skip_unreadable else paths[:: -(-len(paths) // _HEADERS)]
    headers = dict(zip(looked_at, in_threads(_header, looked_at), strict=True))
    failed = {path: header for path, header in headers.items() if isinstance(header, str)}
    if skip_unreadable:
        layout = layout.without(set(failed))
    else:
        check_readable(failed.values(), name=name, advice=SKIPPING)
    shapes = [header for header in headers.values() if not isinstance(header, str)]
    sizes = {shape[:2] for shape in shapes}
    height, width = next(iter(sizes))
    are_alike = len(sizes) == 1 and height == width and len(looked_at) == len(paths)
    channels = max(shape[2] for shape in shapes)

    def source(listing: Listing) -> FolderSource:
        labels = np.array([label for _, label in listing], np.int32)
        return FolderSource(folder, tuple(path for path, _ in listing), labels, channels)

    sources = {part: source(listing) for part, listing in layout.parts.items()}
    has_test = "test" in sources
    return Sources(
        name,
        sources["train"],
        held_out=sources.get("val") if has_test else None,
        test=sources.get("test" if has_test else "val"),
        image_size=height if are_alike else None,
        classes=len(layout.classes),
        class_names=layout.classes,
        notes=layout.notes,
        unreadable=tuple(failed.values()),
    )


def _header(path: Path) -> tuple[int, int, int] | str:
    try:
        return read_header(path)
    except ImageError as error:
        return error.image
