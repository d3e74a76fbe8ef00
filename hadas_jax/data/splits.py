"""Which images are for training, search, calibration and test.

A data set comes in up to three groups: its training images, held-out images (a validation set of its own) and test
images of its own. A part is taken from the group that is meant for it, and cut off the training images otherwise. The
division follows from the data and a seed alone; fewer images to evaluate on are a part of these parts.

From sources of images to splits: in memory where the training images fit, as a stream where they do not.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from hadas_jax.data.arrays import (
    NAMED_CLASSES,
    LabelledImages,
    Normalisation,
    channel_statistics,
    check_labels,
    labelled,
)
from hadas_jax.data.images import (
    SKIPPING,
    Source,
    array_fingerprints,
    pixel_fingerprints,
    read_images,
    readable,
    unreadable_note,
)
from hadas_jax.data.notes import counted, some
from hadas_jax.data.record import AT_RANDOM, BY_CLASS, SplitRecord, digest_group, digest_rows, sketch_of
from hadas_jax.data.stream import Stream, sample_images


@dataclass(frozen=True)
class Splits:
    """A data set in four parts.

    Attributes:
        train: For weights and batch-norm statistics; a stream where the images do not fit into memory.
        validation: For the search.
        calibration: For exit thresholds.
        test: For the final report alone.
        classes: K.
        mean: By which images are standardised, one number for each channel.
        deviation: Likewise.
        name: Of the data set.
        record: What the data set is and how it is divided, whatever part of it is evaluated on.
        fingerprints: uint64[n], by which images of the data set are known again, rising.
        evaluated_fingerprints: uint64[n], of the images of validation, calibration and test, each as it is stored.
        class_names: K names, where the data set has them.
        notes: What was left out of the data set and why, and what was taken for what, in a clause each.
    """

    train: "LabelledImages | Stream"
    validation: LabelledImages
    calibration: LabelledImages
    test: LabelledImages
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    name: str
    record: SplitRecord
    fingerprints: np.ndarray = field(repr=False)
    evaluated_fingerprints: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.validation.images.shape[1]

    @property
    def channels(self) -> int:
        """C."""
        return self.validation.images.shape[3]

    def summary(self) -> str:
        """Returns one line about the data set: classes, images, parts and what was left out."""
        named = "" if self.class_names is None else f" ({some(self.class_names, most=NAMED_CLASSES)})"
        kind = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels} channels")
        images = f"{self.classes} classes{named}, {self.image_size}x{self.image_size} pixels, {kind}"
        evaluated = {"validation": self.validation, "calibration": self.calibration, "test": self.test}
        counts = ", ".join(f"{part.count:,} {name}" for name, part in evaluated.items())
        return "; ".join([images, f"{counted(self.train.count, 'image')} to train on, {counts}", *self.notes])


TRAIN, HELD_OUT, TEST = range(3)
GROUP_NAMES = ("training", "validation", "test")
_SHARE = 0.15
_MOST = 5000  # of validation and of calibration
_MOST_TEST = 10_000  # of a test part that is cut off the training images


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


class Identity(NamedTuple):
    """By what the stored images of a data set are told apart.

    Attributes:
        form: Of an image, in words.
        fingerprint_of: By group, what fingerprints are of: contents, or names and sizes.
        fingerprints: By group, uint64[N].
        names: uint64[n], of the names and sizes of images in files, by which they are known again where they become too
            many to be read, or few enough.
        pixels: uint64[n], of what they look like, by which they are known again in another form.
    """

    form: str
    fingerprint_of: Mapping[int, str]
    fingerprints: Mapping[int, np.ndarray]
    names: np.ndarray
    pixels: np.ndarray

    def of_parts(self, parts: Sequence[Part]) -> np.ndarray:
        """Returns uint64[n]: the fingerprints of the images of some parts."""
        return np.concatenate([self.fingerprints[part.group][part.rows] for part in parts])

    @property
    def contents(self) -> np.ndarray:
        """uint64[n]: all different fingerprints but those of names alone, rising."""
        return np.unique(np.concatenate([*self.fingerprints.values(), self.pixels]))

    @property
    def all(self) -> np.ndarray:
        """uint64[n]: all different fingerprints, rising."""
        return np.union1d(self.contents, self.names)


def plan_parts(
    whole: Group,
    *,
    held_out: Group | None = None,
    test: Group | None = None,
    seed: int,
    source: str,
    share: float = _SHARE,
    class_names: tuple[str, ...] | None = None,
) -> Parts:
    """Divides a data set, by class where labels are known.

    Args:
        whole: Training images.
        held_out: Images for validation and calibration alone, half each.
        test: Images for test alone.
        seed: Of the split.
        source: Named in errors.
        share: Of the training images, for each part that is cut off; at most 5,000 for validation and for calibration,
            and 10,000 for test.
        class_names: For errors.

    Raises:
        ValueError: A class is too small to be in all parts, or one held-out image.
    """
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
        return left, Part(TRAIN, np.sort(chosen))

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
    return Parts(Part(TRAIN, np.sort(rest)), validation, calibration, test_part)


def evaluated(
    parts: Parts,
    groups: Mapping[int, Group],
    *,
    seed: int,
    source: str,
    images: int | None,
    test_images: int | None = None,
) -> Parts:
    """Returns the parts with fewer images to evaluate on, by class where labels are known; training keeps its own.

    Args:
        parts: Of the data set.
        groups: That they are taken from.
        seed: Of the choice.
        source: Named in errors.
        images: The most of validation, of calibration and of test; None: all.
        test_images: The most of test where `images` is None; all where this is None too.

    Raises:
        ValueError: Fewer images than classes.
    """

    def some(part: Part, most: int | None, number: int) -> Part:
        group = groups[part.group]
        if images is not None and group.labels is not None and images < len(np.unique(group.labels)):
            classes = len(np.unique(group.labels))
            raise ValueError(f"{source}: evaluation images: expected at least {classes}, the classes, got {images}")
        return Part(part.group, _subset(group, part.rows, most, seed + number))

    return parts._replace(
        test=some(parts.test, test_images if images is None else images, 0),
        calibration=some(parts.calibration, images, 1),
        validation=some(parts.validation, images, 2),
    )


def record_of(
    parts: Parts,
    groups: Mapping[int, Group],
    identity: Identity,
    *,
    seed: int,
    classes: int,
    class_names: tuple[str, ...] | None,
) -> SplitRecord:
    """Returns the record of a divided data set.

    Args:
        parts: All of them, before fewer are chosen to evaluate on.
        groups: Of the data set.
        identity: Of its images.
        seed: Of the division.
        classes: K.
        class_names: K names.
    """
    return SplitRecord(
        rule=AT_RANDOM if groups[TRAIN].labels is None else BY_CLASS,
        seed=seed,
        parts={name: len(part.rows) for name, part in parts._asdict().items()},
        division=digest_rows([part.rows for part in parts]),
        form=identity.form,
        sketch=sketch_of(identity.contents),
        classes=classes,
        class_names=class_names,
        groups={
            GROUP_NAMES[group]: digest_group(found, groups[group].labels, fingerprint_of=identity.fingerprint_of[group])
            for group, found in identity.fingerprints.items()
        },
    )


def identity_of_arrays(groups: Mapping[int, np.ndarray]) -> Identity:
    """Returns what tells images [N, H, W, C] in memory apart, by group."""
    images = groups[TRAIN]
    form = f"{'x'.join(map(str, images.shape[1:]))} {images.dtype}"
    return Identity(
        form,
        dict.fromkeys(groups, "contents"),
        {group: array_fingerprints(found) for group, found in groups.items()},
        *[np.zeros(0, np.uint64)] * 2,
    )


def repeated_note(parts: Parts, identity: Identity) -> tuple[str, ...]:
    """Returns a note on images that stand among the training images and in another part too, if there are any."""
    trained = identity.of_parts([parts.train])
    counts = {
        name: int(np.isin(identity.of_parts([part]), trained).sum())
        for name, part in parts._asdict().items()
        if name != "train"
    }
    if not any(counts.values()):
        return ()
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return (f"equal to training images, so that accuracy is flattered: {listed}",)


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
    place = np.empty(len(order))  # of an image within its class, as a share of the class
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.sort(order[np.argsort(place, kind="stable")[:most]])


def check_normalisation(normalisation: Normalisation, *, channels: int, source: str) -> Normalisation:
    """Returns mean and deviation as they are, one of each for every channel.

    Raises:
        ValueError: Another number of them, values that are not finite, or a deviation that is not positive.
    """
    mean, deviation = (tuple(float(x) for x in values) for values in normalisation)
    if len(mean) != channels or len(deviation) != channels:
        found = f"{len(mean)} and {len(deviation)}"
        raise ValueError(f"{source}: normalisation: expected {channels} means and deviations (channels), got {found}")
    if not np.isfinite([*mean, *deviation]).all() or min(deviation) <= 0:
        raise ValueError(f"{source}: normalisation: expected finite means, positive deviations, got {normalisation}")
    return mean, deviation


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
    identity: Identity | None = None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Splits arrays by class into train, validation, calibration and test.

    Args:
        images: uint8 or float32 [N, H, W, C].
        labels: int32[N].
        seed: Of the split.
        source: Named in errors.
        share: Of each part that is cut off, see `plan_parts`.
        held_out: Images and labels of the data set's own for validation and calibration, half each.
        test: Images and labels of the data set's own test set.
        evaluation_images: The most images of validation, calibration and test, a part of these parts.
        normalisation: Mean and deviation of every channel; those of the training images where None.
        classes: K; one more than the largest label where None.
        class_names: K names.
        identity: Of the images as they are stored; of the arrays where None.
        notes: On what was left out of the data set.

    Raises:
        ValueError: A class is too small to be in all parts, images that are constant, or a wrong normalisation.
    """
    given = {TRAIN: (images, labels), HELD_OUT: held_out, TEST: test}
    arrays = {group: found for group, found in given.items() if found is not None}
    groups = {group: Group(len(found[1]), found[1]) for group, found in arrays.items()}
    classes = int(labels.max()) + 1 if classes is None else classes
    whole = plan_parts(
        groups[TRAIN],
        held_out=groups.get(HELD_OUT),
        test=groups.get(TEST),
        seed=seed,
        source=source,
        share=share,
        class_names=class_names,
    )
    identity = identity or identity_of_arrays({group: found[0] for group, found in arrays.items()})
    pixels = [pixel_fingerprints(found[0]) for found in arrays.values()]
    identity = identity._replace(pixels=np.concatenate(pixels))
    record = record_of(whole, groups, identity, seed=seed, classes=classes, class_names=class_names)
    parts = evaluated(whole, groups, seed=seed, source=source, images=evaluation_images)
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
        classes=classes,
        mean=used[0],
        deviation=used[1],
        class_names=class_names,
        name=source,
        record=record,
        fingerprints=identity.all,
        evaluated_fingerprints=identity.of_parts(whole[1:]),
        notes=(*notes, *repeated_note(parts, identity)),
    )


