"""Augmentation policies by name; all run on the device, on images in 0 .. 1 before they are standardised."""

from collections.abc import Callable

import jax

from hadas_jax.training.geometry import cutout, random_affine, random_crop, random_flip
from hadas_jax.training.rand_augment import rand_augment

# (key, images float32[B, H, W, C] in 0 .. 1) -> the same form
Augment = Callable[[jax.Array, jax.Array], jax.Array]

AUGMENTATIONS = ("none", "affine", "crop-flip", "randaugment")


def augmentation(name: str, *, operations: int = 2, magnitude: float = 0.3) -> Augment | None:
    """Returns a policy, or None for none.

    Args:
      name: `none`; `affine`: small rotations, scalings and shifts by up to an eighth of the size; `crop-flip`: shifts
        by whole pixels up to an eighth of the size, and mirror images; `randaugment`: crop-flip, then random
        operations (see `rand_augment`; values beyond 0 .. 1 are cut off) and a square of a quarter of the size cut out.
      operations: of RandAugment, per image.
      magnitude: of RandAugment, 0 .. 1.

    Raises:
      ValueError: an unknown name, or figures out of their range.
    """
    if operations < 0:
        raise ValueError(f"operations: expected 0 or more, got {operations}")
    if not 0 <= magnitude <= 1:
        raise ValueError(f"magnitude: expected 0 to 1, got {magnitude}")
    if name not in AUGMENTATIONS:
        raise ValueError(f"augmentation: expected one of {', '.join(AUGMENTATIONS)}, got {name!r}")

    def randaugment(key: jax.Array, images: jax.Array) -> jax.Array:
        crop_key, operation_key, cut_key = jax.random.split(key, 3)
        images = rand_augment(operation_key, crop_flip(crop_key, images), operations=operations, magnitude=magnitude)
        return cutout(cut_key, images, images.shape[1] // 4)

    return {"none": None, "affine": affine, "crop-flip": crop_flip, "randaugment": randaugment}[name]


def affine(key: jax.Array, images: jax.Array) -> jax.Array:
    """Rotates, scales and shifts each image [B, H, W, C] a little, by up to an eighth of its size."""
    return random_affine(key, images, images.shape[1] / 8)


def crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images [B, H, W, C], and shifts each by whole pixels up to an eighth of its size."""
    flip_key, crop_key = jax.random.split(key)
    return random_crop(crop_key, random_flip(flip_key, images), images.shape[1] // 8)
