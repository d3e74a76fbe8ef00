"""What runs keep on disk: finished weights beside a description, and the states that a run resumes from.

Finished weights are one file of named arrays, `weights.npz`, beside a description, NAME.json: an object that names its
form and the file's digest, so that damage is found. Descriptions without weights, such as results, are read the same
way. States of a loop are Orbax's checkpoints; earlier versions kept finished weights in this form too.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pydantic
from flax import traverse_util

from hadas_jax.backend import LostProcessError, gather_json, guarded, is_first
from hadas_jax.runs.workdir import versions, write_text
from hw_models.files import STAGED, as_npz, explain, show, unwritable, whole_folder, write_whole

KindT = TypeVar("KindT")

WEIGHTS = "weights.npz"
ORBAX_WEIGHTS = "weights"
"""Folder of finished weights of earlier versions."""
_DIGESTS = "digests.json"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
_ORBAX_BYTES = 2**17  # of Orbax's own files, rounded up
_LONGEST_CHAIN = 10  # of errors that were raised from one another


def output_directory(
    directory: Path | str, files: tuple[str, ...], *, mark: str, overwrite: bool = False, parents: bool = False
) -> Path:
    """Checks that files may be written to a directory, for `whole_folder`.

    Args:
        directory: None, an empty one, one that was not written to the end, or with `overwrite` one that such files were
            written to.
        files: Patterns of the files' names.
        mark: The file among them that says what they are.
        overwrite: Whether they are replaced.
        parents: Whether folders above the directory may be missing.

    Returns:
        The directory as a path.

    Raises:
        ValueError: The directory holds something else, or what may not be replaced, or cannot be written to.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory, got a file")
    above = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"{directory}: expected a place to write to, but {above} is none")
    entries = sorted(entry for entry in directory.iterdir() if entry.name != STAGED) if directory.is_dir() else []
    is_unfinished, is_marked = (directory / STAGED).is_dir(), (directory / mark).is_file()
    foreign = [entry for entry in entries if not any(entry.match(pattern) for pattern in files)]
    if foreign or (entries and not is_marked and not is_unfinished):
        other = (foreign or entries)[0].name
        raise ValueError(f"{directory}: expected none, an empty directory or one with {mark}, got one with {other}")
    if entries and is_marked and not overwrite:
        raise ValueError(f"{directory} holds {mark}: `overwrite` replaces it")
    if not parents and not directory.absolute().parent.is_dir():
        raise ValueError(f"{directory}: expected a directory in an existing folder")
    return directory


def write_checkpoint(
    directory: Path, name: str, content: Mapping[str, Any], weights: Any, *, files: Mapping[str, bytes] | None = None
) -> None:
    """Writes weights and their description in place of what a directory holds, whole or not at all.

    Of several processes the first alone writes.

    Args:
        directory: The directory, created if need be.
        name: Name of the description's file.
        content: The description, which JSON can hold.
        weights: A tree of arrays.
        files: Contents of other files by name.

    Raises:
        ValueError: The directory cannot be written to.
    """
    if not is_first():
        return
    with whole_folder(directory, mark=name) as folder:
        for other, blob in (files or {}).items():
            write_whole(folder / other, blob)
        write_described(folder, name, content, weights)


def write_described(folder: Path, name: str, content: Mapping[str, Any], weights: Any = None) -> None:
    """Writes weights, then their description, into a folder that has neither; arguments as of `write_checkpoint`.

    Without weights, the description of those that are there is replaced.
    """
    if weights is None:
        entry = _weights_entry(folder / name)
    else:
        arrays = as_npz({path: np.asarray(leaf) for path, leaf in _leaves(weights, "/").items()})
        write_whole(folder / WEIGHTS, arrays)
        entry = {"file": WEIGHTS, "sha256": hashlib.sha256(arrays).hexdigest()}
    described = {} if entry is None else {"weights": entry}
    write_text(folder / name, json.dumps({**content, **described, "versions": versions()}, indent=1) + "\n")


