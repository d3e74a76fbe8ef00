"""The elastic MBConv backbone: any backbone of a space, as one pure function of (params, backbone, images).

Follows AttentiveNAS (arXiv 2011.09011). Within a stage, the blocks after the first are equal and are scanned
over; blocks that a backbone does not use pass their input on.
Shapes: B batch, H, W image, C channels, K classes, D depth of a stage at its largest, S stages.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, make_divisible
from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.elastic import (
    BatchNorm,
    Depthwise,
    Pointwise,
    SqueezeExcite,
    channel_mask,
    fan_out_deviation,
    half_size_average,
    linear,
)


class BlockSetting(NamedTuple):
    """What one block takes of a backbone; all int32[]."""

    in_width: jax.Array
    out_width: jax.Array
    kernel: jax.Array
    expand: jax.Array


class MBConv(nn.Module):
    """Inverted residual block with a shortcut on every block.

    Attributes:
      stage: the options of the block's stage.
      stride: 1 or 2.
      convolve_shortcut: the shortcut is a 1x1 convolution wherever the active widths differ.
      use_batch_stats: see `BatchNorm`.
    """

    stage: Stage
    stride: int
    convolve_shortcut: bool
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array, setting: BlockSetting) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C'], C' the stage's largest width."""
        stage, out_max = self.stage, max(self.stage.width)
        out_mask = channel_mask(out_max, setting.out_width)[None, None, None]
        y, mid_width = x, setting.in_width
        if stage.expands:
            mid_max = make_divisible(x.shape[-1] * max(stage.expand))
            mid_width = make_divisible(setting.in_width * setting.expand)
            y = Pointwise(mid_max, name="expand")(y)
            y = jax.nn.swish(BatchNorm(self.use_batch_stats, name="expand_bn")(y))
        mid_mask = channel_mask(y.shape[-1], mid_width)[None, None, None]
        y = Depthwise(max(stage.kernel), self.stride, name="depthwise")(y * mid_mask, setting.kernel)
        y = jax.nn.swish(BatchNorm(self.use_batch_stats, name="depthwise_bn")(y)) * mid_mask
        if stage.se:
            y = SqueezeExcite(name="se")(y, mid_width)
        y = BatchNorm(self.use_batch_stats, name="project_bn")(Pointwise(out_max, name="project")(y))
        return (y + self._shortcut(x, setting)) * out_mask

    def _shortcut(self, x: jax.Array, setting: BlockSetting) -> jax.Array:
        out_max = max(self.stage.width)
        if self.stride > 1:
            x = half_size_average(x)
        same = jnp.pad(x, ((0, 0),) * 3 + ((0, max(out_max - x.shape[-1], 0)),))[..., :out_max]
        if not self.convolve_shortcut:
            return same
        convolved = Pointwise(out_max, name="shortcut")(x)
        return jnp.where(setting.in_width == setting.out_width, same, convolved)


class FollowingBlock(nn.Module):
    """A block after the first of its stage, in the form that `nn.scan` takes."""

    stage: Stage
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array, setting: BlockSetting) -> tuple[jax.Array, jax.Array]:
        """Returns the block's output, or its input where not `active` (bool[]), as carry and as output."""
        block = MBConv(self.stage, 1, False, self.use_batch_stats, name="block")
        y = jnp.where(active, block(x, setting), x)
        return y, y


class MBConvNet(nn.Module):
    """Stem, stages, last convolutions and classifier of a space.

    Attributes:
      space: with its resolution, input channels and classes settled.
      use_batch_stats: see `BatchNorm`.
      unrolled: compile every block instead of one scanned over: slower to compile, and as a network that is cut
        out for deployment runs.
    """

    space: MBConvSpace
    use_batch_stats: bool = False
    unrolled: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, backbone: Backbone) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Runs one backbone.

        Args:
          images: float32[B, H, W, channels] at the backbone's resolution.
          backbone: one design of the space.

        Returns:
          Per stage the outputs of its block positions [D, B, H', W', C], and the logits [B, K].
        """
        space = self.space
        x = self._stem(images, backbone.width[0])
        features = []
        for s, stage in enumerate(space.stages):
            first = BlockSetting(backbone.width[s], backbone.width[s + 1], backbone.kernel[s], backbone.expand[s])
            before = space.stages[s - 1].width if s else space.stem_width
            convolve = before != stage.width or len(before) > 1
            block = MBConv(stage, stage.stride, convolve, self.use_batch_stats, name=f"stage{s}_first")
            x = block(x, first)
            outputs = x[None]
            if max(stage.depth) > 1:
                active = jnp.arange(1, max(stage.depth)) < backbone.depth[s]
                x, rest = self._following(stage, s)(x, active, first._replace(in_width=first.out_width))
                outputs = jnp.concatenate([outputs, rest])
            features.append(outputs)
        return tuple(features), self._classify(x, backbone.width)

    def _following(self, stage: Stage, s: int) -> nn.Module:
        scanned = nn.scan(
            FollowingBlock,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=max(stage.depth) - 1,
            unroll=max(stage.depth) - 1 if self.unrolled else 1,
        )
        return scanned(stage, self.use_batch_stats, name=f"stage{s}_rest")

    def _stem(self, images: jax.Array, width: jax.Array) -> jax.Array:
        widest, stride = max(self.space.stem_width), self.space.stem_stride
        kernel = self.param("stem", fan_out_deviation, (3, 3, images.shape[-1], widest))
        x = conv(images, kernel, stride=stride, padding=1)
        x = jax.nn.swish(BatchNorm(self.use_batch_stats, name="stem_bn")(x))
        return x * channel_mask(widest, width)[None, None, None]

    def _classify(self, x: jax.Array, width: jax.Array) -> jax.Array:
        space = self.space
        head_max = make_divisible(max(space.stages[-1].width) * space.head_expand)
        last_max = max(space.last_width)
        x = BatchNorm(self.use_batch_stats, name="head_bn")(Pointwise(head_max, name="head")(x))
        x = jax.nn.swish(x) * channel_mask(head_max, make_divisible(width[-2] * space.head_expand))[None, None, None]
        x = jax.nn.swish(Pointwise(last_max, name="last")(jnp.mean(x, (1, 2))))
        return linear(space.classes, name="classifier")(x * channel_mask(last_max, width[-1])[None])
