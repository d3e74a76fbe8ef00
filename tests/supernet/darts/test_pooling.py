import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.darts.ops import average_pool, max_pool

SIZES = pytest.mark.parametrize(("size", "stride"), [(1, 1), (7, 1), (2, 2), (7, 2), (8, 2)])


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def windowed(x, stride, *, largest):
    """Pooling by XLA's windows."""
    window = (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    if largest:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, *window) / jax.lax.reduce_window(
        jnp.ones_like(x), 0.0, jax.lax.add, *window
    )


@SIZES
@pytest.mark.parametrize(("pool", "largest"), [(max_pool, True), (average_pool, False)])
def test_pooling_and_its_gradient_are_those_of_windows_cut_at_the_rim(size, stride, pool, largest):
    x = draw(2, size, size + 1, 3)
    cotangent = draw(2, -(-size // stride), -(-(size + 1) // stride), 3, seed=1)

    @jax.jit
    def with_gradients(x):
        wanted, wanted_pull = jax.vjp(lambda x: windowed(x, stride, largest=largest), x)
        found, found_pull = jax.vjp(lambda x: pool(x, stride), x)
        return (wanted, *wanted_pull(cotangent)), (found, *found_pull(cotangent))

    for ours, theirs in zip(*with_gradients(x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_maps_with_channels_last_are_pooled_alike(pool):
    x = draw(2, 5, 6, 3)
    found = pool(jnp.moveaxis(x, 0, -1).reshape(5, 6, 6), 2)
    np.testing.assert_array_equal(found, jnp.moveaxis(pool(x, 2), 0, -1).reshape(3, 3, 6))


def test_of_equal_pixels_the_first_has_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x, 2).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 0], [0, 0]])


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_a_gradient_has_a_derivative_along_a_direction(pool):
    x, along = draw(2, 6, 6, 3), draw(2, 6, 6, 3, seed=1)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(pool(x) ** 3)))
    _, bend = jax.jvp(slope, (x,), (along,))
    step = 1e-3
    difference = (slope(x + step * along) - slope(x - step * along)) / (2 * step)
    np.testing.assert_allclose(bend, difference, atol=2e-2 * np.abs(bend).max())
