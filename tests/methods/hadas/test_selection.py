"""Designs against a simulation that walks sample by sample."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import NO_DIFFERENCE, Difference, Outcomes, accuracy_difference
from hadas_jax.methods.hadas import fronts, selection
from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS
from hadas_jax.methods.hadas.fronts import EXACT_CONFIGS, Candidates, pool_fronts, subset_front
from hadas_jax.methods.hadas.selection import Pool, choose, measure, set_thresholds
from hadas_jax.settings import NO_CONSTRAINTS, Constraints
from hw_models import load_device, with_clocks

SAMPLES, POINT = 300, 5
KEY = jax.random.key(7)
NOTHING = LabelledImages(images=jnp.zeros((0, 8, 8, 1)), labels=jnp.zeros(0, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A pool of backbones whose outcomes are drawn, and what is done with it."""

    pool: Pool
    evaluate: Callable
    settings: dict

    def choose(self, front_size):
        return choose(self.pool, front_size=front_size, key=KEY, **self.settings)

    def measure(self, choices, **settings):
        return measure(self.pool, choices, test=NOTHING, evaluate=self.evaluate, **settings)

    def fronts(self, policy, **settings):
        pool, stops = self.pool, [getattr(each, policy) for each in self.pool.selection]
        return pool_fronts(pool.backbones, stops, pool.device, key=KEY, limits=pool.limits, **settings)

    def performance(self, policy, choice):
        return self.pool.performance(policy, choice.backbone, choice.exits, choice.point)


@pytest.fixture(scope="module")
def space(listed_space):
    from hadas_jax.spaces import load_space

    return load_space("tiny").adapt(in_channels=1, classes=10, image_size=8)


@pytest.fixture(scope="module")
def device():
    found = load_device("agx-xavier-gpu")
    core = [float(hz) for hz in found.core_hz[::4]]
    return with_clocks(found, core_hz=core, memory_hz=[float(found.memory_hz[-1])], host_hz=[1190.4e6, 2265.6e6])


@pytest.fixture(scope="module")
def make(device):
    """Pools of backbones whose outcomes are drawn: later exits are right more often and surer."""
    known = dict.fromkeys(("record", "fingerprints", "evaluated_fingerprints"))
    splits = Splits(*[NOTHING] * 4, classes=10, name="x", **known)

    def make(space, genomes, *, limits=NO_CONSTRAINTS, **settings):
        draws = iter(range(100))

        def evaluate(genomes, data):
            each = [_outcomes(space.num_exits, next(draws)) for _ in genomes]
            return jax.tree.map(lambda *leaves: np.stack(leaves), *each)

        pool = set_thresholds(
            space, device, genomes, splits=splits, policy="confidence", evaluate=evaluate, limits=limits
        )
        return Drawn(pool, evaluate, settings)

    return make


@pytest.fixture(scope="module")
def genomes(space):
    drawn = np.random.default_rng(0).integers(0, space.codec.cardinalities, (3, len(space.codec.cardinalities)))
    return np.unique(np.concatenate([drawn, space.largest_genome[None]]).astype(np.int32), axis=0)


@pytest.fixture(scope="module")
def every_genome(space):
    return np.array(list(itertools.product(*map(range, space.codec.cardinalities))), np.int32)


@pytest.fixture(scope="module")
def drawn(make, space, genomes):
    return make(space, genomes)


@pytest.fixture(scope="module")
def pool(drawn):
    return drawn.pool


@pytest.fixture(scope="module")
def deep(small_space):
    """With 19 exit positions."""
    first, second = small_space.stages
    stages = (dataclasses.replace(first, depth=(2, 4)), dataclasses.replace(second, depth=(4, 16)))
    return dataclasses.replace(small_space, name="deep", stages=stages)


