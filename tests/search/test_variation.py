import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import first_occurrences, mutate, sample, tournament, uniform_crossover

CARDINALITIES = jnp.array([1, 2, 3, 29, 14, 1], jnp.int32)
COUNT = 4000


@jax.jit
def mutants(seed, genomes, probability):
    return mutate(jax.random.key(seed), genomes, CARDINALITIES, probability=probability)


def test_samples_cover_every_value_and_no_other():
    genomes = np.asarray(sample(jax.random.key(0), CARDINALITIES, size=COUNT))
    assert genomes.dtype == np.int32
    for gene, cardinality in zip(genomes.T, CARDINALITIES, strict=True):
        np.testing.assert_array_equal(np.unique(gene), np.arange(cardinality))


def test_mutation_with_certainty_changes_every_gene_that_can_change():
    genomes = sample(jax.random.key(0), CARDINALITIES, size=COUNT)
    mutated = np.asarray(mutants(1, genomes, 1.0))
    assert ((mutated != np.asarray(genomes)) == (np.asarray(CARDINALITIES) > 1)).all()
    assert ((mutated >= 0) & (mutated < np.asarray(CARDINALITIES))).all()


def test_mutation_draws_all_other_values_alike():
    genomes = jnp.broadcast_to(CARDINALITIES[None] - 1, (COUNT, 6))
    mutated = np.asarray(mutants(2, genomes, 1.0))
    counts = np.bincount(mutated[:, 4], minlength=14)
    assert counts[13] == 0
    np.testing.assert_allclose(counts[:13], COUNT / 13, atol=5 * np.sqrt(COUNT / 13))


def test_mutation_changes_the_given_share_of_genes_each_by_itself():
    genomes = sample(jax.random.key(0), CARDINALITIES, size=COUNT)
    changed = np.asarray(mutants(3, genomes, 0.3) != genomes)[:, 1:5]
    np.testing.assert_allclose(changed.mean(0), 0.3, atol=0.04)
    assert np.abs(np.corrcoef(changed.T) - np.eye(4)).max() < 0.08
    assert (np.asarray(mutants(3, genomes, 0.0)) == genomes).all()


def test_crossover_keeps_the_genes_of_a_pair_together_and_crosses_the_given_share():
    a, b = jnp.zeros((COUNT, 20), jnp.int32), jnp.ones((COUNT, 20), jnp.int32)
    cross = jax.jit(lambda key: uniform_crossover(key, a, b, probability=0.7))
    first, second = map(np.asarray, cross(jax.random.key(4)))
    np.testing.assert_array_equal(first + second, 1)
    crossed = first.any(1)
    np.testing.assert_allclose(crossed.mean(), 0.7, atol=0.04)
    np.testing.assert_allclose(first[crossed].mean(0), 0.5, atol=0.06)
    assert len(np.unique(first[crossed], axis=0)) > 0.98 * crossed.sum()


def test_the_tournament_prefers_rank_then_room_and_reaches_everybody():
    ranks = jnp.array([0, 0, 1], jnp.int32)
    crowding = jnp.array([1.0, 2.0, jnp.inf])
    winners = jax.jit(lambda key: tournament(key, ranks, crowding, shape=(2, COUNT // 2)))(jax.random.key(5))
    assert winners.shape == (2, COUNT // 2)
    assert (winners[0] != winners[1]).any()
    share = np.bincount(winners.ravel(), minlength=3) / COUNT
    np.testing.assert_allclose(share, [3 / 9, 5 / 9, 1 / 9], atol=0.04)


def test_a_tournament_of_one_is_won_by_that_one():
    assert tournament(jax.random.key(0), jnp.zeros(1, jnp.int32), jnp.zeros(1)) == 0


def test_a_batch_of_keys_equals_one_genome_at_a_time():
    genomes = sample(jax.random.key(0), CARDINALITIES, size=3)
    keys = jax.random.split(jax.random.key(10), 3)

    def vary(key, genome):
        return mutate(key, genome, CARDINALITIES, probability=0.5)

    alone = [vary(key, genome) for key, genome in zip(keys, genomes, strict=True)]
    np.testing.assert_array_equal(jax.vmap(vary)(keys, genomes), alone)


@pytest.mark.parametrize("cardinalities", [(2, 3, 2), (2**16, 2**16, 2), (2**31 - 1, 2, 2**31 - 1)])
def test_first_occurrences_are_those_of_a_set(cardinalities):
    rng = np.random.default_rng(6)
    genomes = rng.integers(0, cardinalities, (50, 3)).astype(np.int32)
    genomes[25:] = genomes[rng.integers(0, 30, 25)]
    seen: set[tuple[int, ...]] = set()
    expected = [not (tuple(g) in seen or seen.add(tuple(g))) for g in genomes.tolist()]
    np.testing.assert_array_equal(first_occurrences(jnp.asarray(genomes), cardinalities), expected)


class TestOperatorsWithAndWithoutJit(chex.TestCase):
    """Both give what the operators, called one after another, give."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_operators_are_the_same(self):
        key = jax.random.key(9)
        a, b = sample(key, CARDINALITIES, size=2)
        ranks, crowding = jnp.array([0, 1, 0], jnp.int32), jnp.array([1.0, 2.0, 3.0])

        def once():
            children = uniform_crossover(key, a, b, probability=0.9)
            mutant = mutate(key, a, CARDINALITIES, probability=0.5)
            return children, mutant, tournament(key, ranks, crowding)

        chex.assert_trees_all_equal(self.variant(once)(), once())


def test_shapes_that_do_not_fit_are_refused():
    genome = jnp.zeros(3, jnp.int32)
    with pytest.raises(AssertionError, match=r"\[cardinalities\]"):
        mutate(jax.random.key(0), genome, jnp.ones(2, jnp.int32), probability=0.1)
    with pytest.raises(AssertionError, match=r"\[b\]"):
        uniform_crossover(jax.random.key(0), genome, genome[:2], probability=0.1)
    with pytest.raises(AssertionError, match=r"\[crowding\]"):
        tournament(jax.random.key(0), genome, jnp.zeros(2))
    with pytest.raises(AssertionError, match=r"\[genome\]"):
        first_occurrences(genome[None], (2, 2))
