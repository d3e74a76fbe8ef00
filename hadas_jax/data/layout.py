"""Which folders of a data set are parts, which are classes, and which images belong to them.

A folder of image files is taken as it lies on disk. Files and folders whose names begin with a dot are no data, nor are
those that macOS, Windows and file servers make.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hadas_jax.data.images import file_endings
from hadas_jax.data.notes import file_counts, first_few, one_line, part_of, plural

Listing = tuple[tuple[Path, int], ...]
"""Image files with their labels."""
_ANNOTATIONS = "val_annotations.txt"
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


@dataclass(frozen=True)
class Layout:
    """The labelled images of a folder.

    Attributes:
        folder: Folder of the data set.
        parts: Images of train, and of val and test where there are some.
        classes: Names of the classes in the order of their labels.
        notes: What was left out, in a clause each.
    """

    folder: Path
    parts: Mapping[str, Listing]
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def without(self, paths: set[Path]) -> "Layout":
        """Returns the layout without some images.

        Raises:
            ValueError: A part, or a class of the training images, has no others.
        """
        parts = {part: tuple(item for item in listing if item[0] not in paths) for part, listing in self.parts.items()}
        left = {label for _, label in parts["train"]}
        lost = [part for part, listing in parts.items() if not listing]
        lost += [name for label, name in enumerate(self.classes) if label not in left]
        if lost:
            where = one_line(self.folder)
            raise ValueError(
                f"{where}: expected readable images in every part and class, got none in {first_few(lost)}"
            )
        return replace(self, parts=parts)


def read_layout(folder: Path) -> Layout:
    """Finds the images of a folder.

    Raises:
        ValueError: Fewer than two classes, classes without images, classes that training does not have, or folders that
            may be parts as well as classes.
    """
    tree = _read(folder)
    parts = _parts(_inside(tree))
    classes = _classes(parts["train"])
    listings = {part: _listing(inner, part, classes) for part, inner in parts.items()}
    labelled = {part: listing for part, listing in listings.items() if listing}
    return Layout(folder, labelled, tuple(classes), tuple(_notes(tree, parts, listings)))


def _inside(tree: _Folder) -> _Folder:
    """The folder of the data set where there is one around it, as in images/train/CLASS."""
    while len(tree.folders) == 1 and any(part_of(inner.name) == "train" for inner in tree.folders[0].folders):
        tree = tree.folders[0]
    return tree


def _parts(tree: _Folder) -> dict[str, _Folder]:
    """The folder of each part; without such folders all is for training."""
    named: dict[str, list[_Folder]] = {}
    others = []
    for inner in tree.folders:
        part = part_of(inner.name)
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
        if len({part_of(inner_name) for inner_name in inner_names} - {None}) > 1:
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
    return [inner for inner in folder.folders if inner.has_images]


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


def _listing(folder: _Folder, part: str, classes: Mapping[str, int]) -> Listing:
    """The images of class folders with their labels; nothing of test images without labels."""
    where = one_line(folder.path)
    if part == "val" and (folder.path / _ANNOTATIONS).is_file():
        return _annotated(folder.path, classes)
    of_classes = [inner for inner in folder.folders if inner.name in classes]
    unknown = [inner for inner in folder.folders if inner.name not in classes]
    images = list(folder.all_images())
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
    empty = [inner.name for inner in of_classes if not inner.has_images]
    if not listing or (part == "train" and empty):
        others = folder.all_others()
        unread = f" ({file_counts(others)} there)" if others else ""
        where_none = first_few(empty) if listing else "any folder"
        advice = "" if part == "train" else "; fill this folder or remove it"
        raise ValueError(f"{where}: expected images of every class, got none in {where_none}{unread}{advice}")
    return listing


def _annotated(folder: Path, classes: Mapping[str, int]) -> Listing:
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


def _notes(tree: _Folder, parts: Mapping[str, _Folder], listings: Mapping[str, Listing]) -> list[str]:
    others = tree.all_others()
    beside = sum(1 for _ in tree.all_images())
    notes = []
    for part, folder in parts.items():
        listed = {path for path, _ in listings[part]}
        images = list(folder.all_images())
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
        notes.append(f"left out: {file_counts(others)}")
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
        elif ending in file_endings():
            images.append(path / entry.name)
        else:
            others[ending] += 1
    return _Folder(path, tuple(folders), tuple(images), others, hidden)


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
