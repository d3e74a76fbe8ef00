"""Versioned YAML files that a pydantic model describes, with one-line messages for what is wrong in them."""

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any, TypeVar, get_args

import pydantic
import yaml

from hw_models.messages import explain, show

Model = TypeVar("Model", bound=pydantic.BaseModel)


def read_checked(source: Traversable, model: type[Model], *, shown: str, version: int) -> Model:
    """Reads and checks a file.

    Args:
        source: The file.
        model: What it must hold.
        shown: Its name in messages.
        version: Its `schema_version`.

    Returns:
        The checked content.

    Raises:
        ValueError: One line: the file cannot be read, is no YAML, or as `checked`.
    """
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{shown}: expected a readable file, got: {error.strerror or type(error).__name__}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{shown}: expected YAML, got: {_one_line(error)}") from None
    try:
        return checked(content, model, version=version)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None


def checked(content: object, model: type[Model], *, version: int) -> Model:
    """Checks what a file holds.

    Args:
        content: What the YAML held.
        model: What it must hold.
        version: Its `schema_version`.

    Raises:
        ValueError: One line: field path, what was expected and what came.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a mapping of fields, got {show(content)}")
    found = content.get("schema_version", version)
    if isinstance(found, bool) or found != version:
        # Said alone, because a file of another version differs everywhere else too.
        raise ValueError(f"schema_version: expected {version}, got {show(found)}")
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        message = _explain(error.errors()[0], model)
        others = error.error_count() - 1
        raise ValueError(message + (f" (and {others} more)" if others else "")) from None


def _explain(error: Any, model: type[pydantic.BaseModel]) -> str:
    path = error["loc"]
    if error["type"] == "extra_forbidden":
        where = ".".join(str(part) for part in path)
        return f"{where}: expected no field of this name (known here: {', '.join(_fields(model, path[:-1]))})"
    return explain(error)


def _fields(model: Any, path: tuple[str | int, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):  # of a list, whose members are models of one kind
            continue
        model = model.model_fields[part].annotation if hasattr(model, "model_fields") else get_args(model)[1]
        model = next((option for option in get_args(model) if hasattr(option, "model_fields")), model)
    return list(model.model_fields)


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None) or 'an error'} at line {mark.line + 1}"
    return " ".join(str(error).split()) or type(error).__name__
