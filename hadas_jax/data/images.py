"""Images that are stored one by one: read in any order, told apart, cropped and resized.

Pillow reads and resizes them; its resizing smooths before it makes smaller.

Shapes: N images of a source, n chosen ones, H, W height and width, C channels (1 or 3), all uint8.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import ExifTags, Image

from hadas_jax.data.notes import first_few, one_line

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
_TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange height and width
_AREA = (0.08, 1.0)  # of a random crop, as shares of the image
_ASPECT = (3 / 4, 4 / 3)
_TRIES = 10


class ImageError(ValueError):
    """An image cannot be used.

    Attributes:
        image: Its name, and what is wrong with it where that is not plain.
    """

    def __init__(self, image: str) -> None:
        super().__init__(f"expected an image of 8 bits, cannot read {one_line(image)}")
        self.image = image


def read_header(path: Path) -> tuple[int, int, int]:
    """Returns height and width as viewers show them, and channels of an image file without reading its pixels.

    Raises:
        ImageError: The file cannot be read as an image of 8 bits.
    """
    try:
        with Image.open(path) as image:
            channels = _channels(image)
            width, height = image.size
            # Pillow gives the size of a TIFF image as viewers show it.
            is_transposed = image.format != "TIFF" and _orientation(image) in _TRANSPOSED
    except Exception as error:  # Pillow's many readers raise whatever the damage causes
        raise ImageError(str(path)) from error
    return (width, height, channels) if is_transposed else (height, width, channels)


def decode(content: Path | bytes, *, channels: int, name: str) -> np.ndarray:
    """Returns uint8[H, W, C], turned as viewers show it where EXIF says that the camera was held otherwise.

    Args:
        content: Path of a file, or its bytes.
        channels: 1 or 3; grey images become coloured ones where 3 are wanted. Transparency is dropped.
        name: Name of the image, for errors.

    Raises:
        ImageError: What is there cannot be read as an image of 8 bits, or has colours where one channel is wanted.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            stored_channels = _channels(image)
            image.load()
            turn = _TURNS.get(_orientation(image))
            upright = image if turn is None else image.transpose(turn)
            whole = upright.convert("RGBA") if upright.mode in ("P", "PA") else upright
            pixels = np.asarray(whole.convert("RGB" if channels == 3 else "L"))
    except Exception as error:  # Pillow's many readers raise whatever the damage causes
        raise ImageError(name) from error
    if stored_channels > channels:
        raise ImageError(f"{name} (in colour, where others are grey)")
    return pixels.reshape(*pixels.shape[:2], channels)


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
        size: Height and width of the result, in pixels.
        rng: Random numbers that decide all of it.
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
    resized = fit(pixels, size) if part is None else _resized(pixels, part, size)
    return resized[:, ::-1] if rng.random() < 0.5 else resized


def _resized(pixels: np.ndarray, part: tuple[float, float, float, float], size: int) -> np.ndarray:
    """The part (left, top, width, height) in pixels, by Pillow's bicubic kernel."""
    left, top, width, height = part
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return resized.reshape(size, size, pixels.shape[2])


