"""The parts of an elastic MBConv backbone: stem, block and tail, each with masks for what is not active.

Follows AttentiveNAS (arXiv 2011.09011).
Shapes: B batch, H, W image, C channels, K classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.spaces.mbconv import MBConvSpace, Stage, make_divisible
from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.elastic import (
    BatchNorm,
    Depthwise,
    Pointwise,
    SqueezeExcite,
    fan_out_deviation,
    half_size_average,
    keep_channels,
    linear,
)


class BlockSetting(NamedTuple):
    """What one block takes of a backbone; all int32[]."""

    in_width: jax.Array
    out_width: jax.Array
    kernel: jax.Array
    expand: jax.Array


class Stem(nn.Module):
    """The first 3x3 convolution of a space; for `use_batch_stats` see `BatchNorm`."""

    space: MBConvSpace
    use_batch_stats: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, width: jax.Array) -> jax.Array:
        """Maps images [B, H, W, channels] to [B, H', W', C] with the leading `width` channels active."""
        widest, stride = max(self.space.stem_width), self.space.stem_stride
        kernel = self.param("kernel", fan_out_deviation, (3, 3, images.shape[-1], widest))
        x = conv(images, kernel.astype(images.dtype), stride=stride, padding=1)
        return keep_channels(jax.nn.swish(BatchNorm(self.use_batch_stats, name="bn")(x)), width)


class MBConv(nn.Module):
    """Inverted residual block with a shortcut on every block.

    Attributes:
      stage: the options of the block's stage.
      stride: 1 or 2.
      convolve_shortcut: the shortcut is a 1x1 convolution wherever the active widths differ.
      use_batch_stats: see `BatchNorm`.
      expands: the block has an expanding convolution, whatever its ratio; None: as the stage's options say.
    """

    stage: Stage
    stride: int
    convolve_shortcut: bool
    use_batch_stats: bool = False
    expands: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, setting: BlockSetting, keep: jax.Array | None = None) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C'], C' the stage's largest width.

        Args:
          x: features with zeros in inactive channels.
          setting: what is active.
          keep: float32[B], factors of the residual branch for drop-connect; None: all ones.
        """
        stage, out_max = self.stage, max(self.stage.width)
        y, mid_width = x, setting.in_width
        if stage.expands if self.expands is None else self.expands:
            mid_max = make_divisible(x.shape[-1] * max(stage.expand))
            mid_width = make_divisible(setting.in_width * setting.expand)
            y = Pointwise(mid_max, name="expand")(y)
            y = jax.nn.swish(BatchNorm(self.use_batch_stats, name="expand_bn")(y))
        y = Depthwise(max(stage.kernel), self.stride, name="depthwise")(keep_channels(y, mid_width), setting.kernel)
        y = jax.nn.swish(BatchNorm(self.use_batch_stats, name="depthwise_bn")(y))
        y = keep_channels(y, mid_width)
        if stage.se:
            y = SqueezeExcite(name="se")(y, mid_width)
        y = BatchNorm(self.use_batch_stats, name="project_bn")(Pointwise(out_max, name="project")(y))
        if keep is not None:
            y = y * keep.astype(y.dtype)[:, None, None, None]
        return keep_channels(y + self._shortcut(x, setting), setting.out_width)

    def _shortcut(self, x: jax.Array, setting: BlockSetting) -> jax.Array:
        out_max = max(self.stage.width)
        if self.stride > 1:
            x = half_size_average(x)
        same = jnp.pad(x, ((0, 0),) * 3 + ((0, max(out_max - x.shape[-1], 0)),))[..., :out_max]
        if not self.convolve_shortcut:
            return same
        convolved = Pointwise(out_max, name="shortcut")(x)
        return jnp.where(setting.in_width == setting.out_width, same, convolved)


class Tail(nn.Module):
    """Last convolutions and classifier of a space; for `use_batch_stats` see `BatchNorm`."""

    space: MBConvSpace
    use_batch_stats: bool = False

    @nn.compact
    def __call__(
        self, x: jax.Array, in_width: jax.Array, last_width: jax.Array, keep: jax.Array | None = None
    ) -> jax.Array:
        """Maps the last stage's features [B, H, W, C] to logits float32[B, K].

        Args:
          x: features with zeros in inactive channels.
          in_width: int32[], their active channels.
          last_width: int32[], active channels of the last convolution.
          keep: float32[B, largest last width], factors of the classifier's inputs for dropout; None: all ones.
        """
        space = self.space
        head_max = make_divisible(max(space.stages[-1].width) * space.head_expand)
        x = BatchNorm(self.use_batch_stats, name="head_bn")(Pointwise(head_max, name="head")(x))
        x = keep_channels(jax.nn.swish(x), make_divisible(in_width * space.head_expand))
        x = jax.nn.swish(Pointwise(max(space.last_width), name="last")(jnp.mean(x, (1, 2))))
        x = keep_channels(x, last_width)
        if keep is not None:
            x = x * keep.astype(x.dtype)
        return linear(space.classes, x, name="classifier").astype(jnp.float32)
