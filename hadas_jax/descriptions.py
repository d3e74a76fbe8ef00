"""Descriptions in JSON: objects that name their form, read back and checked with errors of one line."""

import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from hw_models.messages import explain, show

KindT = TypeVar("KindT")


def read_described(path: Path, form: str, *, what: str, hint: str = "") -> dict[str, Any]:
    """Reads a description of one form.

    Args:
      path: of the file.
      form: that it has to name, such as `hadas_jax.network/1`.
      what: it should be, in words for the error.
      hint: on what to do, put behind the error.

    Returns:
      The object, its form included.

    Raises:
      ValueError: one line: the file cannot be read, or is of another form or version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected {what}, cannot read it{hint}") from error
    if found != form:
        raise ValueError(f"{path}: expected form {form}, got {show(found)}{hint}")
    return content


def validated(kind: type[KindT], content: object, *, path: Path, hint: str = "") -> KindT:
    """Checks what a description holds.

    Args:
      kind: dataclass or pydantic model that it becomes.
      content: of the file.
      path: of the file.
      hint: on what to do, put behind the error.

    Returns:
      The checked value.

    Raises:
      ValueError: one line: the first field that does not fit, or what the kind itself says.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        own = first.get("ctx", {}).get("error")  # raised by the kind itself
        raise ValueError(f"{path}: {own or explain(first)}{hint}") from error
