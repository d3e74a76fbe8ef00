import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.darts.ops import depthwise, reduce_map

LAYOUT = ("CHWN", "OIHW", "CHWN")


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("k", "dilation", "size", "stride"),
    [(3, 1, 6, 1), (5, 1, 6, 2), (3, 2, 7, 2), (5, 2, 6, 1), (5, 2, 7, 2), (5, 1, 2, 1), (3, 2, 1, 1)],
)
def test_depthwise_convolution_and_its_gradients_are_those_of_a_grouped_one(k, dilation, size, stride):
    x, kernel = draw(3, size, size + 1, 4), draw(3, k, k, seed=1)
    cotangent = draw(3, -(-size // stride), -(-(size + 1) // stride), 4, seed=2)

    def grouped(x, kernel):
        pads = ((dilation * (k // 2),) * 2,) * 2
        options = {"rhs_dilation": (dilation, dilation), "dimension_numbers": LAYOUT, "feature_group_count": 3}
        return jax.lax.conv_general_dilated(x, kernel[:, None], (stride, stride), pads, **options)

    @jax.jit
    def with_gradients(x, kernel):
        results = []
        for function in (grouped, lambda x, kernel: depthwise(x, kernel, stride, dilation)):
            result, pull = jax.vjp(function, x, kernel)
            results.append((result, *pull(cotangent)))
        return results

    for ours, theirs in zip(*with_gradients(x, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_reduction_of_an_odd_map_sees_zeros_beyond_its_end():
    x, weights = draw(4, 5, 5, 2), draw(2, 3, 4, seed=1)
    found = reduce_map(x, weights)
    assert found.shape == (6, 3, 3, 2)
    wanted = np.einsum("oc,chwb->ohwb", weights[1], np.asarray(x)[:, 1::2, 1::2])
    np.testing.assert_allclose(found[:3], np.einsum("oc,chwb->ohwb", weights[0], x[:, ::2, ::2]), atol=1e-5)
    np.testing.assert_allclose(found[3:, :2, :2], wanted, atol=1e-5)
    assert not np.any(found[3:, 2])
    assert not np.any(found[3:, :, 2])


def test_derivatives_of_second_order_are_symmetric():
    x, kernel = draw(2, 4, 4, 3), draw(2, 3, 3, seed=1)

    def slope(kernel):
        return jax.grad(lambda kernel: jnp.sum(jnp.tanh(depthwise(x, kernel, 1, 1))))(kernel)

    along = [draw(2, 3, 3, seed=seed) for seed in (2, 3)]
    bends = [jax.jvp(slope, (kernel,), (direction,))[1] for direction in along]
    pairs = [float(jnp.vdot(a, b)) for a, b in itertools.product(along, bends)]
    np.testing.assert_allclose(pairs[1], pairs[2], rtol=1e-4)
    assert abs(pairs[1]) > 1e-2
