"""Folders of image files, one for each class.

    DIR/CLASS/...                                     split by us
    DIR/train/CLASS/..., DIR/val/CLASS/..., DIR/test/CLASS/...    val and test may be missing
    DIR/train/CLASS/images/..., DIR/val/images/..., DIR/val/val_annotations.txt    the form of Tiny ImageNet

Parts have any of their usual names. Below a class any depth of folders is searched. Classes are numbered in the order
of their names. Files and folders whose names begin with a dot are no data, nor are those that macOS, Windows and file
servers make.
"""

import functools
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hadas_jax.data.images import SKIPPING, ImageError, Source, check_readable, decode, in_threads, read_header
from hadas_jax.data.notes import PART_WORDS, first_few, letters, one_line, plural
from hadas_jax.data.splits import Sources, as_groups

_HEADERS = 200_000  # files whose headers are all looked at; of more, as many evenly spaced ones
_Listing = tuple[tuple[Path, int], ...]  # image files with their labels
_ANNOTATIONS = "val_annotations.txt"
_SYSTEM_FILES = ("desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db")
_SYSTEM_FOLDERS = ("__macosx", "__pycache__", "#recycle", "$recycle.bin", "@eadir", "lost+found")
_SYSTEM = frozenset((*_SYSTEM_FILES, *_SYSTEM_FOLDERS, "system volume information"))
_OTHER_FORMATS = frozenset(  # documents, drawings, videos and fields of numbers, and what Pillow writes alone
    ("BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF")
)
_BESIDE = ("data", "dataset", "folder", "images", "img", "imgs", "part", "set", "sets", "split")
_PARTS = {
    spelled: part
    for part, words in PART_WORDS.items()
    for word in words
    for spelled in (word, *(word + other for other in _BESIDE), *(other + word for other in _BESIDE))
}


@dataclass(frozen=True)
class _Folder:
    """A folder with all that is below it.

    Attributes:
        path: Path of the folder.
        folders: Folders inside it, in the order of their names.
        images: Files directly in it whose endings images have, in the order of their names.
        others: Number of files directly in it of every other ending.
        hidden: Number of hidden and system files and folders directly in it.
    """

    path: Path
    folders: tuple["_Folder", ...]
    images: tuple[Path, ...]
    others: Counter[str]
    hidden: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def below(self) -> Iterator["_Folder"]:
        """Returns this folder and all folders below it."""
        yield self
        for inner in self.folders:
            yield from inner.below()

    def all_images(self) -> list[Path]:
        """Returns the images in this folder and at any depth below it."""
        return [path for folder in self.below() for path in folder.images]

    def all_others(self) -> Counter[str]:
        """Returns how many files of every other ending there are at any depth."""
        return sum((folder.others for folder in self.below()), Counter())


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
    tree = inside = _read(folder)
    # The folder of the data set may lie in others, as in images/train/CLASS.
    while len(inside.folders) == 1 and any(_part_of(inner.name) == "train" for inner in inside.folders[0].folders):
        inside = inside.folders[0]
    parts = _parts(inside)
    classes = _classes(parts["train"])
    listings = {part: _listing(inner, part, classes) for part, inner in parts.items()}
    notes = _notes(tree, parts, listings)
    listings = {part: listing for part, listing in listings.items() if listing}
    paths = [path for listing in listings.values() for path, _ in listing]
    sample = paths if skip_unreadable else paths[:: -(-len(paths) // _HEADERS)]
    headers = dict(zip(sample, in_threads(_header, sample), strict=True))
    failed = {path: header for path, header in headers.items() if isinstance(header, str)}
    if skip_unreadable:
        listings = _without(listings, failed, classes, name)
    else:
        check_readable(failed.values(), name=name, advice=SKIPPING)
    shapes = [header for header in headers.values() if not isinstance(header, str)]
    sizes = {shape[:2] for shape in shapes}
    height, width = next(iter(sizes))
    is_one_size = len(sizes) == 1 and height == width and len(sample) == len(paths)
    channels = max(shape[2] for shape in shapes)
    return Sources(
        name,
        as_groups({part: _source(folder, listing, channels) for part, listing in listings.items()}),
        image_size=height if is_one_size else None,
        classes=len(classes),
        class_names=tuple(classes),
        notes=tuple(notes),
        unreadable=tuple(failed.values()),
    )


def _without(
    listings: Mapping[str, _Listing], failed: Mapping[Path, object], classes: Mapping[str, int], where: str
) -> dict[str, _Listing]:
    """The images but for some; every part, and every class of the training images, has to have others."""
    kept = {part: tuple(item for item in listing if item[0] not in failed) for part, listing in listings.items()}
    left = {label for _, label in kept["train"]}
    lost = [part for part, listing in kept.items() if not listing]
    lost += [name for name, label in classes.items() if label not in left]
    if lost:
        raise ValueError(f"{where}: expected readable images in every part and class, got none in {first_few(lost)}")
    return kept


def _header(path: Path) -> tuple[int, int, int] | str:
    try:
        return read_header(path)
    except ImageError as error:
        return error.image


def _source(folder: Path, listing: _Listing, channels: int) -> Source:
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


def _part_of(folder: str) -> str | None:
    """The part that a folder's name stands for, in any of its usual spellings such as 1_Train2017, if for any."""
    return _PARTS.get(letters(folder).strip("0123456789"))


def _file_counts(endings: Mapping[str, int]) -> str:
    """How many files there are of every ending, the most frequent first: 3 files of .txt, 1 of .csv."""
    ordered = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"of {one_line(ending)}" if ending else "without an ending" for ending, _ in ordered]
    counts = [plural(ordered[0][1], "file"), *(f"{count:,}" for _, count in ordered[1:])]
    return first_few((f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True)), most=10)


