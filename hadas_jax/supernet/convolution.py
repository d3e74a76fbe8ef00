"""Dense convolution: one matrix product over gathered patches on CPUs, XLA's own elsewhere.

On a CPU the product over patches is quick at small maps. Where the whole map has fewer pixels than the kernel has
taps, every output pixel sees every input pixel, and the product runs over pixels instead: padding costs nothing.
Shapes: B batch, H, W image, C input and O output channels, k kernel.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import on_cpu
from hadas_jax.supernet.depthwise import LAYOUT, shifted_views, tap_of_pixels


def conv(images: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Convolves images [B, H, W, C] with a kernel [k, k, C, O], padded symmetrically by `padding`."""
    k, _, channels, out_channels = kernel.shape
    height, width = images.shape[1:3]
    if not on_cpu():
        pads = ((padding, padding),) * 2
        return jax.lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)
    if height * width < k * k:
        return _conv_by_pixels(images, kernel, stride, padding)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = jnp.concatenate(shifted_views(padded, k, stride), axis=-1)
    return patches @ kernel.reshape(k * k * channels, out_channels)


def _conv_by_pixels(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    k, _, channels, out_channels = kernel.shape
    inputs = images.shape[1:3]
    outputs = tuple((n + 2 * padding - k) // stride + 1 for n in inputs)
    joins = tap_of_pixels(inputs, outputs, k, stride, padding)
    taps = np.where(joins.any(-1), joins.argmax(-1), k * k)  # [input pixels, output pixels], k * k: none
    table = jnp.concatenate([kernel.reshape(k * k, channels, out_channels), jnp.zeros_like(kernel[0, :1])])
    matrix = jnp.moveaxis(table[taps], 1, 2).reshape(taps.shape[0] * channels, taps.shape[1] * out_channels)
    return (images.reshape(len(images), -1) @ matrix).reshape(-1, *outputs, out_channels)
