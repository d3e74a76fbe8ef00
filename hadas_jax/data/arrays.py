"""Labelled images as arrays, and the checks of arrays that users bring.

Images stay in the form they are stored in, uint8 where the data set is, and are standardised where they are used:
x = (images / 255 - mean) / std for bytes, (images - mean) / std for floating values.

Shapes: N images, B of them, H, W height and width, C channels, K classes.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hadas_jax.data.notes import first_few

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of every channel."""
NAMED_CLASSES = 10


def standardise(images: jax.Array, mean: ArrayLike, std: ArrayLike) -> jax.Array:
    """Returns images as float32[B, H, W, C] with the mean removed, in units of the standard deviation.

    Args:
        images: uint8[B, H, W, C], which is scaled to 0 .. 1 first, or floating, which is taken as it is.
        mean: float[C], or one for all channels.
        std: Standard deviation, likewise.
    """
    chex.assert_rank(images, 4, custom_message="images: expected [B, H, W, C]")
    values = images.astype(jnp.float32)
    if images.dtype == jnp.uint8:
        values = values / 255
    shift, scale = (jnp.reshape(jnp.asarray(x, jnp.float32), (1, 1, 1, -1)) for x in (mean, std))
    return (values - shift) / scale


@struct.dataclass
class LabelledImages:
    """Images with their labels, standardised when they are taken.

    Attributes:
        images: uint8 or float32 [N, H, W, C], as stored.
        labels: int32[N].
        mean: float[C] or one number, of the training images in 0 .. 1 (bytes) or in the images' own unit.
        std: Standard deviation, likewise.
    """

    images: jax.Array
    labels: jax.Array
    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    @property
    def count(self) -> int:
        """N."""
        return self.images.shape[0]

    def take(self, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the images at int[B] as float32[B, H, W, C], standardised, and their labels int32[B]."""
        return standardise(self.images[index], self.mean, self.std), self.labels[index]


def check_arrays(
    images: np.ndarray, labels: np.ndarray, *, source: str, classes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as uint8 or float32 [N, H, W, C] and labels as int32[N].

    Args:
        images: [N, H, W] or [N, H, W, C], square; uint8 or floating.
        labels: Integers [N], 0 .. K - 1.
        source: Name of the data set, for errors.
        classes: K, where it is known; then a class may be without an image.

    Raises:
        ValueError: Wrong shapes or types, lengths that differ, values that are not finite, a label out of
            range, a class without images, or one class alone.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise ValueError(f"{source}: images: expected square images [N, H, W, channels], got shape {images.shape}")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"{source}: labels: expected one for each of {len(images)} images, got shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{source}: labels: expected integers, got {labels.dtype}")
    if np.issubdtype(images.dtype, np.floating):
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if bad.size:
            raise ValueError(f"{source}: images: expected finite values, got NaN or infinity in image {bad[0]}")
    elif images.dtype != np.uint8:
        raise ValueError(f"{source}: images: expected uint8 or floating values, got {images.dtype}")
    occurring = np.unique(labels)
    count = len(occurring) if classes is None else classes
    if count < 2:
        raise ValueError(f"{source}: labels: expected at least two classes, got {first_few(occurring) or 'none'} alone")
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if wrong.size and classes is not None:
        got = f"label {labels[wrong[0]]} at index {wrong[0]}"
        raise ValueError(f"{source}: labels: expected 0 .. {count - 1} as among the training images, got {got}")
    if wrong.size:
        raise ValueError(
            f"{source}: labels: expected 0 .. K - 1 without gaps, got {first_few(occurring, most=NAMED_CLASSES)} "
            f"(label {labels[wrong[0]]} at index {wrong[0]}); renumber them: np.unique(labels, return_inverse=True)[1]"
        )
    return images, labels.astype(np.int32)
