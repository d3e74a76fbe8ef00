"""Data sets by name: what is bundled with the dependencies, and the user's own files."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from hadas_jax.data.arrays import Splits, check_arrays
from hadas_jax.data.splitting import split

_NPZ = "npz:"


def dataset_names() -> tuple[str, ...]:
    """Returns what `load_dataset` takes."""
    return ("digits", f"{_NPZ}FILE")


def load_dataset(name: str, *, seed: int) -> Splits:
    """Loads and splits a data set.

    Args:
      name: `digits` (1,797 handwritten digits of 8x8 pixels, from scikit-learn), or `npz:FILE` with the arrays
        `images` [N, H, W] or [N, H, W, channels], uint8 or floating, and `labels` [N].
      seed: of the split.

    Raises:
      ValueError: an unknown name, or a file that does not hold such arrays.
    """
    if name == "digits":
        digits = load_digits()
        images = np.asarray(digits.images, np.float32)
        return split(*check_arrays(images / 16, digits.target, source=name), seed=seed, source=name)
    if name.startswith(_NPZ):
        path = Path(name.removeprefix(_NPZ))
        return split(*check_arrays(*_read_npz(path), source=str(path)), seed=seed, source=str(path))
    raise ValueError(f"unknown dataset {name!r}: expected one of {', '.join(dataset_names())}")


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"dataset file {path}: expected an npz file, got none at this path")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("not an archive")
            found = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"dataset file {path}: expected an npz file of plain arrays, cannot read it") from error
    missing = [key for key in ("images", "labels") if key not in found]
    if missing:
        raise ValueError(f"dataset file {path}: expected the arrays images and labels, got {', '.join(found)}")
    return found["images"], found["labels"]
