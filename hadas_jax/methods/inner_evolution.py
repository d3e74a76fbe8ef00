"""The inner engine by evolution: exits, their risk levels and clocks bred by NSGA-II, for any number of exits.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. There the inner engine evolves exit placement
and clocks together; Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017.
Shapes: G genes of a backbone, R risk levels, E exits, W words of a bit set, F operating points, P population, Q
candidates evaluated in all, N capacity of a front. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hadas_jax.evaluation.dynamic import count_bits, packed_dissimilarity
from hadas_jax.methods.limits import relative_excess
from hadas_jax.methods.versions import (
    ERROR_LEVELS,
    LATENCY_BINS,
    DynamicFront,
    Inner,
    error_levels,
    exit_gains,
    exit_shares,
    latency_edges,
)
from hadas_jax.search import NSGA2, State, sample
from hadas_jax.search.enumerate import guided_bins
from hadas_jax.search.front import listed_front
from hadas_jax.spaces import MBConvSpace, available_exits
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
      key: typed PRNG key.
      space: static.
      genome: int32[G].
      correct: uint32[E + 1, W], as for `search_exact`.
      costs: of `segment_costs`, float32[2 E + 1, F].
      device: whose clocks are bred.
      samples: validation samples, static.
      limits: float32[3], as for `search_exact`.
      gamma: float32[], as for `search_exact`.
      reference: float32[3], as for `search_exact`.
      population: candidates of a generation, static.
      generations: the first, drawn one included, static.
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
      key: typed PRNG key.
      stops: uint32[R, E, W], bit sets of the samples that would stop at each exit under each risk level.
      correct: uint32[E + 1, W], as for `search_exact`.
      available: bool[E], exits that the backbone has; genes of the others count as 0.
      costs: float32[2 E + 1, F], of the segments.
      device: whose clocks the operating points combine.
      samples: as for `search_exact`.
      limits: as for `search_exact`.
      gamma: as for `search_exact`.
      population: as for `search_evolved`.
      generations: as for `search_evolved`.

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
      seen: from `evolve`.
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
