import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import Genotype, code_of, published_genotype
from hadas_jax.supernet.darts.network import (
    apply_derived,
    apply_derived_training,
    cell_runs,
    estimate_statistics,
    initialise_derived,
    weight_shapes,
)
from hadas_jax.supernet.layers import drop_factors

TINY = DartsNetwork(channels=4, cells=3, classes=3, image_size=8, in_channels=1)
ONE = DartsNetwork(channels=4, cells=1, classes=3, image_size=8, in_channels=1)
POOLS = (("max_pool_3x3", 0), ("avg_pool_3x3", 1)) * 4
MIXED = Genotype(
    normal=(
        *(("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_3x3", 1), ("avg_pool_3x3", 2)),
        *(("sep_conv_5x5", 0), ("dil_conv_5x5", 3), ("skip_connect", 0), ("max_pool_3x3", 2)),
    ),
    reduce=(
        *(("skip_connect", 0), ("max_pool_3x3", 1), ("dil_conv_5x5", 0), ("skip_connect", 2)),
        *(("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 4), ("sep_conv_5x5", 2)),
    ),
)


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def kernels(tree) -> int:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return sum(leaf.size for path, leaf in found if path[-1].key not in ("scale", "bias"))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), jnp.float32)


@pytest.fixture(scope="module")
def one_cell():
    return initialise_derived(ONE, MIXED, jax.random.key(1), auxiliary=True)


@pytest.fixture(scope="module")
def train():
    """Weights, images, drops -> logits and auxiliary logits of the network of one cell."""
    return jax.jit(lambda w, x, drops: apply_derived_training(ONE, MIXED, w, x, drops=drops, auxiliary=True))


@pytest.mark.parametrize(
    ("network", "published"),
    [
        (DartsNetwork(channels=36, cells=20), 3_349_342),
        (DartsNetwork(channels=48, cells=14, classes=1000, image_size=224, stem="imagenet"), 4_718_752),
    ],
    ids=["cifar", "imagenet"],
)
def test_parameters_are_as_many_as_darts_logs_say(network, published):
    assert count(weight_shapes(network, published_genotype("DARTS_V2"))) == published


@pytest.mark.parametrize(
    ("genotype", "stem", "size"),
    [(MIXED, "cifar", 37), (MIXED, "imagenet", 32), (published_genotype("OURS_PIP"), "imagenet", 37)],
    ids=["mixed, small", "mixed, large", "OURS_PIP, large"],
)
def test_layers_multiply_and_weigh_as_the_layer_table_says(genotype, stem, size):
    network = DartsNetwork(channels=8, cells=4, classes=5, image_size=size, stem=stem)
    assert all(run.cells == 1 for run in cell_runs(network, genotype, use_batch_stats=True))
    multiplied = []

    def watch(call, arguments, keywords, context):
        output = call(*arguments, **keywords)
        for name in ("kernel", "depthwise"):
            if context.method_name == "__call__" and context.module.has_variable("params", name):
                kernel = context.module.get_variable("params", name)
                multiplied.append(math.prod(kernel.shape) * math.prod(output.shape[1:-1]))
        return output

    shapes = weight_shapes(network, genotype)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with nn.intercept_methods(watch):
        jax.eval_shape(lambda w, x: apply_derived_training(network, genotype, w, x), shapes, images)
    rows = network_rows(network)
    active = np.asarray(rows.layer_counts(darts_counts(jnp.asarray(code_of(genotype)))))
    assert sum(multiplied) == np.sum((active * rows.macs)[rows.is_weighted])
    assert kernels(shapes) == np.sum((active * rows.fan_in * rows.outputs)[rows.is_weighted])


def test_equal_cells_that_follow_each_other_are_one_run():
    runs = cell_runs(DartsNetwork(channels=36, cells=20), MIXED, use_batch_stats=False)
    assert [(run.name, run.cells) for run in runs] == [
        *(("cells0", 1), ("cells1", 1), ("cells2", 4), ("cells6", 1), ("cells7", 1), ("cells8", 5)),
        *(("cells13", 1), ("cells14", 1), ("cells15", 5)),
    ]
    shapes = weight_shapes(DartsNetwork(channels=36, cells=20), MIXED)
    assert shapes["cells8"]["input1"]["kernel"].shape == (5, 1, 1, 4 * 72, 72)


def test_the_order_of_a_nodes_edges_changes_nothing():
    swapped = Genotype(*(tuple(cell[i ^ 1] for i in range(8)) for cell in (MIXED.normal, MIXED.reduce)))
    assert cell_runs(TINY, swapped, use_batch_stats=True) == cell_runs(TINY, MIXED, use_batch_stats=True)


