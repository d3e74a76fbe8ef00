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
"""

from hadas_jax.search.evosax import Scalarised
from hadas_jax.search.indicators import hypervolume, hypervolume_estimate, igd_plus, ratio_of_dominance
from hadas_jax.search.nsga2 import NSGA2, Params, mutate, sample, tournament, uniform_crossover
from hadas_jax.search.nsga3 import NSGA3
from hadas_jax.search.pareto import (
    Archive,
    crowding_distance,
    empty_archive,
    first_occurrences,
    insert,
    non_dominated_mask,
    non_dominated_ranks,
    truncate,
)
from hadas_jax.search.product import Product, grid_hypervolume
from hadas_jax.search.product_front import ProductFront, listed_front, product_front, whole_product_front
from hadas_jax.search.relaxed import Descents, RelaxedParams, logits_of, relaxed_search
from hadas_jax.search.strategies import RandomSearch, is_strategy, load_strategy, strategy_names
from hadas_jax.search.strategy import Elitist, State
from hadas_jax.search.surrogate import Surrogate, SurrogateState

__all__ = [
    "NSGA2",
    "NSGA3",
    "Archive",
    "Descents",
    "Elitist",
    "Params",
    "Product",
    "ProductFront",
    "RandomSearch",
    "RelaxedParams",
    "Scalarised",
    "State",
    "Surrogate",
    "SurrogateState",
    "crowding_distance",
    "empty_archive",
    "first_occurrences",
    "grid_hypervolume",
    "hypervolume",
    "hypervolume_estimate",
    "igd_plus",
    "insert",
    "is_strategy",
    "listed_front",
    "load_strategy",
    "logits_of",
    "mutate",
    "non_dominated_mask",
    "non_dominated_ranks",
    "product_front",
    "ratio_of_dominance",
    "relaxed_search",
    "sample",
    "strategy_names",
    "tournament",
    "truncate",
    "uniform_crossover",
    "whole_product_front",
]
