"""Training of the weight-sharing supernet by the sandwich rule with in-place distillation.

Every step trains the largest backbone, a few random ones and the smallest: the largest learns from the labels,
the others from its predictions (BigNAS, arXiv 2003.11142; AttentiveNAS, arXiv 2011.09011).
Shapes: T backbones per step, B batch, K classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hadas_jax.data import LabelledImages
from hadas_jax.loop import Metrics, Step
from hadas_jax.search import sample
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.supernet import Tree, apply_training, is_kernel
from hadas_jax.training.augment import batch_indices, random_affine


@struct.dataclass
class TrainState:
    """Carried from step to step.

    Attributes:
      weights: what is trained.
      optimiser: the optimiser's state.
      step: int32[] steps done.
    """

    weights: Tree
    optimiser: Any
    step: jax.Array


def sgd(schedule: optax.Schedule, *, weight_decay: float, clip: optax.GradientTransformation) -> Any:
    """Returns clipped SGD with Nesterov momentum 0.9 and L2 weight decay; `schedule` maps float32 steps."""
    return optax.chain(
        clip,
        optax.add_decayed_weights(weight_decay, mask=is_kernel),
        optax.sgd(lambda count: schedule(count.astype(jnp.float32)), momentum=0.9, nesterov=True),
    )


def init_state(weights: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(weights=weights, optimiser=jax.jit(optimiser.init)(weights), step=jnp.int32(0))


def descend(state: TrainState, gradients: Tree, optimiser: optax.GradientTransformation) -> TrainState:
    """Returns the state after one step of the optimiser."""
    updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return TrainState(weights=weights, optimiser=optimiser_state, step=state.step + 1)


def sandwich_backbones(space: MBConvSpace, key: jax.Array, sampled: int) -> Backbone:
    """Returns the largest backbone, the smallest and `sampled` random ones, stacked."""
    drawn = sample(key, jnp.asarray(space.codec.cardinalities), size=sampled)
    genomes = jnp.concatenate([jnp.stack([space.largest_genome, space.smallest_genome]), drawn])
    return jax.vmap(space.decode)(genomes)


def sandwich_step(
    space: MBConvSpace,
    optimiser: optax.GradientTransformation,
    *,
    batch: int,
    order_key: jax.Array,
    sampled: int = 2,
    label_smoothing: float = 0.1,
    shift: float = 0.0,
) -> Step:
    """Returns the step of the sandwich rule.

    Args:
      space: the backbones to train.
      optimiser: of the shared weights.
      batch: images per step.
      order_key: PRNG key of the epochs' orders.
      sampled: random backbones per step.
      label_smoothing: of the largest backbone's targets.
      shift: farthest random shift of the images in pixels, see `random_affine`.
    """

    def step(state: TrainState, key: jax.Array, data: LabelledImages) -> tuple[TrainState, Metrics]:
        sample_key, shift_key = jax.random.split(key)
        chosen = batch_indices(order_key, state.step, size=data.images.shape[0], batch=batch)
        images = random_affine(shift_key, data.images[chosen], shift)
        targets = optax.smooth_labels(jax.nn.one_hot(data.labels[chosen], space.classes), label_smoothing)
        backbones = sandwich_backbones(space, sample_key, sampled)

        def loss(weights: Tree) -> tuple[jax.Array, Metrics]:
            run = jax.vmap(lambda backbone: apply_training(space, weights, backbone, images, skip="nothing")[1])
            logits = run(backbones)
            teacher = jax.lax.stop_gradient(jax.nn.softmax(logits[0]))
            labels = jnp.concatenate([targets[None], jnp.broadcast_to(teacher, logits[1:].shape)])
            losses = jnp.mean(optax.softmax_cross_entropy(logits, labels), axis=1)
            right = jnp.argmax(logits, -1) == data.labels[chosen][None]
            accuracy = jnp.mean(right.astype(jnp.float32), axis=1)
            metrics = {"loss": losses[0], "accuracy": accuracy[0], "smallest_accuracy": accuracy[1]}
            return jnp.sum(losses), metrics

        gradients, metrics = jax.grad(loss, has_aux=True)(state.weights)
        return descend(state, gradients, optimiser), metrics

    return step
