"""Files of PyTorch checkpoints as plain arrays, without running anything that such a file might ask for.

PyTorch comes with the optional extra `torch`; the same arrays in an npz file need nothing.

Training scripts put a state dict beside others in a file, and wrappers (data parallelism, compilation, Lightning's
modules) put prefixes before its names. With names as dotted paths through the whole file both are the same: a prefix,
whatever stands before all names of the wanted weights.
"""

import importlib
import pickle
import re
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.files import what_it_is

SHOWN = 20  # names that a message lists
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averag(e|ed|ing)|shadow)(?![a-z])", re.IGNORECASE)


# AttentiveNAS and its descendants save their settings beside the weights: objects of these classes, which are
# dictionaries, and are read as such, so that nothing of the original is imported or called.
_SETTINGS = ("utils.config.Config", "utils.config.AttrDict")


def read_pytorch(path: Path | str) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint: a file of `torch.save`, or an npz file of its arrays.

    It is the whole of the file or the mapping in it that has most tensors, averaged weights (EMA) aside; prefixes that
    PyTorch's wrappers put before names (`module.`, `_orig_mod.`) are taken off. Only tensors and plain containers are
    read (`weights_only`).

    Args:
        path: Of the file.

    Returns:
        The entries by name, floating ones as float32.

    Raises:
        ValueError: There is no such file, it is damaged, no checkpoint, asks to run code, holds several state dicts of
            about one size, or PyTorch is not installed.
    """
    mappings = _read(Path(path))
    named = {prefix: own for prefix, own in mappings.items() if not prefix.rpartition(".")[2].isdecimal()}
    try:  # what has a number is one parameter's state of an optimiser, unless there is nothing else
        chosen = mappings[_choose({prefix: len(own) for prefix, own in (named or mappings).items()})]
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    return {plain_name(name): array for name, array in chosen.items()}


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
    """Reads all tensors of a checkpoint, by dotted paths through its containers: `state_dict.conv.weight`.

    Args:
        path: Of the file, see `read_pytorch`.

    Raises:
        ValueError: As of `read_pytorch`.
    """
    return {
        f"{prefix}.{name}" if prefix else name: array
        for prefix, entries in _read(Path(path)).items()
        for name, array in entries.items()
    }


def _read(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays of each container that holds some, by the container's prefix."""
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: expected a file, got {'a directory' if path.is_dir() else 'none'}")
    members = _members(path)
    kind = _other_archive(members) or _damage(path) if members else what_it_is(path)
    if kind is not None:
        raise ValueError(f"checkpoint {path}: expected a PyTorch checkpoint or an npz file, got {kind}")
    if any(name.endswith(".npy") for name in members):
        return {"": _read_npz(path)}
    content = _load(path)
    found = _mappings(content)
    if not found:
        entries = list(content) if isinstance(content, Mapping) else []
        holds = ", ".join(map(str, entries[:5])) or f"a {type(content).__name__}"
        raise ValueError(f"checkpoint {path}: expected a state dict of tensors, got {holds}")
    return {prefix: {name: _array(name, tensor) for name, tensor in own.items()} for prefix, own in found.items()}


def _members(path: Path) -> list[str]:
    """Returns the names in a zip archive; none of another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def _other_archive(members: list[str]) -> str | None:
    """Says what a zip archive is that holds no state dict; None where it may hold one."""
    inner = [name.partition("/")[2] for name in members]
    if "constants.pkl" in inner:
        return "a TorchScript archive, which is a program: load it with torch.jit.load and save its state_dict()"
    if "data.pkl" in inner or any(name.endswith(".npy") for name in members):
        return None
    return f"a zip archive with {', '.join(members[:3])}{', ...' if len(members) > 3 else ''}: unpack it first"


def _damage(path: Path) -> str | None:
    """Says where a zip archive is damaged; PyTorch does not look. A checksum of 0 is one that was not written."""
    with zipfile.ZipFile(path) as archive:
        for member in (info for info in archive.infolist() if info.CRC):
            try:
                archive.read(member)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
                return f"one that is damaged at {member.filename!r}: copy or download it again"
    return None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return dict(content)
    except Exception as error:  # numpy and zipfile raise whatever the damage causes
        raise ValueError(f"checkpoint {path}: expected an npz file of arrays, cannot read it") from error


def _load(path: Path) -> Any:
    torch = _torch()
    safe = torch.serialization.safe_globals([(OrderedDict, name) for name in _SETTINGS])
    try:
        with warnings.catch_warnings(), safe:
            warnings.simplefilter("ignore")  # of old files, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:Unsupported (?:global|class): (?:GLOBAL )?|class )([\w.]+)", str(error))
        if found is None:
            raise ValueError(_unreadable(path)) from error
        raise ValueError(
            f"checkpoint {path}: expected tensors and plain containers alone, got {found[1]}, which could run code; "
            "if you trust the file, save its state_dict alone with PyTorch and import that"
        ) from error
    except Exception as error:  # PyTorch raises whatever the damage causes
        raise ValueError(_unreadable(path)) from error


def _unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    return (
        f"checkpoint {path}: expected a PyTorch checkpoint, cannot read it: {path.stat().st_size:,} bytes beginning "
        f"with {start.hex(' ')}; it is damaged, cut off or another kind of file"
    )


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ValueError("reading a PyTorch checkpoint needs PyTorch: pip install 'hadas-jax[torch]'") from error


def _mappings(content: Any) -> dict[str, dict[str, Any]]:
    """Returns the tensors that each container of a file holds itself, by the container's dotted path."""
    tensor = _torch().Tensor
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    waiting = [("", content)]
    while waiting:
        prefix, container = waiting.pop(0)
        if id(container) in seen:  # one object under two names, or within itself
            continue
        seen.add(id(container))
        for name, value in container.items() if isinstance(container, Mapping) else enumerate(_sequence(container)):
            if isinstance(value, tensor):
                found.setdefault(prefix, {})[str(name)] = value
            elif isinstance(value, Mapping | list | tuple):
                waiting.append((f"{prefix}.{name}" if prefix else str(name), value))
    return found


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _array(name: str, tensor: Any) -> np.ndarray:
    try:
        tensor = tensor.detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised or without values
        raise ValueError(f"checkpoint: {name}: expected a dense tensor of numbers, got {tensor.type()}") from error


