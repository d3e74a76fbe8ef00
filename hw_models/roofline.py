"""The norm by which times of work that partly overlaps add up."""

import jax
import jax.numpy as jnp


def p_norm(a: jax.Array, b: jax.Array, order: jax.Array) -> jax.Array:
    """Returns `(a^p + b^p)^(1/p)` of non-negative values, with finite gradients at zero and for large p.

    The larger value is taken out of the norm: powers of times in seconds would underflow in float32.
    """
    larger, smaller = jnp.maximum(a, b), jnp.minimum(a, b)
    is_positive = larger > 0
    scale = jnp.where(is_positive, larger, 1.0)
    norm = scale * (1.0 + (smaller / scale) ** order) ** (1.0 / order)
    return jnp.where(is_positive, norm, 0.0)
