"""The formula of a footprint against the liveness of layers that are cut out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.deploy.layers import Layer, Segment, fold_batch_norm, output_shapes
from hadas_jax.deploy.materialise import materialise
from hadas_jax.deploy.memory import peak_elements, weight_elements
from hadas_jax.spaces import available_exits, block_active, load_space
from hadas_jax.spaces.footprint import footprint
from hadas_jax.supernet import estimate_batch_stats, initialise


def weightless(space):
    """Parameters and statistics of the right shapes that take no memory."""
    params = jax.eval_shape(lambda: initialise(space, jax.random.key(0)))
    size = max(space.resolution)
    images = jax.ShapeDtypeStruct((1, 2, size, size, space.in_channels), jnp.float32)
    stats = jax.eval_shape(lambda p, i: estimate_batch_stats(space, p, space.largest(), i), params, images)
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(1), leaf.shape), (params, stats))


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("small", 9),
        pytest.param("digits", 8, marks=pytest.mark.slow),
        pytest.param("small-images", 32, marks=pytest.mark.slow),
        pytest.param("attentivenas", 224, marks=pytest.mark.slow),
    ],
)
def test_the_footprint_of_a_backbone_with_exits_is_that_of_its_layers(small_space, name, image_size):
    space = small_space
    if name != "small":
        space = load_space(name).adapt(in_channels=1 if name == "digits" else 3, classes=10, image_size=image_size)
    compiled, weights = jax.jit(lambda genome: footprint(space, space.decode(genome))), weightless(space)
    rng = np.random.default_rng(3)
    genomes = rng.integers(0, space.codec.cardinalities, (3, len(space.codec.cardinalities)), np.int32)
    for genome in (space.smallest_genome, space.largest_genome, *genomes):
        backbone, found = space.decode(jnp.asarray(genome)), compiled(jnp.asarray(genome))
        available = np.asarray(available_exits(space, backbone))
        chosen = available & (rng.random(len(available)) < 0.4)
        blocks = np.cumsum(np.asarray(block_active(space, backbone)))[space.first_exit :] - 1
        size = int(backbone.resolution)
        exits = blocks[chosen].tolist()
        segments, cut = fold_batch_norm(*materialise(space, *weights, backbone=backbone, exits=exits, image_size=size))
        shapes = output_shapes(segments, cut, image_size=size, channels=space.in_channels)
        assert peak_elements(segments, shapes) == int(found.memory(jnp.asarray(chosen)))
        assert weight_elements(cut) == int(found.weights(jnp.asarray(chosen)))
        assert not np.asarray(found.exit_weights)[~available].any()


def test_a_shortcut_stays_in_memory_and_activations_take_none():
    layers = (
        Layer("a", "linear", ("images",)),
        Layer("a_act", "swish", ("a",)),
        Layer("b", "linear", ("a_act",)),
        Layer("c", "linear", ("b",)),
        Layer("d", "add", ("c", "a_act")),
        Layer("mean", "mean", ("d",)),
        Layer("logits", "linear", ("mean",)),
    )
    sizes = {"images": 7, "a": 20, "a_act": 20, "b": 50, "c": 20, "d": 20, "mean": 5, "logits": 3}
    segment = Segment(layers, "images", "d", "logits", None)
    assert peak_elements([segment], {name: (size,) for name, size in sizes.items()}) == 20 + 50 + 20
