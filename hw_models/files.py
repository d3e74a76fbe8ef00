"""Files of users and of the project: what they are, reading them with one-line messages, and writing them whole.

- Whatever is written appears whole at its place or not at all: `write_whole`, `whole_folder`, `write_arrays`.
- Text is UTF-8, or another encoding that its first bytes name, whatever the locale: `read_text`.
- YAML is read as YAML 1.2 and JSON understand numbers and checked against a pydantic model: `load_yaml`, `checked`,
  `read_checked`. PyYAML follows YAML 1.1, where `1e-5` is text, `010` is eight and `1:30` is ninety; here they are
  0.00001, ten and text, and a date is text too.
- `what_it_is` says what a file is that is not what was expected, by its first bytes and never by its name; `explain`
  says what of a user's data a schema does not allow.
"""

import codecs
import contextlib
import html
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Hashable, Iterator, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin

import numpy as np
import pydantic
import yaml

STAGED = ".partial"
Model = TypeVar("Model", bound=pydantic.BaseModel)
_METADATA = "metadata"
_EXPECTED = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "extra_forbidden": "no field of this name",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "text as the name of a field",
    "dict_type": "a mapping of names",
    "list_type": "a list",
    "too_short": "at least {min_length} value",
    "literal_error": "{expected}",
    "model_type": "a mapping of fields",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text that matches {pattern}",
}
_READ, _SHOWN = 4096, 40
_SIGNATURES = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ\x00": "an xz archive: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy file of one array",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
}
_MARKS = {  # the longer marks first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_INT, _FLOAT, _TIMESTAMP, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp", "merge"))
_OF_JSON = (None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")))
_NUMBERS = {
    _INT: re.compile(r"[-+]?[0-9][0-9_]*$|0o[0-7]+$|0x[0-9a-fA-F]+$"),
    _FLOAT: re.compile(
        r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
}


def write_whole(path: Path | str, content: bytes) -> None:
    """Writes a file beside its place first; one that is there is replaced when all is written.

    Args:
        path: The file.
        content: Of the file.

    Raises:
        ValueError: The file cannot be written; then the place is as it was.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def as_npz(arrays: Mapping[str, Any], *, compressed: bool = False) -> bytes:
    """Returns arrays by name as the content of an .npz file."""
    content, save = io.BytesIO(), np.savez_compressed if compressed else np.savez
    save(content, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return content.getvalue()


@contextlib.contextmanager
def whole_folder(directory: Path, *, mark: str) -> Iterator[Path]:
    """Gives a folder to write files into; they replace what a directory holds when the context ends well.

    Where it does not, the directory keeps what it held. A process that dies while files are replaced leaves `STAGED`
    and no `mark`.

    Args:
        directory: Created if need be; everything in it is replaced.
        mark: The file that says what the others are, removed first and written last.

    Raises:
        ValueError: The directory cannot be written to.
    """
    staged, is_new = directory / STAGED, not directory.exists()
    try:
        remove(staged)
        staged.mkdir(parents=True)
        yield staged
        (directory / mark).unlink(missing_ok=True)
        for entry in directory.iterdir():
            if entry != staged:
                remove(entry)
        for entry in sorted(staged.iterdir(), key=lambda entry: entry.name == mark):
            entry.rename(directory / entry.name)
    except OSError as error:
        raise unwritable(error.filename or directory, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # of a directory with files
                directory.rmdir()


def remove(path: Path) -> None:
    """Removes a file or a folder, or nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unwritable(path: Path | str, error: OSError) -> ValueError:
    """Returns what to raise where something cannot be written: one line that names it and the reason."""
    return ValueError(f"{path}: expected a file that can be written, got: {error.strerror or error}")


def write_arrays(path: Path, arrays: Mapping[str, Any], *, form: str, metadata: Mapping[str, Any]) -> None:
    """Writes a file, whole or not at all; one at this path is replaced.

    Args:
        path: The file, .npz.
        arrays: By name.
        form: Of the file, such as `hw_models.predictor/1`.
        metadata: Everything else; what JSON holds.

    Raises:
        ValueError: The file cannot be written.
    """
    text = np.array(json.dumps({"form": form, **metadata}))
    write_whole(path, as_npz({_METADATA: text, **arrays}))


def read_arrays(path: Path, *, form: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file that `write_arrays` wrote.

    Args:
        path: The file.
        form: That it has to name.

    Returns:
        The arrays by name, and the metadata.

    Raises:
        ValueError: The file is of another form.
        Exception: Whatever damage makes numpy, zipfile and json raise.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        arrays = dict(content)
    metadata = json.loads(str(arrays.pop(_METADATA)))
    if metadata["form"] != form:
        raise ValueError(f"form {metadata['form']!r}")
    return arrays, metadata


def read_text(path: str | Traversable) -> str:
    """Reads a text file, line ends as they are.

    Args:
        path: The file.

    Returns:
        The text without the mark of its encoding.

    Raises:
        ValueError: One line that says what it is instead of text in UTF-8, or in UTF-16 or UTF-32 with their mark.
        OSError: The file cannot be read.
    """
    content = (Path(path) if isinstance(path, str) else path).read_bytes()
    mark, encoding = next((pair for pair in _MARKS.items() if content.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: len(mark) + error.start].count(b"\n") + 1
        raise ValueError(
            f"expected text in {encoding.upper()}, got other bytes in line {line}: save the file as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError("expected text in UTF-8, got bytes of zero, as in UTF-16 without its mark: save it as UTF-8")
    return text


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
        ValueError: In one line: the file cannot be read, is no YAML, or as `checked`.
    """
    try:
        return checked(load_yaml(read_text(source)), model, version=version)
    except OSError as reason:
        raise ValueError(
            f"{shown}: expected a readable file, got: {reason.strerror or type(reason).__name__}"
        ) from None
    except ValueError as reason:
        raise ValueError(f"{shown}: {reason}") from None


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
    given = content.get("schema_version", version)
    if isinstance(given, bool) or given != version:
        # Said alone, because a file of another version differs everywhere else too.
        raise ValueError(f"schema_version: expected {version}, got {show(given)}")
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        message = _explain(error.errors()[0], model)
        others = error.error_count() - 1
        raise ValueError(message + (f" (and {others} more)" if others else "")) from None


def packaged_names(folder: Traversable) -> list[str]:
    """Names of the YAML files that come with the package in a folder, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_packaged_or_own(
    name_or_path: str | Path, folder: Traversable, model: type[Model], *, what: str, version: int
) -> Model:
    """Reads and checks a YAML file of the package by its name, or a user's own by its path.

    Args:
        name_or_path: A name of `packaged_names`, or a path: a `Path`, or a text that ends in `.yaml` or `.yml` or has
            a folder in it.
        folder: Of the package's files.
        model: What the file must hold.
        what: It describes, for messages.
        version: Its `schema_version`.

    Raises:
        ValueError: As `read_checked`, or no file has this name, and the valid ones are listed.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith((".yaml", ".yml")) or set(name_or_path) & set("/\\"):
        return read_checked(Path(name_or_path), model, shown=str(name_or_path), version=version)
    names = packaged_names(folder)
    if name_or_path not in names:
        raise ValueError(
            f"{what}: expected one of {', '.join(names)}, or the path of a .yaml file, got {str(name_or_path)!r}"
        )
    file = folder / f"{name_or_path}.yaml"
    return read_checked(file, model, shown=file.name, version=version)


def explain(error: Any) -> str:
    """Turns one of pydantic's errors into `field: expected ..., got ...`."""
    path, kind, context = error["loc"], error["type"], error.get("ctx", {})
    where = ".".join(str(part) for part in path if not str(part).startswith("["))  # [key], and tags of unions
    if kind == "missing":
        return f"{where}: expected a value, got nothing"
    expected = _EXPECTED.get(kind)
    wanted = expected.format(**context) if expected else error["msg"]
    return (f"{where}: " if where else "") + f"expected {wanted}, got {show(context.get('got', error['input']))}"


def show(value: object, limit: int = 60) -> str:
    """Shows a value in a message, cut to a bearable length."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def what_it_is(path: Path | str) -> str | None:
    """Says what a file is where its content gives it away.

    Args:
        path: Of a file that exists.

    Returns:
        Words with size and first characters, and what to do; None for a zip archive that is whole and for binary data
        without a known signature.

    Raises:
        OSError: It cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_READ)
    if not start:
        return "an empty file"
    kind = next((words for signature, words in _SIGNATURES.items() if start.startswith(signature)), None)
    if kind is not None:
        return f"{kind} ({size:,} bytes)"
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return f"a zip archive that is cut off after {size:,} bytes: copy or download it again"
    if start[257:262] == b"ustar":
        return f"a tar archive ({size:,} bytes): unpack it first"
    if len(start) > 8 and start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= size - 8:
        return f"a safetensors file ({size:,} bytes): write its tensors to an npz file, numpy.savez(FILE, **tensors)"
    text = _text(start)
    return None if text is None else _named_text(text, size)


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


def _text(start: bytes) -> str | None:
    """Returns the beginning as text, None where it is none."""
    for encoding in ("utf-16", "utf-8-sig") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            text = start.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(start) - 4:  # else a character that the reading cut
                continue
            text = start[: error.start].decode(encoding, errors="ignore")
        if all(character.isprintable() or character.isspace() for character in text):
            return text
    return None


def _named_text(text: str, size: int) -> str:
    words = " ".join(text.split())
    beginning = f"beginning with {words[:_SHOWN]!r}"
    if words.startswith("version https://git-lfs"):
        return (
            f"a Git LFS pointer, a text file of {size:,} bytes {beginning}: git lfs pull fetches the file it stands for"
        )
    if re.match(r"<(!doctype html|html|head|body|\?xml)", words, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", words, re.IGNORECASE)
        named = f", titled {html.unescape(title[1]).strip()!r}," if title else ""
        return f"a web page of {size:,} bytes{named} {beginning}: download the file itself, as a browser would"
    return f"a text file of {size:,} bytes {beginning}"


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