_STREAM_TEST = 10_000  # test images of a stream, where nothing else is asked for
_STATISTICS = 4096  # training images of a stream that its mean and deviation are taken from


@dataclass(frozen=True)
class Sources:
    """Where the images of a data set are.

    Attributes:
        name: Of the data set, for errors.
        train: Images for all parts that have none of their own.
        held_out: Images for validation and calibration alone.
        test: Images for test alone.
        image_size: Height and width of all images, where they are square and of one size.
        classes: K.
        class_names: K names or None.
        notes: On what was left out and why, in a clause each.
        unreadable: Names of images that were left out because they cannot be read.
    """

    name: str
    train: Source
    held_out: Source | None
    test: Source | None
    image_size: int | None
    classes: int
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes, with one on what cannot be read."""
        return (*self.notes, *unreadable_note(self.unreadable))


def assemble(
    sources: Sources,
    *,
    seed: int,
    stream_seed: int,
    image_size: int | None,
    normalisation: Normalisation | None,
    in_memory_bytes: int,
    evaluation_images: int | None,
    skip_unreadable: bool = False,
) -> Splits:
    """Returns the splits of a data set; arguments as those of `load_dataset`.

    Raises:
        ValueError: Images of several sizes and no size to bring them to, images that cannot be read, classes that are
            too small to split, or a wrong normalisation.
    """
    size = image_size or sources.image_size
    if size is None:
        raise ValueError(
            f"{sources.name}: expected square images of one size, or a size to bring them to: give --image-size"
        )
    train = sources.train
    is_streamed = len(train) * size**2 * train.channels > in_memory_bytes
    if skip_unreadable and (not is_streamed or train.fingerprint_of == "contents"):
        sources = _without_unreadable(sources)
    if is_streamed:
        return _streamed(
            sources,
            size,
            seed=seed,
            stream_seed=stream_seed,
            normalisation=normalisation,
            evaluation_images=evaluation_images,
        )

    def read(source: Source) -> tuple[np.ndarray, np.ndarray]:
        return _read(source, np.arange(len(source)), size, sources, advice=SKIPPING)

    images, labels = read(sources.train)
    return split(
        images,
        labels,
        seed=seed,
        source=sources.name,
        held_out=None if sources.held_out is None else read(sources.held_out),
        test=None if sources.test is None else read(sources.test),
        evaluation_images=evaluation_images,
        normalisation=normalisation,
        classes=sources.classes,
        class_names=sources.class_names,
        identity=_identity(sources),
        notes=sources.all_notes,
    )


def _present(sources: Sources) -> dict[int, Source]:
    given = {TRAIN: sources.train, HELD_OUT: sources.held_out, TEST: sources.test}
    return {group: source for group, source in given.items() if source is not None}


def _identity(sources: Sources) -> Identity:
    """What tells the images apart, whatever size they are brought to."""
    present = _present(sources)
    return Identity(
        f"{sources.train.channels} channels",
        {group: source.fingerprint_of for group, source in present.items()},
        {group: source.fingerprints() for group, source in present.items()},
        np.concatenate([source.fingerprints(of="names and sizes") for source in present.values()]),
        np.zeros(0, np.uint64),
    )


def _without_unreadable(sources: Sources) -> Sources:
    failed = list(sources.unreadable)

    def keep(source: Source, part: str) -> Source:
        kept, failures = readable(source)
        failed.extend(failures)
        if not len(kept) or (part == "training" and _classes_of(kept) != _classes_of(source)):
            lost = "none of them" if not len(kept) else "none of a class"
            raise ValueError(f"{sources.name}: expected {part} images that can be read, got {lost}: {some(failures)}")
        return kept

    train = keep(sources.train, "training")
    held_out = None if sources.held_out is None else keep(sources.held_out, "validation")
    test = None if sources.test is None else keep(sources.test, "test")
    return replace(sources, train=train, held_out=held_out, test=test, unreadable=tuple(failed))


def _classes_of(source: Source) -> set[int]:
    return set() if source.labels is None else set(source.labels[source.labels >= 0].tolist())


def _read(
    source: Source, rows: np.ndarray, size: int, sources: Sources, *, advice: str = "remove them"
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_images(source, rows, size=size, name=sources.name, advice=advice)
    check_labels(labels, source=sources.name, classes=sources.classes)
    return images, labels


def _streamed(
    sources: Sources,
    size: int,
    *,
    seed: int,
    stream_seed: int,
    normalisation: Normalisation | None,
    evaluation_images: int | None,
) -> Splits:
    train, present = sources.train, _present(sources)
    groups = {group: Group(len(source), source.labels) for group, source in present.items()}
    whole = plan_parts(
        groups[TRAIN],
        held_out=groups.get(HELD_OUT),
        test=groups.get(TEST),
        seed=seed,
        source=sources.name,
        class_names=sources.class_names,
    )
    identity = _identity(sources)
    record = record_of(whole, groups, identity, seed=seed, classes=sources.classes, class_names=sources.class_names)
    parts = evaluated(whole, groups, seed=seed, source=sources.name, images=evaluation_images, test_images=_STREAM_TEST)
    rows = parts.train.rows
    if normalisation is None:
        sampled, _ = sample_images(train, rows, _STATISTICS, seed=seed, size=size, name=sources.name)
        used = channel_statistics(sampled, source=sources.name)
    else:
        used = check_normalisation(normalisation, channels=train.channels, source=sources.name)

    def take(part: Part) -> LabelledImages:
        return labelled(*_read(present[part.group], part.rows, size, sources), used)

    return Splits(
        train=Stream(
            source=train,
            rows=rows,
            image_size=size,
            seed=stream_seed,
            name=sources.name,
            mean=used[0],
            deviation=used[1],
        ),
        validation=take(parts.validation),
        calibration=take(parts.calibration),
        test=take(parts.test),
        classes=sources.classes,
        mean=used[0],
        deviation=used[1],
        name=sources.name,
        record=record,
        fingerprints=identity.all,
        evaluated_fingerprints=identity.of_parts(whole[1:]),
        class_names=sources.class_names,
        notes=(*sources.all_notes, *repeated_note(parts, identity)),
    )


def standardised_by(splits: Splits, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Splits:
    """Returns a data set whose images are standardised by other figures than its own.

    Args:
        splits: The data set.
        mean: Of each channel, in 0 .. 1 for images of bytes.
        deviation: Likewise.
    """
    by = {"mean": jnp.asarray(mean, jnp.float32), "deviation": jnp.asarray(deviation, jnp.float32)}
    train = splits.train
    return dataclasses.replace(
        splits,
        train=dataclasses.replace(train, mean=mean, deviation=deviation)
        if isinstance(train, Stream)
        else dataclasses.replace(train, **by),
        validation=dataclasses.replace(splits.validation, **by),
        calibration=dataclasses.replace(splits.calibration, **by),
        test=dataclasses.replace(splits.test, **by),
        mean=mean,
        deviation=deviation,
    )


def random_batches(train: LabelledImages | Stream, batches: int, batch: int, *, seed: int) -> jax.Array:
    """Returns random training images, not augmented, for batch-norm statistics: float32[batches, B, H, W, channels].

    Args:
        train: The training images.
        batches: How many.
        batch: B.
        seed: Of the choice; a stream has its own.
    """
    count = batches * batch
    # Not the first ones: images may be in the order of their classes.
    if isinstance(train, Stream):
        images, _ = train.sample(count).take(jnp.arange(count))
    else:
        rows = np.random.default_rng(seed).permutation(train.count)[:count]
        images, _ = train.take(jnp.asarray(rows, jnp.int32))
    return images.reshape(batches, batch, *images.shape[1:])
