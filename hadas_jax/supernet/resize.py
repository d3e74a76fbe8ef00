"""Bicubic resizing as PyTorch does it, so that networks see what their checkpoints were trained on.

`jax.image.resize` takes a = -0.5 and smooths where it shrinks; PyTorch takes a = -0.75, half-pixel centres, repeats
the border and never smooths. Rows and columns are one small matrix product each, with weights known at trace time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

SHARPNESS = -0.75  # the a of Keys, "Cubic convolution interpolation", 1981


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes images to `size` x `size` pixels by `torch.nn.functional.interpolate(mode="bicubic")`.

    Args:
      images: floating [..., H, W, C].
      size: static, at least 1.

    Returns:
      [..., size, size, C]; the images themselves where they have this size.

    Raises:
      ValueError: the size is below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 pixel, got {size}")
    height, width = images.shape[-3:-1]
    if height != size:
        images = jnp.einsum("...hwc,yh->...ywc", images, _weights(height, size, images.dtype), precision="highest")
    if width != size:
        images = jnp.einsum("...hwc,xw->...hxc", images, _weights(width, size, images.dtype), precision="highest")
    return images


def _weights(before: int, after: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(bicubic_weights(before, after), dtype)


@functools.lru_cache(maxsize=64)
def bicubic_weights(before: int, after: int) -> np.ndarray:
    """Returns float64[after, before]: what every pixel of a line adds to every pixel of the resized line."""
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    lower = np.floor(centres).astype(int)
    weights = np.zeros((after, before))
    for tap in range(-1, 3):
        source = lower + tap
        np.add.at(weights, (np.arange(after), np.clip(source, 0, before - 1)), _cubic(np.abs(centres - source)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at distances in 0 .. 2."""
    a, d = SHARPNESS, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, far)