def _outcomes(exits, seed):
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(size=SAMPLES)
    skill = np.linspace(0.5, 0.1, exits + 1)
    correct = np.stack([rng.uniform(size=SAMPLES) > difficulty * s for s in skill])
    confidence = np.clip(correct * 0.3 + rng.uniform(0.2, 0.7, size=correct.shape), 0, 1).astype(np.float32)
    return Outcomes(correct=correct, confidence=confidence, entropy=-confidence, learned=confidence)


def _bits(words, samples):
    """uint32[..., W] -> bool[..., N]."""
    flags = (words[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    return flags.reshape(*words.shape[:-1], -1)[..., :samples].astype(bool)


def _simulate(stops, config, cost, *, point):
    """Walks every sample through the network."""
    samples = stops.samples
    would_stop, correct = _bits(stops.stops, samples), _bits(stops.correct, samples)
    exits, wrong, latency, energy = len(config), 0, 0.0, 0.0
    for n in range(samples):
        run, right = [0], correct[-1, n]
        for e in range(exits):
            if e:
                run.append(e)
            if config[e]:
                run.append(exits + 1 + e)
                if would_stop[config[e] - 1, e, n]:
                    right = correct[e, n]
                    break
        else:
            run.append(exits)
        wrong += not right
        latency += cost.latency_s[run, point].astype(np.float64).sum()
        energy += cost.energy_j[run, point].astype(np.float64).sum()
    return wrong / samples, latency / samples, energy / samples


def _every_config(available, levels):
    """All configurations of the exits that are there, all exits at one level, int32[M, E]."""
    choices = [(0, 1) if there else (0,) for there in available]
    subsets = np.array(list(itertools.product(*choices)), np.int32)
    return np.unique(np.concatenate([subsets * (r + 1) for r in range(levels)]), axis=0)


def _candidates(pool, policy):
    """The objectives of every exit configuration at every point, float64[n, 3]."""
    pairs = zip(pool.selection, pool.backbones, strict=True)
    return np.concatenate([_objectives(getattr(selected, policy), backbone) for selected, backbone in pairs])


def _objectives(stops, backbone):
    """Those of one backbone."""
    stats = stops.evaluate(jnp.asarray(_every_config(backbone.available, len(stops.stops))))
    frequencies = np.asarray(stats.frequencies, np.float64)
    costs = [frequencies @ np.asarray(c, np.float64) for c in (backbone.costs.latency_s, backbone.costs.energy_j)]
    error = np.broadcast_to(np.asarray(stats.error, np.float64)[:, None], costs[0].shape)
    return np.stack([error, *costs], axis=-1).reshape(-1, 3)


def _assert_front(found, every):
    weakly = (every[None] <= found[:, None] * (1 - 1e-6)).all(axis=2)
    assert not weakly.any(), "a kept design is dominated"
    covered = (found[None] <= every[:, None] * (1 + 1e-6)).all(axis=2).any(axis=1)
    assert covered.all(), "a design is missing"


def test_expected_costs_are_what_a_walk_through_the_samples_costs(pool):
    rng = np.random.default_rng(1)
    for selected, backbone in zip(pool.selection, pool.backbones, strict=True):
        for stops in (selected.ideal, selected.deployable):
            configs = rng.integers(0, len(stops.stops) + 1, (4, len(backbone.available))) * backbone.available
            stats = stops.evaluate(jnp.asarray(configs, jnp.int32))
            for row, config in enumerate(configs):
                walked = _simulate(stops, config, backbone.costs, point=POINT)
                found = stats.expected(backbone.costs, row, POINT)
                np.testing.assert_allclose(found, walked, rtol=2e-6)


def test_who_stops_is_who_is_right_or_sure_enough(pool, space):
    count = len(pool.genomes)
    outcomes = [_outcomes(space.num_exits, seed) for seed in range(2 * count)]
    pairs = zip(outcomes[count:], outcomes[:count], strict=True)
    for stops, thresholds, (validation, calibration) in zip(pool.selection, pool.thresholds, pairs, strict=True):
        correct = np.concatenate([validation.correct, calibration.correct], axis=1)
        sure = np.concatenate([validation.confidence, calibration.confidence], axis=1)[:-1]
        np.testing.assert_array_equal(_bits(stops.ideal.stops[0], 2 * SAMPLES), correct[:-1])
        np.testing.assert_array_equal(_bits(stops.deployable.stops, 2 * SAMPLES), sure[None] >= thresholds[..., None])


@pytest.mark.parametrize("policy", ["ideal", "deployable"])
def test_fronts_hold_no_dominated_design_and_miss_none(drawn, pool, policy):
    front, at_default = drawn.fronts(policy, points=(None, pool.default_point))
    every = _candidates(pool, policy)
    _assert_front(front.objectives.astype(np.float64), every)
    points = len(pool.backbones[0].points)
    _assert_front(at_default.objectives.astype(np.float64), every[points - 1 :: points])


def test_points_that_are_left_out_are_beaten_for_every_configuration_with_its_own_thresholds(pool):
    rng = np.random.default_rng(2)
    backbone, stops = pool.backbones[-1], pool.selection[-1].deployable
    configs = rng.integers(0, len(RISK_LEVELS) + 1, (20, len(backbone.available))) * backbone.available
    frequencies = np.asarray(stops.evaluate(jnp.asarray(configs, jnp.int32)).frequencies, np.float64)
    latency, energy = frequencies @ backbone.costs.latency_s, frequencies @ backbone.costs.energy_j
    left = backbone.points[backbone.points >= 0]
    gone = np.setdiff1d(np.arange(latency.shape[1]), left)
    assert len(gone)
    for point in gone:
        better = (latency[:, left] < latency[:, [point]]) & (energy[:, left] < energy[:, [point]])
        assert better.any(axis=1).all()


def test_levels_take_the_cheapest_network_that_is_good_enough(drawn, pool):
    levels = drawn.choose(8).levels
    every = _candidates(pool, "deployable")
    points = len(pool.backbones[0].points)
    assert [accuracy for accuracy, _ in levels] == sorted((accuracy for accuracy, _ in levels), reverse=True)
    for accuracy, picks in levels:
        assert not picks["static"].exits.any()
        for name, candidates in (("exits", every[points - 1 :: points]), ("exits_and_clocks", every)):
            found = drawn.performance("deployable", picks[f"deployable {name}"])
            enough = candidates[:, 0] <= 1 - accuracy + 1e-6
            assert found.error <= 1 - accuracy + 1e-6
            assert found.energy_j == pytest.approx(candidates[enough, 2].min(), rel=1e-5)
        assert picks["deployable exits"].point == pool.default_point


@pytest.mark.parametrize("share", [None, 1.0, 1e-3])
def test_static_networks_run_at_the_cheapest_clocks_of_all_within_the_limits(make, space, genomes, pool, share):
    """A limit that all points of the slowest backbones keep at the highest clocks, one that none keeps, and none."""
    exits, backbones = space.num_exits, pool.backbones
    latency, energy = (
        np.stack([np.asarray(getattr(b.costs, name)[: exits + 1], np.float64).sum(axis=0) for b in backbones])
        for name in ("latency_s", "energy_j")
    )
    limits = NO_CONSTRAINTS if share is None else Constraints(max_latency_ms=1e3 * share * float(latency[:, -1].max()))
    found = make(space, genomes, limits=limits)
    excess = np.maximum(latency / limits.objectives[1] - 1, 0) if limits.any else np.zeros_like(latency)
    none = np.zeros(exits, np.int32)
    errors = np.array([found.pool.performance("ideal", b, none, 0).error for b in range(len(backbones))])
    choices = found.choose(4)
    for accuracy, picks in choices.levels:
        enough = np.flatnonzero(errors <= 1 - accuracy + 1e-6)
        assert picks["static_dvfs"].violation == pytest.approx(excess[enough].min(), rel=1e-4, abs=1e-6)
        least = energy[enough][excess[enough] <= excess[enough].min() + 1e-6].min()
        chosen = picks["static_dvfs"]
        assert not chosen.exits.any()
        assert energy[chosen.backbone, chosen.point] == pytest.approx(least, rel=1e-6)
    designs, levels = found.measure(choices)
    rows = {tuple(genome.tolist()): row for row, genome in enumerate(found.pool.genomes)}
    for design in designs:
        row = rows[design.genome]
        within = excess[row] <= excess[row].min() + 1e-6
        assert design.static_dvfs_test.energy_j == pytest.approx(energy[row][within].min(), rel=1e-6)
        assert design.static_dvfs_test.error == design.static_test.error
    for level in levels:
        by_clocks = level.static_dvfs
        assert by_clocks.test["ideal"] == by_clocks.test["deployable"] == by_clocks.static_dvfs_test
        assert by_clocks.clocks_mhz == by_clocks.static_dvfs_clocks_mhz


def test_differences_in_accuracy_count_the_test_samples_that_only_one_network_gets_right(make, space, genomes):
    found = make(space, genomes)
    choices = found.choose(8)
    designs, levels = found.measure(choices)
    every = choices.designs + [choice for _, picks in choices.levels for choice in picks.values()]
    used = sorted({choice.backbone for choice in every})
    test = {b: _outcomes(space.num_exits, 2 * len(genomes) + k) for k, b in enumerate(used)}

    def right(choice, policy):
        outcomes, correct = test[choice.backbone], test[choice.backbone].correct[-1].copy()
        stopped = np.zeros(SAMPLES, bool)
        for exit in np.flatnonzero(choice.exits):
            threshold = found.pool.thresholds[choice.backbone][choice.exits[exit] - 1, exit]
            stops = outcomes.correct[exit] if policy == "ideal" else outcomes.confidence[exit] >= threshold
            correct = np.where(stops & ~stopped, outcomes.correct[exit], correct)
            stopped |= stops
        return correct

    def difference(a, b):
        return accuracy_difference(int((a & ~b).sum()), int((b & ~a).sum()), images=SAMPLES)

    for choice, design in zip(choices.designs, designs, strict=True):
        static = test[choice.backbone].correct[-1]
        for policy in ("ideal", "deployable"):
            if choice.exits.any():
                assert design.differences[policy] == difference(right(choice, policy), static)
    for (_, picks), level in zip(choices.levels, levels, strict=True):
        assert level.versus["static"].static == NO_DIFFERENCE
        for policy in ("ideal", "deployable"):
            choice = picks[f"{policy} exits_and_clocks"]
            wanted = [
                difference(right(choice, policy), right(picks[name], "ideal"))
                if choice.exits.any() or choice.backbone != picks[name].backbone
                else NO_DIFFERENCE
                for name in ("static", "static_dvfs")
            ]
            versus = level.versus[f"{policy} exits_and_clocks"]
            assert [versus.static, versus.static_dvfs] == wanted


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.06, 1.0])
def test_what_is_shown_to_be_as_accurate_is_the_last_of_an_unbroken_row_from_the_highest_level_down(
    make, space, every_genome, tolerance
):
    found = make(space, every_genome)
    _, levels = found.measure(found.choose(4), accuracy_tolerance=tolerance)
    assert len(levels) > 1
    for index, level in enumerate(levels):
        own = level.versus["deployable exits_and_clocks"]
        if level.as_accurate is None:
            assert index or not own.is_shown(tolerance)
            continue
        assert level.as_accurate.versus.is_shown(tolerance)
        assert level.as_accurate.accuracy >= level.accuracy
        higher = {each.accuracy: each.exits_and_clocks["deployable"] for each in levels[: index + 1]}
        assert level.as_accurate.design == higher[level.as_accurate.accuracy]
    if tolerance == 1.0:
        assert [level.as_accurate.accuracy for level in levels] == [level.accuracy for level in levels]


