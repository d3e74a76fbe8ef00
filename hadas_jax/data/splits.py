"""A data set in four parts: from arrays, or from sources of images, to splits.

Images are held in memory where those to train on fit, and are a stream where they do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data.arrays import (
    NAMED_CLASSES,
    LabelledImages,
    Normalisation,
    channel_statistics,
    check_labels,
    check_normalisation,
    labelled,
)
from hadas_jax.data.images import (
    SKIPPING,
    Source,
    array_fingerprints,
    as_bytes,
    fingerprint_of,
    read_images,
    readable,
    source_fingerprints,
)
from hadas_jax.data.notes import first_few, plural
from hadas_jax.data.parts import HELD_OUT, SHARE, TEST, TRAINING, Group, Part, Parts, divide, limit
from hadas_jax.data.record import Identity, SplitRecord, make_record
from hadas_jax.data.stream import Stream

_STREAM_TEST = 10_000  # test images of a stream, where nothing else is asked for
_STATISTICS = 4096  # training images of a stream that its mean and standard deviation are taken from


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
    share: float = SHARE


@dataclass(frozen=True)
class Splits:
    """A data set in four parts.

    Attributes:
        train: Images for weights and batch-norm statistics; a stream where they do not fit into memory.
        validation: Images for the search.
        calibration: Images for exit thresholds.
        test: Images for the final report alone.
        classes: K.
        mean: Mean by which images are standardised, one number for each channel.
        std: Standard deviation, likewise.
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
    mean: tuple[float, ...]
    std: tuple[float, ...]
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
    share: float = SHARE,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
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
        ValueError: A class is too small to be in all parts, images that are constant, or a wrong normalisation.
    """
    given = {TRAINING: (images, labels), HELD_OUT: held_out, TEST: test}
    return split_arrays(
        {group: pair for group, pair in given.items() if pair is not None},
        Options(seed, evaluation_images, normalisation, share),
        name=source,
        class_names=class_names,
    )


def split_arrays(
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]],
    options: Options,
    *,
    name: str,
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
        classes: K; one more than the largest label where None.
        class_names: K names.
        identity: What images are told apart by as they are stored; `identity_of_arrays` where None.
        notes: What was left out of the data set, in a clause each.

    Raises:
        ValueError: As `split`.
    """
    images = {group: pair[0] for group, pair in arrays.items()}
    labels = arrays[TRAINING][1]
    is_stored = identity is None
    identity = identity or identity_of_arrays(images)

    def pixel_fingerprints(group: str) -> np.ndarray:
        pixels = as_bytes(images[group])
        is_hashed = is_stored and pixels is images[group]
        return identity.fingerprints[group] if is_hashed else array_fingerprints(pixels)

    return _split(
        {group: Group(len(pair[1]), pair[1]) for group, pair in arrays.items()},
        lambda part: (images[part.group][part.rows], arrays[part.group][1][part.rows]),
        identity._replace(pixels=np.concatenate([pixel_fingerprints(group) for group in arrays])),
        options,
        name=name,
        classes=int(labels.max()) + 1 if classes is None else classes,
        class_names=class_names,
        notes=notes,
    )


