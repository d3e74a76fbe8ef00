"""Settings that a config file or a work directory holds."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

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
            raise ValueError(f"{source}: unknown setting {unknown[0]!r}: expected some of {', '.join(known)}")
        # YAML and JSON know lists only.
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**plain)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _if_file(name: str | None) -> str | None:
    """A name, or where a file is called so, its absolute path."""
    return _absolute(name) if name and Path(name).expanduser().is_file() else name
