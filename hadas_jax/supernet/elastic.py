"""Elastic layers: one set of weights that serves every width, kernel size and depth through masks.

Narrower layers use the leading channels, smaller kernels the centre of the largest one (AttentiveNAS, arXiv
2011.09011). Inputs carry zeros in their inactive channels, so convolutions need masks on their outputs alone.
Layers compute in the type of their input, float32 or bfloat16; weights and statistics are float32 always.
Shapes: B batch, H, W image, C channels (always the largest number), k kernel (always the largest size).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from hadas_jax.spaces.mbconv import make_divisible
from hadas_jax.supernet.depthwise import depthwise_conv


def fan_out_deviation(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(2 / fan out) everywhere, for convolutions [.., C, O]; see `network.initialise`."""
    return jnp.full(shape, (2.0 / (math.prod(shape[:-2]) * shape[-1])) ** 0.5, dtype)


def fan_in_deviation(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(1 / fan in) everywhere, for linear layers [C, O]."""
    return jnp.full(shape, (1.0 / shape[0]) ** 0.5, dtype)


def depthwise_deviation(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(2 / fan in) everywhere, for depthwise kernels [k, k, C]."""
    return jnp.full(shape, (2.0 / (shape[0] * shape[1])) ** 0.5, dtype)


def keep_channels(x: jax.Array, active: jax.Array) -> jax.Array:
    """Sets all but the leading `active` channels of [..., C] to zero."""
    mask = (jnp.arange(x.shape[-1]) < active).astype(x.dtype)
    return x * along_channels(mask, x)


def kernel_mask(size: int, active: jax.Array) -> jax.Array:
    """Returns float32[size, size, 1] with ones for the centre `active` x `active` taps."""
    inside = (jnp.abs(jnp.arange(size) - size // 2) <= active // 2).astype(jnp.float32)
    return inside[:, None, None] * inside[None, :, None]


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """relu6(x + 3) / 6."""
    return jax.nn.relu6(x + 3.0) / 6.0


def half_size_average(x: jax.Array) -> jax.Array:
    """2x2 average pooling of [B, H, W, C] with stride 2; odd sizes are padded by 1 and the padding counts."""
    pads = [(0, 0), *((n % 2, n % 2) for n in x.shape[1:3]), (0, 0)]
    total = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), pads)
    return total / 4.0


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics are either the batch's own or given ones.

    With `use_batch_stats` the batch's statistics normalise, and are stored (variance unbiased, as PyTorch keeps
    it) when the collection `batch_stats` is mutable; otherwise the stored ones normalise.
    """

    use_batch_stats: bool
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [B, ..., C] over all axes but the last."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.use_batch_stats:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = jnp.mean(wide, axes)
            var = jnp.maximum(jnp.mean(wide * wide, axes) - mean * mean, 0.0)  # one pass over x for both
            if self.is_mutable_collection("batch_stats"):
                count = x.size // channels
                self.variable("batch_stats", "mean", lambda: mean)
                self.variable("batch_stats", "var", lambda: var * (count / max(count - 1, 1)))
        else:
            mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,)).value
            var = self.variable("batch_stats", "var", jnp.ones, (channels,)).value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return along_channels(factor, x) * x + along_channels(bias - mean * factor, x)


def along_channels(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Returns a vector [C] in the type and with the axes of [..., C]."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


def linear(features: int, x: jax.Array, *, name: str) -> jax.Array:
    """Maps x [B, C] linearly to [B, features]; to be called within a module."""
    return nn.Dense(features, kernel_init=fan_in_deviation, dtype=x.dtype, name=name)(x)


class Pointwise(nn.Module):
    """1x1 convolution to `features` channels, without bias."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to [..., features]."""
        return x @ self.param("kernel", fan_out_deviation, (x.shape[-1], self.features)).astype(x.dtype)


class Depthwise(nn.Module):
    """Depthwise convolution with an elastic kernel size."""

    kernel_size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, kernel_size: jax.Array) -> jax.Array:
        """Convolves [B, H, W, C] with the centre `kernel_size` taps."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1])
        kernel = self.param("kernel", depthwise_deviation, shape)
        active = kernel * kernel_mask(self.kernel_size, kernel_size)
        return depthwise_conv(x, active.astype(x.dtype), self.stride)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation with an elastic hidden width: make_divisible(active channels // 4)."""

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array) -> jax.Array:
        """Gates the channels of [B, H, W, C]."""
        channels = x.shape[-1]
        hidden = make_divisible(channels // 4)
        pooled = jnp.mean(x, (1, 2))
        squeezed = keep_channels(jax.nn.relu(linear(hidden, pooled, name="squeeze")), make_divisible(active // 4))
        gate = hard_sigmoid(linear(channels, squeezed, name="excite"))
        return x * gate[:, None, None, :]
