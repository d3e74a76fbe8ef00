import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces import DIGITS, available_exits
from hadas_jax.supernet import apply, apply_training, estimate_batch_stats

digits_space = DIGITS.adapt(in_channels=1, classes=10, image_size=8)


@pytest.fixture(scope="module")
def compiled_apply():
    return jax.jit(apply, static_argnums=0)


@pytest.fixture(scope="module")
def compiled_training():
    return jax.jit(apply_training, static_argnums=0)


def draw_images(space, count, seed=5):
    size = space.resolution[0]
    values = np.random.default_rng(seed).normal(size=(count, size, size, space.in_channels))
    return jnp.asarray(values, jnp.float32)


def draw_backbones(space, count, seed=6):
    """The largest, the smallest and random ones, as a list."""
    genomes = np.random.default_rng(seed).integers(0, space.codec.cardinalities, (count, len(space.codec.names)))
    genomes[:2] = space.largest_genome, space.smallest_genome
    return [space.decode(jnp.asarray(genome, jnp.int32)) for genome in genomes]


def check_against_plain(plain, space, network, backbone, compiled_apply):
    params, stats = network
    images = draw_images(space, 3)
    found = jax.tree.map(np.asarray, compiled_apply(space, params, stats, backbone, images))
    own = plain.cut(space, *jax.tree.map(np.asarray, (params, stats, backbone)))
    logits, confidences, final, _ = plain.run(space, own, images)
    largest = max(np.abs(final).max(), *(np.abs(value).max() for value in logits.values()))
    available = np.flatnonzero(np.asarray(available_exits(space, backbone))) + space.first_exit
    assert np.abs(found.exits[-1] - final).max() <= 1e-5 * largest
    assert set(available) <= set(logits)
    for position in available:
        exit_ = position - space.first_exit
        assert np.abs(found.exits[exit_] - logits[position]).max() <= 1e-5 * largest
        assert np.abs(found.confidence[exit_] - confidences[position]).max() <= 1e-5 * largest
    return found


def test_the_digits_supernet_is_each_of_20_sub_networks_cut_out(plain, draw, compiled_apply):
    network = draw(digits_space, 1)
    for backbone in draw_backbones(digits_space, 20):
        check_against_plain(plain, digits_space, network, backbone, compiled_apply)


def test_odd_maps_and_a_strided_stem_are_those_of_sub_networks_cut_out(
    plain, small_space, small_network, compiled_apply
):
    for backbone in draw_backbones(small_space, 8):
        check_against_plain(plain, small_space, small_network, backbone, compiled_apply)


def test_exits_that_a_backbone_does_not_have_answer_zero(small_space, small_network, compiled_apply):
    params, stats = small_network
    backbone = small_space.largest().replace(depth=jnp.array([2, 1], jnp.int32))
    found = compiled_apply(small_space, params, stats, backbone, draw_images(small_space, 3))
    assert available_exits(small_space, backbone).tolist() == [True, True, False, False]
    for answers in (found.exits, found.confidence):
        assert (answers[2:4] == 0).all()
        assert (answers[:2] != 0).all()


@pytest.fixture(scope="module")
def tiny(tiny_space):
    """A space of one stage, with a ratio of one among others: its blocks keep their expanding convolution."""
    return dataclasses.replace(tiny_space, stages=(dataclasses.replace(tiny_space.stages[0], expand=(1, 2)),))


@pytest.fixture(scope="module")
def tiny_network(tiny, draw):
    return draw(tiny, 1)


@pytest.fixture(scope="module")
def estimate():
    return jax.jit(estimate_batch_stats, static_argnums=0, static_argnames="skip")


def draw_batches(space):
    return jnp.stack([draw_images(space, 6, seed) for seed in range(3)])


