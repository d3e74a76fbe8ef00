"""Images that are read one by one from where they are stored, in any order."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

from hadas_jax.data.images import ImageError, fit
from hadas_jax.data.notes import counted, shown, some

THREADS = 8
CONTENTS_BYTES = 2**31
"""The most bytes of a source's stored images that are read for its fingerprints."""
FingerprintOf = Literal["contents", "names and sizes"]
Item = TypeVar("Item")
Found = TypeVar("Found")
SKIPPING = "--skip-unreadable leaves them out"
"""The advice where unreadable images can be left out before the data set is cut into parts."""
_BATCH = 1024  # images whose readings wait at the same time


class Source(Protocol):
    """Random access to labelled images."""

    @property
    def channels(self) -> int:
        """C of every image."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """int32[N] where they are known without reading the images."""
        ...

    @property
    def fingerprint_of(self) -> FingerprintOf:
        """What fingerprints are taken of: the contents where they have at most `CONTENTS_BYTES`."""
        ...

    def __len__(self) -> int:
        """Returns N."""
        ...

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Returns an image uint8[H, W, C] and its label.

        Raises:
          ImageError: the image cannot be read.
        """
        ...

    def fingerprints(self, rows: np.ndarray | None = None, *, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[n], by which images are told apart: of what is stored, whatever size it is brought to.

        Args:
          rows: int[n], of which images; of all where None.
          of: what they are taken of; as `fingerprint_of` says where None.

        Raises:
          ValueError: images that cannot be read.
        """
        ...


def fingerprint(content: bytes) -> int:
    """Returns a number of 64 bits that stands for some bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def array_fingerprints(images: np.ndarray) -> np.ndarray:
    """Returns uint64[N] for images [N, ...] in memory, of the type, the shape and the values of each.

    The order of a number's bytes on the machine that wrote them does not matter.
    """
    kind = images.dtype.newbyteorder("<")
    prefix = f"{kind.str} {images.shape[1:]} ".encode()
    return np.array([fingerprint(prefix + image.astype(kind, copy=False).tobytes()) for image in images], np.uint64)


def pixel_fingerprints(images: np.ndarray) -> np.ndarray:
    """Returns uint64[N] of the pixels of images [N, H, W, C], the same for bytes and for these as numbers in 0 .. 1."""
    if np.issubdtype(images.dtype, np.floating) and images.size and images.min() >= 0 and images.max() <= 1:
        images = np.rint(255 * images).astype(np.uint8)
    return array_fingerprints(images)


@dataclass(frozen=True, eq=False)
class Selected:
    """Some images of a source, at the ascending rows int[N]."""

    whole: Source
    rows: np.ndarray

    @property
    def channels(self) -> int:
        """C."""
        return self.whole.channels

    @property
    def labels(self) -> np.ndarray | None:
        """int32[N] where they are known."""
        return None if self.whole.labels is None else self.whole.labels[self.rows]

    @property
    def fingerprint_of(self) -> FingerprintOf:
        """What fingerprints are taken of."""
        return self.whole.fingerprint_of

    def __len__(self) -> int:
        """Returns N."""
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Returns an image uint8[H, W, C] and its label."""
        return self.whole[int(self.rows[row])]

    def fingerprints(self, rows: np.ndarray | None = None, *, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[n] of the images at these rows, of all where None."""
        return self.whole.fingerprints(self.rows if rows is None else self.rows[rows], of=of)


def readable(source: Source) -> tuple[Source, list[str]]:
    """Returns the images of a source that can be read, all of which are tried, and the names of the others."""

    def read(row: int) -> str | None:
        try:
            source[row]
        except ImageError as error:
            return error.image
        return None

    failures = in_threads(read, range(len(source)))
    failed = [failure for failure in failures if failure is not None]
    rows = np.flatnonzero([failure is None for failure in failures])
    return (Selected(source, rows) if failed else source), failed


def read_images(
    source: Source, rows: np.ndarray, *, size: int, name: str, advice: str = "remove them"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8[n, size, size, C] and labels int32[n].

    Args:
      source: of the images.
      rows: int[n], which of them.
      size: of the result, in pixels.
      name: of the data set, for errors.
      advice: what to do with images that cannot be read.

    Raises:
      ValueError: images cannot be read; the first few are named.
    """
    images = np.empty((len(rows), size, size, source.channels), np.uint8)
    labels = np.empty(len(rows), np.int32)

    def read(place: int) -> str | None:
        try:
            pixels, labels[place] = source[int(rows[place])]
        except ImageError as error:
            return error.image
        images[place] = fit(pixels, size)
        return None

    check_readable(in_threads(read, range(len(rows))), name=name, advice=advice)
    return images, labels


def in_threads(function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """Returns what a function gives for every item, in order, from a few threads."""
    parts = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with ThreadPoolExecutor(THREADS) as threads:
        return [found for part in parts for found in threads.map(function, part)]


def source_fingerprints(read: Callable[[int], bytes], rows: np.ndarray, *, name: str) -> np.ndarray:
    """Returns uint64[n] of what is read for every row, in threads.

    Args:
      read: gives the bytes that stand for the image at a row, or raises ImageError.
      rows: int[n].
      name: of the data set, for errors.

    Raises:
      ValueError: images that cannot be read; the first few are named.
    """

    def take(row: int) -> int | str:
        try:
            return fingerprint(read(row))
        except ImageError as error:
            return error.image

    found = in_threads(take, rows.tolist())
    check_readable((failure for failure in found if isinstance(failure, str)), name=name)
    return np.array(found, np.uint64)


def check_readable(failures: Iterable[str | None], *, name: str, advice: str = "remove them") -> None:
    """Passes where no image failed.

    Args:
      failures: of every image its name and what is wrong with it, or None.
      name: of the data set, for errors.
      advice: what to do with them.

    Raises:
      ValueError: images failed; the first few are named.
    """
    failed = [failure for failure in failures if failure is not None]
    if failed:
        raise ValueError(
            f"{shown(name)}: expected images of 8 bits, cannot read {len(failed):,}: {some(failed)}; {advice}"
        )


def unreadable_note(failed: Sequence[str]) -> tuple[str, ...]:
    """Returns what is said of images that were left out because they cannot be read; nothing where there are none."""
    return (f"left out: {counted(len(failed), 'image')} that cannot be read ({some(failed)})",) if failed else ()
