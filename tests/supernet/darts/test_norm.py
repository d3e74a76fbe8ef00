import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.darts.ops import norm, standardise


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def plain(x, weights, share, positive):
    """A convolution, batch norm and ReLU as they are written down."""
    product = jnp.einsum("oc,chwb->ohwb", weights, x)
    centred = product - product.mean((1, 2, 3), keepdims=True)
    normal = centred / jnp.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + 1e-5)
    return share * (jnp.maximum(normal, 0) if positive else normal)


ARGUMENTS = draw(5, 4, 3, 6) + 0.5, draw(7, 5, seed=1), jnp.float32(0.7)


def test_statistics_are_those_of_float64():
    x = np.asarray(draw(3, 4, 5, 6) * 2 + 1, float)
    wanted = (x - x.mean((1, 2, 3), keepdims=True)) / np.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(standardise(jnp.asarray(x, jnp.float32)), wanted, atol=1e-5)


@pytest.mark.parametrize("positive", [False, True])
def test_a_product_with_its_norm_and_their_gradients_are_those_of_the_formulas(positive):
    wanted, wanted_pull = jax.vjp(lambda *given: plain(*given, positive), *ARGUMENTS)
    found, found_pull = jax.vjp(lambda *given: norm(*given, positive), *ARGUMENTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    cotangent = draw(*wanted.shape, seed=2)
    for ours, theirs in zip(found_pull(cotangent), wanted_pull(cotangent), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max() + 1e-6)


@pytest.mark.parametrize("positive", [False, True])
def test_a_norm_is_the_norm_of_a_product_with_the_identity(positive):
    x, _, share = ARGUMENTS
    wanted, wanted_pull = jax.vjp(lambda x, share: norm(x, jnp.eye(5), share, positive), x, share)
    found, found_pull = jax.vjp(lambda x, share: norm(x, None, share, positive), x, share)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    for ours, theirs in zip(found_pull(wanted), wanted_pull(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("positive", [False, True])
def test_a_gradient_has_the_derivatives_of_the_formulas_gradient(positive):
    direction = tuple(draw(*given.shape, seed=3) for given in ARGUMENTS)

    def bend(function):
        slope = jax.grad(lambda *given: jnp.sum(function(*given, positive) ** 3), argnums=(0, 1, 2))
        return jax.jvp(slope, ARGUMENTS, direction)[1]

    for ours, theirs in zip(bend(norm), bend(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max() + 1e-5)


def test_a_constant_channel_is_standardised_to_zero():
    assert np.abs(standardise(jnp.full((1, 3, 3, 2), 0.3))).max() < 1e-4