def test_a_network_that_passes_below_one_that_fails_is_not_said_to_be_as_accurate(
    monkeypatch, make, space, every_genome
):
    found, fails = make(space, every_genome), Difference(-0.5, -0.6, -0.4)
    choices = found.choose(4)
    highest = choices.levels[0][1]["deployable exits_and_clocks"]
    passes = Difference(0.0, -0.001, 0.001)

    def difference(test, first, second):
        same = (first[0].backbone, first[0].point) == (highest.backbone, highest.point)
        return fails if same and first[1] == "deployable" else passes

    monkeypatch.setattr(selection, "_difference", difference)
    _, levels = found.measure(choices, accuracy_tolerance=0.01)
    assert [level.as_accurate for level in levels] == [None] * len(choices.levels)


def test_measured_designs_name_their_exits_thresholds_and_shares(drawn, pool, space):
    choices = drawn.choose(8)
    designs, levels = drawn.measure(choices)
    assert [design.point for design in designs] == [choice.point for choice in choices.designs]
    assert levels
    for design in designs:
        assert len(design.exits) == len(design.thresholds)
        for shares in (design.selection_shares, design.test_shares):
            assert len(shares) == len(design.exits) + 1
            assert sum(shares) == pytest.approx(1, abs=1e-6)
            assert min(shares) >= 0
        blocks = sum(design.backbone["depth"])
        assert all(space.first_exit <= block < blocks for block in design.exits)
        assert design.test["ideal"].error <= design.static_test.error + 1e-9
        assert design.excess == 0


