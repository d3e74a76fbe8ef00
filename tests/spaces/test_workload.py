from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces import ATTENTIVENAS, DIGITS, Backbone, available_exits, segments
from hw_models import LayerKind

SPACE = ATTENTIVENAS.adapt(in_channels=3, classes=100, image_size=16)


@pytest.fixture
def attentive_tables(tables_of):
    """Layer tables of backbones of the AttentiveNAS space."""
    return lambda backbones: tables_of(SPACE, backbones)


@pytest.fixture
def largest_table(tables_of):
    """The layer table of a space's largest backbone."""

    def table(space):
        alone = tables_of(space, jax.tree.map(lambda leaf: leaf[None], space.largest()))
        return jax.tree.map(lambda column: column[0], alone)

    return table


def million_macs(tables):
    """Of the trunk's convolutions and linear layers, in float64."""
    counted = ~np.isin(tables.kind, (LayerKind.POOLING, LayerKind.ELEMENTWISE))
    counted &= (tables.active > 0) & (segments(SPACE) <= SPACE.num_exits)[None]
    return np.where(counted, tables.macs.astype(np.float64), 0.0).sum(1) / 1e6


def extremes() -> Backbone:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), SPACE.smallest(), SPACE.largest())


def random_backbones(space, count, seed):
    genomes = np.random.default_rng(seed).integers(0, space.codec.cardinalities, (count, len(space.codec.names)))
    return jax.vmap(space.decode)(jnp.asarray(genomes, jnp.int32))


def test_multiply_accumulates_are_those_of_500_reference_sub_networks(attentive_tables):
    with np.load(Path(__file__).with_name("attentivenas_flops.npz")) as reference:
        configs, expected = reference["flops_configs"], reference["flops_M"]
    resolution, width, depth, kernel, expand = np.split(jnp.asarray(configs), [1, 10, 17, 24], axis=1)
    tables = attentive_tables(Backbone(resolution[:, 0], width, depth, kernel, expand))
    np.testing.assert_array_equal(million_macs(tables), expected)


def test_the_smallest_and_largest_sub_networks_have_the_published_counts(attentive_tables):
    assert million_macs(attentive_tables(extremes())).tolist() == [201.776768, 1937.550208]


def test_rows_that_a_backbone_does_not_use_are_inactive(attentive_tables):
    tables = attentive_tables(random_backbones(SPACE, 20, 0))
    assert set(np.unique(tables.active).tolist()) == {0.0, 1.0}
    depthwise = (tables.kind == LayerKind.DEPTHWISE) & (tables.active > 0)
    depths = np.asarray(random_backbones(SPACE, 20, 0).depth)
    assert (depthwise.sum(1) == depths.sum(1)).all()


def test_every_row_is_in_one_segment_and_trunk_segments_hold_their_blocks(largest_table):
    owner = segments(SPACE)
    kinds = largest_table(SPACE).kind
    assert owner.shape == kinds.shape
    assert owner.dtype == np.int32
    exits = SPACE.num_exits
    blocks = np.bincount(owner[kinds == LayerKind.DEPTHWISE], minlength=2 * exits + 1)
    assert blocks.tolist() == [SPACE.first_exit + 1, *[1] * (exits - 1), 0, *[0] * exits]
    assert (np.bincount(owner)[exits + 1 :] == 3).all()


def test_heads_are_active_where_their_position_is_used(attentive_tables):
    backbones = random_backbones(SPACE, 20, 1)
    tables, owner = attentive_tables(backbones), segments(SPACE)
    available = np.asarray(jax.vmap(lambda b: available_exits(SPACE, b))(backbones))
    for exit_, head in enumerate(range(SPACE.num_exits + 1, owner.max() + 1)):
        rows = tables.active[:, owner == head] > 0
        assert (rows.all(1) == rows.any(1)).all()
        assert rows.all(1)[available[:, exit_]].all()


def test_an_exit_head_has_the_weights_of_its_layers(largest_table):
    space = DIGITS.adapt(in_channels=3, classes=100, image_size=16)
    table, owner = largest_table(space), segments(space)
    head = owner == 2 * space.num_exits
    width, channels, pixels = space.exit_width, 48, 2 * 2
    assert table.weight_elements[head].tolist() == [9 * channels * width + width, 0, width * 101 + 101]
    assert table.macs[head].tolist() == [9 * channels * width * pixels, width * pixels, width * 101]


def test_odd_maps_are_halved_upwards(largest_table, small_space):
    table, owner = largest_table(small_space), segments(small_space)
    stem, head = table.output_elements[0], table.output_elements[owner == small_space.num_exits][0]
    assert (float(stem), float(head)) == (16 * 5 * 5, 48 * 2 * 2)


@pytest.mark.parametrize("stage", range(7))
def test_one_more_block_never_lowers_the_cost(attentive_tables, stage):
    backbones = random_backbones(SPACE, 16, stage)
    depth = backbones.depth.at[:, stage].set(min(SPACE.stages[stage].depth))
    few = attentive_tables(backbones.replace(depth=depth))
    many = attentive_tables(backbones.replace(depth=depth.at[:, stage].add(1)))
    assert (few.active <= many.active).all()
    for field in ("macs", "weight_elements", "input_elements", "output_elements"):
        a, b = ((getattr(table, field) * table.active).sum(1) for table in (few, many))
        assert (a < b).all()


def test_every_active_exit_head_costs_something(attentive_tables):
    table, owner = attentive_tables(random_backbones(SPACE, 16, 0)), segments(SPACE)
    for head in range(SPACE.num_exits + 1, owner.max() + 1):
        rows = owner == head
        work = (table.macs * table.active)[:, rows].sum(1)
        assert ((work > 0) == table.active[:, rows].any(1)).all()
