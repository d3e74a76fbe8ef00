"""Bilevel search: architecture parameters descend the search loss, weights the training loss, in turn.

Liu et al., "DARTS: Differentiable Architecture Search", 2018, https://arxiv.org/abs/1806.09055, algorithm 1. First
order takes the weights as they are. Second order takes them one step ahead, w' = w - xi grad_w L_train(w, a), so that
the gradient of the search loss gets the term of eq. 7, - xi d2 L_train / (da dw) grad_w' L_search(w', a). The product
of Hessian and vector is exact: the derivative of grad_a L_train along a direction of w (`jax.jvp` of `jax.grad`).
Weights and architecture are pytrees; images float32[B, H, W, channels], labels int32[B].
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.supernet import Tree
from hadas_jax.training.augmentation import Augment
from hadas_jax.training.batches import resident

Batch = tuple[jax.Array, jax.Array]
# (weights, architecture, batch, key) -> (loss float32[], metrics)
Loss = Callable[[Tree, Tree, Batch, jax.Array], tuple[jax.Array, Metrics]]
# (architecture, key) -> float32[]
Penalty = Callable[[Tree, jax.Array], jax.Array]


@struct.dataclass
class BilevelState:
    """Carried from step to step.

    Attributes:
        weights: Of the search network.
        momentum: Of the weights' optimiser, like `weights`.
        architecture: Architecture parameters.
        architecture_optimiser: State of their optimiser.
        step: int32[] steps done.
        rate: float32[], factor of the weights' learning rate; 1 until a divergence lowers it.
    """

    weights: Tree
    momentum: Tree
    architecture: Tree
    architecture_optimiser: Any
    step: jax.Array
    rate: jax.Array

    @classmethod
    def start(cls, weights: Tree, architecture: Tree, optimiser: optax.GradientTransformation, **further: Any) -> Self:
        """Returns the state before the first step.

        Args:
            weights: Of the search network.
            architecture: Architecture parameters.
            optimiser: Of the architecture parameters.
            further: What a class that is derived carries besides.
        """
        return cls(
            weights=weights,
            momentum=jax.tree.map(jnp.zeros_like, weights),
            architecture=architecture,
            architecture_optimiser=optimiser.init(architecture),
            step=jnp.int32(0),
            rate=jnp.float32(1),
            **further,
        )


@dataclasses.dataclass(frozen=True)
class WeightDescent:
    """How the weights descend: clipped gradients, L2 penalty, momentum; defaults are those of DARTS.

    Attributes:
        schedule: Learning rate by step, float32[] -> float32[].
        momentum: Factor of the sum of past gradients.
        weight_decay: Factor of the L2 penalty's gradient.
        clip: Bound of the gradient's global norm.
    """

    schedule: optax.Schedule
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0


def bilevel_step(
    loss: Loss,
    *,
    penalty: Penalty | None = None,
    descent: WeightDescent,
    optimiser: optax.GradientTransformation,
    second_order: bool,
) -> Step:
    """Returns one step of the search.

    The architecture goes first, then the weights by the new architecture, on the same training batch. Its data is
    (training batch, search batch). Metrics are those of both losses, `train_` before those of the first, and their
    losses, `train_loss` and `loss`, and the norm of the architecture's gradient.

    A step takes the gradient of one and the same loss two or three times: of second order of the training batch for
    the weights one step ahead, of the search batch there, and of the training batch at the new architecture. They are
    the turns of one loop, so that the code of the network is there once, and another time for the product of Hessian
    and vector.

    Args:
        loss: Of both batches; the weights descend that of the training batch.
        penalty: What the architecture descends besides the loss of the search batch; None: nothing.
        descent: Of the weights.
        optimiser: Of the architecture.
        second_order: Look one step of the weights ahead.
    """
    both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)

    def step(state: BilevelState, key: jax.Array, data: tuple[Batch, Batch]) -> tuple[BilevelState, Metrics]:
        ahead_key, search_key, train_key = jax.random.split(key, 3)
        train_batch, search_batch = data
        network_key, penalty_key = jax.random.split(search_key)

        def gradient_by_architecture(weights: Tree) -> Tree:
            return jax.grad(loss, argnums=1, has_aux=True)(weights, state.architecture, train_batch, ahead_key)[0]

        def move_architecture(along: Tree, direct: Tree, step_size: jax.Array) -> tuple[Tree, Any, jax.Array]:
            """Returns the architecture and its optimiser's state after the search loss, and the gradient's norm."""
            gradient = direct
            if second_order:
                _, bend = jax.jvp(gradient_by_architecture, (state.weights,), (along,))
                gradient = jax.tree.map(lambda slope, mixed: slope - step_size * mixed, gradient, bend)
            if penalty is not None:
                slope = jax.grad(penalty)(state.architecture, penalty_key)
                gradient = jax.tree.map(jnp.add, gradient, slope)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes whole and other numbers
                updates, kept = optimiser.update(gradient, state.architecture_optimiser, state.architecture)
            return optax.apply_updates(state.architecture, updates), kept, optax.tree.norm(gradient)

        def turn(carry: tuple, item: tuple) -> tuple[tuple, tuple[jax.Array, Metrics]]:
            weights, moved, step_size, _ = carry
            batch, key, is_search = item
            found, (by_weights, by_architecture) = both(weights, moved[0], batch, key)
            moved = jax.lax.cond(
                is_search,
                lambda: move_architecture(by_weights, by_architecture, step_size),
                lambda: moved,
            )
            *descended, size = _descend(state, by_weights, descent)
            following = jax.tree.map(partial(jnp.where, is_search), state.weights, descended[0])
            return (following, moved, size, descended[1]), found

        turns = [(search_batch, network_key, True), (train_batch, train_key, False)]
        turns = [(train_batch, ahead_key, False), *turns] if second_order else turns
        batches, keys, searches = zip(*turns, strict=True)
        items = (jax.tree.map(lambda *each: jnp.stack(each), *batches), jnp.stack(keys), jnp.array(searches))
        still = (state.architecture, state.architecture_optimiser, jnp.float32(0))
        start = (state.weights, still, jnp.float32(0), state.momentum)
        (weights, moved, _, momentum), (losses, metrics) = jax.lax.scan(turn, start, items)
        architecture, optimiser_state, norm = moved
        following = dataclasses.replace(
            state,
            weights=weights,
            momentum=momentum,
            architecture=architecture,
            architecture_optimiser=optimiser_state,
            step=state.step + 1,
        )
        search_loss = losses[-2] if penalty is None else losses[-2] + penalty(state.architecture, penalty_key)
        named = {"loss": search_loss, "train_loss": losses[-1], "architecture_gradient": norm}
        for name, values in metrics.items():
            named |= {name: values[-2], f"train_{name}": values[-1]}
        return following, named

    return step


def _descend(state: BilevelState, gradient: Tree, descent: WeightDescent) -> tuple[Tree, Tree, jax.Array]:
    """Returns weights and momentum after one step, and the step's size float32[], d(weights) / d(-gradient).

    The bound of the gradient's norm counts as a constant factor of it.
    """
    rate = state.rate * descent.schedule(state.step.astype(jnp.float32))
    scale = jnp.minimum(1.0, descent.clip / jnp.maximum(optax.tree.norm(gradient), 1e-12))
    momentum = jax.tree.map(
        lambda past, slope, weight: descent.momentum * past + scale * slope + descent.weight_decay * weight,
        state.momentum,
        gradient,
        state.weights,
    )
    weights = jax.tree.map(lambda weight, change: weight - rate * change, state.weights, momentum)
    return weights, momentum, rate * scale


def resident_pair(step: Step, *, batch: int, augment: Augment | None = None) -> Step:
    """Returns a step that takes two batches from two sets of images on the device, as `resident` takes one.

    Args:
        step: Takes as data (training batch, search batch).
        batch: Samples of each.
        augment: Of the images of both.

    Returns:
        A step whose data is the training images, the search images, both `LabelledImages`, and the PRNG keys of their
        orders.
    """

    def swapped(inner: Step) -> Step:
        return lambda state, key, data: inner(state, key, (data[1], data[0]))

    def run(state: BilevelState, key: jax.Array, data: Any) -> tuple[Any, Metrics]:
        train, search, (train_order, search_order) = data
        inner = resident(swapped(step), batch=batch, order_key=search_order, augment=augment)
        outer = resident(swapped(inner), batch=batch, order_key=train_order, augment=augment)
        return outer(state, key, (train, search))

    return run
