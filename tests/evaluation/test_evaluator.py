import dataclasses
import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hadas_jax.evaluation.evaluator as evaluators
from hadas_jax.backend import memory_named
from hadas_jax.data import LabelledImages
from hadas_jax.evaluation import CachedEvaluator, Evaluator
from hadas_jax.evaluation.evaluator import images_at_once
from hadas_jax.settings import EvaluationSettings
from hadas_jax.spaces import available_exits
from hadas_jax.supernet import apply, estimate_batch_stats, resize

FIELDS = ("correct", "confidence", "entropy", "learned")


@pytest.fixture(scope="module")
def space(tiny_space):
    """The tiny space at two resolutions, neither of them the images' own."""
    return dataclasses.replace(tiny_space, resolution=(7, 11))


@pytest.fixture(scope="module")
def setting(space, spots, draw):
    """Parameters, five genomes, 71 images to evaluate on (no multiple of a batch), three calibration batches."""
    genomes = np.random.default_rng(1).integers(0, space.codec.cardinalities, (5, len(space.codec.names)))
    genomes[:2] = space.largest_genome, space.smallest_genome
    data = LabelledImages(images=spots.images[:71], labels=spots.labels[:71], mean=0.3, std=0.8)
    calibration = data.take(jnp.arange(60))[0].reshape(3, 20, *spots.images.shape[1:])
    return draw(space, 2)[0], genomes.astype(np.int32), data, calibration


@pytest.fixture(scope="module")
def evaluated(space, setting):
    """Groups of three, in which what a backbone does not use is masked."""
    params, genomes, data, calibration = setting
    return Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=3))(genomes, data)


def test_outcomes_are_those_of_one_backbone_after_another_at_its_own_resolution(space, setting, evaluated):
    params, genomes, data, calibration = setting
    assert set(genomes[:, 0]) == {0, 1}

    @partial(jax.jit, static_argnames="size")
    def single(backbone, size):
        flat = resize(calibration.reshape(60, *calibration.shape[2:]), size)
        stats = estimate_batch_stats(space, params, backbone, flat.reshape(3, 20, size, size, 1))
        return apply(space, params, stats, backbone, resize(data.take(jnp.arange(71))[0], size))

    for row, genome in enumerate(genomes):
        backbone = space.decode(jnp.asarray(genome))
        logits = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), single(backbone, int(backbone.resolution)))
        shifted = logits.exits - logits.exits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        best = np.sort(logs, -1)
        clear = best[..., -1] - best[..., -2] > 1e-3
        own = np.append(np.asarray(available_exits(space, backbone)), True)
        right = (logs.argmax(-1) == np.asarray(data.labels)) & own[:, None]
        assert clear[own].mean() > 0.9
        assert (evaluated.correct[row] == right)[clear].all()
        np.testing.assert_allclose(evaluated.confidence[row][own], np.exp(best[..., -1])[own], atol=1e-4)
        np.testing.assert_allclose(evaluated.entropy[row], -(np.exp(logs) * logs).sum(-1), atol=1e-3)
        np.testing.assert_allclose(evaluated.learned[row, :-1], logits.confidence, atol=1e-3)


def test_exits_that_a_backbone_does_not_have_are_never_right_and_never_sure(space, evaluated, setting):
    own = np.asarray(jax.vmap(lambda g: available_exits(space, space.decode(g)))(jnp.asarray(setting[1])))
    assert not own.all()
    assert not evaluated.correct[:, :-1][~own].any()
    assert (evaluated.confidence[:, :-1][~own] == 0).all()
    assert (evaluated.confidence[:, :-1][own] > 1 / 3 - 1e-6).all()


def test_outcomes_have_a_row_for_each_exit_and_a_sure_classifier(evaluated, space):
    for field in FIELDS:
        assert getattr(evaluated, field).shape == (5, space.num_exits + 1, 71)
    assert np.isposinf(evaluated.learned[:, -1]).all()
    assert (evaluated.entropy >= -1e-6).all()
    assert (evaluated.entropy <= np.log(3) + 1e-5).all()