THREADS = 8
CONTENTS_BYTES = 2**31
"""The most bytes of a source's stored images that are read for its fingerprints."""
FingerprintOf = Literal["contents", "names and sizes"]
SKIPPING = "`skip_unreadable` leaves them out"
"""The advice where unreadable images can be left out before the data set is cut into parts."""
_BATCH = 1024  # images whose readings wait at the same time
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled images that are read one by one, in any order.

    Attributes:
        name: Name in errors.
        channels: C of every image.
        stored_bytes: Bytes of all images as they are stored, those that are not selected included.
        rows: int[N], the numbers of the images, rising.
        read: From an image's number to the image uint8[H, W, C] and its label; raises `ImageError`.
        content: From an image's number to the image as it is stored; raises `ImageError`.
        name_and_size: From an image's number to what tells it apart without reading it.
        read_labels: Returns the labels of images of all numbers where they are known without reading these, negative
            where an image cannot be read; None otherwise.
    """

    name: str
    channels: int
    stored_bytes: int
    rows: np.ndarray
    read: Callable[[int], tuple[np.ndarray, int]]
    content: Callable[[int], bytes]
    name_and_size: Callable[[int], bytes]
    read_labels: Callable[[], np.ndarray | None]

    def __len__(self) -> int:
        """Returns N."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image uint8[H, W, C] and its label.

        Raises:
            ImageError: The image cannot be read.
        """
        return self.read(int(self.rows[index]))

    @cached_property
    def labels(self) -> np.ndarray | None:
        """int32[N] where they are known without reading the images."""
        labels = self.read_labels()
        return None if labels is None else labels[self.rows]

    def select(self, rows: np.ndarray) -> "Source":
        """Returns the images at the ascending rows int[n]."""
        return replace(self, rows=self.rows[rows])

    def readable(self) -> tuple["Source", list[str]]:
        """Returns the images that can be read, all of which are tried, and the names of the others."""
        failures = _failures(self.__getitem__, len(self))
        if not failures:
            return self, []
        return self.select(np.setdiff1d(np.arange(len(self)), list(failures))), list(failures.values())

    def read_images(
        self, rows: np.ndarray, *, size: int, name: str, advice: str = "remove them"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns images uint8[n, size, size, C] and labels int32[n].

        Args:
            rows: int[n], the images' rows.
            size: Height and width of the result, in pixels.
            name: Name of the data set, for errors.
            advice: What to do with images that cannot be read.

        Raises:
            ValueError: Images cannot be read; the first few are named.
        """
        images = np.empty((len(rows), size, size, self.channels), np.uint8)
        labels = np.empty(len(rows), np.int32)

        def read(index: int) -> None:
            pixels, labels[index] = self[rows[index]]
            images[index] = fit(pixels, size)

        check_readable(_failures(read, len(rows)).values(), name=name, advice=advice)
        return images, labels

    @property
    def fingerprint_of(self) -> FingerprintOf:
        """What fingerprints are taken of: contents, unless these are too many bytes to read."""
        return "contents" if self.stored_bytes <= CONTENTS_BYTES else "names and sizes"

    def fingerprints(self, of: FingerprintOf | None = None) -> np.ndarray:
        """Returns uint64[N] by which images are told apart: of what is stored, whatever size it is brought to.

        Args:
            of: What fingerprints are taken of; `fingerprint_of` where None.

        Raises:
            ValueError: Images cannot be read; the first few are named.
        """
        read = self.content if (of or self.fingerprint_of) == "contents" else self.name_and_size
        numbers = np.empty(len(self), np.uint64)

        def take(index: int) -> None:
            numbers[index] = _fingerprint(read(int(self.rows[index])))

        check_readable(_failures(take, len(self)).values(), name=self.name)
        return numbers


def array_fingerprints(images: np.ndarray) -> np.ndarray:
    """Returns uint64[N] for images [N, ...] in memory, of the type, the shape and the values of each.

    The order of a number's bytes on the machine that wrote them does not matter.
    """
    kind = images.dtype.newbyteorder("<")
    prefix = f"{kind.str} {images.shape[1:]} ".encode()
    return np.array([_fingerprint(prefix + image.astype(kind, copy=False).tobytes()) for image in images], np.uint64)


def _fingerprint(content: bytes) -> int:
    """Returns a number of 64 bits that stands for some bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def check_readable(failures: Iterable[str], *, name: str, advice: str = "remove them") -> None:
    """Passes where no image failed.

    Args:
        failures: Names of images that failed, and what is wrong with them.
        name: Name of the data set, for errors.
        advice: What to do with them.

    Raises:
        ValueError: Images failed; the first few are named.
    """
    failed = list(failures)
    if failed:
        raise ValueError(
            f"{one_line(name)}: expected images of 8 bits, cannot read {len(failed):,}: {first_few(failed)}; {advice}"
        )


def in_threads(function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
    """Returns what a function gives for every item, in order, from a few threads."""
    parts = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with ThreadPoolExecutor(THREADS) as threads:
        return [result for part in parts for result in threads.map(function, part)]


def _failures(read: Callable[[int], object], count: int) -> dict[int, str]:
    """Reads the rows 0 .. count - 1 in threads; returns the names of images that cannot be read, by row."""

    def attempt(row: int) -> str | None:
        try:
            read(row)
        except ImageError as error:
            return error.image
        return None

    results = in_threads(attempt, range(count))
    return {row: failure for row, failure in enumerate(results) if failure is not None}
