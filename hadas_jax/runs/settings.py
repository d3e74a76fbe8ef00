"""Settings that a config file or a work directory holds.

Checks of settings: whatever does not fit is named by its flag.

Paths as a user writes them.
"""

import math
from collections.abc import Iterable
from typing import Any
import os
import re
import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from typing import Self



def flag(name: str) -> str:
    """Returns the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def check_number(
    name: str,
    value: object,
    kind: type,
    *,
    lowest: float | None = None,
    above: float | None = None,
    highest: float | None = None,
    below: float | None = None,
) -> None:
    """Raises unless a setting is a number within bounds.

    Args:
        name: Of the setting.
        value: That it has.
        kind: Int or float.
        lowest: Bound that it may reach.
        above: Bound that it may not reach.
        highest: Bound that it may reach.
        below: Bound that it may not reach.

    Raises:
        ValueError: It is none, or out of bounds.
    """
    wanted = "a whole number" if kind is int else "a number"
    bounds = [f"of at least {lowest}"] if lowest is not None else []
    bounds += [f"above {above}"] if above is not None else []
    bounds += [f"of at most {highest}"] if highest is not None else []
    bounds += [f"below {below}"] if below is not None else []
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if right:
        assert isinstance(value, int | float)
        right = (
            math.isfinite(value)
            and (lowest is None or value >= lowest)
            and (above is None or value > above)
            and (highest is None or value <= highest)
            and (below is None or value < below)
        )
    if not right:
        text = ", which is text: leave out its quotes" if _is_numeral(value) else ""
        raise ValueError(f"{flag(name)}: expected {wanted} {' and '.join(bounds)}, got {value!r}{text}")


def _is_numeral(value: object) -> bool:
    """Whether a value is text that reads as a number."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def check_fields(settings: Any, names: Iterable[str], kind: type, wanted: str, *, optional: bool = False) -> None:
    """Raises unless some settings are of a type.

    Args:
        settings: That hold them.
        names: Of the settings.
        kind: That their values are.
        wanted: The type in words.
        optional: None will do too.

    Raises:
        ValueError: A value is of another type.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, kind) and not (optional and value is None):
            raise ValueError(f"{flag(name)}: expected {wanted}, got {value!r}")


def check_choice(settings: Any, name: str, choices: Iterable[str]) -> None:
    """Raises unless a setting is one of its choices.

    Raises:
        ValueError: It is none of them.
    """
    if getattr(settings, name) not in choices:
        raise ValueError(f"{flag(name)}: expected one of {', '.join(choices)}, got {getattr(settings, name)!r}")


def check_numbers(settings: Any, name: str, kind: type, wanted: str) -> None:
    """Raises unless a setting is a list of positive numbers.

    Raises:
        ValueError: It is no list, or holds something else.
    """
    values = getattr(settings, name)
    if not isinstance(values, tuple):
        raise ValueError(f"{flag(name)}: expected a list of {wanted}, got {values!r}")
    for value in values:
        check_number(name, value, kind, above=0)
_HOME = re.compile(r"(?P<before>(?:--[\w-]+=)?(?:npz:|folder:)?)(?P<path>~.*)", re.DOTALL)


def expand_home(text: str) -> str:
    """Returns a path, data set or flag with the home folder for `~`, which shells put in at a word's start alone.

    Args:
        text: `~/images`, `npz:~/data.npz`, `--checkpoint=~/supernet`; anything else is returned as it is.
    """
    found = _HOME.fullmatch(text)
    return text if found is None else found["before"] + os.path.expanduser(found["path"])
_OF_FILES = ("npz", "folder")  # kinds of data sets whose names end in a path


@dataclass(frozen=True)
class StoredSettings:
    """Base of the settings of every run.

    Attributes:
        PATHS: Settings that are paths.
        NAMES_OR_PATHS: Settings, or lists, of names that may be files instead.
    """

    PATHS: ClassVar[tuple[str, ...]] = ()
    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = ()

    def absolute(self) -> Self:
        """Returns these settings with absolute paths, so that they mean the same in every folder."""
        changed: dict[str, Any] = {name: _absolute(getattr(self, name)) for name in self.PATHS if getattr(self, name)}
        for name in self.NAMES_OR_PATHS:
            value = getattr(self, name)
            changed[name] = tuple(map(_if_file, value)) if isinstance(value, tuple) else _if_file(value)
        kind, colon, path = (getattr(self, "dataset", None) or "").partition(":")
        if colon and kind in _OF_FILES:
            changed["dataset"] = f"{kind}:{_absolute(path)}"
        return dataclasses.replace(self, **changed)

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> Self:
        """Builds settings from the content of a file.

        Raises:
            ValueError: No mapping, an unknown name, or a value that does not fit.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{source}: expected settings by name, got {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(name) for name in values if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0].replace("-", "_").lower(), known, n=1)
            nearest = f"{near[0]}, or one of the others: " if near else "some of "
            raise ValueError(f"{source}: unknown setting {unknown[0]!r}: expected {nearest}{', '.join(known)}")
        plain = {name: _as_setting(value) for name, value in values.items()}
        try:
            return cls(**plain)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _as_setting(value: object) -> Any:
    """Returns a value of a file as settings have it: tuples for lists, and the home folder for `~`."""
    if isinstance(value, list):
        return tuple(_as_setting(each) for each in value)
    return expand_home(value) if isinstance(value, str) else value


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _if_file(name: str | None) -> str | None:
    """A name, or where a file is called so, its absolute path."""
    return _absolute(name) if name and Path(name).expanduser().is_file() else name