@dataclass(frozen=True)
class _Located:
    """Weights that were found.

    Attributes:
        arrays: Everything of their prefix, by names that begin there.
        prefix: What stood before the names; empty: nothing.
        left: Other prefixes of the file and how many entries each has.
    """

    arrays: dict[str, np.ndarray]
    prefix: str
    left: dict[str, int]

    @property
    def notes(self) -> list[str]:
        """Where the weights come from and what was left, in words for people."""
        notes = [f"taken: the entries under {self.prefix}"] if self.prefix else []
        left = [f"{prefix} ({count:,} {'entry' if count == 1 else 'entries'})" for prefix, count in self.left.items()]
        if left:
            notes.append(f"not taken: {listed(left, SHOWN)}; entry takes weights from another place")
        return notes


def locate(arrays: Mapping[str, np.ndarray], wanted: Collection[str], *, entry: str | None = None) -> _Located:
    """Returns the entries of the prefix where most of the wanted names are.

    Args:
        arrays: By dotted path through the file.
        wanted: Names that such weights have.
        entry: A prefix to take them from, or what it begins with; None: the only one, averaged weights (EMA) aside.

    Raises:
        ValueError: No wanted name is there, or several prefixes have them and `entry` names none.
    """
    counts: dict[str, set[str]] = {}
    for name in arrays:
        parts = name.split(".")
        for i in range(len(parts)):
            tail = plain_name(".".join(parts[i:]))
            if tail in wanted and not _wraps(parts[i]):
                counts.setdefault(".".join(parts[:i]), set()).add(tail)
    if not counts:
        raise ValueError(
            f"checkpoint: expected entries such as {min(wanted, key=len)}, got {listed(list(arrays)) or 'none'}"
        )
    prefix = _choose({name: len(found) for name, found in counts.items()}, entry=entry)
    taken: dict[str, np.ndarray] = {}
    left: dict[str, int] = {}
    for name, array in arrays.items():
        if not _lies_in(name, prefix):
            left[_other(name, prefix)] = left.get(_other(name, prefix), 0) + 1
            continue
        plain = plain_name(name[len(prefix) + 1 :] if prefix else name)
        if plain in taken:
            raise ValueError(f"checkpoint: expected one entry {plain}, got two, differently wrapped")
        taken[plain] = array
    return _Located(taken, prefix, left)


def _choose(counts: Mapping[str, int], *, entry: str | None = None) -> str:
    """Returns the prefix of the wanted weights.

    Args:
        counts: How many wanted entries each prefix has; at least one prefix.
        entry: See `locate`.

    Raises:
        ValueError: Several prefixes have them and `entry` names none, or it names one that is not there.
    """
    named = {
        prefix: count for prefix, count in counts.items() if entry in (None, prefix) or _lies_in(prefix, str(entry))
    }
    if not named:
        raise ValueError(f"entry: expected one of {listed(list(counts))}, got {entry!r}")
    if entry in named:
        return str(entry)
    rivals = [prefix for prefix, count in named.items() if 2 * count >= max(named.values())]
    plain = [prefix for prefix in rivals if not _AVERAGED.search(prefix)] or rivals
    if "" in plain:  # the file is a state dict; whatever else it holds is a part of that
        return ""
    if len(plain) > 1:
        raise ValueError(f"entry: expected one of {listed(plain)}, which all hold such weights, got none")
    return plain[0]


def plain_name(name: str) -> str:
    """Returns a name without what wrappers put into it: the part `module`, and parts that begin with an underscore."""
    *parts, last = name.split(".")
    return ".".join([*(part for part in parts if not _wraps(part)), last])


def _wraps(part: str) -> bool:
    return part == "module" or part.startswith("_")


def _lies_in(name: str, prefix: str) -> bool:
    return not prefix or name.startswith(f"{prefix}.")


def _other(name: str, prefix: str) -> str:
    """Returns the part of a name that tells it from a prefix: its beginning up to the first part that differs."""
    parts, own = name.split("."), prefix.split(".")
    same = next((i for i, (left, right) in enumerate(zip(parts, own, strict=False)) if left != right), len(own))
    return ".".join(parts[: same + 1])


def listed(names: Sequence[str], most: int = 5, *, separator: str = ", ") -> str:
    """Returns the first few of some names for a message."""
    return separator.join(names[:most]) + (f"{separator}..." if len(names) > most else "")
