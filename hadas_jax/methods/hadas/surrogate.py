"""What to evaluate next, by a surrogate that learns from everything evaluated so far.

The surrogate predicts from a backbone's genes which share of the validation samples every exit gets right, which share
it or an earlier exit does, and the merit of the backbone. The second tell how many samples go on to each segment, and
so what the dynamic candidates of a backbone cost and how wrong they are at best. NSGA-II goes through thousands of
backbones by these predictions; only what is then evaluated on the supernet enters archive and front.
Shapes: A archive, E exits, T = 2 (E + 1) + 1 targets, P proposals, Q population, G genes, C choices of the longest
gene.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import count_bits, segment_costs
from hadas_jax.evaluation.early_exit import percentile_paths
from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import ConfigLimits, relative_excess
from hadas_jax.search import NSGA2, crowding_distance, non_dominated_ranks, sample, truncate
from hadas_jax.search.pareto import first_occurrences
from hadas_jax.search.relaxed import RelaxedParams, logits_of, relaxed_search
from hadas_jax.search.surrogate import Surrogate, SurrogateState
from hadas_jax.settings import NO_CONSTRAINTS, Constraints
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_jax.spaces.costs import BlockCosts, block_costs, relaxed_cost
from hadas_jax.spaces.footprint import footprint
from hw_models import Cost, Device, default_point

_LEAST_MERIT = -1.0  # what breaks the limits by more is no worse
_LEAST_SPAN = 1e-9  # of an objective that all backbones share
# Gives P backbones int32[P, G], the most promising first.
Acquisition = Callable[[jax.Array, Archive], np.ndarray]


class _Known(NamedTuple):
    """What proposals follow from: the fitted surrogate, and what was evaluated.

    Attributes:
        state: Of the surrogate.
        genomes: int32[A, G], of which the first `size` (int32[]) are filled.
        size: As said.
        ideal: float32[3], the least error, latency and energy that was reached.
        span: float32[3], their range.
        blocks: Of `block_costs`.
    """

    state: SurrogateState
    genomes: Any
    size: Any
    ideal: Any
    span: Any
    blocks: BlockCosts


@dataclass(frozen=True, eq=False)
class SurrogateAcquisition:
    """Proposes backbones that a surrogate expects to have good dynamic candidates.

    Attributes:
        space: Of the backbones.
        device: The cost model.
        samples: Validation samples.
        limits: Of the search.
        picks: P, backbones per call.
        optimism: Predictions are raised by so many standard deviations, so that the unknown is tried.
        population: Of the NSGA-II over predictions, at least P.
        generations: Likewise.
        gradient_seeds: Descents along the gradient of predictions and costs; NSGA-II starts from the best that they
            came by, as many as there are descents.
    """

    space: MBConvSpace
    device: Device
    samples: int
    limits: Constraints = NO_CONSTRAINTS
    picks: int = 16
    optimism: float = 1.0
    population: int = 256
    generations: int = 40
    gradient_seeds: int = 0

    def __call__(self, key: jax.Array, archive: Archive) -> np.ndarray:
        """Returns backbones int32[P, G] in survival order, new ones first."""
        fit_key, search_key = jax.random.split(key)
        size, genomes = int(archive.size), archive.genomes
        shares, there = _shares_right(self.space, genomes, archive.correct, samples=self.samples)
        merit = np.maximum(archive.merit, _LEAST_MERIT)[:, None]
        targets = np.concatenate([shares, merit], axis=1)  # merits that are missing are NaN, as fit wants it
        mask = np.pad(np.asarray(there), ((0, 0), (0, 1)), constant_values=True)
        mask &= np.arange(len(genomes))[:, None] < size
        state = self._surrogate.fit(fit_key, genomes, jnp.asarray(targets), jnp.asarray(mask))
        ideal_error = 1 - np.asarray(shares)[:size, -1:]
        reached = np.concatenate([ideal_error, archive.static[:size, 1:]], axis=1)
        known = _Known(state, genomes, np.int32(size), reached.min(axis=0), np.ptp(reached, axis=0), self._blocks)
        return np.asarray(self._search(search_key, known))

    @partial(jax.jit, static_argnames="self")
    def _search(self, key: jax.Array, known: _Known) -> jax.Array:
        """NSGA-II over predictions, and the picks from its last population, int32[P, G]."""
        surrogate, genomes = self._surrogate, known.genomes
        strategy = NSGA2(population_size=self.population, cardinalities=surrogate.cardinalities)
        params = strategy.default_params
        limits, config_limits = jnp.asarray(self.limits.objectives), ConfigLimits.of(self.limits, self.device)

        def evaluate(population: jax.Array) -> tuple[jax.Array, jax.Array]:
            mean, std = surrogate.predict(known.state, jax.nn.one_hot(population, max(surrogate.cardinalities)))
            hopeful = mean + self.optimism * std
            dynamic, p99 = jax.vmap(self._dynamic)(population, hopeful[:, :-1])
            error, latency, energy = dynamic.T
            excess = relative_excess((error, latency, energy), limits)
            if config_limits is not None:
                excess = jnp.maximum(excess, config_limits.excess(p99))
                excess = jnp.maximum(excess, jax.vmap(partial(self._size_excess, config_limits))(population))
            violation = jnp.maximum(excess, 0)
            return jnp.concatenate([dynamic, -hopeful[:, -1:]], axis=1), violation

        start_key, pick_key, init_key, loop_key, descent_key = jax.random.split(key, 5)
        drawn = sample(start_key, jnp.asarray(surrogate.cardinalities, jnp.int32), size=self.population)
        picked = genomes[jax.random.randint(pick_key, (self.population,), 0, known.size)]
        half = jnp.arange(self.population) < self.population // 2
        population = jnp.where(half[:, None], picked, drawn)
        if self.gradient_seeds:
            descended = self._descend(descent_key, known, start=picked[-self.gradient_seeds :])
            population = population.at[-self.gradient_seeds :].set(descended)
        fitness, violation = evaluate(population)
        start = strategy.init(init_key, population, fitness, params, violation=violation)

        def generation(state: Any, key: jax.Array) -> tuple[Any, None]:
            ask_key, tell_key = jax.random.split(key)
            population, state = strategy.ask(ask_key, state, params)
            fitness, violation = evaluate(population)
            return strategy.tell(tell_key, population, fitness, state, params, violation=violation)[0], None

        end, _ = jax.lax.scan(generation, start, jax.random.split(loop_key, self.generations))
        filled = jnp.arange(genomes.shape[0]) < known.size
        seen = jnp.any(jnp.all(end.population[:, None] == genomes[None], axis=2) & filled[None], axis=1)
        return end.population[jnp.argsort(seen, stable=True)[: self.picks]]

    def _descend(self, key: jax.Array, known: _Known, *, start: jax.Array) -> jax.Array:
        """Follows the gradient from backbones int32[W, G], each for other weights of error, latency and energy.

        Returns the best that the descents came by: where they end, many meet.
        """
        surrogate = self._surrogate
        clocks = (self.device.core_hz, self.device.memory_hz, self.device.host_hz)
        point = jnp.stack([jnp.argmax(clock).astype(jnp.int32) for clock in clocks])

        def objectives(probabilities: jax.Array) -> jax.Array:
            cost = relaxed_cost(self.space, known.blocks, self.device, probabilities=probabilities, indices=point)
            error = 1 - surrogate.predict(known.state, probabilities)[0][-2]
            return jnp.stack([error, cost.latency_s, cost.energy_j])

        weight_key, search_key = jax.random.split(key)
        descents = relaxed_search(
            search_key,
            objectives,
            cardinalities=surrogate.cardinalities,
            weights=jax.random.dirichlet(weight_key, jnp.ones(3), (self.gradient_seeds,)),
            ideal=known.ideal,
            span=jnp.maximum(known.span, _LEAST_SPAN),
            params=RelaxedParams.default(),
            start=logits_of(start, surrogate.cardinalities),
        )
        genomes = descents.visited.reshape(-1, start.shape[1])
        values = descents.objectives.reshape(genomes.shape[0], -1)
        ranks = non_dominated_ranks(values, valid=first_occurrences(genomes, surrogate.cardinalities))
        return genomes[truncate(ranks, crowding_distance(values, ranks), size=self.gradient_seeds)]

    def _size_excess(self, limits: ConfigLimits, genome: jax.Array) -> jax.Array:
        """By how much a backbone without exits exceeds limits on its size, float32[]."""
        size = footprint(self.space, self.space.decode(genome))
        return limits.size_excess(size, jnp.zeros(self.space.num_exits, bool))

    @cached_property
    def _surrogate(self) -> Surrogate:
        return Surrogate(cardinalities=tuple(int(c) for c in self.space.codec.cardinalities))

    @cached_property
    def _blocks(self) -> BlockCosts:
        return block_costs(self.space, self.device)

    def _dynamic(self, genome: jax.Array, shares: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A backbone with all exits at the default clocks, heads for free.

        Returns:
            Error, latency and energy, float32[3], and the 99th percentile of the latency, float32[].
        """
        E = self.space.num_exits
        right = jax.lax.cummax(jnp.clip(shares[E + 1 :], 0, 1))
        costs = _trunk_costs(self.space, genome, self.device)
        going_on = jnp.concatenate([jnp.ones(1), 1 - right[:-1]])
        path = percentile_paths(going_on, 99, samples=self.samples).astype(jnp.float32)
        objectives = jnp.stack([1 - right[-1], going_on @ costs.latency_s, going_on @ costs.energy_j])
        return objectives, path @ costs.latency_s


