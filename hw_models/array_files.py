"""Files of arrays that say what they are: an npz with a JSON text, `metadata`, that names its form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.whole_files import as_npz, write_whole

_METADATA = "metadata"


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
