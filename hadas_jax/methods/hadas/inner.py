"""The inner engine of HADAS for one backbone: which exits, at which clocks, and what they are worth.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. There the inner engine evolves exit placement and clocks together; so does
`search_evolved`, by NSGA-II (Deb et al. 2002, https://doi.org/10.1109/4235.996017), for any number of exits. Backbones
with up to `MAX_EXITS` exits are searched exactly by `search_exact`, through all exit subsets at all operating points.
Both evaluate by the ideal mapping: a sample stops at the first exit that is right. Everything is traced: batch over
backbones with `jax.vmap`, or with `jax.lax.map` where each should take its own time.
A dynamic candidate of a backbone b is a subset x of its exits and an operating point f.
Shapes: G genes, R risk levels, E exits of the space, K slots for those of a backbone, W words of a bit set, F operating
points, P population, Q candidates evaluated in all, S exit subsets, L error levels, B latency bins. Costs are of one
sample, in seconds and joules.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.evaluation import dissimilarity
from hadas_jax.evaluation.early_exit import percentile_paths, subset_members
from hadas_jax.methods.hadas.constraints import ConfigLimits, relative_excess
from hadas_jax.methods.hadas.exit_configs import DynamicBackbone, Stops
from hadas_jax.search import NSGA2, Product, State, sample
from hadas_jax.search.product import Chunk, fill_cells, grid_hypervolume, guided_bins, stream
from hadas_jax.spaces import AnySpace, GivenNetwork, MBConvSpace, available_exits
from hadas_jax.spaces.footprint import Footprint, footprint
from hw_models import Cost, Device

ERROR_LEVELS = np.arange(512, dtype=np.float32) / 512  # the upper ends of the levels of tables
LATENCY_BINS = 256  # of tables, each 2.7 % longer than the one before
LATENCY_SPAN = 1000.0  # from the shortest bin's end to the reference


@struct.dataclass
class InnerResult:
    """What the dynamic candidates of a backbone reach.

    Attributes:
        table: float32[L, B], least energy of the candidates within the constraints, by error and latency; +inf for
            empty cells, and possibly for cells that hold dominated candidates only.
        violation: float32[], 0 if a candidate keeps all constraints, else by how much the nearest breaks them.
        score: float32[], the best dynamic score D(x, f | b) within the constraints, 0 where nothing is.
        evaluations: int32[], candidates evaluated; in an exact search those that exist.
    """

    table: jax.Array
    violation: jax.Array
    score: jax.Array
    evaluations: jax.Array


class Evaluated(NamedTuple):
    """Candidates of an evolution in the order of their evaluation.

    Attributes:
        exits: int32[Q, E], 0 for no exit, else its risk level from 1 on.
        point: int32[Q], operating point.
        objectives: float32[Q, 3]: error, latency_s, energy_j.
        score: float32[Q], the dynamic score.
        excess: float32[Q], over the limits, see `relative_excess`; at most 0 where they are kept.
    """

    exits: jax.Array
    point: jax.Array
    objectives: jax.Array
    score: jax.Array
    excess: jax.Array


def exit_count(space: AnySpace, genome: np.ndarray) -> int:
    """Returns how many exits the backbone of a concrete genome int32[G] has."""
    if isinstance(space, GivenNetwork):
        return space.num_exits
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
    config_limits: ConfigLimits | None = None,
    gamma: jax.Array | float,
    reference: jax.Array,
) -> InnerResult:
    """Evaluates all exit subsets of a backbone at all operating points.

    Args:
        space: Static.
        genome: int32[G]; of exits beyond `MAX_EXITS` the last ones are left out.
        correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
        costs: Of `segment_costs`, float32[2 E + 1, F].
        samples: Validation samples, static.
        limits: float32[3] on error, latency_s, energy_j; +inf for none. Candidates that break one are not in the table.
        config_limits: Likewise on exit configurations; None for none.
        gamma: float32[], weight of the dissimilarity in the score.
        reference: float32[3]; its latency is the table's longest.
    """
    design = space.decode(genome)
    backbone = DynamicBackbone.of(available_exits(space, design), costs, footprint=footprint(space, design))
    stats, configs = backbone.evaluate_subsets(Stops.ideal(correct, samples=samples)), backbone.subsets
    members = subset_members(jnp.arange(len(stats.error), dtype=jnp.int32), len(backbone.position))
    shares = exit_shares(members, stats.frequencies, backbone.to_slots(correct[:-1]), gamma=gamma)
    gains = exit_gains(backbone.active_costs)
    latency, energy = backbone.active_costs.latency_s, backbone.active_costs.energy_j
    paths = percentile_paths(stats.frequencies, 99, samples=samples)
    edges = _latency_edges(reference[1])

    def step(best: InnerResult, chunk: Chunk) -> InnerResult:
        objectives = (chunk.error[:, None], chunk.latency, chunk.energy)
        excess = jnp.where(jnp.isfinite(chunk.energy), relative_excess(objectives, limits), jnp.inf)
        if config_limits is not None:
            path = paths[chunk.config].astype(jnp.float32)
            p99 = jnp.matmul(path, latency[:, chunk.point], precision=jax.lax.Precision.HIGHEST)
            sizes = config_limits.size_excess(backbone.slot_footprint, members[chunk.config])
            excess = jnp.maximum(jnp.maximum(excess, config_limits.excess(p99)), sizes[:, None])
        within = excess <= 0
        kept = chunk._replace(
            latency=jnp.where(within, chunk.latency, jnp.inf), energy=jnp.where(within, chunk.energy, jnp.inf)
        )
        scores = jnp.where(within, shares[chunk.config] @ gains[:, chunk.point], 0.0)
        return dataclasses.replace(
            best,
            table=fill_cells(best.table, kept, error_levels=jnp.asarray(ERROR_LEVELS), latency_edges=edges),
            violation=jnp.minimum(best.violation, jnp.min(excess)),
            score=jnp.maximum(best.score, jnp.max(scores)),
        )

    start = InnerResult(
        table=jnp.full((len(ERROR_LEVELS) + 1, LATENCY_BINS + 1), jnp.inf, jnp.float32),
        violation=jnp.float32(jnp.inf),
        score=jnp.float32(0),
        evaluations=configs * costs.latency_s.shape[1],
    )
    product = Product(stats.error, stats.frequencies, latency, energy, configs=configs, points=backbone.points)
    best = stream(step, start, product)
    return dataclasses.replace(best, table=best.table[:-1, :-1], violation=jnp.maximum(best.violation, 0.0))


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
    config_limits: ConfigLimits | None = None,
    gamma: jax.Array | float,
    reference: jax.Array,
    population: int,
    generations: int,
) -> InnerResult:
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
        config_limits: As for `search_exact`.
        gamma: float32[], as for `search_exact`.
        reference: float32[3], as for `search_exact`.
        population: Candidates of a generation, static.
        generations: The first, drawn one included, static.
    """
    design = space.decode(genome)
    candidates = evolve(
        key,
        Stops.ideal(correct, samples=samples),
        available_exits(space, design),
        costs,
        device,
        limits=limits,
        config_limits=config_limits and (config_limits, footprint(space, design)),
        gamma=gamma,
        population=population,
        generations=generations,
    )
    within = candidates.excess <= 0
    return InnerResult(
        table=listed_table(candidates.objectives, within, longest=reference[1]),
        violation=jnp.maximum(jnp.min(candidates.excess), 0.0),
        score=jnp.max(jnp.where(within, candidates.score, 0.0)),
        evaluations=jnp.int32(population * generations),
    )


