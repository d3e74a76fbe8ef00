"""Steps of a tiny space on all devices and on one, in a process of its own: python parallel_steps.py OUTPUT.npz."""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from global_steps import SPACE

from hadas_jax.data import LabelledImages
from hadas_jax.settings import TrainingSettings
from hadas_jax.supernet import initialise
from hadas_jax.training import (
    TrainState,
    batch_mesh,
    exit_step,
    init_state,
    resident,
    sandwich_step,
)
from hadas_jax.training.batches import Schedule, make_train_chunk, shard_batch, spread
from hadas_jax.training.optimisers import descend

chex.set_n_cpu_devices(8)
BATCH, KEY, OPTIMISER = 32, jax.random.key(0), optax.sgd(0.1)
FAST = {"xla_backend_optimization_level": 0}


class Repeated:
    """A stream of one batch."""

    mean, std = 0.0, 1.0

    def batches(
        self, start_step: int, batch: int, *, augment: bool = False, retry: int = 0, part: int = 0, parts: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the same batch for ever."""
        rng = np.random.default_rng(1)
        pair = rng.integers(0, 256, (batch, 9, 9, 1), dtype=np.uint8), np.arange(batch, dtype=np.int32) % 3
        return itertools.repeat(pair)


def streams() -> dict[str, Any]:
    """Two chunks of a cheap step, fed by a stream and by arrays, and what was compiled for the second of each."""
    mesh, compiled = batch_mesh(), []

    def step(state: TrainState, key: jax.Array, data: Any) -> tuple[TrainState, Any]:
        images, labels = data
        gradients = {"x": jnp.mean(images, (0, 1, 2)) * jnp.mean(labels.astype(jnp.float32))}
        return descend(state, gradients, OPTIMISER), {"loss": jnp.sum(state.weights["x"])}

    state = init_state({"x": jnp.ones(1)}, OPTIMISER)
    batch = next(Repeated().batches(0, BATCH))
    sources = {"stream": Repeated(), "arrays": LabelledImages(*map(jnp.asarray, batch))}
    schedule = Schedule(BATCH, 3, 3)
    advances = {
        name: make_train_chunk(step, source, schedule=schedule, key=KEY, order_key=KEY, mesh=mesh)
        for name, source in sources.items()
    }
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    found = {}
    for name, advance in advances.items():
        after, _ = advance(state, 0)
        before = len(compiled)
        after, _ = advance(after, 3)
        found[f"{name}/compiled"] = sum("backend_compile" in event for event in compiled[before:])
        found |= {f"{name}/x": after.weights["x"], f"{name}/devices": devices_of(after)}
    found["stream/listened"] = sum("backend_compile" in event for event in compiled)
    return found


def devices_of(state: TrainState) -> int:
    """Returns on how many devices the weights are."""
    return len(jax.tree.leaves(state.weights)[0].sharding.device_set)


def main(output: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(48, 9, 9, 1)).astype(np.float32), np.arange(48, dtype=np.int32) % 3
    data = LabelledImages(jnp.asarray(images), jnp.asarray(labels))
    params = jax.jit(initialise, static_argnums=0, compiler_options=FAST)(SPACE, KEY)
    found = {}
    for name, mesh in (("one", None), ("all", batch_mesh())):
        sandwich = sandwich_step(SPACE, OPTIMISER, settings=TrainingSettings(sampled=1))
        heads = exit_step(SPACE, OPTIMISER, sampled=1)
        steps = {
            "sandwich": (sandwich, params.backbone, data),
            "exits": (heads, params.heads, (data, params.backbone)),
        }
        for kind, (step, weights, shared) in steps.items():
            state = init_state(weights, OPTIMISER)
            run = jax.jit(resident(spread(step, mesh), batch=BATCH, order_key=KEY, mesh=mesh), compiler_options=FAST)
            compiled = run.lower(state, KEY, shared).compile()
            found[f"{name}/{kind}/memory"] = compiled.memory_analysis().temp_size_in_bytes
            after, metrics = run(state, KEY, shared)
            found[f"{name}/{kind}/devices"] = devices_of(after)
            found |= {f"{name}/{kind}/metrics/{metric}": value for metric, value in metrics.items()}
            for i, leaf in enumerate(jax.tree.leaves(after.weights)):
                found[f"{name}/{kind}/weights/{i}"] = leaf
    found |= streams()
    split = jax.jit(lambda x: shard_batch(x, batch_mesh()))(images[:BATCH])
    found["shards"] = [shard.data.shape for shard in split.addressable_shards]
    np.savez(output, **{key: np.asarray(value) for key, value in found.items()})


if __name__ == "__main__":
    main(sys.argv[1])
