"""Parts of the operations of a DARTS cell, on maps with channels first and the batch last.

Convolutions follow the order ReLU, depthwise, pointwise, batch norm, the separable ones twice; pooling is 3x3; a skip
of stride 2 is a factorised reduction (Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055). What normalises
is left to the caller, but for statistics over the batch.
Shapes: T edges, C channels, H, W map, B batch; O output channels.
"""

import jax
import jax.numpy as jnp


def pointwise(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Convolves by 1x1 kernels: [C, H, W, B] by weights [O, C] -> [O, H, W, B]."""
    return jnp.matmul(weights, x.reshape(len(x), -1)).reshape(len(weights), *x.shape[1:])


def reduce_map(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Halves a map by two 1x1 convolutions of stride 2, the second of the map shifted by a pixel each way.

    An odd map ends with zeros where the shifted one has no pixel.

    Args:
        x: [C, H, W, B], after its ReLU.
        weights: [2, O / 2, C].

    Returns:
        [O, ceil(H / 2), ceil(W / 2), B].
    """
    height, width = x.shape[1:3]
    even = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    return jnp.concatenate([pointwise(even[:, i::2, i::2], weights[i]) for i in range(2)])
