"""A folder of image files as it lies on disk, without what systems leave there.

Files and folders whose names begin with a dot are no data, nor are those that macOS, Windows and file servers make.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hadas_jax.data.images import file_endings
from hadas_jax.data.notes import shown

_SYSTEM = frozenset(
    (
        "__macosx",
        "__pycache__",
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)


@dataclass(frozen=True)
class Folder:
    """A folder with all that is below it.

    Attributes:
      path: of the folder.
      folders: inside it, by name.
      images: files of endings that images have, which lie directly in it, by name.
      others: how many files of every other ending lie directly in it.
      hidden: how many hidden and system files and folders lie directly in it.
    """

    path: Path
    folders: tuple["Folder", ...]
    images: tuple[Path, ...]
    others: Counter[str]
    hidden: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def below(self) -> Iterator["Folder"]:
        """Returns this folder and all folders below it."""
        yield self
        for inner in self.folders:
            yield from inner.below()

    def all_images(self) -> Iterator[Path]:
        """Returns the images in this folder and at any depth below it."""
        return (path for folder in self.below() for path in folder.images)

    @property
    def has_images(self) -> bool:
        """Whether there are images at any depth."""
        return any(folder.images for folder in self.below())

    def all_others(self) -> Counter[str]:
        """Returns how many files of every other ending there are at any depth."""
        return sum((folder.others for folder in self.below()), Counter())


def read_tree(path: Path) -> Folder:
    """Lists a folder and all below it; links are followed.

    Raises:
      ValueError: a folder cannot be listed.
    """
    return _read(path, frozenset())


def _read(path: Path, above: frozenset[tuple[int, int]]) -> Folder:
    folders: list[Folder] = []
    images: list[Path] = []
    others: Counter[str] = Counter()
    hidden = 0
    try:
        inside = above | {_identity(path)}
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{shown(path)}: cannot list this folder: {error.strerror}") from error
    for entry in entries:
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM or _is_special(entry, inside):
            hidden += 1
        elif _is_folder(entry):
            folders.append(_read(path / entry.name, inside))
        elif ending in file_endings():
            images.append(path / entry.name)
        else:
            others[ending] += 1
    return Folder(path, tuple(folders), tuple(images), others, hidden)


def _identity(path: Path | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_special(entry: os.DirEntry[str], inside: frozenset[tuple[int, int]]) -> bool:
    """Whether it is a link to a folder that it lies in, or a pipe, a socket or a device."""
    if _is_folder(entry):
        return entry.is_symlink() and _identity(entry.path) in inside
    is_file = os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
    return not is_file and os.path.exists(entry.path)
