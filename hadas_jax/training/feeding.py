"""How a training is cut into chunks and fed: from arrays on the device, or from a stream that they cannot hold."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from hadas_jax.data.arrays import LabelledImages
from hadas_jax.loop import Advance, Metrics, Step, scanned
from hadas_jax.training.augment import Augment
from hadas_jax.training.batches import Stream, resident, streamed
from hadas_jax.training.data_parallel import whole_sharding

# Augmentations for which a stream reads random parts of its images instead of their middle.
_CROPPING = ("crop-flip", "randaugment")


@dataclass(frozen=True)
class Pace:
    """The steps of a training.

    Attributes:
      batch: samples of a step.
      chunk: steps between two checkpoints and lines of progress.
      steps_per_epoch: a multiple of `chunk`.
    """

    batch: int
    chunk: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
      name: as the settings have it.
      augment: of images in 0 .. 1; None leaves them as they are.
    """

    name: str
    augment: Augment | None


def pace_of(samples: int, *, batch: int) -> Pace:
    """Returns the steps of a training on so many samples.

    Args:
      samples: of the training split.
      batch: samples of a step, as many as there are at most.
    """
    batch = min(batch, samples)
    steps = samples // batch
    chunk = chunk_of(steps)
    return Pace(batch, chunk, steps // chunk * chunk)


def chunk_of(steps: int, *, most: int = 100) -> int:
    """Returns how many of an epoch's steps run between two checkpoints and lines of progress.

    Args:
      steps: of an epoch.
      most: the result is at most this, a divisor of `steps` where one is not far below, and otherwise leaves out less
        than one step in a hundred or so.
    """
    if steps <= most:
        return steps
    even = [size for size in range(most, most // 4, -1) if steps % size == 0]
    return even[0] if even else steps // -(-steps // most)


def fed(
    step: Step,
    images: LabelledImages | Stream,
    *,
    pace: Pace,
    key: jax.Array,
    order_key: jax.Array,
    augmentation: Augmentation,
    shared: tuple = (),
    mesh: Mesh | None = None,
) -> Advance:
    """Returns a chunk of steps for `hadas_jax.loop.run`.

    Args:
      step: takes as data a batch (images float32[B, H, W, channels] standardised, labels int32[B]), or the tuple
        (batch, *shared) where something is shared.
      images: to train on.
      pace: of the training.
      key: typed PRNG key of the loop.
      order_key: PRNG key of the epochs' orders; a stream has its own order.
      augmentation: of the images.
      shared: further arrays that every step reads.
      mesh: devices that each batch is spread over.
    """
    augment = augmentation.augment
    if not isinstance(images, LabelledImages):
        return streamed(
            step,
            images,
            batch=pace.batch,
            key=key,
            chunk=pace.chunk,
            augment=augment,
            crops=augmentation.name in _CROPPING,
            shared=shared,
            mesh=mesh,
        )

    # The order's key is data, so that runs of all seeds share their compiled code.
    def picking(state: Any, key: jax.Array, data: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
        taken, order = data
        return resident(step, batch=pace.batch, order_key=order, augment=augment)(state, key, taken)

    data = ((images, *shared) if shared else images, order_key)
    place = None if mesh is None else whole_sharding(mesh)
    return scanned(picking, data=data, key=key, chunk=pace.chunk, place=place)
