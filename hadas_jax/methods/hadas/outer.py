"""HADAS: backbones, early exits and clocks searched together by two nested engines.

Bouzidi et al., "HADAS: Hardware-Aware Dynamic Neural Architecture Search for Edge Performance Scaling", DATE
2023, https://arxiv.org/abs/2212.03354. The outer engine breeds backbones b and scores them by S(b) = (error,
latency, energy) without exits at the default clocks. The best go to the inner engine (`methods.hadas.inner`), which
finds for each the exits x and clocks f of the best dynamic candidates D(x, f | b); by these the backbones are ranked
once more. No backbone is evaluated or examined twice.
With several number formats, the format is one more gene of a backbone, which is evaluated and priced in it. What the
inner engine examines, it examines in all formats: they are one more factor of its search.
Shapes: P population, G genes, A archive, E exits, W words of a bit set, L error levels, B latency bins. Costs are of
one sample, in seconds and joules.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import RowMap, on_cpu
from hadas_jax.evaluation import segment_costs
from hadas_jax.methods.hadas import inner
from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import ConfigLimits, lower_bound, relative_excess, static_costs
from hadas_jax.methods.hadas.inner import InnerResult
from hadas_jax.methods.hadas.surrogate import Acquisition
from hadas_jax.search import Elitist, State, crowding_distance, load_strategy, non_dominated_ranks, truncate
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, NestedSearchSettings
from hadas_jax.spaces import MBConvSpace
from hadas_jax.spaces.footprint import footprint
from hadas_jax.spaces.mbconv import MAX_EXITS
from hw_models import Cost, Device

_INNER_POPULATION, _INNER_GENERATIONS = 128, 60  # of the inner engine where it breeds

# Genomes int32[N, G] -> the validation samples that every exit gets right, uint32[N, E + 1, W].
Evaluate = Callable[[np.ndarray], np.ndarray]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HadasState:
    """Carried from generation to generation.

    Attributes:
        outer: The strategy's state; zeros, but for its population, before the first generation.
        archive: Every backbone that was evaluated.
        table: float32[L, B], least energy of all dynamic candidates within the constraints, by error and latency.
    """

    outer: State
    archive: Archive
    table: np.ndarray


@dataclass(frozen=True, eq=False)
class Hadas:
    """The two engines over one space and device.

    Attributes:
        space: Adapted to the data.
        device: The cost model.
        evaluate: Gives what the supernet's exits get right, or whatever stands for it.
        samples: Number of validation samples.
        settings: How both engines search.
        elites: Backbones per generation that go to the inner engine.
        constraints: What networks may cost at most.
        warm_start: int32[N, G], backbones of the first generation.
        acquisition: What proposes backbones after the first generation; None: the strategy.
        evaluated: int32[N, G] and uint32[N, E + 1, W], backbones that were evaluated before, and what their exits get
            right; the best of them are in the first generation.
    """

    space: MBConvSpace
    device: Device
    evaluate: Evaluate
    samples: int
    settings: NestedSearchSettings
    elites: int
    constraints: Constraints = NO_CONSTRAINTS
    warm_start: np.ndarray | None = None
    acquisition: Acquisition | None = None
    evaluated: tuple[np.ndarray, np.ndarray] | None = None

    @cached_property
    def strategy(self) -> Elitist:
        """The outer engine's strategy."""
        cardinalities = tuple(int(c) for c in self.space.codec.cardinalities)
        settings = self.settings
        return load_strategy(settings.strategy, population_size=settings.population, cardinalities=cardinalities)

    @cached_property
    def params(self) -> Any:
        """Of the strategy: the paper's crossover probability where there is crossover, its defaults otherwise."""
        params = self.strategy.default_params
        if hasattr(params, "crossover_probability"):
            return dataclasses.replace(params, crossover_probability=jnp.float32(0.8))
        return params

    @cached_property
    def reference(self) -> np.ndarray:
        """Every sample wrong, and twice the static cost of the largest backbone: float32[3]."""
        costs, _ = _row_map(static_costs, self.space, block=16)(self.space.largest_genome[None], self.device)
        return np.array([1, 2 * costs.latency_s[0], 2 * costs.energy_j[0]], np.float32)

    @cached_property
    def config_limits(self) -> ConfigLimits | None:
        """Limits on exit configurations."""
        return ConfigLimits.of(self.constraints, self.device)

    def init(self, key: jax.Array) -> HadasState:
        """Returns the state before the first generation.

        It holds given backbones and the extremes that are new, the best of those evaluated before, and random ones.
        """
        genomes, archive = self._first(key)
        return self._start(genomes, archive)

    def _first(self, key: jax.Array) -> tuple[np.ndarray, Archive]:
        """Backbones of the first generation int32[P, G], and the archive with those evaluated before."""
        P = self.settings.population
        first = [] if self.warm_start is None else list(self.warm_start)
        first += [self.space.largest_genome, self.space.smallest_genome]
        known = 0 if self.evaluated is None else len(self.evaluated[0])
        others = self.elites * max(len(self.space.number_formats) - 1, 0)  # that the inner engine adds
        capacity = known + self.settings.generations * (P + others)
        archive = Archive.empty(capacity, self.space, samples=self.samples)
        if self.evaluated is not None:
            archive = self._appended(archive, *self.evaluated)
        best = _best(archive, size=P - len(archive.unseen(np.stack(first))))
        return np.concatenate([self._filled(key, np.stack(first), archive)[: P - len(best)], best]), archive

    def _start(self, genomes: np.ndarray, archive: Archive) -> HadasState:
        """The state before the first generation, whose strategy has the population that is given and nothing else."""
        P = len(genomes)
        like = jax.eval_shape(
            lambda: self.strategy.init(
                jax.random.key(0), jnp.asarray(genomes), jnp.zeros((P, 3)), self.params, violation=jnp.zeros(P)
            )
        )
        outer = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        return HadasState(
            outer=dataclasses.replace(outer, population=genomes),
            archive=archive,
            table=np.full((len(inner.ERROR_LEVELS), inner.LATENCY_BINS), np.inf, np.float32),
        )

    def generation(self, state: HadasState, key: jax.Array) -> tuple[HadasState, dict[str, np.ndarray]]:
        """One generation of the outer engine, with the inner engine for its best backbones.

        Args:
            state: Of the generation before.
            key: Typed PRNG key.

        Returns:
            The next state, and its figures.
        """
        ask_key, tell_key, inner_key = jax.random.split(key, 3)
        first = not state.archive.examined.any()
        genomes, outer = (np.asarray(state.outer.population), state.outer) if first else self._propose(ask_key, state)

        # S(b): without exits, at the default clocks.
        archive = self._evaluated(state.archive, genomes)
        rows = archive.rows(genomes)
        static, violation = jnp.asarray(archive.static[rows]), jnp.asarray(archive.violation[rows])
        told = jnp.asarray(genomes)

        # First selection: by S(b).
        if first:
            outer = self.strategy.init(tell_key, told, static, self.params, violation=violation)
        else:
            outer, _ = self.strategy.tell(tell_key, told, static, outer, self.params, violation=violation)

        # Inner engine: D(x, f | b) of the best, and second selection by it.
        survivors = archive.rows(np.asarray(outer.population))
        archive, table = self._examined(inner_key, archive, survivors, state.table)
        merit = _best_merits(archive.merit[survivors], self.elites)
        outer = self.strategy.prefer(outer, jnp.asarray(merit))
        outer = dataclasses.replace(outer, violation=archive.violation[survivors])
        return self._told(outer, archive, table)

    def _told(self, outer: State, archive: Archive, table: np.ndarray) -> tuple[HadasState, dict[str, np.ndarray]]:
        """The state after a generation, and its figures."""
        metrics = {
            "evaluated": archive.size,
            "examined": np.sum(archive.examined),
            "front_cells": inner.front_cells(table),
            "hypervolume": self.hypervolume(table),
            "lowest_error": np.min(archive.static[: archive.size, 0]),
            "candidates": np.sum(archive.versions.astype(np.float64)),
        }
        plain = jax.tree.map(np.asarray, HadasState(outer=outer, archive=archive, table=table))
        return plain, {name: np.asarray([value], np.float64) for name, value in metrics.items()}

    def hypervolume(self, table: np.ndarray) -> float:
        """Share of the box within reference and limits that a table of `HadasState` dominates."""
        return float(inner.table_hypervolume(table, reference=self.reference, limits=self.constraints.objectives))

    def _propose(self, key: jax.Array, state: HadasState) -> tuple[np.ndarray, State]:
        """Backbones for the next generation, new ones wherever the strategy leaves the choice."""
        if not self.strategy.accepts_any:
            genomes, outer = self.strategy.ask(key, state.outer, self.params)
            return np.asarray(genomes), outer
        if self.acquisition is not None:
            return self._filled(key, self.acquisition(key, state.archive), state.archive), state.outer
        found = np.zeros((0, len(self.space.codec.choices)), np.int32)
        for attempt in jax.random.split(key, 8):
            asked = np.asarray(self.strategy.ask(attempt, state.outer, self.params)[0])
            found = state.archive.unseen(np.concatenate([found, asked]))
            if len(found) >= self.settings.population:
                break
        return self._filled(key, found, state.archive), state.outer

    def _filled(self, key: jax.Array, genomes: np.ndarray, archive: Archive) -> np.ndarray:
        """The first new ones of some backbones, random new ones behind, and others where there are no more: [P, G]."""
        P, rng = self.settings.population, np.random.default_rng(np.asarray(jax.random.key_data(key)))
        cardinalities = self.space.codec.cardinalities
        genomes = archive.unseen(genomes)
        for _ in range(4):
            if len(genomes) < P:
                drawn = rng.integers(0, cardinalities, (4 * P, len(cardinalities)), np.int32)
                genomes = archive.unseen(np.concatenate([genomes, drawn]))
        missing = rng.integers(0, cardinalities, (max(P - len(genomes), 0), len(cardinalities)), np.int32)
        return np.concatenate([genomes[:P], missing])

    def _evaluated(self, archive: Archive, genomes: np.ndarray) -> Archive:
        """The archive with all of these genomes in it."""
        fresh = archive.unseen(genomes)
        return self._appended(archive, fresh, self.evaluate(fresh)) if len(fresh) else archive

    def _appended(self, archive: Archive, fresh: np.ndarray, correct: np.ndarray) -> Archive:
        """The archive with these genomes too, given what their exits get right."""
        error = 1.0 - np.bitwise_count(correct[:, -1]).sum(axis=-1) / self.samples
        costs, params = _row_map(static_costs, self.space, block=16)(fresh, self.device)
        limits = self.constraints
        violation = np.maximum(params / limits.params - 1, 0)
        if np.isfinite(limits.objectives).any() or self.config_limits is not None:
            bound = _row_map(_bound, self.space, self.samples, block=8)
            shared = (self.device, limits.objectives, self.config_limits)
            violation = np.maximum(violation, bound((fresh, correct), shared))
        return archive.append(
            genomes=fresh,
            static=np.stack([error, costs.latency_s, costs.energy_j], axis=1),
            correct=correct,
            params=params,
            violation=violation,
        )

    def _examined(
        self, key: jax.Array, archive: Archive, survivors: np.ndarray, table: np.ndarray
    ) -> tuple[Archive, np.ndarray]:
        """Sends the first survivors that were not examined yet to the inner engine."""
        new = list(dict.fromkeys(row for row in survivors if not archive.examined[row]))[: self.elites]
        if not new:
            return archive, table
        if len(self.space.number_formats) > 1:
            genomes = self._in_all_formats(archive.genomes[new])
            archive = self._evaluated(archive, genomes)
            new = [row for row in archive.rows(genomes) if not archive.examined[row]]
        rows = np.array(new)
        result = self.inner(key, archive.genomes[rows], archive.correct[rows])
        too_large = np.maximum(archive.params[rows] / self.constraints.params - 1, 0)
        violation = np.maximum(result.violation, too_large)
        by_score = self.settings.merit == "score"
        quality = result.score if by_score else [self.hypervolume(table) for table in result.table]
        archive = archive.update(
            rows,
            merit=np.where(violation > 0, -violation, quality),
            violation=violation,
            versions=np.asarray(result.evaluations),
        )
        kept = result.table[too_large == 0]
        return archive, np.minimum(table, kept.min(axis=0, initial=np.inf))

    def _in_all_formats(self, genomes: np.ndarray) -> np.ndarray:
        """Genomes int32[N, G] in each of F number formats, int32[at most N F, G], each once."""
        gene, formats = self.space.codec.names.index("number_format"), range(len(self.space.number_formats))
        every = np.repeat(genomes, len(formats), axis=0)
        every[:, gene] = np.tile(np.array(formats), len(genomes))
        return np.unique(every, axis=0)

    def inner(self, key: jax.Array, genomes: np.ndarray, correct: np.ndarray) -> InnerResult:
        """The inner engine for some backbones, spread over all devices.

        Args:
            key: Typed PRNG key.
            genomes: int32[N, G].
            correct: uint32[N, E + 1, W].

        Returns:
            The result for each, leading axis N.
        """
        settings = self.settings
        counts = np.array([inner.exit_count(self.space, genome) for genome in genomes])
        exact = counts <= {"auto": MAX_EXITS, "exact": self.space.num_exits, "evolved": -1}[settings.inner]
        seeds = np.asarray(jax.random.key_data(jax.random.split(key, len(genomes))))
        rows = (genomes, correct, _row_map(_segment_costs, self.space)(genomes, self.device), seeds)
        limits = (self.constraints.objectives, self.config_limits)
        shared = (self.device, limits, np.float32(settings.gamma), self.reference)
        effort, block = (_INNER_POPULATION, _INNER_GENERATIONS), 1 if on_cpu() else self.elites
        parts: list[tuple[np.ndarray, InnerResult]] = []
        for chosen, search in (
            (exact, _row_map(_exact, self.space, self.samples)),
            (~exact, _row_map(_evolved, self.space, self.samples, effort, block=block)),
        ):
            if chosen.any():
                picked = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], rows)
                parts.append((np.flatnonzero(chosen), search(picked, shared)))
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *(result for _, result in parts))


