"""Random search: uniform genomes, of which the best are kept. What every other strategy must beat.

Shapes: P population, G genes.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.search.strategy import Elitist, State
from hadas_jax.search.variation import sample


@dataclasses.dataclass(frozen=True)
class RandomSearch(Elitist):
    """The strategy; see `Elitist` for init, tell and prefer. Merits have no effect."""

    @property
    def default_params(self) -> tuple[()]:
        """Nothing to sweep."""
        return ()

    @partial(jax.jit, static_argnames=("self",))
    def ask(self, key: jax.Array, state: State, params: tuple[()]) -> tuple[jax.Array, State]:
        """Draws genomes with every gene uniform over its values.

        Args:
            key: typed PRNG key.
            state: the current state.
            params: ().

        Returns:
            int32[P, G] to evaluate, and the state as it was.
        """
        del params
        return sample(key, jnp.asarray(self.cardinalities, jnp.int32), size=self.population_size), state
