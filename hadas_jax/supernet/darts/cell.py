"""A cell of a genotype, and the auxiliary head that helps to train a network of them, as flax modules.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055.
Shapes: B batch, H, W map, C channels of a cell, K classes, 8 edges of a cell, two to each of its four nodes.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hadas_jax.supernet.darts.layers import ConvNorm, FactorisedReduction, Operation
from hadas_jax.supernet.elastic import linear
from hw_models.accelerator.network import EDGE_INPUT, EDGE_NODE, NODES, OPERATIONS

_POOL = 5
_AUXILIARY_WIDTHS = (128, 768)


class Cell(nn.Module):
    """Two maps to one, the concatenation of four nodes.

    Attributes:
        digits: Operation of each of the 14 edges, 0 where there is none.
        channels: C.
        is_reduce: Edges from the cell's inputs have stride 2.
        follows_reduce: The first input is twice as large as the second.
        use_batch_stats: See `hadas_jax.supernet.elastic.BatchNorm`.
    """

    digits: tuple[int, ...]
    channels: int
    is_reduce: bool
    follows_reduce: bool
    use_batch_stats: bool

    @nn.compact
    def __call__(self, before: jax.Array, last: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Maps the outputs of the two cells before [B, H, W, ...] to [B, H', W', 4 C].

        Args:
            before: Output of the cell before the last.
            last: Output of the last cell.
            keep: float32[8, B], factors of the edges for drop-path, identities left alone; None: all ones.
        """
        batch_stats = self.use_batch_stats
        if self.follows_reduce:
            before = FactorisedReduction(self.channels, batch_stats, name="input0")(before)
        else:
            before = ConvNorm(self.channels, batch_stats, name="input0")(jax.nn.relu(before))
        last = ConvNorm(self.channels, batch_stats, name="input1")(jax.nn.relu(last))
        states, edges = [before, last], [edge for edge, digit in enumerate(self.digits) if digit]
        for node in range(NODES):
            ends = []
            for position, edge in enumerate(edges):
                if EDGE_NODE[edge] != node:
                    continue
                kind, source = OPERATIONS[self.digits[edge]], int(EDGE_INPUT[edge])
                stride = 2 if self.is_reduce and source < 2 else 1
                end = Operation(kind, stride, batch_stats, name=f"edge{edge}")(states[source])
                if keep is not None and (kind, stride) != ("skip_connect", 1):
                    end = end * keep[position].astype(end.dtype)[:, None, None, None]
                ends.append(end)
            states.append(sum(ends[1:], start=ends[0]))
        return jnp.concatenate(states[2:], axis=-1)


class AuxiliaryHead(nn.Module):
    """Classifier on the map after the second reduce cell, for training alone.

    Maps on which 5x5 pooling does not give 2x2 are pooled to 2x2 by halves, which overlap where sizes are odd.

    Attributes:
        classes: K.
        stride: Of the pooling, 3 in CIFAR's networks and 2 in ImageNet's.
        use_batch_stats: See `hadas_jax.supernet.elastic.BatchNorm`.
    """

    classes: int
    stride: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to logits float32[B, K]."""
        narrow, wide = _AUXILIARY_WIDTHS
        x = ConvNorm(narrow, self.use_batch_stats, name="first")(_quarters(jax.nn.relu(x), self.stride))
        x = jax.nn.relu(x).reshape(-1, 1, 1, 4 * narrow)  # a 2x2 convolution sees all of it at once
        x = jax.nn.relu(ConvNorm(wide, self.use_batch_stats, name="second")(x))
        return linear(self.classes, x[:, 0, 0], name="classifier").astype(jnp.float32)


def _quarters(x: jax.Array, stride: int) -> jax.Array:
    """Averages [B, H, W, C] to [B, 2, 2, C]."""
    size = x.shape[1]
    pools = size >= _POOL and (size - _POOL) // stride == 1
    halves = ((0, _POOL), (stride, stride + _POOL)) if pools else ((0, -(-size // 2)), (size // 2, size))
    means = [[jnp.mean(x[:, a:b, c:d], axis=(1, 2)) for c, d in halves] for a, b in halves]
    return jnp.stack([jnp.stack(row, axis=1) for row in means], axis=1)