def _parts(tree: _Folder) -> dict[str, _Folder]:
    """The folder of each part; without such folders all is for training."""
    named: dict[str, list[_Folder]] = {}
    others = []
    for inner in tree.folders:
        part = _part_of(inner.name)
        if part is None:
            others.append(inner.name)
        else:
            named.setdefault(part, []).append(inner)
    where = one_line(tree.path)
    if not any(inner.folders for inner in named.get("train", ())) and (others or len(named) < 2):
        _refuse_unnamed_parts(tree)
        return {"train": tree}
    if others:
        raise ValueError(
            f"{where}: expected train, val and test alone beside each other, got {first_few(others)}; name folders "
            "so or move them elsewhere"
        )
    for part, folders in named.items():
        if len(folders) > 1:
            names = first_few(inner.name for inner in folders)
            raise ValueError(f"{where}: expected one {part} folder, got {names}; move all but one elsewhere")
    if "train" not in named:
        names = first_few(inner.name for inner in tree.folders)
        raise ValueError(f"{where}: expected a folder train of training images beside {names}, got none")
    return {part: folders[0] for part, folders in named.items()}


def _refuse_unnamed_parts(tree: _Folder) -> None:
    """Refuses folders that hold the same folders, as parts do whatever their names."""
    inside: dict[str, set[str]] = {}
    for top in tree.folders if len(tree.folders) > 1 else ():
        folder, inner = top, _with_images(top)
        while not folder.images and len(inner) == 1:
            folder, inner = inner[0], _with_images(inner[0])
        if not folder.images and inner:
            inside[top.name] = {each.name.casefold() for each in inner}
    for name, inner_names in inside.items():
        if len({_part_of(inner_name) for inner_name in inner_names} - {None}) > 1:
            raise ValueError(
                f"{one_line(tree.path / name)}: expected images of one class, got the parts "
                f"{first_few(sorted(inner_names))}; put a folder for each part above the classes, as in train/CLASS"
            )
    most = max(inside.values(), key=len, default=set())
    if len(inside) > 1 and all(2 * len(names & most) >= len(names) for names in inside.values()):
        raise ValueError(
            f"{one_line(tree.path)}: expected a folder for each class, but {first_few(sorted(inside))} hold the same "
            f"folders ({first_few(sorted(most))}) as parts do: name them train, val and test; if they are classes, "
            "move the images of each into one folder"
        )


def _with_images(folder: _Folder) -> list[_Folder]:
    return [inner for inner in folder.folders if inner.all_images()]


def _classes(train: _Folder) -> dict[str, int]:
    names = [inner.name for inner in train.folders]
    where = f"{one_line(train.path)}: expected a folder for each of at least two classes"
    if not names:
        beside = f", and {plural(len(train.images), 'image')} in no folder" if train.images else ""
        raise ValueError(f"{where}, got none{beside}")
    if len(names) == 1:
        one = train.folders[0]
        advice = f"; if the data set is in there, give {one_line(one.path)}" if len(one.folders) > 1 else ""
        raise ValueError(f"{where}, got one, {one_line(one.name)}{advice}")
    for name in names:
        if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
            raise ValueError(
                f"{one_line(train.path)}: expected names of classes in UTF-8, got {one_line(name)}; rename it"
            )
    return {name: label for label, name in enumerate(names)}


