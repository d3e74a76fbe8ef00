import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.spaces import ATTENTIVENAS, DIGITS, Backbone, MBConvSpace, Stage, block_active
from hadas_jax.spaces.mbconv import make_divisible

CARDINALITIES = [4, 2, 2, 2, 2, 2, 3, 4, 2, 2, 2, 3, 4, 4, 6, 6, 2, *[2] * 7, 3, 3, 3, 3]
PUBLISHED = {  # resolution; widths; kernels; expand ratios; depths
    "a0": (192, "16 16 24 32 64 112 192 216 1792", "3333333", "1444466", "1333331"),
    "a1": (224, "16 16 24 32 64 112 192 216 1984", "3335353", "1444466", "1333331"),
    "a2": (224, "16 16 24 32 64 112 200 224 1984", "3333353", "1454466", "1333341"),
    "a3": (224, "16 16 24 32 64 112 208 224 1984", "3335333", "1444466", "2334351"),
    "a4": (256, "16 16 24 32 64 112 192 216 1984", "3335353", "1445466", "1334351"),
    "a5": (256, "16 16 24 32 72 112 192 216 1792", "3335333", "1454466", "1333461"),
    "a6": (288, "16 16 24 32 64 112 216 224 1984", "3333353", "1465466", "1334461"),
}


def published(name: str) -> Backbone:
    resolution, width, kernel, expand, depth = PUBLISHED[name]
    digits = [np.array([int(d) for d in text], np.int32) for text in (depth, kernel, expand)]
    return Backbone(np.int32(resolution), np.array(width.split(), np.int32), *digits)


def one_off(**changes) -> MBConvSpace:
    settings = {
        "name": "one-off",
        "resolution": (32,),
        "stem_width": (8,),
        "stem_stride": 2,
        "stages": (Stage((8, 16), (1, 3, 2), (3, 5, 7), (4,)), Stage((24,), (2,), (3,), (2, 1), stride=2)),
        "last_width": (32, 16),
        "first_exit": 1,
    }
    return MBConvSpace(**(settings | changes))


def test_attentivenas_has_28_genes_and_its_exact_count():
    assert ATTENTIVENAS.codec.cardinalities.tolist() == CARDINALITIES
    assert ATTENTIVENAS.count == 440301256704


def test_attentivenas_genes_come_in_the_papers_order():
    names = ATTENTIVENAS.codec.names
    stages = [f"mb{i}" for i in range(1, 8)]
    assert names[0] == "resolution"
    assert names[1:10] == tuple(f"width.{part}" for part in ("stem", *stages, "last"))
    assert names[10:17] == tuple(f"depth.{part}" for part in stages)
    assert names[17:24] == tuple(f"kernel.{part}" for part in stages)
    assert names[24:] == tuple(f"expand.{part}" for part in stages[1:5])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_backbones_are_in_the_attentivenas_space(name):
    backbone = published(name)
    genome = ATTENTIVENAS.encode(backbone)
    assert genome.shape == (28,)
    jax.tree.map(np.testing.assert_array_equal, ATTENTIVENAS.decode(jnp.asarray(genome)), backbone)


def test_a_choice_with_one_option_is_no_gene_but_is_in_the_backbone():
    space = one_off()
    assert space.codec.names == ("width.mb1", "width.last", "depth.mb1", "kernel.mb1", "expand.mb2")
    assert space.count == 2 * 2 * 3 * 3 * 2
    backbone = space.decode(jnp.array([1, 1, 1, 2, 1], jnp.int32))
    assert int(backbone.resolution) == 32
    assert backbone.width.tolist() == [8, 16, 24, 16]
    assert backbone.depth.tolist() == [3, 2]
    assert backbone.kernel.tolist() == [7, 3]
    assert backbone.expand.tolist() == [4, 1]
    assert space.encode(backbone).tolist() == [1, 1, 1, 2, 1]


def test_the_largest_and_smallest_backbones_do_not_depend_on_the_order_of_options():
    space = one_off()
    assert space.largest().width.tolist() == [8, 16, 24, 32]
    assert space.largest().depth.tolist() == [3, 2]
    assert space.smallest().width.tolist() == [8, 8, 24, 16]
    assert space.smallest().expand.tolist() == [4, 1]


def test_every_genome_of_a_one_off_space_round_trips():
    space = one_off()
    genomes = np.stack(np.meshgrid(*map(np.arange, space.codec.cardinalities), indexing="ij"), -1)
    backbones = jax.vmap(space.decode)(jnp.asarray(genomes.reshape(-1, 5), jnp.int32))
    for row, genome in enumerate(genomes.reshape(-1, 5)):
        one = jax.tree.map(lambda leaf, row=row: np.asarray(leaf)[row], backbones)
        assert (space.encode(one) == genome).all()


def test_decoding_under_vmap_equals_a_loop():
    genomes = np.random.default_rng(0).integers(0, CARDINALITIES, (6, 28)).astype(np.int32)
    together = jax.vmap(ATTENTIVENAS.decode)(jnp.asarray(genomes))
    for row, genome in enumerate(genomes):
        alone = ATTENTIVENAS.decode(jnp.asarray(genome))
        jax.tree.map(lambda a, b, row=row: np.testing.assert_array_equal(a[row], b), together, alone)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("resolution", 200, r"gene resolution: expected one of \(192, 224, 256, 288\), got 200"),
        ("width", [16, 16, 24, 32, 64, 113, 192, 216, 1792], r"gene width.mb5: expected one of .*got 113"),
        ("depth", [1, 3, 3, 3, 3, 3, 3], r"gene depth.mb7: expected one of \(1, 2\), got 3"),
        ("expand", [2, 4, 4, 4, 4, 6, 6], r"gene expand.mb1: expected one of \(1,\), got 2"),
        ("kernel", [3, 3, 3, 3, 3, 3], "expected 31 values, one per gene, got 30"),
    ],
)
def test_a_backbone_outside_the_space_is_refused_with_its_gene(field, values, message):
    wrong = published("a0").replace(**{field: np.array(values, np.int32)})
    with pytest.raises(ValueError, match=message):
        ATTENTIVENAS.encode(wrong)


def test_a_space_without_resolution_asks_to_be_adapted():
    with pytest.raises(ValueError, match="space digits has no resolution yet: call adapt"):
        _ = DIGITS.codec


def test_adapting_sets_what_the_data_decides_and_keeps_given_resolutions():
    digits = DIGITS.adapt(in_channels=1, classes=10, image_size=8)
    assert (digits.resolution, digits.in_channels, digits.classes) == ((8,), 1, 10)
    large = ATTENTIVENAS.adapt(in_channels=1, classes=7, image_size=8)
    assert (large.resolution, large.classes) == (ATTENTIVENAS.resolution, 7)


def test_the_first_blocks_of_every_stage_are_active():
    space = one_off()
    backbone = space.smallest().replace(depth=jnp.array([2, 1], jnp.int32))
    assert block_active(space, backbone).tolist() == [True, True, False, True, False]
    assert space.positions == 5


@given(st.integers(0, 4000))
def test_make_divisible_stays_near_and_divides(channels):
    wanted = max(8, (channels + 4) // 8 * 8)
    wanted += 8 * (wanted < 0.9 * channels)
    assert make_divisible(channels) == wanted
    assert int(make_divisible(jnp.int32(channels))) == wanted
