"""The work directory of a run: its settings, metrics and checkpoints; nothing else is ever touched.

One process at a time writes there, by a lock that the operating system releases when the process ends. Where a file
system has no such locks (some network and user-space ones), a line on standard error says so, and whoever writes goes
on without.
"""

import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import re
import socket
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from hadas_jax.backend import is_first
from hadas_jax.runs import names
from hadas_jax.runs.listing import read_metrics
from hadas_jax.runs.names import CONFIG, FORM, METRICS
from hw_models.files import remove, unwritable, write_whole

_OF_SEARCH = ("front.csv", "front.json", "front.png", "levels.csv", names.EVALUATED)
_OF_TRAINING = (names.SUPERNET, "exits.csv", "exits.png")
_OF_DNAS = (names.DERIVED, names.RESULT, "genotype.json", "genotype.png", "predictor.npz", names.ARCHITECTURE)
_OF_EXITS = (names.GIVEN, names.FEATURES)
_OF_CHECK = (names.CHECK, "check.csv", "check.png", names.CHECK_KITS)
_OF_ALL = (METRICS, names.CHECKPOINTS, names.REPORT, names.TENSORBOARD)
# Besides CONFIG, which is replaced last: until then the directory is recognised as a run's.
_FILES = (*_OF_ALL, *_OF_SEARCH, *_OF_CHECK, *_OF_TRAINING, *_OF_DNAS, *_OF_EXITS)
_LOCK, _HOLDER = ".lock", ".lock.json"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_PATIENCE_S = 1.0  # for the name of a holder that has taken the lock and not said its name yet
_OF_JAX = ("jax", "jaxlib", "flax", "grain", "optax", "evosax", "orbax-checkpoint")
_PACKAGES = ("hadas-jax", *_OF_JAX, "numpy", "scikit-learn", "tensorflow-datasets")


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


class InUseError(ValueError):
    """Another process writes into the work directory."""


