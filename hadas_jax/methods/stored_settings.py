"""Settings that a config file or a work directory holds."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self


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
            raise ValueError(f"{source}: unknown setting {unknown[0]!r}: expected some of {', '.join(known)}")
        # YAML and JSON know lists only.
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**plain)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
