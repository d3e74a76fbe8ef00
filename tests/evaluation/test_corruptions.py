import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hadas_jax.data import LabelledImages
from hadas_jax.evaluation.corruptions import CORRUPTIONS, corrupted


@pytest.fixture(scope="module")
def data():
    """12 images of bytes in colour, the first one black."""
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    images[0] = 0
    return LabelledImages(jnp.asarray(images), jnp.zeros(12, jnp.int32), 0.5, 0.25)


def unit(data):
    return np.asarray(data.images, np.float64) / 255


def test_strength_0_gives_the_images_as_they_are(data):
    assert all(corrupted(data, name, 0) is data for name in CORRUPTIONS)


def test_corrupted_images_are_of_the_same_kind_and_range_and_farther_off_at_every_strength(data):
    for name in CORRUPTIONS:
        off = []
        for strength in (1, 2, 3):
            found = corrupted(data, name, strength)
            assert (found.images.dtype, found.images.shape) == (np.uint8, data.images.shape)
            assert (found.mean, found.std) == (data.mean, data.std)
            off.append(np.abs(unit(found) - unit(data)).mean())
        assert 0 < off[0] < off[1] < off[2]


def test_each_corruption_is_what_its_definition_says(data):
    x, rounding = unit(data), 0.51 / 255
    noise = unit(corrupted(data, "noise", 3)) - x
    inside = (x > 0.4) & (x < 0.6)
    assert noise[inside].std() == pytest.approx(0.1, rel=0.1)
    blurred = np.stack([gaussian_filter(image, (1.0, 1.0, 0), mode="nearest", truncate=4) for image in x])
    np.testing.assert_allclose(unit(corrupted(data, "blur", 3)), blurred, atol=rounding)
    mean = x.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(unit(corrupted(data, "contrast", 2)), mean + 0.4 * (x - mean), atol=rounding)
    brighter = unit(corrupted(data, "brightness", 2))
    np.testing.assert_allclose(brighter.max(axis=-1), np.minimum(x.max(axis=-1) + 0.15, 1), atol=rounding)
    np.testing.assert_allclose(brighter[0], 0.15, atol=rounding)
    share = x[1:] / x[1:].max(axis=-1, keepdims=True)  # hue and saturation
    np.testing.assert_allclose(brighter[1:], share * brighter[1:].max(axis=-1, keepdims=True), atol=2 * rounding)


def test_floating_images_are_taken_for_their_range(data):
    doubled = LabelledImages(data.images.astype(jnp.float32) * 2 - 7, data.labels)
    found, wanted = corrupted(doubled, "contrast", 1), corrupted(data, "contrast", 1)
    assert found.images.dtype == np.float32
    np.testing.assert_allclose((np.asarray(found.images) + 7) / 2, wanted.images, atol=0.51)


def test_unknown_corruptions_and_strengths_are_named(data):
    with pytest.raises(ValueError, match="corruption: expected one of noise, blur, contrast, brightness, got 'fog'"):
        corrupted(data, "fog", 1)
    with pytest.raises(ValueError, match="strength: expected 0 to 3, got 4"):
        corrupted(data, "blur", 4)
