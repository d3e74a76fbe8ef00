"""Tests of NAS-Bench-201 cells."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import nasbench201 as nb
import numpy as np
import pytest

import hw_models as hw

NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
workload, liveness, converted_edges = (jax.jit(f) for f in (nb.workload, nb.liveness, nb.converted_edges))
workloads = jax.jit(jax.vmap(nb.workload))
livenesses = jax.jit(jax.vmap(nb.liveness))


@pytest.fixture(scope="module")
def random_cells():
    return jnp.asarray(np.random.default_rng(0).integers(0, 5, (200, 6)), jnp.int32)


def cell(*edges):
    return jnp.asarray(edges, jnp.int32)


def test_macs_are_those_of_the_benchmark():
    macs = [float(hw.total_macs(workload(cell(*[op] * 6)))) for op in range(5)]
    base = 7_783_040
    assert macs == [base, base, base + 6 * 3_932_160, base + 6 * 35_389_440, base]


def test_macs_agree_with_the_benchmark_on_all_cells():
    folder = os.environ.get("HADAS_SHARED_DATA")
    if not folder or not (Path(folder) / "nasbench201_latency.npz").is_file():
        pytest.skip("HADAS_SHARED_DATA names no folder with nasbench201_latency.npz")
    with np.load(Path(folder) / "nasbench201_latency.npz") as file:
        edges, macs = jnp.asarray(file["edges"], jnp.int32), file["macs"]
    counted = jax.jit(jax.vmap(lambda one: hw.total_macs(nb.workload(one))))(edges)
    np.testing.assert_array_equal(np.asarray(counted, np.int64), macs)


def test_parameters_are_those_of_the_published_network():
    # Six 3 x 3 convolutions in every cell: weights by hand, biases of the folded batch norms apart.
    convolutions = sum(5 * 6 * 9 * width**2 for width in (16, 32, 64))
    reductions = sum(9 * a * b + 9 * b * b + a * b for a, b in ((16, 32), (32, 64)))
    biases = 16 + sum(5 * 6 * width for width in (16, 32, 64)) + 3 * (32 + 64)
    expected = 9 * 3 * 16 + convolutions + reductions + biases + 2 * 64 + 650
    assert float(hw.total_weights(workload(cell(*[CONV_3X3] * 6)))) == expected


def test_an_edge_is_live_on_a_path_from_input_to_output():
    alive = liveness(cell(CONV_3X3, CONV_3X3, NONE, SKIP, NONE, CONV_1X1))
    assert np.asarray(alive.fed).tolist() == [True, True, False, True, False, True]
    assert np.asarray(alive.used).tolist() == [False, True, False, True, False, True]
    assert np.asarray(alive.live).tolist() == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        # Nothing needs node 1, which is pooled: gone.
        ((POOL, CONV_3X3, NONE, SKIP, NONE, SKIP), "010101"),
        # The zero of edge 1 to 2 is folded into the only convolution of node 1: it stays.
        ((CONV_3X3, CONV_3X3, NONE, SKIP, NONE, SKIP), "110101"),
        # Node 2 is one convolution, whose zeros go to the output: it stays.
        ((SKIP, CONV_3X3, NONE, SKIP, SKIP, NONE), "110110"),
        # Node 2 is a sum: it goes.
        ((SKIP, CONV_3X3, CONV_1X1, SKIP, SKIP, NONE), "100110"),
        # What starts from zeros runs.
        ((NONE, NONE, NONE, SKIP, NONE, CONV_3X3), "000101"),
    ],
)
def test_converters_keep_and_drop_edges_as_documented(edges, expected):
    assert "".join(str(int(kept)) for kept in np.asarray(converted_edges(cell(*edges)))) == expected


def test_converters_keep_all_that_reaches_the_output(random_cells):
    kept = np.asarray(jax.jit(jax.vmap(nb.converted_edges))(random_cells))
    used = np.asarray(livenesses(random_cells).used)
    assert (kept | ~used).all()
    assert not (kept & (np.asarray(random_cells) == NONE)).any()


def test_dead_rows_are_those_that_dropping_edges_leaves_out(random_cells):
    dead = jax.jit(jax.vmap(nb.dead_rows))(random_cells)
    full = workloads(random_cells)
    left = jax.jit(jax.vmap(lambda one: nb.workload(one, kept=nb.liveness(one).live)))(random_cells)
    np.testing.assert_array_equal(np.where(dead, 0, full.active), left.active)
    is_whole = (np.asarray(livenesses(random_cells).live) == (np.asarray(random_cells) != NONE)).all(axis=1)
    assert not np.asarray(dead)[is_whole].any()
    assert np.asarray(dead)[~is_whole].any(axis=1).mean() > 0.5


def test_a_sum_counts_the_inputs_that_are_kept():
    table = workload(cell(SKIP, SKIP, SKIP, SKIP, SKIP, SKIP))
    assert float((table.active * table.kernels).sum()) == 1 + 15 * 3 + 2 * 5 + 3


def test_isomorphic_cells_have_equal_work(random_cells):
    cells = random_cells.at[:, 2].set(NONE)
    mirrored = cells[:, jnp.asarray([1, 0, 2, 3, 5, 4])]
    work = [hw.total_macs(workloads(one)) for one in (cells, mirrored)]
    np.testing.assert_array_equal(*work)


def test_features_have_the_documented_shape_and_see_what_is_kept():
    edges = cell(CONV_3X3, POOL, NONE, SKIP, NONE, SKIP)
    features = nb.structure_features(edges)
    assert features.shape == (47,)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features[30:35], 3 * jnp.asarray([2, 2, 0, 1, 1]))
    assert float(nb.structure_features(edges, nb.liveness(edges).live)[33]) == 0


@pytest.mark.parametrize("edges", [jnp.zeros(5, jnp.int32), jnp.zeros(6)])
def test_other_cells_are_refused(edges):
    with pytest.raises(ValueError, match=r"edges: expected integers of shape \(6,\)"):
        nb.workload(edges)
