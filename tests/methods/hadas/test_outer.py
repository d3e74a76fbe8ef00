import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.evaluation import pack_bits, segment_costs
from hadas_jax.methods import Hadas
from hadas_jax.methods.hadas.constraints import lower_bound, static_costs
from hadas_jax.methods.hadas.fronts import exact_front
from hadas_jax.methods.hadas.surrogate import SurrogateAcquisition, _shares_right
from hadas_jax.search import hypervolume
from hadas_jax.settings import Constraints, NestedSearchSettings
from hadas_jax.spaces import available_exits, segments, workload
from hw_models import default_point, load_device, network_cost, with_clocks

SAMPLES = 50
SETTINGS = NestedSearchSettings(population=4, generations=3)


class Supernet:
    """Stands for a trained one: later exits and larger backbones get more samples right, some samples are hard."""

    def __init__(self, space):
        self.space, self.seen = space, []

    def __call__(self, genomes):
        self.seen += [tuple(genome) for genome in genomes.tolist()]
        difficulty = np.random.default_rng(0).random((self.space.num_exits + 1, SAMPLES)) * 0.4
        difficulty += np.linspace(0, 1, SAMPLES)[None]
        depth = np.linspace(0.4, 0.9, self.space.num_exits + 1)
        size = 0.3 * (genomes / (self.space.codec.cardinalities - 1)).mean(axis=1)
        right = difficulty[None] < (depth[None] + size[:, None])[..., None]
        return np.asarray(pack_bits(jnp.asarray(right)))


@pytest.fixture(scope="module")
def device():
    """With few clocks, so that searches over them are quick."""
    full = load_device("agx-xavier-gpu")
    return with_clocks(
        full,
        core_hz=[float(hz) for hz in full.core_hz[::4]],
        memory_hz=[float(full.memory_hz[-1])],
        host_hz=[float(hz) for hz in full.host_hz[::14]],
    )


@pytest.fixture(scope="module")
def space(small_space):
    return small_space


@pytest.fixture(scope="module")
def make(space, device):
    def make(evaluate=None, **settings):
        names = ("constraints", "warm_start", "acquisition", "evaluated")
        others = {name: settings.pop(name) for name in names if name in settings}
        elites, settings = settings.pop("elites", 2), dataclasses.replace(SETTINGS, **settings)
        evaluate = evaluate or Supernet(space)
        return Hadas(space, device, evaluate, samples=SAMPLES, settings=settings, elites=elites, **others)

    return make


def run(hadas, seed=0, most=None):
    states = [hadas.init(jax.random.key(seed))]
    metrics = []
    for key in jax.random.split(jax.random.key(100 + seed), hadas.settings.generations)[:most]:
        state, found = hadas.generation(states[-1], key)
        states.append(state)
        metrics.append({name: float(value[0]) for name, value in found.items()})
    return states, metrics


@pytest.fixture(scope="module")
def supernet(space):
    return Supernet(space)


@pytest.fixture(scope="module")
def whole(make, supernet):
    """A whole search of that supernet: its states and metrics."""
    return run(make(supernet))


@pytest.fixture(scope="module")
def costs_of(space, device):
    return jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))


def test_the_first_generation_holds_given_backbones_and_the_extremes(make, space):
    given = np.array([[0, 1] * 6, [1, 0] * 6], np.int32)[:, : len(space.codec.choices)]
    given = np.pad(given, ((0, 0), (0, len(space.codec.choices) - given.shape[1])))
    first = make(warm_start=given).init(jax.random.key(1)).outer.population
    np.testing.assert_array_equal(first, [*given, space.largest_genome, space.smallest_genome])


