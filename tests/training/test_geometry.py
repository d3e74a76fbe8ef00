import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from hadas_jax.training import augmentation

COUNT, SIZE = 200, 17
SHIFT, CROP = SIZE / 8, SIZE // 8
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    """Images whose first channels are their pixels' own row and column, float32[N, H, W, 3]."""
    noise = np.random.default_rng(0).normal(size=(COUNT, SIZE, SIZE))
    rows, columns = np.broadcast_to(np.indices((SIZE, SIZE))[:, None], (2, COUNT, SIZE, SIZE))
    return np.stack([rows, columns, noise], -1).astype(np.float32)


@pytest.fixture(scope="module")
def warped(images):
    """The images before and after."""
    return images, np.asarray(jax.jit(augmentation("affine"))(KEY, jnp.asarray(images)))


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
    for values, limit in ((sizes, 0.12), (angles, 0.2), (shifts, SHIFT)):
        assert np.abs(values).max() <= limit + 1e-4
        assert values.max() > 0.9 * limit
        assert values.min() < -0.9 * limit


def test_about_half_of_the_images_are_mirrored_and_all_are_windows_of_the_padded_image_at_every_offset(images):
    found = np.asarray(augmentation("crop-flip")(KEY, jnp.asarray(images + 1)))
    padded = np.pad(images + 1, ((0, 0), (CROP, CROP), (CROP, CROP), (0, 0)))
    seen = []
    for new, old in zip(found, padded, strict=True):
        windows = {
            (mirrored, i, j): source[i : i + SIZE, j : j + SIZE]
            for mirrored, source in ((False, old), (True, old[:, ::-1]))
            for i in range(2 * CROP + 1)
            for j in range(2 * CROP + 1)
        }
        places = [place for place, window in windows.items() if (window == new).all()]
        assert len(places) == 1
        seen += places
    assert 70 < sum(mirrored for mirrored, *_ in seen) < 130
    assert len({tuple(offset) for _, *offset in seen}) == 25


def test_a_square_is_covered_with_the_images_mean_and_nothing_else_changes(images):
    found = np.asarray(augmentation("none", cutout_size=4)(KEY, jnp.asarray(images)))
    areas = []
    for new, old in zip(found, images, strict=True):
        changed = (new != old).any(-1)
        areas.append(changed.sum())
        rows, columns = changed.any(1), changed.any(0)
        assert rows.sum() <= 4
        assert columns.sum() <= 4
        assert (changed == rows[:, None] & columns[None]).all()
        np.testing.assert_allclose(new[changed], np.broadcast_to(old.mean((0, 1)), (changed.sum(), 3)), atol=1e-4)
    assert max(areas) == 16
    assert min(areas) < 16  # squares may lie partly outside
