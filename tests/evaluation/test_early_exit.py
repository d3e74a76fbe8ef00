from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_models
from hadas_jax.evaluation import count_bits, dissimilarity, pack_bits, segment_costs
from hadas_jax.evaluation.early_exit import mean_dissimilarity, subset_stats, useful_points
from hadas_jax.methods.hadas.exit_configs import DynamicBackbone, Stops
from hadas_jax.search import Product, product_front
from hadas_jax.spaces import segments, workload


def simulate(stops, correct, available):
    """Error and runs of each segment of every subset, walking every sample through the network."""
    exits, samples = stops.shape
    errors, weights = [], []
    for subset in range(2**exits):
        chosen = [e for e in range(exits) if subset >> e & 1]
        runs, wrong = np.zeros(2 * exits + 1), 0
        for n in range(samples):
            answer = exits
            for e in range(exits):
                runs[e] += 1
                if e in chosen:
                    runs[exits + 1 + e] += 1
                    if stops[e, n]:
                        answer = e
                        break
            else:
                runs[exits] += 1
            wrong += not correct[answer, n]
        errors.append(wrong / samples if all(available[e] for e in chosen) else np.inf)
        weights.append(runs / samples)
    return np.array(errors), np.array(weights)


def draw(seed, *, exits, samples):
    rng = np.random.default_rng(seed)
    correct = rng.random((exits + 1, samples)) < np.linspace(0.4, 0.9, exits + 1)[:, None]
    return rng.random((exits, samples)) < 0.4, correct, rng.random(exits) < 0.7


@pytest.mark.parametrize("samples", [1, 32, 45])
@pytest.mark.parametrize("stopping", ["ideal", "random"])
def test_all_subsets_are_those_of_walking_every_sample_through(samples, stopping):
    stops, correct, available = draw(samples, exits=4, samples=samples)
    stops = correct[:-1] if stopping == "ideal" else stops
    packed = pack_bits(jnp.asarray(stops)), pack_bits(jnp.asarray(correct))
    found = subset_stats(*packed, jnp.asarray(available), samples=samples)
    error, weights = simulate(stops, correct, available)
    np.testing.assert_allclose(found.error, error, rtol=1e-6)
    np.testing.assert_allclose(found.frequencies, weights, rtol=1e-6)
    assert np.isinf(found.error[-1]) == (not available.all())


def test_only_the_configurations_asked_for_are_evaluated_and_those_alike():
    stops, correct, _ = draw(5, exits=10, samples=50)
    packed = pack_bits(jnp.asarray(stops)), pack_bits(jnp.asarray(correct))
    own = jnp.arange(10) < 9
    every = subset_stats(*packed, own, samples=50)
    part = subset_stats(*packed, own, samples=50, configs=jnp.int32(300))
    np.testing.assert_array_equal(part.error[:300], every.error[:300])
    np.testing.assert_array_equal(part.frequencies[:300], every.frequencies[:300])
    assert np.isinf(part.error[300:]).all()
    assert np.isfinite(every.error[:512]).all()
    assert np.isinf(every.error[512:]).all()


def test_more_exits_than_can_be_listed_are_refused():
    with pytest.raises(ValueError, match="expected 0 to 16 exits to list all subsets of, got 17"):
        subset_stats(jnp.zeros((17, 1), jnp.uint32), jnp.zeros((18, 1), jnp.uint32), jnp.ones(17, bool), samples=3)


def packed(stops, correct):
    stops, correct = (pack_bits(jnp.asarray(each)) for each in (stops, correct))
    return Stops(stops[None], correct, samples=40)


@pytest.mark.parametrize("slots", [3, 5])
def test_exits_moved_to_slots_keep_errors_and_costs(slots):
    for seed in range(6):
        stops, correct, _ = draw(seed, exits=5, samples=40)
        available = np.isin(np.arange(5), np.random.default_rng(seed).choice(5, seed % 4, replace=False))
        costs = np.random.default_rng(seed).integers(1, 50, (2, 11, 6)).astype(np.float32)
        costs = hw_models.Cost(*map(jnp.asarray, costs))
        backbone = DynamicBackbone.of(jnp.asarray(available), costs, slots=slots)
        moved = backbone.active_costs
        whole = subset_stats(*(pack_bits(jnp.asarray(x)) for x in (stops, correct)), jnp.asarray(available), samples=40)
        part = backbone.evaluate_subsets(packed(stops, correct))
        k = int(available.sum())
        assert int(backbone.count) == k
        assert np.isinf(part.error[2**k :]).all()
        for config in range(2**k):
            original = sum(1 << int(p) for s, p in enumerate(backbone.position.tolist()) if config >> s & 1)
            assert part.error[config] == whole.error[original]
            for cost, own_cost in ((costs.latency_s, moved.latency_s), (costs.energy_j, moved.energy_j)):
                expected = whole.frequencies[original] @ cost
                np.testing.assert_allclose(part.frequencies[config] @ own_cost, expected, rtol=1e-5)


