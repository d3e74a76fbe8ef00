"""Both inner searches against a walk through every dynamic candidate and every sample in float64."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models
from hadas_jax.evaluation import pack_bits, segment_costs
from hadas_jax.evaluation.early_exit import mean_dissimilarity
from hadas_jax.methods.hadas import inner
from hadas_jax.methods.hadas.constraints import ConfigLimits
from hadas_jax.methods.hadas.exit_configs import Stops
from hadas_jax.methods.hadas.fronts import exact_front
from hadas_jax.spaces import available_exits
from hadas_jax.spaces.footprint import footprint

SAMPLES, GAMMA = 50, 1.5
FREE = np.full(3, np.inf, np.float32)


@pytest.fixture(scope="module")
def device():
    found = hw_models.load_device("agx-xavier-gpu")
    return hw_models.with_clocks(
        found,
        core_hz=[114.75e6, 675.75e6, 1377e6],
        memory_hz=[204e6, 2133e6],
        host_hz=[115.2e6, 1190.4e6, 2265.6e6],
    )


@pytest.fixture(scope="module")
def cases(small_space, device):
    """Two backbones of different exits: genome, outcomes bool[E + 1, N], available exits, segment costs."""
    cost = jax.jit(lambda genome: segment_costs(small_space, small_space.decode(genome), device))
    found = []
    for seed, genome in enumerate((small_space.largest_genome, small_space.smallest_genome)):
        rng = np.random.default_rng(seed)
        skill = np.linspace(0.3, 0.9, small_space.num_exits + 1)[:, None]
        correct = skill + rng.normal(0, 0.2, (len(skill), SAMPLES)) > rng.random(SAMPLES)
        genome = jnp.asarray(genome)
        available = np.asarray(available_exits(small_space, small_space.decode(genome)))
        found.append(
            (genome, correct, available, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), cost(genome)))
        )
    return found


@pytest.fixture(scope="module")
def reference(cases):
    trunk = cases[0][1].shape[0]
    largest = cases[0][3]
    longest, most = (2 * column[:trunk, -1].sum() for column in (largest.latency_s, largest.energy_j))
    return jnp.asarray([1.0, longest, most], jnp.float32)


def walk(correct, available, costs):
    """All candidates one by one: exits [n, E], point [n], (error, latency, energy) [n, 3], score [n], p99 [n]."""
    exits, points = len(available), costs.latency_s.shape[1]
    rows = []
    for chosen in itertools.product([False, True], repeat=exits):
        members = np.flatnonzero(chosen)
        if not available[members].all():
            continue
        stop = [next((e for e in members if correct[e, n]), exits) for n in range(SAMPLES)]
        error = 1 - np.mean([correct[e, n] for n, e in enumerate(stop)])
        runs = np.array(
            [[i <= e for i in range(exits + 1)] + [i in members and i <= e for i in range(exits)] for e in stop]
        )
        for point in range(points):
            columns = [column[:, point] for column in (costs.latency_s, costs.energy_j)]
            value = 0.0
            for i in members:
                others = members[members != i]
                pairs = [float(mean_pair(correct, i, j)) for j in others]
                gain = 1.0
                for column, full in zip(columns, (costs.latency_s, costs.energy_j), strict=True):
                    gain *= max(0, 1 - (column[: i + 1].sum() + column[exits + 1 + i]) / full[: exits + 1, -1].sum())
                value += (
                    np.mean(np.array(stop) == i) * gain * (np.mean(pairs) if pairs else 1.0) ** GAMMA / len(members)
                )
            p99 = np.sort(runs @ columns[0])[int(np.ceil(0.99 * SAMPLES)) - 1]
            rows.append((chosen, point, (error, *(runs.mean(0) @ c for c in columns)), value, p99))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def mean_pair(correct, i, j):
    both = np.sqrt(correct[i].sum() * correct[j].sum())
    return 1 - (correct[i] & correct[j]).sum() / both if both else 1.0


@pytest.fixture(scope="module")
def walked(cases):
    return [walk(correct, available, costs) for _, correct, available, costs in cases]


@pytest.fixture(scope="module")
def searches(small_space, cases, device, reference):
    """Both searches as functions of limits and a seed that return what they find for each case, batched by vmap."""
    genomes, correct = jnp.stack([case[0] for case in cases]), jnp.stack([jnp.asarray(case[1]) for case in cases])
    shared = {"samples": SAMPLES, "gamma": jnp.float32(GAMMA), "reference": reference}

    def costs_of(genome):
        return segment_costs(small_space, small_space.decode(genome), device)

    def exact(genome, correct, limits, config_limits, seed):
        del seed
        limited = {"limits": limits, "config_limits": config_limits, **shared}
        return inner.search_exact(small_space, genome, pack_bits(correct), costs_of(genome), **limited)

    def evolved(genome, correct, limits, config_limits, seed):
        effort = {"population": 16, "generations": 12, "limits": limits, "config_limits": config_limits, **shared}
        found = (small_space, genome, pack_bits(correct), costs_of(genome), device)
        return inner.search_evolved(jax.random.key(seed), *found, **effort)

    def batched(search):
        search = jax.jit(jax.vmap(search, in_axes=(0, 0, None, None, None)))

        def run(limits=FREE, seed=0, config_limits=None):
            found = search(genomes, correct, jnp.asarray(limits), config_limits, seed)
            return [jax.tree.map(lambda leaf, row=row: leaf[row], found) for row in range(len(genomes))]

        return run

    return {"exact": batched(exact), "evolved": batched(evolved)}


def closed(table):
    """What is to be had at or below each cell."""
    return np.minimum.accumulate(np.minimum.accumulate(np.asarray(table), axis=0), axis=1)


def wanted_table(objectives, reference, limits=FREE):
    levels, bins = inner.ERROR_LEVELS, np.arange(1 - inner.LATENCY_BINS, 1) / inner.LATENCY_BINS
    edges = float(reference[1]) * inner.LATENCY_SPAN**bins
    table = np.full((len(inner.ERROR_LEVELS) + 1, inner.LATENCY_BINS + 1), np.inf)
    kept = objectives.astype(np.float32)
    kept = kept[(kept <= limits).all(axis=1)]
    cells = (np.searchsorted(levels, kept[:, 0]), np.searchsorted(edges, kept[:, 1]))
    np.minimum.at(table, cells, kept[:, 2])
    return table[:-1, :-1]


def test_the_exact_search_finds_what_a_walk_through_all_candidates_finds(searches, cases, walked, reference):
    for found, case, (_, _, objectives, scores, _) in zip(searches["exact"](), cases, walked, strict=True):
        np.testing.assert_allclose(closed(found.table), closed(wanted_table(objectives, reference)), rtol=1e-5)
        assert float(found.score) == pytest.approx(scores.max(), rel=1e-4)
        assert found.violation == 0
        assert int(found.evaluations) == len(scores) == 2 ** case[2].sum() * 18


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_constraints_keep_candidates_out_and_say_how_far_the_nearest_is(searches, walked, reference, share):
    _, _, objectives, scores, _ = walked[0]
    limits = (objectives.min(axis=0) * (1 + share) * (1 - 0.2 * (share == 0))).astype(np.float32)
    found = searches["exact"](limits)[0]
    excess = ((objectives - limits) / np.maximum(limits, [1e-3, 0, 0])).max(axis=1)
    assert float(found.violation) == pytest.approx(max(excess.min(), 0), rel=1e-4)
    np.testing.assert_allclose(closed(found.table), closed(wanted_table(objectives, reference, limits)), rtol=1e-5)
    within = excess <= 0
    assert float(found.score) == pytest.approx(scores[within].max() if within.any() else 0.0, rel=1e-4)
    assert within.any() == (share > 0)


def test_the_exact_front_is_that_of_the_walk(small_space, cases, walked):
    for (genome, correct, available, costs), (exits, point, objectives, *_) in zip(cases, walked, strict=True):
        bits = pack_bits(jnp.asarray(correct))
        costs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), costs)
        front = exact_front(small_space, genome, bits, costs, samples=SAMPLES)
        found = front.objectives
        rows = [
            np.flatnonzero((exits == member).all(axis=1) & (point == f))[0]
            for member, f in zip(front.exits > 0, front.point.tolist(), strict=True)
        ]
        np.testing.assert_allclose(found, objectives[rows], rtol=1e-5, atol=1e-7)
        assert not front.exits[:, ~available].any()
        beaten = (objectives[:, None] <= found[None] * (1 - 1e-5) - 1e-9).all(axis=2)
        assert not beaten.any()
        covered = (found[None] <= objectives[:, None] * (1 + 1e-5) + 1e-6).all(axis=2).any(axis=1)
        assert covered.all()


def test_evolution_never_claims_more_than_there_is_and_reaches_nearly_all(searches, reference):
    volume = partial(inner.table_hypervolume, reference=reference, limits=jnp.asarray(FREE))
    for seed in range(3):
        for best, found in zip(searches["exact"](), searches["evolved"](seed=seed), strict=True):
            assert (closed(found.table) >= closed(best.table) * (1 - 1e-5)).all()
            assert float(best.score) * 0.9 <= float(found.score) <= float(best.score) * (1 + 1e-5)
            assert 0.99 * float(volume(best.table)) <= float(volume(found.table))
            assert found.evaluations == 16 * 12


def test_evolution_looks_for_candidates_within_limits(searches, walked):
    objectives = walked[0][2]
    limits = (objectives.min(axis=0) * 1.9).astype(np.float32)
    found = searches["evolved"](limits)[0]
    assert found.violation == 0
    assert np.isfinite(found.table).any()
    assert np.asarray(found.table)[np.isfinite(found.table)].max() <= limits[2]
    nowhere = searches["evolved"](limits * 0.1)[0]
    assert nowhere.violation > 1
    assert not np.isfinite(nowhere.table).any()


def limited(**limits):
    every = dict.fromkeys(("p99_s", "memory", "weights"), np.inf) | limits
    return ConfigLimits(**{name: np.float32(limit) for name, limit in every.items()}, element_bytes=np.int32(1))


def assert_kept(found, values, limit, walked, reference):
    """What both searches find within a limit on values [n] of the walked candidates."""
    kept = closed(wanted_table(walked[2][values <= limit], reference))
    np.testing.assert_allclose(closed(found["exact"].table), kept, rtol=1e-5)
    assert (closed(found["evolved"].table) >= kept * (1 - 1e-5)).all()
    assert np.isfinite(kept).any() == (float(found["exact"].violation) == 0) == (values <= limit).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", "weights"])
def test_limits_on_memory_and_weights_keep_subsets_of_exits_out(small_space, searches, walked, cases, reference, name):
    size_of = jax.jit(lambda genome: footprint(small_space, small_space.decode(genome)))
    values = [
        np.asarray(getattr(size_of(genome), name)(jnp.asarray(each[0])))
        for (genome, *_), each in zip(cases, walked, strict=True)
    ]
    limit = np.float32(min(np.median(values[0]), values[0].max() - 1))  # the largest trunk alone may be the peak
    found = {each: search(config_limits=limited(**{name: limit})) for each, search in searches.items()}
    for row in range(len(cases)):
        rows = {each: results[row] for each, results in found.items()}
        assert_kept(rows, values[row], limit, walked[row], reference)


def test_a_limit_on_the_99th_percentile_keeps_the_candidates_out_that_break_it(searches, walked, reference):
    limit = np.float32(np.median(walked[1][4]))
    found = {each: search(config_limits=limited(p99_s=limit)) for each, search in searches.items()}
    for row, each in enumerate(walked):
        assert_kept({name: results[row] for name, results in found.items()}, each[4], limit, each, reference)
    least = min(each[4].min() for each in walked)
    for search in searches.values():
        nowhere = search(config_limits=limited(p99_s=least / 2))
        assert not any(np.isfinite(each.table).any() for each in nowhere)
        assert min(float(each.violation) for each in nowhere) >= 1 - 1e-5


def test_an_evolution_evaluates_its_candidates_at_their_own_risk_levels(cases, device):
    _, correct, available, costs = cases[0]
    bits = pack_bits(jnp.asarray(correct))
    rare = pack_bits(jnp.asarray(correct[:-1] & (np.arange(SAMPLES) % 2 == 0)))
    stops = Stops(jnp.stack([rare, bits[:-1]]), bits, SAMPLES)
    costs = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), costs)
    effort = {"gamma": 1.0, "population": 16, "generations": 6}
    search = partial(inner.evolve, device=device, limits=jnp.asarray(FREE), **effort)
    found = jax.jit(search)(jax.random.key(0), stops, jnp.asarray(available), costs)
    assert set(np.unique(found.exits)) == {0, 1, 2}
    assert found.point.shape == (96,)
    for exits, point, objectives in zip(found.exits[::7], found.point[::7], found.objectives[::7], strict=True):
        error, latency = 0, 0.0
        for n in range(SAMPLES):
            taken = [e for e, level in enumerate(exits) if level and correct[e, n] and (level == 2 or n % 2 == 0)]
            last = taken[0] if taken else len(exits)
            heads = [len(exits) + 1 + e for e in np.flatnonzero(exits) if e <= last]
            latency += float(costs.latency_s[np.array([*range(last + 1), *heads]), point].sum()) / SAMPLES
            error += (not correct[last, n]) / SAMPLES
        np.testing.assert_allclose(objectives[:2], [error, latency], rtol=1e-5, atol=1e-7)


def test_exits_are_counted_without_tracing(small_space):
    rng = np.random.default_rng(0)
    for genome in rng.integers(0, small_space.codec.cardinalities, (5, len(small_space.codec.names))):
        available = available_exits(small_space, small_space.decode(jnp.asarray(genome, jnp.int32)))
        assert inner.exit_count(small_space, genome) == int(available.sum())


def test_an_exit_that_is_alone_is_not_held_back_by_the_others():
    chosen = jnp.asarray([[True, False], [True, True]])
    frequencies = jnp.asarray([[1, 0.4, 0.4, 1, 0], [1, 0.4, 0.2, 1, 0.4]], jnp.float32)
    right = jnp.asarray([[0b11110], [0b01111]], jnp.uint32)  # 1/4 apart
    found = inner.exit_shares(chosen, frequencies, right, gamma=2.0)
    np.testing.assert_allclose(found, [[0.6, 0.0], [0.6 / 32, 0.2 / 32]], rtol=1e-6)
    assert float(mean_dissimilarity(right, jnp.asarray([True, False]))) == 1


def test_the_cells_of_a_front_are_those_that_no_other_cell_beats():
    table = np.full((3, 3), np.inf, np.float32)
    table[0, 2], table[1, 0], table[1, 1], table[2, 2] = 5, 4, 4, 1
    assert inner.front_cells(jnp.asarray(table)) == 3
