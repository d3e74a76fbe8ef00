"""Fifty steps on one global batch, by all devices of all processes of a run.

python global_steps.py OUTPUT.npz [COORDINATOR NUM_PROCESSES PROCESS_ID]; the first process writes losses and weights.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.backend import connect, is_first
from hadas_jax.data import LabelledImages, Stream
from hadas_jax.data.images import Source
from hadas_jax.settings import TrainingSettings
from hadas_jax.spaces import MBConvSpace, Stage
from hadas_jax.supernet import initialise
from hadas_jax.training import Schedule, init_state, make_train_chunk, sandwich_step, training_mesh

STEPS, BATCH, COUNT = 50, 16, 48
SCHEDULE = Schedule(BATCH, STEPS, STEPS)
SPACE = MBConvSpace(
    name="tiny",
    resolution=(9,),
    stem_width=(8,),
    stem_stride=2,
    stages=(Stage((8, 16), (1, 2), (3, 5), (2, 3), stride=2, se=True),),
    last_width=(16,),
    head_expand=1,
    first_exit=0,
    exit_width=8,
    in_channels=1,
    classes=3,
)
OPTIMISER = optax.sgd(0.02, momentum=0.9)


def draw_images() -> tuple[np.ndarray, np.ndarray]:
    """Noisy images uint8[48, 9, 9, 1] in three classes, by their brightness, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype=np.int32) % 3
    return (60 * labels[:, None, None, None] + rng.integers(0, 100, (COUNT, 9, 9, 1))).astype(np.uint8), labels


def as_stream(images: np.ndarray, labels: np.ndarray) -> Stream:
    """The same images, one by one."""
    source = Source(
        name="x",
        channels=1,
        stored_bytes=images.nbytes,
        rows=np.arange(COUNT),
        read=lambda row: (images[row], int(labels[row])),
        content=lambda row: images[row].tobytes(),
        name_and_size=lambda row: f"{row}".encode(),
        read_labels=lambda: labels,
    )
    return Stream(source, image_size=9, seed=0, name="x", mean=(0.4,), std=(0.3,))


def main(output: str, coordinator: str | None = None, *numbers: str) -> None:
    """Trains from arrays and from a stream, and writes what came of it."""
    connect(coordinator, *(map(int, numbers) if coordinator else (None, None)))
    mesh, key = training_mesh(BATCH, data_parallel=True), jax.random.key(0)
    images, labels = draw_images()
    arrays = LabelledImages(jnp.asarray(images), jnp.asarray(labels), np.float32(0.4), np.float32(0.3))
    supernet = sandwich_step(SPACE, OPTIMISER, settings=TrainingSettings(sampled=1))
    params = jax.jit(initialise, static_argnums=0)(SPACE, key)
    found = {}
    for name, source in {"arrays": arrays, "stream": as_stream(images, labels)}.items():
        advance = make_train_chunk(
            supernet, source, schedule=SCHEDULE, key=key, order_key=key, augmentation="crop-flip", mesh=mesh
        )
        state, metrics = advance(init_state(params.backbone, OPTIMISER), 0)
        found[f"{name}/loss"] = metrics["loss"]
        found |= {f"{name}/weights/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.weights))}
    if is_first():
        np.savez(output, **{name: np.asarray(value) for name, value in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