def test_fresh_kernels_are_uniform_within_the_root_of_their_fan_in():
    network = DartsNetwork(channels=8, cells=6, image_size=8)
    drawn = initialise_derived(network, published_genotype("DARTS_V2"), jax.random.key(1))
    for name, fan_in in (("cells0", 24), ("cells5", 4 * 32)):
        kernel = np.asarray(drawn[name]["input1"]["kernel"]) * fan_in**0.5
        assert 0.95 < np.abs(kernel).max() <= 1
        assert abs(kernel.std() - 3**-0.5) < 0.05
    assert drawn["stem"]["conv1"]["bn"]["scale"].tolist() == [1.0] * 24
    assert drawn["classifier"]["linear"]["bias"].tolist() == [0.0] * 10


def test_factors_of_one_drop_nothing(one_cell, images, train):
    plain, ones = train(one_cell, images, None), train(one_cell, images, jnp.ones((1, 8, 6)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, ones)
    assert plain[0].shape == plain[1].shape == (6, 3)


def test_a_sample_of_which_every_edge_is_dropped_leaves_the_others_alone(images):
    genotype = Genotype(POOLS, POOLS)
    weights = initialise_derived(ONE, genotype, jax.random.key(2))
    drops = jnp.ones((1, 8, 6)).at[:, :, 2].set(0.0)
    plain, _ = apply_derived_training(ONE, genotype, weights, images)
    dropped, _ = apply_derived_training(ONE, genotype, weights, images, drops=drops)
    np.testing.assert_array_equal(dropped[2], weights["classifier"]["linear"]["bias"])
    others = np.arange(6) != 2
    np.testing.assert_allclose(dropped[others], plain[others], rtol=1e-6)
    assert np.abs(plain[2]).max() > 0.01


def test_identities_are_never_dropped(images):
    genotype = Genotype(normal=(("skip_connect", 0), ("skip_connect", 1)) * 4, reduce=POOLS)
    weights = initialise_derived(TINY, genotype, jax.random.key(2))
    run = jax.jit(lambda drops: apply_derived_training(TINY, genotype, weights, images, drops=drops)[0])
    ones = jnp.ones((TINY.cells, 8, 6))
    plain = run(ones)
    np.testing.assert_array_equal(run(ones.at[0].set(0)), plain)  # cells 1 and 2 are reduce cells
    assert np.abs(run(ones.at[1].set(0)) - plain).max() > 0.01


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_drop_factors_keep_the_mean(rate):
    factors = np.asarray(drop_factors(jax.random.key(3), jnp.float32(rate), (3, 8, 4000)))
    np.testing.assert_allclose(np.unique(factors), [0, 1 / (1 - rate)] if rate else [1], rtol=1e-6)
    np.testing.assert_allclose(factors.mean(-1), 1, atol=0.05)


def test_cells_computed_twice_have_the_same_gradient(images):
    genotype = Genotype(POOLS, (*POOLS[:6], ("dil_conv_3x3", 0), ("skip_connect", 1)))
    weights = initialise_derived(ONE, genotype, jax.random.key(1), auxiliary=True)

    def gradient(remat):
        def loss(w):
            logits, extra = apply_derived_training(ONE, genotype, w, images, auxiliary=True, remat=remat)
            return jnp.sum(logits**2) + jnp.sum(extra**2)

        return jax.jit(jax.grad(loss))(weights)

    kept, twice = gradient(False), gradient(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), kept, twice)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept))


def test_statistics_are_the_mean_over_batches_and_leave_the_auxiliary_head_out(one_cell, images):
    estimate = jax.jit(lambda batches: estimate_statistics(ONE, MIXED, one_cell, batches))
    pairs = (jnp.stack([first, second]) for first, second in ((images,) * 2, (2 * images,) * 2, (images, 2 * images)))
    first, second, both = map(estimate, pairs)
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(c, (a + b) / 2, rtol=1e-4, atol=1e-5), first, second, both)
    assert set(both) == {"stem", "cells0"}
    logits = jax.jit(apply_derived, static_argnums=(0, 1))(ONE, MIXED, one_cell, both, images)
    assert logits.shape == (6, 3)
    assert np.isfinite(logits).all()


def test_half_precision_features_give_float32_logits_close_by(one_cell, images, train):
    exact, _ = train(one_cell, images, None)
    half = jax.jit(lambda w, x: apply_derived_training(ONE, MIXED, w, x, dtype=jnp.bfloat16)[0])(one_cell, images)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, atol=0.2)
