import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces import ATTENTIVENAS, DIGITS, available_exits


def expected_exits(space, backbone):
    """Walks over the blocks one by one, counting those that the backbone has."""
    available, index = [], 0
    for stage, depth in zip(space.stages, backbone.depth.tolist(), strict=True):
        for block in range(max(stage.depth)):
            available.append(block < depth and index >= space.first_exit)
            index += block < depth
    return available[space.first_exit :]


@pytest.mark.parametrize("space", [ATTENTIVENAS, DIGITS.adapt(in_channels=1, classes=10, image_size=8)])
def test_exits_follow_used_blocks_from_the_first_exit_on(space):
    genomes = np.random.default_rng(1).integers(0, space.codec.cardinalities, (30, len(space.codec.names)))
    backbones = jax.jit(jax.vmap(space.decode))(jnp.asarray(genomes, jnp.int32))
    found = jax.jit(jax.vmap(lambda backbone: available_exits(space, backbone)))(backbones)
    for row in range(30):
        backbone = jax.tree.map(lambda leaf, row=row: leaf[row], backbones)
        assert found[row].tolist() == expected_exits(space, backbone)
        assert int(found[row].sum()) == int(backbone.depth.sum()) - space.first_exit
