from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hadas_jax.search.product as streaming
from hadas_jax.search import Product, product_front
from hadas_jax.search.product import listed_front, whole_product_front

CONFIGS, SEGMENTS, CLOCKS = 19, 3, 40


def product(seed, top):
    """Whole numbers, so that any order of summation gives the same float32; a small top makes many ties."""
    rng = np.random.default_rng(seed)
    errors = rng.integers(0, 9, CONFIGS).astype(np.float32)
    errors[rng.integers(0, CONFIGS, 3)] = np.inf
    frequencies = rng.integers(0, 4, (CONFIGS, SEGMENTS)).astype(np.float32)
    frequencies[3], errors[3] = frequencies[8], errors[8]
    latency, energy = rng.integers(0, top, (2, SEGMENTS, CLOCKS)).astype(np.float32)
    latency[:, 7], energy[:, 7] = latency[:, 2], energy[:, 2]
    return Product(errors, frequencies, latency, energy)


def expected_members(product):
    """(config, point, objectives) of every member, by comparing all pairs; the first of equal ones."""
    flat = np.repeat(product.errors, CLOCKS)
    costs = [(product.frequencies @ cost).ravel() for cost in (product.latency, product.energy)]
    values = np.stack([flat, *costs], axis=1)
    no_worse = np.ones((len(values), len(values)), bool)
    for column in values.T:
        no_worse &= column[:, None] <= column[None]
    order = np.arange(len(values))
    beats = no_worse & (~no_worse.T | (order[:, None] < order[None]))
    kept = np.flatnonzero(np.isfinite(flat) & ~beats[np.isfinite(flat)].any(0))
    return [(*divmod(int(i), CLOCKS), *values[i].tolist()) for i in kept]


def members(front):
    rows = np.flatnonzero(front.valid)
    objectives = np.asarray(front.objectives)[rows].tolist()
    pairs = zip(np.asarray(front.config)[rows].tolist(), np.asarray(front.point)[rows].tolist(), strict=True)
    return [(*pair, *row) for pair, row in zip(pairs, objectives, strict=True)]


def check_against_all_pairs():
    sizes = []
    for seed in range(25):
        arrays = product(seed, top=(3, 30, 1000)[seed % 3])
        front = product_front(arrays, capacity=600)
        assert sorted(members(front)) == sorted(expected_members(arrays))
        assert front.size == front.valid.sum()
        sizes.append(int(front.size))
    assert max(sizes) > 15


def test_the_front_is_that_of_comparing_all_pairs():
    check_against_all_pairs()


def test_members_are_sorted_and_what_is_not_valid_is_empty():
    front = product_front(product(1, 1000), capacity=600)
    size, objectives = int(front.size), np.asarray(front.objectives)
    assert (np.lexsort(objectives[:size].T[::-1]) == np.arange(size)).all()
    assert front.valid[:size].all()
    assert not front.valid[size:].any()
    assert np.isinf(objectives[size:]).all()
    assert (front.config[size:] == -1).all()
    assert (front.point[size:] == -1).all()


def test_too_small_a_capacity_is_reported_and_mended():
    arrays = product(2, 1000)
    wanted = members(product_front(arrays, capacity=600))
    assert len(wanted) > 4
    assert product_front(arrays, capacity=4).size > 4
    assert members(whole_product_front(arrays, capacity=4)) == wanted


def test_vmap_over_problems_equals_a_loop():
    problems = [product(seed, 30) for seed in range(3)]
    solve = partial(product_front, capacity=600)
    together = jax.vmap(solve)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems))
    for index, arrays in enumerate(problems):
        jax.tree.map(
            lambda one, all_, index=index: np.testing.assert_array_equal(one, all_[index]),
            solve(arrays),
            together,
        )


def test_without_a_feasible_plan_the_front_is_empty():
    front = product_front(product(3, 30).replace(errors=np.full(CONFIGS, np.inf, np.float32)), capacity=600)
    assert front.size == 0
    assert not front.valid.any()


def test_a_block_of_candidates_beyond_the_block_size_is_compared_exactly():
    rng = np.random.default_rng(5)
    errors = np.arange(CONFIGS, dtype=np.float32)
    frequencies = np.eye(CONFIGS, dtype=np.float32)
    speed = rng.permutation(CLOCKS * CONFIGS).reshape(CONFIGS, CLOCKS).astype(np.float32) + 1
    energy = (CLOCKS * CONFIGS + 1 - speed + rng.integers(0, 40, speed.shape)).astype(np.float32)
    arrays = Product(errors, frequencies, speed, energy)
    front, wanted = whole_product_front(arrays), expected_members(arrays)
    assert sorted(members(front)) == sorted(wanted)
    assert len(wanted) > 256 // 4


def test_a_capacity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity: expected at least 1, got 0"):
        product_front(product(0, 30), capacity=0)


def test_the_front_is_the_same_when_configurations_come_in_chunks_of_two(monkeypatch):
    monkeypatch.setattr(streaming, "_CHUNK", 90)
    product_front.clear_cache()
    check_against_all_pairs()
    product_front.clear_cache()


def test_the_front_of_some_configurations_and_points_is_that_of_a_smaller_product(monkeypatch):
    monkeypatch.setattr(streaming, "_TILE", 9)
    product_front.clear_cache()
    for seed in range(6):
        every = product(seed, top=(3, 30, 1000)[seed % 3])
        configs, chosen = 4 + 3 * seed, np.sort(np.random.default_rng(seed).choice(CLOCKS, 25, replace=False))
        points = jnp.asarray(np.append(chosen, [-1] * 15), jnp.int32)
        found = product_front(every.replace(configs=jnp.int32(configs), points=points), capacity=600)
        left = np.where(np.arange(CONFIGS) < configs, every.errors, np.inf).astype(np.float32)
        part = every.replace(errors=left, latency=every.latency[:, chosen], energy=every.energy[:, chosen])
        wanted = product_front(part, capacity=600)
        assert [(s, chosen[f], *rest) for s, f, *rest in members(wanted)] == members(found)
    product_front.clear_cache()


def test_the_front_of_a_list_is_that_of_comparing_all_pairs():
    rng = np.random.default_rng(0)
    for top in (3, 1000):
        values = rng.integers(0, top, (300, 3)).astype(np.float32)
        values[5, 1], values[7, 2] = np.inf, np.nan
        no_worse = (values[:, None] <= values[None]).all(axis=2)
        order = np.arange(300)
        beats = no_worse & (~no_worse.T | (order[:, None] < order[None]))
        wanted = np.flatnonzero(np.isfinite(values).all(axis=1) & ~beats[np.isfinite(values).all(axis=1)].any(axis=0))
        rows, size = listed_front(jnp.asarray(values), capacity=300)
        assert int(size) == len(wanted)
        assert sorted(np.asarray(rows)[: len(wanted)].tolist()) == wanted.tolist()
        assert (rows[len(wanted) :] == -1).all()
        few, same = listed_front(jnp.asarray(values), capacity=2)
        np.testing.assert_array_equal(few, rows[:2])
        assert same == size
    with pytest.raises(ValueError, match=r"capacity: expected 1 \.\. 300, got 301"):
        listed_front(jnp.asarray(values), capacity=301)
