"""The inner engine of HADAS for one backbone: which exits, at which clocks.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. The exact search goes through all exit subsets at
all operating points and suits backbones with up to `MAX_EXACT_EXITS` exits; the evolutionary search
(`hadas_jax.methods.inner_evolution`) suits any. Both judge by the ideal mapping: a sample stops at the first exit that
is right. Everything is traced: batch over backbones with `jax.vmap`, or with `jax.lax.map` where each should take its
own time.
Shapes: G genes, E exits of the space, K slots for those of a backbone, W words of a bit set, S plans (exit subsets),
D segments, F operating points, N capacity of a front. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation.dynamic import (
    OwnExits,
    SubsetStats,
    own_costs,
    own_exits,
    own_outcomes,
    packed_dissimilarity,
    subset_stats,
    useful_points,
)
from hadas_jax.methods.inner_evolution import evolve, evolved_front, search_evolved
from hadas_jax.methods.limits import relative_excess
from hadas_jax.methods.versions import (
    ERROR_LEVELS,
    LATENCY_BINS,
    LATENCY_SPAN,
    DynamicFront,
    Inner,
    error_levels,
    exit_gains,
    exit_shares,
    front_cells,
    latency_edges,
    table_hypervolume,
)
from hadas_jax.search import product_front
from hadas_jax.search.enumerate import Chunk, fill_cells, stream
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_jax.spaces.exits import MAX_EXITS
from hw_models import Cost

__all__ = [
    "ERROR_LEVELS",
    "LATENCY_BINS",
    "LATENCY_SPAN",
    "MAX_EXACT_EXITS",
    "DynamicFront",
    "Inner",
    "Product",
    "error_levels",
    "evolve",
    "evolved_front",
    "exact_front",
    "exit_count",
    "front_cells",
    "latency_edges",
    "plan_shares",
    "product_of",
    "search_evolved",
    "search_exact",
    "table_hypervolume",
]

MAX_EXACT_EXITS = MAX_EXITS  # 2^16 subsets at 3,654 operating points take a fifth of a second on two CPU cores


class Product(NamedTuple):
    """All versions of one backbone, its exits moved to slots.

    Attributes:
      own: which exits the slots hold.
      correct: uint32[K + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
      stats: of all subsets of the slots.
      costs: float32[2 K + 1, F], of the segments.
      plans: int32[], only the first so many subsets are of exits that the backbone has.
      points: int32[F], operating points that some plan may need, and -1 behind them.
    """

    own: OwnExits
    correct: jax.Array
    stats: SubsetStats
    costs: Cost
    plans: jax.Array
    points: jax.Array


def exit_count(space: MBConvSpace, genome: np.ndarray) -> int:
    """Returns how many exits the backbone of a concrete genome int32[G] has."""
    codec = space.codec
    genes = dict(zip(codec.names, zip(codec.choices, np.asarray(genome).tolist(), strict=True), strict=True))
    blocks = 0
    for s, stage in enumerate(space.stages, start=1):
        options, gene = genes.get(f"depth.mb{s}", (stage.depth, 0))
        blocks += options[gene]
    return max(blocks - space.first_exit, 0)


@partial(jax.jit, static_argnames=("space", "samples"))
def search_exact(
    space: MBConvSpace,
    genome: jax.Array,
    correct: jax.Array,
    costs: Cost,
    *,
    samples: int,
    limits: jax.Array,
    gamma: jax.Array | float,
    reference: jax.Array,
) -> Inner:
    """Judges all exit subsets of a backbone at all operating points.

    Args:
      space: static.
      genome: int32[G]; of exits beyond `MAX_EXITS` the last ones are left out.
      correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
      costs: of `segment_costs`, float32[2 E + 1, F].
      samples: validation samples, static.
      limits: float32[3] on error, latency_s, energy_j; +inf for none. Versions beyond one are not in the table.
      gamma: float32[], weight of the dissimilarity in the score.
      reference: float32[3]; its latency is the table's longest.
    """
    product = product_of(space, genome, correct, costs, samples=samples)
    shares = plan_shares(product, gamma)
    gains = exit_gains(product.costs)
    edges = latency_edges(reference[1])

    def step(found: Inner, chunk: Chunk) -> Inner:
        objectives = (chunk.error[:, None], chunk.latency, chunk.energy)
        excess = jnp.where(jnp.isfinite(chunk.energy), relative_excess(objectives, limits), jnp.inf)
        within = excess <= 0
        kept = chunk._replace(
            latency=jnp.where(within, chunk.latency, jnp.inf), energy=jnp.where(within, chunk.energy, jnp.inf)
        )
        scores = jnp.where(within, shares[chunk.plan] @ gains[:, chunk.point], 0.0)
        return dataclasses.replace(
            found,
            table=fill_cells(found.table, kept, error_levels=error_levels(), latency_edges=edges),
            shortfall=jnp.minimum(found.shortfall, jnp.min(excess)),
            score=jnp.maximum(found.score, jnp.max(scores)),
        )

    start = Inner(
        table=jnp.full((ERROR_LEVELS + 1, LATENCY_BINS + 1), jnp.inf, jnp.float32),
        shortfall=jnp.float32(jnp.inf),
        score=jnp.float32(0),
        evaluations=product.plans * product.costs.latency_s.shape[1],
    )
    found = _over(product, step, start)
    return dataclasses.replace(found, table=found.table[:-1, :-1], shortfall=jnp.maximum(found.shortfall, 0.0))


@partial(jax.jit, static_argnames=("space", "samples", "capacity"))
def exact_front(
    space: MBConvSpace, genome: jax.Array, correct: jax.Array, costs: Cost, *, samples: int, capacity: int = 8192
) -> DynamicFront:
    """Finds the exact front of all dynamic versions of a backbone.

    Args:
      space: static.
      genome: int32[G], of a backbone with at most `MAX_EXITS` exits.
      correct: uint32[E + 1, W], as for `search_exact`.
      costs: of `segment_costs`, float32[2 E + 1, F].
      samples: validation samples, static.
      capacity: N, static; see `hadas_jax.search.ProductFront`.
    """
    product = product_of(space, genome, correct, costs, samples=samples)
    front = product_front(
        product.stats.error,
        product.stats.weights,
        latency=product.costs.latency_s,
        energy=product.costs.energy_j,
        capacity=capacity,
        plans=product.plans,
        points=product.points,
    )
    slots = jnp.arange(len(product.own.used), dtype=jnp.int32)
    members = (jnp.maximum(front.plan, 0)[:, None] >> slots[None]) & 1
    exits = jnp.zeros((capacity, space.num_exits), jnp.int32).at[:, product.own.position].set(members, mode="drop")
    return DynamicFront(exits, front.point, front.objectives, front.valid, front.size)


def product_of(space: MBConvSpace, genome: jax.Array, correct: jax.Array, costs: Cost, *, samples: int) -> Product:
    """Returns all versions of a backbone; arguments as of `search_exact`."""
    available = available_exits(space, space.decode(genome))
    own = own_exits(available, slots=min(space.num_exits, MAX_EXITS))
    stops = own_outcomes(correct[:-1], own)
    moved = jnp.concatenate([stops, correct[-1:]])
    costs = own_costs(costs, available, own)
    plans = jnp.left_shift(jnp.int32(1), jnp.minimum(own.count, len(own.used)))
    return Product(
        own=own,
        correct=moved,
        stats=subset_stats(stops, moved, own.used, samples=samples, plans=plans),
        costs=costs,
        plans=plans,
        points=useful_points(costs),
    )


def _over(product: Product, step: Callable[[Inner, Chunk], Inner], start: Inner) -> Inner:
    return stream(
        step,
        start,
        errors=product.stats.error,
        weights=product.stats.weights,
        latency=product.costs.latency_s,
        energy=product.costs.energy_j,
        plans=product.plans,
        points=product.points,
    )


def plan_shares(product: Product, gamma: jax.Array | float) -> jax.Array:
    """The factors of the score that follow the subset alone, float32[S, K]; see `exit_shares`."""
    slots = len(product.own.used)
    going_on = product.stats.weights[:, : slots + 1]
    members = (jnp.arange(len(going_on), dtype=jnp.int32)[:, None] >> jnp.arange(slots, dtype=jnp.int32)[None]) & 1
    apart = packed_dissimilarity(product.correct[:-1])
    return exit_shares(members == 1, going_on[:, :-1] - going_on[:, 1:], apart, gamma=gamma)
