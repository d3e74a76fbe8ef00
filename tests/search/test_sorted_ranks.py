"""Ranks in blocks: the large ones of accelerators give what the small ones of CPUs give, bit for bit."""

from functools import partial

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.search import non_dominated_mask, non_dominated_ranks, pareto

_WAYS = {"small": pareto._ranks_by_small_blocks, "large": pareto._ranks_by_large_blocks}
_COMPILED = {way: jax.jit(ranks) for way, ranks in _WAYS.items()}


@pytest.fixture(params=["small", "large", "several large"])
def ranks_by(request, monkeypatch):
    """Ranks of fitness float32[P, M] by one way, whatever platform this is."""
    if request.param == "several large":
        monkeypatch.setattr(pareto, "_LARGE_BLOCK", 32)
    ranks = jax.jit(lambda columns: _WAYS[request.param.split()[-1]](columns))
    return lambda fitness, **broken: ranks(tuple(pareto._dominance_keys(jnp.asarray(fitness), **broken).T))


def drawn(points, most, objectives=3):
    return np.random.default_rng(points).integers(0, most, (points, objectives)).astype(np.float32)


@pytest.mark.parametrize(("points", "most"), [(16, 3), (45, 4), (700, 40), (2500, 90)])
def test_either_way_ranks_are_those_of_moocore(ranks_by, points, most):
    values = drawn(points, most)
    expected = moocore.pareto_rank(values.astype(np.float64))
    np.testing.assert_array_equal(ranks_by(values), expected - expected.min())


@pytest.mark.parametrize("size", [pareto._SMALL_BLOCK, 32])
def test_masks_by_blocks_of_any_size_are_those_of_moocore(size):
    values = drawn(45, 4)
    keys = pareto._dominance_keys(jnp.asarray(values))
    beaten = partial(pareto._dominated_by_blocks, size=size)(keys, keys)
    expected = moocore.pareto_rank(values.astype(np.float64))
    np.testing.assert_array_equal(~beaten, expected == expected.min())
    np.testing.assert_array_equal(non_dominated_mask(values), expected == expected.min())


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_chain_longer_than_a_block_is_ranked_to_its_end(ranks_by, objectives):
    values = jnp.repeat(jnp.arange(70, dtype=jnp.float32)[:, None], objectives, axis=1)
    np.testing.assert_array_equal(ranks_by(values), np.arange(70))


def test_rows_that_break_constraints_follow_all_others_by_their_violation(ranks_by):
    values = drawn(60, 5)
    violation = np.maximum(np.random.default_rng(1).integers(-2, 4, 60), 0).astype(np.float32)
    ranks = np.asarray(ranks_by(values, violation=jnp.asarray(violation)))
    feasible = violation == 0
    np.testing.assert_array_equal(ranks[feasible], non_dominated_ranks(values[feasible]))
    last = ranks[feasible].max()
    np.testing.assert_array_equal(ranks[~feasible], last + violation[~feasible])


_ROWS = 48
_VALUES = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0, np.inf, np.nan])


@settings(max_examples=60)
@given(
    fitness=st.lists(st.tuples(_VALUES, _VALUES, _VALUES), min_size=_ROWS, max_size=_ROWS),
    violation=st.lists(st.sampled_from([0.0, 0.0, 0.25, 3.0, np.inf, np.nan]), min_size=_ROWS, max_size=_ROWS),
)
def test_either_way_gives_the_same_ranks_bit_for_bit(fitness, violation):
    keys = pareto._dominance_keys(jnp.asarray(fitness, jnp.float32), jnp.asarray(violation, jnp.float32))
    np.testing.assert_array_equal(*(ranks(tuple(keys.T)) for ranks in _COMPILED.values()))