def listed_table(objectives: jax.Array, within: jax.Array, *, longest: jax.Array) -> jax.Array:
    """Returns the table float32[L, B] of candidates that were evaluated one by one.

    Args:
        objectives: float32[Q, 3]: error, latency_s, energy_j.
        within: bool[Q], the candidates that keep all constraints.
        longest: float32[], the latency at the end of the last bin.
    """
    error, latency, energy = objectives.T
    level = jnp.searchsorted(jnp.asarray(ERROR_LEVELS), error, method="scan_unrolled")
    bins = guided_bins(_latency_edges(longest), latency)
    table = jnp.full((len(ERROR_LEVELS) + 1, LATENCY_BINS + 1), jnp.inf, jnp.float32)
    return table.at[level, bins].min(jnp.where(within, energy, jnp.inf))[:-1, :-1]


@partial(jax.jit, static_argnames=("population", "generations"))
def evolve(
    key: jax.Array,
    stops: Stops,
    available: jax.Array,
    costs: Cost,
    device: Device,
    *,
    limits: jax.Array,
    config_limits: tuple[ConfigLimits, Footprint] | None = None,
    gamma: jax.Array | float,
    population: int,
    generations: int,
) -> Evaluated:
    """Evolves one gene per exit, and one per clock, for low error, latency and energy and a high score.

    Args:
        key: Typed PRNG key.
        stops: Who would stop at each exit under each of R risk levels.
        available: bool[E], exits that the backbone has; genes of the others count as 0.
        costs: float32[2 E + 1, F], of the segments.
        device: Whose clocks the operating points combine.
        limits: As for `search_exact`.
        config_limits: As for `search_exact`, and what backbone and exits take; None for none.
        gamma: As for `search_exact`.
        population: As for `search_evolved`.
        generations: As for `search_evolved`.

    Returns:
        All candidates, Q = population * generations.
    """
    R, E, _ = stops.stops.shape
    clocks = tuple(len(table) for table in (device.core_hz, device.memory_hz, device.host_hz))
    strategy = NSGA2(population, (*[R + 1] * E, *clocks))
    genes = jnp.sum(available, dtype=jnp.float32) + len(clocks)
    params = dataclasses.replace(strategy.default_params, mutation_probability=1.0 / genes)
    latency_s, energy_j, gains = costs.latency_s.T, costs.energy_j.T, exit_gains(costs).T

    def repair(genomes: jax.Array) -> jax.Array:
        return genomes.at[:, :E].multiply(available[None].astype(jnp.int32))

    def evaluate(genomes: jax.Array) -> tuple[Evaluated, jax.Array, jax.Array]:
        exits, (core, memory, host) = genomes[:, :E], genomes[:, E:].T
        point = (core * clocks[1] + memory) * clocks[2] + host
        stats = stops.evaluate(exits)
        error, frequencies = stats.error, stats.frequencies
        latency, energy = (jnp.sum(frequencies * cost[point], axis=1) for cost in (latency_s, energy_j))
        shares = exit_shares(exits > 0, frequencies, stops.correct[:-1], gamma=gamma)
        score = jnp.sum(shares * gains[point], axis=1)
        excess = relative_excess((error, latency, energy), limits)
        if config_limits is not None:
            beside, size = config_limits
            paths = percentile_paths(frequencies, 99, samples=stops.samples).astype(jnp.float32)
            excess = jnp.maximum(excess, beside.excess(jnp.sum(paths * latency_s[point], axis=1)))
            excess = jnp.maximum(excess, beside.size_excess(size, exits > 0))
        objectives = jnp.stack([error, latency, energy], axis=1)
        fitness = jnp.concatenate([objectives, -score[:, None]], axis=1)
        return Evaluated(exits, point, objectives, score, excess), fitness, jnp.maximum(excess, 0.0)

    def generation(state: State, key: jax.Array) -> tuple[State, Evaluated]:
        ask_key, tell_key = jax.random.split(key)
        genomes, state = strategy.ask(ask_key, state, params)
        genomes = repair(genomes)
        evaluated, fitness, violation = evaluate(genomes)
        state, _ = strategy.tell(tell_key, genomes, fitness, state, params, violation=violation)
        return state, evaluated

    draw_key, init_key, run_key = jax.random.split(key, 3)
    genomes = repair(_first_population(draw_key, strategy, exits=E))
    first, fitness, violation = evaluate(genomes)
    state = strategy.init(init_key, genomes, fitness, params, violation=violation)
    _, later = jax.lax.scan(generation, state, jax.random.split(run_key, generations - 1))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b.reshape(-1, *b.shape[2:])]), first, later)


