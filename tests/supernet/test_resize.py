import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.layers import bicubic_weights, resize

sizes = [(8, 8, 20), (4, 4, 24), (9, 7, 13), (17, 20, 5), (5, 5, 4), (3, 11, 11), (1, 2, 6)]


def draw(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32)


def cubic(distance):
    """Keys's kernel with a = -0.75, written as its two cubics."""
    if distance <= 1:
        return 1.25 * distance**3 - 2.25 * distance**2 + 1
    if distance < 2:
        return -0.75 * distance**3 + 3.75 * distance**2 - 6 * distance + 3
    return 0.0


def resize_line(line, size):
    """Float64 interpolation of [N, C] to [size, C], one output pixel at a time."""
    scale = len(line) / size
    rows = []
    for pixel in range(size):
        centre = (pixel + 0.5) * scale - 0.5
        taps = range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3)
        rows.append(sum(cubic(abs(centre - tap)) * line[min(max(tap, 0), len(line) - 1)] for tap in taps))
    return np.array(rows)


def resize_plainly(images, size):
    tall = np.array([[resize_line(column, size) for column in image.swapaxes(0, 1)] for image in images])
    return np.array([[resize_line(row, size) for row in image.swapaxes(0, 1)] for image in tall])


@pytest.mark.parametrize(("height", "width", "size"), sizes)
def test_resizing_is_keyss_interpolation_of_every_pixel(height, width, size):
    images = draw(height, width)
    found = resize(jnp.asarray(images), size)
    assert found.shape == (2, size, size, 3)
    np.testing.assert_allclose(found, resize_plainly(images.astype(np.float64), size), atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "size"), [*sizes, (32, 32, 192)])
def test_resizing_is_pytorchs(height, width, size):
    torch = pytest.importorskip("torch")
    images = draw(height, width)
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.interpolate(channels_first, size=(size, size), mode="bicubic", align_corners=False)
    np.testing.assert_allclose(resize(jnp.asarray(images), size), expected.numpy().transpose(0, 2, 3, 1), atol=3e-5)


def test_images_that_fit_are_returned_as_they_are():
    images = jnp.asarray(draw(6, 6))
    assert resize(images, 6) is images


def test_a_flat_image_stays_flat():
    for before, after in ((32, 192), (9, 4), (1, 5)):
        np.testing.assert_allclose(bicubic_weights(before, after).sum(1), 1.0, rtol=1e-12)


def test_leading_axes_and_types_are_kept():
    images = jnp.asarray(draw(5, 5))
    stacked = resize(jnp.stack([images, images + 1]), 8)
    np.testing.assert_allclose(stacked[0], resize(images, 8), atol=1e-6)
    assert resize(images.astype(jnp.bfloat16), 8).dtype == jnp.bfloat16


def test_the_gradient_is_the_transposed_interpolation():
    weights = bicubic_weights(4, 7)
    gradient = jax.grad(lambda x: jnp.sum(resize(x, 7)[2, 5]))(jnp.zeros((4, 4, 1)))
    np.testing.assert_allclose(gradient[..., 0], np.outer(weights[2], weights[5]), atol=1e-6)


def test_a_size_without_pixels_is_refused():
    with pytest.raises(ValueError, match="size: expected at least 1 pixel, got 0"):
        resize(jnp.zeros((4, 4, 1)), 0)
