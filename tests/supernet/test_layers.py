import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.blocks import head_padding
from hadas_jax.supernet.layers import half_size_average


@pytest.mark.parametrize("size", range(1, 8))
def test_the_shortcuts_average_is_pytorchs_with_its_padding_counted(size, plain):
    images = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
    found = half_size_average(jnp.asarray(images))
    assert found.shape == (2, -(-size // 2), -(-size // 2), 3)
    np.testing.assert_allclose(found, plain.average_pool(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "padding"), [((1, 1), 1), ((2, 2), 1), ((3, 3), 0), ((3, 2), 1), ((9, 9), 0)])
def test_heads_pad_only_maps_that_do_not_hold_their_kernel(size, padding):
    assert head_padding(*size) == padding
