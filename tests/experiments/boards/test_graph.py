"""Tests of liveness in graphs."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from graph import liveness
from hypothesis import given, settings
from hypothesis import strategies as st

EDGES = tuple((a, b) for b in range(5) for a in range(b))


def on_a_path(present):
    """Edges on any path from node 0 to node 4, by listing all paths."""
    there, live = {edge for edge, is_there in zip(EDGES, present, strict=True) if is_there}, set()
    for length in range(4):
        for inner in itertools.combinations(range(1, 4), length):
            path = list(itertools.pairwise((0, *inner, 4)))
            if there.issuperset(path):
                live.update(path)
    return [edge in live for edge in EDGES]


@settings(max_examples=40)
@given(present=st.lists(st.booleans(), min_size=10, max_size=10))
def test_live_edges_are_those_on_a_path(present):
    found = liveness(jnp.asarray(present), EDGES)
    assert np.asarray(found.live).tolist() == on_a_path(present)


def test_order_of_the_edges_does_not_matter():
    present = np.asarray([True, False, True, True, False, True, False, True, False, True])
    order = np.random.default_rng(0).permutation(10)
    shuffled = liveness(jnp.asarray(present[order]), [EDGES[i] for i in order])
    np.testing.assert_array_equal(shuffled.live, np.asarray(liveness(jnp.asarray(present), EDGES).live)[order])


@pytest.mark.parametrize(
    ("edges", "message"), [([(1, 0)], "got 1 to 0"), ([], "at least one edge"), ([(0, 1)] * 2, "2")]
)
def test_wrong_edges_are_named(edges, message):
    with pytest.raises(ValueError, match=message):
        liveness(jnp.ones(1, bool), edges)
