"""One writer at a time in a work directory, by a lock that the operating system releases when its process ends.

Where a file system has no such locks (some network and user-space ones), a line on standard error says so, and whoever
writes goes on without.
"""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from hadas_jax.backend import is_first
from hw_models.files import unwritable, write_whole

LOCK, HOLDER = ".lock", ".lock.json"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_PATIENCE_S = 1.0  # for the name of a holder that has taken the lock and not said its name yet


class InUseError(ValueError):
    """Another process writes into the work directory."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the lock of a directory; of several processes of a run the first alone takes it.

    Args:
        directory: A directory that exists.

    Raises:
        InUseError: Another process holds it, or this one does already.
        ValueError: The directory cannot be written to.
    """
    lock = _taken(directory) if is_first() else None
    if lock is None:
        yield
        return
    try:
        holder = {"host": socket.gethostname(), "process": os.getpid()}
        write_whole(directory / HOLDER, json.dumps(holder).encode())
        yield
    finally:
        for name in (HOLDER, LOCK):  # while it is held: whoever opened it before finds out that it is gone
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        lock.release()


def require_unused(directory: Path) -> None:
    """Raises where another process writes into a directory; a quick look before what takes time.

    Raises:
        InUseError: Another process does.
    """
    if (directory / LOCK).exists():
        with locked(directory):
            pass


def _taken(directory: Path) -> BaseFileLock | None:
    """Takes the lock of a directory; None: there are none on its file system."""
    lock = FileLock(directory / LOCK, blocking=False, fallback_to_soft=False, thread_local=False)
    try:
        lock.acquire()
        return lock
    except Timeout:
        raise InUseError(
            f"work directory {directory} is in use by {_holder(directory)}; wait for it or take another `workdir`"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
            raise unwritable(directory / LOCK, error) from error
    print(
        f"hadas: the file system of {directory} has no locks: see to it that one run at a time writes there",
        file=sys.stderr,
    )
    return None


def _holder(directory: Path) -> str:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            content = json.loads((directory / HOLDER).read_text(encoding="utf-8"))
            return f"process {content['process']} on host {content['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.02)
    return "another process"
