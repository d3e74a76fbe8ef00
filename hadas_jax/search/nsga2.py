"""NSGA-II on integer genomes, in evosax's words: init, ask, tell.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002,
https://doi.org/10.1109/4235.996017. Selection is that of `Elitist`; merits (`prefer`) are those of HADAS,
https://arxiv.org/abs/2212.03354.
One key draws for a whole population, which is cheaper to run and several times cheaper to compile than a key for
every genome.
Shapes: P population, G genes, N pairs or children; gene g takes the values 0 .. cardinalities[g] - 1.
"""

import dataclasses
from functools import partial
from typing import ClassVar

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

    Attributes:
        mates_by_crowding: Whether the crowding decides between members of equal rank that were not examined.

    Examples:
        >>> import jax
        >>> from hadas_jax.search import NSGA2, sample
        >>> strategy = NSGA2(population_size=4, cardinalities=(3, 2))
        >>> strategy == NSGA2(population_size=4, cardinalities=(3, 2))
        True
    """

    mates_by_crowding: ClassVar[bool] = True

    @property
    def default_params(self) -> Params:
        """Crossover of 9 pairs in 10, mutation of one gene per genome on average (Deb et al. 2002)."""
        return Params(
            crossover_probability=jnp.float32(0.9),
            mutation_probability=jnp.float32(1 / len(self.cardinalities)),
        )

    @partial(jax.jit, static_argnames=("self",))
    def ask(self, key: jax.Array, state: State, params: Params) -> tuple[jax.Array, State]:
        """Breeds offspring: binary tournaments by merit, then rank, then crowding; uniform crossover; mutation.

        Args:
            key: Typed PRNG key.
            state: The current state.
            params: Probabilities.

        Returns:
            int32[P, G] to evaluate, and the state as it was.
        """
        size = self.population_size
        parent_key, vary_key = jax.random.split(key)
        cross_key, mutate_key = jax.random.split(vary_key)
        winners = _tournaments(parent_key, state, size + size % 2, by_crowding=self.mates_by_crowding)
        first, second = jnp.split(state.population[winners], 2)
        children = jnp.concatenate(_cross(cross_key, first, second, probability=params.crossover_probability))
        cardinalities = jnp.asarray(self.cardinalities, jnp.int32)
        children = _mutate(mutate_key, children, cardinalities, probability=params.mutation_probability)
        return children[:size], state


def _tournaments(key: jax.Array, state: State, count: int, *, by_crowding: bool) -> jax.Array:
    """Draws two members, with replacement, and keeps the better one, `count` times: int32[count].

    Examined members beat the others, the higher merit first; between equals the first drawn wins. Source: Deb et al.
    2002, the crowded-comparison operator.
    """
    examined = ~jnp.isnan(state.merit)
    ranks = jnp.where(examined, -1, state.ranks)
    room = state.crowding if by_crowding else jnp.zeros_like(state.crowding)
    preference = jnp.where(examined, state.merit, room)
    first, second = (jax.random.bits(key, (2, count)) % jnp.uint32(ranks.shape[0])).astype(jnp.int32)
    tie = ranks[second] == ranks[first]
    wins = (ranks[second] < ranks[first]) | (tie & (preference[second] > preference[first]))
    return jnp.where(wins, second, first)


def _cross(key: jax.Array, a: jax.Array, b: jax.Array, *, probability: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Crosses pairs [N, G]: with the given probability each gene is swapped or not by the toss of a coin."""
    draws = jax.random.uniform(key, (a.shape[0], a.shape[1] + 1))
    swap = (draws[:, :1] < probability) & (draws[:, 1:] < 0.5)
    return jnp.where(swap, b, a), jnp.where(swap, a, b)


def _mutate(key: jax.Array, genomes: jax.Array, cardinalities: jax.Array, *, probability: jax.Array) -> jax.Array:
    """Redraws each gene of [N, G], with the given probability, to another of its values, if it has others."""
    values = jnp.broadcast_to(cardinalities, genomes.shape)
    whether, where = jax.random.bits(key, (2, *genomes.shape))
    chosen = ((whether >> 8).astype(jnp.float32) * _UNIT < probability) & (values > 1)
    other = (where % jnp.maximum(values - 1, 1).astype(jnp.uint32)).astype(jnp.int32)
    return jnp.where(chosen, other + (other >= genomes).astype(jnp.int32), genomes)
