"""A directory with a description, NAME.json, beside `weights/`, whose files carry digests, so that damage is found."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.checkpoints import CheckpointError, Checkpoints
from hadas_jax.parallel import is_first
from hadas_jax.workdir import write_text

WEIGHTS = "weights"


def write_described(directory: Path, name: str, *, text: str, weights: Any) -> None:
    """Writes both, in place of what is there; the description comes last, so that what it describes is whole.

    Args:
      directory: created if need be.
      name: of the description.
      text: of the description.
      weights: a tree of arrays.
    """
    if is_first():
        (directory / name).unlink(missing_ok=True)
        if (directory / WEIGHTS).is_dir():
            shutil.rmtree(directory / WEIGHTS)
        directory.mkdir(parents=True, exist_ok=True)
    Checkpoints(directory / WEIGHTS).save(0, weights)
    write_text(directory / name, text)


def read_weights(directory: Path, name: str, *, shapes: Any) -> Any:
    """Reads the weights that a description describes.

    Args:
      directory: of both.
      name: of the description.
      shapes: a tree of `jax.ShapeDtypeStruct` as the weights are.

    Raises:
      ValueError: they are damaged, missing or others.
    """
    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    try:
        if not (directory / WEIGHTS / "0").is_dir():
            raise CheckpointError("no weights")
        return jax.tree.map(jnp.asarray, Checkpoints(directory / WEIGHTS).restore(0, like))
    except CheckpointError as error:
        raise ValueError(
            f"{directory}: expected the weights that {name} describes, but those in {WEIGHTS}/ are damaged, missing or "
            "others"
        ) from error
