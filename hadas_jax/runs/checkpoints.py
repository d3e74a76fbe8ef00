"""Checkpoints of one loop: Orbax, with errors that a user can act on.

A directory with a description, NAME.json, beside `weights/`, whose files carry digests, so that damage is found.

Descriptions in JSON: objects that name their form, read back and checked with errors of one line.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pydantic

from hadas_jax.backend import is_first, share
from hadas_jax.runs.workdir import write_text
from hw_models.files import explain, show, unwritable, whole_folder, write_whole

_DIGESTS = "digests.json"
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
_BESIDE = 2**17  # bytes of Orbax's own files, rounded up
_DEEPEST = 10  # errors that were raised of one another


class CheckpointError(ValueError):
    """A checkpoint is damaged or belongs to another run."""


class Checkpoints:
    """The newest states of one loop, in one directory.

    Of several processes the first alone reads and writes; the others get what it read.

    Args:
        directory: Created if need be.
        keep: How many of the newest to keep.
    """

    def __init__(self, directory: Path, *, keep: int = 1) -> None:
        self._directory = directory.absolute()
        if not is_first():
            return
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self._directory, error) from error
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=False,
                create=False,
                multiprocessing_options=alone,
            ),
            item_handlers=ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        )

    def newest(self) -> int | None:
        """Returns the newest step, or None where there is no checkpoint."""
        found = self._manager.latest_step() if is_first() else None
        step = int(share(np.int32(-1 if found is None else found)))
        return None if step < 0 else step

    def save(self, step: int, state: Any) -> None:
        """Writes a state; it appears whole or, if the process dies, not at all.

        Raises:
            ValueError: The directory cannot be written to; the checkpoint before is the newest then.
        """
        if not is_first():
            return
        where, arrays = self._directory / str(step), _flatten(state)
        try:
            # Room is looked for before Orbax writes: its writers would go on, and print, after one has failed.
            _require_room(self._directory, sum(array.nbytes for array in arrays.values()))
            self._manager.save(step, args=ocp.args.StandardSave(arrays))
        except Exception as error:  # Orbax and TensorStore raise what they like, also of a disk that is full
            for unfinished in self._directory.glob(f"{step}.*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise ValueError(f"checkpoint {where}: expected to be written, got: {_reason(error)}") from error
        write_text(where / _DIGESTS, json.dumps(_digests(where)))

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state of the form of `like`.

        Raises:
            CheckpointError: The files are damaged, or hold other arrays than `like` does.
        """
        return share(self._read(step, like) if is_first() else jax.tree.map(np.asarray, like))

    def _read(self, step: int, like: Any) -> Any:
        where = self._directory / str(step)
        expected = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in _flatten(like).items()}
        try:
            # Damage is looked for before Orbax reads: its readers would go on, and print, after one has failed.
            digests = where / _DIGESTS
            if digests.is_file() and json.loads(digests.read_text(encoding="utf-8")) != _digests(where):
                raise ValueError("digests differ")
            found = self._manager.item_metadata(step).tree
            fits = {n: (tuple(a.shape), a.dtype) for n, a in found.items()} == {
                n: (a.shape, a.dtype) for n, a in expected.items()
            }
            arrays = self._manager.restore(step, args=ocp.args.StandardRestore(expected)) if fits else {}
        except Exception as error:  # Orbax and TensorStore raise whatever the damage causes
            raise CheckpointError(
                f"checkpoint {where} is damaged and cannot be read; "
                "delete this folder to repeat its stage, then start with --resume again"
            ) from error
        if not fits:
            raise CheckpointError(
                f"checkpoint {where} is another run's: its arrays do not fit these settings; "
                "use the settings that it was made with, or another --workdir"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


def _require_room(directory: Path, size: int) -> None:
    """Raises as a full disk does where files of so many bytes do not fit with what Orbax writes beside them."""
    disk = shutil.disk_usage(directory)
    if disk.total > 0 and disk.free < size + size // 20 + _BESIDE:  # some file systems tell no size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: BaseException) -> str:
    """What the operating system said, from whatever was made of it, or the first line of the error."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < _DEEPEST:
        chain.append(below)
    said = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    known = [os.strerror(code) for code in _OF_DISKS if os.strerror(code) in " ".join(map(str, chain))]
    return next(iter(said + known), str(error).partition("\n")[0] or type(error).__name__)


def _digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _DIGESTS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _flatten(state: Any) -> dict[str, np.ndarray]:
    """Returns the leaves by their path, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


WEIGHTS = "weights"


def write_checkpoint(
    directory: Path, name: str, *, text: str, weights: Any, files: Mapping[str, bytes] | None = None
) -> None:
    """Writes all of it, in place of what is there, whole or not at all; the first of several processes alone does.

    Args:
        directory: Created if need be.
        name: Of the description.
        text: Of the description.
        weights: A tree of arrays.
        files: Others by name.
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
        directory: Of both.
        name: Of the description.
        shapes: A tree of `jax.ShapeDtypeStruct` as the weights are.

    Raises:
        ValueError: They are damaged, missing or others.
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


KindT = TypeVar("KindT")


def read_checkpoint(path: Path, form: str, *, what: str, hint: str = "") -> dict[str, Any]:
    """Reads a description of one form.

    Args:
        path: Of the file.
        form: That it has to name, such as `hadas_jax.network/1`.
        what: It should be, in words for the error.
        hint: On what to do, put behind the error.

    Returns:
        The object, its form included.

    Raises:
        ValueError: One line: the file cannot be read, or is of another form or version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected {what}, cannot read it{hint}") from error
    if found != form:
        raise ValueError(f"{path}: expected form {form}, got {show(found)}{hint}")
    return content


def validated(kind: type[KindT], content: object, *, path: Path, hint: str = "") -> KindT:
    """Checks what a description holds.

    Args:
        kind: Dataclass or pydantic model that it becomes.
        content: Of the file.
        path: Of the file.
        hint: On what to do, put behind the error.

    Returns:
        The checked value.

    Raises:
        ValueError: One line: the first field that does not fit, or what the kind itself says.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        own = first.get("ctx", {}).get("error")  # raised by the kind itself
        raise ValueError(f"{path}: {own or explain(first)}{hint}") from error
