"""Depthwise convolution: on CPUs as shifted multiply-adds with a gradient of the same form, XLA's own elsewhere.

XLA's grouped convolution is slow on CPUs; k * k shifted multiply-adds fuse into one pass over the image. Taps that
reach beyond the map from everywhere are left out: of a 5x5 kernel on a map of one pixel, the centre is all. For the
gradient of the weights, small maps take one matrix product per channel between all input and all output pixels,
of which each tap sums a diagonal (3 to 10 times faster at 2x2 to 8x8, 1.2 to 3 times at 14x14, and quicker to
compile); larger maps are summed image by image in a scan, so that no k * k copies of the batch are held.
Shapes: B batch, H, W image, C channels, k kernel.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import on_cpu

SMALL_MAP = 196  # input pixels up to which the matrix product is the faster way
LAYOUT = ("NHWC", "HWIO", "NHWC")


def depthwise_conv(images: jax.Array, kernel: jax.Array, stride: int = 1, *, dilation: int = 1) -> jax.Array:
    """Convolves each channel with its own kernel, padded symmetrically by dilation * (k // 2).

    Args:
      images: [B, H, W, C].
      kernel: [k, k, C], k odd.
      stride: 1 or 2.
      dilation: distance of neighbouring taps in pixels.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    k, channels = kernel.shape[0], kernel.shape[-1]
    if not on_cpu():
        return jax.lax.conv_general_dilated(
            images,
            kernel[:, :, None],
            (stride, stride),
            ((dilation * (k // 2),) * 2,) * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=LAYOUT,
            feature_group_count=channels,
        )
    rim = max(k // 2 - (max(images.shape[1:3]) - 1) // dilation, 0)
    return _shifted_conv(images, kernel[rim : k - rim, rim : k - rim], stride, dilation)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_conv(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return _multiply_add(_pad(images, dilation * (kernel.shape[0] // 2)), kernel, stride, dilation)


def _pad(images: jax.Array, pad: int) -> jax.Array:
    return jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def shifted_views(padded: jax.Array, k: int, stride: int, dilation: int = 1) -> list[jax.Array]:
    """Returns the k * k strided views [..., H', W', C] of a padded image, row by row."""
    reach = dilation * (k - 1) + 1
    height, width = (1 + (n - reach) // stride for n in padded.shape[-3:-1])
    return [
        padded[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride, :]
        for i in range(0, reach, dilation)
        for j in range(0, reach, dilation)
    ]


def _multiply_add(padded: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    k, _, channels = kernel.shape
    views = shifted_views(padded, k, stride, dilation)
    taps = kernel.reshape(k * k, 1, 1, 1, channels)
    total = views[0] * taps[0]
    for view, tap in zip(views[1:], taps[1:], strict=True):
        total = total + view * tap
    return total


def _forward(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> tuple[jax.Array, tuple]:
    return _shifted_conv(images, kernel, stride, dilation), (images, kernel)


def _backward(stride: int, dilation: int, residuals: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    k, _, channels = kernel.shape
    height, width = images.shape[1:3]

    # Input: the transposed convolution, that is, the flipped kernel over the gradient spread out by the stride.
    spread = gradient
    if stride > 1:
        rows, cols = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
        spread = jnp.zeros((gradient.shape[0], rows, cols, channels), gradient.dtype)
        spread = spread.at[:, ::stride, ::stride, :].set(gradient)
    before = dilation * (k - 1 - k // 2)
    after = [n + before - m for n, m in zip((height, width), spread.shape[1:3], strict=True)]
    spread = jnp.pad(spread, ((0, 0), (before, after[0]), (before, after[1]), (0, 0)))
    to_images = _multiply_add(spread, kernel[::-1, ::-1], 1, dilation)

    by_pixels = height * width <= SMALL_MAP
    gradient_of_kernel = _kernel_gradient_by_pixels if by_pixels else _kernel_gradient_by_image
    to_kernel = gradient_of_kernel(images, gradient, k, stride, dilation)
    return to_images, to_kernel.reshape(kernel.shape).astype(kernel.dtype)


def _kernel_gradient_by_pixels(images: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns [k * k, C] from the products of all pairs of input and output pixels."""
    batch, *_, channels = images.shape
    x, y = (a.reshape(batch, -1, channels) for a in (images, gradient))
    products = jnp.einsum("bic,boc->cio", x, y, preferred_element_type=jnp.float32).reshape(channels, -1)
    joins = tap_of_pixels(images.shape[1:3], gradient.shape[1:3], k, stride, dilation * (k // 2), dilation)
    return (products @ joins.reshape(-1, k * k)).T


def tap_of_pixels(
    inputs: tuple[int, ...], outputs: tuple[int, ...], k: int, stride: int, padding: int, dilation: int = 1
) -> np.ndarray:
    """Returns float32[input pixels, output pixels, k * k]: 1 where the tap joins the two pixels."""
    taps = np.zeros((*inputs, *outputs, k, k), np.float32)
    for row, column in np.ndindex(*outputs):
        for i, j in np.ndindex(k, k):
            source = (row * stride + i * dilation - padding, column * stride + j * dilation - padding)
            if all(0 <= at < size for at, size in zip(source, inputs, strict=True)):
                taps[(*source, row, column, i, j)] = 1.0
    return taps.reshape(np.prod(inputs), np.prod(outputs), k * k)


def _kernel_gradient_by_image(images: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns [k * k, C], accumulated over the images of the batch."""

    def add(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        padded, grad = pair
        products = [
            jnp.sum(view * grad, axis=(0, 1), dtype=jnp.float32) for view in shifted_views(padded, k, stride, dilation)
        ]
        return total + jnp.stack(products), None

    start = jnp.zeros((k * k, images.shape[-1]), jnp.float32)
    return jax.lax.scan(add, start, (_pad(images, dilation * (k // 2)), gradient))[0]


_shifted_conv.defvjp(_forward, _backward)