class WorkDir:
    """A directory that holds one run. Of several processes only the first writes to it.

    Args:
        path: The directory.
        kind: Kind of the run, such as `search` or `train`.
        tensorboard: Write metrics for TensorBoard too, which needs the extra of this name.

    Raises:
        ValueError: `tensorboard` without the extra.
    """

    def __init__(self, path: Path, *, kind: str = "search", tensorboard: bool = False) -> None:
        self.path, self._kind, self._form = path, kind, _form(kind)
        self._scalars = _Scalars(path) if tensorboard else None

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / CONFIG).is_file()

    @property
    def kind(self) -> str | None:
        """The kind of the run that is here; None: there is none, or its config.json is no such file."""
        try:
            form = str(json.loads((self.path / CONFIG).read_text(encoding="utf-8"))["form"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return form.removeprefix(FORM).partition("/")[0]

    @contextlib.contextmanager
    def run(
        self,
        settings: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        data: dict[str, Any] | None = None,
        reads: str | None = None,
    ) -> Iterator[None]:
        """Holds the directory for a run, which is begun anew or resumed; touches nothing that another process holds.

        Args:
            settings: Settings of the run.
            resume: Whether the run that is there goes on.
            overwrite: Whether the run that is there is replaced.
            data: Record of the run's data set and its division.
            reads: Directory of a supernet that the run starts from.

        Raises:
            InUseError: Another process holds the directory.
            ValueError: The directory of a new run holds a run and `overwrite` is not set, holds something else, or
                holds what the run starts from.
        """
        is_new = is_first() and not resume
        if is_new:
            self._require_fit(reads)
            with _named(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            if is_new:
                self._require_fit(reads)  # again: another process may have written in between
                content = {"form": self._form, "settings": settings, "data": data, "versions": versions()}
                self._begin(json.dumps(content, indent=2) + "\n", overwrite=overwrite)
            yield

    def require_unused(self) -> None:
        """Raises where another process writes here; a quick look before what takes time.

        Raises:
            InUseError: Another process does.
        """
        if (self.path / _LOCK).exists():
            with _locked(self.path):
                pass

    def _begin(self, config: str, *, overwrite: bool) -> None:
        """Writes the config.json of a new run, in place of a run that is there and may be replaced."""
        if self.holds_run and not overwrite:
            raise ValueError(f"work directory {self.path} holds a run: `resume` continues it, `overwrite` replaces it")
        try:
            for name in _FILES if self.holds_run else ():
                remove(self.path / name)
            for entry in self.path.glob("*.partial"):
                if _is_partial(entry.name):
                    entry.unlink()
        except OSError as error:
            raise unwritable(error.filename or self.path, error) from error
        write_text(self.path / CONFIG, config)

    def _require_fit(self, reads: str | None) -> None:
        """Raises where the directory holds something else than a run, or what the run starts from."""
        if reads is not None and Path(reads).resolve().is_relative_to(self.path.resolve()):
            raise ValueError(
                f"checkpoint {reads}: expected one outside the work directory {self.path}, which a new run replaces"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"work directory {self.path}: expected a directory, got a file")
        names = sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
        foreign = [name for name in names if name not in (_LOCK, _HOLDER) and not _is_partial(name)]
        if foreign and not self.holds_run:
            raise ValueError(
                f"work directory {self.path}: expected none, an empty one or a run's, got one with {foreign[0]}"
            )

    def settings(self) -> dict[str, Any]:
        """Returns the settings of the run that is here.

        Raises:
            ValueError: There is no run, or its config.json is no such file.
        """
        return self._config()["settings"]

    def data(self) -> dict[str, Any] | None:
        """Returns the record of the data set of the run that is here; None: of an earlier version.

        Raises:
            ValueError: As `settings`.
        """
        return self._config().get("data")

    def _config(self) -> dict[str, Any]:
        path = self.path / CONFIG
        if not self.holds_run:
            raise ValueError(f"work directory {self.path}: expected a run to resume, got none (no {CONFIG})")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: expected the settings of a run, cannot read them") from error
        settings_within(content, kind=self._kind, source=str(path))
        return content

    def drop_metrics(self, stage: str, done: int) -> None:
        """Forgets a stage's metrics past step `done`, which are about to be repeated."""
        if not is_first():
            return
        kept = [entry for entry in read_metrics(self.path) if entry["stage"] != stage or entry["step"] <= done]
        if (self.path / METRICS).is_file():
            write_text(self.path / METRICS, "".join(f"{json.dumps(entry)}\n" for entry in kept))
        if self._scalars is not None:
            self._scalars.restart(stage, done, [entry for entry in kept if entry["stage"] == stage])

    def add_metrics(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Appends one line of metrics."""
        if not is_first():
            return
        _append_line(self.path / METRICS, json.dumps({"stage": stage, "step": step, **metrics}))
        if self._scalars is not None:
            self._scalars.add(stage, step, metrics)


def settings_within(content: object, *, kind: str, source: str) -> dict[str, Any]:
    """Returns the settings in the content of a config.json.

    Args:
        content: What the file holds.
        kind: Kind of the run.
        source: Name of the file, for errors.

    Raises:
        ValueError: It is none, or that of another kind of run.
    """
    if not isinstance(content, dict) or not {"form", "settings"} <= set(content):
        raise ValueError(f"{source}: expected the settings of a run, cannot read them")
    form = content["form"]
    if form != _form(kind):
        other = f", a run of hadas {form[len(FORM) : -2]}" if str(form).startswith(FORM) else ""
        raise ValueError(f"{source}: expected form {_form(kind)}, got {form!r}{other}")
    return content["settings"]


def _form(kind: str) -> str:
    return f"{FORM}{kind}/1"


def _is_partial(name: str) -> bool:
    """Whether a file is what a killed run had not written to the end."""
    return any(re.fullmatch(rf"{re.escape(whole)}\.\d+\.partial", name) for whole in (CONFIG, _HOLDER, *_FILES))


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8, whole or not at all; does nothing in all processes of a run but the first.

    Raises:
        ValueError: The file cannot be written.
    """
    if is_first():
        write_whole(path, text.encode("utf-8"))


def _append_line(path: Path, line: str) -> None:
    """Appends a line to a file, whole or not at all.

    Raises:
        ValueError: The file cannot be written.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line.encode("utf-8") + b"\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise unwritable(path, error) from error


@contextlib.contextmanager
def writing(target: Path | str) -> Iterator[None]:
    """Holds the work directory that a file or folder lies in, if it lies in one, while something is written there.

    Raises:
        InUseError: A run or another command holds it.
    """
    workdir = _workdir_around(Path(target))
    with contextlib.nullcontext() if workdir is None else _locked(workdir):
        yield


@contextlib.contextmanager
def reading(target: Path | str) -> Iterator[None]:
    """As `writing`, for what reads a run and writes one file whole: goes on where a run holds the directory."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(InUseError):
            stack.enter_context(writing(target))
        yield


def _workdir_around(path: Path) -> Path | None:
    """The work directory that a path lies in, or is."""
    try:
        path = path.resolve()
    except UnicodeError:  # a name that the locale cannot spell: whoever reads it will say so
        return None
    for folder in (path, *path.parents):
        try:
            form = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["form"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if str(form).startswith(FORM):
            return folder
    return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the lock of a directory that exists; of several processes of a run the first alone takes it."""
    lock = _taken(directory) if is_first() else None
    if lock is None:
        yield
        return
    try:
        holder = {"host": socket.gethostname(), "process": os.getpid()}
        write_whole(directory / _HOLDER, json.dumps(holder).encode())
        yield
    finally:
        for name in (_HOLDER, _LOCK):  # while it is held: whoever opened it before finds out that it is gone
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        lock.release()


def _taken(directory: Path) -> BaseFileLock | None:
    """Takes the lock of a directory; None: there are none on its file system."""
    lock = FileLock(directory / _LOCK, blocking=False, fallback_to_soft=False, thread_local=False)
    try:
        lock.acquire()
        return lock
    except Timeout:
        raise InUseError(
            f"work directory {directory} is in use by {_holder(directory)}; wait for it or take another `workdir`"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
            raise unwritable(directory / _LOCK, error) from error
    print(
        f"hadas: the file system of {directory} has no locks: see to it that one run at a time writes there",
        file=sys.stderr,
    )
    return None


def _holder(directory: Path) -> str:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            content = json.loads((directory / _HOLDER).read_text(encoding="utf-8"))
            return f"process {content['process']} on host {content['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.02)
    return "another process"


class _Scalars:
    """Writes what a run measures for TensorBoard, into DIRECTORY/tensorboard/STAGE, one event file for each start.

    Args:
        directory: The work directory.

    Raises:
        ValueError: The extra is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise ValueError(
                "tensorboard: expected the extra tensorboard, got none; pip install 'hadas-jax[tensorboard]'"
            ) from None
        self._open, self._scalar = event_file_writer.EventsWriter, summary.scalar
        self._event, self._start = Event, SessionLog(status=SessionLog.START)
        self._folder = directory / names.TENSORBOARD
        self._stages: dict[str, Any] = {}
        weakref.finalize(self, _close, self._stages)

    def restart(self, stage: str, done: int, kept: list[dict[str, Any]]) -> None:
        """Goes on with a stage after step `done`.

        What TensorBoard has of later steps is dropped there; a run that did not write for it before begins with the
        lines kept in metrics.jsonl.

        Args:
            stage: The stage that starts or resumes.
            done: Steps that are not repeated.
            kept: Metrics of the stage up to there.
        """
        folder = self._folder / stage
        is_new = not folder.is_dir()
        with _named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if stage in self._stages:
                self._stages.pop(stage).close()
            # Names have whole seconds only.
            count = len(list(folder.iterdir()))
            self._stages[stage] = self._open(str(folder / "events"), f".{count}")
        self._write(stage, step=done + 1, session_log=self._start)
        for entry in kept if is_new else ():
            self.add(stage, entry["step"], {name: entry[name] for name in entry if name not in ("stage", "step")})

    def add(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Writes one step, so that it can be seen at once."""
        if stage not in self._stages:
            self.restart(stage, step - 1, [])
        for name, value in metrics.items():
            self._write(stage, step=step, summary=self._scalar(name, value))

    def _write(self, stage: str, **content: Any) -> None:
        with _named(self._folder / stage):
            self._stages[stage].write_event(self._event(wall_time=time.time(), **content))
            self._stages[stage].flush()


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Gives an error of the disk the name of what could not be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def _close(stages: dict[str, Any]) -> None:
    for stage in stages.values():
        with contextlib.suppress(OSError):  # whatever was not written yet does not fit
            stage.close()
