"""What every space of the catalogue must keep to."""

import jax
import numpy as np
import pytest

from hadas_jax.spaces import MBConvSpace, available_exits, block_active, load_space, segments
from hadas_jax.spaces.catalogue import SPACES


@pytest.fixture(params=SPACES)
def space(request) -> MBConvSpace:
    return load_space(request.param).adapt(in_channels=3, classes=100, image_size=16)


def test_a_space_keeps_to_the_contract(space, tables_of):
    genes = len(space.codec.names)
    genomes = np.random.default_rng(0).integers(0, space.codec.cardinalities, (20, genes)).astype(np.int32)
    genomes[:2] = space.largest_genome, space.smallest_genome

    @jax.jit
    @jax.vmap
    def parts(genome):
        backbone = space.decode(genome)
        return backbone, block_active(space, backbone), available_exits(space, backbone)

    backbones, active, exits = parts(genomes)
    tables = tables_of(space, backbones)
    assert len(set(space.codec.names)) == genes
    assert space.count > 1000

    for row, genome in enumerate(genomes):
        backbone = jax.tree.map(lambda leaf, row=row: np.asarray(leaf)[row], backbones)
        assert (space.encode(backbone) == genome).all()

    assert active.shape == (20, space.positions)
    assert (active.sum(1) == backbones.depth.sum(1)).all()
    assert exits.shape == (20, space.num_exits)
    assert exits.any(1).all()

    owner = segments(space)
    for column in jax.tree.leaves(tables):
        assert column.shape == (20, *owner.shape)
        assert np.isfinite(column).all()
        assert (column >= 0).all()
    assert sorted(set(owner.tolist())) == list(range(2 * space.num_exits + 1))
    totals = (tables.macs * tables.active).sum(1)
    assert (totals <= totals[0]).all()
    assert (totals >= totals[1]).all()


def test_an_unknown_space_is_refused_with_the_names():
    with pytest.raises(ValueError, match="unknown space 'ofa': expected one of digits, small-images, attentivenas"):
        load_space("ofa")