def test_designs_on_a_front_keep_the_limits_and_are_those_of_the_free_front_that_do(make, space, genomes, drawn):
    (free,) = drawn.fronts("deployable")
    limits = Constraints(max_latency_ms=1e3 * float(np.median(free.objectives[:, 1])))
    choices = make(space, genomes, limits=limits).choose(10**6)
    kept = [choice for choice in choices.designs if choice.found_by == "deployable"]
    assert choices.within == {"ideal": True, "deployable": True}
    assert len(kept) == (free.objectives[:, 1] <= limits.objectives[1]).sum()
    for choice in choices.designs:
        found = drawn.performance(choice.found_by, choice)
        assert found.latency_s <= limits.max_latency_ms * 1e-3 * (1 + 1e-6)


def test_a_front_within_a_limit_of_the_99th_percentile_is_that_of_all_candidates_that_keep_it(
    make, space, genomes, pool
):
    every, p99 = _candidates(pool, "deployable"), _p99(pool)
    values = np.unique(p99)
    between = ((values[:-1] + values[1:]) / 2)[values[1:] > values[:-1] * (1 + 1e-4)]  # away from rounding
    limit = float(between[np.argmin(np.abs(between - np.quantile(p99, 0.3)))])
    found = make(space, genomes, limits=Constraints(max_p99_latency_ms=1e3 * limit))
    front, at_default = found.fronts("deployable", points=(None, pool.default_point))
    points = len(pool.backbones[0].points)
    _assert_front(front.objectives[front.excess == 0].astype(np.float64), every[p99 <= limit])
    here, own = every[points - 1 :: points], p99[points - 1 :: points]
    if (own <= limit).any():
        _assert_front(at_default.objectives[at_default.excess == 0].astype(np.float64), here[own <= limit])
    choices = found.choose(8)
    for design in found.measure(choices)[0]:
        assert design.excess == 0
        assert design.selection_percentiles[design.found_by].p99_s <= limit * (1 + 1e-6)
    for _, picks in choices.levels:
        pick = picks["deployable exits_and_clocks"]
        no_worse = every[:, 0] <= found.performance("deployable", pick).error
        assert pick.violation == 0 or not (p99 <= limit)[no_worse].any()


