"""Dropout before the classifier, and drop-connect of blocks, as factors that a network multiplies with.

Shapes: B batch, N block positions, C inputs of the classifier.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from hadas_jax.spaces.mbconv import MBConvSpace


@struct.dataclass
class Drops:
    """Factors, 0 where dropped and 1 / (1 - rate) elsewhere.

    Attributes:
      blocks: float32[N, B], of the residual branch of the blocks after the first of a stage.
      last: float32[B, C], of the inputs of the classifier.
    """

    blocks: jax.Array
    last: jax.Array


def draw_drops(key: jax.Array, space: MBConvSpace, batch: int, *, dropout: ArrayLike, drop_connect: ArrayLike) -> Drops:
    """Draws factors for one pass.

    Args:
      key: PRNG key.
      space: static.
      batch: B.
      dropout: float32[], rate of the classifier's inputs; 0 leaves all as they are.
      drop_connect: float32[], rate of the last block; it rises linearly with the block's position from 0
        (EfficientNet, arXiv 1905.11946; AttentiveNAS).
    """
    block_key, last_key = jax.random.split(key)
    depth = jnp.arange(space.positions, dtype=jnp.float32) / max(space.positions - 1, 1)
    return Drops(
        blocks=_factors(block_key, (depth * drop_connect)[:, None], (space.positions, batch)),
        last=_factors(last_key, jnp.asarray(dropout, jnp.float32)[None, None], (batch, max(space.last_width))),
    )


def _factors(key: jax.Array, rate: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    kept = jax.random.uniform(key, shape) >= rate
    return kept.astype(jnp.float32) / (1.0 - rate)
