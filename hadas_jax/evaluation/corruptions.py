"""Images under common corruptions: noise, blur, contrast and brightness at three strengths.

Definitions and parameters are those of CIFAR-10-C at its severities 1, 3 and 5 (Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", 2019, https://arxiv.org/abs/1903.12261): Gaussian
noise and brightness are added to values in 0 .. 1, brightness to the V of HSV; contrast scales the distance from the
mean of each channel; blur is Gaussian, its width in pixels, and in proportion for images of more than 32 pixels.
Shapes: N images, H height and width, C channels.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages

# Of strengths 1, 2 and 3; of blur the standard deviation in pixels, up to images of 32.
CORRUPTIONS = {
    "noise": (0.04, 0.08, 0.10),
    "blur": (0.4, 0.7, 1.0),
    "contrast": (0.75, 0.4, 0.15),
    "brightness": (0.05, 0.15, 0.30),
}
_BLUR_PIXELS, _TRUNCATE = 32, 4  # standard deviations that a blur reaches
_BATCH = 256
_DARK = 1e-6  # of a pixel without colour


def corrupted(data: LabelledImages, corruption: str, strength: int, *, seed: int = 0) -> LabelledImages:
    """Returns images under a corruption; those of bytes are rounded to bytes again.

    Args:
        data: The images; floating values are taken for their range.
        corruption: One of `CORRUPTIONS`.
        strength: 0 (the images as they are) to 3.
        seed: Of the noise.

    Raises:
        ValueError: An unknown corruption or strength.
    """
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption: expected one of {', '.join(CORRUPTIONS)}, got {corruption!r}")
    if strength not in range(len(CORRUPTIONS[corruption]) + 1):
        raise ValueError(f"strength: expected 0 to {len(CORRUPTIONS[corruption])}, got {strength}")
    if strength == 0:
        return data
    amount, images = CORRUPTIONS[corruption][strength - 1], np.asarray(data.images)
    is_bytes = images.dtype == np.uint8
    low, high = (0.0, 255.0) if is_bytes else (float(images.min()), float(images.max()))
    parts = []
    for start in range(0, len(images), _BATCH):
        unit = (images[start : start + _BATCH].astype(np.float32) - low) / (high - low)
        key = jax.random.fold_in(jax.random.key(seed), start)
        found = np.asarray(_corrupt(jnp.asarray(unit, jnp.float32), key, corruption=corruption, amount=amount))
        found = found * (high - low) + low
        parts.append(found.round().astype(np.uint8) if is_bytes else found.astype(np.float32))
    return dataclasses.replace(data, images=jnp.asarray(np.concatenate(parts)))


@partial(jax.jit, static_argnames=("corruption", "amount"))
def _corrupt(x: jax.Array, key: jax.Array, *, corruption: str, amount: float) -> jax.Array:
    """Corrupts images float32[N, H, H, C] in 0 .. 1."""
    match corruption:
        case "noise":
            x = x + amount * jax.random.normal(key, x.shape)
        case "blur":
            rows = _blur_rows(x.shape[1], amount * max(1.0, x.shape[1] / _BLUR_PIXELS))
            x = jnp.einsum("nhwc,yh,xw->nyxc", x, rows, rows, precision="highest")
        case "contrast":
            mean = jnp.mean(x, (1, 2), keepdims=True)
            x = mean + amount * (x - mean)
        case _:
            value = jnp.max(x, axis=-1, keepdims=True)  # V of HSV; hue and saturation stay
            brighter = jnp.minimum(value + amount, 1.0)
            x = jnp.where(value > _DARK, x * brighter / jnp.maximum(value, _DARK), brighter)
    return jnp.clip(x, 0.0, 1.0)


def _blur_rows(size: int, deviation: float) -> jax.Array:
    """Returns float32[H, H]: a Gaussian blur of one axis as a matrix; the outermost pixels go on beyond the edge."""
    reach = max(1, round(_TRUNCATE * deviation))
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (offsets / deviation) ** 2)
    rows = np.zeros((size, size))
    for offset, tap in zip(offsets, taps / taps.sum(), strict=True):
        np.add.at(rows, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), tap)
    return jnp.asarray(rows, jnp.float32)