def test_skipping_what_a_backbone_does_not_use_changes_nothing(tiny, tiny_network, compiled_apply):
    params, stats = tiny_network
    images = draw_images(tiny, 3)
    skipping = jax.jit(partial(apply, skip="all"), static_argnums=0)
    for backbone in draw_backbones(tiny, 8):
        masked = compiled_apply(tiny, params, stats, backbone, images)
        skipped = skipping(tiny, params, stats, backbone, images)
        np.testing.assert_allclose(skipped.exits, masked.exits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(skipped.confidence, masked.confidence, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("skip", ["blocks", "all"])
def test_skipping_estimates_the_same_statistics_and_zero_for_what_is_not_used(
    tiny, tiny_network, compiled_apply, estimate, skip
):
    params, _ = tiny_network
    images, batches = draw_images(tiny, 3), draw_batches(tiny)
    for backbone in draw_backbones(tiny, 4):
        expected = estimate(tiny, params, backbone, batches)
        found = estimate(tiny, params, backbone, batches, skip=skip)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
            used = np.asarray(a) != 0
            np.testing.assert_allclose(np.asarray(a)[used], np.asarray(b)[used], rtol=1e-4, atol=1e-5)
            assert a.shape == b.shape, path
        by_found, by_expected = (compiled_apply(tiny, params, stats, backbone, images) for stats in (found, expected))
        np.testing.assert_allclose(by_found.exits, by_expected.exits, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_near_and_its_answers_and_statistics_are_float32(tiny, tiny_network, compiled_apply):
    params, stats = tiny_network
    backbone = tiny.largest()
    images = draw_images(tiny, 3)
    args = tiny, params, stats, backbone
    whole, half = (compiled_apply(*args, images.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.exits.dtype == half.confidence.dtype == jnp.float32
    scale = float(jnp.abs(whole.exits).max())
    assert 1e-5 * scale < float(jnp.abs(half.exits - whole.exits).max()) < 0.1 * scale
    rough = partial(estimate_batch_stats, tiny, dtype="bfloat16")
    for leaf in jax.tree.leaves(jax.eval_shape(rough, params, backbone, images[None])):
        assert leaf.dtype == jnp.float32


def test_vmap_over_backbones_equals_a_loop(tiny, tiny_network, compiled_apply):
    params, stats = tiny_network
    images = draw_images(tiny, 3)
    backbones = draw_backbones(tiny, 5)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *backbones)
    together = jax.jit(jax.vmap(lambda b: apply(tiny, params, stats, b, images)))(stacked)
    for row, backbone in enumerate(backbones):
        alone = compiled_apply(tiny, params, stats, backbone, images)
        np.testing.assert_allclose(together.exits[row], alone.exits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(together.confidence[row], alone.confidence, rtol=1e-5, atol=1e-5)


def test_inactive_channels_are_exactly_zero(small_space, small_network, compiled_training):
    images = draw_images(small_space, 8)
    for backbone in draw_backbones(small_space, 4):
        features, _ = compiled_training(small_space, small_network[0].backbone, backbone, images)
        for s, stage in enumerate(features):
            width = int(backbone.width[s + 1])
            assert (stage[..., width:] == 0).all()
            assert (stage[..., :width] != 0).any((0, 1, 2, 3)).all()


def test_in_training_the_batchs_own_statistics_normalise(plain, small_space, small_network, compiled_training):
    params, _ = small_network
    images = draw_images(small_space, 8)
    for backbone in draw_backbones(small_space, 4):
        features, final = compiled_training(small_space, params.backbone, backbone, images)
        own = plain.cut(small_space, jax.tree.map(np.asarray, params), None, backbone)
        _, _, expected, blocks = plain.run(small_space, own, images)
        assert np.abs(final - expected).max() <= 1e-4 * np.abs(expected).max()
        found = [block for stage in features for block in stage]
        for position, block in blocks.items():
            error = np.abs(np.asarray(found[position])[..., : block.shape[-1]] - block)
            assert error.max() <= 1e-4 * np.abs(block).max()


def test_weights_that_a_backbone_does_not_use_get_no_gradient(plain, tiny_space, draw):
    params, stats = draw(tiny_space, 1)
    images = draw_images(tiny_space, 3)

    @jax.jit
    def gradient(backbone):
        def loss(params):
            logits = apply(tiny_space, params, stats, backbone, images)
            final = jnp.sum(jnp.sin(logits.exits[-1]))
            used = available_exits(tiny_space, backbone).astype(jnp.float32)
            return final + jnp.sum(jnp.sin(logits.exits[:-1]) * used[:, None, None])

        return jax.grad(loss)(params)

    for backbone in draw_backbones(tiny_space, 4):
        found = jax.tree.map(np.asarray, gradient(backbone))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        zeros = jax.tree.map(lambda leaf: np.zeros_like(leaf), jax.tree.map(np.asarray, stats))
        own = plain.cut(tiny_space, found, zeros, jax.tree.map(np.asarray, backbone))
        assert count_nonzero(found) == count_nonzero(own)
        assert count_nonzero(own) > 1000


def count_nonzero(tree):
    return sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(tree))


def test_fresh_weights_are_random_and_normalisation_starts_as_the_identity(tiny_space, fresh, draw):
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, draw(tiny_space, 0)[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        name = path[-1].key
        assert np.isfinite(leaf).all()
        if name in ("scale", "bias"):
            assert (leaf == (1.0 if name == "scale" else 0.0)).all()
        else:
            assert len(np.unique(leaf)) > 0.9 * leaf.size
    blocks = fresh.backbone["stage0_rest"]
    for name, fan in (("expand", 48), ("depthwise", 25), ("project", 16)):
        assert 0.8 < float(jnp.std(blocks[name]["kernel"])) / (2 / fan) ** 0.5 < 1.1


def test_statistics_are_means_over_batches_of_each_batchs_own(plain, tiny, tiny_network, estimate):
    params, _ = tiny_network
    batches = draw_batches(tiny)
    backbone = draw_backbones(tiny, 4)[3].replace(depth=jnp.array([3], jnp.int32))
    stats = estimate(tiny, params, backbone, batches)

    means, variances, inner = [], [], []
    weights = jax.tree.map(np.asarray, params.backbone)
    for images in np.asarray(batches, np.float64):
        x = plain.convolve(images, weights["stem"]["kernel"], tiny.stem_stride, 1)
        flat = x.reshape(-1, x.shape[-1])
        means.append(flat.mean(0))
        variances.append(flat.var(0, ddof=1))
        width = int(backbone.width[0])
        own = {"mean": flat.mean(0), "var": flat.var(0)} | weights["stem"]["bn"]
        y = plain.swish(plain.normalise(x, own))[..., :width]
        expanded = y @ weights["stage0_first"]["expand"]["kernel"][:width]
        flat = expanded.reshape(-1, expanded.shape[-1])
        inner.append((flat.mean(0), flat.var(0, ddof=1)))
    np.testing.assert_allclose(stats.backbone["stem"]["bn"]["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats.backbone["stem"]["bn"]["var"], np.mean(variances, 0), rtol=1e-4)
    found = stats.backbone["stage0_first"]["expand_bn"]
    expected = np.mean(inner, 0)
    np.testing.assert_allclose(found["mean"], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], expected[1], rtol=1e-4)
