"""Where the batches of a training come from: arrays on the device, or a stream of host arrays.

Either way step i of a training sees the same samples with the same augmentation, however often it was interrupted.
Images are scaled to 0 .. 1, augmented, and then standardised, all on the device.
Shapes: N samples, B batch, H, W image.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hadas_jax.data.arrays import LabelledImages, standardise
from hadas_jax.loop import Advance, Metrics, State, Step, retry_key
from hadas_jax.training.augment import Augment
from hadas_jax.training.data_parallel import batch_sharding, whole_sharding
from hadas_jax.training.order import batch_indices

_AHEAD = 2  # steps that may be under way while the host prepares the next batch


class Stream(Protocol):
    """Batches that can be read from any step on; images are standardised by its mean and deviation, in 0 .. 1."""

    @property
    def mean(self) -> Any:
        """Of each channel, or one for all."""

    @property
    def deviation(self) -> Any:
        """Of each channel, or one for all."""

    def batches(
        self, start_step: int, batch: int, *, augment: bool = False, retry: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images [B, H, W, channels] (uint8, or floating in their own units) and labels int32[B], for ever."""


def resident(step: Step, *, batch: int, order_key: jax.Array, augment: Augment | None = None) -> Step:
    """Returns a step that takes its batch from arrays on the device.

    Args:
      step: takes as data a batch (images float32[B, H, W, channels] standardised, labels int32[B]), or a tuple that
        starts with one.
      batch: samples per step, at most N; what is left over at an epoch's end is skipped.
      order_key: PRNG key of the epochs' orders.
      augment: of images in 0 .. 1, see `augmentation`.

    Returns:
      A step whose data is what `step` takes, with `LabelledImages` in place of the batch.
    """

    def run(state: Any, key: jax.Array, data: Any) -> tuple[Any, Metrics]:
        labelled, rest = (data, None) if isinstance(data, LabelledImages) else (data[0], data[1:])
        key, augment_key = jax.random.split(key)
        chosen = batch_indices(order_key, state.step, size=len(labelled.labels), batch=batch)
        images = prepare(
            augment_key,
            labelled.images[chosen],
            mean=labelled.mean,
            deviation=labelled.deviation,
            augment=augment,
        )
        taken = (images, labelled.labels[chosen])
        return step(state, key, taken if rest is None else (taken, *rest))

    return run


def streamed(
    step: Step,
    stream: Stream,
    *,
    batch: int,
    key: jax.Array,
    chunk: int,
    augment: Augment | None = None,
    crops: bool = False,
    shared: tuple = (),
    mesh: Mesh | None = None,
) -> Advance:
    """Returns a chunk of steps for `loop.run` that are fed from the host, for data that the device cannot hold.

    Args:
      step: as for `resident`; it gets the tuple (batch, *shared) where something is shared.
      stream: of the batches; it is started again wherever a run resumes or rolls back.
      batch: samples per step.
      key: typed PRNG key of the loop; steps get the keys that `scanned` gives them.
      chunk: steps of a chunk.
      augment: of images in 0 .. 1, see `augmentation`.
      crops: read random parts of the images instead of their middle.
      shared: further arrays that every step reads.
      mesh: devices that each batch is spread over.
    """

    @jax.jit
    def one(
        state: State, key: jax.Array, i: jax.Array, images: jax.Array, labels: jax.Array, shared: tuple
    ) -> tuple[State, Metrics]:
        step_key, augment_key = jax.random.split(jax.random.fold_in(key, i))
        prepared = prepare(augment_key, images, mean=stream.mean, deviation=stream.deviation, augment=augment)
        taken = (prepared, labels)
        return step(state, step_key, (taken, *shared) if shared else taken)

    place = None if mesh is None else batch_sharding(mesh)
    if mesh is not None:
        shared = jax.device_put(shared, whole_sharding(mesh))
    reader: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    position = (-1, 0)

    def advance(state: State, done: int, retry: int = 0) -> tuple[State, dict[str, Any]]:
        nonlocal reader, position
        if position != (done, retry):
            reader = stream.batches(done, batch, augment=crops, retry=retry)
        if mesh is not None:
            state = jax.device_put(state, whole_sharding(mesh))
        found: list[Metrics] = []
        for i in range(done, done + chunk):
            images, labels = jax.device_put(next(reader), place)
            state, metrics = one(state, retry_key(key, retry), jnp.int32(i), images, labels, shared)
            found.append(metrics)
            if len(found) > _AHEAD:
                jax.block_until_ready(found[-1 - _AHEAD])
        position = (done + chunk, retry)
        return state, jax.tree.map(lambda *values: np.stack([np.asarray(value) for value in values]), *found)

    return advance


def prepare(key: jax.Array, images: jax.Array, *, mean: Any, deviation: Any, augment: Augment | None) -> jax.Array:
    """Returns float32[B, H, W, channels]: images scaled (if bytes), augmented and standardised.

    Args:
      key: PRNG key of the augmentation.
      images: uint8 or floating [B, H, W, channels].
      mean: float32[channels] or a number, subtracted.
      deviation: likewise, divided by.
      augment: of the scaled images; None leaves them as they are.
    """
    if augment is not None:
        images = augment(key, standardise(images, 0.0, 1.0))
    return standardise(images, mean, deviation)