def test_no_backbone_is_evaluated_or_examined_twice_and_the_archive_keeps_all(supernet, whole):
    states, metrics = whole
    assert len(set(supernet.seen)) == len(supernet.seen) == 12
    archive = states[-1].archive
    assert [tuple(g) for g in archive.genomes.tolist()] == supernet.seen
    assert [m["evaluated"] for m in metrics] == [4, 8, 12]
    assert metrics[0]["examined"] == 2
    assert all(a["examined"] < b["examined"] <= a["examined"] + 2 for a, b in itertools.pairwise(metrics))
    np.testing.assert_array_equal(archive.merit[archive.examined] > 0, True)
    for before, after in itertools.pairwise(states):
        kept = int(before.archive.size)
        np.testing.assert_array_equal(after.archive.genomes[:kept], before.archive.genomes[:kept])
        assert (after.table <= before.table).all()


def test_a_search_goes_on_from_all_that_another_one_evaluated(make, space, supernet, whole):
    before = whole[0][-1].archive
    known = before.genomes[: int(before.size)], before.correct[: int(before.size)]
    here = Supernet(space)
    states, metrics = run(make(here, evaluated=known), seed=7, most=2)
    first, last = states[0], states[-1].archive
    np.testing.assert_array_equal(first.archive.genomes[:12], known[0])
    np.testing.assert_array_equal(first.archive.static[:12], before.static[:12])  # priced anew, by the same device
    assert not first.archive.examined.any()
    # The first generation holds the best of them, which the inner engine has yet to see; nothing is evaluated again.
    front = before.static[:12]
    dominated = ((front[None] <= front[:, None]).all(axis=2) & (front[None] < front[:, None]).any(axis=2)).any(axis=1)
    best = {tuple(genome) for genome in known[0][~dominated].tolist()}
    population = {tuple(genome) for genome in np.asarray(first.outer.population).tolist()}
    assert len(best & population) == min(len(best), 4)
    assert not {tuple(genome) for genome in known[0].tolist()} & set(here.seen)
    assert metrics[0]["evaluated"] == 12
    assert int(last.size) == 12 + len(here.seen)


def test_a_space_that_is_exhausted_is_searched_on_without_new_evaluations(make, space):
    few = dataclasses.replace(space, stages=tuple(dataclasses.replace(s, depth=s.depth[:1]) for s in space.stages))
    few = dataclasses.replace(few, stages=(few.stages[0],), stem_width=(8,), last_width=(16,))
    assert few.count == 8
    supernet = Supernet(few)
    settings = dataclasses.replace(SETTINGS, generations=4)
    hadas = Hadas(few, make().device, supernet, samples=SAMPLES, settings=settings, elites=2)
    states, _ = run(hadas)
    assert sorted(supernet.seen) == sorted(set(supernet.seen))
    assert int(states[-1].archive.size) == len(supernet.seen) <= 8


@pytest.mark.parametrize("strategy", ["NSGA3", "RandomSearch", "DifferentialEvolution"])
def test_other_strategies_search_and_evaluate_nothing_twice(make, space, strategy):
    supernet = Supernet(space)
    states, metrics = run(make(supernet, strategy=strategy, population=8, generations=2))
    assert len(set(supernet.seen)) == len(supernet.seen)
    assert metrics[-1]["hypervolume"] >= metrics[0]["hypervolume"] > 0
    assert np.isfinite(states[-1].outer.fitness).all()


def test_a_run_that_stops_and_goes_on_from_plain_arrays_is_the_same(make, whole):
    states, _ = whole
    stored = jax.tree.map(lambda leaf: np.array(leaf), states[2])
    keys = jax.random.split(jax.random.key(100), 3)
    again, _ = make().generation(stored, keys[2])
    jax.tree.map(np.testing.assert_array_equal, again, states[3])


def test_a_merit_is_a_lower_bound_of_the_exact_hypervolume(make, space, whole, costs_of):
    archive = whole[0][-1].archive
    row = int(np.flatnonzero(archive.examined)[0])
    genome, correct = jnp.asarray(archive.genomes[row]), jnp.asarray(archive.correct[row])
    front = exact_front(space, genome, correct, costs_of(genome), samples=SAMPLES)
    exact = float(hypervolume(jnp.asarray(front.objectives / make().reference[None]), jnp.ones(3)))
    assert exact * 0.93 <= archive.merit[row] <= exact * (1 + 1e-5)


