"""A whole search as one compiled function, which never leaves the device.

Batch over seeds with `jax.vmap` over the key; over many devices the population is split by a sharding.
Shapes: P population, M objectives, G genes, T generations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from hadas_jax.search.nsga2 import sample
from hadas_jax.search.strategy import Elitist, Metrics, State

# Genomes int32[P, G] -> objectives float32[P, M], or these and the violation float32[P] of each genome.
Evaluate = Callable[[jax.Array], Any]


@partial(jax.jit, static_argnames=("strategy", "evaluate", "generations", "sharding"))
def run(
    strategy: Elitist,
    evaluate: Evaluate,
    key: jax.Array,
    generations: int,
    *,
    params: Any = None,
    population: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> tuple[State, Metrics]:
    """Evaluates a first population, then breeds, evaluates and selects so many times.

    Args:
        strategy: Any of this package, so any algorithm of evosax too; static.
        evaluate: A traceable function, genomes int32[P, G] -> objectives float32[P, M], or a pair of these and how much
            each genome breaks its constraints, float32[P]; static: pass the same function, and nothing compiles anew.
        key: Typed PRNG key.
        generations: T, after the first population; static.
        params: Of the strategy; None for its defaults.
        population: int32[P, G], the first population; None for a random one.
        sharding: Of genomes over devices, such as `NamedSharding(mesh, PartitionSpec("population"))`, so that each
            evaluates its share; selection sees all. None leaves it to the compiler. Static.

    Returns:
        The last state, and the metrics of `tell` with a leading axis T.

    Raises:
        ValueError: Fewer than no generations.
        AssertionError: For a wrong shape or dtype of what `evaluate` returns.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from hadas_jax.search import NSGA2, run
        >>> def evaluate(genomes):
        ...     a, b = genomes.T.astype(jnp.float32)
        ...     return jnp.stack([a + b, (9 - a) + b], axis=1)
        >>> strategy = NSGA2(population_size=16, cardinalities=(10, 10))
        >>> state, metrics = run(strategy, evaluate, jax.random.key(0), 30)
        >>> [int(size) for size in metrics["front_size"][-2:]]
        [10, 10]
        >>> seeds = jax.vmap(lambda key: run(strategy, evaluate, key, 30)[0])(jax.random.split(jax.random.key(1), 4))
        >>> seeds.population.shape
        (4, 16, 2)
    """
    if generations < 0:
        raise ValueError(f"generations: expected at least 0, got {generations}")
    params = strategy.default_params if params is None else params
    draw_key, init_key, run_key = jax.random.split(key, 3)
    if population is None:
        cardinalities = jnp.asarray(strategy.cardinalities, jnp.int32)
        population = sample(draw_key, cardinalities, size=strategy.population_size)

    def generation(state: State, key: jax.Array) -> tuple[State, Metrics]:
        ask_key, tell_key = jax.random.split(key)
        genomes, state = strategy.ask(ask_key, state, params)
        fitness, violation = _evaluated(evaluate, genomes, sharding)
        return strategy.tell(tell_key, genomes, fitness, state, params, violation=violation)

    fitness, violation = _evaluated(evaluate, population, sharding)
    state = strategy.init(init_key, population, fitness, params, violation=violation)
    return jax.lax.scan(generation, state, jax.random.split(run_key, generations))


def _evaluated(
    evaluate: Evaluate, genomes: jax.Array, sharding: NamedSharding | None
) -> tuple[jax.Array, jax.Array | None]:
    """Objectives and violation of genomes, spread over devices for that and gathered again."""
    if sharding is not None:
        genomes = jax.lax.with_sharding_constraint(genomes, sharding)
    found = evaluate(genomes)
    fitness, violation = found if isinstance(found, tuple) else (found, None)
    if sharding is None:
        return fitness, violation
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, everywhere), (fitness, violation))
