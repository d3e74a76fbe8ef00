"""Which images are for training, search, calibration and test.

A data set comes in up to three groups: its training images, held-out images (a validation set of its own) and test
images of its own. A part is taken from the group that is meant for it, and cut off the training images otherwise.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from hadas_jax.data.arrays import LabelledImages, Splits, channel_statistics

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
TRAIN, HELD_OUT, TEST = range(3)
_SHARE = 0.15
_MOST = 5000  # of validation and of calibration


class Part(NamedTuple):
    """The group that a part is taken from, and the ascending rows int[n] into it."""

    group: int
    rows: np.ndarray


class Parts(NamedTuple):
    """Of every image that is used, where it is used."""

    train: Part
    validation: Part
    calibration: Part
    test: Part


class Group(NamedTuple):
    """How many images a group has, and their labels int[size] where they are known without reading the images."""

    size: int
    labels: np.ndarray | None


def plan_parts(
    whole: Group,
    *,
    held_out: Group | None = None,
    test: Group | None = None,
    seed: int,
    source: str,
    share: float = _SHARE,
    evaluation_images: int | None = None,
    test_images: int | None = None,
) -> Parts:
    """Divides a data set, by class where labels are known.

    Args:
      whole: training images.
      held_out: images for validation and calibration alone, half each.
      test: images for test alone.
      seed: of the split.
      source: named in errors.
      share: of the training images, for each part that is cut off.
      evaluation_images: the most images of validation, of calibration (5,000 where None) and of test.
      test_images: the most images of the test part where `evaluation_images` is None; all where this is None too.

    Raises:
      ValueError: a class is too small to be in all parts, fewer evaluation images than classes, or one held-out image.
    """
    most = _MOST if evaluation_images is None else evaluation_images
    test_most = test_images if evaluation_images is None else evaluation_images
    if held_out is not None and held_out.size < 2:
        raise ValueError(
            f"{source}: expected at least 2 images in its validation set, half of them to calibrate, got "
            f"{held_out.size}"
        )
    cuts = (0 if test else 1) + (0 if held_out else 2)
    _check_sizes(whole, cuts=cuts, share=share, most=most, source=source)
    size = max(round(share * whole.size), 1)
    rest = np.arange(whole.size)

    def cut(rest: np.ndarray, most: int | None, number: int) -> tuple[np.ndarray, Part]:
        labels = None if whole.labels is None else whole.labels[rest]
        cut_size = size if most is None else min(size, most)
        left, chosen = train_test_split(
            rest, test_size=cut_size, random_state=seed + number, stratify=labels, shuffle=True
        )
        return left, Part(TRAIN, np.sort(chosen))

    if test is None:
        rest, test_part = cut(rest, test_most, 0)
    else:
        test_part = Part(TEST, _subset(test, np.arange(test.size), test_most, seed))
    if held_out is None:
        rest, calibration = cut(rest, most, 1)
        rest, validation = cut(rest, most, 2)
    else:
        everything = np.arange(held_out.size)
        half = _subset(held_out, everything, held_out.size // 2, seed + 1)
        other = np.setdiff1d(everything, half)
        calibration = Part(HELD_OUT, _subset(held_out, half, most, seed + 1))
        validation = Part(HELD_OUT, _subset(held_out, other, most, seed + 2))
    return Parts(Part(TRAIN, np.sort(rest)), validation, calibration, test_part)


def _check_sizes(whole: Group, *, cuts: int, share: float, most: int, source: str) -> None:
    if whole.labels is None or not cuts:
        return
    counts = np.bincount(whole.labels)
    counts = counts[counts > 0]
    smallest = int(counts.min())
    needed = max(4, int(np.ceil(1 / share)))
    if smallest * share < 1 or smallest < 4:
        raise ValueError(f"{source}: expected at least {needed} images of every class to split, got {smallest}")
    if most < len(counts):
        raise ValueError(f"{source}: evaluation images: expected at least {len(counts)}, the classes, got {most}")


def _subset(group: Group, rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most so many of the rows, ascending; from every class its share, to within one image."""
    if most is None or len(rows) <= most:
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    if group.labels is None:
        return np.sort(order[:most])
    labels = group.labels[order]
    place = np.empty(len(order))  # of an image within its class, as a share of the class
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.sort(order[np.argsort(place, kind="stable")[:most]])


def check_normalisation(normalisation: Normalisation, *, channels: int, source: str) -> Normalisation:
    """Returns mean and deviation as they are, one of each for every channel.

    Raises:
      ValueError: another number of them, values that are not finite, or a deviation that is not positive.
    """
    mean, deviation = (tuple(float(x) for x in values) for values in normalisation)
    if len(mean) != channels or len(deviation) != channels:
        found = f"{len(mean)} and {len(deviation)}"
        raise ValueError(f"{source}: normalisation: expected {channels} means and deviations (channels), got {found}")
    if not np.isfinite([*mean, *deviation]).all() or min(deviation) <= 0:
        raise ValueError(f"{source}: normalisation: expected finite means, positive deviations, got {normalisation}")
    return mean, deviation


def labelled(images: np.ndarray, labels: np.ndarray, normalisation: Normalisation) -> LabelledImages:
    """Returns images [N, H, W, C] and labels [N] as arrays on the device, to be standardised on use."""
    mean, deviation = (jnp.asarray(values, jnp.float32) for values in normalisation)
    return LabelledImages(jnp.asarray(images), jnp.asarray(labels, jnp.int32), mean, deviation)


def split(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    source: str,
    share: float = _SHARE,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    evaluation_images: int | None = None,
    normalisation: Normalisation | None = None,
    classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Splits arrays by class into train, validation, calibration and test.

    Args:
      images: uint8 or float32 [N, H, W, C].
      labels: int32[N].
      seed: of the split.
      source: named in errors.
      share: of each part that is cut off; validation and calibration have at most 5,000 images.
      held_out: images and labels of the data set's own for validation and calibration, half each.
      test: images and labels of the data set's own test set.
      evaluation_images: the most images of validation, calibration and test.
      normalisation: mean and deviation of every channel; those of the training images where None.
      classes: K; one more than the largest label where None.
      class_names: K names.
      notes: on what was left out of the data set.

    Raises:
      ValueError: a class is too small to be in all parts, images that are constant, or a wrong normalisation.
    """
    given = {TRAIN: (images, labels), HELD_OUT: held_out, TEST: test}
    arrays = {group: found for group, found in given.items() if found is not None}
    groups = {group: Group(len(found[1]), found[1]) for group, found in arrays.items()}
    parts = plan_parts(
        groups[TRAIN],
        held_out=groups.get(HELD_OUT),
        test=groups.get(TEST),
        seed=seed,
        source=source,
        share=share,
        evaluation_images=evaluation_images,
    )
    own = channel_statistics(images[parts.train.rows], source=source)
    used = (
        own if normalisation is None else check_normalisation(normalisation, channels=images.shape[-1], source=source)
    )

    def take(part: Part) -> LabelledImages:
        found = arrays[part.group]
        return labelled(found[0][part.rows], found[1][part.rows], used)

    return Splits(
        train=take(parts.train),
        validation=take(parts.validation),
        calibration=take(parts.calibration),
        test=take(parts.test),
        classes=int(labels.max()) + 1 if classes is None else classes,
        mean=used[0],
        deviation=used[1],
        class_names=class_names,
        notes=notes,
    )
