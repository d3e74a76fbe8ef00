from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.evaluation import population_outcomes
from hadas_jax.supernet import apply, estimate_batch_stats

FIELDS = ("correct", "confidence", "entropy", "learned")


@pytest.fixture(scope="module")
def setting(tiny_space, spots, draw):
    """Parameters, three genomes, 71 images to judge on (no multiple of a batch), three calibration batches."""
    genomes = np.random.default_rng(1).integers(0, tiny_space.codec.cardinalities, (3, len(tiny_space.codec.names)))
    genomes[:2] = tiny_space.largest_genome, tiny_space.smallest_genome
    data = LabelledImages(images=spots.images[:71], labels=spots.labels[:71])
    calibration = spots.images[:60].reshape(3, 20, *spots.images.shape[1:])
    return draw(tiny_space, 2)[0], jnp.asarray(genomes, jnp.int32), data, calibration


@pytest.fixture(scope="module")
def judge(tiny_space, setting, quick_jit):
    """The outcomes by the number of backbones that run side by side."""
    params, genomes, data, calibration = setting

    def run(group):
        function = partial(population_outcomes, tiny_space, group=group)
        return quick_jit(function)(params, genomes, data=data, calibration=calibration)

    return run


@pytest.fixture(scope="module")
def judged(judge):
    return judge(1)


def test_outcomes_are_those_of_one_backbone_after_another(tiny_space, setting, judged, quick_jit):
    params, genomes, data, calibration = setting

    @quick_jit
    def single(genome):
        backbone = tiny_space.decode(genome)
        stats = estimate_batch_stats(tiny_space, params, backbone, calibration)
        return apply(tiny_space, params, stats, backbone, data.images)

    for row, genome in enumerate(genomes):
        logits = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), single(genome))
        shifted = logits.exits - logits.exits.max(-1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        best = np.sort(logs, -1)
        clear = best[..., -1] - best[..., -2] > 1e-3
        right = logs.argmax(-1) == np.asarray(data.labels)
        assert clear.mean() > 0.9
        assert (np.asarray(judged.correct[row]) == right)[clear].all()
        np.testing.assert_allclose(judged.confidence[row], np.exp(best[..., -1]), atol=1e-4)
        np.testing.assert_allclose(judged.entropy[row], -(np.exp(logs) * logs).sum(-1), atol=1e-3)
        np.testing.assert_allclose(judged.learned[row, :-1], logits.confidence, atol=1e-3)


def test_outcomes_have_a_row_for_each_exit_and_a_sure_classifier(judged, tiny_space):
    for field in FIELDS:
        assert getattr(judged, field).shape == (3, tiny_space.num_exits + 1, 71)
    assert np.isposinf(judged.learned[:, -1]).all()
    assert (judged.entropy >= -1e-6).all()
    assert (judged.entropy <= np.log(3) + 1e-5).all()


def test_groups_of_three_judge_as_one_by_one(judge, judged):
    grouped = judge(3)
    for field in FIELDS[1:]:
        np.testing.assert_allclose(getattr(grouped, field), getattr(judged, field), rtol=1e-4, atol=1e-4)
    assert np.mean(grouped.correct == judged.correct) > 0.99
