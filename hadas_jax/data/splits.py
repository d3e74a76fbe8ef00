"""A data set in four parts: from arrays, or from sources of images, to splits.

A data set comes in up to three groups: its training images, held-out images (a validation set of its own) and test
images of its own. A part is taken from the group that is meant for it, and cut off the training images otherwise. The
division follows from the data and a seed alone; fewer images to evaluate on are a part of these parts.

Images are held in memory where those to train on fit, and are a stream where they do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.model_selection import train_test_split

from hadas_jax.data.arrays import NAMED_CLASSES, LabelledImages, Normalisation, check_arrays
from hadas_jax.data.images import SKIPPING, Source, array_fingerprints, fit
from hadas_jax.data.notes import first_few, plural
from hadas_jax.data.record import HELD_OUT, TEST, TRAINING, Identity, SplitRecord
from hadas_jax.data.stream import Stream

_SHARE = 0.15
_MOST = 5000  # images of validation and of calibration
# Images of a test part that is cut off the training images, and of a stream where nothing else is asked for.
_MOST_TEST = 10_000
_STATISTICS = 4096  # training images of a stream that its mean and standard deviation are taken from
_CHUNK = 1024  # images whose values are counted at once
_Pair = tuple[np.ndarray, np.ndarray]
ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Options:
    """How a data set is divided and standardised.

    Attributes:
        seed: Random seed of the division.
        evaluation_images: The most images of validation, calibration and test, a part of these parts; None takes all.
        normalisation: Mean and standard deviation of every channel; those of the training images where None.
        share: Share of the training images in each part that is cut off.
    """

    seed: int
    evaluation_images: int | None = None
    normalisation: Normalisation | None = None
    share: float = _SHARE


@dataclass(frozen=True)
class Splits:
    """A data set in four parts.

    Attributes:
        train: Images for weights and batch-norm statistics; a stream where they do not fit into memory.
        validation: Images for the search.
        calibration: Images for exit thresholds.
        test: Images for the final report alone.
        classes: K.
        name: Name of the data set.
        record: What the data set is and how it is divided, whatever part of it is evaluated on.
        fingerprints: uint64[n], by which images of the data set are recognised, rising.
        evaluated_fingerprints: uint64[n], of the images of validation, calibration and test, each as it is stored.
        class_names: K names, where the data set has them.
        notes: What was left out of the data set and why, and what was taken for what, in a clause each.
    """

    train: LabelledImages | Stream
    validation: LabelledImages
    calibration: LabelledImages
    test: LabelledImages
    classes: int
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

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of every channel, by which the images of all parts are standardised."""
        mean, std = (tuple(np.asarray(values).tolist()) for values in (self.train.mean, self.train.std))
        return mean, std

    def standardised_by(self, mean: tuple[float, ...], std: tuple[float, ...]) -> "Splits":
        """Returns the data set with images that another mean and standard deviation of each channel standardise."""
        given = {"mean": np.array(mean), "std": np.array(std)}
        parts = {name: replace(getattr(self, name), **given) for name in _Parts._fields}
        return replace(self, **parts)

    def summary(self) -> str:
        """Returns one line about the data set: classes, images, parts and what was left out."""
        named = "" if self.class_names is None else f" ({first_few(self.class_names, most=NAMED_CLASSES)})"
        kind = {1: "grey", 3: "colour"}.get(self.channels, f"{self.channels} channels")
        images = f"{self.classes} classes{named}, {self.image_size}x{self.image_size} pixels, {kind}"
        evaluated = {"validation": self.validation, "calibration": self.calibration, "test": self.test}
        counts = ", ".join(f"{part.count:,} {name}" for name, part in evaluated.items())
        return "; ".join([images, f"{plural(self.train.count, 'image')} to train on, {counts}", *self.notes])


