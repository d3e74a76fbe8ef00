"""Labelled images as arrays, the parts of a data set, and the checks of both.

Images stay in the form they are stored in, uint8 where the data set is, and are standardised where they are used:
x = (images / 255 - mean) / deviation for bytes, (images - mean) / deviation for floating values.

Shapes: N images, B of them, H, W height and width, C channels, K classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.data.notes import some

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
NAMED_CLASSES = 10
_CHUNK = 1024  # images whose values are counted at once


def standardise(images: jax.Array, mean: jax.Array | float, deviation: jax.Array | float) -> jax.Array:
    """Returns images as float32[B, H, W, C] with the mean removed, in units of the deviation.

    Args:
        images: uint8[B, H, W, C], which is scaled to 0 .. 1 first, or floating, which is taken as it is.
        mean: float32[C], or one for all channels.
        deviation: Likewise.
    """
    values = images.astype(jnp.float32)
    if images.dtype == jnp.uint8:
        values = values / 255
    shift, scale = (jnp.reshape(jnp.asarray(x, jnp.float32), (1, 1, 1, -1)) for x in (mean, deviation))
    return (values - shift) / scale


@struct.dataclass
class LabelledImages:
    """Images with their labels, standardised when they are taken.

    Attributes:
        images: uint8 or float32 [N, H, W, C], as stored.
        labels: int32[N].
        mean: float32[C] or one number, of the training images in 0 .. 1 (bytes) or in the images' own unit.
        deviation: Likewise.
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array | float = 0.0
    deviation: jax.Array | float = 1.0

    @property
    def count(self) -> int:
        """N."""
        return self.images.shape[0]

    def take(self, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the images at int[B] as float32[B, H, W, C], standardised, and their labels int32[B]."""
        return standardise(self.images[index], self.mean, self.deviation), self.labels[index]


def check_arrays(
    images: np.ndarray, labels: np.ndarray, *, source: str, classes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as uint8 or float32 [N, H, W, C] and labels as int32[N].

    Args:
        images: [N, H, W] or [N, H, W, C], square; uint8 or floating.
        labels: Integers [N], 0 .. K - 1.
        source: Named in errors.
        classes: K, where it is known; then a class may be without an image.

    Raises:
        ValueError: Wrong shapes or types, lengths that differ, values that are not finite, labels out of range.
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
    check_labels(labels, source=source, classes=classes)
    return images, labels.astype(np.int32)


def check_labels(labels: np.ndarray, *, source: str, classes: int | None = None) -> int:
    """Returns K, the number of classes of integer labels [N].

    Args:
        labels: Expected to be 0 .. K - 1.
        source: Named in errors.
        classes: K, where it is known; then a class may be without an image.

    Raises:
        ValueError: A label out of range, a class without images, or one class alone.
    """
    found = np.unique(labels)
    known = len(found) if classes is None else classes
    if known < 2:
        raise ValueError(f"{source}: labels: expected at least two classes, got {some(found) or 'none'} alone")
    wrong = np.flatnonzero((labels < 0) | (labels >= known))
    if wrong.size and classes is None:
        got = f"{some(found, most=NAMED_CLASSES)} (label {labels[wrong[0]]} at index {wrong[0]})"
        advice = "renumber them: np.unique(labels, return_inverse=True)[1]"
        raise ValueError(f"{source}: labels: expected 0 .. K - 1 without gaps, got {got}; {advice}")
    if wrong.size:
        got = f"label {labels[wrong[0]]} at index {wrong[0]}"
        raise ValueError(f"{source}: labels: expected 0 .. {known - 1} as among the training images, got {got}")
    return known


def channel_statistics(images: np.ndarray, *, source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of every channel, of uint8 in 0 .. 1, of floating values as they are.

    A channel that is constant has deviation 1, so that it standardises to 0.

    Args:
        images: uint8 or float32 [N, H, W, C].
        source: Named in errors.

    Raises:
        ValueError: All channels are constant.
    """
    channels = range(images.shape[-1])
    if images.dtype == np.uint8:
        counts = np.zeros((len(channels), 256), np.int64)
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            counts += np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in channels])
        shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
        means = shares @ values
        deviations = np.sqrt((shares * (values - means[:, None]) ** 2).sum(1)).tolist()
        constant = ((counts > 0).sum(1) == 1).tolist()
        means = means.tolist()
    else:
        means, deviations = ([float(f(images[..., c])) for c in channels] for f in (np.mean, np.std))
        constant = [bool(np.ptp(images[..., c]) == 0) for c in channels]
    if all(constant):
        raise ValueError(f"{source}: images: expected different values, got {means[0]} everywhere")
    return tuple(means), tuple(1.0 if same else d for same, d in zip(constant, deviations, strict=True))


def labelled(images: np.ndarray, labels: np.ndarray, normalisation: Normalisation) -> LabelledImages:
    """Returns images [N, H, W, C] and labels [N] as arrays on the device, to be standardised on use."""
    mean, deviation = (jnp.asarray(values, jnp.float32) for values in normalisation)
    return LabelledImages(jnp.asarray(images), jnp.asarray(labels, jnp.int32), mean, deviation)
