"""Genotypes by whatever a user has of one: a published name, a code, DARTS's text, or a file."""

import json
from pathlib import Path

from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.genotypes import (
    Genotype,
    genotype_of,
    parse_genotype,
    published_genotype,
    published_genotype_names,
)

_FORM = "hadas_jax.genotype/1"


def read_genotype(source: str) -> Genotype:
    """Reads a genotype.

    Args:
        source: A published name such as `DARTS_V2`; a code of 28 digits, with spaces where you like; DARTS's text,
            `Genotype(normal=[...], ...)`; or the path of a file with a code or a text in it, or of the genotype.json
            of a search.

    Returns:
        The genotype.

    Raises:
        ValueError: It is none of these, or stands for no network of the space.
    """
    if source in published_genotype_names():
        return published_genotype(source)
    if _is_written_out(source):
        return _parsed(source)
    path = Path(source)
    path = path / "genotype.json" if path.is_dir() else path
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError, ValueError):
        names = ", ".join(published_genotype_names())
        raise ValueError(
            f"genotype: expected one of {names}, a code of 28 digits, Genotype(...) or a file that can be read, got "
            f"{source!r}"
        ) from None
    try:
        return _parsed(text) if _is_written_out(text) else _from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_written_out(text: str) -> bool:
    digits = "".join(text.split())
    return text.lstrip()[:1] != "{" and ("Genotype(" in text or (digits.isascii() and digits.isdigit()))


def _parsed(text: str) -> Genotype:
    return parse_genotype(text) if "Genotype(" in text else genotype_of(parse_code(text))


def _from_json(text: str) -> Genotype:
    try:
        content = json.loads(text)
        form, code = content["form"], content["code"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"genotype: expected a code, Genotype(...) or JSON of form {_FORM}, got neither") from None
    if form != _FORM or not isinstance(code, str):
        raise ValueError(f"genotype: expected form {_FORM} with a code as text, got form {form!r}")
    return genotype_of(parse_code(code))
