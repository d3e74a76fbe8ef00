"""Checks of settings: whatever does not fit is named by its flag."""

import math
from collections.abc import Iterable
from typing import Any


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
      name: of the setting.
      value: that it has.
      kind: int or float.
      lowest: bound that it may reach.
      above: bound that it may not reach.
      highest: bound that it may reach.
      below: bound that it may not reach.

    Raises:
      ValueError: it is none, or out of bounds.
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
      settings: that hold them.
      names: of the settings.
      kind: that their values are.
      wanted: the type in words.
      optional: None will do too.

    Raises:
      ValueError: a value is of another type.
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, kind) and not (optional and value is None):
            raise ValueError(f"{flag(name)}: expected {wanted}, got {value!r}")


def check_choice(settings: Any, name: str, choices: Iterable[str]) -> None:
    """Raises unless a setting is one of its choices.

    Raises:
      ValueError: it is none of them.
    """
    if getattr(settings, name) not in choices:
        raise ValueError(f"{flag(name)}: expected one of {', '.join(choices)}, got {getattr(settings, name)!r}")


def check_numbers(settings: Any, name: str, kind: type, wanted: str) -> None:
    """Raises unless a setting is a list of positive numbers.

    Raises:
      ValueError: it is no list, or holds something else.
    """
    values = getattr(settings, name)
    if not isinstance(values, tuple):
        raise ValueError(f"{flag(name)}: expected a list of {wanted}, got {values!r}")
    for value in values:
        check_number(name, value, kind, above=0)
