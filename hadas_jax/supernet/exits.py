"""Exit heads that all backbones share: one per block position.

Each head is HADAS's (arXiv 2212.03354): 3x3 convolution, batch norm, leaky ReLU, pooling, a linear classifier
and beside it a learned confidence. On maps smaller than 3x3 the convolution is padded by one.
Shapes: B batch, H, W image, C channels, K classes.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.elastic import BatchNorm, fan_out_deviation, linear


def head_padding(height: int, width: int) -> int:
    """Padding of a head's 3x3 convolution: none where the map holds the kernel, else 1."""
    return 0 if min(height, width) >= 3 else 1


class ExitHead(nn.Module):
    """One exit head.

    Attributes:
      width: channels of its convolution.
      classes: K.
      use_batch_stats: see `BatchNorm`.
    """

    width: int
    classes: int
    use_batch_stats: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps features [B, H, W, C] to logits float32[B, K] and the confidence's logit float32[B]."""
        kernel = self.param("conv", fan_out_deviation, (3, 3, x.shape[-1], self.width))
        x = conv(x, kernel.astype(x.dtype), stride=1, padding=head_padding(*x.shape[1:3]))
        x = jax.nn.leaky_relu(BatchNorm(self.use_batch_stats, name="bn")(x), 0.01)
        x = jnp.mean(x, (1, 2))
        logits, confidence = linear(self.classes, x, name="classifier"), linear(1, x, name="confidence")[:, 0]
        return logits.astype(jnp.float32), confidence.astype(jnp.float32)
