"""Depthwise convolution with the batch as the last axis.

With the batch last, a convolution on a CPU is k * k scaled views added up over long rows of memory that no shift
breaks, at 60 to 110 GFLOP/s of two cores. The gradient of a kernel adds the products of the map's columns up, a tap at
a time, and leaves the sum over rows and images to a product with ones. Elsewhere XLA's own convolution
serves. All rules are plain JAX, so that `jax.jvp` goes through `jax.grad` of them.
Shapes: C channels, H, W map, B batch, k kernel.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.backend import on_cpu
from hadas_jax.supernet.darts.apart import apart


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves each channel with its own kernel, padded by dilation * (k // 2).

    Args:
        x: [C, H, W, B].
        kernel: [C, k, k], k odd.
        stride: 1 or 2.
        dilation: Distance of taps.

    Returns:
        [C, ceil(H / stride), ceil(W / stride), B].
    """
    return _convolve(x, kernel, stride, dilation)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return (_shifted if on_cpu() else _grouped)(x, kernel, stride, dilation)


def _grouped(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """The convolution as XLA's."""
    channels, k, _ = kernel.shape
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, None],
        (stride, stride),
        ((dilation * (k // 2),) * 2,) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("CHWN", "OIHW", "CHWN"),
        feature_group_count=channels,
    )


@partial(apart, static=(2, 3))
def _shifted(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return _multiply_add(_pad(x, kernel.shape[-1], dilation), kernel, stride, dilation)


def _pad(x: jax.Array, k: int, dilation: int) -> jax.Array:
    pad = dilation * (k // 2)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (pad, pad, 0), (pad, pad, 0), (0, 0, 0)))


def _multiply_add(padded: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    k = kernel.shape[-1]
    height, width = ((n - dilation * (k - 1) - 1) // stride for n in padded.shape[1:3])
    total = jnp.zeros((), padded.dtype)
    for i, j in ((i, j) for i in range(k) for j in range(k)):
        rows = slice(dilation * i, dilation * i + stride * height + 1, stride)
        columns = slice(dilation * j, dilation * j + stride * width + 1, stride)
        total = total + padded[:, rows, columns] * kernel[:, i, j, None, None, None]
    return total


def _forward(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> tuple[jax.Array, tuple]:
    return _convolve(x, kernel, stride, dilation), (x, kernel)


def _backward(stride: int, dilation: int, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if not on_cpu():
        return jax.vjp(lambda a, b: _grouped(a, b, stride, dilation), x, kernel)[1](gradient)
    to_kernel = _kernel_gradient(x, gradient, kernel.shape[-1], stride, dilation)
    return _input_gradient(gradient, kernel, x.shape, stride, dilation), to_kernel.astype(kernel.dtype)


@partial(apart, static=(2, 3, 4))
def _input_gradient(
    gradient: jax.Array, kernel: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
    """The transposed convolution: the flipped kernel over the gradient spread out by the stride."""
    pad = dilation * (kernel.shape[-1] // 2)
    # Negative padding at the end cuts; interior padding spreads.
    ends = [pad + n - (stride * (m - 1) + 1) for n, m in zip(shape[1:3], gradient.shape[1:3], strict=True)]
    config = ((0, 0, 0), (pad, ends[0], stride - 1), (pad, ends[1], stride - 1), (0, 0, 0))
    padded = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), config)
    return _multiply_add(padded, kernel[:, ::-1, ::-1], 1, dilation)


@partial(apart, static=(2, 3, 4))
def _kernel_gradient(x: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns float32[C, k, k], a row of taps at a time."""
    padded = _pad(x, k, dilation)
    height, width = gradient.shape[1:3]
    taps = range(0, dilation * k, dilation)
    ones = jnp.ones(height * gradient.shape[-1], gradient.dtype)

    def tap_row(start: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, start, stride * (height - 1) + 1, axis=1)[:, ::stride]
        products = [[rows[:, :, j + stride * i] * gradient[:, :, i] for i in range(width)] for j in taps]
        sums = jnp.stack([sum(columns, jnp.zeros((), gradient.dtype)) for columns in products])
        return jnp.matmul(sums.reshape(k, len(gradient), -1), ones, preferred_element_type=jnp.float32)

    return jnp.moveaxis(jax.lax.map(tap_row, jnp.asarray(taps)), -1, 0)


depthwise.defvjp(_forward, _backward)
