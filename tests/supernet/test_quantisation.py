"""Number formats in the supernet: what is stored, its ranges and gradients, and that masks change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet import apply, cut, cut_space, estimate_batch_stats, quantisation
from hadas_jax.supernet.fold import stored_network
from hadas_jax.supernet.quantisation import Storage, activation_scale, find_range, kernel_scale, stored, stored_kernel
from hw_models import NumberFormat

INT8, FP16 = NumberFormat.INT8, NumberFormat.FP16
RANGE = np.array([-0.5, 2.0], np.float32)


def test_what_is_stored_in_8_bit_is_one_of_256_values_at_most_half_a_step_away_and_zero_is_exact():
    x = jnp.linspace(-1.0, 3.0, 4001)
    found = np.asarray(stored(x, INT8, RANGE))
    scale, zero = (float(each) for each in activation_scale(jnp.asarray(RANGE)))
    assert len(np.unique(found)) == 256
    assert float(stored(jnp.zeros(1), INT8, RANGE)[0]) == 0
    inside = np.abs(np.asarray(x) - np.clip(np.asarray(x), -zero * scale, (255 - zero) * scale)) == 0
    assert np.abs(found - np.asarray(x))[inside].max() <= 0.5001 * scale
    assert found.min() == pytest.approx(-zero * scale)


def test_kernels_are_symmetric_per_channel_and_half_precision_is_numpys():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 5)) * [1, 2, 3, 4, 0.1], jnp.float32)
    scale = np.asarray(kernel_scale(kernel))
    np.testing.assert_allclose(scale, np.abs(np.asarray(kernel)).max(axis=(0, 1, 2)) / 127, rtol=1e-6)
    whole = np.asarray(stored_kernel(kernel, INT8)) / scale
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
    assert np.abs(np.asarray(stored_kernel(kernel, INT8) - kernel)).max(axis=(0, 1, 2)).tolist() <= (scale / 2).tolist()
    np.testing.assert_array_equal(
        np.asarray(stored_kernel(kernel, FP16)), np.asarray(kernel).astype(np.float16).astype(np.float32)
    )


def test_gradients_pass_rounding_but_no_clipping():
    slope = jax.vmap(jax.grad(lambda x: stored(x, INT8, RANGE)))
    np.testing.assert_allclose(slope(jnp.array([-0.9, 0.3, 1.0, 2.5])), [0, 1, 1, 0], rtol=1e-5)
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda x: stored(x, FP16)))(jnp.array([0.1, 5.0])), [1, 1])
    assert float(jax.grad(lambda k: jnp.sum(stored_kernel(k, INT8)))(jnp.ones((2, 2)))[0, 0]) == 1


def test_ranges_leave_rare_values_out_and_do_not_heed_channels_of_zeros():
    x = np.random.default_rng(1).normal(size=(40, 500)).astype(np.float32)
    x[0, 0] = 40.0
    padded = jnp.asarray(np.concatenate([x, np.zeros_like(x)], axis=1))
    whole, mse = (np.asarray(find_range(jnp.asarray(x), method)) for method in ("minmax", "mse"))
    assert whole.tolist() == [float(x.min()), 40.0]
    assert mse[1] < 40
    error = [float(jnp.mean((stored(jnp.asarray(x), INT8, r) - x) ** 2)) for r in (whole, mse)]
    assert error[1] <= error[0]
    np.testing.assert_allclose(np.asarray(find_range(padded)), mse)
    assert find_range(jnp.asarray(x), "percentile")[1] < 40


def test_a_part_of_a_large_tensor_tells_its_range_whichever_channel_is_wide(monkeypatch):
    x = np.random.default_rng(2).normal(size=(3000, 96)).astype(np.float32)
    for wide in (0, 5, 94):
        one = x.copy()
        one[:, wide] *= 8
        found = np.asarray(find_range(jnp.asarray(one)))
        with monkeypatch.context() as everything:
            everything.setattr(quantisation, "_SAMPLE", one.size)
            np.testing.assert_allclose(found, find_range(jnp.asarray(one)), rtol=0.1)


@pytest.mark.parametrize("number_format", [pytest.param(INT8, marks=pytest.mark.slow), FP16])
def test_the_network_cut_out_computes_in_a_format_what_the_supernet_does(small_space, small_network, number_format):
    space, (params, _) = small_space, small_network
    images = jax.random.normal(jax.random.key(0), (2, 16, 9, 9, 1))
    backbone, storage = space.smallest(), Storage(number_format)
    stats = estimate_batch_stats(space, params, backbone, images, storage=Storage(INT8))

    plain = apply(space, params, stats, backbone, images[0]).exits
    weights, given = stored_network(space, params, stats, backbone, storage=storage)
    masked = apply(space, weights, given, backbone, images[0], storage=storage).exits
    skipped = apply(space, weights, given, backbone, images[0], storage=storage, skip="all").exits
    np.testing.assert_allclose(masked, skipped, atol=1e-5)
    small = cut_space(space, backbone)
    own = cut(space, *(jax.tree.map(np.asarray, tree) for tree in (params, stats)), jax.tree.map(np.asarray, backbone))
    own = stored_network(small, *own, backbone, storage=storage)
    alone = apply(small, *own, backbone, images[0], storage=storage).exits
    largest = float(jnp.abs(plain).max())
    np.testing.assert_allclose(masked[-1], alone[-1], atol=0.05 * largest)
    difference = float(jnp.abs(masked - plain).max()) / largest
    assert 1e-5 < difference < (0.25 if number_format == INT8 else 0.01)
