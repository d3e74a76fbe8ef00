"""NSGA-II on integer genomes, in evosax's words: init, ask, tell.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017. The second selection (`NSGA2.prefer`) is that of HADAS,
https://arxiv.org/abs/2212.03354.
Shapes: P population, M objectives (minimised, NaN is worst), G genes.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.duplicates import first_occurrences
from hadas_jax.search.pareto import crowding_distance, non_dominated_ranks, truncate
from hadas_jax.search.variation import mutate, tournament, uniform_crossover

Metrics = dict[str, jax.Array]


@struct.dataclass
class Params:
    """What a user may sweep.

    Attributes:
        crossover_probability: float32[], that a pair of parents is crossed.
        mutation_probability: float32[], that a gene is redrawn.
    """

    crossover_probability: jax.Array
    mutation_probability: jax.Array


@struct.dataclass
class State:
    """A population in survival order, the best first.

    Attributes:
        population: int32[P, G].
        fitness: float32[P, M].
        ranks: int32[P], fronts among all that were compared; past every front for repeated genomes.
        crowding: float32[P], crowding distance within the front.
        merit: float32[P], preference in mating; NaN for members that were not examined.
        generation: int32[], how many times `tell` was called.
    """

    population: jax.Array
    fitness: jax.Array
    ranks: jax.Array
    crowding: jax.Array
    merit: jax.Array
    generation: jax.Array


@dataclasses.dataclass(frozen=True)
class NSGA2:
    """The strategy; instances of equal configuration are equal, so that they share compiled code.

    Attributes:
        population_size: P, parents as well as offspring.
        cardinalities: number of values of each of the G genes.

    Example:
        >>> import jax
        >>> from hadas_jax.search import NSGA2, sample
        >>> strategy = NSGA2(population_size=4, cardinalities=(3, 2))
        >>> strategy == NSGA2(population_size=4, cardinalities=(3, 2))
        True
    """

    population_size: int
    cardinalities: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.population_size < 1:
            raise ValueError(f"population_size: expected at least 1, got {self.population_size}")
        cardinalities = tuple(int(cardinality) for cardinality in self.cardinalities)
        if not cardinalities or min(cardinalities) < 1 or max(cardinalities) >= 2**31:
            raise ValueError(f"cardinalities: expected values in 1 .. 2^31 - 1, got {cardinalities}")
        object.__setattr__(self, "cardinalities", cardinalities)

    @property
    def default_params(self) -> Params:
        """Crossover of 9 pairs in 10, mutation of one gene per genome on average (Deb et al. 2002)."""
        return Params(
            crossover_probability=jnp.float32(0.9),
            mutation_probability=jnp.float32(1 / len(self.cardinalities)),
        )

    def init(self, key: jax.Array, population: jax.Array, fitness: jax.Array, params: Params) -> State:
        """Starts from an evaluated population.

        Args:
            key: typed PRNG key; unused, kept for the common form.
            population: int32[P, G].
            fitness: float32[P, M].
            params: unused, kept for the common form.

        Returns:
            The state of generation 0.

        Raises:
            ValueError: for a wrong shape or dtype, and for genes out of range where their values are at hand.
        """
        del key, params
        self._check(population, fitness)
        self._check_range(population)
        return self._start(population, fitness)

    @partial(jax.jit, static_argnames=("self",))
    def ask(self, key: jax.Array, state: State, params: Params) -> tuple[jax.Array, State]:
        """Breeds offspring: binary tournaments, uniform crossover, mutation.

        Args:
            key: typed PRNG key.
            state: the current state.
            params: probabilities.

        Returns:
            int32[P, G] to evaluate, and the state as it was.
        """
        pairs = (self.population_size + 1) // 2
        parent_key, cross_key, mutate_key = jax.random.split(key, 3)
        examined = ~jnp.isnan(state.merit)
        ranks = jnp.where(examined, -1, state.ranks)
        crowding = jnp.where(examined, state.merit, state.crowding)
        draw = jax.vmap(tournament, in_axes=(0, None, None))
        parents = state.population[draw(jax.random.split(parent_key, 2 * pairs), ranks, crowding)]
        cross = jax.vmap(partial(uniform_crossover, probability=params.crossover_probability))
        a, b = cross(jax.random.split(cross_key, pairs), parents[:pairs], parents[pairs:])
        children = jnp.concatenate([a, b])[: self.population_size]
        vary = partial(
            mutate,
            cardinalities=jnp.asarray(self.cardinalities, jnp.int32),
            probability=params.mutation_probability,
        )
        return jax.vmap(vary)(jax.random.split(mutate_key, self.population_size), children), state

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self, key: jax.Array, population: jax.Array, fitness: jax.Array, state: State, params: Params
    ) -> tuple[State, Metrics]:
        """Keeps the best P of parents and offspring by rank, then by crowding, then the elder.

        A genome that repeats an earlier one, parents first, comes after all unique ones. Survivors keep their
        merit.

        Args:
            key: typed PRNG key; unused, kept for the common form.
            population: int32[P, G], what `ask` gave.
            fitness: float32[P, M], its objectives.
            state: the state that `ask` returned.
            params: unused, kept for the common form.

        Returns:
            The next state, and metrics: generation int32[], front_size int32[] (members of rank 0) and
            best_fitness float32[M] (least of each objective, NaN where no member has a value).

        Raises:
            ValueError: for a wrong shape or dtype of population or fitness.
        """
        del key, params
        self._check(population, fitness)
        check_shape("fitness", fitness, state.fitness.shape)
        genomes = jnp.concatenate([state.population, population])
        values = jnp.concatenate([state.fitness, fitness.astype(jnp.float32)])
        merit = jnp.concatenate([state.merit, jnp.full(self.population_size, jnp.nan, jnp.float32)])
        state = self._select(genomes, values, merit, state.generation + 1)
        metrics = {
            "generation": state.generation,
            "front_size": jnp.sum(state.ranks == 0, dtype=jnp.int32),
            "best_fitness": jnp.nanmin(state.fitness, axis=0),
        }
        return state, metrics

    def prefer(self, state: State, merit: jax.Array) -> State:
        """The second selection: puts examined members first in mating, the higher their merit the earlier.

        Every member with a merit beats every member without one in the tournament, whatever their ranks;
        among those with one the higher merit wins. Survival in `tell` goes by rank and crowding all the same.
        A merit lasts as long as its member survives, or until the next call of `prefer`, which replaces all
        merits.

        Args:
            state: the state that `tell` returned.
            merit: float32[P], in the order of state.population, such as the hypervolume of a member's best
                dynamic versions; NaN for members that were not examined.

        Returns:
            The state with these merits.

        Raises:
            ValueError: if merit is not of shape [P].
        """
        check_shape("merit", merit, (self.population_size,))
        return dataclasses.replace(state, merit=jnp.asarray(merit, jnp.float32))

    @partial(jax.jit, static_argnames=("self",))
    def _start(self, population: jax.Array, fitness: jax.Array) -> State:
        merit = jnp.full(self.population_size, jnp.nan, jnp.float32)
        return self._select(population, fitness.astype(jnp.float32), merit, jnp.int32(0))

    def _select(self, genomes: jax.Array, fitness: jax.Array, merit: jax.Array, generation: jax.Array) -> State:
        """Environmental selection of P rows; fronts that nobody is chosen from are not told apart."""
        P = self.population_size
        unique = first_occurrences(genomes, self.cardinalities)
        ranks = non_dominated_ranks(fitness, valid=unique, until=P)
        crowding = crowding_distance(fitness, ranks)
        kept = truncate(ranks, crowding, size=P)
        return State(
            population=genomes[kept],
            fitness=fitness[kept],
            ranks=ranks[kept],
            crowding=crowding[kept],
            merit=merit[kept],
            generation=generation,
        )

    def _check(self, population: jax.Array, fitness: jax.Array) -> None:
        shape = (self.population_size, len(self.cardinalities))
        check_shape("population", population, shape)
        if population.dtype != jnp.int32:
            raise ValueError(f"population: expected int32, got {population.dtype}")
        check_matrix("fitness", fitness)
        check_shape("fitness", fitness, (self.population_size, fitness.shape[1]))

    def _check_range(self, population: jax.Array) -> None:
        if isinstance(population, jax.core.Tracer):
            return
        genes = np.asarray(population)
        if (genes < 0).any() or (genes >= np.asarray(self.cardinalities)).any():
            raise ValueError(f"population: expected genes within 0 .. {self.cardinalities} - 1, got others")