def _first_population(key: jax.Array, strategy: NSGA2, *, exits: int) -> jax.Array:
    """Random clocks and levels, the share of exits rising from none in the first member to all in the last."""
    draw_key, density_key = jax.random.split(key)
    size = strategy.population_size
    genomes = sample(draw_key, jnp.asarray(strategy.cardinalities), size=size)
    chosen = jax.random.uniform(density_key, (size, exits)) < jnp.linspace(0.0, 1.0, size)[:, None]
    return genomes.at[:, :exits].set(jnp.where(chosen, jnp.maximum(genomes[:, :exits], 1), 0))


def _latency_edges(longest: jax.Array) -> jax.Array:
    """Returns float32[B]: upper ends of the table's latency bins, the last at `longest` (float32[])."""
    steps = jnp.arange(1 - LATENCY_BINS, 1, dtype=jnp.float32) / LATENCY_BINS
    return longest * LATENCY_SPAN**steps


@jax.jit
def table_hypervolume(table: jax.Array, *, reference: jax.Array, limits: jax.Array) -> jax.Array:
    """Returns float32[]: the share of the box within reference and limits that a table dominates, a lower bound.

    Args:
        table: float32[L, B], made with this reference.
        reference: float32[3].
        limits: float32[3], +inf for none.
    """
    corner = jnp.minimum(reference, limits)
    volume = grid_hypervolume(
        table, error_levels=jnp.asarray(ERROR_LEVELS), latency_edges=_latency_edges(reference[1]), reference=corner
    )
    return volume / jnp.maximum(jnp.prod(corner), jnp.finfo(jnp.float32).tiny)


