"""Which sub-networks a step trains, and how one runs at its own resolution.

Besides the largest and the smallest, sub-networks are drawn uniformly, or by BestUp of AttentiveNAS (arXiv
2011.09011): of several with about as many multiply-accumulates as one drawn at random, the one with the lowest loss.
Shapes: G genes, T sub-networks per step, P pool, n candidates, B batch, K classes.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.search import sample
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.spaces.workload import places, workload
from hadas_jax.supernet.resize import resize
from hw_models import LayerKind

POOL = 256  # random genomes among which those near a target are looked for

SAMPLINGS = ("uniform", "bestup")

T = TypeVar("T")


def sandwich_genomes(space: MBConvSpace, drawn: jax.Array) -> jax.Array:
    """Returns int32[T, G]: the largest genome, the smallest, and the `drawn` ones int32[T - 2, G]."""
    return jnp.concatenate([jnp.stack([space.largest_genome, space.smallest_genome]), drawn])


def draw_genomes(space: MBConvSpace, key: jax.Array, count: int) -> jax.Array:
    """Returns random genomes int32[count, G]."""
    return sample(key, jnp.asarray(space.codec.cardinalities), size=count)


def sandwich_backbones(space: MBConvSpace, key: jax.Array, sampled: int) -> Backbone:
    """Returns the largest backbone, the smallest and `sampled` random ones, stacked."""
    return jax.vmap(space.decode)(sandwich_genomes(space, draw_genomes(space, key, sampled)))


def multiply_accumulates(space: MBConvSpace, backbone: Backbone) -> jax.Array:
    """Returns float32[]: multiply-accumulates of the backbone's convolutions and linear layers, without exits."""
    table = workload(space, backbone)
    counted = jnp.isin(table.kind, jnp.array([LayerKind.POOLING, LayerKind.ELEMENTWISE], table.kind.dtype), invert=True)
    trunk = jnp.asarray(places(space).part >= 0)
    return jnp.sum(jnp.where(counted & trunk, table.macs * table.active, 0.0))


def bestup_genomes(
    space: MBConvSpace,
    key: jax.Array,
    count: int,
    *,
    candidates: int,
    loss: Callable[[Backbone], jax.Array],
) -> jax.Array:
    """Returns int32[count, G]: for each random target the genome of the lowest loss among those near the target.

    Args:
      space: the backbones to choose from.
      key: PRNG key.
      count: genomes to return, at most `POOL`.
      candidates: n, how many are tried for each; 1 makes the choice random.
      loss: of a backbone, float32[]; run for one backbone at a time.
    """
    pool = draw_genomes(space, key, POOL)
    work = jax.vmap(lambda genome: multiply_accumulates(space, space.decode(genome)))(pool)
    # In a small space genomes repeat; each is a candidate once.
    same = jnp.all(pool[:, None] == pool[None], axis=-1)
    repeats = jnp.any(jnp.tril(same, -1), axis=1)
    distances = jnp.where(repeats[None], jnp.inf, jnp.abs(work[None, :] - work[:count, None]))
    _, nearest = jax.lax.top_k(-distances, candidates)
    tried = pool[nearest]
    losses = jax.lax.map(lambda genome: loss(space.decode(genome)), tried.reshape(count * candidates, -1))
    best = jnp.argmin(losses.reshape(count, candidates), axis=1)
    return tried[jnp.arange(count), best]


def at_resolution(space: MBConvSpace, backbone: Backbone, images: jax.Array, function: Callable[[jax.Array], T]) -> T:
    """Returns `function` of the images at the backbone's resolution; only that one is computed, if not under vmap.

    Args:
      space: its resolutions are the ones that `function` is compiled for.
      backbone: one design of the space.
      images: float32[B, H, W, channels], square; resized where their size is another.
      function: takes images; its result has the same form at every resolution.
    """
    sizes = space.resolution
    if len(sizes) == 1:
        return function(resize(images, sizes[0]))
    index = jnp.argmax(jnp.asarray(np.array(sizes, np.int32)) == backbone.resolution)
    return jax.lax.switch(index, [lambda size=size: function(resize(images, size)) for size in sizes])
