"""Training of exit heads with the backbone's weights frozen: shared by all backbones, or for one of them.

The loss of HADAS (arXiv 2212.03354) per exit: soft cross-entropy to the final classifier's predictions plus
cross-entropy to the label; beside it each head's confidence learns whether the head is right. For shared heads every
step takes the largest backbone, the smallest and a few random ones, one after the other, and means over all exits
that they have; the paper trains the heads of one backbone, see `paper_exit_optimiser`.
Shapes: T backbones per step, E exits, B batch, K classes.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from hadas_jax.runs.loop import Metrics, Step
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, available_exits
from hadas_jax.supernet import Tree, apply_training, run_heads
from hadas_jax.training.optimisers import TrainState, descend
from hadas_jax.training.supernet import at_resolution, sandwich_backbones


def exit_losses(logits: jax.Array, confidence: jax.Array, final: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the loss of each exit, float32[E].

    Args:
        logits: float32[E, B, K] of the heads.
        confidence: float32[E, B], logits of the heads' confidence.
        final: float32[B, K], logits of the frozen classifier.
        labels: int32[B].
    """
    shape = logits.shape
    chex.assert_shape([confidence, final, labels], [shape[:2], shape[1:], shape[1:2]], custom_message="of the exits")
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
    sampled: int = 2,
    backbone: Backbone | None = None,
    dtype: str = "float32",
) -> Step:
    """Returns the step that trains exit heads.

    Its state is a `TrainState` of the heads' weights; its data (batch, frozen weights of the backbone), the batch
    being images float32[B, H, W, channels] standardised and labels int32[B]. Metrics: loss and accuracy, means over
    the exits, and the gradient's norm before clipping.

    Args:
        space: The backbones that share the heads.
        optimiser: Of the heads' weights.
        sampled: Random backbones per step besides the largest and the smallest.
        backbone: Trains the heads of this one alone, as the paper does; None: shared heads.
        dtype: What the frozen backbone is computed in, float32 or bfloat16.
    """

    def step(state: TrainState, key: jax.Array, data: tuple[Any, Tree]) -> tuple[TrainState, Metrics]:
        (images, labels), frozen = data
        heads = state.weights
        backbones = jax.tree.map(lambda leaf: leaf[None], backbone) if backbone else None
        if backbones is None:
            backbones = sandwich_backbones(space, key, sampled)
        available = jax.vmap(lambda one: available_exits(space, one))(backbones)
        share = available.astype(jnp.float32) / jnp.maximum(jnp.sum(available), 1).astype(jnp.float32)

        def add(total: Tree, item: tuple[Backbone, jax.Array, jax.Array]) -> tuple[Tree, Metrics]:
            one, present, share = item

            def gradient(resized: jax.Array) -> tuple[Tree, Metrics]:
                features, final = apply_training(space, frozen, one, resized, dtype=dtype)
                features = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), features)

                def loss(heads: Tree) -> tuple[jax.Array, Metrics]:
                    logits, confidence, _ = run_heads(space, heads, features, present, skip=True)
                    right = jnp.mean((jnp.argmax(logits, -1) == labels[None]).astype(jnp.float32), axis=-1)
                    total = jnp.sum(exit_losses(logits, confidence, final, labels) * share)
                    return total, {"loss": total, "accuracy": jnp.sum(right * share)}

                return jax.grad(loss, has_aux=True)(heads)

            found, metrics = at_resolution(space, one, images, gradient)
            return jax.tree.map(jnp.add, total, found), metrics

        start = jax.tree.map(jnp.zeros_like, heads)
        gradients, metrics = jax.lax.scan(add, start, (backbones, available, share))
        metrics = {name: jnp.sum(values) for name, values in metrics.items()}
        return descend(state, gradients, optimiser), metrics | {"gradient_norm": optax.tree.norm(gradients)}

    return step