@lru_cache(maxsize=32)
def _row_map(function: Callable[..., Any], *static: Any, block: int = 1) -> RowMap:
    """Maps function(*static, rows, shared); kept for equal arguments, so that searches share compiled code."""
    return RowMap(partial(function, *static), block=block)


def _exact(space: MBConvSpace, samples: int, rows: Any, shared: Any) -> InnerResult:
    _, (limits, config_limits), gamma, reference = shared
    settings = {"limits": limits, "config_limits": config_limits, "gamma": gamma, "reference": reference}
    exact = partial(inner.search_exact, space, samples=samples, **settings)
    return jax.lax.map(lambda row: exact(*row[:3]), rows)


def _evolved(space: MBConvSpace, samples: int, effort: tuple[int, int], rows: Any, shared: Any) -> InnerResult:
    device, (limits, config_limits), gamma, reference = shared
    settings = {"limits": limits, "config_limits": config_limits, "gamma": gamma, "reference": reference}
    population, generations = effort
    evolved = partial(inner.search_evolved, samples=samples, population=population, generations=generations, **settings)
    return jax.vmap(lambda row: evolved(jax.random.wrap_key_data(row[3]), space, *row[:3], device))(rows)


def _segment_costs(space: MBConvSpace, genomes: jax.Array, device: Device) -> Cost:
    return jax.lax.map(lambda genome: segment_costs(space, space.decode(genome), device), genomes)


