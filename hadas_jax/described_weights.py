"""A directory with a description, NAME.json, beside `weights/`, whose files carry digests, so that damage is found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.checkpoints import CheckpointError, Checkpoints
from hadas_jax.parallel import is_first
from hadas_jax.whole_folders import whole_folder
from hadas_jax.workdir import write_text
from hw_models.whole_files import write_whole

WEIGHTS = "weights"


def write_described(
    directory: Path, name: str, *, text: str, weights: Any, files: Mapping[str, bytes] | None = None
) -> None:
    """Writes all of it, in place of what is there, whole or not at all; the first of several processes alone does.

    Args:
      directory: created if need be.
      name: of the description.
      text: of the description.
      weights: a tree of arrays.
      files: others by name.
    """
    if not is_first():
        return
    with whole_folder(directory, mark=name) as folder:
        Checkpoints(folder / WEIGHTS).save(0, weights)
        for other, content in (files or {}).items():
            write_whole(folder / other, content)
        write_text(folder / name, text)


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