def split(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    source: str,
    share: float = _SHARE,
    held_out: _Pair | None = None,
    test: _Pair | None = None,
    evaluation_images: int | None = None,
    normalisation: Normalisation | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Splits:
    """Splits arrays by class into train, validation, calibration and test.

    Args:
        images: uint8 or float32 [N, H, W, C].
        labels: int32[N].
        seed: Random seed of the division.
        source: Name of the data set, for errors.
        share: Share of the images in each part that is cut off; at most 5,000 for validation and for calibration, and
            10,000 for test.
        held_out: Images and labels of the data set's own for validation and calibration, half each.
        test: Images and labels of the data set's own test set.
        evaluation_images: The most images of validation, calibration and test, a part of these parts.
        normalisation: Mean and standard deviation of every channel; those of the training images where None.
        class_names: K names.

    Raises:
        ValueError: A class is too small to be in all parts, one held-out image, images that are constant, or a wrong
            normalisation.
    """
    given = {TRAINING: (images, labels), HELD_OUT: held_out, TEST: test}
    arrays = {group: pair for group, pair in given.items() if pair is not None}
    options = Options(seed, evaluation_images, normalisation, share)
    return split_arrays(arrays, options, name=source, class_names=class_names)


def split_arrays(
    arrays: Mapping[str, _Pair],
    options: Options,
    *,
    name: str,
    image_size: int | None = None,
    classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    identity: Identity | None = None,
    notes: tuple[str, ...] = (),
) -> Splits:
    """Splits the images of every group, as `split`.

    Args:
        arrays: Images and labels by group.
        options: How they are divided and standardised.
        name: Name of the data set.
        image_size: Height and width that images are brought to.
        classes: K; one more than the largest label where None.
        class_names: K names.
        identity: What images are told apart by as they are stored; these arrays where None.
        notes: What was left out of the data set, in a clause each.

    Raises:
        ValueError: As `split`, or images that cannot be resized.
    """
    images, labels = ({group: pair[number] for group, pair in arrays.items()} for number in (0, 1))
    stored = images if identity is None else {}
    if identity is None:
        first = images[TRAINING]
        identity = Identity(
            f"{'x'.join(map(str, first.shape[1:]))} {first.dtype}",
            dict.fromkeys(images, "contents"),
            {group: array_fingerprints(array) for group, array in images.items()},
        )
    if image_size is not None and image_size != images[TRAINING].shape[1]:
        images = {group: _resized(array, image_size, name) for group, array in images.items()}
    pixels = []
    for group, array in images.items():
        as_bytes = _as_bytes(array)
        pixels.append(identity.fingerprints[group] if as_bytes is stored.get(group) else array_fingerprints(as_bytes))
    return _split(
        {group: _Group(len(array), array) for group, array in labels.items()},
        lambda part: (images[part.group][part.rows], labels[part.group][part.rows]),
        identity._replace(pixels=np.concatenate(pixels)),
        options,
        name=name,
        classes=int(labels[TRAINING].max()) + 1 if classes is None else classes,
        class_names=class_names,
        notes=notes,
    )


def _resized(images: np.ndarray, size: int, source: str) -> np.ndarray:
    if images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        got = f"{images.dtype} and {images.shape[3]} channels"
        raise ValueError(f"{source}: image size: expected uint8 images of 1 or 3 channels to resize, got {got}")
    return np.stack([fit(image, size) for image in images])


def _as_bytes(images: np.ndarray) -> np.ndarray:
    """Floating images in 0 .. 1 as bytes, others as they are, so that they are recognised in both forms."""
    if np.issubdtype(images.dtype, np.floating) and images.size and images.min() >= 0 and images.max() <= 1:
        return np.rint(255 * images).astype(np.uint8)
    return images


@dataclass(frozen=True)
class Sources:
    """Where the images of a data set are.

    Attributes:
        name: Name of the data set, for errors.
        groups: Training images and, where the data set has them, validation and test images of its own, by group.
        image_size: Height and width of all images, where they are square and of one size.
        classes: K.
        class_names: K names or None.
        notes: What was left out and why, in a clause each.
        unreadable: Names of images that were left out because they cannot be read.
    """

    name: str
    groups: Mapping[str, Source]
    image_size: int | None
    classes: int
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def as_groups(parts: Mapping[str, ItemT]) -> dict[str, ItemT]:
    """Returns what is given of train, val and test by group: validation images are the test images that are missing."""
    groups = {"train": TRAINING, "val": HELD_OUT if "test" in parts else TEST, "test": TEST}
    return {name: parts[part] for part, name in groups.items() if part in parts}


def assemble(
    sources: Sources,
    options: Options,
    *,
    stream_seed: int,
    image_size: int | None,
    in_memory_bytes: int,
    skip_unreadable: bool = False,
) -> Splits:
    """Returns the splits of a data set; arguments as those of `load_dataset`.

    Raises:
        ValueError: Images of several sizes and no size to bring them to, images that cannot be read, classes that are
            too small to split, or a wrong normalisation.
    """
    name, size = sources.name, image_size or sources.image_size
    if size is None:
        raise ValueError(f"{name}: expected square images of one size, or a size to bring them to: give `image_size`")
    train = sources.groups[TRAINING]
    is_streamed = len(train) * size**2 * train.channels > in_memory_bytes
    if skip_unreadable and (not is_streamed or train.fingerprint_of == "contents"):
        sources = _without_unreadable(sources)
    failed, groups = sources.unreadable, sources.groups
    left_out = [f"left out: {plural(len(failed), 'image')} that cannot be read ({first_few(failed)})"] if failed else []

    def read(group: str, rows: np.ndarray, advice: str) -> _Pair:
        images, labels = groups[group].read_images(rows, size=size, name=name, advice=advice)
        return check_arrays(images, labels, source=name, classes=sources.classes)

    classes, class_names = sources.classes, sources.class_names
    notes = (*sources.notes, *left_out)
    in_memory = {} if is_streamed else groups
    arrays = {group: read(group, np.arange(len(source)), SKIPPING) for group, source in in_memory.items()}
    identity = Identity(
        f"{train.channels} channels",
        {group: source.fingerprint_of for group, source in groups.items()},
        {group: source.fingerprints() for group, source in groups.items()},
        names=np.concatenate([source.fingerprints("names and sizes") for source in groups.values()]),
    )
    if arrays:
        return split_arrays(
            arrays, options, name=name, classes=classes, class_names=class_names, identity=identity, notes=notes
        )
    return _split(
        {group: _Group(len(source), source.labels) for group, source in groups.items()},
        lambda part: read(part.group, part.rows, "remove them"),
        identity,
        options,
        stream=Stream(groups[TRAINING], size, stream_seed, name),
        name=name,
        classes=classes,
        class_names=class_names,
        notes=notes,
    )


def _without_unreadable(sources: Sources) -> Sources:
    groups, unreadable = {}, list(sources.unreadable)
    for group, source in sources.groups.items():
        groups[group], failures = source.readable()
        unreadable += failures
        left = groups[group]
        if not len(left) or (group == TRAINING and _classes_of(left) != _classes_of(source)):
            lost = "none of a class" if len(left) else "none of them"
            raise ValueError(
                f"{sources.name}: expected {group} images that can be read, got {lost}: {first_few(failures)}"
            )
    return replace(sources, groups=groups, unreadable=tuple(unreadable))


def _classes_of(source: Source) -> set[int]:
    return set() if source.labels is None else set(source.labels[source.labels >= 0].tolist())


class _Group(NamedTuple):
    """How many images a group has, and their labels int[size] where they are known without reading the images."""

    size: int
    labels: np.ndarray | None


class _Part(NamedTuple):
    """The group that a part is taken from, and the ascending rows int[n] into it."""

    group: str
    rows: np.ndarray


class _Parts(NamedTuple):
    """Of every image that is used, where it is used."""

    train: _Part
    validation: _Part
    calibration: _Part
    test: _Part


def _split(
    groups: Mapping[str, _Group],
    read: Callable[[_Part], _Pair],
    identity: Identity,
    options: Options,
    *,
    name: str,
    classes: int,
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
    stream: Stream | None = None,
) -> Splits:
    """Divides a data set and reads its parts: all of them, or all but the training images, which a stream has."""
    whole = _divide(groups, options, source=name, class_names=class_names)
    record = SplitRecord.of(
        {part: rows for part, (_, rows) in whole._asdict().items()},
        {group: labels for group, (_, labels) in groups.items()},
        identity,
        seed=options.seed,
        classes=classes,
        class_names=class_names,
    )
    parts = _limit(whole, groups, options, source=name, most_test=None if stream is None else _MOST_TEST)
    given = options.normalisation
    if stream is None:
        train = read(parts.train)
        channels = train[0].shape[-1]
        mean, std = _channel_statistics(train[0], source=name)  # also refuses constant images
    else:
        stream = replace(stream, source=stream.source.select(parts.train.rows))
        channels = stream.source.channels
        if given is None:
            mean, std = _channel_statistics(stream.sample_stored(_STATISTICS, seed=options.seed)[0], source=name)
    if given is not None:
        mean, std = _checked_normalisation(given, channels=channels, source=name)

    def held(images: np.ndarray, labels: np.ndarray) -> LabelledImages:
        return LabelledImages(jnp.asarray(images), jnp.asarray(labels, jnp.int32), mean, std)

    def fingerprints(*parts: _Part) -> np.ndarray:
        return np.concatenate([identity.fingerprints[part.group][part.rows] for part in parts])

    trained = fingerprints(parts.train)
    repeated = [int(np.isin(fingerprints(part), trained).sum()) for part in parts]
    if any(repeated[1:]):
        counts = list(zip(_Parts._fields, repeated, strict=True))[1:]
        listed = ", ".join(f"{count:,} {part}" for part, count in counts if count)
        notes = (*notes, f"equal to training images, so that accuracy is flattered: {listed}")
    return Splits(
        train=held(*train) if stream is None else replace(stream, mean=mean, std=std),
        validation=held(*read(parts.validation)),
        calibration=held(*read(parts.calibration)),
        test=held(*read(parts.test)),
        classes=classes,
        name=name,
        record=record,
        fingerprints=np.union1d(identity.contents, identity.names),
        evaluated_fingerprints=fingerprints(*whole[1:]),
        class_names=class_names,
        notes=notes,
    )


def _divide(
    groups: Mapping[str, _Group], options: Options, *, source: str, class_names: tuple[str, ...] | None
) -> _Parts:
    """Divides a data set, by class where labels are known.

    Held-out images are for validation and calibration alone, half each.
    """
    whole, held_out, test = groups[TRAINING], groups.get(HELD_OUT), groups.get(TEST)
    seed = options.seed
    if held_out is not None and held_out.size < 2:
        raise ValueError(
            f"{source}: expected at least 2 images in its validation set, half of them to calibrate, got "
            f"{held_out.size}"
        )
    if whole.labels is not None and (held_out is None or test is None):
        _check_sizes(whole.labels, share=options.share, source=source, class_names=class_names)
    size = max(round(options.share * whole.size), 1)
    rest = np.arange(whole.size)

    def cut(rest: np.ndarray, most: int, number: int) -> tuple[np.ndarray, _Part]:
        labels = None if whole.labels is None else whole.labels[rest]
        left, chosen = train_test_split(
            rest, test_size=min(size, most), random_state=seed + number, stratify=labels, shuffle=True
        )
        return left, _Part(TRAINING, np.sort(chosen))

    if test is None:
        rest, test_part = cut(rest, _MOST_TEST, 0)
    else:
        test_part = _Part(TEST, np.arange(test.size))
    if held_out is None:
        rest, calibration = cut(rest, _MOST, 1)
        rest, validation = cut(rest, _MOST, 2)
    else:
        everything = np.arange(held_out.size)
        half = _subset(held_out, everything, held_out.size // 2, seed + 1)
        other = np.setdiff1d(everything, half)
        calibration = _Part(HELD_OUT, _subset(held_out, half, _MOST, seed + 1))
        validation = _Part(HELD_OUT, _subset(held_out, other, _MOST, seed + 2))
    return _Parts(_Part(TRAINING, np.sort(rest)), validation, calibration, test_part)


def _check_sizes(labels: np.ndarray, *, share: float, source: str, class_names: tuple[str, ...] | None) -> None:
    """Refuses classes that are too small to be in all parts."""
    counts = np.bincount(labels)
    few = [label for label in np.flatnonzero(counts).tolist() if counts[label] * share < 1 or counts[label] < 4]
    if few:
        needed = max(4, int(np.ceil(1 / share)))
        smallest = min(few, key=lambda label: counts[label])
        name = f"class {smallest}" if class_names is None else class_names[smallest]
        others = f" and too few of {len(few) - 1} more" if len(few) > 1 else ""
        raise ValueError(
            f"{source}: expected at least {needed} images of every class to split, got {counts[smallest]} of "
            f"{name}{others}"
        )


def _limit(
    parts: _Parts, groups: Mapping[str, _Group], options: Options, *, source: str, most_test: int | None
) -> _Parts:
    """The parts with fewer images to evaluate on, by class where labels are known; training keeps its own."""
    most = options.evaluation_images
    chosen = {"test": most_test if most is None else most, "calibration": most, "validation": most}
    limited = {}
    for number, (name, count) in enumerate(chosen.items()):
        group, rows = getattr(parts, name)
        labels = groups[group].labels
        classes = 0 if labels is None else len(np.unique(labels))
        if most is not None and most < classes:
            raise ValueError(f"{source}: evaluation images: expected at least {classes}, the classes, got {most}")
        limited[name] = _Part(group, _subset(groups[group], rows, count, options.seed + number))
    return parts._replace(**limited)


def _subset(group: _Group, rows: np.ndarray, most: int | None, seed: int) -> np.ndarray:
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


def _checked_normalisation(given: Normalisation, *, channels: int, source: str) -> tuple[np.ndarray, np.ndarray]:
    mean, std = (np.array(values, np.float64) for values in given)
    if mean.shape != (channels,) or std.shape != (channels,):
        got = f"{mean.size} and {std.size}"
        raise ValueError(f"{source}: normalisation: expected {channels} means and deviations (channels), got {got}")
    if not np.isfinite([mean, std]).all() or min(std) <= 0:
        raise ValueError(f"{source}: normalisation: expected finite means, positive deviations, got {given}")
    return mean, std


def _channel_statistics(images: np.ndarray, *, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel, of uint8 in 0 .. 1, of floating values as they are.

    A constant channel has a standard deviation of 1, so that it standardises to 0.
    """
    channels = range(images.shape[-1])
    if images.dtype == np.uint8:
        counts = np.zeros((len(channels), 256), np.int64)
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            counts += np.stack([np.bincount(part[..., c].ravel(), minlength=256) for c in channels])
        shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
        mean = shares @ values
        std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
        is_constant = (counts > 0).sum(1) == 1
    else:
        mean, std = (np.array([float(f(images[..., c])) for c in channels]) for f in (np.mean, np.std))
        is_constant = np.array([np.ptp(images[..., c]) == 0 for c in channels])
    if is_constant.all():
        raise ValueError(f"{source}: images: expected different values, got {mean[0]} everywhere")
    return mean, np.where(is_constant, 1.0, std)


def random_batches(train: LabelledImages | Stream, batches: int, batch: int, *, seed: int) -> jax.Array:
    """Returns random training images, not augmented, for batch-norm statistics: float32[batches, B, H, W, channels].

    Args:
        train: The training images.
        batches: Number of batches.
        batch: B.
        seed: Random seed of the choice; a stream has its own.
    """
    count = batches * batch
    # Not the first ones: images may be in the order of their classes.
    if isinstance(train, Stream):
        images, _ = train.sample(count).take(jnp.arange(count))
    else:
        rows = np.random.default_rng(seed).permutation(train.count)[:count]
        images, _ = train.take(jnp.asarray(rows, jnp.int32))
    return images.reshape(batches, batch, *images.shape[1:])
