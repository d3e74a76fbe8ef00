"""Exit heads that all backbones share: one per block position.

Each head is HADAS's (arXiv 2212.03354): 3x3 convolution, batch norm, leaky ReLU, pooling, a linear classifier
and beside it a learned confidence. On maps smaller than 3x3 the convolution is padded by one.
Shapes: D depth of a stage at its largest, B batch, H, W image, C channels, K classes, E exits.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.elastic import BatchNorm, fan_out_deviation, linear


def head_padding(height: int, width: int) -> int:
    """Padding of a head's 3x3 convolution: none where the map holds the kernel, else 1."""
    return 0 if min(height, width) >= 3 else 1


class ExitHead(nn.Module):
    """One exit head, in the form that `nn.scan` takes."""

    width: int
    classes: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, carry: None, x: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        """Maps features [B, H, W, C] to logits [B, K] and the confidence's logit [B]."""
        kernel = self.param("conv", fan_out_deviation, (3, 3, x.shape[-1], self.width))
        x = conv(x, kernel, stride=1, padding=head_padding(*x.shape[1:3]))
        x = jax.nn.leaky_relu(BatchNorm(self.use_batch_stats, name="bn")(x), 0.01)
        x = jnp.mean(x, (1, 2))
        logits = linear(self.classes, name="classifier")(x)
        return carry, (logits, linear(1, name="confidence")(x)[:, 0])


class ExitHeads(nn.Module):
    """The heads of every position that an exit may follow, scanned over stage by stage.

    Attributes:
      space: the backbone's space.
      use_batch_stats: see `BatchNorm`.
    """

    space: MBConvSpace
    use_batch_stats: bool = False

    @nn.compact
    def __call__(self, features: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        """Maps the stages' features [D, B, H, W, C] to logits [E, B, K] and confidence logits [E, B]."""
        space, skip = self.space, self.space.first_exit
        logits, confidences = [], []
        for s, stage in enumerate(features):
            stage, skip = stage[min(skip, len(stage)) :], max(skip - len(stage), 0)
            if not len(stage):
                continue
            scanned = nn.scan(
                ExitHead,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                length=len(stage),
            )
            heads = scanned(space.exit_width, space.classes, self.use_batch_stats, name=f"stage{s}")
            _, (stage_logits, stage_confidences) = heads(None, stage)
            logits.append(stage_logits)
            confidences.append(stage_confidences)
        return jnp.concatenate(logits), jnp.concatenate(confidences)
