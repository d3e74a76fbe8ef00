"""What all strategies share: the state, the words init / ask / tell / prefer, the survival of the best.

A strategy breeds integer genomes and keeps the best of all that it was told of. Every strategy of this package is
an `Elitist`: it says how offspring are made (`ask`), and may say how survivors are chosen (`_select`) and what it
remembers besides them (`_begin`, `_learn`).
Shapes: P population, Q genomes compared at once, M objectives (minimised, NaN is worst), G genes.
"""

import abc
import dataclasses
from functools import partial
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.search.pareto import assert_matrix, crowding_distance, first_occurrences, non_dominated_ranks, truncate

Metrics = dict[str, jax.Array]


@struct.dataclass
class State:
    """A population in survival order, the best first.

    Attributes:
        population: int32[P, G].
        fitness: float32[P, M].
        violation: float32[P], by how much each member breaks its constraints; 0 for feasible ones.
        ranks: int32[P], fronts among all that were compared; past every front for repeated genomes.
        crowding: float32[P], the higher the better between members of equal rank.
        merit: float32[P], preference in mating; NaN for members that were not examined.
        generation: int32[], how many times `tell` was called.
        memory: What the strategy remembers besides, a pytree; () for nothing.
    """

    population: jax.Array
    fitness: jax.Array
    violation: jax.Array
    ranks: jax.Array
    crowding: jax.Array
    merit: jax.Array
    generation: jax.Array
    memory: Any = ()

    def take(self, rows: jax.Array) -> "State":
        """Returns the members int32[P] by index, in this order; generation and memory stay."""
        members = dataclasses.replace(self, memory=())
        picked = jax.tree.map(lambda leaf: leaf[rows] if leaf.ndim else leaf, members)
        return dataclasses.replace(picked, memory=self.memory)


