import jax
import jax.numpy as jnp
import numpy as np
import pytest
from static_networks import cut

from hadas_jax.deploy.layers import fold_batch_norm, output_shapes, run_network
from hadas_jax.spaces import available_exits, block_active
from hadas_jax.supernet import apply, resize


@pytest.fixture(scope="module")
def masked(short):
    """What the supernet with masks predicts, compiled once for all backbones."""
    space, network = short
    return jax.jit(lambda backbone, images: apply(space, *network, backbone, images))


def _genomes(space):
    drawn = np.random.default_rng(5).integers(0, space.codec.cardinalities, (1, len(space.codec.cardinalities)))
    return [space.smallest_genome, space.largest_genome, *drawn.astype(np.int32)]


@pytest.mark.parametrize(("which", "image_size"), [(0, 9), (1, 9), (2, 7)])
def test_a_cut_network_equals_the_masked_supernet_at_its_exits(short, masked, which, image_size):
    space, network = short
    genome = _genomes(space)[which]
    backbone = space.decode(jnp.asarray(genome))
    available = np.asarray(available_exits(space, backbone))
    own = np.cumsum(np.asarray(block_active(space, backbone)))[space.first_exit :] - 1
    images = jax.random.normal(jax.random.key(1), (5, image_size, image_size, 1))
    wanted = masked(backbone, resize(images, 9))
    segments, weights = cut(space, network, genome, own[available].tolist(), image_size)
    logits, confidence = jax.jit(run_network, static_argnums=0)(segments, weights, images)
    np.testing.assert_allclose(logits, wanted.exits[np.append(available, True)], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(confidence, wanted.confidence[available], rtol=1e-5, atol=1e-5)


def test_a_folded_network_does_the_same_without_batch_norm_and_is_folded_to_itself(short):
    segments, weights = cut(*short, short[0].largest_genome, (1, 2))
    once = fold_batch_norm(segments, weights)
    assert all(segment.has_batch_norm for segment in segments)
    assert not any(segment.has_batch_norm for segment in once[0])
    images = jax.random.normal(jax.random.key(1), (5, 9, 9, 1))
    run = jax.jit(run_network, static_argnums=0)
    for folded, whole in zip(run(*once, images), run(segments, weights, images), strict=True):
        np.testing.assert_allclose(folded, whole, rtol=1e-4, atol=2e-5)
    twice = fold_batch_norm(*once)
    assert twice[0] == once[0]
    jax.tree.map(np.testing.assert_array_equal, twice[1], once[1])


def test_weights_have_the_size_of_the_network(short):
    segments, weights = cut(*short, short[0].smallest_genome, (1,))
    assert weights["stem"]["kernel"].shape == (3, 3, 1, 8)
    assert weights["block0_depthwise"]["kernel"].shape == (3, 3, 16)
    assert weights["block1_squeeze"]["kernel"].shape == (16, 8)
    assert weights["logits"]["kernel"].shape == (16, 3)
    assert set(weights) <= {layer.name for segment in segments for layer in segment.layers}
    assert "block2" not in {layer.name for segment in segments for layer in segment.layers}


def test_a_segment_takes_what_the_one_before_hands_on(short):
    segments, weights = cut(*short, short[0].largest_genome, (1, 2))
    assert [segment.takes for segment in segments] == ["images", "block1", "block2"]
    assert [segment.features for segment in segments] == ["block1", "block2", None]
    shapes = output_shapes(segments, weights, image_size=9, channels=1)
    assert shapes["images"] == (9, 9, 1)
    assert shapes["block0"] == (3, 3, 16)
    assert shapes["block2"] == (2, 2, 24)
    assert shapes["logits"] == (3,)