@pytest.mark.parametrize(("name", "field"), [("max_memory_mb", "peak_memory_bytes"), ("max_flash_mb", "weight_bytes")])
def test_designs_keep_limits_on_their_size_with_exits(make, space, genomes, drawn, name, field):
    free = drawn.measure(drawn.choose(64))[0]
    limit = 1e-6 * float(np.quantile([getattr(design, field) for design in free], 0.4))
    found = make(space, genomes, limits=Constraints(**{name: limit}))
    choices = found.choose(64)
    designs = found.measure(choices)[0]
    assert choices.within == {"ideal": True, "deployable": True}
    assert all(1e-6 * getattr(design, field) <= limit * (1 + 1e-6) for design in designs)
    kept = [design for design in free if 1e-6 * getattr(design, field) <= limit]
    for policy in ("ideal", "deployable"):  # nothing of the free front that keeps the limit is lost
        values = np.array([dataclasses.astuple(design.selection[policy]) for design in designs])
        for design in kept:
            if design.found_by == policy:
                own = np.array(dataclasses.astuple(design.selection[policy]))
                assert (values <= own * (1 + 1e-6)).all(axis=1).any()


def test_percentiles_of_designs_are_those_of_a_walk_through_the_samples(drawn, pool):
    choices = drawn.choose(4)
    for choice, design in zip(choices.designs, drawn.measure(choices)[0], strict=True):
        stops, costs = pool.selection[choice.backbone].deployable, pool.backbones[choice.backbone].costs
        latencies = _latencies(stops, choice.exits, costs, point=choice.point)
        found = design.selection_percentiles["deployable"]
        wanted = np.quantile(latencies, [0.5, 0.95, 0.99], method="inverted_cdf")
        np.testing.assert_allclose([found.p50_s, found.p95_s, found.p99_s], wanted, rtol=1e-5)
        assert found.longest_s >= latencies.max() * (1 - 1e-6)