@partial(jax.jit, static_argnames=("space", "samples"))
def _shares_right(
    space: MBConvSpace, genomes: jax.Array, correct: jax.Array, *, samples: int
) -> tuple[jax.Array, jax.Array]:
    """What the surrogate learns of backbones.

    Args:
        space: Static.
        genomes: int32[A, G].
        correct: uint32[A, E + 1, W], bit sets of the samples that every exit gets right.
        samples: Static.

    Returns:
        float32[A, T - 1], the share of samples that each exit gets right, then the share that it or an earlier one
        does; and bool[A, T - 1], whether the backbone has the exit. The second kind is there for all exits: one that
        the backbone lacks adds nothing to the one before.
    """

    def one(genome: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        available = jnp.append(available_exits(space, space.decode(genome)), True)
        union = jax.lax.associative_scan(jnp.bitwise_or, jnp.where(available[:, None], words, 0), axis=0)
        counts = jnp.concatenate([count_bits(words), count_bits(union)])
        return counts.astype(jnp.float32) / samples, jnp.concatenate([available, jnp.ones_like(available)])

    return jax.vmap(one)(genomes, correct)


def _trunk_costs(space: MBConvSpace, genome: jax.Array, device: Device) -> Cost:
    """Returns the cost of each segment of the trunk of a backbone int32[G] at the default clocks, float32[E + 1].

    Heads are free, and so are their calls.
    """
    highest: dict[str, Any] = {name: hz[None] for name, hz in vars(default_point(device)).items()}
    costs = segment_costs(space, space.decode(genome), dataclasses.replace(device, **highest))
    return jax.tree.map(lambda column: column[: space.num_exits + 1, 0], costs)
