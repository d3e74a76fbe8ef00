"""Arrays of an npz file, which are read without ever running what is in it: Python objects are refused."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hadas_jax.data.notes import shown, some

_ENDING = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Stored(NamedTuple):
    """Shape and type of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


def stored_arrays(path: Path) -> dict[str, Stored | None]:
    """Returns what a file holds, by name; None for what is no array.

    Raises:
      ValueError: no file, no archive, or several arrays of one name.
    """
    if not path.is_file():
        raise ValueError(f"dataset file {shown(path)}: expected an npz file, got none at this path")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            found = {member.removesuffix(_ENDING): _stored(archive, member) for member in members}
    except Exception as error:  # zipfile raises whatever the damage causes
        raise _damaged(path) from error
    doubled = sorted({member for member in members if members.count(member) > 1})
    if doubled or len(found) < len(members):
        raise ValueError(f"dataset file {shown(path)}: expected one array of each name, got {some(members)}")
    return found


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns arrays of a file by their names.

    Raises:
      ValueError: an array is damaged.
    """
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in names:
            try:
                with archive.open(name + _ENDING) as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
                    is_longer = bool(file.read(1))  # reading to the end also compares the checksum
            except Exception as error:  # numpy and zipfile raise whatever the damage causes
                raise _damaged(path, f" (array {shown(name)})") from error
            if is_longer:
                raise _damaged(path, f" (array {shown(name)} goes on behind its end)")
    return found


def _damaged(path: Path, what: str = "") -> ValueError:
    return ValueError(f"dataset file {shown(path)}: expected an npz file of plain arrays, cannot read it{what}")


def _stored(archive: zipfile.ZipFile, member: str) -> Stored | None:
    if not member.endswith(_ENDING):
        return None
    try:
        with archive.open(member) as file:
            shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception:  # whoever needs the array will say so
        return None
    return Stored(shape, dtype)