def read_weights(directory: Path, name: str, *, shapes: Any = None) -> Any:
    """Reads the weights that a description describes.

    Args:
        directory: The directory of both.
        name: Name of the description's file.
        shapes: A tree of `jax.ShapeDtypeStruct` as the weights are; None returns nested dictionaries.

    Raises:
        ValueError: They are damaged, missing or others.
    """
    expected = None if shapes is None else _leaves(shapes, "/")
    where = f"{ORBAX_WEIGHTS}/"
    try:
        entry = _weights_entry(directory / name)
        if entry is None:
            if not (directory / ORBAX_WEIGHTS / "0").is_dir():
                raise ValueError("no weights")
            return jax.tree.map(jnp.asarray, Checkpoints(directory / ORBAX_WEIGHTS).restore(0, shapes))
        where = WEIGHTS
        content = (directory / WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError("digests differ")
        with np.load(io.BytesIO(content)) as file:
            arrays = {path: jnp.asarray(file[path]) for path in file.files}
        if expected is None:
            return traverse_util.unflatten_dict(arrays, sep="/")
        if _signature(arrays) != _signature(expected):
            raise ValueError("other names, shapes or types")
        return jax.tree.unflatten(jax.tree.structure(shapes), [arrays[path] for path in expected])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{directory}: expected the weights that {name} describes, but those in {where} are damaged, missing or "
            "others"
        ) from error


def _weights_entry(description: Path) -> Any:
    """What a description says of its weights; None: they are Orbax's."""
    return json.loads(description.read_text(encoding="utf-8")).get("weights")


def read_json(path: Path, form: str, *, what: str, hint: str = "") -> dict[str, Any]:
    """Reads a description of one form.

    Args:
        path: The file.
        form: The form that it has to name, such as `hadas_jax.network/1`.
        what: What it should be, in words for the error.
        hint: What to do, put behind the error.

    Returns:
        The object, its form included.

    Raises:
        ValueError: One line: the file cannot be read, or is of another form or version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        named = content["form"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected {what}, cannot read it{hint}") from error
    if named != form:
        raise ValueError(f"{path}: expected form {form}, got {show(named)}{hint}")
    return content


def validated(kind: type[KindT], content: object, *, path: Path, hint: str = "") -> KindT:
    """Checks what a description holds.

    Args:
        kind: The dataclass or pydantic model that it becomes.
        content: What the file holds.
        path: The file.
        hint: What to do, put behind the error.

    Returns:
        The checked value.

    Raises:
        ValueError: One line: the first field that does not fit, or what the kind itself says.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        message = first.get("ctx", {}).get("error")  # raised by the kind itself
        raise ValueError(f"{path}: {message or explain(first)}{hint}") from error


