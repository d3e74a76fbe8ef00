import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hadas_jax.search import Archive, insert

CAPACITY, ROWS, GENES = 8, 12, 2
genes = hnp.arrays(np.int32, (2, ROWS, GENES), elements=st.sampled_from([-7, 0, 1, 2, 2**31 - 1]))
values = hnp.arrays(np.float32, (2, ROWS, 2), elements=st.sampled_from([*map(float, range(9)), np.nan]))
broken = hnp.arrays(np.float32, (2, ROWS), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0]))


def members(archive):
    """The set of (genome, fitness, violation)."""
    rows = zip(archive.genomes, archive.fitness, archive.violation, archive.valid, strict=True)
    return {(*map(int, g), *map(float, f), float(v)) for g, f, v, valid in rows if valid}


def fill(capacity, genomes, fitness, violation=None, start=None):
    """One archive, all batches in turn."""
    archive = Archive.empty(capacity, GENES, fitness.shape[-1]) if start is None else start
    violation = np.zeros(fitness.shape[:2], np.float32) if violation is None else violation
    for row in range(len(genomes)):
        archive = insert(archive, genomes[row], fitness[row], violation=violation[row])
    return jax.tree.map(np.asarray, archive)


def dominates(one, other):
    """Constraint domination of (genome, fitness, violation)."""
    if one[-1] or other[-1]:
        return one[-1] < other[-1]
    pairs = list(zip(one[GENES:-1], other[GENES:-1], strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@settings(max_examples=80, deadline=None)
@given(genes, values, broken)
def test_with_room_enough_the_members_are_the_front_of_all_first_evaluations(genomes, fitness, violation):
    first = {}
    for g, f, v in zip(genomes.reshape(-1, GENES), fitness.reshape(-1, 2), violation.reshape(-1), strict=True):
        if not np.isnan(f).any():
            first.setdefault(tuple(map(int, g)), (*map(int, g), *map(float, f), float(v)))
    # One batch: what was dropped between batches may come back with another fitness.
    together = [array.reshape(1, 2 * ROWS, *array.shape[2:]) for array in (genomes, fitness, violation)]
    archive = fill(2 * ROWS, *together)
    wanted = {row for row in first.values() if not any(dominates(other, row) for other in first.values())}
    assert members(archive) == wanted
    assert archive.valid.sum() == len(wanted)


@settings(max_examples=80, deadline=None)
@given(genes, values, broken)
def test_members_are_unique_dominate_each_other_nowhere_and_hold_no_nan(genomes, fitness, violation):
    archive = fill(CAPACITY, genomes, fitness, violation)
    found = members(archive)
    size = int(archive.valid.sum())
    assert len({row[:GENES] for row in found}) == size
    assert not any(dominates(one, other) for one in found for other in found)
    assert not np.isnan(archive.fitness).any()
    assert size > 0 or np.isnan(fitness).any(-1).all()
    assert archive.valid[:size].all()
    assert (archive.genomes[size:] == -1).all()
    assert np.isinf(archive.fitness[size:]).all()


@settings(max_examples=40, deadline=None)
@given(genes, values)
def test_inserting_again_what_is_in_changes_nothing(genomes, fitness):
    archive = fill(CAPACITY, genomes, fitness)
    known = np.where(archive.valid[:, None], archive.fitness, np.nan)
    again = fill(CAPACITY, np.resize(archive.genomes, (1, ROWS, GENES)), np.resize(known, (1, ROWS, 2)), start=archive)
    jax.tree.map(np.testing.assert_array_equal, archive, jax.tree.map(np.asarray, again))


def test_of_too_many_the_most_crowded_go_and_the_ends_stay():
    x = np.float32([0.0, 0.1, 0.15, 1.0, 2.0, 2.05, 3.0, 4.0, 5.0, 5.01, 5.02, 9.0])
    fitness = np.stack([x, -x], axis=1)
    genomes = np.arange(2 * ROWS, dtype=np.int32).reshape(ROWS, 2)
    archive = fill(CAPACITY, genomes[None], fitness[None])
    room = np.append(np.append(np.inf, x[2:] - x[:-2]), np.inf)
    expected = np.sort(np.argsort(-room, kind="stable")[:CAPACITY])
    np.testing.assert_array_equal(np.sort(archive.genomes[:, 0]), genomes[expected, 0])
    assert {0.0, 9.0} <= set(archive.fitness[:, 0].tolist())


@pytest.fixture(scope="module")
def stream():
    """int32[seeds, batches, rows, G] and float32[seeds, batches, rows, 2]."""
    rng = np.random.default_rng(0)
    genomes = rng.integers(0, 9, (3, 6, ROWS, GENES)).astype(np.int32)
    return genomes, rng.random((3, 6, ROWS, 2)).astype(np.float32)


def test_a_scan_under_vmap_equals_a_loop(stream):
    def step(archive, batch):
        return insert(archive, *batch), None

    start = Archive.empty(CAPACITY, GENES, 2)
    run = jax.jit(jax.vmap(lambda genomes, fitness: jax.lax.scan(step, start, (genomes, fitness))[0]))
    together = run(*stream)
    for seed, (genomes, fitness) in enumerate(zip(*stream, strict=True)):
        alone = fill(CAPACITY, genomes, fitness)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf, s=seed: leaf[s], together), alone)


def test_what_does_not_fit_is_refused():
    archive, genomes, fitness = Archive.empty(4, 3, 2), jnp.zeros((5, 3), jnp.int32), jnp.zeros((5, 2))
    with pytest.raises(ValueError, match="capacity: expected at least 1, got 0"):
        Archive.empty(0, 3, 2)
    with pytest.raises(AssertionError, match=r"has shape \(5, 1\) but expected \(None, 2\)\. \[fitness\]"):
        insert(archive, genomes, fitness[:, :1])
    with pytest.raises(AssertionError, match=r"has shape \(4, 3\) but expected \(5, 3\)\. \[genomes\]"):
        insert(archive, genomes[:4], fitness)
    with pytest.raises(AssertionError, match=r"has type float32 .* \[genomes\]"):
        insert(archive, genomes.astype(jnp.float32), fitness)
    with pytest.raises(AssertionError, match=r"\[violation\]"):
        insert(archive, genomes, fitness, violation=jnp.zeros(4))
