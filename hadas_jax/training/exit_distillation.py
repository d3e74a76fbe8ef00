"""Training of the shared exit heads over sampled backbones, with the backbone's weights frozen.

The loss of HADAS (arXiv 2212.03354) per exit: soft cross-entropy to the final classifier's predictions plus
cross-entropy to the label; beside it each head's confidence learns whether the head is right. Every step takes
the largest backbone, the smallest and a few random ones, and means over the exits that a backbone has.
Shapes: T backbones per step, E exits, B batch, K classes.
"""

import jax
import jax.numpy as jnp
import optax

from hadas_jax.data import LabelledImages
from hadas_jax.loop import Metrics, Step
from hadas_jax.spaces.exits import available_exits
from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.supernet import Tree, apply_training, run_heads
from hadas_jax.training.augment import batch_indices, random_affine
from hadas_jax.training.sandwich import TrainState, descend, sandwich_backbones


def exit_losses(logits: jax.Array, confidence: jax.Array, final: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of each exit, float32[E].

    Args:
      logits: float32[E, B, K] of the heads.
      confidence: float32[E, B], logits of the heads' confidence.
      final: float32[B, K], logits of the frozen classifier.
      labels: int32[B].
    """
    shape = logits.shape
    teacher = jnp.broadcast_to(jax.nn.softmax(final)[None], shape)
    truth = jnp.broadcast_to(jax.nn.one_hot(labels, shape[-1])[None], shape)
    right = jax.lax.stop_gradient(jnp.argmax(logits, -1) == labels[None]).astype(jnp.float32)
    losses = (
        optax.softmax_cross_entropy(logits, teacher)
        + optax.softmax_cross_entropy(logits, truth)
        + optax.sigmoid_binary_cross_entropy(confidence, right)
    )
    return jnp.mean(losses, axis=1)


def exit_step(
    space: MBConvSpace,
    optimiser: optax.GradientTransformation,
    *,
    batch: int,
    order_key: jax.Array,
    sampled: int = 2,
    shift: float = 0.0,
) -> Step:
    """Returns the step that trains the heads of sampled backbones; its data is (images, frozen weights).

    Args:
      space: the backbones that share the heads.
      optimiser: of the heads' weights.
      batch: images per step.
      order_key: PRNG key of the epochs' orders.
      sampled: random backbones per step.
      shift: farthest random shift of the images in pixels, see `random_affine`.
    """

    def step(state: TrainState, key: jax.Array, data: tuple[LabelledImages, Tree]) -> tuple[TrainState, Metrics]:
        labelled, frozen = data
        sample_key, shift_key = jax.random.split(key)
        chosen = batch_indices(order_key, state.step, size=labelled.images.shape[0], batch=batch)
        images, labels = random_affine(shift_key, labelled.images[chosen], shift), labelled.labels[chosen]
        backbones = sandwich_backbones(space, sample_key, sampled)
        run = jax.vmap(lambda backbone: apply_training(space, frozen, backbone, images, skip="nothing"))
        features, final = run(backbones)
        available = jax.vmap(lambda backbone: available_exits(space, backbone))(backbones)

        def loss(weights: Tree) -> tuple[jax.Array, Metrics]:
            logits, confidence, _ = jax.vmap(lambda f, a: run_heads(space, weights, f, a))(features, available)
            losses = jax.vmap(exit_losses, in_axes=(0, 0, 0, None))(logits, confidence, final, labels)
            right = jnp.mean((jnp.argmax(logits, -1) == labels[None, None]).astype(jnp.float32), axis=-1)
            share = available.astype(jnp.float32) / jnp.sum(available).astype(jnp.float32)
            metrics = {"loss": jnp.sum(losses * share), "accuracy": jnp.sum(right * share)}
            return metrics["loss"], metrics

        gradients, metrics = jax.grad(loss, has_aux=True)(state.weights)
        return descend(state, gradients, optimiser), metrics

    return step
