"""RandAugment (arXiv 1909.13719) on the device: every image goes through its own random operations.

Under `jax.vmap` a switch would compute every operation anyway, so the operations are merged instead: shears, shifts
and rotations are one affine warp, and four of the tone operations one blend with a degenerate image; each image's
choice sets the strengths of all others to zero. Images are in 0 .. 1. All strengths fall to zero with the magnitude,
also those of autocontrast and equalise, which the paper applies in full.
Shapes: B batch, H, W image, C channels.
"""

import jax
import jax.numpy as jnp

from hadas_jax.training.geometry import warp

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "autocontrast",
    "equalise",
    "posterise",
    "solarise",
    "brightness",
    "contrast",
    "colour",
    "sharpness",
)

# Strengths at magnitude 1.
SHEAR = 0.3
TRANSLATION = 0.45  # of the size
ROTATION = 0.5236  # radians, 30 degrees
BLEND = 0.9  # of the way to, or beyond, the degenerate image
LOST_BITS = 4.0  # of 8


def rand_augment(
    key: jax.Array, images: jax.Array, *, operations: int = 2, magnitude: float | jax.Array = 0.3
) -> jax.Array:
    """Sends each image through `operations` random operations, one after the other.

    Args:
      key: PRNG key.
      images: float32[B, H, W, C] in 0 .. 1.
      operations: how many; the identity may be among them.
      magnitude: 0 .. 1, how strong; 0 changes nothing.

    Returns:
      float32[B, H, W, C] in 0 .. 1.
    """
    for round_key in jax.random.split(key, operations):
        choice_key, sign_key = jax.random.split(round_key)
        choices = jax.random.randint(choice_key, images.shape[:1], 0, len(OPERATIONS))
        signs = jax.random.rademacher(sign_key, images.shape[:1], jnp.float32)
        images = apply_operations(images, choices, signs * magnitude)
    return images


def apply_operations(images: jax.Array, choices: jax.Array, amounts: jax.Array) -> jax.Array:
    """Applies one operation to each image.

    Args:
      images: float32[B, H, W, C] in 0 .. 1.
      choices: int32[B], of `OPERATIONS`.
      amounts: float32[B] in -1 .. 1; operations without a direction take the absolute value.
    """
    strength = {name: jnp.where(choices == i, amounts, 0.0) for i, name in enumerate(OPERATIONS)}
    images = _moved(images, strength)
    images = _blended(images, strength)
    images = _mixed(images, _stretched(images), jnp.abs(strength["autocontrast"]))
    images = _mixed(images, _equalised(images), jnp.abs(strength["equalise"]))
    images = _posterised(images, jnp.abs(strength["posterise"]))
    images = _solarised(images, jnp.abs(strength["solarise"]))
    return jnp.clip(images, 0.0, 1.0)


def _moved(images: jax.Array, strength: dict[str, jax.Array]) -> jax.Array:
    angles = ROTATION * strength["rotate"]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rows = jnp.stack([cos, SHEAR * strength["shear_y"] - sin], -1)
    columns = jnp.stack([SHEAR * strength["shear_x"] + sin, cos], -1)
    height, width = images.shape[1:3]
    down, right = height * strength["translate_y"], width * strength["translate_x"]
    return warp(images, jnp.stack([rows, columns], -2), TRANSLATION * jnp.stack([down, right], -1))


def _blended(images: jax.Array, strength: dict[str, jax.Array]) -> jax.Array:
    """Moves images away from, or towards, black, their mean grey, their grey version and their smooth version."""
    channels = images.shape[-1]
    luma = jnp.array([0.299, 0.587, 0.114]) if channels == 3 else jnp.full((channels,), 1 / channels)
    grey = jnp.sum(images * luma.reshape(1, 1, 1, -1), -1, keepdims=True)
    mean = jnp.mean(grey, (1, 2), keepdims=True)
    change = jnp.zeros_like(images)
    black, smooth = jnp.zeros_like(mean), _smoothed(images)
    degenerates = {"brightness": black, "contrast": mean, "colour": grey, "sharpness": smooth}
    for name, degenerate in degenerates.items():
        change = change + _per_image(BLEND * strength[name]) * (images - degenerate)
    return jnp.clip(images + change, 0.0, 1.0)


def _smoothed(images: jax.Array) -> jax.Array:
    """The mean over 3x3 pixels, the middle one counted five times; the border is repeated."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    around = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
    return (around + 4.0 * images) / 13.0


def _stretched(images: jax.Array) -> jax.Array:
    """Each channel stretched to 0 .. 1; constant channels stay."""
    low, high = jnp.min(images, (1, 2), keepdims=True), jnp.max(images, (1, 2), keepdims=True)
    span = high - low
    return jnp.where(span > 0, (images - low) / jnp.where(span > 0, span, 1.0), images)


def _equalised(images: jax.Array) -> jax.Array:
    """Each pixel's byte replaced by the share of its channel's pixels up to it; constant channels stay."""
    batch, height, width, channels = images.shape
    levels = jnp.clip(jnp.round(images * 255), 0, 255).astype(jnp.int32)
    histogram = jnp.arange(batch * channels).reshape(batch, 1, 1, channels)
    at = (256 * histogram + levels).ravel()
    counts = jnp.zeros((batch * channels * 256,), jnp.float32).at[at].add(1.0)
    upto = jnp.cumsum(counts.reshape(-1, 256), axis=1).ravel()[at].reshape(images.shape)
    lowest = jnp.min(upto, (1, 2), keepdims=True)
    span = height * width - lowest
    return jnp.where(span > 0, (upto - lowest) / jnp.where(span > 0, span, 1.0), images)


def _posterised(images: jax.Array, amounts: jax.Array) -> jax.Array:
    """Bytes without their lowest bits."""
    lost = jnp.round(LOST_BITS * amounts)
    step = _per_image(jnp.exp2(lost))
    return jnp.where(step > 1.0, jnp.floor(jnp.round(images * 255) / step) * step / 255, images)


def _solarised(images: jax.Array, amounts: jax.Array) -> jax.Array:
    """Values above a threshold, 1 less the amount, inverted."""
    return jnp.where(images > _per_image(1.0 - amounts), 1.0 - images, images)


def _mixed(images: jax.Array, others: jax.Array, shares: jax.Array) -> jax.Array:
    return images + _per_image(shares) * (others - images)


def _per_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]
