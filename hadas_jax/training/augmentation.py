"""Augmentation policies by name; all run on the device, on images in 0 .. 1 before they are standardised.

Every image draws by itself. RandAugment (https://arxiv.org/abs/1909.13719) sends each through its own random
operations. Under `jax.vmap` a switch would compute every operation anyway, so they are merged instead: shears, shifts
and rotations are one affine warp, and four of the tone operations one blend with a degenerate image; each image's
choice sets the strengths of all others to zero. All strengths fall to zero with the magnitude, also those of
autocontrast and equalise, which the paper applies in full.
Shapes: B batch, H, W image, C channels.
"""

from collections.abc import Callable
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from hadas_jax.settings import AugmentationName

# (key, images float32[B, H, W, C] in 0 .. 1) -> the same form
Augment = Callable[[jax.Array, jax.Array], jax.Array]
AUGMENTATIONS = get_args(AugmentationName)
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
# The affine policy: the largest angle in radians, and of the logarithm of the size.
_ROTATION, _SCALING = 0.2, 0.12
# RandAugment's strengths at magnitude 1.
_SHEAR = 0.3
_TRANSLATION = 0.45  # of the size
_TURN = 0.5236  # radians, 30 degrees
BLEND = 0.9  # of the way to, or beyond, the degenerate image
_LOST_BITS = 4.0  # of 8


def augmentation(name: str, *, operations: int = 2, magnitude: float = 0.3, cutout_size: int = 0) -> Augment | None:
    """Returns a policy, or None for none.

    Args:
        name: `none`; `affine`: small rotations, scalings and shifts by up to an eighth of the size; `crop-flip`: shifts
            by whole pixels up to an eighth of the size, and mirror images; `randaugment`: crop-flip, then random
            operations (see `rand_augment`; values beyond 0 .. 1 are cut off) and a square of a quarter of the size cut
            out.
        operations: Of RandAugment, per image.
        magnitude: Of RandAugment, 0 .. 1.
        cutout_size: Side in pixels of a square that is cut out at the end; 0: none.

    Raises:
        ValueError: An unknown name, or figures out of their range.
    """
    if operations < 0:
        raise ValueError(f"operations: expected 0 or more, got {operations}")
    if not 0 <= magnitude <= 1:
        raise ValueError(f"magnitude: expected 0 to 1, got {magnitude}")
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation: expected one of {', '.join(AUGMENTATIONS)}, got {name!r}")

    def randaugment(key: jax.Array, images: jax.Array) -> jax.Array:
        crop_key, operation_key, cut_key = jax.random.split(key, 3)
        images = rand_augment(operation_key, _crop_flip(crop_key, images), operations=operations, magnitude=magnitude)
        return _cutout(cut_key, images, images.shape[1] // 4)

    policies: dict[str, Augment | None] = {
        "none": None,
        "affine": _affine,
        "crop-flip": _crop_flip,
        "randaugment": randaugment,
    }
    policy = policies[name]
    if not cutout_size:
        return policy

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        policy_key, cut_key = jax.random.split(key)
        return _cutout(cut_key, images if policy is None else policy(policy_key, images), cutout_size)

    return augment


def _affine(key: jax.Array, images: jax.Array) -> jax.Array:
    """Rotates, scales and shifts each image a little, with bilinear interpolation and a repeated border."""
    uniform = jax.random.uniform(key, (4, images.shape[0]), minval=-1.0, maxval=1.0)
    angles, sizes, shifts = _ROTATION * uniform[0], jnp.exp(_SCALING * uniform[1]), images.shape[1] / 8 * uniform[2:]
    cos, sin = sizes * jnp.cos(angles), sizes * jnp.sin(angles)
    matrices = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    return _warp(images, matrices, shifts.T)


def _crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images, and shifts each by whole pixels up to an eighth of its size, over zeros."""
    flip_key, crop_key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, 1))
    images, padding = jnp.where(flipped, images[:, :, ::-1], images), images.shape[1] // 8
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(crop_key, (images.shape[0], 2), 0, 2 * padding + 1)

    def one(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.zeros_like(corner[0])), images.shape[1:])

    return jax.vmap(one)(padded, corners)


def _cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Covers a square of each image [B, H, W, C] with the image's mean (arXiv 1708.04552).

    Args:
        key: PRNG key.
        images: float32[B, H, W, C].
        size: Side of the square in pixels; its centre lies anywhere in the image, the square partly outside too.
    """
    batch, height, width, _ = images.shape
    corners = jax.random.randint(key, (2, batch, 1), 0, jnp.array([height, width])[:, None, None]) - size // 2
    rows, columns = (
        (jnp.arange(n)[None] >= corner) & (jnp.arange(n)[None] < corner + size)
        for n, corner in zip((height, width), corners, strict=True)
    )
    covered = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(covered, jnp.mean(images, (1, 2), keepdims=True), images)


def rand_augment(
    key: jax.Array, images: jax.Array, *, operations: int = 2, magnitude: float | jax.Array = 0.3
) -> jax.Array:
    """Sends each image through `operations` random operations, one after the other.

    Args:
        key: PRNG key.
        images: float32[B, H, W, C] in 0 .. 1.
        operations: How many; the identity may be among them.
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
    angles = _TURN * strength["rotate"]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    rows = jnp.stack([cos, _SHEAR * strength["shear_y"] - sin], -1)
    columns = jnp.stack([_SHEAR * strength["shear_x"] + sin, cos], -1)
    height, width = images.shape[1:3]
    down, right = height * strength["translate_y"], width * strength["translate_x"]
    return _warp(images, jnp.stack([rows, columns], -2), _TRANSLATION * jnp.stack([down, right], -1))


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
    lost = jnp.round(_LOST_BITS * amounts)
    step = _per_image(jnp.exp2(lost))
    return jnp.where(step > 1.0, jnp.floor(jnp.round(images * 255) / step) * step / 255, images)


def _solarised(images: jax.Array, amounts: jax.Array) -> jax.Array:
    """Values above a threshold, 1 less the amount, inverted."""
    return jnp.where(images > _per_image(1.0 - amounts), 1.0 - images, images)


def _mixed(images: jax.Array, others: jax.Array, shares: jax.Array) -> jax.Array:
    return images + _per_image(shares) * (others - images)


def _per_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]


def _warp(images: jax.Array, matrices: jax.Array, shifts: jax.Array) -> jax.Array:
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
