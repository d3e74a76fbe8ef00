"""The inner engine of HADAS for one backbone: which exits, at which clocks.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. The exact search goes through all exit subsets at
all operating points and suits backbones with up to `MAX_EXACT_EXITS` exits; the evolutionary search
(`hadas_jax.methods.hadas.inner`) suits any. Both judge by the ideal mapping: a sample stops at the first exit that
is right. Everything is traced: batch over backbones with `jax.vmap`, or with `jax.lax.map` where each should take its
own time.
Shapes: G genes, E exits of the space, K slots for those of a backbone, W words of a bit set, S plans (exit subsets),
D segments, F operating points, N capacity of a front. Costs are of one sample, in seconds and joules.

The inner engine by evolution: exits, their risk levels and clocks bred by NSGA-II, for any number of exits.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. There the inner engine evolves exit placement
and clocks together; Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017.
Shapes: G genes of a backbone, R risk levels, E exits, W words of a bit set, F operating points, P population, Q
candidates evaluated in all, N capacity of a front. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation.early_exit import (
    ActiveExits,
    SubsetStats,
    active_costs,
    active_exits,
    active_outcomes,
    count_bits,
    packed_dissimilarity,
    subset_stats,
    useful_points,
)
from hadas_jax.methods.hadas.constraints import relative_excess
from hadas_jax.methods.hadas.score import (
    ERROR_LEVELS,
    LATENCY_BINS,
    DynamicFront,
    Inner,
    error_levels,
    exit_gains,
    exit_shares,
    latency_edges,
)
from hadas_jax.search import NSGA2, State, product_front, sample
from hadas_jax.search.product import Chunk, fill_cells, guided_bins, stream
from hadas_jax.search.product_front import listed_front
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_jax.spaces.mbconv import MAX_EXITS
from hw_models import Cost, Device


class Seen(NamedTuple):
    """Candidates of an evolution in the order of their evaluation.

    Attributes:
        levels: int32[Q, E], 0 for no exit, else its risk level from 1 on.
        point: int32[Q], operating point.
        objectives: float32[Q, 3]: error, latency_s, energy_j.
        score: float32[Q], the dynamic score.
    """

    levels: jax.Array
    point: jax.Array
    objectives: jax.Array
    score: jax.Array


@partial(jax.jit, static_argnames=("space", "samples", "population", "generations"))
def search_evolved(
    key: jax.Array,
    space: MBConvSpace,
    genome: jax.Array,
    correct: jax.Array,
    costs: Cost,
    device: Device,
    *,
    samples: int,
    limits: jax.Array,
    gamma: jax.Array | float,
    reference: jax.Array,
    population: int,
    generations: int,
) -> Inner:
    """Evolves the exits of a backbone and the clocks by NSGA-II, for backbones of any number of exits.

    Args:
        key: Typed PRNG key.
        space: Static.
        genome: int32[G].
        correct: uint32[E + 1, W], as for `search_exact`.
        costs: Of `segment_costs`, float32[2 E + 1, F].
        device: Whose clocks are bred.
        samples: Validation samples, static.
        limits: float32[3], as for `search_exact`.
        gamma: float32[], as for `search_exact`.
        reference: float32[3], as for `search_exact`.
        population: Candidates of a generation, static.
        generations: The first, drawn one included, static.
    """
    seen = evolve(
        key,
        correct[None, :-1],
        correct,
        available_exits(space, space.decode(genome)),
        costs,
        device,
        samples=samples,
        limits=limits,
        gamma=gamma,
        population=population,
        generations=generations,
    )
    error, latency, energy = seen.objectives.T
    excess = relative_excess((error, latency, energy), limits)
    within = excess <= 0
    level = jnp.searchsorted(error_levels(), error, method="scan_unrolled")
    bins = guided_bins(latency_edges(reference[1]), latency)
    table = jnp.full((ERROR_LEVELS + 1, LATENCY_BINS + 1), jnp.inf, jnp.float32)
    table = table.at[level, bins].min(jnp.where(within, energy, jnp.inf))
    return Inner(
        table=table[:-1, :-1],
        shortfall=jnp.maximum(jnp.min(excess), 0.0),
        score=jnp.max(jnp.where(within, seen.score, 0.0)),
        evaluations=jnp.int32(population * generations),
    )


@partial(jax.jit, static_argnames=("samples", "population", "generations"))
def evolve(
    key: jax.Array,
    stops: jax.Array,
    correct: jax.Array,
    available: jax.Array,
    costs: Cost,
    device: Device,
    *,
    samples: int,
    limits: jax.Array,
    gamma: jax.Array | float,
    population: int,
    generations: int,
) -> Seen:
    """Evolves one gene per exit, and one per clock, for low error, latency and energy and a high score.

    Args:
        key: Typed PRNG key.
        stops: uint32[R, E, W], bit sets of the samples that would stop at each exit under each risk level.
        correct: uint32[E + 1, W], as for `search_exact`.
        available: bool[E], exits that the backbone has; genes of the others count as 0.
        costs: float32[2 E + 1, F], of the segments.
        device: Whose clocks the operating points combine.
        samples: As for `search_exact`.
        limits: As for `search_exact`.
        gamma: As for `search_exact`.
        population: As for `search_evolved`.
        generations: As for `search_evolved`.

    Returns:
        All candidates, Q = population * generations.
    """
    R, E, _ = stops.shape
    clocks = tuple(len(table) for table in (device.core_hz, device.memory_hz, device.host_hz))
    strategy = NSGA2(population, (*[R + 1] * E, *clocks))
    genes = jnp.sum(available, dtype=jnp.float32) + len(clocks)
    params = dataclasses.replace(strategy.default_params, mutation_probability=1.0 / genes)
    judge = partial(
        _judge,
        stops=stops,
        correct=correct,
        by_point=(costs.latency_s.T, costs.energy_j.T, exit_gains(costs).T),
        samples=samples,
        gamma=gamma,
    )

    def repair(genomes: jax.Array) -> jax.Array:
        return genomes.at[:, :E].multiply(available[None].astype(jnp.int32))

    def evaluate(genomes: jax.Array) -> tuple[Seen, jax.Array, jax.Array]:
        core, memory, host = genomes[:, E:].T
        seen = judge(genomes[:, :E], (core * clocks[1] + memory) * clocks[2] + host)
        error, latency, energy = seen.objectives.T
        violation = jnp.maximum(relative_excess((error, latency, energy), limits), 0.0)
        return seen, jnp.concatenate([seen.objectives, -seen.score[:, None]], axis=1), violation

    def generation(state: State, key: jax.Array) -> tuple[State, Seen]:
        ask_key, tell_key = jax.random.split(key)
        genomes, state = strategy.ask(ask_key, state, params)
        genomes = repair(genomes)
        seen, fitness, violation = evaluate(genomes)
        state, _ = strategy.tell(tell_key, genomes, fitness, state, params, violation=violation)
        return state, seen

    draw_key, init_key, run_key = jax.random.split(key, 3)
    genomes = repair(_first_population(draw_key, strategy, exits=E))
    seen, fitness, violation = evaluate(genomes)
    state = strategy.init(init_key, genomes, fitness, params, violation=violation)
    _, later = jax.lax.scan(generation, state, jax.random.split(run_key, generations - 1))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1, *b.shape[2:])]), seen, later)


def _first_population(key: jax.Array, strategy: NSGA2, *, exits: int) -> jax.Array:
    """Random clocks and levels, the share of exits rising from none in the first member to all in the last."""
    draw_key, density_key = jax.random.split(key)
    size = strategy.population_size
    genomes = sample(draw_key, jnp.asarray(strategy.cardinalities), size=size)
    chosen = jax.random.uniform(density_key, (size, exits)) < jnp.linspace(0.0, 1.0, size)[:, None]
    return genomes.at[:, :exits].set(jnp.where(chosen, jnp.maximum(genomes[:, :exits], 1), 0))


def _judge(
    levels: jax.Array,
    point: jax.Array,
    *,
    stops: jax.Array,
    correct: jax.Array,
    by_point: tuple[jax.Array, jax.Array, jax.Array],
    samples: int,
    gamma: jax.Array | float,
) -> Seen:
    """Judges candidates: levels int32[P, E], operating points int32[P]; costs and gains float32[F, ...]."""
    latency, energy, gains = by_point
    E = levels.shape[1]
    error, weights = jax.vmap(partial(_outcome, stops=stops, correct=correct, samples=samples))(levels)
    costs = [jnp.sum(weights * cost[point], axis=1) for cost in (latency, energy)]
    apart = packed_dissimilarity(correct[:-1])
    shares = exit_shares(levels > 0, weights[:, :E] - weights[:, 1 : E + 1], apart, gamma=gamma)
    score = jnp.sum(shares * gains[point], axis=1)
    return Seen(levels, point, jnp.stack([error, *costs], axis=1), score)


def _outcome(levels: jax.Array, *, stops: jax.Array, correct: jax.Array, samples: int) -> tuple[jax.Array, jax.Array]:
    """Error, and how often each segment runs, of exits at given levels: int32[E] -> float32[], float32[2 E + 1]."""
    chosen = levels > 0
    exits = jnp.arange(len(levels))
    stop = jnp.where(chosen[:, None], stops[jnp.maximum(levels - 1, 0), exits], jnp.uint32(0))
    stopped = jax.lax.associative_scan(jnp.bitwise_or, stop)
    before = jnp.concatenate([jnp.zeros_like(stop[:1]), stopped])
    right = jnp.sum(count_bits(stop & ~before[:-1] & correct[:-1])) + count_bits(correct[-1] & ~before[-1])
    going_on = (samples - count_bits(before)).astype(jnp.float32) / samples
    weights = jnp.concatenate([going_on, going_on[:-1] * chosen.astype(jnp.float32)])
    return (samples - right).astype(jnp.float32) / samples, weights


@partial(jax.jit, static_argnames="capacity")
def evolved_front(seen: Seen, *, capacity: int) -> DynamicFront:
    """Returns the front of all candidates of an evolution, within its limits or not.

    Args:
        seen: From `evolve`.
        capacity: N, static, at most Q.
    """
    rows, size = listed_front(seen.objectives, capacity=capacity)
    valid, row = rows >= 0, jnp.maximum(rows, 0)
    return DynamicFront(
        exits=jnp.where(valid[:, None], seen.levels[row], 0),
        point=jnp.where(valid, seen.point[row], -1),
        objectives=jnp.where(valid[:, None], seen.objectives[row], jnp.inf),
        valid=valid,
        size=size,
    )


MAX_EXACT_EXITS = MAX_EXITS  # 2^16 subsets at 3,654 operating points take a fifth of a second on two CPU cores


class Product(NamedTuple):
    """All versions of one backbone, its exits moved to slots.

    Attributes:
        own: Which exits the slots hold.
        correct: uint32[K + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
        stats: Of all subsets of the slots.
        costs: float32[2 K + 1, F], of the segments.
        plans: int32[], only the first so many subsets are of exits that the backbone has.
        points: int32[F], operating points that some plan may need, and -1 behind them.
    """

    own: ActiveExits
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
        space: Static.
        genome: int32[G]; of exits beyond `MAX_EXITS` the last ones are left out.
        correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
        costs: Of `segment_costs`, float32[2 E + 1, F].
        samples: Validation samples, static.
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
        space: Static.
        genome: int32[G], of a backbone with at most `MAX_EXITS` exits.
        correct: uint32[E + 1, W], as for `search_exact`.
        costs: Of `segment_costs`, float32[2 E + 1, F].
        samples: Validation samples, static.
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
    own = active_exits(available, slots=min(space.num_exits, MAX_EXITS))
    stops = active_outcomes(correct[:-1], own)
    moved = jnp.concatenate([stops, correct[-1:]])
    costs = active_costs(costs, available, own)
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
