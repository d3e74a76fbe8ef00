import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hadas_jax.search.product as streaming
from hadas_jax.search import Product, hypervolume
from hadas_jax.search.product import fill_cells, grid_hypervolume, guided_bins, stream

CONFIGS, SEGMENTS, CLOCKS = 19, 4, 30
LEVELS, EDGES = jnp.array([1.0, 2.0, 5.0, 7.0]), jnp.array([5.0, 10.0, 20.0, 40.0, 60.0])


def product(seed, whole=True):
    """Whole numbers, so that any order of summation gives the same float32, with ties and lost configurations."""
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 9, CONFIGS).astype(np.float32)
    errors[rng.integers(0, CONFIGS, 3)] = np.inf
    frequencies = rng.integers(0, 4, (CONFIGS, SEGMENTS)).astype(np.float32)
    frequencies[3] = frequencies[8]
    latency, energy = rng.integers(1, 8, (2, SEGMENTS, CLOCKS)).astype(np.float32)
    latency[:, 5], energy[:, 5] = latency[:, 2], energy[:, 2]
    if not whole:
        frequencies, latency, energy = (x + rng.random(x.shape, np.float32) for x in (frequencies, latency, energy))
    return Product(errors, frequencies, latency, energy)


def candidates(product):
    """float32[S * F, 3], one configuration after the other, lost ones as NaN."""
    flat = np.repeat(product.errors, CLOCKS)
    costs = [(product.frequencies @ cost).ravel() for cost in (product.latency, product.energy)]
    values = np.stack([flat, *costs], axis=1)
    return np.where(np.isinf(flat)[:, None], np.nan, values)


@pytest.fixture(scope="module", params=[(2**18, 128), (70, 7)], ids=["one chunk", "small chunks and tiles"])
def grid(request):
    """The least energy of every cell, float32[L, B]; compiled once for each shape."""

    @jax.jit
    def fill(product, levels, edges):
        def step(table, chunk):
            return fill_cells(table, chunk, error_levels=levels, latency_edges=edges)

        start = jnp.full((len(levels) + 1, len(edges) + 1), jnp.inf)
        return stream(step, start, product)[:-1, :-1]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("_CHUNK", "_TILE"), request.param, strict=True):
            patch.setattr(streaming, name, value)
        yield lambda product, levels=LEVELS, edges=EDGES: fill(product, levels, edges)


def test_the_grid_holds_the_least_energy_of_every_cell(grid):
    for seed in range(10):
        values = candidates(product(seed))
        values = values[~np.isnan(values[:, 0])]
        expected = np.full((5, 6), np.inf)
        cells = (np.searchsorted(LEVELS, values[:, 0]), np.searchsorted(EDGES, values[:, 1]))
        np.minimum.at(expected, cells, values[:, 2])
        np.testing.assert_array_equal(grid(product(seed)), expected[:4, :5])


def test_the_grid_hypervolume_is_a_lower_bound_that_converges(grid):
    reference = jnp.array([9.0, 90.0, 90.0])
    for seed in range(3):
        arrays = product(seed, whole=False)
        exact = float(hypervolume(jnp.asarray(candidates(arrays)), reference))
        shares = []
        for bins in (4, 32, 4096):
            levels, edges = jnp.arange(9.0), jnp.linspace(0.0, 100.0, bins)
            axes = {"error_levels": levels, "latency_edges": edges}
            table = grid(arrays, levels, edges)
            shares.append(float(grid_hypervolume(table, **axes, reference=reference)) / exact)
        assert 0 < shares[0] < shares[1] < shares[2] <= 1 + 1e-6
        assert shares[2] > 0.998


def test_the_grid_of_nothing_has_no_hypervolume():
    axes = {"error_levels": jnp.arange(3.0), "latency_edges": jnp.arange(4.0)}
    table = jnp.full((3, 4), jnp.inf)
    assert grid_hypervolume(table, **axes, reference=jnp.full(3, 5.0)) == 0
    assert grid_hypervolume(jnp.zeros((3, 4)), **axes, reference=jnp.full(3, -1.0)) == 0


def test_only_the_configurations_and_points_asked_for_are_visited(grid):
    for seed in range(6):
        every = product(seed)
        configs, chosen = 5 * seed % 20, np.sort(np.random.default_rng(seed).choice(CLOCKS, 17, replace=False))
        points = jnp.asarray(np.append(chosen, [-1] * 5), jnp.int32)
        left = np.where(np.arange(CONFIGS) < configs, every.errors, np.inf).astype(np.float32)
        part = every.replace(errors=left, latency=every.latency[:, chosen], energy=every.energy[:, chosen])
        np.testing.assert_array_equal(grid(every.replace(configs=jnp.int32(configs), points=points)), grid(part))


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
    found = jax.jit(guided_bins)(jnp.asarray(ends), jnp.asarray(values))
    np.testing.assert_array_equal(found, np.searchsorted(ends, values))


def test_arrays_that_do_not_fit_are_refused():
    arrays = product(0)
    for change, message in (
        ({"errors": arrays.errors[:-1]}, r"has shape \(18,\) but expected \(19\)\. \[errors\]"),
        ({"latency": arrays.latency[:-1]}, r"has shape \(3, 30\) but expected \(4, 30\)\. \[latency\]"),
        ({"energy": arrays.energy[:, 1:]}, r"has shape \(4, 29\) but expected \(4, 30\)\. \[energy\]"),
    ):
        with pytest.raises(AssertionError, match=message):
            arrays.replace(**change).check()
    with pytest.raises(AssertionError, match=r"\[reference\]"):
        grid_hypervolume(jnp.zeros((2, 2)), error_levels=jnp.ones(2), latency_edges=jnp.ones(2), reference=jnp.ones(2))
