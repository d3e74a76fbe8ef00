"""Layers of a network of the DARTS space, each ending in a batch norm of its own, as flax modules.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055. Layers compute in the type of their input, float32 or
bfloat16; weights and statistics are float32.
Shapes: B batch, H, W map, C channels, O output channels, k kernel. Maps of stride 2 have sizes rounded up.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.supernet.darts.ops import average_pool, max_pool
from hadas_jax.supernet.layers import BatchNorm, conv, depthwise_conv

# Kernels are drawn by `hadas_jax.supernet.darts.network.initialise_derived`, all at once.
undrawn = nn.initializers.zeros


class ConvNorm(nn.Module):
    """Convolution and batch norm, without activation.

    Attributes:
        features: O.
        use_batch_stats: See `BatchNorm`.
        kernel_size: K, odd.
        stride: 1 or 2.
    """

    features: int
    use_batch_stats: bool
    kernel_size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', O]."""
        kernel = self.param("kernel", undrawn, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        x = conv(x, kernel.astype(x.dtype), stride=self.stride, padding=self.kernel_size // 2)
        return BatchNorm(self.use_batch_stats, name="bn")(x)


class FactorisedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, of which the second sees the pixels between the first's, batch norm.

    An odd map ends with zeros where there are no such pixels.

    Attributes:
        features: O, even.
        use_batch_stats: See `BatchNorm`.
    """

    features: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', O]."""
        height, width = x.shape[1:3]
        x = jnp.pad(jax.nn.relu(x), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        kernel = self.param("kernel", undrawn, (1, 1, x.shape[-1], self.features))[0, 0].astype(x.dtype)
        half = self.features // 2
        halves = [x[:, ::2, ::2] @ kernel[:, :half], x[:, 1::2, 1::2] @ kernel[:, half:]]
        return BatchNorm(self.use_batch_stats, name="bn")(jnp.concatenate(halves, axis=-1))


class _DepthwiseSeparable(nn.Module):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm.

    Attributes:
        kernel_size: K, odd.
        stride: 1 or 2.
        dilation: Distance of neighbouring taps.
        use_batch_stats: See `BatchNorm`.
    """

    kernel_size: int
    stride: int
    dilation: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        kernel = self.param("depthwise", undrawn, (self.kernel_size, self.kernel_size, x.shape[-1]))
        x = depthwise_conv(jax.nn.relu(x), kernel.astype(x.dtype), self.stride, dilation=self.dilation)
        return ConvNorm(x.shape[-1], self.use_batch_stats, name="pointwise")(x)


class Operation(nn.Module):
    """The operation of an edge, other than `none`; a skip of stride 1 is the identity.

    Attributes:
        kind: One of `hadas_jax.spaces.darts.OPERATIONS`.
        stride: 1 or 2.
        use_batch_stats: See `BatchNorm`.
    """

    kind: str
    stride: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        if self.kind == "max_pool_3x3":
            return max_pool(x, self.stride)
        if self.kind == "avg_pool_3x3":
            return average_pool(x, self.stride)
        if self.kind == "skip_connect":
            return x if self.stride == 1 else FactorisedReduction(x.shape[-1], self.use_batch_stats, name="skip")(x)
        layer = partial(_DepthwiseSeparable, int(self.kind[-1]), use_batch_stats=self.use_batch_stats)
        if self.kind.startswith("dil"):
            return layer(self.stride, 2, name="first")(x)
        return layer(1, 1, name="second")(layer(self.stride, 1, name="first")(x))
