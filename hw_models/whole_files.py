"""Files that appear whole at their place or not at all, whatever happens while they are written."""

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


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


def unwritable(path: Path | str, error: OSError) -> ValueError:
    """Returns what to raise where something cannot be written: one line that names it and the reason."""
    return ValueError(f"{path}: expected a file that can be written, got: {error.strerror or error}")


def as_npz(arrays: Mapping[str, Any], *, compressed: bool = False) -> bytes:
    """Returns arrays by name as the content of an .npz file."""
    content, save = io.BytesIO(), np.savez_compressed if compressed else np.savez
    save(content, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return content.getvalue()
