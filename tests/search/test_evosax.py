"""What is `Scalarised`'s own; what all strategies satisfy stands in test_strategies.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.search import sample
from hadas_jax.search.evosax import Logits, RandomKeys, Scalarised, achievement, algorithm_names

CARDINALITIES = (6, 1, 4, 3)
LARGE = (2**20, 2, 1000, 1)
WEIGHTS = jnp.array([0.7, 0.3, 0.0])
FRAME = (WEIGHTS, jnp.array([1.0, -1.0, 0.0]), jnp.array([2.0, 1.0, 100.0]))
numbers = st.floats(-1000, 1000, width=32)


@jax.jit
def score(fitness, violation=0.0):
    return achievement(jnp.asarray(fitness, jnp.float32), jnp.asarray(violation, jnp.float32), *FRAME)


def evaluate(genomes):
    x = genomes.astype(jnp.float32)
    return jnp.stack([x.sum(axis=1), (5 - x[:, 0]) + (3 - x[:, 2])], axis=1)


@given(st.lists(numbers, min_size=3, max_size=3), st.integers(0, 2))
def test_a_score_falls_with_every_objective_even_beyond_the_ideal(fitness, which):
    better = np.array(fitness, np.float32)
    better[which] -= 5 * np.asarray(FRAME[2])[which]
    assert score(better) < score(np.array(fitness, np.float32))
    assert -1 <= score(better) <= 1


@given(st.lists(st.sampled_from([-np.inf, -3e38, 0.0, 3e38, np.inf]), min_size=3, max_size=3))
def test_scores_are_finite_and_violations_and_nan_come_last(fitness):
    violations = np.float32([0, 1e-30, 1e-6, 1.0, 1.001, 50, 1e30, np.inf, np.nan])
    scores = np.array([score(np.float32(fitness), v) for v in violations])
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()
    assert score(np.float32([*fitness[:2], np.nan])) == scores[-1]


@pytest.mark.parametrize("encoding", [RandomKeys(CARDINALITIES), Logits(CARDINALITIES), RandomKeys(LARGE)])
def test_every_genome_is_what_its_point_decodes_to(encoding):
    genomes = sample(jax.random.key(0), jnp.array(encoding.cardinalities), size=500)
    genomes = genomes.at[0].set(0).at[1].set(jnp.array(encoding.cardinalities) - 1)
    points = jax.vmap(encoding.encode)(genomes)
    assert points.shape == (500, encoding.size)
    np.testing.assert_array_equal(jax.vmap(encoding.decode)(points), genomes)


@pytest.mark.parametrize("encoding", [RandomKeys(CARDINALITIES), Logits(CARDINALITIES)])
def test_every_point_decodes_to_a_genome_in_range_and_folds_to_one_that_decodes_alike(encoding):
    points = 3 * jax.random.normal(jax.random.key(1), (1000, encoding.size))
    extreme = jnp.array([0.0, 1.0, -1.0, 2.0, 1e-9, 1 - 2.0**-24, 3e38, -jnp.inf, jnp.inf, jnp.nan])
    points = points.at[:10].set(jnp.broadcast_to(extreme[:, None], (10, encoding.size)))
    genomes = np.asarray(jax.vmap(encoding.decode)(points))
    assert ((genomes >= 0) & (genomes < CARDINALITIES)).all()
    assert all(len(np.unique(genomes[:, g])) == c for g, c in enumerate(CARDINALITIES))
    folded = jax.vmap(encoding.fold)(points)
    np.testing.assert_array_equal(jax.vmap(encoding.decode)(folded), genomes)


def test_random_keys_are_mirrored_so_that_genes_change_by_steps():
    encoding = RandomKeys((5,))
    values = [int(encoding.decode(jnp.array([x]))[0]) for x in np.arange(-1.9, 2.9, 0.2, np.float32)]
    assert set(np.abs(np.diff(values))) == {0, 1}
    with pytest.raises(ValueError, match=r"cardinalities: expected at most 2\^20 for random keys, got 1048577"):
        RandomKeys((3, 2**20 + 1))


@pytest.mark.parametrize(("encoding", "step"), [("random_keys", 0.2), ("logits", 0.5)])
def test_first_steps_suit_the_encoding(encoding, step):
    strategy = Scalarised(12, CARDINALITIES, algorithm="SNES", encoding=encoding)
    assert float(strategy.default_params.std_init) == pytest.approx(step)


@pytest.mark.parametrize("encoding", ["random_keys", "logits"])
def test_what_a_search_first_knows_is_the_best_genome_of_its_mixture(encoding):
    strategy = Scalarised(12, CARDINALITIES, algorithm="SNES", directions=3, encoding=encoding)
    genomes = sample(jax.random.key(0), jnp.array(CARDINALITIES), size=12)
    fitness = evaluate(genomes).at[0].set(-jnp.inf)
    violation = jnp.zeros(12).at[0].set(1.0)
    state = strategy.init(jax.random.key(1), genomes, fitness, strategy.default_params, violation=violation)
    means = jax.vmap(strategy._encoding().decode)(state.memory.searches.mean)
    np.testing.assert_array_equal(state.memory.ideal, fitness[1:].min(axis=0))
    np.testing.assert_array_equal(means[0], genomes[1:][fitness[1:, 1].argmin()])
    np.testing.assert_array_equal(means[-1], genomes[1:][fitness[1:, 0].argmin()])
    asked, _ = strategy.ask(jax.random.key(2), state, strategy.default_params)
    assert asked.shape == (12, 4)


def test_nothing_but_broken_values_leaves_finite_states():
    strategy = Scalarised(12, CARDINALITIES, algorithm="SNES", directions=3)
    params = strategy.default_params
    genomes = sample(jax.random.key(0), jnp.array(CARDINALITIES), size=12)
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        fitness, violation = jnp.full((12, 2), value), jnp.full(12, jnp.inf)
        state = strategy.init(jax.random.key(1), genomes, fitness, params, violation=violation)
        asked, state = strategy.ask(jax.random.key(2), state, params)
        state, _ = strategy.tell(jax.random.key(3), asked, fitness, state, params, violation=violation)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.memory.searches.mean))
        np.testing.assert_array_equal(state.memory.span, [1, 1])


def test_rows_are_shared_out_evenly_and_what_cannot_be_is_refused():
    def directions(size, **options):
        return Scalarised(size, CARDINALITIES, **options).directions

    assert [directions(size) for size in (8, 12, 32, 33, 100)] == [2, 3, 4, 3, 10]
    assert [directions(size, algorithm="Open_ES") for size in (100, 18)] == [10, 3]
    assert directions(31, directions=1) == 1
    assert Scalarised(100, CARDINALITIES) == Scalarised(100, CARDINALITIES, directions=10)
    with pytest.raises(ValueError, match=r"directions: expected one of \[1, 2, 3\] for SNES with 12 rows, got 4"):
        directions(12, directions=4, algorithm="SNES")
    with pytest.raises(ValueError, match=r"W x p with W > 1 directions of p >= 4 and even .* \[.*32, 36.*\], got 33"):
        directions(33, algorithm="Open_ES")
    with pytest.raises(ValueError, match=r"W x p with W > 1 directions of p >= 4 rows .* 32, .*, got 31"):
        directions(31)
    with pytest.raises(ValueError, match="encoding: expected one of random_keys, logits, got gray"):
        Scalarised(12, CARDINALITIES, encoding="gray")


def test_algorithms_that_cannot_work_say_why_and_what_can():
    names = algorithm_names()
    assert len(names) > 25
    assert {"CMA_ES", "DifferentialEvolution", "Open_ES", "SNES", "SimpleGA"} <= set(names)
    with pytest.raises(ValueError, match=r"algorithm: SV_CMA_ES moves several populations .* CMA_ES"):
        Scalarised(12, CARDINALITIES, algorithm="SV_CMA_ES")
    with pytest.raises(ValueError, match=r"algorithm: expected one of .*CMA_ES, .*, got CMAES"):
        Scalarised(12, CARDINALITIES, algorithm="CMAES")
