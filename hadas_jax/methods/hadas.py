"""HADAS: backbones, early exits and clocks searched together by two nested engines.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. The outer engine breeds backbones b and scores them by S(b) = (error,
latency, energy) without exits at the default clocks. The best go to the inner engine, which finds for each the
exits x and clocks f of the best dynamic versions D(x, f | b); by these the backbones are ranked once more.
Here the inner engine is exact: it goes through all exit subsets at all clocks.
Shapes: P population, G genes, A archive, E exits, W words of a bit set, L error levels, B latency bins,
F operating points. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.data import LabelledImages
from hadas_jax.evaluation import pack_bits, population_outcomes, segment_costs, subset_stats
from hadas_jax.loop import Metrics
from hadas_jax.search import NSGA2, Params, State, grid_front, grid_hypervolume, sample
from hadas_jax.spaces import MBConvSpace, available_exits, segments, workload
from hadas_jax.supernet import Parameters
from hw_models import Cost, Device, default_point, network_cost

ERROR_LEVELS, LATENCY_BINS = 512, 256  # the grid of merits: 0.2 % of error, 2.7 % of latency
LATENCY_SPAN = 1000.0  # from the shortest bin's end to the reference


@struct.dataclass
class Problem:
    """Everything that the engines read.

    Attributes:
      params: the trained supernet and heads.
      validation: the images that accuracy is measured on.
      calibration: float32[batches, B, H, W, channels], training images for batch-norm statistics.
      device: the cost model.
    """

    params: Parameters
    validation: LabelledImages
    calibration: jax.Array
    device: Device


@struct.dataclass
class Archive:
    """Every backbone that was evaluated, in order; rows from `size` on are empty.

    Attributes:
      genomes: int32[A, G].
      static: float32[A, 3], S(b): error, latency_s, energy_j; +inf where empty.
      correct: uint32[A, E + 1, W], which validation samples every exit gets right.
      examined: bool[A], whether the inner engine saw the backbone.
      size: int32[].
    """

    genomes: jax.Array
    static: jax.Array
    correct: jax.Array
    examined: jax.Array
    size: jax.Array


@struct.dataclass
class HadasState:
    """Carried from generation to generation.

    Attributes:
      outer: NSGA-II over backbones.
      archive: of backbones.
      table: float32[L, B], least energy of all dynamic versions found, by error and latency.
    """

    outer: State
    archive: Archive
    table: jax.Array


@dataclass(frozen=True)
class Hadas:
    """The two engines over one space; static, so that jitted code is shared.

    Attributes:
      space: of one resolution, adapted to the data.
      population: backbones per generation.
      generations: the first, random one included.
      elites: backbones per generation that go to the inner engine.
      samples: validation images.
      group: backbones that run side by side.
    """

    space: MBConvSpace
    population: int
    generations: int
    elites: int
    samples: int
    group: int = 1

    @cached_property
    def strategy(self) -> NSGA2:
        """The outer engine's strategy."""
        return NSGA2(self.population, tuple(int(c) for c in self.space.codec.cardinalities))

    def init(self, key: jax.Array) -> HadasState:
        """Returns the state before the first generation: two extreme backbones and random ones to evaluate."""
        P, G = self.population, len(self.space.codec.choices)
        capacity, words = P * self.generations, -(-self.samples // 32)
        genomes = sample(key, jnp.asarray(self.space.codec.cardinalities), size=P)
        extremes = np.stack([self.space.largest_genome, self.space.smallest_genome])
        genomes = genomes.at[:2].set(extremes[:P])
        outer = State(
            population=genomes,
            fitness=jnp.full((P, 3), jnp.inf, jnp.float32),
            ranks=jnp.zeros(P, jnp.int32),
            crowding=jnp.zeros(P, jnp.float32),
            merit=jnp.full(P, jnp.nan, jnp.float32),
            generation=jnp.int32(0),
        )
        archive = Archive(
            genomes=jnp.zeros((capacity, G), jnp.int32),
            static=jnp.full((capacity, 3), jnp.inf, jnp.float32),
            correct=jnp.zeros((capacity, self.space.num_exits + 1, words), jnp.uint32),
            examined=jnp.zeros(capacity, bool),
            size=jnp.int32(0),
        )
        table = jnp.full((ERROR_LEVELS, LATENCY_BINS), jnp.inf, jnp.float32)
        return HadasState(outer=outer, archive=archive, table=table)

    def generation(self, state: HadasState, key: jax.Array, problem: Problem) -> tuple[HadasState, Metrics]:
        """One generation of the outer engine, with the inner engine for its best backbones."""
        first = state.archive.size == 0
        bred, outer = self.strategy.ask(key, state.outer, _variation(self.strategy))
        genomes = jnp.where(first, state.outer.population, bred)

        # S(b): without exits, at the default clocks.
        correct, static = self.evaluate(genomes, problem)
        archive = _append(state.archive, genomes, static, correct)

        # First selection: by S(b). The first generation is told as its own parents, whose repetition is dropped.
        outer = dataclasses.replace(
            outer,
            population=jnp.where(first, genomes, outer.population),
            fitness=jnp.where(first, static, outer.fitness),
        )
        outer, _ = self.strategy.tell(key, genomes, static, outer, self.strategy.default_params)

        # Inner engine: D(x, f | b) of the best, and second selection by it.
        rows = jax.vmap(lambda genome: _find(archive, genome))(outer.population[: self.elites])
        tables, merit = jax.lax.map(lambda row: self.inner(archive, row, problem), rows)
        unexamined = jnp.full(self.population - self.elites, jnp.nan, jnp.float32)
        outer = self.strategy.prefer(outer, jnp.concatenate([merit, unexamined]))

        archive = dataclasses.replace(archive, examined=archive.examined.at[rows].set(True))
        table = jnp.minimum(state.table, jnp.min(tables, axis=0))
        metrics = {
            "evaluated": archive.size,
            "front_cells": _front_cells(table),
            "hypervolume": self._hypervolume(table, problem.device),
            "lowest_error": jnp.min(archive.static[:, 0]),
        }
        return HadasState(outer=outer, archive=archive, table=table), metrics

    def evaluate(self, genomes: jax.Array, problem: Problem) -> tuple[jax.Array, jax.Array]:
        """Returns what each exit gets right, uint32[P, E + 1, W], and S(b), float32[P, 3]."""
        outcomes = population_outcomes(
            self.space,
            problem.params,
            genomes,
            data=problem.validation,
            calibration=problem.calibration,
            group=self.group,
        )
        error = 1.0 - jnp.mean(outcomes.correct[:, -1].astype(jnp.float32), axis=-1)
        cost = jax.vmap(lambda genome: static_cost(self.space, genome, problem.device))(genomes)
        return pack_bits(outcomes.correct), jnp.stack([error, cost.latency_s, cost.energy_j], axis=1)

    def inner(self, archive: Archive, row: jax.Array, problem: Problem) -> tuple[jax.Array, jax.Array]:
        """The inner engine for one backbone: all exit subsets at all clocks under the ideal mapping.

        Returns:
          The table of least energies, float32[L, B], and as merit the hypervolume of the backbone's best
          dynamic versions, float32[].
        """
        correct = archive.correct[row]
        backbone = self.space.decode(archive.genomes[row])
        available = available_exits(self.space, backbone)
        stats = subset_stats(correct[:-1], correct, available, samples=self.samples)
        costs = segment_costs(self.space, backbone, problem.device)
        reference = self._reference(problem.device)
        table = grid_front(
            stats.error,
            stats.weights,
            latency=costs.latency_s,
            energy=costs.energy_j,
            error_levels=_error_levels(),
            latency_edges=_latency_edges(reference[1]),
        )
        return table, self._hypervolume(table, problem.device)

    def _reference(self, device: Device) -> jax.Array:
        """Twice the static cost of the largest backbone, and every sample wrong: float32[3]."""
        largest = static_cost(self.space, jnp.asarray(self.space.largest_genome), device)
        return jnp.stack([jnp.float32(1), 2 * largest.latency_s, 2 * largest.energy_j])

    def _hypervolume(self, table: jax.Array, device: Device) -> jax.Array:
        """Share of the box up to the reference that is dominated, float32[]."""
        reference = self._reference(device)
        volume = grid_hypervolume(
            table,
            error_levels=_error_levels(),
            latency_edges=_latency_edges(reference[1]),
            reference=reference,
        )
        return volume / jnp.prod(reference)


def static_cost(space: MBConvSpace, genome: jax.Array, device: Device) -> Cost:
    """Cost of one sample on a backbone without exits at the default clocks, float32[]."""
    layers = workload(space, space.decode(genome))
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)
    return network_cost(dataclasses.replace(layers, active=layers.active * in_trunk), device, default_point(device))


