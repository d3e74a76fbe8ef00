"""What is NSGA-II's own; what all strategies satisfy stands in test_strategies.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import NSGA2, crowding_distance, non_dominated_ranks, sample

P = 33
CARDINALITIES = (6, 5, 4, 3)


def evaluate(genomes):
    """Three conflicting sums of whole numbers."""
    a, b, c, d = (genomes[:, g].astype(jnp.float32) for g in range(4))
    return jnp.stack([a + b + 2 * d, (5 - a) + 2 * (4 - b) + d, (3 - c) ** 2 + a + c], axis=1)


@pytest.fixture(scope="module")
def strategy():
    return NSGA2(population_size=P, cardinalities=CARDINALITIES)


@pytest.fixture(scope="module")
def begun(strategy):
    """All different, so that nothing is told apart by being repeated."""
    genomes = jnp.arange(P, dtype=jnp.int32)[:, None] // jnp.array([[3, 1, 1, 1]]) % jnp.array([CARDINALITIES])
    return strategy.init(jax.random.key(0), genomes, evaluate(genomes), strategy.default_params)


def test_survivors_are_the_best_by_rank_then_crowding(strategy, begun):
    genomes, _ = strategy.ask(jax.random.key(1), begun, strategy.default_params)
    after, _ = strategy.tell(jax.random.key(2), genomes, evaluate(genomes), begun, strategy.default_params)
    both = np.concatenate([begun.population, genomes])
    both = both[np.sort(np.unique(both, axis=0, return_index=True)[1])]
    fitness = evaluate(jnp.asarray(both))
    ranks = non_dominated_ranks(fitness)
    crowding = crowding_distance(fitness, ranks)
    best = np.lexsort((-np.asarray(crowding), np.asarray(ranks)))[:P]
    assert len(both) > P
    np.testing.assert_array_equal(after.ranks, ranks[best])
    np.testing.assert_allclose(after.crowding, crowding[best], rtol=1e-6)


def test_merit_decides_who_mates_and_not_who_survives(strategy, begun):
    still = strategy.default_params.replace(crossover_probability=jnp.float32(0), mutation_probability=jnp.float32(0))
    merit = jnp.full(P, jnp.nan).at[jnp.array([P - 1, P - 2])].set(jnp.array([2.0, 1.0]))
    preferred = strategy.prefer(begun, merit)
    asked = [strategy.ask(key, preferred, still)[0] for key in jax.random.split(jax.random.key(7), 100)]
    children = np.concatenate(asked)
    share = (children == np.asarray(begun.population)[[P - 1, P - 2]][:, None]).all(-1).mean(1)
    np.testing.assert_allclose(share, [(2 * P - 1) / P**2, (2 * P - 3) / P**2], atol=0.02)
    key = jax.random.key(8)
    genomes = sample(key, jnp.array(CARDINALITIES), size=P)
    plain, _ = strategy.tell(key, genomes, evaluate(genomes), begun, still)
    chosen, _ = strategy.tell(key, genomes, evaluate(genomes), preferred, still)
    np.testing.assert_array_equal(plain.population, chosen.population)
    assert np.isnan(plain.merit).all()


def test_survivors_keep_their_merit_and_offspring_have_none(strategy, begun):
    preferred = strategy.prefer(begun, jnp.arange(P, dtype=jnp.float32))
    genomes, _ = strategy.ask(jax.random.key(9), preferred, strategy.default_params)
    after, _ = strategy.tell(jax.random.key(9), genomes, evaluate(genomes), preferred, strategy.default_params)
    merits = dict(zip(map(tuple, begun.population.tolist()), range(P), strict=True))
    expected = [merits.get(tuple(genome), np.nan) for genome in after.population.tolist()]
    unique = np.asarray(after.ranks) < P
    np.testing.assert_array_equal(np.asarray(after.merit)[unique], np.array(expected)[unique])
    assert np.isnan(expected).any()


def test_no_violation_is_a_violation_of_zero(strategy, begun):
    genomes = begun.population[::-1]
    params = strategy.default_params
    explicit = strategy.init(jax.random.key(0), genomes, evaluate(genomes), params, violation=jnp.zeros(P))
    implicit = strategy.init(jax.random.key(0), genomes, evaluate(genomes), params)
    jax.tree.map(np.testing.assert_array_equal, explicit, implicit)
