from functools import partial

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hadas_jax.search import pareto
from hadas_jax.search import pareto as sorted_ranks
from hadas_jax.search.pareto import changes, padded_length, ranked_in_large_blocks, ranked_in_small_blocks


@pytest.fixture(params=["small", "large", "several large"])
def ranked(request, monkeypatch):
    """Ranks of points int[P, M] by one way, in lexicographic order, with those points."""
    if request.param == "several large":
        monkeypatch.setattr(sorted_ranks, "LARGE_BLOCK", 16)
    way = jax.jit(partial(ranked_in_small_blocks if request.param == "small" else ranked_in_large_blocks))

    def ranked(values):
        ordered = values[np.lexsort(values.T[::-1])]
        spare = padded_length(len(values)) - len(values)
        columns = jnp.asarray(np.pad(ordered, ((0, spare), (0, 0)), constant_values=10**6).T, jnp.int32)
        head = changes(tuple(columns))
        found = way(tuple(columns[1:]), head=head) - (~head).astype(jnp.int32)
        return ordered, np.asarray(found)[: len(values)]

    return ranked


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.int32, (45, 3), elements=st.integers(0, 4)))
def test_large_blocks_rank_as_small_ones_do(values):
    ordered = values[np.lexsort(values.T[::-1])]
    columns = jnp.asarray(np.pad(ordered, ((0, 3), (0, 0)), constant_values=9).T, jnp.int32)
    head = changes(tuple(columns))
    both = [jax.jit(way)(tuple(columns[1:]), head=head) for way in (ranked_in_small_blocks, ranked_in_large_blocks)]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize(("points", "most"), [(16, 3), (700, 40), (2500, 90)])
def test_either_way_ranks_are_those_of_moocore(ranked, points, most):
    values, found = ranked(np.random.default_rng(points).integers(0, most, (points, 3)).astype(np.int32))
    expected = moocore.pareto_rank(values.astype(np.float64))
    np.testing.assert_array_equal(found, expected - expected.min())


def test_a_chain_longer_than_a_block_is_ranked_to_its_end(ranked):
    _, found = ranked(np.repeat(np.arange(70, dtype=np.int32)[:, None], 2, axis=1))
    np.testing.assert_array_equal(found, np.arange(70))


def test_what_is_dominated_is_the_same_in_large_blocks(monkeypatch):
    rng = np.random.default_rng(3)
    keys, others = (jnp.asarray(rng.integers(0, 100, (count, 3)), jnp.int32) for count in (90, 1500))
    small = pareto.dominated_by(keys, others)
    monkeypatch.setattr(pareto, "on_cpu", lambda: False)
    np.testing.assert_array_equal(pareto.dominated_by(keys, others), small)
    assert 0 < int(jnp.sum(small)) < len(keys)
