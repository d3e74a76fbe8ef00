"""What a training run starts from, brought together: space, data, and the supernet of --checkpoint."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits, Stream
from hadas_jax.methods.training_settings import TrainingSettings
from hadas_jax.spaces import Backbone, MBConvSpace, load_space, published_in, published_names
from hadas_jax.trained import TrainedSupernet

SMALL_IMAGES_FROM = 20  # pixels from which the default space is the larger one


def space_of_run(
    settings: TrainingSettings, splits: Splits, loaded: TrainedSupernet | None, *, is_trained: bool
) -> MBConvSpace:
    """Returns the space, adapted to the data or as the checkpoint has it, at the resolutions asked for.

    Args:
      settings: of the run.
      splits: its data.
      loaded: the supernet of `settings.checkpoint`.
      is_trained: the run trains the supernet, so that it may have any number of classes.

    Raises:
      ValueError: an unknown space, or a supernet, resolutions or images that do not fit each other.
    """
    if loaded is None:
        space = load_space(settings.space or ("digits" if splits.image_size < SMALL_IMAGES_FROM else "small-images"))
        space = space.adapt(in_channels=splits.channels, classes=splits.classes, image_size=splits.image_size)
    else:
        space = loaded.space
        if settings.space not in (None, space.name):
            raise ValueError(
                f"--space {settings.space}: expected {space.name} as --checkpoint {settings.checkpoint} has, "
                "or leave it out"
            )
        if space.in_channels != splits.channels:
            raise ValueError(
                f"--dataset {settings.dataset}: expected images of {space.in_channels} channels as --checkpoint "
                f"{settings.checkpoint} takes, got {splits.channels}"
            )
        if is_trained:
            space = dataclasses.replace(space, classes=splits.classes)
        elif not loaded.has_classifier:
            raise ValueError(
                f"--checkpoint {settings.checkpoint}: expected a trained classifier, got a fresh one; "
                f"{_training(settings)} trains it"
            )
        elif splits.classes > space.classes:
            raise ValueError(
                f"--dataset {settings.dataset}: expected at most {space.classes} classes as --checkpoint "
                f"{settings.checkpoint} has, got {splits.classes}; {_training(settings)} trains it for them"
            )
        elif None not in (splits.class_names, loaded.class_names):
            _check_names(settings, splits, loaded)
    return at_resolutions(space, settings)


def _training(settings: TrainingSettings) -> str:
    """Returns the command that trains a run's checkpoint on its data."""
    given = {"--checkpoint": settings.checkpoint, "--dataset": settings.dataset}
    return shlex.join(["hadas", "train", *(word for pair in given.items() for word in map(str, pair))])


def at_resolutions(space: MBConvSpace, settings: TrainingSettings) -> MBConvSpace:
    """Returns a space at the resolutions that a run asks for, all if none.

    Raises:
      ValueError: the space does not have them.
    """
    wrong = [size for size in settings.resolutions if size not in space.resolution]
    if wrong:
        known = ", ".join(map(str, space.resolution))
        raise ValueError(f"--resolutions: expected some of {known} as space {space.name} has, got {wrong[0]}")
    chosen = tuple(size for size in space.resolution if size in settings.resolutions) or space.resolution
    return dataclasses.replace(space, resolution=chosen)


def _check_names(settings: TrainingSettings, splits: Splits, loaded: TrainedSupernet) -> None:
    """Raises where the classes of the data are not those of the supernet, by name and in order."""
    names, known = splits.class_names or (), loaded.class_names or ()
    for number, (name, expected) in enumerate(zip(names, known, strict=False)):
        if name != expected:
            raise ValueError(
                f"--dataset {settings.dataset}: expected the classes of --checkpoint {settings.checkpoint}, where "
                f"class {number} is {expected!r}, got {name!r}; hadas train trains the supernet for others"
            )


def named_backbone(name: str, space: MBConvSpace) -> Backbone:
    """Returns the backbone that `--exits-for` names; in a space of one resolution it runs at that.

    Raises:
      ValueError: an unknown name, or a backbone that the space does not have.
    """
    ends: dict[str, Callable[[], Backbone]] = {"largest": space.largest, "smallest": space.smallest}
    if name in ends:
        return ends[name]()
    if name not in published_names():
        known = ", ".join((*ends, *published_names()))
        raise ValueError(f"--exits-for: expected one of {known}, got {name!r}")
    try:
        return published_in(space, name)
    except ValueError as error:
        raise ValueError(f"--exits-for {error}") from error


def standardised_by(splits: Splits, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Splits:
    """Returns a data set whose images are standardised by other figures than its own.

    Args:
      splits: the data set.
      mean: of each channel, in 0 .. 1 for images of bytes.
      deviation: likewise.
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
      train: the training images.
      batches: how many.
      batch: B.
      seed: of the choice; a stream has its own.
    """
    count = batches * batch
    # Not the first ones: images may be in the order of their classes.
    if isinstance(train, Stream):
        images, _ = train.sample(count).take(jnp.arange(count))
    else:
        rows = np.random.default_rng(seed).permutation(train.count)[:count]
        images, _ = train.take(jnp.asarray(rows, jnp.int32))
    return images.reshape(batches, batch, *images.shape[1:])


def has_shared_exits(loaded: TrainedSupernet) -> bool:
    """Whether all exit heads of a supernet are trained, for all its backbones."""
    return loaded.exits_of is None and len(loaded.trained_exits) == loaded.space.num_exits


def settings_name(dataset: str) -> str:
    """Returns a data set's name without the folders of the user's machine."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else dataset
