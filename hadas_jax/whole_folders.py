"""Folders whose files take the place of what is there together, when the last of them is written."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from hw_models.whole_files import unwritable

STAGED = ".partial"


@contextlib.contextmanager
def whole_folder(directory: Path, *, mark: str) -> Iterator[Path]:
    """Gives a folder to write files into; they replace what a directory holds when the context ends well.

    Where it does not, the directory keeps what it held. A process that dies while files are replaced leaves `STAGED`
    and no `mark`.

    Args:
      directory: created if need be; everything in it is replaced.
      mark: the file that says what the others are, removed first and written last.

    Raises:
      ValueError: the directory cannot be written to.
    """
    staged, is_new = directory / STAGED, not directory.exists()
    try:
        remove(staged)
        staged.mkdir(parents=True)
        yield staged
        (directory / mark).unlink(missing_ok=True)
        for entry in directory.iterdir():
            if entry != staged:
                remove(entry)
        for entry in sorted(staged.iterdir(), key=lambda entry: entry.name == mark):
            entry.rename(directory / entry.name)
    except OSError as error:
        raise unwritable(error.filename or directory, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # of a directory with files
                directory.rmdir()


def remove(path: Path) -> None:
    """Removes a file or a folder, or nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