def _bound(space: MBConvSpace, samples: int, rows: Any, shared: Any) -> jax.Array:
    """By how much every dynamic candidate of backbones breaks the limits at least, float32[N]."""
    device, limits, config_limits = shared

    def one(genome: jax.Array, correct: jax.Array) -> jax.Array:
        objectives, p99 = lower_bound(space, genome, correct, device, samples=samples)
        error, latency, energy = objectives.T
        excess = relative_excess((error, latency, energy), limits)
        if config_limits is not None:
            size = footprint(space, space.decode(genome))
            none = jnp.zeros(space.num_exits, bool)
            excess = jnp.maximum(excess, config_limits.excess(p99))
            excess = jnp.maximum(excess, config_limits.size_excess(size, none))
        return jnp.maximum(jnp.min(excess), 0)

    return jax.vmap(one)(*rows)


def _best(archive: Archive, *, size: int) -> np.ndarray:
    """The best backbones of an archive by what they cost and get right without exits: int32[at most `size`, G]."""
    known = int(archive.size)
    if not known or size < 1:
        return archive.genomes[:0]
    static, violation = jnp.asarray(archive.static[:known]), jnp.asarray(archive.violation[:known])
    ranks = non_dominated_ranks(static, violation=violation)
    return archive.genomes[np.asarray(truncate(ranks, crowding_distance(static, ranks), size=min(size, known)))]


def _best_merits(merit: np.ndarray, elites: int) -> np.ndarray:
    """Keeps the highest merits and forgets the others: float32[P] -> float32[P], NaN for all but `elites`."""
    order = np.argsort(-np.nan_to_num(merit, nan=-np.inf), kind="stable")[:elites]
    kept = np.full_like(merit, np.nan)
    kept[order] = merit[order]
    return kept
