import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from hadas_jax.training.augmentation import BLEND, OPERATIONS, apply_operations, rand_augment

COUNT, SIZE = 28, 12
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def bytes_():
    """Smooth random colour images with their own brightness, uint8[N, H, W, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(30, 220, (COUNT, 3, 3, 3))
    fine = np.stack([np.asarray(Image.fromarray(c.astype(np.uint8)).resize((SIZE, SIZE))) for c in coarse])
    return np.clip(fine + rng.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(bytes_):
    return jnp.asarray(bytes_.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def run():
    return jax.jit(rand_augment, static_argnames="operations")


@pytest.fixture(scope="module")
def applied(images):
    """(operation, amount) -> all images after it."""
    run = jax.jit(apply_operations)

    def call(name, amount):
        choices = jnp.full(COUNT, OPERATIONS.index(name), jnp.int32)
        return np.asarray(run(images, choices, jnp.full(COUNT, amount, jnp.float32)))

    return call


def test_magnitude_zero_changes_nothing(run, images):
    assert (run(KEY, images, magnitude=0.0) == images).all()


def test_images_keep_shape_type_and_range_and_most_of_them_change(run, images):
    found = run(KEY, images, magnitude=1.0)
    assert found.shape == images.shape
    assert found.dtype == jnp.float32
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    changed = np.asarray((found != images).any((1, 2, 3)))
    assert changed.mean() > 0.7


def test_the_same_key_gives_the_same_images_and_another_key_others(run, images):
    first = run(KEY, images, magnitude=0.5)
    assert (run(KEY, images, magnitude=0.5) == first).all()
    assert (run(jax.random.key(2), images, magnitude=0.5) != first).any()


def test_an_image_does_not_depend_on_the_others(run, images):
    first = run(KEY, images, magnitude=0.7)
    other = run(KEY, images.at[1:].set(0.5), magnitude=0.7)
    np.testing.assert_allclose(other[0], first[0], atol=1e-6)


@pytest.mark.parametrize("name", OPERATIONS[1:])
def test_every_operation_does_something_at_full_strength_and_nothing_at_none(applied, images, name):
    assert (applied(name, 0.0) == images).all()
    changed = (applied(name, 1.0) != np.asarray(images)).any((1, 2, 3))
    assert changed.all()


def test_the_identity_does_nothing(applied, images):
    assert (applied("identity", 1.0) == images).all()


def pillow(function, bytes_):
    return np.stack([np.asarray(function(Image.fromarray(image))) for image in bytes_]) / 255


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("colour", ImageEnhance.Color)],
)
@pytest.mark.parametrize("amount", [-0.5, 0.7])
def test_blends_are_pillows(applied, bytes_, name, enhancer, amount):
    expected = pillow(lambda image: enhancer(image).enhance(1 + BLEND * amount), bytes_)
    np.testing.assert_allclose(applied(name, amount), expected, atol=0.012)


def test_sharpness_is_pillows_inside_the_border(applied, bytes_):
    expected = pillow(lambda image: ImageEnhance.Sharpness(image).enhance(1 - BLEND * 0.8), bytes_)
    np.testing.assert_allclose(applied("sharpness", -0.8)[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=0.012)


def test_posterising_solarising_and_stretching_are_pillows(applied, bytes_):
    np.testing.assert_allclose(
        applied("posterise", 1.0), pillow(lambda image: ImageOps.posterize(image, 4), bytes_), atol=1e-6
    )
    np.testing.assert_allclose(
        applied("solarise", 0.5), pillow(lambda image: ImageOps.solarize(image, 128), bytes_), atol=1e-6
    )
    np.testing.assert_allclose(
        applied("autocontrast", 1.0), pillow(lambda image: ImageOps.autocontrast(image), bytes_), atol=0.012
    )


def test_equalised_channels_are_the_ranks_of_their_pixels(applied, bytes_):
    found = applied("equalise", 1.0)
    for image, source in zip(found, bytes_, strict=True):
        for channel in range(3):
            values = source[..., channel]
            upto = np.array([(values <= value).sum() for value in values.ravel()], np.float64)
            expected = (upto - upto.min()) / (values.size - upto.min())
            np.testing.assert_allclose(image[..., channel].ravel(), expected, atol=1e-6)


def test_grey_images_and_constant_images_stay_finite():
    grey = jnp.broadcast_to(jnp.linspace(0, 1, 14)[:, None, None, None], (14, 8, 8, 1))
    found = jax.jit(apply_operations)(grey, jnp.arange(14, dtype=jnp.int32), jnp.ones(14))
    assert np.isfinite(found).all()
    for name in ("autocontrast", "equalise"):
        at = OPERATIONS.index(name)
        assert (found[at] == grey[at]).all()