def test_one_by_one_with_what_is_not_used_skipped_evaluates_as_groups_of_three(space, setting, evaluated):
    params, genomes, data, calibration = setting
    small = np.flatnonzero(genomes[:, 0] == 0)
    alone = Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=1))(genomes[small], data)
    for field in FIELDS[1:]:
        np.testing.assert_allclose(getattr(alone, field), getattr(evaluated, field)[small], rtol=1e-4, atol=1e-4)
    assert np.mean(alone.correct == evaluated.correct[small]) > 0.99


def test_bfloat16_evaluates_nearly_the_same(space, setting, evaluated):
    params, genomes, data, calibration = setting
    small = np.flatnonzero(genomes[:, 0] == 0)
    half = Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=3), dtype="bfloat16")(
        genomes[small], data
    )
    assert half.confidence.dtype == np.float32
    assert 0 < np.abs(half.confidence - evaluated.confidence[small]).max() < 0.15
    assert np.mean(half.correct == evaluated.correct[small]) > 0.9


def test_a_batch_holds_as_many_pixels_at_any_resolution():
    assert images_at_once(EvaluationSettings(), 32) == 128
    assert images_at_once(EvaluationSettings(), 64) == 32
    assert images_at_once(EvaluationSettings(), 100_000) == 1
    assert images_at_once(EvaluationSettings(eval_batch=7), 32) == 7


def test_too_little_memory_names_the_argument_and_other_errors_pass():
    named = r"batch 9: expected a batch that fits .* use a smaller `batch`"
    with pytest.raises(ValueError, match=named), memory_named("batch", 9, "images"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_named("batch", 9, "images"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_outcomes_by_given_statistics_are_those_of_estimating_them(space, setting, evaluated):
    params, genomes, data, calibration = setting
    evaluate = Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=3))
    given = evaluate(genomes, data, statistics=evaluate.statistics(genomes))
    jax.tree.map(np.testing.assert_array_equal, given, evaluated)


def test_populations_of_one_resolution_share_one_compilation(space, setting, monkeypatch):
    params, genomes, data, calibration = setting
    small = genomes[genomes[:, 0] == 0]
    Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=1))(small, data)
    chex.clear_trace_counter()
    for name in ("estimate_batch_stats", "outcomes_given"):
        function = inspect.unwrap(getattr(evaluators, name))
        monkeypatch.setattr(evaluators, name, chex.assert_max_traces(function, n=0))
    for population in (small[:1], np.repeat(small, 2, axis=0)):
        Evaluator(space, params, calibration, EvaluationSettings(eval_batch=32, group=1))(population, data)


@pytest.mark.slow
def test_backbones_are_evaluated_in_their_formats_and_kept_by_them(small_space, small_network, spots, tmp_path):
    space = dataclasses.replace(small_space, number_formats=(0, 2))
    params, gene = small_network[0], space.codec.names.index("number_format")
    genome = space.largest_genome
    both = np.stack([genome, genome])
    both[1, gene] = 1
    calibration = spots.images[None, :32]
    plain = Evaluator(small_space, params, calibration, EvaluationSettings(group=1))
    evaluator = Evaluator(space, params, calibration, EvaluationSettings(group=1))
    assert plain.fingerprint == evaluator.fingerprint
    kept = CachedEvaluator(evaluator, tmp_path)
    found = kept(both, spots)
    alone = plain(np.delete(genome, gene)[None], spots)
    np.testing.assert_allclose(found.confidence[0], alone.confidence[0], atol=1e-5)
    off = np.abs(found.confidence[1] - found.confidence[0])
    assert 1e-4 < off.max() < 0.5
    names = sorted(path.name for path in tmp_path.rglob("*.npz"))
    genes = "-".join(map(str, np.delete(genome, gene)))
    assert names == [f"{genes}-int8.npz", f"{genes}.npz"]
    again = CachedEvaluator(evaluator, tmp_path)
    np.testing.assert_array_equal(again(both[::-1], spots).confidence[::-1], found.confidence)
    assert again.evaluated == 0
    side_by_side = Evaluator(space, params, calibration, EvaluationSettings(group=2))(both, spots)
    assert np.abs(side_by_side.confidence - found.confidence).mean() < 0.02
