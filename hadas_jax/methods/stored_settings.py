"""Settings that a config file or a work directory holds."""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from hadas_jax.paths import expand_home

_OF_FILES = ("npz", "folder")  # kinds of data sets whose names end in a path


@dataclass(frozen=True)
class StoredSettings:
    """Base of the settings of every run.

    Attributes:
      PATHS: settings that are paths.
      NAMES_OR_PATHS: settings, or lists, of names that may be files instead.
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
          ValueError: no mapping, an unknown name, or a value that does not fit.
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
