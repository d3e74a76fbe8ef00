"""NSGA-II on integer genomes, in evosax's words: init, ask, tell.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017. Selection is that of `Elitist`; merits (`prefer`) are those of HADAS,
https://arxiv.org/abs/2212.03354.
Shapes: P population, G genes.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.strategy import Elitist, State
from hadas_jax.search.variation import mutate, tournament, uniform_crossover


@struct.dataclass
class Params:
    """What a user may sweep.

    Attributes:
        crossover_probability: float32[], that a pair of parents is crossed.
        mutation_probability: float32[], that a gene is redrawn.
    """

    crossover_probability: jax.Array
    mutation_probability: jax.Array


@dataclasses.dataclass(frozen=True)
class NSGA2(Elitist):
    """The strategy; see `Elitist` for init, tell and prefer.

    Examples:
        >>> import jax
        >>> from hadas_jax.search import NSGA2, sample
        >>> strategy = NSGA2(population_size=4, cardinalities=(3, 2))
        >>> strategy == NSGA2(population_size=4, cardinalities=(3, 2))
        True
    """

    @property
    def default_params(self) -> Params:
        """Crossover of 9 pairs in 10, mutation of one gene per genome on average (Deb et al. 2002)."""
        return Params(
            crossover_probability=jnp.float32(0.9),
            mutation_probability=jnp.float32(1 / len(self.cardinalities)),
        )

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
        return mate(key, state, params, crowding=state.crowding, cardinalities=self.cardinalities), state


def mate(
    key: jax.Array, state: State, params: Params, *, crowding: jax.Array, cardinalities: tuple[int, ...]
) -> jax.Array:
    """Breeds as many offspring as there are members: tournaments by merit, then rank, then crowding.

    Args:
        key: typed PRNG key.
        state: whose members mate.
        params: probabilities.
        crowding: float32[P], the higher wins between members of equal rank that were not examined.
        cardinalities: of the G genes, static.

    Returns:
        int32[P, G].
    """
    parent_key, vary_key = jax.random.split(key)
    examined = ~jnp.isnan(state.merit)
    ranks = jnp.where(examined, -1, state.ranks)
    preference = jnp.where(examined, state.merit, crowding)
    size = state.population.shape[0]
    parents = state.population[tournament(parent_key, ranks, preference, shape=(size + size % 2,))]
    return breed(vary_key, parents, params, cardinalities=cardinalities)[:size]


def breed(key: jax.Array, parents: jax.Array, params: Params, *, cardinalities: tuple[int, ...]) -> jax.Array:
    """Crosses the first half of parents with the second, and mutates the children.

    Args:
        key: typed PRNG key.
        parents: int32[2 N, G].
        params: probabilities.
        cardinalities: of the G genes, static.

    Returns:
        int32[2 N, G].
    """
    count = parents.shape[0]
    cross_key, mutate_key = jax.random.split(key)
    a, b = uniform_crossover(
        cross_key, parents[: count // 2], parents[count // 2 :], probability=params.crossover_probability
    )
    return mutate(
        mutate_key,
        jnp.concatenate([a, b]),
        jnp.asarray(cardinalities, jnp.int32),
        probability=params.mutation_probability,
    )
