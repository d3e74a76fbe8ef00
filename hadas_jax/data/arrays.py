"""Labelled images as arrays, their checks and their splits.

Shapes: N images, H, W height and width, K classes.
"""

from dataclasses import dataclass

import jax
import numpy as np
from flax import struct
from sklearn.model_selection import train_test_split


@struct.dataclass
class LabelledImages:
    """Images float32[N, H, W, channels] and labels int32[N]."""

    images: jax.Array
    labels: jax.Array


@dataclass(frozen=True)
class Splits:
    """A data set in four parts, standardised by the mean and deviation of the training images.

    Attributes:
      train: for weights and batch-norm statistics.
      validation: for the search.
      calibration: for exit thresholds.
      test: for the final report alone.
      classes: K.
      mean: of the training images, before standardisation.
      deviation: likewise.
    """

    train: LabelledImages
    validation: LabelledImages
    calibration: LabelledImages
    test: LabelledImages
    classes: int
    mean: float
    deviation: float


def check_arrays(images: np.ndarray, labels: np.ndarray, *, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images as float32[N, H, W, channels] and labels as int32[N].

    Args:
      images: [N, H, W] or [N, H, W, channels], square; unsigned bytes are scaled to 0 .. 1.
      labels: integers [N], 0 .. K - 1.
      source: named in errors.

    Raises:
      ValueError: wrong shapes or types, lengths that differ, values that are not finite, labels out of range.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise ValueError(f"{source}: images: expected square images [N, H, W, channels], got shape {images.shape}")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"{source}: labels: expected one for each of {len(images)} images, got shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{source}: labels: expected integers, got {labels.dtype}")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    elif np.issubdtype(images.dtype, np.floating):
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        if bad.size:
            raise ValueError(f"{source}: images: expected finite values, got NaN or infinity in image {bad[0]}")
    else:
        raise ValueError(f"{source}: images: expected uint8 or floating values, got {images.dtype}")
    classes = len(np.unique(labels))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size or classes < 2:
        found = f"label {labels[wrong[0]]} at index {wrong[0]}" if wrong.size else "one class alone"
        raise ValueError(
            f"{source}: labels: expected every class of 0 .. K - 1, at least two; got {classes} classes and {found}"
        )
    return images.astype(np.float32), labels.astype(np.int32)


def split(images: np.ndarray, labels: np.ndarray, *, seed: int, source: str, share: float = 0.15) -> Splits:
    """Splits by class into train, validation, calibration and test.

    Args:
      images: float32[N, H, W, channels].
      labels: int32[N].
      seed: of the split.
      source: named in errors.
      share: of each split but the training one.

    Raises:
      ValueError: a class is too small to be in all four parts.
    """
    rest, parts = np.arange(len(labels)), []
    size = max(round(share * len(labels)), 1)
    smallest = int(np.bincount(labels).min())
    if smallest * share < 1 or smallest < 4:
        needed = max(4, int(np.ceil(1 / share)))
        raise ValueError(f"{source}: expected at least {needed} images of every class to split, got {smallest}")
    for part in range(3):
        rest, chosen = train_test_split(
            rest, test_size=size, random_state=seed + part, stratify=labels[rest], shuffle=True
        )
        parts.append(np.sort(chosen))
    rest = np.sort(rest)
    mean, deviation = float(images[rest].mean()), float(images[rest].std())
    if np.ptp(images[rest]) == 0:
        raise ValueError(f"{source}: images: expected different values, got {mean} everywhere")

    def take(index: np.ndarray) -> LabelledImages:
        standard = ((images[index] - mean) / deviation).astype(np.float32)
        return LabelledImages(images=jax.numpy.asarray(standard), labels=jax.numpy.asarray(labels[index]))

    test, calibration, validation = (take(index) for index in parts)
    return Splits(
        train=take(rest),
        validation=validation,
        calibration=calibration,
        test=test,
        classes=int(labels.max()) + 1,
        mean=mean,
        deviation=deviation,
    )
