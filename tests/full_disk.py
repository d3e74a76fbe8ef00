"""A disk that fills up or turns read-only at its k-th write, below one folder of this process."""

import contextlib
import errno
import io
import math
import os
from pathlib import Path

_REAL = {name: getattr(os, name) for name in ("mkdir", "replace", "rename", "unlink", "rmdir", "truncate")}
_OPEN = io.open
_FREES = ("unlink", "rmdir", "truncate", "rename")  # what a full disk allows and a read-only one does not


class Disk:
    """Counts what is written below `root`, and refuses all of it from write number `most` + 1 on."""

    def __init__(self, root, *, most=math.inf, code=errno.ENOSPC):
        self.root, self.most, self.code, self.writes = str(root), most, code, 0

    def spend(self):
        self.writes += 1
        return self.writes <= self.most

    @property
    def is_broken(self):
        return self.writes > self.most

    def error(self, path):
        return OSError(self.code, os.strerror(self.code), str(path))

    def holds(self, path):
        return isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(self.root)

    def open(self, file, mode="r", *rest, **options):
        writes = self.holds(file) and any(letter in mode for letter in "wax+")
        if writes and not (self.spend() if "a" not in mode else not self.is_broken):
            raise self.error(file)
        opened = _OPEN(file, mode, *rest, **options)
        return _File(opened, self) if writes else opened

    def call(self, name):
        def called(path, *rest, **options):
            if self.holds(path):
                refused = self.is_broken and self.code == errno.EROFS if name in _FREES else not self.spend()
                if refused and not (name == "mkdir" and Path(path).is_dir()):
                    raise self.error(path)
            return _REAL[name](path, *rest, **options)

        return called


class _File:
    """A file of which the half of a content gets written that does not fit any more."""

    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write(self, content):
        if self._disk.spend():
            return self._file.write(content)
        if self._disk.code == errno.ENOSPC:
            self._file.write(content[: len(content) // 2])
        raise OSError(self._disk.code, os.strerror(self._disk.code))  # without a name, as the system has it

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@contextlib.contextmanager
def disk(root, *, most=math.inf, code=errno.ENOSPC):
    """Has a disk below a folder; yields it."""
    found = Disk(root, most=most, code=code)
    patches = {(io, "open"): found.open} | {(os, name): found.call(name) for name in _REAL}
    before = {place: getattr(*place) for place in patches}
    try:
        for place, patch in patches.items():
            setattr(*place, patch)
        yield found
    finally:
        for place, real in before.items():
            setattr(*place, real)
