import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import NSGA2, sample

P = 33
CARDINALITIES = (6, 5, 4, 3)


def evaluate(genomes):
    """Three conflicting sums of whole numbers, so that the true front can be listed."""
    a, b, c, d = (genomes[:, g].astype(jnp.float32) for g in range(4))
    return jnp.stack([a + b + 2 * d, (5 - a) + 2 * (4 - b) + d, (3 - c) ** 2 + a + c], axis=1)


def start(strategy, seed=0, fitness=evaluate):
    genomes = sample(jax.random.key(seed), jnp.array(strategy.cardinalities), size=strategy.population_size)
    return strategy.init(jax.random.key(1), genomes, fitness(genomes), strategy.default_params)


def generation(strategy, state, key, fitness=evaluate):
    ask_key, tell_key = jax.random.split(key)
    genomes, state = strategy.ask(ask_key, state, strategy.default_params)
    return strategy.tell(tell_key, genomes, fitness(genomes), state, strategy.default_params)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def strategy():
    return NSGA2(population_size=P, cardinalities=CARDINALITIES)


def test_a_loop_equals_a_scan_under_vmap_over_seeds(strategy):
    seeds, steps = 3, 4
    keys = jax.vmap(lambda k: jax.random.split(k, steps))(jax.random.split(jax.random.key(2), seeds))
    starts = [start(strategy, seed) for seed in range(seeds)]
    run = jax.jit(jax.vmap(lambda state, keys: jax.lax.scan(partial(generation, strategy), state, keys)))
    together, metrics = run(jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), keys)
    for seed, state in enumerate(starts):
        for key in keys[seed]:
            state, last = generation(strategy, state, key)
        assert_same(jax.tree.map(lambda leaf, seed=seed: leaf[seed], together), state)
        assert_same(jax.tree.map(lambda leaf, seed=seed: leaf[seed, -1], metrics), last)
        assert state.generation == steps


def test_selection_is_the_same_without_jit():
    strategy = NSGA2(population_size=1, cardinalities=(3, 2))
    genomes = jnp.array([[2, 1]], jnp.int32)
    params, key = strategy.default_params, jax.random.key(5)
    state = strategy.init(key, genomes, genomes.astype(jnp.float32), params)

    def once():
        return strategy.tell(key, genomes - 1, genomes.astype(jnp.float32) - 1, state, params)

    traced = once()
    np.testing.assert_array_equal(traced[0].population, [[1, 0]])
    with jax.disable_jit():
        assert_same(traced, once())


def test_the_exact_front_of_a_small_problem_is_found(strategy):
    every = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)
    values = np.asarray(evaluate(jnp.asarray(every)))
    dominated = ((values[:, None] <= values[None]).all(-1) & (values[:, None] < values[None]).any(-1)).any(0)
    wanted = {tuple(row) for row in every[~dominated].tolist()}
    assert 15 < len(wanted) < P
    state = start(strategy)
    for key in jax.random.split(jax.random.key(3), 100):
        state, _ = generation(strategy, state, key)
    found = np.asarray(state.population)[np.asarray(state.ranks) == 0]
    assert {tuple(row) for row in found.tolist()} == wanted
    assert len(found) == len(wanted)


def test_survivors_are_the_best_by_rank_then_crowding_and_the_best_come_first(strategy):
    state, metrics = generation(strategy, start(strategy), jax.random.key(4))
    ranks, crowding = np.asarray(state.ranks), np.asarray(state.crowding)
    assert (np.lexsort((-crowding, ranks)) == np.arange(P)).all()
    assert metrics["front_size"] == (ranks == 0).sum()
    np.testing.assert_array_equal(metrics["best_fitness"], np.asarray(state.fitness).min(0))


def test_repeated_genomes_come_after_all_unique_ones(strategy):
    genomes = jnp.zeros((P, 4), jnp.int32).at[5, 3].set(2)
    state = strategy.init(jax.random.key(0), genomes, evaluate(genomes), strategy.default_params)
    assert {tuple(row) for row in np.asarray(state.population[:2]).tolist()} == {(0, 0, 0, 0), (0, 0, 0, 2)}
    assert (state.ranks[2:] == P).all()
    best = jnp.array([[0, 4, 3, 0]] * P, jnp.int32)
    state, _ = strategy.tell(jax.random.key(0), best, evaluate(best), state, strategy.default_params)
    assert (np.asarray(state.population[:3]) == best[0].tolist()).all(1).sum() == 1


def test_members_without_a_value_lose_to_all_others(strategy):
    genomes = sample(jax.random.key(0), jnp.array(CARDINALITIES), size=P)
    nothing = jnp.full((P, 3), jnp.nan)
    state = strategy.init(jax.random.key(0), genomes, nothing, strategy.default_params)
    assert np.isnan(state.fitness).all()
    others = (genomes + 1) % jnp.array(CARDINALITIES)[None]
    state, _ = strategy.tell(jax.random.key(0), others, jnp.full((P, 3), jnp.inf), state, strategy.default_params)
    unique = len(set(map(tuple, others.tolist())) - set(map(tuple, genomes.tolist())))
    assert unique > P // 2
    assert np.isinf(np.asarray(state.fitness[:unique])).all()
    assert not np.isnan(state.crowding).any()


