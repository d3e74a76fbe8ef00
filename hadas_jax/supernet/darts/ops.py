"""Parts of the operations of a DARTS cell, on maps with channels first and the batch last.

Convolutions follow the order ReLU, depthwise, pointwise, batch norm, the separable ones twice; pooling is 3x3; a skip
of stride 2 is a factorised reduction (Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055). What normalises
is left to the caller, but for statistics over the batch. All rules are plain JAX, so that `jax.jvp` goes through
`jax.grad` of them.

With the batch last, a convolution on a CPU is k * k scaled views added up over long rows of memory that no shift
breaks, at 60 to 110 GFLOP/s of two cores. Pooling goes a direction at a time, as the gradient of XLA's windows is slow
on CPUs. Sums over maps are products with ones, as sums are slow too; statistics are float32.
Shapes: C channels, O output channels, H, W map, B batch, k kernel; `...` any number of axes, N any axis.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from hadas_jax.supernet.layers import per_platform


def _apart(function: Callable[..., Any], *, static: tuple[int, ...] = ()) -> Callable[..., Any]:
    """Returns the function as a call that XLA compiles apart on CPUs, fused with nothing around it.

    On CPUs the compiler fuses a cheap-looking producer into each of its consumers and flattens the loops by their
    shapes. For sums of shifted views this computes the same map several times, by loops without vector instructions:
    ten times slower in all, and far longer to compile.

    Args:
        function: Of arrays and static arguments.
        static: Positions of the static ones.
    """
    compiled = jax.jit(function, static_argnums=static)

    def kept(*args: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return jax.lax.platform_dependent(cpu=lambda: kept(*args), default=lambda: compiled(*args))

    return call


def apart_with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of arrays as a piece, and its gradient as one that keeps the arguments alone."""
    forward = _apart(function)
    backward = _apart(lambda arguments, gradient: jax.vjp(function, *arguments)[1](gradient))
    piece = jax.custom_vjp(forward)
    piece.defvjp(lambda *arguments: (forward(*arguments), arguments), backward)
    return piece


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
    chex.assert_rank([x, kernel], [4, 3], custom_message="x [C, H, W, B] and kernel [C, k, k]")
    return _depthwise(x, kernel, stride, dilation)


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


@partial(_apart, static=(2, 3))
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


def _gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, jax.Array]:
    to_kernel = _kernel_gradient(x, gradient, kernel.shape[-1], stride, dilation)
    return _input_gradient(gradient, kernel, x.shape, stride, dilation), to_kernel.astype(kernel.dtype)


@partial(_apart, static=(2, 3, 4))
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


@partial(_apart, static=(2, 3, 4))
def _kernel_gradient(x: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns float32[C, k, k], a row of taps at a time: products of the map's columns, summed up by one with ones."""
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


_depthwise = per_platform(_shifted, _grouped, gradients_on_cpu=_gradients)


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


EPSILON = 1e-5


def standardise(x: jax.Array) -> jax.Array:
    """Batch norm without scale and shift by the statistics of the batch, of maps [C, H, W, B]."""
    return _standardise(x)[0]


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def norm(x: jax.Array, weights: jax.Array | None, share: jax.Array, positive: bool = False) -> jax.Array:
    """Convolves by 1x1 kernels, then batch norm, then ReLU if `positive`, all times `share`.

    Args:
        x: [C, H, W, B].
        weights: [O, C]; None: no convolution.
        share: float32[], factor of the result.
        positive: Take the ReLU.

    Returns:
        [O, H, W, B].
    """
    return _norm_forward(x, weights, share, positive)


@partial(_apart, static=(3,))
def _norm_forward(x: jax.Array, weights: jax.Array | None, share: jax.Array, positive: bool) -> jax.Array:
    found = standardise(x if weights is None else pointwise(x, weights))
    return share.astype(x.dtype) * (jax.nn.relu(found) if positive else found)


@partial(_apart, static=(4,))
def _norm_backward(
    x: jax.Array, weights: jax.Array | None, share: jax.Array, gradient: jax.Array, positive: bool
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    if weights is None:
        to_x, to_share = _through_norm(x, share, gradient, positive)
        return to_x, None, to_share
    to_product, to_share = _through_norm(pointwise(x, weights), share, gradient, positive)
    to_weights = jnp.matmul(_rows(to_product), _rows(x).T, preferred_element_type=jnp.float32)
    return pointwise(to_product, weights.T), to_weights.astype(weights.dtype), to_share


norm.defvjp(
    lambda x, weights, share, positive: (_norm_forward(x, weights, share, positive), (x, weights, share)),
    lambda positive, kept, gradient: _norm_backward(*kept, gradient, positive),
)


def _standardise(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the normalised maps, and one over the standard deviation of each channel, float32[C]."""
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


ROWS, COLUMNS = -3, -2


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
    """Largest of 3x3 pixels, those outside the map left out: [..., H, W, N] -> [..., H', W', N].

    Of equal pixels the first has the gradient.
    """
    return _largest(x, stride)


@partial(_apart, static=(1,))
def _largest(x: jax.Array, stride: int) -> jax.Array:
    return _largest_along(_largest_along(x, ROWS, stride), COLUMNS, stride)


def _largest_along(x: jax.Array, axis: int, stride: int) -> jax.Array:
    first, second, third = _views(x, axis, stride, -jnp.inf)
    return jnp.maximum(jnp.maximum(first, second), third)


@partial(_apart, static=(2,))
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


@partial(_apart, static=(1,))
def _average(x: jax.Array, stride: int) -> jax.Array:
    for axis in (ROWS, COLUMNS):
        share = _share(x, x.shape[axis], axis, stride)
        x = sum(_views(x, axis, stride, 0.0), jnp.zeros((), x.dtype)) * share
    return x


@partial(_apart, static=(1, 2, 3))
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
