"""Random geometry of images on the device: affine warps, flips, crops, cut-out squares.

Shapes: B batch, H, W image, C channels. Every image draws by itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

ROTATION = 0.2  # radians, about 11 degrees
SCALING = 0.12  # of the logarithm of the size


def warp(images: jax.Array, matrices: jax.Array, shifts: jax.Array) -> jax.Array:
    """Reads each image at affinely moved places, with bilinear interpolation and a repeated border.

    Args:
      images: float32[B, H, W, C].
      matrices: float32[B, 2, 2], applied to a pixel's (row, column) from the centre.
      shifts: float32[B, 2], added in pixels.
    """
    height, width = images.shape[1:3]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None, None]
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")).astype(jnp.float32) - centre

    def one(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
        turned = jnp.stack([row[0] * grid[0] + row[1] * grid[1] for row in matrix])
        source = turned + centre + shift[:, None, None]
        interpolate = partial(map_coordinates, coordinates=list(source), order=1, mode="nearest")
        return jax.vmap(interpolate, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(one)(images, matrices, shifts)


def random_affine(key: jax.Array, images: jax.Array, shift: float) -> jax.Array:
    """Rotates, scales and shifts each image a little, with bilinear interpolation and a repeated border.

    Args:
      key: PRNG key.
      images: float32[B, H, W, C].
      shift: the farthest shift in pixels, in both directions.
    """
    uniform = jax.random.uniform(key, (4, images.shape[0]), minval=-1.0, maxval=1.0)
    angles, sizes, shifts = ROTATION * uniform[0], jnp.exp(SCALING * uniform[1]), shift * uniform[2:]
    cos, sin = sizes * jnp.cos(angles), sizes * jnp.sin(angles)
    matrices = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    return warp(images, matrices, shifts.T)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image [B, H, W, C] left to right with probability 1/2."""
    flipped = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Shifts each image [B, H, W, C] by -padding .. padding whole pixels in both directions, over zeros."""
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)

    def one(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.zeros_like(corner[0])), images.shape[1:])

    return jax.vmap(one)(padded, corners)


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Covers a square of each image [B, H, W, C] with the image's mean (arXiv 1708.04552).

    Args:
      key: PRNG key.
      images: float32[B, H, W, C].
      size: side of the square in pixels; its centre lies anywhere in the image, the square partly outside too.
    """
    batch, height, width, _ = images.shape
    corners = jax.random.randint(key, (2, batch, 1), 0, jnp.array([height, width])[:, None, None]) - size // 2
    rows, columns = (
        (jnp.arange(n)[None] >= corner) & (jnp.arange(n)[None] < corner + size)
        for n, corner in zip((height, width), corners, strict=True)
    )
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(covered, jnp.mean(images, (1, 2), keepdims=True), images)
