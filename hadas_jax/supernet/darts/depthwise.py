"""Depthwise convolutions of many edges at once, with the batch as the last axis.

With the batch last, a convolution on a CPU is k * k scaled views added up over long rows of memory that no shift
breaks, at 60 to 110 GFLOP/s of two cores. The gradient of a kernel adds the products of the map's rows up, a tap at
a time, and leaves the sum over pixels of one row and images to a product with ones. Elsewhere XLA's own convolution
serves. All rules are plain JAX, so that `jax.jvp` goes through `jax.grad` of them.
Shapes: T edges, S edges or 1 (all read the same map), C channels, H, W map, B batch, k kernel.
"""

from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.supernet.depthwise import on_cpu


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernels: jax.Array, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Convolves each channel with its own kernel, padded by dilation * (k // 2).

    Args:
        x: [S, C, H, W, B].
        kernels: [T, C, k, k], k odd.
        stride: 1 or 2.
        dilation: Distance of taps.

    Returns:
        [T, C, ceil(H / stride), ceil(W / stride), B].
    """
    return _convolve(x, kernels, stride, dilation)


def _convolve(x: jax.Array, kernels: jax.Array, stride: int, dilation: int) -> jax.Array:
    if not on_cpu():
        return _grouped(x, kernels, stride, dilation)
    return _multiply_add(_pad(x, kernels, dilation), kernels, stride, dilation)


def _grouped(x: jax.Array, kernels: jax.Array, stride: int, dilation: int) -> jax.Array:
    """The convolution as XLA's: a group for each channel that is read."""
    edges, channels, k, _ = kernels.shape
    sources = x.shape[0]
    stacked = kernels.reshape(sources, edges // sources, channels, k, k).swapaxes(1, 2)
    out = jax.lax.conv_general_dilated(
        x.reshape(sources * channels, *x.shape[2:]),
        stacked.reshape(-1, 1, k, k),
        (stride, stride),
        ((dilation * (k // 2),) * 2,) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("CHWN", "OIHW", "CHWN"),
        feature_group_count=sources * channels,
    )
    out = out.reshape(sources, channels, edges // sources, *out.shape[1:])
    return out.swapaxes(1, 2).reshape(edges, channels, *out.shape[3:])


def _pad(x: jax.Array, kernels: jax.Array, dilation: int) -> jax.Array:
    pad = dilation * (kernels.shape[-1] // 2)
    return jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad), (0, 0)))


def _views(padded: jax.Array, k: int, stride: int, dilation: int) -> list[jax.Array]:
    """Returns the k * k views [S, C, H', W', B] that the taps see, row by row."""
    height, width = (1 + (n - dilation * (k - 1) - 1) // stride for n in padded.shape[2:4])
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    return [
        padded[:, :, i : i + rows : stride, j : j + columns : stride]
        for i in range(0, dilation * k, dilation)
        for j in range(0, dilation * k, dilation)
    ]


def _multiply_add(padded: jax.Array, kernels: jax.Array, stride: int, dilation: int) -> jax.Array:
    edges, channels, k, _ = kernels.shape
    taps = jnp.moveaxis(kernels.reshape(edges, channels, k * k, 1, 1, 1), 2, 0)
    views = _views(padded, k, stride, dilation)
    total = views[0] * taps[0]
    for view, tap in zip(views[1:], taps[1:], strict=True):
        total = total + view * tap
    return total


def _forward(x: jax.Array, kernels: jax.Array, stride: int, dilation: int) -> tuple[jax.Array, tuple]:
    return _convolve(x, kernels, stride, dilation), (x, kernels)


def _backward(stride: int, dilation: int, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernels = residuals
    if not on_cpu():
        return jax.vjp(lambda a, b: _grouped(a, b, stride, dilation), x, kernels)[1](gradient)
    to_kernels = _kernel_gradient(_pad(x, kernels, dilation), gradient, kernels.shape, stride, dilation)
    return _input_gradient(x, kernels, gradient, stride, dilation), to_kernels.astype(kernels.dtype)


def _input_gradient(x: jax.Array, kernels: jax.Array, gradient: jax.Array, stride: int, dilation: int) -> jax.Array:
    """The transposed convolution: flipped kernels over the gradient spread out by the stride."""
    pad = dilation * (kernels.shape[-1] // 2)
    # Negative padding at the end cuts; interior padding spreads.
    spread = [stride * (n - 1) + 1 for n in gradient.shape[2:4]]
    ends = [pad + n - m for n, m in zip(x.shape[2:4], spread, strict=True)]
    config = ((0, 0, 0), (0, 0, 0), (pad, ends[0], stride - 1), (pad, ends[1], stride - 1), (0, 0, 0))
    padded = jax.lax.pad(gradient, jnp.zeros((), gradient.dtype), config)
    found = _multiply_add(padded, kernels[..., ::-1, ::-1], 1, dilation)
    return jnp.sum(found, axis=0, keepdims=True) if x.shape[0] < found.shape[0] else found


def _kernel_gradient(
    padded: jax.Array, gradient: jax.Array, shape: tuple[int, ...], stride: int, dilation: int
) -> jax.Array:
    """Returns float32[T, C, k, k]."""
    sums = []
    for view in _views(padded, shape[-1], stride, dilation):
        rows = [view[:, :, row] * gradient[:, :, row] for row in range(gradient.shape[2])]
        sums.append(sum(rows[1:], rows[0]))
    stacked = jnp.stack(sums, axis=2).reshape(*shape[:2], len(sums), -1)
    return jnp.matmul(stacked, jnp.ones(stacked.shape[-1:], stacked.dtype), preferred_element_type=jnp.float32).reshape(
        shape
    )


depthwise.defvjp(_forward, _backward)
