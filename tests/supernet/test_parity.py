"""The supernet against what the published PyTorch supernet computes, from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from original_checkpoint import FOLDER, REFERENCE, backbone_of, case, draw_entries, recipe, reference_arrays

from hadas_jax.spaces import ATTENTIVENAS, available_exits, block_active, segments, workload
from hadas_jax.supernet import initialise, resize, run_heads, run_trunk
from hadas_jax.supernet.pytorch import from_pytorch
from hw_models import LayerKind

STATIC = [case["name"] for case in REFERENCE["cases"] if "n_exits" not in case]
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "fixture.npz") as content:
        return dict(content)


@pytest.fixture(scope="module")
def imported():
    return from_pytorch(ATTENTIVENAS, reference_arrays(), key=jax.random.key(0))


@pytest.fixture(scope="module")
def run():
    """Features, logits, and the exits' logits and confidences, of (space, params, stats, backbone, images)."""

    def run(space, params, stats, backbone, images):
        features, logits, _ = run_trunk(space, params.backbone, backbone, images, stats=stats.backbone)
        available = available_exits(space, backbone)
        exits, confidence, _ = run_heads(space, params.heads, features, available, stats=stats.heads)
        return features, logits, exits, confidence

    return jax.jit(run, static_argnums=0)


def answers(run, imported, name):
    reference = case(name)
    images = recipe.make_input(reference["input_seed"], reference["n"], reference["in_res"]).transpose(0, 2, 3, 1)
    backbone = backbone_of(reference)
    images = resize(jnp.asarray(images), int(backbone.resolution))
    found = run(imported.space, imported.params, imported.stats, backbone, images)
    return backbone, jax.tree.map(np.asarray, found)


def close(found, expected):
    return np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def used_blocks(features, backbone):
    """The outputs of the blocks that a backbone uses, without the channels that it does not."""
    for stage, depth, width in zip(features, backbone.depth, backbone.width[1:-1], strict=True):
        for block in stage[: int(depth)]:
            assert (block[..., int(width) :] == 0).all()
            yield block[..., : int(width)].astype(np.float64)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (case(name)["in_res"] == 288)) for name in STATIC]
)
def test_logits_and_blocks_are_the_originals(name, run, imported, expected):
    backbone, (features, logits, *_) = answers(run, imported, name)
    assert close(logits, expected[f"logits_{name}"])
    found = [
        (block.mean(), block.std(ddof=1), block.shape[3], block.shape[1]) for block in used_blocks(features, backbone)
    ]
    found, blocks = np.array(found), expected[f"blocks_{name}"]
    np.testing.assert_array_equal(found[:, 2:], blocks[:, 2:])
    for statistic in (0, 1):
        assert close(found[:, statistic], blocks[:, statistic])


def test_exits_of_one_backbone_answer_as_the_originals(run, imported, expected):
    reference = case("eex_min")
    arrays = reference_arrays() | draw_entries(reference["exit_keys"])
    with_exits = from_pytorch(
        ATTENTIVENAS,
        arrays,
        key=jax.random.key(1),
        exits_of=backbone_of(reference),
        exit_blocks=reference["block_ee"],
    )
    backbone, (_, logits, exits, confidence) = answers(run, with_exits, "eex_min")
    active = np.asarray(block_active(with_exits.space, backbone))
    positions = list(with_exits.trained_exits)
    assert active[positions].all()
    assert (np.cumsum(active)[positions] - 1).tolist() == reference["block_ee"]

    trained = np.array(positions) - ATTENTIVENAS.first_exit
    predictions, confidences = expected["preds_eex_min"], expected["confs_eex_min"]
    assert close(np.concatenate([exits[trained], logits[None]]), predictions)
    assert np.abs(1 / (1 + np.exp(-confidence[trained])) - confidences[: len(trained)]).max() <= TOLERANCE


def test_multiply_accumulates_are_counted_as_in_the_original(imported):
    space, counted = imported.space, jax.jit(workload, static_argnums=0)
    for name in STATIC:
        table = jax.tree.map(np.asarray, counted(space, backbone_of(case(name))))
        computing = (table.active > 0) & (segments(space) <= space.num_exits)
        computing &= ~np.isin(table.kind, (LayerKind.POOLING, LayerKind.ELEMENTWISE))
        assert table.macs.astype(np.float64)[computing].sum() / 1e6 == case(name)["flops_M"]


@pytest.mark.parametrize("name", STATIC)
def test_parameters_of_a_sub_network_are_as_many_as_in_the_original(name, imported, plain):
    reference = case(name)
    backbone = jax.tree.map(np.asarray, backbone_of(reference))
    own = plain.cut(imported.space, jax.tree.map(np.asarray, imported.params), None, backbone)
    count = sum(leaf.size for leaf in jax.tree.leaves(own | {"heads": {}}))
    # The original keeps a convolution for the shortcut of every block, in use or not.
    unused = [block["project"].shape[1] ** 2 for block in own["blocks"].values() if "shortcut" not in block]
    assert count + sum(unused) == reference["static_params"]


def test_the_whole_supernet_has_as_many_parameters_as_the_original(imported):
    count = sum(leaf.size for leaf in jax.tree.leaves(imported.params.backbone))
    unused = sum((max(stage.depth) - 1) * max(stage.width) ** 2 for stage in ATTENTIVENAS.stages)
    assert count + unused == 22_148_204


def test_every_entry_of_the_reference_is_used_or_known_to_have_no_use(imported):
    assert imported.used + imported.unused == len(reference_arrays()) == 1468
    assert imported.surplus == ()
    assert imported.space.classes == 100
    assert jax.tree.map(jnp.shape, imported.params) == jax.tree.map(
        lambda leaf: leaf.shape, jax.eval_shape(lambda: initialise(imported.space, jax.random.key(0)))
    )
