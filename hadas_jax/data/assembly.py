"""From sources of images to splits: in memory where the training images fit, as a stream where they do not."""

from dataclasses import dataclass

import numpy as np

from hadas_jax.data.arrays import LabelledImages, Splits, channel_statistics, check_labels
from hadas_jax.data.sources import Source, read_images
from hadas_jax.data.splitting import (
    HELD_OUT,
    TEST,
    TRAIN,
    Group,
    Identity,
    Normalisation,
    Part,
    check_normalisation,
    evaluated,
    labelled,
    plan_parts,
    record_of,
    split,
)
from hadas_jax.data.stream import Stream, sample_images

_STREAM_TEST = 10_000  # test images of a stream, where nothing else is asked for
_STATISTICS = 4096  # training images of a stream that its mean and deviation are taken from


@dataclass(frozen=True)
class Sources:
    """Where the images of a data set are.

    Attributes:
      name: of the data set, for errors.
      train: images for all parts that have none of their own.
      held_out: images for validation and calibration alone.
      test: images for test alone.
      image_size: height and width of all images, where they are square and of one size.
      classes: K.
      class_names: K names or None.
    """

    name: str
    train: Source
    held_out: Source | None
    test: Source | None
    image_size: int | None
    classes: int
    class_names: tuple[str, ...] | None


def assemble(
    sources: Sources,
    *,
    seed: int,
    stream_seed: int,
    image_size: int | None,
    normalisation: Normalisation | None,
    in_memory_bytes: int,
    evaluation_images: int | None,
) -> Splits:
    """Returns the splits of a data set; arguments as those of `load_dataset`.

    Raises:
      ValueError: images of several sizes and no size to bring them to, images that cannot be read, classes that are
        too small to split, or a wrong normalisation.
    """
    size = image_size or sources.image_size
    if size is None:
        raise ValueError(
            f"{sources.name}: expected square images of one size, or a size to bring them to: give --image-size"
        )
    train = sources.train
    if len(train) * size**2 * train.channels > in_memory_bytes:
        return _streamed(
            sources,
            size,
            seed=seed,
            stream_seed=stream_seed,
            normalisation=normalisation,
            evaluation_images=evaluation_images,
        )

    def read(source: Source | None) -> tuple[np.ndarray, np.ndarray] | None:
        return None if source is None else _read(source, np.arange(len(source)), size, sources)

    images, labels = _read(train, np.arange(len(train)), size, sources)
    return split(
        images,
        labels,
        seed=seed,
        source=sources.name,
        held_out=read(sources.held_out),
        test=read(sources.test),
        evaluation_images=evaluation_images,
        normalisation=normalisation,
        classes=sources.classes,
        class_names=sources.class_names,
        identity=_identity(sources),
    )


def _present(sources: Sources) -> dict[int, Source]:
    given = {TRAIN: sources.train, HELD_OUT: sources.held_out, TEST: sources.test}
    return {group: source for group, source in given.items() if source is not None}


def _identity(sources: Sources) -> Identity:
    """What tells the images apart, whatever size they are brought to."""
    present, size = _present(sources), sources.image_size
    form = f"{'several sizes' if size is None else f'{size}x{size}'} in {sources.train.channels} channels"
    return Identity(
        form,
        {group: source.fingerprint_of for group, source in present.items()},
        {group: source.fingerprints() for group, source in present.items()},
    )


def _read(source: Source, rows: np.ndarray, size: int, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_images(source, rows, size=size, name=sources.name)
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
        class_names=sources.class_names,
    )
