"""Where the batches of a training come from: arrays on the device, or a stream of host arrays.

Either way step i of a training sees the same samples with the same augmentation, however often it was interrupted.
Images are scaled to 0 .. 1, augmented, and then standardised, all on the device. Over several devices, of one process
or of many, the batch is split and the parameters are everywhere; the compiler adds the communication: sums over the
batch, those of batch norm among them, run over all of it. Steps themselves know of one batch and no devices.
Shapes: N samples, B batch, H, W image.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hadas_jax.backend import memory_named, on_one_device, place
from hadas_jax.data import LabelledImages, Stream, standardise
from hadas_jax.runs.loop import Advance, Guard, Metrics, Progress, State, Step, retry_key, run_stage, scanned
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.training.augmentation import Augment
from hadas_jax.training.augmentation import augmentation as policy
from hadas_jax.training.optimisers import TrainState, lower_rate

_AXIS = "batch"
_CROPPING = ("crop-flip", "randaugment")  # for these a stream reads random parts of its images
_AHEAD = 2  # steps that may be under way while the host prepares the next batch
_FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Schedule:
    """How a training is cut into steps and chunks.

    Attributes:
        batch: Samples of a step.
        chunk: Steps between two checkpoints and lines of progress.
        steps_per_epoch: A multiple of `chunk`.
    """

    batch: int
    chunk: int
    steps_per_epoch: int

    @classmethod
    def of(cls, samples: int, *, batch: int) -> "Schedule":
        """Returns the schedule of a training on so many samples.

        Args:
            samples: Of the training split.
            batch: Samples of a step, as many as there are at most.
        """
        batch = min(batch, samples)
        steps = samples // batch
        chunk = _chunk_of(steps)
        return cls(batch, chunk, steps // chunk * chunk)


def _chunk_of(steps: int, *, most: int = 100) -> int:
    """Returns how many of an epoch's steps make a chunk.

    It is at most `most`: a divisor of `steps` where one is not far below, otherwise one that leaves out less than one
    step in a hundred or so.
    """
    if steps <= most:
        return steps
    even = [size for size in range(most, most // 4, -1) if steps % size == 0]
    return even[0] if even else steps // -(-steps // most)


def make_train_chunk(
    step: Step,
    images: LabelledImages | Stream,
    *,
    schedule: Schedule,
    key: jax.Array,
    order_key: jax.Array,
    augmentation: str = "none",
    cutout_size: int = 0,
    shared: tuple = (),
    mesh: Mesh | None = None,
    debug: bool = False,
) -> Advance:
    """Returns a chunk of training steps for `hadas_jax.runs.loop.run`.

    Args:
        step: Takes as data a batch (images float32[B, H, W, channels] standardised, labels int32[B]), or the tuple
            (batch, *shared) where something is shared.
        images: To train on; a stream is started again wherever a run resumes or rolls back.
        schedule: Of the training.
        key: Typed PRNG key of the loop.
        order_key: PRNG key of the epochs' orders; a stream has its own order.
        augmentation: Name of the policy, see `hadas_jax.training.augmentation`; for those that crop, a stream reads
            random parts of its images instead of their middle.
        cutout_size: Side in pixels of a square that is cut out of images; 0: none.
        shared: Further arrays that every step reads.
        mesh: Devices that each batch is spread over, see `training_mesh`; None: one device.
        debug: Check that losses, gradients and parameters stay finite, to find where a training breaks; it takes time.
    """
    augment = policy(augmentation, cutout_size=cutout_size)
    jit = _checked_jit if debug else jax.jit
    step = spread(_checked(step) if debug else step, mesh)
    sharding = None if mesh is None else replicated(mesh)
    if isinstance(images, LabelledImages):
        # The order's key is data, so that runs of all seeds share their compiled code.
        def picking(state: Any, key: jax.Array, data: tuple[Any, jax.Array]) -> tuple[Any, Metrics]:
            taken, order = data
            return resident(step, batch=schedule.batch, order_key=order, augment=augment, mesh=mesh)(state, key, taken)

        data = ((images, *shared) if shared else images, order_key)
        return scanned(picking, data=data, key=key, chunk=schedule.chunk, sharding=sharding, jit=jit)
    mean, std = images.mean, images.std

    @jit
    def one(state: State, key: jax.Array, i: jax.Array, batch: tuple, shared: tuple) -> tuple[State, Metrics]:
        step_key, augment_key = jax.random.split(jax.random.fold_in(key, i))
        taken = _prepare(augment_key, batch[0], mean=mean, std=std, augment=augment), batch[1]
        return step(state, step_key, (taken, *shared) if shared else taken)

    return _streamed(one, images, schedule, key=key, crops=augmentation in _CROPPING, shared=shared, sharding=sharding)


def train_epochs(
    name: str,
    step: Step,
    state: TrainState,
    images: LabelledImages | Stream,
    *,
    schedule: Schedule,
    epochs: int,
    workdir: WorkDir,
    progress: Progress,
    **options: Any,
) -> TrainState:
    """Trains for some epochs as a stage of a run; a diverging loss goes back to the last good checkpoint.

    Args:
        name: Of the stage.
        step: As for `make_train_chunk`.
        state: Before the first step.
        images: To train on.
        schedule: Of the training.
        epochs: Times through the images.
        workdir: Of the run.
        progress: Told of every chunk.
        **options: Further arguments of `make_train_chunk`.

    Raises:
        ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
    """
    advance = make_train_chunk(step, images, schedule=schedule, **options)
    with memory_named("batch", schedule.batch, "images"):
        trained = run_stage(
            name,
            advance,
            state,
            chunks=epochs * schedule.steps_per_epoch // schedule.chunk,
            chunk=schedule.chunk,
            workdir=workdir,
            progress=progress,
            guard=Guard(lower=lower_rate),
        )
    return on_one_device(trained)


def resident(
    step: Step, *, batch: int, order_key: jax.Array, augment: Augment | None = None, mesh: Mesh | None = None
) -> Step:
    """Returns a step that takes its batch from arrays on the device.

    Args:
        step: Takes as data a batch (images float32[B, H, W, channels] standardised, labels int32[B]), or a tuple that
            starts with one.
        batch: Samples per step, at most N; what is left over at an epoch's end is skipped.
        order_key: PRNG key of the epochs' orders.
        augment: Of images in 0 .. 1, see `augmentation`.
        mesh: Devices that the batch is spread over, each of which takes its own part; None: one device.

    Returns:
        A step whose data is what `step` takes, with `LabelledImages` in place of the batch.
    """

    def run(state: Any, key: jax.Array, data: Any) -> tuple[Any, Metrics]:
        labelled, rest = (data, None) if isinstance(data, LabelledImages) else (data[0], data[1:])
        key, augment_key = jax.random.split(key)
        chosen = shard_batch(_batch_indices(order_key, state.step, size=len(labelled.labels), batch=batch), mesh)
        images = _prepare(
            augment_key,
            labelled.images[chosen],
            mean=labelled.mean,
            std=labelled.std,
            augment=augment,
        )
        taken = (images, labelled.labels[chosen])
        return step(state, key, taken if rest is None else (taken, *rest))

    return run


def _streamed(
    one: Callable[..., tuple[State, Metrics]],
    stream: Stream,
    schedule: Schedule,
    *,
    key: jax.Array,
    crops: bool,
    shared: tuple,
    sharding: NamedSharding | None,
) -> Advance:
    """Returns a chunk of steps whose batches come from the host, for data that the device cannot hold."""
    shared = shared if sharding is None else place(shared, sharding)
    processes = jax.process_count()
    # A batch in as many parts as there are processes, of which each reads the one that its devices take.
    reading = {"part": jax.process_index(), "parts": processes} if processes > 1 else {}

    def feed(batch: tuple[np.ndarray, np.ndarray]) -> Any:
        if sharding is None:
            return jax.device_put(batch)
        return jax.make_array_from_process_local_data(NamedSharding(sharding.mesh, PartitionSpec(_AXIS)), batch)

    reader: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    position = (-1, 0)

    def advance(state: State, done: int, retry: int = 0) -> tuple[State, dict[str, Any]]:
        nonlocal reader, position
        if position != (done, retry):
            reader = stream.batches(done, schedule.batch, augment=crops, retry=retry, **reading)
        state = state if sharding is None else place(state, sharding)
        found: list[Metrics] = []
        for i in range(done, done + schedule.chunk):
            state, metrics = one(state, retry_key(key, retry), jnp.int32(i), feed(next(reader)), shared)
            found.append(metrics)
            if len(found) > _AHEAD:
                jax.block_until_ready(found[-1 - _AHEAD])
        position = (done + schedule.chunk, retry)
        return state, jax.tree.map(lambda *values: np.stack([np.asarray(value) for value in values]), *found)

    return advance


def _checked(step: Step) -> Step:
    """Returns a step that requires finite metrics (loss and gradient norm among them) and a finite state after it.

    Args:
        step: Its state counts steps as `step`. The result is to be compiled by `_checked_jit`.
    """

    @functools.wraps(step)
    def run(state: Any, key: jax.Array, data: Any) -> tuple[Any, Metrics]:
        following, metrics = step(state, key, data)
        for tree in (metrics, following):
            for path, leaf in jax.tree.leaves_with_path(tree):
                if jnp.issubdtype(leaf.dtype, jnp.inexact):
                    name = jax.tree_util.keystr(path, simple=True, separator="/")
                    message = f"{name}: expected finite numbers, got others at step {{step}}"
                    checkify.check(jnp.all(jnp.isfinite(leaf)), message, step=following.step)
        return following, metrics

    return run


def _checked_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled function, as `jax.jit` does, that raises `ValueError` where a check of `_checked` fails."""
    compiled = jax.jit(checkify.checkify(function))

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        error, result = compiled(*args)
        message = error.get()
        if message is not None:
            raise ValueError(message.partition(" (`check` failed")[0])
        return result

    return run


