"""Parts of the operations of a DARTS cell, on maps with channels first and the batch last.

Convolutions follow the order ReLU, depthwise, pointwise, batch norm, the separable ones twice; pooling is 3x3; a skip
of stride 2 is a factorised reduction (Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055). What normalises
is left to the caller, but for statistics over the batch. Pooling is separable, and maxima are taken pairwise: the
gradient of XLA's windows is slow on CPUs.
Shapes: T edges, C channels, H, W map, B batch; O output channels; `...` any number of axes.
"""

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5


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


def max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """Largest of 3x3 pixels, those outside the map left out: [..., H, W, B] -> [..., H', W', B]."""
    for axis in (-3, -2):
        first, second, third = _three(x, axis, stride, -jnp.inf)
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def average_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """Mean of 3x3 pixels, those outside the map not counted: [..., H, W, B] -> [..., H', W', B]."""
    for axis in (-3, -2):
        size = x.shape[axis]
        starts = np.arange(0, size, stride) - 1
        counted = np.minimum(starts + 3, size) - np.maximum(starts, 0)
        share = jnp.asarray(1 / counted, x.dtype).reshape(-1, *(1,) * (-1 - axis))
        first, second, third = _three(x, axis, stride, 0.0)
        x = (first + second + third) * jnp.expand_dims(share, tuple(range(x.ndim + axis)))
    return x


def _three(x: jax.Array, axis: int, stride: int, outside: float) -> list[jax.Array]:
    """Returns the views of an axis that three taps see."""
    size = x.shape[axis]
    count = -(-size // stride)
    pads = [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    padded = jnp.pad(x, pads, constant_values=outside)
    return [jax.lax.slice_in_dim(padded, i, i + stride * (count - 1) + 1, stride, axis) for i in range(3)]


def standardise(x: jax.Array) -> jax.Array:
    """Batch norm without scale and shift by the statistics of the batch, of maps [C, H, W, B]."""
    rows = x.reshape(len(x), -1)
    mean = _mean(rows)
    scale = jax.lax.rsqrt(jnp.maximum(_mean(rows * rows) - mean**2, 0.0) + EPSILON)
    scale, shift = (v.astype(x.dtype)[:, None, None, None] for v in (scale, mean * scale))
    return x * scale - shift


def standardising(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Folds the batch norm that follows a pointwise convolution into its weights.

    The mean of W x is W mean(x), its variance the diagonal of W cov(x) W'; so the statistics of the outputs are known
    before there are outputs, and none need be kept for a gradient.

    Args:
        x: Input of the convolution, [C, H, W, B].
        weights: [O, C].

    Returns:
        Weights float32[O, C] and what to subtract, float32[O]: with them, the convolution is
        `standardise(pointwise(x, weights))` of the weights given.
    """
    rows, weights = x.reshape(len(x), -1), weights.astype(jnp.float32)
    mean = _mean(rows)
    moments = jnp.einsum("cn,dn->cd", rows, rows, preferred_element_type=jnp.float32) / rows.shape[-1]
    covariance = moments - mean[:, None] * mean[None]
    variance = jnp.sum((weights @ covariance) * weights, axis=-1)
    folded = weights * jax.lax.rsqrt(jnp.maximum(variance, 0.0) + EPSILON)[:, None]
    return folded, folded @ mean


def _mean(rows: jax.Array) -> jax.Array:
    """Mean over the last axis as a product, float32[C]: sums are slow on CPUs."""
    ones = jnp.ones(rows.shape[-1:], rows.dtype)
    return jnp.matmul(rows, ones, preferred_element_type=jnp.float32) / rows.shape[-1]
