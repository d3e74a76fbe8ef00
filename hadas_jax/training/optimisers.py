"""Optimisers of supernets and exit heads, and the state that training carries from step to step.

Recipes: AttentiveNAS (arXiv 2011.09011) for supernets, HADAS (arXiv 2212.03354) for the heads of one backbone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hadas_jax.supernet import Tree, is_kernel


@struct.dataclass
class TrainState:
    """Carried from step to step.

    Attributes:
        weights: What is trained.
        optimiser: The optimiser's state.
        step: int32[] steps done.
        rate: float32[], factor of the learning rate; 1 until a divergence lowers it.
    """

    weights: Tree
    optimiser: Any
    step: jax.Array
    rate: jax.Array


def init_state(weights: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step, from fresh or from loaded weights."""
    return TrainState(
        weights=weights, optimiser=jax.jit(optimiser.init)(weights), step=jnp.int32(0), rate=jnp.float32(1)
    )


def descend(state: TrainState, gradients: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """Returns the state after one step of the optimiser, scaled by the state's rate."""
    updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.weights)
    scaled = jax.tree.map(lambda update: update * state.rate.astype(update.dtype), updates)
    weights = optax.apply_updates(state.weights, scaled)
    return dataclasses.replace(state, weights=weights, optimiser=optimiser_state, step=state.step + 1)


def lower_rate(state: TrainState, factor: float) -> TrainState:
    """Returns the state with its learning rate multiplied by `factor`, for `loop.Guard`."""
    return dataclasses.replace(state, rate=jnp.asarray(state.rate * factor, jnp.float32))


def sgd(schedule: optax.Schedule, *, weight_decay: float, clip: optax.GradientTransformation) -> Any:
    """Returns clipped SGD with Nesterov momentum 0.9 and L2 weight decay of kernels alone.

    Args:
        schedule: Maps float32 steps to learning rates.
        weight_decay: Factor of the L2 penalty's gradient.
        clip: What limits gradients before all else.
    """
    return optax.chain(
        clip,
        optax.add_decayed_weights(weight_decay, mask=is_kernel),
        optax.sgd(lambda count: schedule(count.astype(jnp.float32)), momentum=0.9, nesterov=True),
    )


def paper_exit_optimiser(
    steps_per_epoch: int,
    *,
    epochs: int = 30,
    warmup_epochs: int = 5,
    learning_rate: float = 0.01,
    weight_decay: float = 1e-5,
) -> Any:
    """Returns HADAS's optimiser for the heads of one backbone, to be used with batches of 64.

    The learning rate rises linearly for `warmup_epochs` and falls linearly to 0 until the last epoch; weight decay
    1e-5 of kernels, gradients clipped to a global norm of 1.

    Raises:
        ValueError: No steps, or a warm-up that does not end before training does.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch: expected at least 1, got {steps_per_epoch}")
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(f"warmup_epochs: expected 0 to {epochs - 1} of {epochs} epochs, got {warmup_epochs}")
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, warmup),
            optax.linear_schedule(learning_rate, 0.0, total - warmup),
        ],
        [warmup],
    )
    return sgd(schedule, weight_decay=weight_decay, clip=optax.clip_by_global_norm(1.0))
