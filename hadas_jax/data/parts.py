"""Which images are for training, search, calibration and test.

A data set comes in up to three groups: its training images, held-out images (a validation set of its own) and test
images of its own. A part is taken from the group that is meant for it, and cut off the training images otherwise. The
division follows from the data and a seed alone; fewer images to evaluate on are a part of these parts.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from sklearn.model_selection import train_test_split

TRAINING, HELD_OUT, TEST = "training", "validation", "test"
"""The groups, by the names that records have for them."""
SHARE = 0.15
_MOST = 5000  # of validation and of calibration
_MOST_TEST = 10_000  # of a test part that is cut off the training images
ItemT = TypeVar("ItemT")


class Group(NamedTuple):
    """How many images a group has, and their labels int[size] where they are known without reading the images."""

    size: int
    labels: np.ndarray | None


class Part(NamedTuple):
    """The group that a part is taken from, and the ascending rows int[n] into it."""

    group: str
    rows: np.ndarray


class Parts(NamedTuple):
    """Of every image that is used, where it is used."""

    train: Part
    validation: Part
    calibration: Part
    test: Part


def as_groups(parts: Mapping[str, ItemT]) -> dict[str, ItemT]:
    """Returns what is given of train, val and test by group: validation images are the test images that are missing."""
    groups = {"train": TRAINING, "val": HELD_OUT if "test" in parts else TEST, "test": TEST}
    return {name: parts[part] for part, name in groups.items() if part in parts}


def divide(
    groups: Mapping[str, Group],
    *,
    seed: int,
    source: str,
    share: float = SHARE,
    class_names: tuple[str, ...] | None = None,
) -> Parts:
    """Divides a data set, by class where labels are known.

    Held-out images are for validation and calibration alone, half each.

    Args:
        groups: The groups of the data set.
        seed: Random seed of the division.
        source: Name of the data set, for errors.
        share: Share of the training images in each part that is cut off; at most 5,000 for validation and for
            calibration, and 10,000 for test.
        class_names: K names, for errors.

    Raises:
        ValueError: A class is too small to be in all parts, or one held-out image.
    """
    whole, held_out, test = (groups.get(name) for name in (TRAINING, HELD_OUT, TEST))
    assert whole is not None
    if held_out is not None and held_out.size < 2:
        raise ValueError(
            f"{source}: expected at least 2 images in its validation set, half of them to calibrate, got "
            f"{held_out.size}"
        )
    if held_out is None or test is None:
        _check_sizes(whole, share=share, source=source, class_names=class_names)
    size = max(round(share * whole.size), 1)
    rest = np.arange(whole.size)

    def cut(rest: np.ndarray, most: int, number: int) -> tuple[np.ndarray, Part]:
        labels = None if whole.labels is None else whole.labels[rest]
        left, chosen = train_test_split(
            rest, test_size=min(size, most), random_state=seed + number, stratify=labels, shuffle=True
        )
        return left, Part(TRAINING, np.sort(chosen))

    if test is None:
        rest, test_part = cut(rest, _MOST_TEST, 0)
    else:
        test_part = Part(TEST, np.arange(test.size))
    if held_out is None:
        rest, calibration = cut(rest, _MOST, 1)
        rest, validation = cut(rest, _MOST, 2)
    else:
        everything = np.arange(held_out.size)
        half = _subset(held_out, everything, held_out.size // 2, seed + 1)
        other = np.setdiff1d(everything, half)
        calibration = Part(HELD_OUT, _subset(held_out, half, _MOST, seed + 1))
        validation = Part(HELD_OUT, _subset(held_out, other, _MOST, seed + 2))
    return Parts(Part(TRAINING, np.sort(rest)), validation, calibration, test_part)


def limit(
    parts: Parts,
    groups: Mapping[str, Group],
    *,
    seed: int,
    source: str,
    images: int | None,
    test_images: int | None,
) -> Parts:
    """Returns the parts with fewer images to evaluate on, by class where labels are known; training keeps its own.

    Args:
        parts: All of the data set.
        groups: The groups that they are taken from.
        seed: Random seed of the choice.
        source: Name of the data set, for errors.
        images: The most images of validation and of calibration; None takes all.
        test_images: The most images of test; None takes all.

    Raises:
        ValueError: Fewer images than classes.
    """

    def chosen(part: Part, most: int | None, number: int) -> Part:
        group = groups[part.group]
        if images is not None and group.labels is not None and images < len(np.unique(group.labels)):
            classes = len(np.unique(group.labels))
            raise ValueError(f"{source}: evaluation images: expected at least {classes}, the classes, got {images}")
        return Part(part.group, _subset(group, part.rows, most, seed + number))

    return parts._replace(
        test=chosen(parts.test, test_images, 0),
        calibration=chosen(parts.calibration, images, 1),
        validation=chosen(parts.validation, images, 2),
    )


def _check_sizes(whole: Group, *, share: float, source: str, class_names: tuple[str, ...] | None) -> None:
    if whole.labels is None:
        return
    counts = np.bincount(whole.labels)
    needed = max(4, int(np.ceil(1 / share)))
    few = [label for label in np.flatnonzero(counts).tolist() if counts[label] * share < 1 or counts[label] < 4]
    if few:
        smallest = min(few, key=lambda label: counts[label])
        name = f"class {smallest}" if class_names is None else class_names[smallest]
        others = f" and too few of {len(few) - 1} more" if len(few) > 1 else ""
        raise ValueError(
            f"{source}: expected at least {needed} images of every class to split, got {counts[smallest]} of "
            f"{name}{others}"
        )


def _subset(group: Group, rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
    """At most so many of the rows, ascending; from every class its share, to within one image."""
    if most is None or len(rows) <= most:
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    if group.labels is None:
        return np.sort(order[:most])
    labels = group.labels[order]
    rank = np.empty(len(order))  # of an image within its class, as a share of the class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(rank, kind="stable")[:most]])