def test_the_best_merits_go_first_in_mating(whole):
    archive, outer = whole[0][-1].archive, whole[0][-1].outer
    merits = archive.merit[archive.rows(outer.population)]
    best = np.argsort(-np.nan_to_num(merits, nan=-np.inf), kind="stable")[:2]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(outer.merit)), np.sort(best))
    np.testing.assert_array_equal(outer.merit[best], merits[best])


def test_the_dynamic_score_can_be_the_merit(make, whole):
    by_score, by_volume = run(make(merit="score"), most=1)[0][1].archive, whole[0][1].archive
    np.testing.assert_array_equal(by_score.examined, by_volume.examined)
    examined = by_score.examined
    assert (by_score.merit[examined] != by_volume.merit[examined]).all()
    assert ((by_score.merit[examined] > 0) & (by_score.merit[examined] < 1)).all()


def test_candidates_that_break_constraints_stay_out_and_backbones_without_others_count_less(make, space, device):
    static, _ = static_costs(space, space.smallest_genome[None], device)
    limits = Constraints(max_latency_ms=float(static.latency_s[0]) * 1e3, max_params=3000)
    hadas = make(constraints=limits, population=8, elites=8, generations=1)
    state = run(hadas)[0][-1]
    archive = state.archive
    heavy = archive.params[:8] > 3000
    assert heavy.any()
    assert not heavy.all()
    assert (archive.violation[:8][heavy] > 0).all()
    assert (archive.merit[:8][heavy] < 0).all()
    kept = archive.violation[:8] == 0
    assert kept.any()
    assert (archive.merit[:8][kept] >= 0).all()
    # Latency bins that begin beyond the limit are empty.
    bins = hadas.reference[1] * 1000.0 ** ((np.arange(256) - 255) / 256)
    beyond = np.append(False, bins[:-1] >= static.latency_s[0])
    assert np.isinf(state.table[:, beyond]).all()
    assert np.isfinite(state.table).any()


def test_a_limit_of_the_99th_percentile_holds_in_both_searches(make, space, device):
    static, _ = static_costs(space, space.smallest_genome[None], device)
    limit = 1.05 * float(static.latency_s[0])
    hadas = make(constraints=Constraints(max_p99_latency_ms=1e3 * limit), population=8, elites=8, generations=1)
    state = run(hadas)[0][-1]
    violation, kept = state.archive.violation[:8], state.archive.merit[:8] >= 0
    assert ((violation == 0) == kept).all()
    assert kept.any()
    assert not kept.all()
    assert np.isfinite(state.table).any()


def test_a_search_that_cannot_keep_its_limits_goes_towards_them(make):
    hadas = make(constraints=Constraints(min_accuracy=0.9999999), elites=4)
    state = run(hadas)[0][-1]
    assert np.isinf(state.table).all()
    assert (state.archive.merit[state.archive.examined] < 0).all()
    assert (state.outer.violation > 0).all()
    assert (np.diff(state.outer.violation[np.argsort(state.outer.ranks, kind="stable")]) >= -1e-6).all()


def test_the_static_cost_is_the_trunks_without_heads(space, device):
    genome = jnp.asarray(space.largest_genome)
    table = workload(space, space.decode(genome))
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)
    trunk = dataclasses.replace(table, active=table.active * in_trunk)
    whole = network_cost(trunk, device, default_point(device))
    costs, params = static_costs(space, genome[None], device)
    np.testing.assert_allclose(costs.latency_s[0], whole.latency_s, rtol=1e-5)
    np.testing.assert_allclose(costs.energy_j[0], whole.energy_j, rtol=1e-5)
    np.testing.assert_allclose(params[0], jnp.sum(trunk.weight_elements * trunk.active), rtol=1e-6)