def _variation(strategy: NSGA2) -> Params:
    """The paper's crossover probability; mutation of one gene per genome on average."""
    return dataclasses.replace(strategy.default_params, crossover_probability=jnp.float32(0.8))


def _append(archive: Archive, genomes: jax.Array, static: jax.Array, correct: jax.Array) -> Archive:
    def write(column: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(column, rows, archive.size, axis=0)

    return dataclasses.replace(
        archive,
        genomes=write(archive.genomes, genomes),
        static=write(archive.static, static),
        correct=write(archive.correct, correct),
        size=archive.size + genomes.shape[0],
    )


def _find(archive: Archive, genome: jax.Array) -> jax.Array:
    """Returns int32[]: the first row of the archive with this genome."""
    same = jnp.all(archive.genomes == genome[None], axis=1) & (jnp.arange(len(archive.static)) < archive.size)
    return jnp.argmax(same).astype(jnp.int32)


def _error_levels() -> jax.Array:
    return jnp.arange(ERROR_LEVELS, dtype=jnp.float32) / ERROR_LEVELS


def _latency_edges(longest: jax.Array) -> jax.Array:
    steps = jnp.arange(1 - LATENCY_BINS, 1, dtype=jnp.float32) / LATENCY_BINS
    return longest * LATENCY_SPAN**steps


def _front_cells(table: jax.Array) -> jax.Array:
    """Returns int32[]: cells of the table that no other cell dominates."""
    least = jax.lax.cummin(jax.lax.cummin(table, axis=0), axis=1)
    above = jnp.pad(least, ((1, 0), (1, 0)), constant_values=jnp.inf)
    return jnp.sum(table < jnp.minimum(above[:-1, 1:], above[1:, :-1]), dtype=jnp.int32)
