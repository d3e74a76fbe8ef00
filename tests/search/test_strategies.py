"""What every strategy satisfies: those of the package and three kinds of evosax's algorithms."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import hypervolume, non_dominated_mask, sample
from hadas_jax.search.strategies import check_strategy, load_strategy

P = 32
CARDINALITIES = (6, 5, 4, 3, 4, 4, 4)
TARGET = (2, 1, 3)
SEEDS, STEPS = 2, 60
FEW = 6
OWN = ("NSGA2", "NSGA3", "RandomSearch")
NAMES = (*OWN, "DifferentialEvolution", "CMA_ES", "Open_ES")
SCANNED = ("NSGA2", "CMA_ES")  # one that remembers nothing, and one that does


@jax.jit
def evaluate(genomes):
    """Three conflicting sums of whole numbers of four genes; three more genes only do harm off their target."""
    a, b, c, d = (genomes[:, g].astype(jnp.float32) for g in range(4))
    harm = jnp.abs(genomes[:, 4:] - jnp.array([TARGET])).sum(axis=1).astype(jnp.float32)
    return jnp.stack([a + b + 2 * d, (5 - a) + 2 * (4 - b) + d, (3 - c) ** 2 + a + c], axis=1) + harm[:, None]


@jax.jit
def volume(fitness):
    return hypervolume(fitness, jnp.full(3, 30.0))


def front_of(genomes):
    """The genomes that no other one of these dominates, as a set of tuples."""
    kept = np.asarray(non_dominated_mask(evaluate(genomes)))
    return set(map(tuple, np.asarray(genomes)[kept].tolist()))


def draw(seed, size=P):
    return sample(jax.random.key(seed), jnp.array(CARDINALITIES), size=size)


def start(strategy, seed=0):
    genomes = draw(seed)
    params = strategy.default_params
    return strategy.init(jax.random.key(1), genomes, evaluate(genomes), params, violation=jnp.zeros(P))


def generation(strategy, state, key):
    ask_key, tell_key = jax.random.split(key)
    params = strategy.default_params
    genomes, state = strategy.ask(ask_key, state, params)
    state, metrics = strategy.tell(tell_key, genomes, evaluate(genomes), state, params, violation=jnp.zeros(P))
    return state, (metrics, genomes, state.fitness)


def assert_same(one, other, *, exactly=True):
    """Equal leaves; where not exactly, floating ones only nearly."""

    def compare(a, b):
        if exactly or not jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)

    jax.tree.map(compare, one, other)


@pytest.fixture(scope="module", params=NAMES)
def strategy(request):
    return load_strategy(request.param, population_size=P, cardinalities=CARDINALITIES)


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(lambda k: jax.random.split(k, STEPS))(jax.random.split(jax.random.key(2), SEEDS))


@pytest.fixture(scope="module")
def starts(strategy):
    return [start(strategy, seed) for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def runs(strategy, starts, keys):
    """Final states [seeds], and metrics, genomes and survivors' fitness [seeds, steps]."""
    ends = []
    for state, row in zip(starts, keys, strict=True):
        seen = []
        for key in row:
            state, trace = generation(strategy, state, key)
            seen.append(trace)
        ends.append((state, jax.tree.map(lambda *leaves: np.stack(leaves), *seen)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *ends)


@pytest.mark.parametrize("strategy", SCANNED, indirect=True)
def test_a_scan_under_vmap_over_seeds_equals_a_loop(strategy, starts, keys, runs):
    run = jax.jit(jax.vmap(lambda state, keys: jax.lax.scan(partial(generation, strategy), state, keys)))
    last, trace = run(jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), keys[:, :FEW])
    looped = jax.tree.map(lambda leaf: leaf[:, :FEW], runs[1])
    assert_same(trace, looped, exactly=strategy.accepts_any)
    assert (last.generation == FEW).all()
    assert (runs[0].generation == STEPS).all()


def test_resuming_from_saved_arrays_changes_no_bit(strategy, starts, keys):
    state, _ = generation(strategy, starts[0], keys[0, 0])
    saved = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf)), state)
    assert_same(generation(strategy, state, keys[0, 1]), generation(strategy, saved, keys[0, 1]))


def test_a_state_keeps_its_types_so_that_nothing_compiles_twice(strategy, starts, keys):
    def types(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)

    after, _ = jax.eval_shape(partial(generation, strategy), starts[0], keys[0, 0])
    assert types(after) == types(starts[0])
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(starts[0]))


