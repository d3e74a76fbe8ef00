import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces import available_exits
from hadas_jax.supernet import apply, cut, cut_space, estimate_batch_stats, initialise

GENOMES = ("largest", "smallest", 0)


def backbone_of(space, genome):
    if isinstance(genome, str):
        return getattr(space, genome)()
    drawn = np.random.default_rng(genome).integers(0, space.codec.cardinalities)
    return space.decode(jnp.asarray(drawn, jnp.int32))


@pytest.mark.parametrize("genome", GENOMES)
def test_what_is_cut_out_has_the_sizes_of_its_own_space(small_space, small_network, genome):
    backbone = backbone_of(small_space, genome)
    own = cut_space(small_space, backbone)
    params, stats = cut(small_space, *small_network, backbone)
    expected = jax.eval_shape(lambda: initialise(own, jax.random.key(0)))
    size = own.resolution[0]
    batches = jax.ShapeDtypeStruct((1, 2, size, size, own.in_channels), jnp.float32)
    expected_stats = jax.eval_shape(lambda p, b: estimate_batch_stats(own, p, backbone, b), expected, batches)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert jax.tree.map(jnp.shape, stats) == jax.tree.map(jnp.shape, expected_stats)


@pytest.mark.parametrize("genome", GENOMES[1:])
def test_a_network_that_is_cut_out_predicts_what_it_does_behind_masks(small_space, small_network, genome):
    backbone = backbone_of(small_space, genome)
    own = cut_space(small_space, backbone)
    images = jnp.asarray(np.random.default_rng(5).normal(size=(3, 9, 9, 1)), jnp.float32)
    run = jax.jit(apply, static_argnums=0)
    masked = run(small_space, *small_network, backbone, images)
    alone = run(own, *cut(small_space, *small_network, backbone), backbone, images)
    has = np.asarray(available_exits(small_space, backbone))
    assert np.asarray(available_exits(own, backbone)).all()
    np.testing.assert_allclose(alone.exits, masked.exits[np.append(has, True)], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(alone.confidence, masked.confidence[has], rtol=1e-4, atol=1e-4)
