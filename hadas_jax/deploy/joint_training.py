"""The step that trains a static network's exits and classifier together, and its statistics afterwards.

The loss is the classifier's cross-entropy plus each exit's loss of HADAS (arXiv 2212.03354) times its weight; the
gradients of all go through the shared layers. Batch norm normalises by the batch, and its statistics for inference
are estimated at the end, as those of every network here.
Shapes: e exits, B batch, N batches, H, W image, C channels.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax

from hadas_jax.deploy.layers import Segment, Weights
from hadas_jax.deploy.static_apply import run_network
from hadas_jax.loop import Metrics, Step
from hadas_jax.supernet import Tree
from hadas_jax.training import TrainState
from hadas_jax.training.exit_distillation import exit_losses
from hadas_jax.training.losses import label_loss
from hadas_jax.training.optimisers import descend, global_norm

_NOT_TRAINED = ("mean", "var", "rows")


def trained_part(weights: Weights) -> Weights:
    """Returns the weights that training changes: all but batch-norm statistics and the rows of resizing."""
    parts = {
        layer: {name: leaf for name, leaf in own.items() if name not in _NOT_TRAINED} for layer, own in weights.items()
    }
    return {layer: own for layer, own in parts.items() if own}


def with_trained(weights: Weights, trained: Weights) -> Weights:
    """Returns weights with what was trained in place of theirs."""
    return {layer: {**own, **trained.get(layer, {})} for layer, own in weights.items()}


def joint_step(
    segments: tuple[Segment, ...],
    fixed: Weights,
    optimiser: optax.GradientTransformation,
    *,
    exit_weights: Sequence[float],
    label_smoothing: float = 0.0,
) -> Step:
    """Returns the step.

    Its state is a `TrainState` of `trained_part`; its data a batch, images float32[B, H, W, C] standardised and labels
    int32[B]. Metrics: loss of everything, accuracy of the classifier, mean accuracy of the exits, gradient's norm.

    Args:
      segments: of the network, with batch norm.
      fixed: weights of the network, for what is not trained.
      optimiser: of what is trained.
      exit_weights: e factors.
      label_smoothing: of the classifier's targets.
    """
    factors = jnp.asarray(exit_weights, jnp.float32)

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = data

        def loss(trained: Weights) -> tuple[jax.Array, jax.Array]:
            logits, confidence = run_network(segments, with_trained(fixed, trained), images, statistics={})
            own = jnp.mean(label_loss(logits[-1], labels, label_smoothing))
            exits = exit_losses(logits[:-1], confidence, jax.lax.stop_gradient(logits[-1]), labels)
            return own + jnp.sum(factors * exits), logits

        (total, logits), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        right = jnp.mean((jnp.argmax(logits, -1) == labels[None]).astype(jnp.float32), axis=1)
        metrics = {
            "loss": total,
            "accuracy": right[-1],
            "exit_accuracy": jnp.mean(right[:-1]) if len(factors) else right[-1],
            "gradient_norm": global_norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    return step


@partial(jax.jit, static_argnums=0)
def with_statistics(segments: tuple[Segment, ...], weights: Weights, batches: jax.Array) -> Weights:
    """Returns weights with batch-norm statistics estimated anew: the mean over batches of each batch's own.

    Args:
      segments: of the network.
      weights: of it.
      batches: float32[N, B, H, W, C], standardised training images.
    """

    def one(images: jax.Array) -> dict[str, Tree]:
        found: dict[str, Tree] = {}
        run_network(segments, weights, images, statistics=found)
        return found

    found = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.lax.map(one, batches))
    return {layer: {**own, **found.get(layer, {})} for layer, own in weights.items()}
