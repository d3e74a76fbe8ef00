"""Expected error, latency and energy of dynamic networks: every exit subset at every operating point.

A network with exits runs its trunk segment by segment, and a head at each exit of the subset, until the sample
stops. Outcomes are bit sets over the samples, so the samples that reach a segment are counted by popcount, and
expected costs are one matrix product of how often segments run with what they cost.
Shapes: E exits, N samples, W = ceil(N / 32) words, S = 2^E subsets, D = 2 E + 1 segments (E + 1 of the trunk,
then E heads), L layers, F operating points.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import hw_models
from hadas_jax.spaces.exits import exit_subsets
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.spaces.workload import segments, workload
from hw_models import Cost, Device


@struct.dataclass
class SubsetStats:
    """What each exit subset does, bit e of its index standing for exit e.

    Attributes:
      error: float32[S], share of samples judged wrongly; +inf for subsets with an exit that is not available.
      weights: float32[S, D], expected number of times each segment runs.
    """

    error: jax.Array
    weights: jax.Array


def pack_bits(flags: jax.Array) -> jax.Array:
    """Packs bool[..., N] into uint32[..., W], sample n as bit n % 32 of word n // 32; spare bits are zero."""
    spare = -flags.shape[-1] % 32
    padded = jnp.pad(flags, [(0, 0)] * (flags.ndim - 1) + [(0, spare)])
    words = padded.reshape(*flags.shape[:-1], -1, 32).astype(jnp.uint32)
    shifts = jnp.arange(32, dtype=jnp.uint32).reshape((1,) * (words.ndim - 1) + (32,))
    return jnp.sum(words << shifts, axis=-1, dtype=jnp.uint32)


def count_bits(words: jax.Array) -> jax.Array:
    """Returns int32[...]: the bits set in uint32[..., W]."""
    return jnp.sum(jax.lax.population_count(words).astype(jnp.int32), axis=-1)


@partial(jax.jit, static_argnames="samples")
def subset_stats(stops: jax.Array, correct: jax.Array, available: jax.Array, *, samples: int) -> SubsetStats:
    """Judges all exit subsets of one backbone.

    Args:
      stops: uint32[E, W], bit sets of the samples that would stop at each exit (see `pack_bits`).
      correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
      available: bool[E], exits that the backbone has.
      samples: N, static.
    """
    exits, words = stops.shape
    # Subsets of the first e exits are doubled exit by exit: those without exit e, then those with it.
    stopped = jnp.zeros((1, words), jnp.uint32)
    right = jnp.zeros((1,), jnp.int32)
    for e in range(exits):
        newly = stops[e][None] & ~stopped
        right = jnp.concatenate([right, right + count_bits(newly & correct[e][None])])
        stopped = jnp.concatenate([stopped, stopped | stops[e][None]])
    right = right + count_bits(correct[-1][None] & ~stopped)
    going_on = (samples - count_bits(stopped)).astype(jnp.float32) / samples

    subsets = exit_subsets(exits)
    lower = np.arange(2**exits)[:, None] & (2 ** np.arange(exits + 1) - 1)[None]
    trunk = going_on[lower]
    heads = trunk[:, :-1] * jnp.asarray(subsets, jnp.float32)
    possible = jnp.all(available[None] | ~subsets, axis=1)
    error = (samples - right).astype(jnp.float32) / samples
    return SubsetStats(error=jnp.where(possible, error, jnp.inf), weights=jnp.concatenate([trunk, heads], axis=1))


def segment_costs(space: MBConvSpace, backbone: Backbone, device: Device) -> Cost:
    """Returns the cost of each segment at each operating point of the device, float32[D, F].

    The constant cost of a run is counted with the first segment, which always runs.

    Args:
      space: static.
      backbone: one design of the space.
      device: the cost model; its operating points are those of `hw_models.operating_points`.
    """
    grid = hw_models.clock_grid(workload(space, backbone), device)
    owner = jnp.asarray(segments(space))
    by_segment = jax.tree.map(lambda leaf: jax.ops.segment_sum(leaf, owner, 2 * space.num_exits + 1), grid)
    costs = jax.vmap(hw_models.cost_everywhere, in_axes=(0, None))(by_segment, device)
    points = hw_models.operating_points(device)
    return Cost(
        latency_s=costs.latency_s.at[0].add(hw_models.run_latency(device, points)),
        energy_j=costs.energy_j.at[0].add(hw_models.run_energy(device, points)),
    )


def dissimilarity(correct: jax.Array) -> jax.Array:
    """Returns float32[E, E]: 1 - cosine similarity of what each two exits get right (HADAS, arXiv 2212.03354).

    Exits that classify the same samples are 0 apart and waste each other's place; exits that share none are 1
    apart, and so is an exit that gets nothing right.

    Args:
      correct: bool[E, N].
    """
    hits = correct.astype(jnp.float32)
    norm = jnp.sqrt(jnp.sum(hits, axis=1))
    product = norm[:, None] * norm[None, :]
    return 1.0 - jnp.where(product > 0, (hits @ hits.T) / jnp.where(product > 0, product, 1.0), 0.0)


@jax.jit
def mean_dissimilarity(correct: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns float32[]: `dissimilarity` averaged over pairs of the exits `chosen` (bool[E]); 1 below two."""
    pair = chosen[:, None] & chosen[None, :] & ~jnp.eye(len(chosen), dtype=bool)
    count = jnp.sum(pair)
    mean = jnp.sum(jnp.where(pair, dissimilarity(correct), 0.0)) / jnp.maximum(count, 1).astype(jnp.float32)
    return jnp.where(count > 0, mean, 1.0)