class Checkpoints:
    """The newest state of one loop, in a directory that all processes of a run see.

    All of them write and read together: of an array that lies on the devices of all, each writes a part.

    Args:
        directory: The directory, created if need be.

    Raises:
        ValueError: It cannot be created, or a process does not see it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        if is_first():
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(self._directory, error) from error
        gather_json(None)  # nobody looks before the first has made it
        blind = [number for number, sees in enumerate(gather_json(self._directory.is_dir())) if not sees]
        if blind:
            raise ValueError(
                f"checkpoints {self._directory}: expected a folder that all processes see, got none in process "
                f"{blind[0]}; give all of them a `workdir` on a file system that their machines share"
            )
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False, create=False)
        self._manager = guarded(
            lambda: ocp.CheckpointManager(
                self._directory, options=options, item_handlers=ocp.StandardCheckpointHandler()
            )
        )

    def newest(self) -> int | None:
        """Returns the newest step, or None where there is no checkpoint."""
        return gather_json(self._manager.latest_step())[0]

    def save(self, step: int, state: Any) -> None:
        """Writes a state; it appears whole or, if the process dies, not at all.

        Raises:
            ValueError: The directory cannot be written to; the checkpoint before is the newest then.
        """
        folder = self._directory / str(step)
        arrays = {path: _own(leaf) for path, leaf in _leaves(state, ".").items()}
        try:
            # Room is looked for before Orbax writes: its writers would go on, and print, after one has failed.
            _require_room(self._directory, sum(array.nbytes for array in arrays.values()))
            guarded(lambda: self._manager.save(step, args=ocp.args.StandardSave(arrays)))
        except LostProcessError:
            raise
        except Exception as error:  # Orbax and TensorStore raise what they like, also of a disk that is full
            for unfinished in self._directory.glob(f"{step}.*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            raise ValueError(f"checkpoint {folder}: expected to be written, got: {_reason(error)}") from error
        write_text(folder / _DIGESTS, json.dumps(_digests(folder)))

    def restore(self, step: int, like: Any) -> Any:
        """Reads a state of the form of `like`, a tree of arrays or of `jax.ShapeDtypeStruct`.

        Raises:
            ValueError: The files are damaged, or hold other arrays than `like` does.
        """
        folder = self._directory / str(step)
        expected = {path: jax.ShapeDtypeStruct(*of) for path, of in _signature(_leaves(like, ".")).items()}
        try:
            # Damage is looked for before Orbax reads: its readers would go on, and print, after one has failed.
            digests = folder / _DIGESTS
            if digests.is_file() and json.loads(digests.read_text(encoding="utf-8")) != _digests(folder):
                raise ValueError("digests differ")
            fits = _signature(self._manager.item_metadata(step).tree) == _signature(expected)
            arrays = guarded(lambda: self._restored(step, expected)) if fits else {}
        except LostProcessError:
            raise
        except Exception as error:  # Orbax and TensorStore raise whatever the damage causes
            raise ValueError(
                f"checkpoint {folder} is damaged and cannot be read; "
                "delete this folder to repeat its stage, then start with `resume` again"
            ) from error
        if not fits:
            raise ValueError(
                f"checkpoint {folder} is another run's: its arrays do not fit these settings; "
                "use the settings that it was made with, or another `workdir`"
            )
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in expected])

    def _restored(self, step: int, expected: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
        # Of several processes each reads all of it, as arrays of the host: the loop places them.
        shapes: Any = expected
        if jax.process_count() > 1:
            shapes = {path: np.empty(of.shape, of.dtype) for path, of in expected.items()}
        return self._manager.restore(step, args=ocp.args.StandardRestore(shapes))


def _own(leaf: Any) -> Any:
    """An array of all processes as it is, another one as an array of the host."""
    return leaf if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else np.asarray(leaf)


def _leaves(tree: Any, separator: str) -> dict[str, Any]:
    """Returns the leaves by their path, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=separator): leaf for path, leaf in leaves}


def _signature(leaves: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and type of every leaf."""
    arrays = {path: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for path, leaf in leaves.items()}
    return {path: (tuple(array.shape), np.dtype(array.dtype)) for path, array in arrays.items()}


def _require_room(directory: Path, size: int) -> None:
    """Raises as a full disk does where files of so many bytes do not fit with what Orbax writes beside them."""
    disk = shutil.disk_usage(directory)
    if disk.total > 0 and disk.free < size + size // 20 + _ORBAX_BYTES:  # some file systems tell no size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: BaseException) -> str:
    """What the operating system said, from whatever was made of it, or the first line of the error."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < _LONGEST_CHAIN:
        chain.append(below)
    reasons = [each.strerror for each in chain if isinstance(each, OSError) and each.strerror]
    reasons += [os.strerror(code) for code in _DISK_ERRORS if os.strerror(code) in " ".join(map(str, chain))]
    return next(iter(reasons), str(error).partition("\n")[0] or type(error).__name__)


def _digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _DIGESTS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