def _listing(folder: _Folder, part: str, classes: Mapping[str, int]) -> _Listing:
    """The images of class folders with their labels; nothing of test images without labels."""
    where = one_line(folder.path)
    if part == "val" and (folder.path / _ANNOTATIONS).is_file():
        return _annotated(folder.path, classes)
    of_classes = [inner for inner in folder.folders if inner.name in classes]
    unknown = [inner for inner in folder.folders if inner.name not in classes]
    images = folder.all_images()
    if images and not of_classes and len(unknown) + bool(folder.images) == 1:
        if part == "test":
            return ()
        raise ValueError(
            f"{where}: expected a folder for each class, got {plural(len(images), 'image')} without; sort them into "
            "folders of the classes, or move them elsewhere"
        )
    if unknown:
        names = first_few(inner.name for inner in unknown)
        raise ValueError(
            f"{where}: expected the classes of the training images, got {names} beside them; rename or remove them"
        )
    listing = tuple((path, classes[inner.name]) for inner in of_classes for path in sorted(inner.all_images()))
    empty = [inner.name for inner in of_classes if not inner.all_images()]
    if not listing or (part == "train" and empty):
        others = folder.all_others()
        unread = f" ({_file_counts(others)} there)" if others else ""
        where_none = first_few(empty) if listing else "any folder"
        advice = "" if part == "train" else "; fill this folder or remove it"
        raise ValueError(f"{where}: expected images of every class, got none in {where_none}{unread}{advice}")
    return listing


def _annotated(folder: Path, classes: Mapping[str, int]) -> _Listing:
    """The images that a file lists with their classes, separated by tabs."""
    path = folder / _ANNOTATIONS
    labels: dict[Path, int] = {}
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        where = f"{one_line(path)}: line {number}"
        if len(fields) < 2 or fields[1] not in classes:
            raise ValueError(f"{where}: expected a file and a class of the training images, got {line!r}")
        image = folder / "images" / fields[0]
        if image in labels:
            raise ValueError(f"{where}: expected every file once, got {one_line(fields[0])} again")
        labels[image] = classes[fields[1]]
    if not labels:
        raise ValueError(f"{one_line(path)}: expected a line for each image, got none")
    return tuple(labels.items())


def _notes(tree: _Folder, parts: Mapping[str, _Folder], listings: Mapping[str, _Listing]) -> list[str]:
    others = tree.all_others()
    beside = len(tree.all_images())
    notes = []
    for part, folder in parts.items():
        listed = {path for path, _ in listings[part]}
        images = folder.all_images()
        unlisted = sum(path not in listed for path in images)
        beside -= len(images)
        if not listed:
            notes.append(
                f"left out: {plural(unlisted, 'image')} of {one_line(folder.name)}, which has no class folders"
            )
        elif part == "val" and (folder.path / _ANNOTATIONS).is_file():
            others -= Counter({".txt": 1})
            if unlisted:
                notes.append(f"left out: {plural(unlisted, 'image')} that {_ANNOTATIONS} does not list")
        else:
            beside += unlisted
    if beside:
        notes.append(f"left out: {plural(beside, 'image')} beside the class folders")
    if others:
        notes.append(f"left out: {_file_counts(others)}")
    hidden = sum(folder.hidden for folder in tree.below())
    if hidden:
        notes.append(f"left out: {plural(hidden, 'hidden or system file')}")
    return notes


def _read(path: Path, above: frozenset[tuple[int, int]] = frozenset()) -> _Folder:
    """Lists a folder and all below it; links are followed.

    Args:
        path: The folder.
        above: The folders that it lies in, for links that lead back.

    Raises:
        ValueError: A folder cannot be listed.
    """
    folders: list[_Folder] = []
    images: list[Path] = []
    others: Counter[str] = Counter()
    hidden = 0
    try:
        inside = above | {_identity(path)}
        with os.scandir(path) as unsorted:
            entries = sorted(unsorted, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{one_line(path)}: cannot list this folder: {error.strerror}") from error
    for entry in entries:
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM or _is_special(entry, inside):
            hidden += 1
        elif _is_folder(entry):
            folders.append(_read(path / entry.name, inside))
        elif ending in _file_endings():
            images.append(path / entry.name)
        else:
            others[ending] += 1
    return _Folder(path, tuple(folders), tuple(images), others, hidden)


@functools.cache
def _file_endings() -> frozenset[str]:
    """The endings, in lower case, of files that may be images of 8 bits, as many as this Pillow reads."""
    Image.init()
    return frozenset(ending for ending, form in Image.registered_extensions().items() if form not in _OTHER_FORMATS)


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