def test_offspring_are_in_range_and_states_hold_no_nan(runs):
    last, (_, genomes, _) = runs
    assert (np.asarray(genomes) >= 0).all()
    assert (np.asarray(genomes) < CARDINALITIES).all()
    floats = [
        leaf for leaf in jax.tree.leaves(last.replace(merit=last.crowding)) if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    assert not any(np.isnan(leaf).any() for leaf in floats)
    assert np.isnan(last.merit).all()


def test_survivors_come_by_rank_then_crowding_with_metrics_to_match(runs):
    last, (metrics, _, _) = runs
    for seed in range(SEEDS):
        ranks, crowding = np.asarray(last.ranks[seed]), np.asarray(last.crowding[seed])
        assert (np.lexsort((-crowding, ranks)) == np.arange(P)).all()
        assert metrics["front_size"][seed, -1] == (ranks == 0).sum()
        np.testing.assert_array_equal(metrics["best_fitness"][seed, -1], np.asarray(last.fitness[seed]).min(0))


def test_the_front_of_all_that_was_seen_is_kept_where_it_fits(starts, runs):
    last, (metrics, genomes, fitness) = runs
    assert (np.asarray(metrics["front_size"]) < P).all()
    for seed in range(SEEDS):
        seen = jnp.concatenate([starts[seed].population, genomes[seed].reshape(-1, len(CARDINALITIES))])
        front = np.asarray(last.population[seed])[np.asarray(last.ranks[seed]) == 0]
        assert set(map(tuple, front.tolist())) == front_of(seen)
        assert len(front) == len(front_of(seen))
    volumes = np.asarray(jax.vmap(jax.vmap(volume))(fitness))
    assert (np.diff(volumes, axis=1) >= -1e-3).all()


def test_search_beats_as_many_random_genomes(strategy, runs):
    random = [volume(evaluate(draw(100 + seed, size=P * (STEPS + 1)))) for seed in range(SEEDS)]
    found = jax.vmap(volume)(runs[0].fitness)
    if strategy == load_strategy("RandomSearch", population_size=P, cardinalities=CARDINALITIES):
        np.testing.assert_allclose(found, random, rtol=0.1)
    else:
        assert (np.asarray(found) > np.asarray(random)).all()


def test_unique_feasible_genomes_come_first_then_by_violation_then_nan_then_repeated_ones(strategy, starts):
    rows = np.unique(np.asarray(draw(5)), axis=0)[:20]
    genomes = jnp.asarray(rows[np.concatenate([np.arange(20), np.zeros(P - 20, int)])[::-1]])
    fitness = evaluate(genomes).at[P - 20 : P - 15, 0].set(jnp.nan)
    violation = jnp.zeros(P).at[P - 15 : P - 10].set(jnp.array([5.0, 1e-9, 1e9, jnp.inf, 0.5]))
    params = strategy.default_params
    state = strategy.init(jax.random.key(0), genomes, fitness, params, violation=violation)
    assert (state.violation[:10] == 0).all()
    np.testing.assert_array_equal(state.violation[10:15], np.float32([1e-9, 0.5, 5, 1e9, np.inf]))
    assert np.isnan(state.fitness[15:20, 0]).all()
    assert not np.isnan(state.fitness[:15]).any()
    assert (state.ranks[:20] < P).all()
    assert len(np.unique(state.population[:20], axis=0)) == 20
    assert (np.asarray(state.ranks[20:]) >= P).all()
    assert not np.isnan(state.crowding).any()


def test_members_without_a_value_never_drive_out_others(strategy, starts):
    state, params = starts[0], strategy.default_params
    nothing = jnp.full((P, 3), jnp.nan, jnp.float32)
    before = set(map(tuple, state.population.tolist()))
    for broken in (jnp.zeros(P), jnp.full(P, jnp.inf, jnp.float32), nothing[:, 0]):
        genomes, state = strategy.ask(jax.random.key(3), state, params)
        state, _ = strategy.tell(jax.random.key(4), genomes, nothing, state, params, violation=broken)
        assert set(map(tuple, state.population[: len(before)].tolist())) == before
    genomes, _ = strategy.ask(jax.random.key(5), state, params)
    assert ((np.asarray(genomes) >= 0) & (np.asarray(genomes) < CARDINALITIES)).all()


def test_a_strategy_built_anew_shares_compiled_code(strategy, starts):
    chex.clear_trace_counter()

    @partial(jax.jit, static_argnames="strategy")
    @chex.assert_max_traces(n=1)
    def step(strategy, state):
        return strategy.ask(jax.random.key(0), state, strategy.default_params)[0]

    name = getattr(strategy, "algorithm", type(strategy).__name__)
    for _ in range(2):
        again = load_strategy(name, population_size=P, cardinalities=list(CARDINALITIES))
        step.lower(again, starts[0])
    assert again == strategy
    assert strategy != load_strategy(name, population_size=P + 8, cardinalities=CARDINALITIES)


def test_what_does_not_fit_is_refused(strategy, starts):
    key, params = jax.random.key(0), strategy.default_params
    genomes = jnp.zeros((P, 7), jnp.int32)
    with pytest.raises(AssertionError, match=r"has shape \(11,\) .* \[fitness\]"):
        strategy.init(key, genomes, jnp.zeros(11), params)
    with pytest.raises(AssertionError, match=r"has type int32 .* \[fitness\]"):
        strategy.init(key, genomes, genomes[:, :3], params)
    with pytest.raises(AssertionError, match=r"\[fitness\]"):
        strategy.init(key, genomes, jnp.zeros((10, 3)), params)
    with pytest.raises(AssertionError, match=r"has shape \(32, 5\) but expected \(32, 7\)\. \[population\]"):
        strategy.init(key, jnp.zeros((P, 5), jnp.int32), jnp.zeros((P, 3)), params)
    with pytest.raises(AssertionError, match=r"has type float32 .* \[population\]"):
        strategy.init(key, jnp.zeros((P, 7)), jnp.zeros((P, 3)), params)
    with pytest.raises(ValueError, match="population: expected genes within"):
        strategy.init(key, genomes + 3, jnp.zeros((P, 3)), params)
    with pytest.raises(AssertionError, match=r"\[violation\]"):
        strategy.init(key, genomes, jnp.zeros((P, 3)), params, violation=jnp.zeros(3))
    with pytest.raises(AssertionError, match=r"has shape \(32, 2\) but expected \(32, 3\)\. \[fitness\]"):
        strategy.tell(key, genomes, jnp.zeros((P, 2)), starts[0], params)
    with pytest.raises(AssertionError, match=r"\[merit\]"):
        strategy.prefer(starts[0], jnp.zeros(3))


@pytest.mark.parametrize("name", NAMES)
def test_impossible_sizes_are_refused(name):
    with pytest.raises(ValueError, match="population_size: expected at least 1"):
        load_strategy(name, population_size=0, cardinalities=(2,))
    with pytest.raises(ValueError, match="cardinalities: expected values"):
        load_strategy(name, population_size=2, cardinalities=(2, 0))
    if name not in OWN:
        with pytest.raises(ValueError, match=r"population_size: expected W x p .* got 1"):
            load_strategy(name, population_size=1, cardinalities=(2, 3))


def test_a_population_of_one_keeps_the_better():
    strategy = load_strategy("NSGA3", population_size=1, cardinalities=(3, 2))
    genomes, params = jnp.array([[2, 1]], jnp.int32), strategy.default_params

    @jax.jit
    def once(key):
        state = strategy.init(key, genomes, genomes.astype(jnp.float32), params)
        offspring, asked = strategy.ask(key, state, params)
        return offspring, strategy.tell(key, genomes - 1, genomes.astype(jnp.float32) - 1, asked, params)[0]

    offspring, state = once(jax.random.key(5))
    np.testing.assert_array_equal(state.population, [[1, 0]])
    assert ((np.asarray(offspring) >= 0) & (np.asarray(offspring) < [3, 2])).all()


def test_every_strategy_has_a_name_and_others_are_refused():
    for name in NAMES:
        check_strategy(name)
    with pytest.raises(ValueError, match=r"strategy: expected one of NSGA2, .*SNES.*, got 'NSGA4'"):
        load_strategy("NSGA4", population_size=4, cardinalities=(2,))


@pytest.mark.parametrize("strategy", ["NSGA2", "NSGA3"], indirect=True)
def test_the_exact_front_of_a_small_problem_is_found(strategy, starts):
    every = jnp.asarray(list(itertools.product(*map(range, CARDINALITIES[:4]))), jnp.int32)
    wanted = front_of(jnp.concatenate([every, jnp.broadcast_to(jnp.array([TARGET]), (len(every), 3))], axis=1))
    assert 15 < len(wanted) < P
    state = starts[0]
    for key in jax.random.split(jax.random.key(3), 150):
        state, _ = generation(strategy, state, key)
    found = np.asarray(state.population)[np.asarray(state.ranks) == 0]
    assert set(map(tuple, found.tolist())) == wanted
    assert len(found) == len(wanted)
