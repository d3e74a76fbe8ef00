"""YAML files: read as YAML 1.2 understands numbers, and checked against a pydantic model, with one-line messages.

PyYAML follows YAML 1.1, where `1e-5` is text, `010` is eight and `1:30` is ninety. Here they are what YAML 1.2 and
JSON take them for: 0.00001, ten and text; a date is text too.
"""

import re
from collections.abc import Hashable, Mapping
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import pydantic
import yaml

from hw_models.messages import explain, show
from hw_models.text_files import decoded

Model = TypeVar("Model", bound=pydantic.BaseModel)

_INT, _FLOAT, _TIMESTAMP, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp", "merge"))
_OF_JSON = (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")))
_NUMBERS = {
    _INT: re.compile(r"[-+]?[0-9][0-9_]*$|0o[0-7]+$|0x[0-9a-fA-F]+$"),
    _FLOAT: re.compile(
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader for the values of JSON, which refuses a key that stands twice in a mapping."""

    yaml_constructors: ClassVar = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _OF_JSON}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in (key for key in keys if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE):
            name = self.construct_object(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {show(name)} a second time", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        """Joins the two halves by which JSON writes a character beyond 16 bits."""
        return str(self.construct_scalar(node)).encode("utf-16-le", "surrogatepass").decode("utf-16-le")


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that either version of YAML takes for a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in (_INT, _FLOAT, _TIMESTAMP)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(_INT, _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)
for _tag, _form in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def load_yaml(text: str) -> object:
    """Reads one YAML document, of which every JSON document is one.

    Args:
        text: The document.

    Returns:
        Mappings, lists, texts, numbers, booleans and None; numbers as YAML 1.2 takes them: `1e-5` is one.

    Raises:
        ValueError: One line: it is no YAML, or a key stands twice in a mapping; with line and column.
    """
    try:
        return yaml.load(text, _Loader)  # of a subclass of the safe loader
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"expected YAML, got: {_one_line(error)}") from None


def dump_yaml(content: object) -> str:
    """Writes what `load_yaml` reads back, fields in the order that they have."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


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
        content = source.read_bytes()
    except OSError as error:
        raise ValueError(f"{shown}: expected a readable file, got: {error.strerror or type(error).__name__}") from None
    try:
        return checked(load_yaml(decoded(content)), model, version=version)
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


def _fields(annotation: Any, path: tuple[str | int, ...]) -> list[str]:
    """Names of the fields of the model at a path within another one."""
    for part in path:
        annotation = _model_or_container(annotation)
        if hasattr(annotation, "model_fields"):
            annotation = annotation.model_fields[part].annotation
        else:
            annotation = get_args(annotation)[get_origin(annotation) is dict]  # of values, or of members
    return list(_model_or_container(annotation).model_fields)


def _model_or_container(annotation: Any) -> Any:
    """What of an annotation may have parts: of an optional model, the model."""

    def has_parts(option: Any) -> bool:
        return hasattr(option, "model_fields") or get_origin(option) in (dict, list, tuple)

    return annotation if has_parts(annotation) else next(filter(has_parts, get_args(annotation)))


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None) or 'an error'} at line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split()) or type(error).__name__