def test_a_population_of_one_keeps_the_better_and_stays_in_range():
    strategy = NSGA2(population_size=1, cardinalities=(1, 7))

    def fitness(genomes):
        return genomes[:, 1:].astype(jnp.float32)

    state = start(strategy, fitness=fitness)
    for key in jax.random.split(jax.random.key(6), 60):
        state, _ = generation(strategy, state, key, fitness)
    np.testing.assert_array_equal(state.population, [[0, 0]])


def test_merit_decides_who_mates_and_not_who_survives(strategy):
    first = jnp.arange(P, dtype=jnp.int32)[:, None] // jnp.array([[3, 1, 1, 1]]) % jnp.array([CARDINALITIES])
    state = strategy.init(jax.random.key(0), first, evaluate(first), strategy.default_params)
    still = strategy.default_params.replace(crossover_probability=jnp.float32(0), mutation_probability=jnp.float32(0))
    merit = jnp.full(P, jnp.nan).at[jnp.array([P - 1, P - 2])].set(jnp.array([2.0, 1.0]))
    preferred = strategy.prefer(state, merit)
    asked = [strategy.ask(key, preferred, still)[0] for key in jax.random.split(jax.random.key(7), 100)]
    children = np.concatenate(asked)
    share = (children == np.asarray(state.population)[[P - 1, P - 2]][:, None]).all(-1).mean(1)
    np.testing.assert_allclose(share, [(2 * P - 1) / P**2, (2 * P - 3) / P**2], atol=0.02)
    key = jax.random.key(8)
    genomes = sample(key, jnp.array(CARDINALITIES), size=P)
    plain, _ = strategy.tell(key, genomes, evaluate(genomes), state, still)
    chosen, _ = strategy.tell(key, genomes, evaluate(genomes), preferred, still)
    np.testing.assert_array_equal(plain.population, chosen.population)
    assert np.isnan(plain.merit).all()


def test_survivors_keep_their_merit_and_offspring_have_none(strategy):
    state = start(strategy)
    preferred = strategy.prefer(state, jnp.arange(P, dtype=jnp.float32))
    after, _ = generation(strategy, preferred, jax.random.key(9))
    merits = {tuple(g): m for g, m in zip(state.population.tolist()[::-1], range(P)[::-1], strict=True)}
    expected = [merits.get(tuple(genome), np.nan) for genome in after.population.tolist()]
    unique = np.asarray(after.ranks) < P
    np.testing.assert_array_equal(np.asarray(after.merit)[unique], np.array(expected)[unique])
    assert np.isnan(expected).any()


def test_a_strategy_built_anew_shares_compiled_code():
    traces = []

    @partial(jax.jit, static_argnames="strategy")
    def step(strategy):
        traces.append(strategy)
        return jnp.int32(strategy.population_size)

    for _ in range(2):
        step(NSGA2(population_size=P, cardinalities=list(CARDINALITIES)))
    assert len(traces) == 1
    assert traces[0] != NSGA2(population_size=P + 1, cardinalities=CARDINALITIES)


def test_what_does_not_fit_is_refused(strategy):
    key, params = jax.random.key(0), strategy.default_params
    genomes = jnp.zeros((P, 4), jnp.int32)
    with pytest.raises(ValueError, match=r"fitness: expected a matrix .* got shape \(11,\)"):
        strategy.init(key, genomes, jnp.zeros(11), params)
    with pytest.raises(ValueError, match=r"fitness: expected shape \(33, 3\), got \(10, 3\)"):
        strategy.init(key, genomes, jnp.zeros((10, 3)), params)
    with pytest.raises(ValueError, match=r"population: expected shape \(33, 4\), got \(33, 5\)"):
        strategy.init(key, jnp.zeros((P, 5), jnp.int32), jnp.zeros((P, 3)), params)
    with pytest.raises(ValueError, match="population: expected int32, got float32"):
        strategy.init(key, jnp.zeros((P, 4)), jnp.zeros((P, 3)), params)
    with pytest.raises(ValueError, match="population: expected genes within"):
        strategy.init(key, genomes + 3, jnp.zeros((P, 3)), params)
    state = start(strategy)
    with pytest.raises(ValueError, match=r"fitness: expected shape \(33, 3\), got \(33, 2\)"):
        strategy.tell(key, genomes, jnp.zeros((P, 2)), state, params)
    with pytest.raises(ValueError, match=r"merit: expected shape \(33,\)"):
        strategy.prefer(state, jnp.zeros(3))
    with pytest.raises(ValueError, match="population_size: expected at least 1"):
        NSGA2(population_size=0, cardinalities=(2,))
    with pytest.raises(ValueError, match="cardinalities: expected values"):
        NSGA2(population_size=2, cardinalities=(2, 0))
