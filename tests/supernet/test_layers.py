import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.blocks import head_padding
from hadas_jax.supernet.layers import Depthwise, half_size_average, hard_sigmoid, keep_channels


@pytest.mark.parametrize("size", range(1, 8))
def test_the_shortcuts_average_is_pytorchs_with_its_padding_counted(size, plain):
    images = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
    found = half_size_average(jnp.asarray(images))
    assert found.shape == (2, -(-size // 2), -(-size // 2), 3)
    np.testing.assert_allclose(found, plain.average_pool(images), rtol=1e-5, atol=1e-6)


def test_masks_keep_leading_channels():
    assert keep_channels(jnp.full((1, 4), 2.0), jnp.int32(3)).tolist() == [[2, 2, 2, 0]]


@pytest.mark.parametrize("size", [3, 5])
def test_a_smaller_kernel_is_the_centre_of_the_largest(size):
    point = jnp.zeros((1, 7, 7, 1)).at[0, 3, 3, 0].set(1.0)
    found = Depthwise(5, 1).apply({"params": {"kernel": jnp.ones((5, 5, 1))}}, point, jnp.int32(size))
    rim = (7 - size) // 2
    np.testing.assert_array_equal(found[0, :, :, 0], np.pad(np.ones((size, size)), rim))


def test_hard_sigmoid_is_a_clipped_line():
    x = jnp.array([-4.0, -3.0, 0.0, 1.5, 3.0, 9.0])
    np.testing.assert_allclose(hard_sigmoid(x), [0, 0, 0.5, 0.75, 1, 1], atol=1e-6)


@pytest.mark.parametrize(("size", "padding"), [((1, 1), 1), ((2, 2), 1), ((3, 3), 0), ((3, 2), 1), ((9, 9), 0)])
def test_heads_pad_only_maps_that_do_not_hold_their_kernel(size, padding):
    assert head_padding(*size) == padding
