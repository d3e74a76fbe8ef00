import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.training import AUGMENTATIONS, augmentation

KEY = jax.random.key(3)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (12, 16, 16, 3)), jnp.float32)


def test_none_is_no_function():
    assert augmentation("none") is None


@pytest.mark.parametrize("name", AUGMENTATIONS[1:])
def test_every_policy_keeps_shape_type_and_range_and_follows_its_key(name):
    run = jax.jit(augmentation(name))
    found = run(KEY, IMAGES)
    assert found.shape == IMAGES.shape
    assert found.dtype == IMAGES.dtype
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert (found != IMAGES).any()
    assert (run(KEY, IMAGES) == found).all()
    assert (run(jax.random.key(4), IMAGES) != found).any()
    alone = run(KEY, IMAGES.at[1:].set(0.25))[0]
    np.testing.assert_allclose(alone, found[0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "colour"}, "augmentation: expected one of none, affine, crop-flip, randaugment, got 'colour'"),
        ({"name": "randaugment", "magnitude": 1.5}, "magnitude: expected 0 to 1, got 1.5"),
        ({"name": "randaugment", "operations": -1}, "operations: expected 0 or more, got -1"),
    ],
)
def test_wrong_policies_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        augmentation(**arguments)


def test_without_a_square_the_augmentation_is_the_named_one():
    assert augmentation("none", cutout_size=0) is None
    images = jnp.zeros((2, 8, 8, 1)).at[:, 2:5].set(1.0)
    found = augmentation("crop-flip", cutout_size=0)(jax.random.key(0), images)
    assert set(np.unique(found)) == {0.0, 1.0}
