import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hadas_jax.evaluation.evaluator as evaluators
from hadas_jax.data import LabelledImages
from hadas_jax.evaluation import CachedEvaluator, Evaluator, Outcomes
from hadas_jax.settings import EvaluationSettings
from hw_models import NumberFormat

EXITS, IMAGES = 3, 37


class Drawn:
    """An evaluator whose answers are drawn from the genes and the first label, and that remembers what it was asked."""

    def __init__(self, fingerprint="one"):
        self.fingerprint, self.asked, self.estimated = fingerprint, [], []

    def genes_and_format(self, genome):
        return "-".join(map(str, genome)), NumberFormat.FP32

    def statistics(self, genomes):
        self.estimated += genomes.tolist()
        return {"mean": genomes.sum(axis=1)}

    def __call__(self, genomes, data, *, statistics=None):
        self.asked += genomes.tolist()
        if statistics is not None:
            np.testing.assert_array_equal(statistics["mean"], genomes.sum(axis=1))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(self.one(genome, data) for genome in genomes))

    def one(self, genome, data):
        rng = np.random.default_rng([*genome.tolist(), int(data.labels[0])])
        score = rng.normal(size=(3, EXITS + 1, data.count)).astype(np.float32)
        score[2, -1] = np.inf
        return Outcomes(score[0] > 0, *score)


@pytest.fixture
def data():
    return LabelledImages(images=jnp.zeros((IMAGES, 2, 2, 1)), labels=jnp.arange(IMAGES) + 5)


@pytest.fixture
def genomes():
    return np.array([[0, 1], [2, 0], [1, 11], [11, 1]], np.int32)


def same(a, b):
    return all(
        x.dtype == y.dtype and (x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_answers_are_those_of_the_evaluator_when_asked_and_when_read(tmp_path, data, genomes):
    direct = Drawn()(genomes, data)
    kept = CachedEvaluator(Drawn(), tmp_path / "outcomes")
    assert same(kept(genomes, data), direct)
    assert same(kept(genomes, data), direct)
    assert kept.evaluated == 4
    later = Drawn()
    assert same(CachedEvaluator(later, tmp_path / "outcomes")(genomes, data), direct)
    assert later.asked == []


def test_only_what_is_not_known_is_evaluated_and_rows_stay_in_order(tmp_path, data, genomes):
    evaluator = Drawn()
    kept = CachedEvaluator(evaluator, tmp_path)
    kept(genomes[1:3], data)
    evaluator.asked = []
    found = kept(genomes, data)
    assert evaluator.asked == [[0, 1], [11, 1]]
    assert same(found, Drawn()(genomes, data))


def test_other_images_and_other_supernets_have_answers_of_their_own(tmp_path, data, genomes):
    CachedEvaluator(Drawn(), tmp_path)(genomes, data)
    others = [
        dataclasses.replace(data, labels=data.labels + 1),
        dataclasses.replace(data, labels=data.labels.astype(jnp.uint32)),
        dataclasses.replace(data, images=data.images.reshape(IMAGES, 4, 1, 1)),
        dataclasses.replace(data, mean=data.std, std=data.mean),
    ]
    for evaluator, images in (*((Drawn(), images) for images in others), (Drawn("another"), data)):
        assert same(CachedEvaluator(evaluator, tmp_path)(genomes, images), Drawn()(genomes, images))
        assert evaluator.asked == genomes.tolist()


def test_an_equal_copy_of_the_images_is_the_same_split(tmp_path, data, genomes):
    CachedEvaluator(Drawn(), tmp_path)(genomes, data)
    evaluator = Drawn()
    copy = LabelledImages(images=jnp.array(data.images), labels=jnp.array(data.labels))
    CachedEvaluator(evaluator, tmp_path)(genomes, copy)
    assert evaluator.asked == []


def test_a_file_that_was_not_finished_does_not_count(tmp_path, data, genomes):
    kept = CachedEvaluator(Drawn(), tmp_path)
    kept(genomes, data)
    (path,) = tmp_path.rglob("0-1.npz")
    path.rename(path.with_name(f"0-1.npz.{os.getpid() + 1}"))
    again = CachedEvaluator(Drawn(), tmp_path)
    assert same(again(genomes, data), Drawn()(genomes, data))
    assert again.evaluated == 1


def test_a_folder_that_cannot_be_one_is_refused(tmp_path, data, genomes):
    (tmp_path / "one").write_text("a file")
    with pytest.raises(ValueError, match=r"^outcomes: expected a folder to read and write"):
        CachedEvaluator(Drawn(), tmp_path)(genomes, data)


def test_an_evaluators_fingerprint_follows_weights_calibration_images_and_format(tiny_space, draw):
    params = draw(tiny_space, 2)[0]
    calibration = jnp.ones((1, 2, 9, 9, 1))
    first = Evaluator(tiny_space, params, calibration).fingerprint
    assert Evaluator(tiny_space, params, calibration, EvaluationSettings(group=2)).fingerprint == first
    others = [
        Evaluator(tiny_space, jax.tree.map(lambda leaf: 2 * np.asarray(leaf), params), calibration),
        Evaluator(tiny_space, params, 2 * calibration),
        Evaluator(tiny_space, params, calibration, dtype="bfloat16"),
        Evaluator(dataclasses.replace(tiny_space, first_exit=2), params, calibration),
    ]
    assert len({first, *(evaluator.fingerprint for evaluator in others)}) == 5


@pytest.mark.parametrize("left", [0, 100, 0.5])
def test_a_damaged_file_is_named_with_what_to_do_about_it(left, tmp_path, data, genomes):
    kept = CachedEvaluator(Drawn(), tmp_path)
    wanted = kept(genomes, data)
    path = next(tmp_path.rglob("2-0.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    assert same(kept(genomes, data), wanted), "memory needs no file"
    later = CachedEvaluator(Drawn(), tmp_path)
    with pytest.raises(ValueError, match=r"2-0\.npz; delete it, and it is evaluated again"):
        later(genomes, data)
    path.unlink()
    assert same(later(genomes, data), wanted)


@pytest.mark.parametrize("folder", [True, False])
def test_neither_statistics_nor_outcomes_are_computed_twice(tmp_path, data, genomes, folder):
    evaluator, others = Drawn(), dataclasses.replace(data, labels=data.labels + 1)
    kept = CachedEvaluator(evaluator, tmp_path if folder else None)
    for images in (data, others, data):
        assert same(kept(genomes[[0, 1, 0, 2]], images), Drawn()(genomes[[0, 1, 0, 2]], images))
    assert evaluator.estimated == genomes[:3].tolist()
    assert evaluator.asked == 2 * genomes[:3].tolist()


def test_what_was_used_least_lately_is_forgotten_where_memory_is_short(data, genomes, monkeypatch):
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(Drawn().one(genomes[0], data)))
    monkeypatch.setattr(evaluators, "_KEPT_BYTES", 2 * one)
    evaluator = Drawn()
    kept = CachedEvaluator(evaluator)
    for row in (0, 1, 0, 2, 0, 1):
        assert same(kept(genomes[[row]], data), Drawn()(genomes[[row]], data))
    assert evaluator.asked == genomes[[0, 1, 2, 1]].tolist()
    assert same(kept(genomes, data), Drawn()(genomes, data))
