"""Where in a PyTorch checkpoint the wanted weights are: their place is whatever stands before all of their names.

Training scripts put a state dict beside others in a file, and wrappers (data parallelism, compilation, Lightning's
modules) put prefixes before its names. With names as dotted paths through the whole file both are the same: a prefix.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averag(e|ed|ing)|shadow)(?![a-z])", re.IGNORECASE)
_SHOWN = 5  # places and names that a message lists


@dataclass(frozen=True)
class Located:
    """Weights that were found.

    Attributes:
      arrays: everything of their place, by names that begin there.
      place: what stood before the names; empty: nothing.
      left: other places of the file and how many entries each has.
    """

    arrays: dict[str, np.ndarray]
    place: str
    left: dict[str, int]


def locate(arrays: Mapping[str, np.ndarray], wanted: Collection[str], *, entry: str | None = None) -> Located:
    """Returns the entries of the place where most of the wanted names are.

    Args:
      arrays: by dotted path through the file.
      wanted: names that such weights have.
      entry: a place to take them from, or what it begins with; None: the only one, averaged weights (EMA) aside.

    Raises:
      ValueError: no wanted name is there, or several places have them and `entry` names none.
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
            f"checkpoint: expected entries such as {min(wanted, key=len)}, got {_listed(list(arrays)) or 'none'}"
        )
    place = choose({name: len(found) for name, found in counts.items()}, entry=entry)
    taken: dict[str, np.ndarray] = {}
    left: dict[str, int] = {}
    for name, array in arrays.items():
        if not _lies_in(name, place):
            left[_other(name, place)] = left.get(_other(name, place), 0) + 1
            continue
        plain = plain_name(name[len(place) + 1 :] if place else name)
        if plain in taken:
            raise ValueError(f"checkpoint: expected one entry {plain}, got two, differently wrapped")
        taken[plain] = array
    return Located(taken, place, left)


def choose(counts: Mapping[str, int], *, entry: str | None = None) -> str:
    """Returns the place of the wanted weights.

    Args:
      counts: how many wanted entries each place has; at least one place.
      entry: see `locate`.

    Raises:
      ValueError: several places have them and `entry` names none, or it names one that is not there.
    """
    named = {place: count for place, count in counts.items() if entry in (None, place) or _lies_in(place, str(entry))}
    if not named:
        raise ValueError(f"entry: expected one of {_listed(list(counts))}, got {entry!r}")
    if entry in named:
        return str(entry)
    rivals = [place for place, count in named.items() if 2 * count >= max(named.values())]
    plain = [place for place in rivals if not _AVERAGED.search(place)] or rivals
    if "" in plain:  # the file is a state dict; whatever else it holds is a part of that
        return ""
    if len(plain) > 1:
        raise ValueError(f"entry: expected one of {_listed(plain)}, which all hold such weights, got none")
    return plain[0]


def plain_name(name: str) -> str:
    """Returns a name without what wrappers put into it: the part `module`, and parts that begin with an underscore."""
    *parts, last = name.split(".")
    return ".".join([*(part for part in parts if not _wraps(part)), last])


def _wraps(part: str) -> bool:
    return part == "module" or part.startswith("_")


def _lies_in(name: str, place: str) -> bool:
    return not place or name.startswith(f"{place}.")


def _other(name: str, place: str) -> str:
    """Returns the part of a name that tells it from a place: its beginning up to the first part that differs."""
    parts, own = name.split("."), place.split(".")
    same = next((i for i, (left, right) in enumerate(zip(parts, own, strict=False)) if left != right), len(own))
    return ".".join(parts[: same + 1])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