def _prepare(key: jax.Array, images: jax.Array, *, mean: Any, std: Any, augment: Augment | None) -> jax.Array:
    """Returns float32[B, H, W, channels]: images scaled (if bytes), augmented and standardised.

    Args:
        key: PRNG key of the augmentation.
        images: uint8 or floating [B, H, W, channels].
        mean: float32[channels] or a number, subtracted.
        std: Likewise, divided by.
        augment: Of the scaled images; None leaves them as they are.
    """
    if augment is not None:
        images = augment(key, standardise(images, 0.0, 1.0))
    return standardise(images, mean, std)


def _batch_indices(key: jax.Array, step: jax.Array, *, size: int, batch: int) -> jax.Array:
    """Returns int32[batch]: the step's part of its epoch's random order of `size` samples.

    Args:
        key: PRNG key of the whole training, the same at every step.
        step: int32[].
        size: Number of samples, at least `batch`.
        batch: Samples per step; what is left over at an epoch's end is skipped.

    Raises:
        ValueError: More samples per step than there are.
    """
    per_epoch = size // batch
    if per_epoch < 1:
        raise ValueError(f"batch: expected at most the {size} samples, got {batch}")
    positions = (step % per_epoch) * batch + jnp.arange(batch)
    return _permuted(jax.random.fold_in(key, step // per_epoch), positions, size=size)


def _permuted(key: jax.Array, positions: jax.Array, *, size: int) -> jax.Array:
    """Returns int32 of the shape of `positions`: where a random permutation of 0 .. size - 1 sends them.

    A permutation by sorting costs 22 ms for 60,000 samples on two CPU cores, at every step; here each position is sent
    through a keyed permutation of the next power of 4, a Feistel network, again and again until it falls below `size`.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = jnp.uint32(2**half - 1)
    keys = jax.random.bits(key, (_FEISTEL_ROUNDS,), jnp.uint32)

    def once(x: jax.Array) -> jax.Array:
        left, right = x >> half, x & mask
        for i in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (_mixed(right + keys[i]) & mask)
        return (left << half) | right

    outside = jnp.uint32(size)
    return jax.lax.while_loop(
        lambda x: jnp.any(x >= outside),
        lambda x: jnp.where(x >= outside, once(x), x),
        once(positions.astype(jnp.uint32)),
    ).astype(jnp.int32)


def _mixed(x: jax.Array) -> jax.Array:
    """Mixes the bits of uint32 numbers (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def batch_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh with the one axis `batch` over `devices`, by default all of them."""
    found = jax.devices() if devices is None else devices
    return jax.make_mesh((len(found),), (_AXIS,), devices=found, axis_types=(jax.sharding.AxisType.Auto,))


def training_mesh(batch: int, *, data_parallel: bool) -> Mesh | None:
    """Returns the devices that a training spreads its batches over; None: the first one alone.

    Args:
        batch: Samples of a step.
        data_parallel: Take all devices of this process; of several processes, all devices of all are taken anyway.

    Raises:
        ValueError: The devices do not divide the batch.
    """
    if not data_parallel and jax.process_count() == 1:
        return None
    mesh = batch_mesh()
    if batch % mesh.size:
        raise ValueError(
            f"batch: expected a multiple of the {mesh.size} devices that share a batch, got {batch} images; change "
            "`batch`, or the number of devices where there are too few images"
        )
    return mesh


def spread(step: Step, mesh: Mesh | None) -> Step:
    """Returns a step whose batch is split over a mesh, while its state and what else it reads lie on every device."""
    if mesh is None:
        return step

    def run(state: State, key: jax.Array, data: Any) -> tuple[State, Metrics]:
        batch, *shared = data if isinstance(data[0], tuple) else (data,)
        batch = shard_batch(batch, mesh)
        following, metrics = step(replicate(state, mesh), key, (batch, *replicate(shared, mesh)) if shared else batch)
        return replicate(following, mesh), metrics

    return run


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of parameters and of what else every device needs: whole on each of the mesh's devices."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Constrains traced arrays [B, ...] to be spread over a mesh; None leaves them where they are.

    Raises:
        ValueError: A batch that the number of devices does not divide.
    """
    if mesh is None:
        return tree
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % mesh.size:
            raise ValueError(f"batch: expected a multiple of the {mesh.size} devices, got {leaf.shape[0]}")
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(_AXIS)))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Constrains traced arrays to lie whole on every device of a mesh; None leaves them where they are."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))
