import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hadas_jax.search.product as streaming
from hadas_jax.search import best_under, grid_front, grid_hypervolume, hypervolume

PLANS, SEGMENTS, CLOCKS = 19, 4, 30


def product(seed, whole=True):
    """Whole numbers, so that any order of summation gives the same float32, with ties and lost plans."""
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 9, PLANS).astype(np.float32)
    errors[rng.integers(0, PLANS, 3)] = np.inf
    weights = rng.integers(0, 4, (PLANS, SEGMENTS)).astype(np.float32)
    weights[3] = weights[8]
    latency, energy = rng.integers(1, 8, (2, SEGMENTS, CLOCKS)).astype(np.float32)
    latency[:, 5], energy[:, 5] = latency[:, 2], energy[:, 2]
    if not whole:
        weights, latency, energy = (x + rng.random(x.shape, np.float32) for x in (weights, latency, energy))
    return errors, weights, latency, energy


def candidates(errors, weights, latency, energy):
    """float32[S * F, 3] in plan-major order, lost plans as NaN."""
    flat = np.repeat(errors, CLOCKS)
    values = np.stack([flat, (weights @ latency).ravel(), (weights @ energy).ravel()], axis=1)
    return np.where(np.isinf(flat)[:, None], np.nan, values)


@pytest.fixture(params=[2**18, 70], ids=["one chunk", "chunks of two plans"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK", request.param)
    for compiled in (grid_front, best_under):
        compiled.clear_cache()
    yield
    for compiled in (grid_front, best_under):
        compiled.clear_cache()


def test_the_grid_holds_the_least_energy_of_every_cell(chunk):
    levels, edges = jnp.array([1.0, 2.0, 5.0, 7.0]), jnp.array([5.0, 10.0, 20.0, 40.0, 60.0])
    for seed in range(10):
        errors, weights, latency, energy = product(seed)
        table = grid_front(errors, weights, latency=latency, energy=energy, error_levels=levels, latency_edges=edges)
        values = candidates(errors, weights, latency, energy)
        values = values[~np.isnan(values[:, 0])]
        expected = np.full((5, 6), np.inf)
        cells = (np.searchsorted(levels, values[:, 0]), np.searchsorted(edges, values[:, 1]))
        np.minimum.at(expected, cells, values[:, 2])
        np.testing.assert_array_equal(table, expected[:4, :5])


def test_the_grid_hypervolume_is_a_lower_bound_that_converges():
    reference = jnp.array([9.0, 90.0, 90.0])
    for seed in range(4):
        errors, weights, latency, energy = map(jnp.asarray, product(seed, whole=False))
        exact = float(hypervolume(jnp.asarray(candidates(errors, weights, latency, energy)), reference))
        shares = []
        for bins in (4, 32, 4096):
            levels, edges = jnp.arange(9.0), jnp.linspace(0.0, 100.0, bins)
            axes = {"error_levels": levels, "latency_edges": edges}
            table = grid_front(errors, weights, latency=latency, energy=energy, **axes)
            shares.append(float(grid_hypervolume(table, **axes, reference=reference)) / exact)
        assert 0 < shares[0] < shares[1] < shares[2] <= 1 + 1e-6
        assert shares[2] > 0.998


def test_the_grid_of_nothing_has_no_hypervolume():
    axes = {"error_levels": jnp.arange(3.0), "latency_edges": jnp.arange(4.0)}
    table = jnp.full((3, 4), jnp.inf)
    assert grid_hypervolume(table, **axes, reference=jnp.full(3, 5.0)) == 0
    assert grid_hypervolume(jnp.zeros((3, 4)), **axes, reference=jnp.full(3, -1.0)) == 0


def test_the_best_under_budgets_is_that_of_a_search_over_all(chunk):
    found = 0
    for seed in range(30):
        arrays = product(seed)
        values = candidates(*arrays)
        max_error, max_latency = float(seed % 5), float(5 + 2 * seed)
        best = best_under(
            *arrays[:2], latency=arrays[2], energy=arrays[3], max_error=max_error, max_latency=max_latency
        )
        within = (values[:, 0] <= max_error) & (values[:, 1] <= max_latency)
        found += within.any()
        assert best.feasible == within.any()
        if within.any():
            index = int(np.argmin(np.where(within, values[:, 2], np.inf)))
            assert (int(best.plan), int(best.point)) == divmod(index, CLOCKS)
            np.testing.assert_array_equal(best.objectives, values[index])
        else:
            assert (int(best.plan), int(best.point)) == (-1, -1)
    assert 5 < found < 30


@pytest.mark.parametrize("minimise", ["error", "latency", "energy"])
def test_any_objective_may_be_minimised_under_budgets_of_all(minimise, chunk):
    found = 0
    for seed in range(20):
        errors, weights, latency, energy = product(seed)
        budgets = {"max_error": 4.0, "max_latency": 1.0 + 2 * seed, "max_energy": 2.0 * seed}
        best = best_under(errors, weights, latency=latency, energy=energy, minimise=minimise, **budgets)
        values = candidates(errors, weights, latency, energy)
        within = (values <= np.array(list(budgets.values()))).all(axis=1)
        found += within.any()
        assert best.feasible == within.any()
        if within.any():
            goal = values[:, ("error", "latency", "energy").index(minimise)]
            index = int(np.argmin(np.where(within, goal, np.inf)))
            assert (int(best.plan), int(best.point)) == divmod(index, CLOCKS)
            np.testing.assert_array_equal(best.objectives, values[index])
    assert 5 < found < 20


@pytest.mark.parametrize("tile", [128, 7])
def test_only_the_plans_and_points_asked_for_are_visited(tile, chunk, monkeypatch):
    monkeypatch.setattr(streaming, "_TILE", tile)
    levels, edges = jnp.array([1.0, 2.0, 5.0, 7.0]), jnp.array([5.0, 10.0, 20.0, 40.0, 60.0])
    axes = {"error_levels": levels, "latency_edges": edges}
    for seed in range(6):
        errors, weights, latency, energy = product(seed)
        plans, chosen = 5 * seed % 20, np.sort(np.random.default_rng(seed).choice(CLOCKS, 17, replace=False))
        part = {"plans": jnp.int32(plans), "points": jnp.asarray(np.append(chosen, [-1] * 5), jnp.int32)}
        left = np.where(np.arange(PLANS) < plans, errors, np.inf).astype(np.float32)
        table = grid_front(errors, weights, latency=latency, energy=energy, **axes, **part)
        wanted = grid_front(left, weights, latency=latency[:, chosen], energy=energy[:, chosen], **axes)
        np.testing.assert_array_equal(table, wanted)
        best = best_under(errors, weights, latency=latency, energy=energy, max_latency=30.0, **part)
        same = best_under(left, weights, latency=latency[:, chosen], energy=energy[:, chosen], max_latency=30.0)
        assert int(best.plan) == int(same.plan)
        assert int(best.point) == (chosen[int(same.point)] if same.feasible else -1)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(0, 10**6))
def test_guided_bins_are_those_of_a_binary_search(edges, seed):
    ends = np.full(6, np.float32(2e6))
    ends[: len(edges)] = np.abs(np.sort(np.array(edges, np.float32)))
    rng = np.random.default_rng(seed)
    values = np.concatenate(
        [ends, np.nextafter(ends[ends > 0], np.float32(np.inf)), 10 ** rng.uniform(-8, 7, 50), [0, np.inf]]
    )
    values = np.resize(values.astype(np.float32), 70)
    found = jax.jit(streaming.guided_bins)(jnp.asarray(ends), jnp.asarray(values))
    np.testing.assert_array_equal(found, np.searchsorted(ends, values))


def test_a_lost_plan_is_never_the_best():
    errors, weights, latency, energy = product(0)
    best = best_under(
        np.full_like(errors, np.inf),
        weights,
        latency=latency,
        energy=energy,
        max_error=np.inf,
        max_latency=99.0,
    )
    assert not best.feasible


def test_arrays_that_do_not_fit_are_refused():
    errors, weights, latency, energy = product(0)
    budgets = {"max_error": 1.0, "max_latency": 1.0}
    with pytest.raises(ValueError, match=r"errors: expected shape \(19,\), got \(18,\)"):
        best_under(errors[:-1], weights, latency=latency, energy=energy, **budgets)
    with pytest.raises(ValueError, match=r"latency: expected shape \(4, 30\), got \(3, 30\)"):
        best_under(errors, weights, latency=latency[:-1], energy=energy, **budgets)
    with pytest.raises(ValueError, match=r"energy: expected shape \(4, 30\), got \(4, 29\)"):
        best_under(errors, weights, latency=latency, energy=energy[:, 1:], **budgets)
    with pytest.raises(ValueError, match="minimise: expected one of error, latency, energy, got 'power'"):
        best_under(errors, weights, latency=latency, energy=energy, minimise="power")
    with pytest.raises(ValueError, match="reference: expected shape"):
        grid_hypervolume(jnp.zeros((2, 2)), error_levels=jnp.ones(2), latency_edges=jnp.ones(2), reference=jnp.ones(2))
