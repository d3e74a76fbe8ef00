"""One image: read, cropped and resized by Pillow, whose resizing smooths before it makes smaller.

Shapes: H, W height and width, C channels (1 or 3), all uint8.
"""

import functools
import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from hadas_jax.data.notes import shown

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
      image: which one, and why where that is not plain.
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
      ImageError: the file cannot be read as an image of 8 bits.
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
      content: a file's path, or its bytes.
      channels: 1 or 3; grey images become coloured ones where 3 are wanted. Transparency is dropped.
      name: the image's, for errors.

    Raises:
      ImageError: what is there cannot be read as an image of 8 bits, or has colours where one channel is wanted.
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
      pixels: the image.
      size: of the result, in pixels.
      rng: decides all of it.
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
