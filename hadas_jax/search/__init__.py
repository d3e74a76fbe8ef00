"""Search that knows no networks and no hardware: Pareto tools, NSGA-II, exact search over products.

Objectives are minimised everywhere; a NaN is worse than any number. Shapes: P population, M objectives, G
genes.

Examples:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from hadas_jax.search import NSGA2, sample
    >>> def evaluate(genomes):
    ...     a, b = genomes[:, 0].astype(jnp.float32), genomes[:, 1].astype(jnp.float32)
    ...     return jnp.stack([a + b, (9 - a) + b], axis=1)
    >>> strategy = NSGA2(population_size=16, cardinalities=(10, 10))
    >>> params = strategy.default_params
    >>> population = sample(jax.random.key(0), jnp.array(strategy.cardinalities), size=16)
    >>> state = strategy.init(jax.random.key(1), population, evaluate(population), params)
    >>> for key in jax.random.split(jax.random.key(2), 30):
    ...     population, state = strategy.ask(key, state, params)
    ...     state, metrics = strategy.tell(key, population, evaluate(population), state, params)
    >>> int(metrics["front_size"])
    10

    `run` does the same as one compiled function.
"""

from hadas_jax.search.evosax import Scalarised
from hadas_jax.search.indicators import hypervolume, hypervolume_estimate, igd_plus
from hadas_jax.search.nsga2 import NSGA2, Params, sample
from hadas_jax.search.nsga3 import NSGA3
from hadas_jax.search.pareto import (
    Archive,
    crowding_distance,
    insert,
    non_dominated_mask,
    non_dominated_ranks,
    ratio_of_dominance,
    truncate,
)
from hadas_jax.search.product import Product, product_front
from hadas_jax.search.relaxed import RelaxedParams, relaxed_search
from hadas_jax.search.run import run
from hadas_jax.search.strategies import RandomSearch, load_strategy
from hadas_jax.search.strategy import Elitist, State
from hadas_jax.search.surrogate import Surrogate

__all__ = [
    "NSGA2",
    "NSGA3",
    "Archive",
    "Elitist",
    "Params",
    "Product",
    "RandomSearch",
    "RelaxedParams",
    "Scalarised",
    "State",
    "Surrogate",
    "crowding_distance",
    "hypervolume",
    "hypervolume_estimate",
    "igd_plus",
    "insert",
    "load_strategy",
    "non_dominated_mask",
    "non_dominated_ranks",
    "product_front",
    "ratio_of_dominance",
    "relaxed_search",
    "run",
    "sample",
    "truncate",
]
