import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages, check_arrays, standardise


def test_bytes_stay_bytes_and_channels_are_added():
    images, labels = check_arrays(np.full((4, 2, 2), 255, np.uint8), np.array([0, 1, 0, 1], np.uint8), source="x")
    assert images.shape == (4, 2, 2, 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32


def test_floating_images_become_single_precision():
    images, _ = check_arrays(np.full((4, 2, 2, 3), 0.3, np.float64), np.array([0, 1, 0, 1]), source="x")
    assert images.dtype == np.float32


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_standardised_when_they_are_taken(jit, dtype):
    stored = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 2)).astype(dtype)
    mean, deviation = np.array([0.2, 0.4], np.float32), np.array([0.5, 2.0], np.float32)
    data = LabelledImages(jnp.asarray(stored), jnp.arange(7), jnp.asarray(mean), jnp.asarray(deviation))
    index = np.array([3, 0, 3])
    take = jax.jit(LabelledImages.take) if jit else LabelledImages.take
    images, labels = take(data, index)
    expected = ((stored / 255 if dtype == np.uint8 else stored)[index] - mean) / deviation
    assert data.images.dtype == dtype
    assert data.count == 7
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [3, 0, 3]


def test_images_without_mean_and_deviation_are_taken_as_they_are():
    stored = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 3)), jnp.float32)
    images, _ = jax.jit(LabelledImages.take)(LabelledImages(stored, jnp.zeros(4, jnp.int32)), np.arange(4))
    assert (images == stored).all()
    assert (standardise(stored, 0.0, 2.0) == stored / 2).all()