def test_exits_beyond_the_slots_are_counted_and_left_out():
    stops, correct, _ = draw(0, exits=5, samples=40)
    costs = jnp.arange(22, dtype=jnp.float32).reshape(11, 2)
    backbone = DynamicBackbone.of(jnp.ones(5, bool), hw_models.Cost(costs, costs), slots=3)
    assert int(backbone.count) == 5
    assert backbone.position.tolist() == [0, 1, 2]
    assert backbone.to_slots(packed(stops, correct).correct[:-1]).shape == (3, 2)
    assert backbone.evaluate_subsets(packed(stops, correct)).error.shape == (8,)
    np.testing.assert_array_equal(backbone.active_costs.latency_s[3], costs[3] + costs[4] + costs[5])


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_points_that_are_not_useful_stand_on_no_front(seed):
    rng = np.random.default_rng(seed)
    stops, correct, available = draw(seed, exits=3, samples=40)
    pace, rows = rng.uniform(0.5, 2, (2, 1, 40)), rng.uniform(0, 0.3, (2, 7, 40))
    costs = hw_models.Cost(*(jnp.asarray(pace + rows, jnp.float32)))
    packed = pack_bits(jnp.asarray(stops)), pack_bits(jnp.asarray(correct))
    stats = subset_stats(*packed, jnp.asarray(available), samples=40)
    product = Product(stats.error, stats.frequencies, costs.latency_s, costs.energy_j)
    points = jax.jit(useful_points)(costs)
    whole = product_front(product.replace(points=jnp.arange(40)), capacity=400)
    found = product_front(product.replace(points=points), capacity=400)
    kept = np.asarray(points)[points >= 0]
    assert 1 <= len(kept) < 40
    assert (np.diff(kept) > 0).all()
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_the_empty_subset_is_the_static_network():
    stops, correct, available = draw(0, exits=3, samples=40)
    packed = pack_bits(jnp.asarray(stops)), pack_bits(jnp.asarray(correct))
    found = subset_stats(*packed, jnp.asarray(available), samples=40)
    assert found.frequencies[0].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert float(found.error[0]) == pytest.approx(1 - correct[-1].mean(), abs=1e-6)


