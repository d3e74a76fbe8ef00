"""One image: read, cropped and resized by Pillow, whose resizing smooths before it makes smaller.

Shapes: H, W height and width, C channels (1 or 3), all uint8.

Images that are read one by one from where they are stored, in any order.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
from PIL import ExifTags, Image

from hadas_jax.data.notes import counted, shown, some

_OTHER_FORMATS = frozenset(  # documents, drawings, videos and fields of numbers, and what Pillow writes alone
    ("BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF")
)
_GREY_MODES = ("1", "L", "LA")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
_TURNS = {  # EXIF's orientations, from 2: how the stored pixels become what viewers show
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations that exchange height and width
_AREA = (0.08, 1.0)  # of a random crop, as shares of the image
_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10


class ImageError(ValueError):
    """An image cannot be used.

    Attributes:
        image: Which one, and why where that is not plain.
    """

    def __init__(self, image: str) -> None:
        super().__init__(f"expected an image of 8 bits, cannot read {shown(image)}")
        self.image = image


@functools.cache
def file_endings() -> frozenset[str]:
    """Returns the endings, in lower case, of files that may be images of 8 bits, as many as this Pillow reads."""
    Image.init()
    return frozenset(ending for ending, form in Image.registered_extensions().items() if form not in _OTHER_FORMATS)


def read_header(path: Path) -> tuple[int, int, int]:
    """Returns height and width as viewers show them, and channels of an image file without reading its pixels.

    Raises:
        ImageError: The file cannot be read as an image of 8 bits.
    """
    try:
        with Image.open(path) as image:
            channels = _channels(image)
            width, height = image.size
            is_lying = image.format != "TIFF" and _orientation(image) in _LYING  # Pillow gives TIFF's size as shown
    except Exception as error:  # Pillow's many readers raise whatever the damage causes
        raise ImageError(str(path)) from error
    return (width, height, channels) if is_lying else (height, width, channels)


def decode(content: Path | bytes, *, channels: int, name: str) -> np.ndarray:
    """Returns uint8[H, W, C], turned as viewers show it where EXIF says that the camera was held otherwise.

    Args:
        content: A file's path, or its bytes.
        channels: 1 or 3; grey images become coloured ones where 3 are wanted. Transparency is dropped.
        name: The image's, for errors.

    Raises:
        ImageError: What is there cannot be read as an image of 8 bits, or has colours where one channel is wanted.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            found = _channels(image)
            upright = _upright(image)
            whole = upright.convert("RGBA") if upright.mode in ("P", "PA") else upright
            pixels = np.asarray(whole.convert("RGB" if channels == 3 else "L"))
    except Exception as error:  # Pillow's many readers raise whatever the damage causes
        raise ImageError(name) from error
    if found > channels:
        raise ImageError(f"{name} (in colour, where others are grey)")
    return pixels.reshape(*pixels.shape[:2], channels)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 where there is none that can be read; what a PNG file says behind its pixels, once they are loaded."""
    try:
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF, which viewers pass over too
        return 1


def _channels(image: Image.Image) -> int:
    if image.mode in _GREY_MODES:
        return 1
    if image.mode in _COLOUR_MODES:
        return 3
    raise ValueError(f"expected 8 bits for each channel, got mode {image.mode}")


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns the largest square in the middle of uint8[H, W, C], resized to uint8[size, size, C].

    This is the image with its short side resized to `size`, then cropped in the middle.
    """
    height, width, _ = pixels.shape
    if height == width == size:
        return pixels
    side = min(height, width)
    return _resized(pixels, ((width - side) / 2, (height - side) / 2, side, side), size)


def random_fit(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a random part of uint8[H, W, C], resized to uint8[size, size, C] and mirrored one time in two.

    The part has 8 % to 100 % of the area and an aspect of 3/4 to 4/3 (Szegedy et al., 2015, arXiv:1409.4842).

    Args:
        pixels: The image.
        size: Of the result, in pixels.
        rng: Decides all of it.
    """
    height, width, _ = pixels.shape
    part = None
    for _ in range(_TRIES):
        area = rng.uniform(*_AREA) * height * width
        aspect = np.exp(rng.uniform(*np.log(_ASPECT)))
        part_width, part_height = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if part_width <= width and part_height <= height:
            left, top = rng.uniform(0, width - part_width), rng.uniform(0, height - part_height)
            part = (left, top, part_width, part_height)
            break
    found = fit(pixels, size) if part is None else _resized(pixels, part, size)
    return found[:, ::-1] if rng.random() < 0.5 else found


def _resized(pixels: np.ndarray, part: tuple[float, float, float, float], size: int) -> np.ndarray:
    """The part (left, top, width, height) in pixels, by Pillow's bicubic kernel."""
    left, top, width, height = part
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    found = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return found.reshape(size, size, pixels.shape[2])


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
            ImageError: The image cannot be read.
        """
        ...

    def fingerprints(self, rows: np.ndarray | None = None, *, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[n], by which images are told apart: of what is stored, whatever size it is brought to.

        Args:
            rows: int[n], of which images; of all where None.
            of: What they are taken of; as `fingerprint_of` says where None.

        Raises:
            ValueError: Images that cannot be read.
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
        source: Of the images.
        rows: int[n], which of them.
        size: Of the result, in pixels.
        name: Of the data set, for errors.
        advice: What to do with images that cannot be read.

    Raises:
        ValueError: Images cannot be read; the first few are named.
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
        read: Gives the bytes that stand for the image at a row, or raises ImageError.
        rows: int[n].
        name: Of the data set, for errors.

    Raises:
        ValueError: Images that cannot be read; the first few are named.
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
        failures: Of every image its name and what is wrong with it, or None.
        name: Of the data set, for errors.
        advice: What to do with them.

    Raises:
        ValueError: Images failed; the first few are named.
    """
    failed = [failure for failure in failures if failure is not None]
    if failed:
        raise ValueError(
            f"{shown(name)}: expected images of 8 bits, cannot read {len(failed):,}: {some(failed)}; {advice}"
        )


def unreadable_note(failed: Sequence[str]) -> tuple[str, ...]:
    """Returns what is said of images that were left out because they cannot be read; nothing where there are none."""
    return (f"left out: {counted(len(failed), 'image')} that cannot be read ({some(failed)})",) if failed else ()
