"""Settings that a config file or a work directory holds."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Self

from hadas_jax.paths import expand_home


@dataclass(frozen=True)
class StoredSettings:
    """Base of the settings of every run."""

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
