"""NSGA-II on integer genomes, in evosax's words: init, ask, tell.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017. Selection is that of `Elitist`; merits (`prefer`) are those of HADAS,
https://arxiv.org/abs/2212.03354.
Shapes: P population, G genes.

Variation of integer genomes: sampling, crossover, mutation, tournament.

One key draws for all leading axes, independently for each genome: a population costs one call of the generator,
which is cheaper to run and several times cheaper to compile than a key for every genome.
Shapes: G genes; gene g takes the values 0 .. cardinalities[g] - 1; ... any leading axes.
"""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.strategy import Elitist, State

_UNIT = 2.0**-24


def sample(key: jax.Array, cardinalities: jax.Array, *, size: int) -> jax.Array:
    """Draws genomes with every gene uniform over its values.

    Args:
        key: Typed PRNG key.
        cardinalities: int32[G], each at least 1.
        size: How many genomes.

    Returns:
        int32[size, G].
    """
    top = jnp.broadcast_to(cardinalities[None, :], (size, cardinalities.shape[0]))
    return jax.random.randint(key, top.shape, 0, top, jnp.int32)


def uniform_crossover(
    key: jax.Array, a: jax.Array, b: jax.Array, *, probability: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Crosses pairs of genomes: with the given probability each gene is swapped or not by the toss of a coin.

    Args:
        key: Typed PRNG key.
        a: int32[..., G].
        b: int32[..., G].
        probability: float32[], that a pair is crossed at all; otherwise both children are copies.

    Returns:
        int32[..., G], int32[..., G]: two children that together hold the parents' genes.

    Raises:
        AssertionError: If the shapes of a and b differ.
    """
    chex.assert_shape(b, a.shape, custom_message="b")
    draws = jax.random.uniform(key, (*a.shape[:-1], a.shape[-1] + 1))
    swap = (draws[..., :1] < probability) & (draws[..., 1:] < 0.5)
    return jnp.where(swap, b, a), jnp.where(swap, a, b)


def mutate(key: jax.Array, genome: jax.Array, cardinalities: jax.Array, *, probability: jax.Array | float) -> jax.Array:
    """Redraws each gene, with the given probability, to another of its values.

    Args:
        key: Typed PRNG key.
        genome: int32[..., G].
        cardinalities: int32[G]; genes of cardinality 1 stay.
        probability: float32[], per gene.

    Returns:
        int32[..., G]: a gene that was redrawn differs from what it was, all other values being equally likely
            (to one part in 2^32 / cardinality).

    Raises:
        AssertionError: If the shapes of genome and cardinalities differ.
    """
    chex.assert_shape(cardinalities, genome.shape[-1:], custom_message="cardinalities")
    values = jnp.broadcast_to(cardinalities, genome.shape)
    whether, where = jax.random.bits(key, (2, *genome.shape))
    chosen = ((whether >> 8).astype(jnp.float32) * _UNIT < probability) & (values > 1)
    other = (where % jnp.maximum(values - 1, 1).astype(jnp.uint32)).astype(jnp.int32)
    return jnp.where(chosen, other + (other >= genome).astype(jnp.int32), genome)


def tournament(key: jax.Array, ranks: jax.Array, crowding: jax.Array, *, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draws two members, with replacement, and keeps the better one, as often as asked.

    Args:
        key: Typed PRNG key.
        ranks: int32[P], the lower wins.
        crowding: float32[P], the higher wins between equal ranks; between equals the first drawn wins.
        shape: Of the result, one tournament for each element.

    Returns:
        int32[*shape]: indices of the winners.

    Raises:
        AssertionError: If the shapes of ranks and crowding differ.

    Source: Deb et al. 2002 (https://doi.org/10.1109/4235.996017), the crowded-comparison operator.
    """
    chex.assert_shape(crowding, ranks.shape, custom_message="crowding")
    first, second = (jax.random.bits(key, (2, *shape)) % jnp.uint32(ranks.shape[0])).astype(jnp.int32)
    tie = ranks[second] == ranks[first]
    wins = (ranks[second] < ranks[first]) | (tie & (crowding[second] > crowding[first]))
    return jnp.where(wins, second, first)


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
            key: Typed PRNG key.
            state: The current state.
            params: Probabilities.

        Returns:
            int32[P, G] to evaluate, and the state as it was.
        """
        return mate(key, state, params, crowding=state.crowding, cardinalities=self.cardinalities), state


def mate(
    key: jax.Array, state: State, params: Params, *, crowding: jax.Array, cardinalities: tuple[int, ...]
) -> jax.Array:
    """Breeds as many offspring as there are members: tournaments by merit, then rank, then crowding.

    Args:
        key: Typed PRNG key.
        state: Whose members mate.
        params: Probabilities.
        crowding: float32[P], the higher wins between members of equal rank that were not examined.
        cardinalities: Of the G genes, static.

    Returns:
        int32[P, G].
    """
    parent_key, vary_key = jax.random.split(key)
    examined = ~jnp.isnan(state.merit)
    ranks = jnp.where(examined, -1, state.ranks)
    preference = jnp.where(examined, state.merit, crowding)
    size = state.population.shape[0]
    parents = state.population[tournament(parent_key, ranks, preference, shape=(size + size % 2,))]
    return _breed(vary_key, parents, params, cardinalities=cardinalities)[:size]


def _breed(key: jax.Array, parents: jax.Array, params: Params, *, cardinalities: tuple[int, ...]) -> jax.Array:
    """Crosses the first half of parents with the second, and mutates the children.

    Args:
        key: Typed PRNG key.
        parents: int32[2 N, G].
        params: Probabilities.
        cardinalities: Of the G genes, static.

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
