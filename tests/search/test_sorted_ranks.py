"""Ranks in blocks: the large ones of accelerators give what the small ones of CPUs give."""

import jax.numpy as jnp
import moocore
import numpy as np
import pytest

from hadas_jax.search import non_dominated_mask, non_dominated_ranks, pareto


@pytest.fixture(params=["small", "large", "several large"])
def blocks(request, monkeypatch):
    """Ranks and masks by one way."""
    if request.param == "several large":
        monkeypatch.setattr(pareto, "_LARGE_BLOCK", 16)
    monkeypatch.setattr(pareto, "on_cpu", lambda: request.param == "small")
    for compiled in (non_dominated_ranks, non_dominated_mask):
        compiled.clear_cache()
    yield request.param
    for compiled in (non_dominated_ranks, non_dominated_mask):
        compiled.clear_cache()


@pytest.mark.parametrize(("points", "most"), [(16, 3), (45, 4), (700, 40), (2500, 90)])
def test_either_way_ranks_and_masks_are_those_of_moocore(blocks, points, most):
    values = np.random.default_rng(points).integers(0, most, (points, 3)).astype(np.float32)
    expected = moocore.pareto_rank(values.astype(np.float64))
    np.testing.assert_array_equal(non_dominated_ranks(values), expected - expected.min())
    np.testing.assert_array_equal(non_dominated_mask(values), expected == expected.min())


def test_a_chain_longer_than_a_block_is_ranked_to_its_end(blocks):
    values = jnp.repeat(jnp.arange(70, dtype=jnp.float32)[:, None], 2, axis=1)
    np.testing.assert_array_equal(non_dominated_ranks(values), np.arange(70))