def test_a_network_without_exits_has_one_subset():
    correct = jnp.array([[True, False, True]])
    found = subset_stats(jnp.zeros((0, 1), jnp.uint32), pack_bits(correct), jnp.zeros(0, bool), samples=3)
    np.testing.assert_allclose(found.error, [1 / 3], rtol=1e-6)
    assert found.frequencies.tolist() == [[1.0]]


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_packing_keeps_each_sample_at_its_bit_and_spares_zero(flags):
    words = np.asarray(pack_bits(jnp.asarray(flags)))
    assert len(words) == -(-len(flags) // 32)
    number = sum(int(word) << 32 * w for w, word in enumerate(words))
    assert number == sum(flag << n for n, flag in enumerate(flags))
    assert int(count_bits(jnp.asarray(words))) == sum(flags)


def test_packing_and_counting_keep_leading_axes():
    flags = np.random.default_rng(0).random((2, 3, 77)) < 0.5
    words = pack_bits(jnp.asarray(flags))
    assert words.shape == (2, 3, 3)
    assert words.dtype == jnp.uint32
    assert (count_bits(words) == flags.sum(-1)).all()


@pytest.fixture(scope="module")
def costs(small_space):
    """Some backbones, their segment costs at four points, device and points."""
    device = hw_models.load_device("agx-xavier-gpu")
    device = hw_models.with_clocks(device, core_hz=[114.75e6, 1377e6], memory_hz=[204e6, 2133e6], host_hz=[2265.6e6])
    points = hw_models.operating_points(device)
    genomes = np.random.default_rng(0).integers(0, small_space.codec.cardinalities, (4, len(small_space.codec.names)))
    genomes[0] = small_space.largest_genome
    backbones = [small_space.decode(jnp.asarray(genome, jnp.int32)) for genome in genomes]
    run = jax.jit(partial(segment_costs, small_space))
    return backbones, [run(backbone, device) for backbone in backbones], device, points, run


def test_trunk_segments_sum_to_the_cost_of_the_network_without_heads(costs, small_space):
    backbones, found, device, points, _ = costs
    trunk = jnp.asarray(segments(small_space) <= small_space.num_exits, jnp.float32)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def whole(backbone, point):
        layers = workload(small_space, backbone)
        return hw_models.network_cost(layers.replace(active=layers.active * trunk), device, point)

    for backbone, cost in zip(backbones, found, strict=True):
        expected = whole(backbone, points)
        runs = jnp.asarray(np.arange(2 * small_space.num_exits + 1) <= small_space.num_exits, jnp.float32)
        np.testing.assert_allclose(runs @ cost.latency_s, expected.latency_s, rtol=1e-5)
        np.testing.assert_allclose(runs @ cost.energy_j, expected.energy_j, rtol=1e-5)


def test_a_sample_that_stops_at_the_kth_exit_pays_k_calls_and_a_static_network_one(costs, small_space):
    backbones, found, device, points, run = costs
    cost, before = run(backbones[0], device.replace(segment_cycles=jnp.float32(1e5))), found[0]
    host_hz = np.asarray(points.host_hz)
    calls = np.asarray(cost.latency_s - before.latency_s) * host_hz / 1e5
    exits = small_space.num_exits
    np.testing.assert_allclose(calls, np.repeat(np.arange(2 * exits + 1) >= exits, 4).reshape(-1, 4), atol=1e-2)
    assert calls[: exits + 1].sum(0) == pytest.approx(1, rel=1e-2)
    energy_j = np.asarray(hw_models.idle_power(device, points)) * 1e5 / host_hz
    more_j = np.asarray(cost.energy_j - before.energy_j)[exits:]
    np.testing.assert_allclose(more_j, np.broadcast_to(energy_j, (exits + 1, 4)), rtol=1e-2)


def test_segments_that_a_backbone_lacks_are_free_and_all_others_cost_something(costs, small_space):
    backbones, found, *_ = costs
    for backbone, cost in zip(backbones, found, strict=True):
        assert cost.latency_s.shape == cost.energy_j.shape == (2 * small_space.num_exits + 1, 4)
        used = [b < d for s, d in zip(small_space.stages, backbone.depth, strict=True) for b in range(max(s.depth))]
        for column in (cost.latency_s, cost.energy_j):
            trunk, heads = np.asarray(column > 0).all(1), np.asarray(column > 0).any(1)
            after = used[small_space.first_exit :]
            assert trunk[0]
            assert trunk[small_space.num_exits]
            assert trunk[1 : small_space.num_exits].tolist() == after[1:]
            assert heads[small_space.num_exits + 1 :].tolist() == after


def bit_rows(*rows):
    return pack_bits(jnp.array([[bit == "1" for bit in row] for row in rows]))


def test_dissimilarity_is_zero_for_equal_exits_and_one_for_disjoint_or_hopeless_ones():
    found = dissimilarity(bit_rows("1100", "1100", "0011", "0110", "0000"))
    assert found.shape == (5, 5)
    np.testing.assert_allclose(found[0], [0, 0, 1, 0.5, 1], atol=1e-6)
    assert (found[4] == 1).all()
    assert (found == found.T).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_dissimilarity_stays_between_zero_and_one(seed):
    correct = np.random.default_rng(seed).random((4, 33)) < 0.6
    found = np.asarray(dissimilarity(pack_bits(jnp.asarray(correct))))
    norms = np.sqrt(correct.sum(1))
    expected = 1 - (correct.astype(float) @ correct.T) / np.outer(norms, norms)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found > -1e-6).all()
    assert (found < 1 + 1e-6).all()


@pytest.mark.parametrize(("chosen", "expected"), [("000", 1), ("010", 1), ("110", 0), ("011", 1), ("111", 2 / 3)])
def test_the_mean_dissimilarity_is_over_pairs_of_chosen_exits(chosen, expected):
    found = mean_dissimilarity(bit_rows("1100", "1100", "0011"), jnp.array([exit == "1" for exit in chosen]))
    assert float(found) == pytest.approx(expected, abs=1e-6)
