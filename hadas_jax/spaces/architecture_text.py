"""Networks of the DARTS space as users write them: a published name, a code, a genotype, or a file of one of these."""

import json
from pathlib import Path

import numpy as np

from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.genotypes import code_of, parse_genotype, published_genotype, published_genotype_names

_SUFFIXES = (".json", ".txt")


def read_architecture(text: str) -> np.ndarray:
    """Reads a network.

    Args:
        text: A published name (`DARTS_V2`), 28 digits with spaces where you like, `Genotype(normal=[...], ...)`, or
            the path of a file of one of these; a .json file has it under `genotype`, as `hadas dnas search` writes.

    Returns:
        The code, int32[28].

    Raises:
        ValueError: It is none of these; the message says what is wrong.
    """
    text = text.strip()
    if text in published_genotype_names():
        return code_of(published_genotype(text))
    if "Genotype(" in text:
        return code_of(parse_genotype(text))
    if text.endswith(_SUFFIXES) or Path(text).is_file():
        return _read_file(Path(text))
    if text and not set(text) - set("0123456789 "):
        return parse_code(text)
    raise ValueError(
        f"architecture: expected one of {', '.join(published_genotype_names())}, 28 digits, Genotype(...) or a file, "
        f"got {text if len(text) < 60 else text[:57] + '...'!r}"
    )


def _read_file(path: Path) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)["genotype"] if path.suffix == ".json" else text
    except OSError as error:
        raise ValueError(f"{path}: expected a file of an architecture, got: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected an architecture under genotype, cannot read it") from error
    if not isinstance(found, str) or Path(found.strip()[:200]).is_file():
        raise ValueError(f"{path}: expected the text of an architecture, got another content")
    try:
        return read_architecture(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