def _latencies(stops, config, costs, *, point):
    """float64[N], what each sample takes."""
    would_stop, exits = _bits(stops.stops, stops.samples), len(config)
    taken = np.stack([would_stop[config[e] - 1, e] & bool(config[e]) for e in range(exits)])
    last = np.concatenate([taken, np.ones((1, stops.samples), bool)]).argmax(axis=0)
    heads = np.flatnonzero(config)
    segments = [[*range(n + 1), *(exits + 1 + heads[heads <= n])] for n in range(exits + 1)]
    paths = np.array([np.asarray(costs.latency_s, np.float64)[run, point].sum() for run in segments])
    return paths[last]


def _p99(pool):
    """float64[n] in the order of `_candidates`."""
    found = []
    for selected, backbone in zip(pool.selection, pool.backbones, strict=True):
        stops = selected.deployable
        for config in _every_config(backbone.available, len(stops.stops)):
            runs = [_latencies(stops, config, backbone.costs, point=point) for point in range(len(backbone.points))]
            found += [np.quantile(each, 0.99, method="inverted_cdf") for each in runs]
    return np.array(found)


def test_where_nothing_keeps_the_limits_the_nearest_are_reported_with_their_violation(make, space, genomes, pool):
    every = _candidates(pool, "deployable")
    limits = Constraints(max_latency_ms=800 * every[:, 1].min(), max_energy_mj=800 * every[:, 2].min())
    limited = make(space, genomes, limits=limits)
    choices = limited.choose(8)
    assert choices.within["deployable"] is False
    designs = [d for d in limited.measure(choices)[0] if d.found_by == "deployable"]
    assert 1 <= len(designs) <= 5
    excess = (every[:, 1:] / limits.objectives[1:] - 1).max(axis=1)
    assert designs[0].excess == pytest.approx(excess.min(), rel=1e-4)
    for design in designs:
        found = design.selection["deployable"]
        over = max(found.latency_s / limits.objectives[1], found.energy_j / limits.objectives[2]) - 1
        assert design.excess == pytest.approx(over, rel=1e-4)


