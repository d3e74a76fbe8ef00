"""Folders of image files, one for each class.

    DIR/CLASS/...                                     split by us
    DIR/train/CLASS/..., DIR/val/CLASS/..., DIR/test/CLASS/...    val and test may be missing
    DIR/train/CLASS/images/..., DIR/val/images/..., DIR/val/val_annotations.txt    the form of Tiny ImageNet

Parts have any of their usual names. Below a class any depth of folders is searched. Classes are numbered in the order
of their names.
"""

import os
from pathlib import Path

import numpy as np

from hadas_jax.data.images import SKIPPING, ImageError, Source, check_readable, decode, in_threads, read_header
from hadas_jax.data.layout import Listing, read_layout
from hadas_jax.data.notes import one_line
from hadas_jax.data.parts import as_groups
from hadas_jax.data.splits import Sources

_HEADERS = 200_000  # files whose headers are all looked at; of more, as many evenly spaced ones


def open_folder(folder: Path, *, skip_unreadable: bool = False) -> Sources:
    """Finds the images of a folder and looks at their headers.

    Images are grey if all are; otherwise they have three channels. Where there are no test images with labels, the
    validation images are the test images.

    Args:
        folder: Folder of the data set.
        skip_unreadable: Whether images whose headers cannot be read are left out; otherwise they are refused.

    Raises:
        ValueError: No folder, fewer than two classes, classes without images, classes that training does not have,
            folders that may be parts as well as classes, or images that cannot be read.
    """
    name = one_line(folder)
    if not folder.is_dir():
        raise ValueError(f"{name}: expected a folder with one folder of images for each class, got none at this path")
    layout = read_layout(folder)
    paths = [path for listing in layout.parts.values() for path, _ in listing]
    sample = paths if skip_unreadable else paths[:: -(-len(paths) // _HEADERS)]
    headers = dict(zip(sample, in_threads(_header, sample), strict=True))
    failed = {path: header for path, header in headers.items() if isinstance(header, str)}
    if skip_unreadable:
        layout = layout.without(set(failed))
    else:
        check_readable(failed.values(), name=name, advice=SKIPPING)
    shapes = [header for header in headers.values() if not isinstance(header, str)]
    sizes = {shape[:2] for shape in shapes}
    height, width = next(iter(sizes))
    is_one_size = len(sizes) == 1 and height == width and len(sample) == len(paths)
    channels = max(shape[2] for shape in shapes)

    return Sources(
        name,
        as_groups({part: _source(folder, listing, channels) for part, listing in layout.parts.items()}),
        image_size=height if is_one_size else None,
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


def _source(folder: Path, listing: Listing, channels: int) -> Source:
    """Image files below a folder and their labels."""
    paths = [path for path, _ in listing]
    labels = np.array([label for _, label in listing], np.int32)
    sizes = in_threads(_file_size, paths)

    def read(row: int) -> tuple[np.ndarray, int]:
        return decode(paths[row], channels=channels, name=str(paths[row])), int(labels[row])

    def content(row: int) -> bytes:
        try:
            return paths[row].read_bytes()
        except OSError as error:
            raise ImageError(str(paths[row])) from error

    def name_and_size(row: int) -> bytes:
        return os.fsencode(f"{paths[row].relative_to(folder).as_posix()} {sizes[row]}")

    return Source(
        name=str(folder),
        channels=channels,
        stored_bytes=sum(sizes),
        rows=np.arange(len(paths)),
        read=read,
        content=content,
        name_and_size=name_and_size,
        read_labels=lambda: labels,
    )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # whoever reads it will say so