@jax.jit
def front_cells(table: jax.Array) -> jax.Array:
    """Returns int32[]: cells of a table that no other cell dominates."""
    least = jax.lax.cummin(jax.lax.cummin(table, axis=0), axis=1)
    above = jnp.pad(least, ((1, 0), (1, 0)), constant_values=jnp.inf)
    return jnp.sum(table < jnp.minimum(above[:-1, 1:], above[1:, :-1]), dtype=jnp.int32)


def exit_shares(
    chosen: jax.Array, frequencies: jax.Array, correct: jax.Array, *, gamma: jax.Array | float
) -> jax.Array:
    """What each exit of a subset adds to the score by its outcomes: N_i dissim_i^gamma / number of exits.

    The score is D(x, f | b) = mean over the exits i of x of N_i (1 - L_i / L_b) (1 - E_i / E_b) dissim_i^gamma, as
    far as the paper's text gives it. N_i is the share of samples that stop at exit i, L_i and E_i the cost of a
    sample that runs the trunk up to exit i and its head at f, L_b and E_b the static cost at the default clocks,
    and dissim_i the mean dissimilarity to the other exits of x, 1 for an exit that is alone.

    Args:
        chosen: bool[S, K], the subsets x.
        frequencies: float32[S, 2 K + 1], how often each segment runs.
        correct: uint32[K, W], bit sets of the samples that each exit gets right.
        gamma: float32[].

    Returns:
        float32[S, K].
    """
    reached, after = frequencies[:, : len(correct)], frequencies[:, 1 : len(correct) + 1]
    members = chosen.astype(jnp.float32)
    size = jnp.sum(members, axis=1, keepdims=True)
    to_others = members @ jnp.where(jnp.eye(len(correct), dtype=bool), 0.0, dissimilarity(correct))
    mean = jnp.where(size > 1, to_others / jnp.maximum(size - 1, 1.0), 1.0)
    return (reached - after) * jnp.maximum(mean, 0.0) ** gamma / jnp.maximum(size, 1.0)


def exit_gains(costs: Cost) -> jax.Array:
    """(1 - L_i / L_b) (1 - E_i / E_b) of each exit at each operating point, the last being the default.

    Factors below 0 count as 0: the product of two losses is no gain.

    Args:
        costs: float32[2 K + 1, F].

    Returns:
        float32[K, F].
    """

    def saved(cost: jax.Array) -> jax.Array:
        slots = cost.shape[0] // 2
        trunk = jnp.cumsum(cost[: slots + 1], axis=0)
        return jnp.maximum(1.0 - (trunk[:-1] + cost[slots + 1 :]) / trunk[-1, -1], 0.0)

    return saved(costs.latency_s) * saved(costs.energy_j)
