"""All search strategies by name.

evosax is imported only when one of its algorithms, or the list of names, is asked for.
"""

from collections.abc import Callable, Sequence

from hadas_jax.search.evosax_algorithms import algorithm_names
from hadas_jax.search.nsga2 import NSGA2
from hadas_jax.search.nsga3 import NSGA3
from hadas_jax.search.random_search import RandomSearch
from hadas_jax.search.scalarised import Scalarised
from hadas_jax.search.strategy import Elitist

_OWN: dict[str, Callable[[int, tuple[int, ...]], Elitist]] = {
    "NSGA2": NSGA2,
    "NSGA3": NSGA3,
    "RandomSearch": RandomSearch,
}


def strategy_names() -> tuple[str, ...]:
    """The strategies of this package, then those of evosax by their class names."""
    return (*_OWN, *algorithm_names())


def is_strategy(name: str) -> bool:
    """Whether a strategy has this name; asks evosax only if it must."""
    return name in _OWN or name in algorithm_names()


def load_strategy(name: str, *, population_size: int, cardinalities: Sequence[int]) -> Elitist:
    """Builds a strategy at its usual settings.

    Args:
        name: one of `strategy_names()`; evosax's algorithms are wrapped in `Scalarised`.
        population_size: P.
        cardinalities: number of values of each of the G genes.

    Returns:
        The strategy.

    Raises:
        ValueError: for an unknown name, or sizes that the strategy cannot work with.
    """
    sizes = tuple(cardinalities)
    if name in _OWN:
        return _OWN[name](population_size, sizes)
    if name not in strategy_names():
        raise ValueError(f"name: expected one of {', '.join(strategy_names())}, got {name}")
    return Scalarised(population_size, sizes, algorithm=name)
