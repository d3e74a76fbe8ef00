"""From sources of images to splits: in memory where the training images fit, as a stream where they do not."""

from dataclasses import dataclass, replace

import numpy as np

from hadas_jax.data.arrays import LabelledImages, Splits, channel_statistics, check_labels
from hadas_jax.data.notes import some
from hadas_jax.data.sources import SKIPPING, Source, read_images, readable, unreadable_note
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
    repeated_note,
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
      notes: on what was left out and why, in a clause each.
      unreadable: names of images that were left out because they cannot be read.
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
      ValueError: images of several sizes and no size to bring them to, images that cannot be read, classes that are
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
