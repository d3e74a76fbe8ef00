"""Losses of sub-networks that learn from labels or from the largest sub-network.

Shapes: B batch, K classes.
"""

import jax
import jax.numpy as jnp
import optax

IMPORTANCE_CLIP = 5.0


def label_loss(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Cross-entropy float32[B] of logits [B, K] to labels int32[B], smoothed towards uniform by `smoothing`."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def soft_cross_entropy(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """Cross-entropy float32[B] of logits [B, K] to a teacher's predictions, whose logits get no gradient.

    Its gradient is that of the Kullback-Leibler divergence from the teacher.
    """
    return optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(teacher)))


def alpha_divergence(logits: jax.Array, teacher: jax.Array) -> jax.Array:
    """AlphaNet's adaptive alpha-divergence (arXiv 2102.07954) float32[B] of logits [B, K] to a teacher's.

    With p the teacher's probabilities and q the student's, D_a = sum(q ((p / q)^a - 1)) / (a (a - 1)). Of a = -1, which
    punishes a student that is surer than its teacher, and the limit a = 1, the Kullback-Leibler divergence, which
    punishes one that is less sure, each sample takes the larger. The weights (p / q)^-1 are clipped at 5, in the
    value and in the gradient, which is -1/a sum(q (p / q)^a grad log q).
    """
    log_q = jax.nn.log_softmax(logits)
    student, truth = jax.lax.stop_gradient(log_q), jax.lax.stop_gradient(jax.nn.log_softmax(teacher))
    q, p = jnp.exp(student), jnp.exp(truth)
    weights = jnp.minimum(jnp.exp(student - truth), IMPORTANCE_CLIP)
    negative = 0.5 * jnp.sum(q * (weights - 1.0), axis=-1)
    positive = jnp.sum(p * (truth - student), axis=-1)
    slope = jnp.where((negative > positive)[..., None], -q * weights, p)
    surrogate = -jnp.sum(slope * log_q, axis=-1)  # of the right gradient; the value is put in its place
    return jnp.maximum(negative, positive) + surrogate - jax.lax.stop_gradient(surrogate)


DISTILLATIONS = {"kl": soft_cross_entropy, "alpha": alpha_divergence}
