"""All search strategies by name.

evosax is imported only when one of its algorithms, or the list of names, is asked for.

Random search: uniform genomes, of which the best are kept. What every other strategy must beat.

Shapes: P population, G genes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from hadas_jax.search.evosax import Scalarised, algorithm_names
from hadas_jax.search.nsga2 import NSGA2, sample
from hadas_jax.search.nsga3 import NSGA3
from hadas_jax.search.strategy import Elitist, State


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
            key: Typed PRNG key.
            state: The current state.
            params: ().

        Returns:
            int32[P, G] to evaluate, and the state as it was.
        """
        del params
        return sample(key, jnp.asarray(self.cardinalities, jnp.int32), size=self.population_size), state


_OWN: dict[str, Callable[[int, tuple[int, ...]], Elitist]] = {
    "NSGA2": NSGA2,
    "NSGA3": NSGA3,
    "RandomSearch": RandomSearch,
}


def check_strategy(name: str) -> None:
    """Raises unless a strategy has this name; asks evosax only if it must.

    Args:
        name: Of a strategy of this package, or of an algorithm of evosax by its class name.

    Raises:
        ValueError: With all names.
    """
    if name not in _OWN and name not in algorithm_names():
        raise ValueError(f"strategy: expected one of {', '.join((*_OWN, *algorithm_names()))}, got {name!r}")


def load_strategy(name: str, *, population_size: int, cardinalities: Sequence[int]) -> Elitist:
    """Builds a strategy at its usual settings.

    Args:
        name: As for `check_strategy`; evosax's algorithms are wrapped in `Scalarised`.
        population_size: P.
        cardinalities: Number of values of each of the G genes.

    Returns:
        The strategy.

    Raises:
        ValueError: For an unknown name, or sizes that the strategy cannot work with.
    """
    check_strategy(name)
    sizes = tuple(cardinalities)
    return _OWN[name](population_size, sizes) if name in _OWN else Scalarised(population_size, sizes, algorithm=name)
