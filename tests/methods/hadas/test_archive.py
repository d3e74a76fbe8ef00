import numpy as np
import pytest

from hadas_jax.methods.hadas.archive import Archive


@pytest.fixture
def archive(tiny_space):
    return Archive.empty(6, tiny_space, samples=40)


def rows(archive, values):
    return np.array([[v] * archive.genomes.shape[1] for v in values], np.int32)


def test_backbones_are_found_where_they_were_appended(archive):
    first = archive.append(genomes=rows(archive, [3, 1]), params=np.array([30.0, 10.0]))
    second = first.append(genomes=rows(archive, [2]), params=np.array([20.0]))
    assert (int(archive.size), int(first.size), int(second.size)) == (0, 2, 3)
    np.testing.assert_array_equal(second.rows(rows(archive, [2, 3, 2, 1])), [2, 0, 2, 1])
    np.testing.assert_array_equal(second.params[:3], [30, 10, 20])
    np.testing.assert_array_equal(first.params[2:], 0)


def test_a_backbone_that_was_never_evaluated_is_no_row(archive):
    with pytest.raises(KeyError):
        archive.rows(rows(archive, [0]))


def test_backbones_count_as_examined_once_they_have_a_merit(archive):
    filled = archive.append(genomes=rows(archive, [0, 1, 2]))
    judged = filled.update(np.array([2, 0]), merit=np.array([0.5, -0.1]), versions=np.array([7, 9]))
    np.testing.assert_array_equal(judged.examined, [True, False, True, False, False, False])
    np.testing.assert_array_equal(judged.versions, [9, 0, 7, 0, 0, 0])
    assert not filled.examined.any()


def test_unseen_genomes_keep_their_order_and_come_once(archive):
    genomes = rows(archive, [4, 2, 4, 3, 2, 1])
    filled = archive.append(genomes=rows(archive, [3]))
    np.testing.assert_array_equal(filled.unseen(genomes)[:, 0], [4, 2, 1])
    assert filled.unseen(genomes[:0]).shape == (0, genomes.shape[1])