def identity_of_arrays(images: Mapping[str, np.ndarray]) -> Identity:
    """Returns what tells images [N, H, W, C] in memory apart, by group."""
    stored = images[TRAINING]
    return Identity(
        f"{'x'.join(map(str, stored.shape[1:]))} {stored.dtype}",
        dict.fromkeys(images, "contents"),
        {group: array_fingerprints(array) for group, array in images.items()},
        names=np.zeros(0, np.uint64),
        pixels=np.zeros(0, np.uint64),
    )


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

    @property
    def train(self) -> Source:
        """Images for all parts that have none of their own."""
        return self.groups[TRAINING]


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
    size = image_size or sources.image_size
    if size is None:
        raise ValueError(
            f"{sources.name}: expected square images of one size, or a size to bring them to: give `image_size`"
        )
    train = sources.train
    is_streamed = len(train) * size**2 * train.channels > in_memory_bytes
    if skip_unreadable and (not is_streamed or fingerprint_of(train) == "contents"):
        sources = _without_unreadable(sources)
    failed, groups = sources.unreadable, sources.groups
    left_out = [f"left out: {plural(len(failed), 'image')} that cannot be read ({first_few(failed)})"] if failed else []

    def read(group: str, rows: np.ndarray, advice: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = read_images(groups[group], rows, size=size, name=sources.name, advice=advice)
        check_labels(labels, source=sources.name, classes=sources.classes)
        return images, labels

    name, classes, names = sources.name, sources.classes, sources.class_names
    notes = (*sources.notes, *left_out)
    if not is_streamed:
        arrays = {group: read(group, np.arange(len(source)), SKIPPING) for group, source in groups.items()}
        identity = _identity(groups)
        return split_arrays(
            arrays, options, name=name, classes=classes, class_names=names, identity=identity, notes=notes
        )
    return _split(
        {group: Group(len(source), source.labels) for group, source in groups.items()},
        lambda part: read(part.group, part.rows, "remove them"),
        _identity(groups),
        options,
        stream=Stream(sources.train, size, stream_seed, name, mean=(), std=()),
        name=name,
        classes=classes,
        class_names=names,
        notes=notes,
    )


def _identity(groups: Mapping[str, Source]) -> Identity:
    """What tells the images of sources apart, whatever size they are brought to."""
    return Identity(
        f"{groups[TRAINING].channels} channels",
        {group: fingerprint_of(source) for group, source in groups.items()},
        {group: source_fingerprints(source) for group, source in groups.items()},
        names=np.concatenate([source_fingerprints(source, of="names and sizes") for source in groups.values()]),
        pixels=np.zeros(0, np.uint64),
    )


def _without_unreadable(sources: Sources) -> Sources:
    groups, unreadable = {}, list(sources.unreadable)
    for group, source in sources.groups.items():
        kept, failures = readable(source)
        unreadable += failures
        if not len(kept) or (group == TRAINING and _classes_of(kept) != _classes_of(source)):
            lost = "none of a class" if len(kept) else "none of them"
            raise ValueError(
                f"{sources.name}: expected {group} images that can be read, got {lost}: {first_few(failures)}"
            )
        groups[group] = kept
    return replace(sources, groups=groups, unreadable=tuple(unreadable))


def _classes_of(source: Source) -> set[int]:
    return set() if source.labels is None else set(source.labels[source.labels >= 0].tolist())


def _split(
    groups: Mapping[str, Group],
    read: Callable[[Part], tuple[np.ndarray, np.ndarray]],
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
    seed, most = options.seed, options.evaluation_images
    whole = divide(groups, seed=seed, source=name, share=options.share, class_names=class_names)
    record = make_record(whole, groups, identity, seed=seed, classes=classes, class_names=class_names)
    most_test = _STREAM_TEST if most is None and stream is not None else most
    parts = limit(whole, groups, seed=seed, source=name, images=most, test_images=most_test)
    train: Stream | tuple[np.ndarray, np.ndarray] = (
        read(parts.train) if stream is None else replace(stream, source=stream.source.select(parts.train.rows))
    )
    used = _normalisation(train, options, source=name)
    return Splits(
        train=replace(train, mean=used[0], std=used[1]) if isinstance(train, Stream) else labelled(*train, used),
        validation=labelled(*read(parts.validation), used),
        calibration=labelled(*read(parts.calibration), used),
        test=labelled(*read(parts.test), used),
        classes=classes,
        mean=used[0],
        std=used[1],
        name=name,
        record=record,
        fingerprints=identity.all,
        evaluated_fingerprints=identity.of_parts(whole[1:]),
        class_names=class_names,
        notes=(*notes, *_repeated_note(parts, identity)),
    )


def _normalisation(train: Stream | tuple[np.ndarray, np.ndarray], options: Options, *, source: str) -> Normalisation:
    """The normalisation that is given, or that of the training images; those in memory may not all be constant."""
    given = options.normalisation
    if isinstance(train, Stream):
        channels = train.source.channels
        if given is None:
            return channel_statistics(train.sample_stored(_STATISTICS, seed=options.seed)[0], source=source)
    else:
        channels = train[0].shape[-1]
        statistics = channel_statistics(train[0], source=source)
        if given is None:
            return statistics
    return check_normalisation(given, channels=channels, source=source)


def _repeated_note(parts: Parts, identity: Identity) -> tuple[str, ...]:
    """A note on images that stand among the training images and in another part too, if there are any."""
    trained = identity.of_parts([parts.train])
    counts = {
        name: int(np.isin(identity.of_parts([part]), trained).sum())
        for name, part in parts._asdict().items()
        if name != "train"
    }
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return (f"equal to training images, so that accuracy is flattered: {listed}",) if listed else ()


def standardised_by(splits: Splits, mean: tuple[float, ...], std: tuple[float, ...]) -> Splits:
    """Returns a data set whose images are standardised by another mean and standard deviation than its own.

    Args:
        splits: The data set.
        mean: Mean of each channel, in 0 .. 1 for images of bytes.
        std: Standard deviation, likewise.
    """
    arrays = {"mean": jnp.asarray(mean, jnp.float32), "std": jnp.asarray(std, jnp.float32)}
    train = splits.train
    return replace(
        splits,
        train=replace(train, mean=mean, std=std) if isinstance(train, Stream) else replace(train, **arrays),
        validation=replace(splits.validation, **arrays),
        calibration=replace(splits.calibration, **arrays),
        test=replace(splits.test, **arrays),
        mean=mean,
        std=std,
    )


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