def test_the_cheapest_is_first_of_all_the_one_nearest_to_the_limits():
    objectives = np.array([[0.1, 3.0, 1.0], [0.1, 1.0, 3.0], [0.1, 1.0, 2.0], [0.3, 1.0, 0.5]], np.float32)
    found = Candidates(np.zeros(4, int), np.zeros((4, 1), np.int32), np.arange(4), objectives, np.zeros(4))
    assert found.cheapest(0.2, limits=NO_CONSTRAINTS) == 0
    assert found.cheapest(0.2, limits=Constraints(max_latency_ms=2000)) == 2
    assert found.cheapest(0.05, limits=NO_CONSTRAINTS) is None


def test_backbones_with_too_many_weights_leave_the_pool(space, device):
    genomes = np.stack([space.largest_genome, space.smallest_genome])
    params = np.asarray(static_costs(space, jnp.asarray(genomes), device)[1])
    archive = Archive.empty(4, space, samples=40)
    archive = archive.append(genomes=genomes, params=params, static=np.array([[0.1, 2, 2], [0.2, 1, 1]], np.float32))
    assert len(archive.pool(space, device, limits=NO_CONSTRAINTS)) == 2
    kept = archive.pool(space, device, limits=Constraints(max_params=int(params[0]) - 1))
    np.testing.assert_array_equal(kept, genomes[1:])


def test_evolved_fronts_come_close_to_the_exact_ones_with_a_level_for_each_exit(drawn):
    (exact,), (evolved,) = drawn.fronts("deployable"), drawn.fronts("deployable", exact_configs=1)
    covered = (evolved.objectives[None] <= exact.objectives[:, None] * 1.01).all(axis=2).any(axis=1)
    assert covered.mean() > 0.95
    (per_exit,) = drawn.fronts("deployable", per_exit=True)
    better = (per_exit.objectives[None] <= exact.objectives[:, None]).all(axis=2).any(axis=1)
    assert better.all(), "nothing of the front with shared levels is lost"


@pytest.mark.slow
def test_a_backbone_of_many_exit_positions_is_deployed_by_its_own_few_exits_or_by_evolution(make, deep, monkeypatch):
    monkeypatch.setattr(fronts, "POPULATION", 16)
    monkeypatch.setattr(fronts, "GENERATIONS", 6)
    monkeypatch.setattr(fronts, "_LISTED", 256)
    assert deep.num_exits > 16
    found = make(deep, np.stack([deep.largest_genome, deep.smallest_genome]))
    counts = [int(backbone.count) for backbone in found.pool.backbones]
    assert counts[0] > 16
    assert len(RISK_LEVELS) << counts[1] <= EXACT_CONFIGS
    designs, levels = found.measure(found.choose(8))
    assert levels
    few, stops = found.pool.backbones[1], found.pool.selection[1].ideal
    _assert_front(subset_front(stops, few).objectives.astype(np.float64), _objectives(stops, few))
    for design in designs:
        assert len(design.exits) == len(design.thresholds)
        assert sum(design.test_shares) == pytest.approx(1, abs=1e-6)


def test_fronts_do_not_depend_on_how_configurations_are_cut_into_blocks(pool, monkeypatch):
    backbone, stops = pool.backbones[-1], pool.selection[-1].deployable
    whole = subset_front(stops, backbone)
    monkeypatch.setattr(fronts, "_CONFIGS", 1)
    parts = subset_front(stops, backbone)
    for name in ("exits", "point", "objectives"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_spread_keeps_the_ends_of_the_front_and_its_size():
    rng = np.random.default_rng(0)
    objectives = rng.uniform(0.1, 1, size=(50, 3)).astype(np.float32)
    front = Candidates(np.zeros(50, int), np.zeros((50, 1), np.int32), np.arange(50), objectives, np.zeros(50))
    rows = front.spread(10)
    assert len(rows) == 10
    assert set(np.argmin(objectives, axis=0)) <= set(rows.tolist())
    np.testing.assert_array_equal(front.take(np.arange(4)).spread(10), np.arange(4))
