"""Bilevel search: architecture parameters descend the search loss, weights the training loss, in turn.

Liu et al., "DARTS: Differentiable Architecture Search", 2018, https://arxiv.org/abs/1806.09055, algorithm 1. First
order takes the weights as they are. Second order takes them one step ahead, w' = w - xi grad_w L_train(w, a), so that
the gradient of the search loss gets the term of eq. 7, - xi d2 L_train / (da dw) grad_w' L_search(w', a). The product
of Hessian and vector is exact: the derivative of grad_a L_train along a direction of w (`jax.jvp` of `jax.grad`).
Weights and architecture are pytrees; images float32[B, H, W, channels], labels int32[B].
"""

import dataclasses
from collections.abc import Callable
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
    train_loss: Loss,
    search_loss: Loss,
    *,
    descent: WeightDescent,
    optimiser: optax.GradientTransformation,
    second_order: bool,
) -> Step:
    """Returns one step of the search.

    The architecture goes first, then the weights by the new architecture, on the same training batch. Its data is
    (training batch, search batch). Metrics are those of both losses, `train_` before those of the first, and their
    losses, `train_loss` and `loss`, and the norm of the architecture's gradient.

    Args:
        train_loss: What the weights descend.
        search_loss: What the architecture descends.
        descent: Of the weights.
        optimiser: Of the architecture.
        second_order: Look one step of the weights ahead.
    """
    train = jax.value_and_grad(train_loss, has_aux=True)
    search = jax.value_and_grad(search_loss, argnums=(0, 1) if second_order else 1, has_aux=True)

    def architecture_gradient(state: BilevelState, data: tuple[Batch, Batch], keys: list[jax.Array]) -> Any:
        """Returns the search loss with its metrics, and its gradient by the architecture."""
        train_batch, search_batch = data
        if not second_order:
            return search(state.weights, state.architecture, search_batch, keys[1])

        def gradient_of(argument: int) -> Callable[[Tree], Tree]:
            slope = jax.grad(train_loss, argnums=argument, has_aux=True)
            return lambda weights: slope(weights, state.architecture, train_batch, keys[0])[0]

        ahead, _, step_size = _descend(state, gradient_of(0)(state.weights), descent)
        loss_and_metrics, (along, gradient) = search(ahead, state.architecture, search_batch, keys[1])
        _, bend = jax.jvp(gradient_of(1), (state.weights,), (along,))
        return loss_and_metrics, jax.tree.map(lambda direct, mixed: direct - step_size * mixed, gradient, bend)

    def step(state: BilevelState, key: jax.Array, data: tuple[Batch, Batch]) -> tuple[BilevelState, Metrics]:
        *keys, train_key = jax.random.split(key, 3)
        (loss, metrics), gradient = architecture_gradient(state, data, keys)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes whole and other numbers
            updates, optimiser_state = optimiser.update(gradient, state.architecture_optimiser, state.architecture)
        architecture = optax.apply_updates(state.architecture, updates)
        (weights_loss, train_metrics), weights_gradient = train(state.weights, architecture, data[0], train_key)
        weights, momentum, _ = _descend(state, weights_gradient, descent)
        following = dataclasses.replace(
            state,
            weights=weights,
            momentum=momentum,
            architecture=architecture,
            architecture_optimiser=optimiser_state,
            step=state.step + 1,
        )
        both = metrics | {f"train_{name}": value for name, value in train_metrics.items()}
        norms = {"architecture_gradient": optax.tree.norm(gradient)}
        return following, both | norms | {"loss": loss, "train_loss": weights_loss}

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
