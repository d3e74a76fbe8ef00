"""3x3 pooling, a direction at a time, over the two axes before the last.

The gradient of XLA's windows is slow on CPUs. These have rules of their own, compiled apart, for the same reason as
`depthwise`: fused with what comes before and after they take ten times as long.
Shapes: H, W map; `...` any number of axes; N any axis.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.darts.apart import apart

ROWS, COLUMNS = -3, -2


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """Largest of 3x3 pixels, those outside the map left out: [..., H, W, N] -> [..., H', W', N].

    Of equal pixels the first has the gradient.
    """
    return _largest(x, stride)


@partial(apart, static=(1,))
def _largest(x: jax.Array, stride: int) -> jax.Array:
    return _largest_along(_largest_along(x, ROWS, stride), COLUMNS, stride)


def _largest_along(x: jax.Array, axis: int, stride: int) -> jax.Array:
    first, second, third = _views(x, axis, stride, -jnp.inf)
    return jnp.maximum(jnp.maximum(first, second), third)


@partial(apart, static=(2,))
def _largest_gradient(x: jax.Array, gradient: jax.Array, stride: int) -> jax.Array:
    gradient = _to_largest(_largest_along(x, ROWS, stride), gradient, COLUMNS, stride)
    return _to_largest(x, gradient, ROWS, stride)


def _to_largest(x: jax.Array, gradient: jax.Array, axis: int, stride: int) -> jax.Array:
    first, second, third = _views(x, axis, stride, -jnp.inf)
    won = (first >= second) & (first >= third), (second > first) & (second >= third), (third > first) & (third > second)
    parts = [jnp.where(here, gradient, jnp.zeros((), gradient.dtype)) for here in won]
    return _from_views(parts, x.shape[axis], axis, stride)


max_pool.defvjp(
    lambda x, stride: (_largest(x, stride), x),
    lambda stride, x, gradient: (_largest_gradient(x, gradient, stride),),
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def average_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """Mean of 3x3 pixels, those outside the map not counted: [..., H, W, N] -> [..., H', W', N]."""
    return _average(x, stride)


@partial(apart, static=(1,))
def _average(x: jax.Array, stride: int) -> jax.Array:
    for axis in (ROWS, COLUMNS):
        share = _share(x, x.shape[axis], axis, stride)
        x = sum(_views(x, axis, stride, 0.0), jnp.zeros((), x.dtype)) * share
    return x


@partial(apart, static=(1, 2, 3))
def _average_gradient(gradient: jax.Array, height: int, width: int, stride: int) -> jax.Array:
    for axis, size in ((COLUMNS, width), (ROWS, height)):
        part = gradient * _share(gradient, size, axis, stride)
        gradient = _from_views([part] * 3, size, axis, stride)
    return gradient


average_pool.defvjp(
    lambda x, stride: (_average(x, stride), x.shape[ROWS:-1]),
    lambda stride, size, gradient: (_average_gradient(gradient, *size, stride),),
)


def _share(x: jax.Array, size: int, axis: int, stride: int) -> jax.Array:
    """Returns one over the pixels of the map that each window along an axis of `size` sees, to multiply x with."""
    starts = np.arange(0, size, stride) - 1
    counted = np.minimum(starts + 3, size) - np.maximum(starts, 0)
    shape = [1] * x.ndim
    shape[axis] = -1
    return jnp.asarray(1 / counted, x.dtype).reshape(shape)


def _views(x: jax.Array, axis: int, stride: int, outside: float) -> list[jax.Array]:
    """Returns what three taps along an axis see of a map with a rim of `outside`."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (1, 1)
    padded = jnp.pad(x, pads, constant_values=outside)
    reach = stride * (-(-x.shape[axis] // stride) - 1) + 1
    return [jax.lax.slice_in_dim(padded, tap, tap + reach, stride, axis % x.ndim) for tap in range(3)]


def _from_views(parts: list[jax.Array], size: int, axis: int, stride: int) -> jax.Array:
    """Adds what three taps along an axis saw up where it comes from, a map of `size`; the transpose of `_views`."""
    total = jnp.zeros((), parts[0].dtype)
    for tap, part in enumerate(parts):
        reach = stride * (part.shape[axis] - 1) + 1
        config = [(0, 0, 0)] * part.ndim
        config[axis] = (tap - 1, size + 1 - tap - reach, stride - 1)  # negative: cut off
        total = total + jax.lax.pad(part, jnp.zeros((), part.dtype), config)
    return total
