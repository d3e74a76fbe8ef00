"""Batch norm by the statistics of the batch, without scale and shift, alone and after a pointwise convolution.

Each is one piece of compiled code, as is its gradient, which keeps nothing but the arguments: what is cheap is computed
again. Statistics are float32, and sums over maps are products: sums are slow on CPUs.
Shapes: C channels, H, W map, B batch; O output channels.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.supernet.darts.apart import apart
from hadas_jax.supernet.darts.operations import pointwise

EPSILON = 1e-5


def standardise(x: jax.Array) -> jax.Array:
    """Batch norm without scale and shift by the statistics of the batch, of maps [C, H, W, B]."""
    return _standardise(x)[0]


@partial(apart, static=(2,))
def _forward(x: jax.Array, share: jax.Array, positive: bool) -> jax.Array:
    found = standardise(x)
    return share.astype(x.dtype) * (jax.nn.relu(found) if positive else found)


@partial(apart, static=(3,))
def _backward(x: jax.Array, share: jax.Array, gradient: jax.Array, positive: bool) -> tuple[jax.Array, jax.Array]:
    return _through_norm(x, share, gradient, positive)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def norm(x: jax.Array, share: jax.Array, positive: bool = False) -> jax.Array:
    """Batch norm, then ReLU if `positive`, times `share` float32[]; maps [C, H, W, B]."""
    return _forward(x, share, positive)


norm.defvjp(
    lambda x, share, positive: (_forward(x, share, positive), (x, share)),
    lambda positive, kept, gradient: _backward(*kept, gradient, positive),
)


@partial(apart, static=(3,))
def _product_forward(x: jax.Array, weights: jax.Array, share: jax.Array, positive: bool) -> jax.Array:
    found = standardise(pointwise(x, weights))
    return share.astype(x.dtype) * (jax.nn.relu(found) if positive else found)


@partial(apart, static=(4,))
def _product_backward(
    x: jax.Array, weights: jax.Array, share: jax.Array, gradient: jax.Array, positive: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    to_product, to_share = _through_norm(pointwise(x, weights), share, gradient, positive)
    to_weights = jnp.matmul(_rows(to_product), _rows(x).T, preferred_element_type=jnp.float32)
    return pointwise(to_product, weights.T), to_weights.astype(weights.dtype), to_share


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def product_norm(x: jax.Array, weights: jax.Array, share: jax.Array, positive: bool = False) -> jax.Array:
    """Convolves by 1x1 kernels, then does as `norm`.

    Args:
        x: [C, H, W, B].
        weights: [O, C].
        share: float32[], factor of the result.
        positive: Take the ReLU.

    Returns:
        [O, H, W, B].
    """
    return _product_forward(x, weights, share, positive)


product_norm.defvjp(
    lambda x, weights, share, positive: (_product_forward(x, weights, share, positive), (x, weights, share)),
    lambda positive, kept, gradient: _product_backward(*kept, gradient, positive),
)


def _standardise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the normalised maps, and one over the deviation of each channel, float32[C]."""
    mean = _mean(x)
    scale = jax.lax.rsqrt(jnp.maximum(_mean_product(x, x) - mean**2, 0.0) + EPSILON)
    return x * _along(scale, x) - _along(mean * scale, x), scale


def _through_norm(x: jax.Array, share: jax.Array, gradient: jax.Array, positive: bool) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of `norm` by x and by its share."""
    normal, scale = _standardise(x)
    if positive:
        gradient = jnp.where(normal > 0, gradient, jnp.zeros((), gradient.dtype))
    mean, slope = _mean(gradient), _mean_product(gradient, normal)
    factor = share * scale
    to_x = gradient * _along(factor, x) - normal * _along(factor * slope, x) - _along(factor * mean, x)
    return to_x, jnp.sum(slope) * (x.size / len(x))


def _along(values: jax.Array, x: jax.Array) -> jax.Array:
    """Brings float32[C] to the type of maps, for products with them."""
    return values.astype(x.dtype)[:, None, None, None]


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def _mean(x: jax.Array) -> jax.Array:
    """Mean of each channel, float32[C]."""
    rows = _rows(x)
    return jnp.matmul(rows, jnp.ones(rows.shape[-1:], x.dtype), preferred_element_type=jnp.float32) / rows.shape[-1]


def _mean_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of the products of two maps in each channel, float32[C]."""
    total = jnp.einsum("cn,cn->c", _rows(x), _rows(y), preferred_element_type=jnp.float32)
    return total * (len(x) / x.size)
