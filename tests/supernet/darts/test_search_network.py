import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from supernet.darts.plain_search import plain_search

from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import code_of, published_genotype
from hadas_jax.supernet.darts import apply_search, initialise_search

NETWORK = DartsNetwork(channels=2, cells=3, classes=3, image_size=5, in_channels=2)
ONE = dataclasses.replace(NETWORK, cells=1)  # a reduce cell, which has edges of both strides
# Two runs of equal cells: after the stem, whose maps have fewer channels than a cell's, and after a reduce cell.
RUNS = dataclasses.replace(NETWORK, cells=7, image_size=8)


def draw_images(network, count=4):
    shape = (count, network.image_size, network.image_size, network.in_channels)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def draw_like(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), tree)


def draw_weights(network, seed=4):
    """Random weights of about the size that they are drawn in, without compiling the draws."""
    shapes = jax.eval_shape(lambda: initialise_search(network, jax.random.key(0)))
    return jax.tree.map(lambda leaf: 0.3 * leaf, draw_like(shapes, seed))


@pytest.fixture(scope="module")
def weights():
    return draw_weights(NETWORK)


@pytest.fixture(scope="module")
def shares():
    return jax.nn.softmax(jnp.asarray(np.random.default_rng(1).normal(size=(28, 8)), jnp.float32))


@pytest.fixture(scope="module")
def logits():
    """Of (network, weights, shares, images)."""
    return jax.jit(apply_search, static_argnums=0)


def loss(network, weights, shares, images, remat):
    logits = apply_search(network, weights, shares, images, remat=remat)
    return jnp.sum(jnp.sin(logits)), logits


@pytest.fixture(scope="module")
def gradient():
    return jax.jit(jax.grad(loss, (1, 2), has_aux=True), static_argnums=(0, 4))


def test_the_network_of_the_search_has_as_many_weights_as_the_original():
    weights = jax.eval_shape(lambda: initialise_search(DartsNetwork(), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 1_930_618


def test_logits_are_those_of_the_plain_network(weights, shares, logits):
    images = draw_images(NETWORK)
    found = logits(NETWORK, weights, shares, images)
    np.testing.assert_allclose(found, plain_search(NETWORK, weights, shares, images), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("network", [NETWORK, RUNS], ids=["single cells", "equal cells"])
def test_gradients_are_those_of_the_plain_network(network, shares, gradient):
    images, weights = draw_images(network), draw_weights(network)
    found, logits = gradient(network, weights, shares, images, network == RUNS)
    np.testing.assert_allclose(logits, plain_search(network, weights, shares, images), atol=5e-5)
    _, pull = jax.vjp(lambda weights, shares: plain_search(network, weights, shares, images), weights, shares)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(pull(jnp.cos(logits))), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4 * max(1.0, np.abs(theirs).max()))


def test_shares_of_a_genotype_leave_its_operations_alone(weights, logits):
    one_hot, images = np.eye(8)[code_of(published_genotype("DARTS_V2"))], draw_images(NETWORK)
    found = logits(NETWORK, weights, jnp.asarray(one_hot, jnp.float32), images)
    np.testing.assert_allclose(found, plain_search(NETWORK, weights, one_hot.tolist(), images), atol=2e-5)


@pytest.fixture(scope="module")
def kept(shares, gradient):
    """Gradients and logits of the network of one cell, nothing computed twice."""
    return gradient(ONE, draw_weights(ONE), shares, draw_images(ONE), False)


@pytest.mark.slow
def test_computing_twice_changes_no_gradient(shares, gradient, kept):
    twice, _ = gradient(ONE, draw_weights(ONE), shares, draw_images(ONE), True)
    for a, b in zip(jax.tree.leaves(kept[0]), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(a).max()))


def bend(logits, weights, shares, along):
    """The slope of the gradient by shares along a direction of the weights."""

    def slope(weights):
        return jax.grad(lambda shares: jnp.sum(jnp.sin(logits(weights, shares))))(shares)

    return jax.jvp(slope, (weights,), (along,))[1]


@pytest.mark.slow
def test_derivatives_of_second_order_are_symmetric(weights, shares):
    images = draw_images(NETWORK)

    def both(weights, shares, to_weights, to_shares):
        def slope(shares):
            return jax.grad(lambda weights: loss(NETWORK, weights, shares, images, True)[0])(weights)

        by_weights = bend(lambda *at: apply_search(NETWORK, *at, images, remat=True), weights, shares, to_weights)
        by_shares = jax.jvp(slope, (shares,), (to_shares,))[1]
        products = jax.tree.map(jnp.vdot, by_shares, to_weights)
        return jnp.vdot(by_weights, to_shares), sum(jax.tree.leaves(products))

    one, other = jax.jit(both)(weights, shares, draw_like(weights, 2), draw_like(shares, 3))
    np.testing.assert_allclose(one, other, rtol=2e-3)
    assert abs(one) > 1


@pytest.mark.slow
def test_the_product_of_hessian_and_vector_is_that_of_the_plain_network(weights, shares):
    images, along = draw_images(NETWORK), draw_like(weights, 2)
    found = jax.jit(partial(bend, partial(apply_search, NETWORK, images=images)))(weights, shares, along)
    wanted = bend(lambda *at: plain_search(NETWORK, *at, images), weights, shares, along)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_the_stem_for_large_images_is_three_convolutions(logits):
    network = DartsNetwork(channels=2, cells=1, classes=2, image_size=19, stem="imagenet")
    weights = draw_weights(network)
    one_hot = np.eye(8)[code_of(published_genotype("DARTS_V2"))]
    images = draw_images(network)
    found = logits(network, weights, jnp.asarray(one_hot, jnp.float32), images)
    np.testing.assert_allclose(found, plain_search(network, weights, one_hot.tolist(), images), atol=2e-5)


def test_bfloat16_features_give_nearly_the_same_logits(shares, kept):
    found = jax.jit(partial(apply_search, ONE, dtype=jnp.bfloat16))(draw_weights(ONE), shares, draw_images(ONE))
    np.testing.assert_allclose(found, kept[1], atol=0.2)


@pytest.mark.parametrize(
    ("shares", "images", "message"),
    [((14, 8), (2, 5, 5, 2), "shares"), ((28, 8), (2, 5, 5, 3), "images")],
)
def test_wrong_shapes_are_refused(shares, images, message, weights):
    with pytest.raises(AssertionError, match=message):
        apply_search(NETWORK, weights, jnp.zeros(shares), jnp.zeros(images))