def test_no_dynamic_candidate_goes_below_the_lower_bound(space, device, costs_of):
    genome = jnp.asarray(space.largest_genome)
    correct = jnp.asarray(Supernet(space)(np.asarray(genome)[None])[0])
    bound, p99 = map(np.asarray, lower_bound(space, genome, correct, device, samples=SAMPLES))
    costs = costs_of(genome)
    front = exact_front(space, genome, correct, costs, samples=SAMPLES)
    objectives, points = front.objectives, front.point
    assert (objectives >= bound[points] * (1 - 1e-5)).all()
    assert np.isclose(objectives[:, 0].min(), bound[0, 0], atol=1e-6)
    static = np.asarray(costs.latency_s)[: space.num_exits + 1].sum(axis=0)
    assert (bound[:, 1] < static).all()
    assert (bound[:, 1] < p99).all()
    assert (p99 <= static * (1 + 1e-6)).all()


def test_what_the_surrogate_learns_is_the_share_of_each_exit_and_of_all_up_to_it(space):
    rng = np.random.default_rng(1)
    genome = space.smallest_genome
    right = rng.random((space.num_exits + 1, SAMPLES)) < 0.5
    words = np.asarray(pack_bits(jnp.asarray(right)))
    shares, known = _shares_right(space, jnp.asarray(genome)[None], jnp.asarray(words)[None], samples=SAMPLES)
    available = np.append(np.asarray(available_exits(space, space.decode(jnp.asarray(genome)))), True)
    assert not available.all()
    union = np.logical_or.accumulate(right & available[:, None], axis=0)
    np.testing.assert_allclose(shares[0], np.concatenate([right.mean(1), union.mean(1)]), rtol=1e-6)
    np.testing.assert_array_equal(known[0], np.concatenate([available, np.ones_like(available)]))


@pytest.mark.slow
def test_the_surrogate_proposes_what_is_evaluated_next(make, space, device):
    limits = Constraints(max_params=10**9, max_latency_ms=1e9, max_p99_latency_ms=1e9, max_flash_mb=1e9)
    effort = {"picks": 16, "population": 24, "generations": 8, "gradient_seeds": 6}
    acquisition = SurrogateAcquisition(space, device, SAMPLES, limits=limits, **effort)
    calls = []

    def recorded(key, archive):
        calls.append((int(archive.size), acquisition(key, archive)))
        return calls[-1][1]

    archive = run(make(generations=2, elites=1, acquisition=recorded))[0][-1].archive
    ((size, proposed),) = calls
    assert size == 4
    assert proposed.shape == (16, len(space.codec.choices))
    assert (proposed >= 0).all()
    assert (proposed < space.codec.cardinalities).all()
    seen = {tuple(genome) for genome in archive.genomes[:4].tolist()}
    fresh = [genome for genome in dict.fromkeys(map(tuple, proposed.tolist())) if genome not in seen]
    assert len(fresh) > 3
    assert [tuple(genome) for genome in archive.genomes[4:].tolist()] == fresh[:4]
    assert int(archive.size) == 8


def test_what_the_inner_engine_examines_it_examines_in_all_formats(make, space):
    several = dataclasses.replace(space, number_formats=(0, 2))
    gene = several.codec.names.index("number_format")
    hadas = dataclasses.replace(make(), space=several, evaluate=Supernet(several))
    states, _ = run(hadas, most=2)
    archive = states[-1].archive
    size = int(archive.size)
    genomes, examined = archive.genomes[:size], archive.examined[:size]
    assert len(np.unique(genomes, axis=0)) == size <= len(archive.genomes)
    pairs = [
        tuple(sorted(map(tuple, np.delete(genomes[rows], gene, axis=1).tolist())))
        for rows in (examined & (genomes[:, gene] == form) for form in (0, 1))
    ]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) >= 2
    # int8 is cheaper on a device that has it, on the same layers.
    latency = {tuple(genome): row[1] for genome, row in zip(genomes.tolist(), archive.static[:size], strict=True)}
    for genome in genomes[examined & (genomes[:, gene] == 0)].tolist():
        other = [*genome[:gene], 1, *genome[gene + 1 :]]
        assert latency[tuple(other)] < latency[tuple(genome)]
    assert several.largest_genome[gene] == 0
    assert several.smallest_genome[gene] == 1
