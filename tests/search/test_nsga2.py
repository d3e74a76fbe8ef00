"""What is NSGA-II's own; what all strategies satisfy stands in test_strategies.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import NSGA2, State, crowding_distance, non_dominated_ranks, sample
from hadas_jax.search.nsga2 import Params

P = 33
CARDINALITIES = (6, 5, 4, 3)
MANY, FREE = 4002, slice(6, None)
BREEDER = NSGA2(MANY, (1, 2, 3, 29, 14, 1, *[2] * 20))
LAST = np.array(BREEDER.cardinalities, np.int32) - 1


def bred(seed, population, *, crossed=0.0, mutated=0.0, ranks=None, crowding=None, merit=None):
    """Offspring of members that are alike unless said otherwise; one compilation for all."""
    state = State(
        population=jnp.asarray(np.broadcast_to(population, (MANY, len(LAST))), jnp.int32),
        fitness=jnp.zeros((MANY, 1)),
        violation=jnp.zeros(MANY),
        ranks=jnp.asarray(np.zeros(MANY) if ranks is None else ranks, jnp.int32),
        crowding=jnp.asarray(np.zeros(MANY) if crowding is None else crowding, jnp.float32),
        merit=jnp.asarray(np.full(MANY, np.nan) if merit is None else merit, jnp.float32),
        generation=jnp.int32(0),
    )
    params = Params(crossover_probability=jnp.float32(crossed), mutation_probability=jnp.float32(mutated))
    return np.asarray(BREEDER.ask(jax.random.key(seed), state, params)[0])


def test_samples_cover_every_value_and_no_other():
    genomes = np.asarray(sample(jax.random.key(0), jnp.asarray(LAST + 1), size=MANY))
    assert genomes.dtype == np.int32
    for gene, last in zip(genomes.T, LAST, strict=True):
        np.testing.assert_array_equal(np.unique(gene), np.arange(last + 1))


def test_certain_mutation_changes_every_gene_that_can_change_to_any_other_value_alike():
    mutated = bred(1, LAST, mutated=1.0)
    assert ((mutated != LAST) == (LAST > 0)).all()
    assert ((mutated >= 0) & (mutated <= LAST)).all()
    counts = np.bincount(mutated[:, 4], minlength=14)
    np.testing.assert_allclose(counts[:13], MANY / 13, atol=5 * np.sqrt(MANY / 13))


def test_mutation_changes_the_given_share_of_genes_each_by_itself():
    changed = (bred(3, LAST, mutated=0.3) != LAST)[:, 1:5]
    np.testing.assert_allclose(changed.mean(0), 0.3, atol=0.04)
    assert np.abs(np.corrcoef(changed.T) - np.eye(4)).max() < 0.08
    assert (bred(3, LAST) == LAST).all()


def test_crossover_keeps_the_genes_of_a_pair_together_and_crosses_the_given_share():
    members = np.zeros((MANY, len(LAST)), np.int32)
    members[::2, FREE] = 1
    first, second = np.split(bred(4, members, crossed=0.7)[:, FREE], 2)
    differ = (first + second).max(1) == 1
    assert ((first + second)[differ] == 1).all()
    assert (first == second)[~differ].all()
    crossed = differ & (first.min(1) != first.max(1))
    np.testing.assert_allclose(crossed.sum() / differ.sum(), 0.7, atol=0.05)
    np.testing.assert_allclose(first[crossed].mean(0), 0.5, atol=0.08)
    assert len(np.unique(first[crossed], axis=0)) > 0.98 * crossed.sum()


@pytest.mark.parametrize(
    ("merit", "shares"),
    [([np.nan] * 3, [3, 5, 1]), ([np.nan, 2.0, 1.0], [1, 5, 3]), ([np.nan, np.nan, 0.0], [1, 3, 5])],
)
def test_members_with_merit_mate_first_then_those_of_low_rank_then_those_with_room(merit, shares):
    kind = np.arange(MANY) % 3
    members = np.where(np.arange(len(LAST)) == 3, kind[:, None], 0)
    room, merit = np.array([1.0, 2.0, np.inf])[kind], np.array(merit)[kind]
    winners = bred(5, members, ranks=kind == 2, crowding=room, merit=merit)[:, 3]
    np.testing.assert_allclose(np.bincount(winners, minlength=3) / MANY, np.array(shares) / 9, atol=0.04)


def evaluate(genomes):
    """Three conflicting sums of whole numbers."""
    a, b, c, d = np.asarray(genomes, np.float32).T
    return jnp.asarray(np.stack([a + b + 2 * d, (5 - a) + 2 * (4 - b) + d, (3 - c) ** 2 + a + c], axis=1))


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
    fitness = evaluate(both)
    ranks = non_dominated_ranks(fitness)
    crowding = crowding_distance(fitness, ranks)
    best = np.lexsort((-np.asarray(crowding), np.asarray(ranks)))[:P]
    assert len(both) > P
    np.testing.assert_array_equal(after.ranks, ranks[best])
    np.testing.assert_allclose(after.crowding, crowding[best], rtol=1e-6)


def test_merit_does_not_decide_who_survives(strategy, begun):
    params = strategy.default_params
    preferred = strategy.prefer(begun, jnp.full(P, jnp.nan).at[jnp.array([P - 1, P - 2])].set(jnp.array([2.0, 1.0])))
    key = jax.random.key(8)
    genomes = sample(key, jnp.array(CARDINALITIES), size=P)
    plain, _ = strategy.tell(key, genomes, evaluate(genomes), begun, params)
    chosen, _ = strategy.tell(key, genomes, evaluate(genomes), preferred, params)
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
    params = strategy.default_params
    explicit = strategy.init(
        jax.random.key(0), begun.population, evaluate(begun.population), params, violation=jnp.zeros(P)
    )
    implicit = strategy.init(jax.random.key(0), begun.population, evaluate(begun.population), params)
    jax.tree.map(np.testing.assert_array_equal, explicit, implicit)
