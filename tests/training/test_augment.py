import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from hadas_jax.training import augment
from hadas_jax.training.augment import batch_indices, random_affine

COUNT, SIZE, SHIFT = 200, 13, 2.0


@pytest.fixture(scope="module")
def warped():
    """Images whose first channels are their pixels' own row and column, before and after, float32[N, H, W, 3]."""
    noise = np.random.default_rng(0).normal(size=(COUNT, SIZE, SIZE))
    rows, columns = np.broadcast_to(np.indices((SIZE, SIZE))[:, None], (2, COUNT, SIZE, SIZE))
    images = np.stack([rows, columns, noise], -1).astype(np.float32)
    return images, np.asarray(random_affine(jax.random.key(0), jnp.asarray(images), SHIFT))


def test_augmented_images_are_read_at_the_coordinates_that_their_channels_tell(warped):
    images, found = warped
    assert found.shape == images.shape
    for image, source in zip(found, images, strict=True):
        expected = map_coordinates(source[..., 2], [image[..., 0], image[..., 1]], order=1, mode="nearest")
        np.testing.assert_allclose(image[..., 2], expected, atol=1e-4)


def test_rotation_size_and_shift_stay_in_their_ranges_and_fill_them(warped):
    centre = SIZE // 2
    around = warped[1][:, centre - 1 : centre + 2, centre - 1 : centre + 2, :2]
    shifts = around[:, 1, 1] - centre
    down, right = (around[:, 2, 1] - around[:, 0, 1]) / 2, (around[:, 1, 2] - around[:, 1, 0]) / 2
    np.testing.assert_allclose(down, np.stack([right[:, 1], -right[:, 0]], 1), atol=1e-4)
    sizes, angles = np.log(np.hypot(*down.T)), np.arctan2(down[:, 1], down[:, 0])
    for values, limit in ((sizes, augment.SCALING), (angles, augment.ROTATION), (shifts, SHIFT)):
        assert np.abs(values).max() <= limit + 1e-4
        assert values.max() > 0.9 * limit
        assert values.min() < -0.9 * limit


def test_without_rotation_scaling_and_shift_images_stay_as_they_are(warped, monkeypatch):
    monkeypatch.setattr(augment, "ROTATION", 0.0)
    monkeypatch.setattr(augment, "SCALING", 0.0)
    images = jnp.asarray(warped[0][:5])
    assert (random_affine(jax.random.key(0), images, 0.0) == images).all()


def epoch(number):
    """The four batches of an epoch over 12 samples, joined."""
    steps = range(4 * number, 4 * number + 4)
    parts = [batch_indices(jax.random.key(1), jnp.int32(s), size=12, batch=3) for s in steps]
    return np.concatenate(parts).tolist()


def test_every_epoch_is_another_permutation():
    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert epoch(0) == first


def test_what_is_left_over_at_an_epochs_end_is_skipped():
    seen = [batch_indices(jax.random.key(1), jnp.int32(s), size=11, batch=4) for s in range(2)]
    assert len(set(np.concatenate(seen).tolist())) == 8
