import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search import sample
from hadas_jax.spaces import ATTENTIVENAS
from hadas_jax.training.supernet import POOL, at_resolution, bestup_genomes, multiply_accumulates

KEY = jax.random.key(0)


def test_multiply_accumulates_are_the_published_ones():
    space = ATTENTIVENAS.adapt(in_channels=3, classes=100, image_size=224)
    count = jax.jit(multiply_accumulates, static_argnums=0)
    found = [float(count(space, backbone)) / 1e6 for backbone in (space.smallest(), space.largest())]
    np.testing.assert_allclose(found, [201.776768, 1937.550208], rtol=1e-6)


def test_bestup_takes_the_lowest_loss_of_the_candidates_nearest_to_each_target(small_space):
    """The loss is any number that a backbone has: here one by its widths and kernels."""

    def loss(backbone):
        return jnp.sin((3 * jnp.sum(backbone.width) + 7 * jnp.sum(backbone.expand)).astype(jnp.float32))

    find = jax.jit(lambda key: bestup_genomes(small_space, key, 6, candidates=4, loss=loss))
    pool = np.asarray(sample(KEY, jnp.asarray(small_space.codec.cardinalities), size=POOL))
    decoded = jax.vmap(small_space.decode)(jnp.asarray(pool))
    _, first = np.unique(pool, axis=0, return_index=True)
    first.sort()
    work = np.asarray(jax.jit(jax.vmap(lambda b: multiply_accumulates(small_space, b)))(decoded), np.float64)
    losses = np.asarray(jax.vmap(loss)(decoded))
    for target, genome in zip(work, np.asarray(find(KEY)), strict=False):
        nearest = first[np.argsort(np.abs(work[first] - target), kind="stable")[:4]]
        assert (genome == pool[nearest[np.argmin(losses[nearest])]]).all()


def test_images_are_resized_to_the_backbones_own_resolution(small_space):
    space = dataclasses.replace(small_space, resolution=(4, 9, 12))
    images = jnp.ones((2, 9, 9, 1))
    run = jax.jit(lambda b: at_resolution(space, b, images, lambda x: (jnp.sum(x), jnp.int32(x.shape[1]))))
    for size in space.resolution:
        total, found = run(dataclasses.replace(space.smallest(), resolution=jnp.int32(size)))
        assert int(found) == size
        assert float(total) == pytest.approx(2 * size**2, rel=1e-5)