@dataclasses.dataclass(frozen=True)
class Elitist(abc.ABC):
    """A strategy; instances of equal configuration are equal, so that they share compiled code.

    Attributes:
        population_size: P, parents as well as offspring.
        cardinalities: Number of values of each of the G genes.
    """

    population_size: int
    cardinalities: tuple[int, ...]

    accepts_any: ClassVar[bool] = True
    """Whether `tell` takes any evaluated genomes; otherwise only those that `ask` gave, in their order."""

    def __post_init__(self) -> None:
        if self.population_size < 1:
            raise ValueError(f"population_size: expected at least 1, got {self.population_size}")
        cardinalities = tuple(int(cardinality) for cardinality in self.cardinalities)
        if not cardinalities or min(cardinalities) < 1 or max(cardinalities) >= 2**31:
            raise ValueError(f"cardinalities: expected values in 1 .. 2^31 - 1, got {cardinalities}")
        object.__setattr__(self, "cardinalities", cardinalities)

    @property
    @abc.abstractmethod
    def default_params(self) -> Any:
        """What a user may sweep, at its usual values."""

    @abc.abstractmethod
    def ask(self, key: jax.Array, state: State, params: Any) -> tuple[jax.Array, State]:
        """Makes offspring.

        Args:
            key: Typed PRNG key.
            state: The current state.
            params: Of the strategy.

        Returns:
            int32[P, G] to evaluate, and the state to give to `tell`.
        """

    def init(
        self,
        key: jax.Array,
        population: jax.Array,
        fitness: jax.Array,
        params: Any,
        *,
        violation: jax.Array | None = None,
    ) -> State:
        """Starts from an evaluated population.

        Args:
            key: Typed PRNG key.
            population: int32[P, G].
            fitness: float32[P, M].
            params: Of the strategy.
            violation: float32[P], at least 0, by how much each genome breaks its constraints; None: by nothing.

        Returns:
            The state of generation 0.

        Raises:
            ValueError: For genes out of range where their values are at hand.
            AssertionError: For a wrong shape or dtype.
        """
        self._check(population, fitness, violation)
        self._check_range(population)
        return self._start(key, population, fitness, params, violation)

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self,
        key: jax.Array,
        population: jax.Array,
        fitness: jax.Array,
        state: State,
        params: Any,
        *,
        violation: jax.Array | None = None,
    ) -> tuple[State, Metrics]:
        """Keeps the best P of parents and offspring.

        Feasible genomes come before all others, those by their violation. A genome that repeats an earlier one,
        parents first, comes after all unique ones. Survivors keep their merit.

        Args:
            key: Typed PRNG key.
            population: int32[P, G], what `ask` gave; where the strategy accepts any, other genomes as well.
            fitness: float32[P, M], its objectives.
            state: The state that `ask` returned.
            params: Of the strategy.
            violation: float32[P], as for `init`.

        Returns:
            The next state, and metrics: generation int32[], front_size int32[] (members of rank 0) and
            best_fitness float32[M] (least of each objective, NaN where no member has a value).

        Raises:
            AssertionError: For a wrong shape or dtype of population, fitness or violation.
        """
        self._check(population, fitness, violation)
        chex.assert_shape(fitness, state.fitness.shape, custom_message="fitness")
        told = self._unexamined(population, fitness, violation, state.generation + 1)
        merged = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new]) if old.ndim else new,
            dataclasses.replace(state, memory=()),
            told,
        )
        select_key, learn_key = jax.random.split(key)
        survivors = self._select(select_key, dataclasses.replace(merged, memory=state.memory))
        state = self._learn(learn_key, told, survivors, params)
        metrics = {
            "generation": state.generation,
            "front_size": jnp.sum(state.ranks == 0, dtype=jnp.int32),
            "best_fitness": jnp.nanmin(state.fitness, axis=0),
        }
        return state, metrics

    def prefer(self, state: State, merit: jax.Array) -> State:
        """The second selection of HADAS (https://arxiv.org/abs/2212.03354): examined members go first in mating.

        Every member with a merit beats every member without one in the tournament, whatever their ranks; among
        those with one the higher merit wins. Survival in `tell` goes by rank and crowding all the same, and
        strategies without tournaments pay no heed to merits. A merit lasts as long as its member survives, or
        until the next call of `prefer`, which replaces all merits.

        Args:
            state: The state that `tell` returned.
            merit: float32[P], in the order of state.population, such as the hypervolume of a member's best
                dynamic versions; NaN for members that were not examined.

        Returns:
            The state with these merits.

        Raises:
            AssertionError: If merit is not of shape [P].
        """
        chex.assert_shape(merit, (self.population_size,), custom_message="merit")
        return dataclasses.replace(state, merit=jnp.asarray(merit, jnp.float32))

    def _select(self, key: jax.Array, merged: State) -> State:
        """Chooses P of Q members by rank, then by crowding, then the elder: merged [Q, ...] -> State [P, ...]."""
        del key
        unique = first_occurrences(merged.population, self.cardinalities)
        ranks = non_dominated_ranks(merged.fitness, violation=merged.violation, valid=unique)
        crowding = crowding_distance(merged.fitness, ranks)
        kept = truncate(ranks, crowding, size=self.population_size)
        return dataclasses.replace(merged, ranks=ranks, crowding=crowding).take(kept)

    def _begin(self, key: jax.Array, told: State, params: Any) -> Any:
        """What the strategy remembers at the start: the evaluated population in its own order -> memory."""
        del key, told, params
        return ()

    def _learn(self, key: jax.Array, told: State, survivors: State, params: Any) -> State:
        """Brings the memory up to date: offspring in their own order, survivors -> survivors."""
        del key, told, params
        return survivors

    @partial(jax.jit, static_argnames=("self",))
    def _start(
        self, key: jax.Array, population: jax.Array, fitness: jax.Array, params: Any, violation: jax.Array | None
    ) -> State:
        told = self._unexamined(population, fitness, violation, jnp.int32(0))
        begin_key, select_key = jax.random.split(key)
        begun = dataclasses.replace(told, memory=self._begin(begin_key, told, params))
        return self._select(select_key, begun)

    def _unexamined(
        self, population: jax.Array, fitness: jax.Array, violation: jax.Array | None, generation: jax.Array
    ) -> State:
        P = self.population_size
        return State(
            population=population,
            fitness=fitness.astype(jnp.float32),
            violation=jnp.zeros(P, jnp.float32) if violation is None else violation.astype(jnp.float32),
            ranks=jnp.zeros(P, jnp.int32),
            crowding=jnp.zeros(P, jnp.float32),
            merit=jnp.full(P, jnp.nan, jnp.float32),
            generation=generation,
        )

    def _check(self, population: jax.Array, fitness: jax.Array, violation: jax.Array | None) -> None:
        shape = (self.population_size, len(self.cardinalities))
        chex.assert_shape(population, shape, custom_message="population")
        chex.assert_type(population, jnp.int32, custom_message="population")
        assert_matrix("fitness", fitness)
        chex.assert_axis_dimension(fitness, 0, self.population_size, custom_message="fitness")
        if violation is not None:
            chex.assert_shape(violation, (self.population_size,), custom_message="violation")

    def _check_range(self, population: jax.Array) -> None:
        if isinstance(population, jax.core.Tracer):
            return
        genes = np.asarray(population)
        if (genes < 0).any() or (genes >= np.asarray(self.cardinalities)).any():
            raise ValueError(f"population: expected genes within 0 .. {self.cardinalities} - 1, got others")
