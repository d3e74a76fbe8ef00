"""Augmentation on the device."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

ROTATION = 0.2  # radians, about 11 degrees
SCALING = 0.12  # of the logarithm of the size


def random_affine(key: jax.Array, images: jax.Array, shift: float) -> jax.Array:
    """Rotates, scales and shifts each image a little, with bilinear interpolation and a repeated border.

    Args:
      key: PRNG key.
      images: float32[B, H, W, C].
      shift: the farthest shift in pixels, in both directions.
    """
    batch, height, width, _ = images.shape
    uniform = jax.random.uniform(key, (4, batch), minval=-1.0, maxval=1.0)
    angles, sizes, shifts = ROTATION * uniform[0], jnp.exp(SCALING * uniform[1]), shift * uniform[2:]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None, None]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")).astype(jnp.float32) - centre

    def warp(image: jax.Array, angle: jax.Array, size: jax.Array, shift: jax.Array) -> jax.Array:
        cos, sin = size * jnp.cos(angle), size * jnp.sin(angle)
        turned = jnp.stack([cos * grid[0] - sin * grid[1], sin * grid[0] + cos * grid[1]])
        source = turned + centre + shift[:, None, None]
        interpolate = partial(map_coordinates, coordinates=list(source), order=1, mode="nearest")
        return jax.vmap(interpolate, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(warp)(images, angles, sizes, shifts.T)


def batch_indices(key: jax.Array, step: jax.Array, *, size: int, batch: int) -> jax.Array:
    """Returns int32[batch]: the step's part of its epoch's random order of `size` samples.

    Args:
      key: PRNG key of the whole training, the same at every step.
      step: int32[].
      size: number of samples, at least `batch`.
      batch: samples per step; what is left over at an epoch's end is skipped.
    """
    per_epoch = size // batch
    order = jax.random.permutation(jax.random.fold_in(key, step // per_epoch), size)
    return jax.lax.dynamic_slice(order, ((step % per_epoch) * batch,), (batch,))
