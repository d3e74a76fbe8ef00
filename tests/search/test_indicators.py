import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hadas_jax.search import hypervolume, ratio_of_dominance
from hadas_jax.search.indicators import hypervolume_estimate, igd_plus

small = hnp.arrays(np.float32, (8, 3), elements=st.integers(0, 6).map(float))


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_hypervolume_equals_that_of_moocore(objectives, clouds):
    count = 125 if objectives < 5 else 25
    points = clouds(count=count, objectives=objectives, seed=3)
    corners = np.resize(np.float32([1.1, 0.7]), count)[:, None].repeat(objectives, axis=1)
    found = jax.vmap(hypervolume)(points, corners)
    pairs = zip(points.astype(float), corners.astype(float), strict=True)
    expected = [moocore.hypervolume(cloud, ref=corner) for cloud, corner in pairs]
    assert min(expected) > 0.001
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_of_a_long_front_keeps_its_precision(objectives):
    points = np.abs(np.random.default_rng(4).normal(size=(1000, objectives)))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    corner = np.full(objectives, 1.5, np.float32)
    expected = moocore.hypervolume(points.astype(float), ref=corner.astype(float))
    np.testing.assert_allclose(hypervolume(points, corner), expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(small, st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_hypervolume_grows_when_a_point_is_added(points, new):
    corner = jnp.full(3, 5.0)
    more = np.concatenate([points[:-1], np.float32([new])])
    less = np.concatenate([points[:-1], np.full((1, 3), np.nan, np.float32)])
    inside = all(value < 5 for value in new)
    covered = (less[:-1] <= np.float32(new)).all(1).any()
    gain = hypervolume(more, corner) - hypervolume(less, corner)
    assert gain > 0 if inside and not covered else gain == 0


def test_what_lies_beyond_the_reference_or_is_no_point_contributes_nothing():
    corner = jnp.array([2.0, 2.0, 2.0])
    points = jnp.array([[1, 1, 1], [0, 0, 2], [jnp.nan, 0, 0], [0, 0, jnp.inf], [0, 0, 0]])
    valid = jnp.array([True, True, True, True, False])
    assert hypervolume(points, corner, valid) == 1
    assert hypervolume(points[:, :2], corner[:2], jnp.array([True, False, True, False, False])) == 1
    assert hypervolume(points, corner, jnp.zeros(5, bool)) == 0


def test_hypervolume_of_one_point_is_its_box():
    assert hypervolume(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([2.0, 4.0, 6.0])) == 6
    assert hypervolume(jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([2.0, 4.0, 6.0, 8.0])) == 24


def test_an_objective_in_which_all_are_equal_multiplies_the_hypervolume(clouds):
    flat = clouds(count=1, objectives=3, seed=6)[0]
    thick = np.insert(flat, 1, 0.25, axis=1)
    expected = 0.5 * hypervolume(flat, jnp.ones(3))
    np.testing.assert_allclose(hypervolume(thick, jnp.array([1.0, 0.75, 1.0, 1.0])), expected, rtol=1e-6)


@pytest.mark.parametrize("objectives", [1, 6])
def test_other_numbers_of_objectives_are_refused(objectives):
    with pytest.raises(ValueError, match=f"expected 2 to 5 objectives, got {objectives}"):
        hypervolume(jnp.zeros((3, objectives)), jnp.ones(objectives))


def test_a_reference_of_the_wrong_length_is_refused():
    with pytest.raises(AssertionError, match=r"has shape \(2,\) but expected \(3\)\. \[reference\]"):
        hypervolume(jnp.zeros((4, 3)), jnp.ones(2))


@pytest.mark.parametrize("objectives", [2, 5])
def test_ratio_of_dominance_equals_the_count_over_all_pairs(objectives, clouds):
    points = clouds(count=20, objectives=objectives, seed=5)
    a, b = points[0::2], points[1::2]
    found = jax.vmap(lambda a, b: ratio_of_dominance(a, b))(a, b)
    for value, one, other in zip(found, a, b, strict=True):
        dominates = (one[:, None] <= other[None]).all(-1) & (one[:, None] < other[None]).any(-1)
        np.testing.assert_allclose(value, dominates.any(0).mean(), rtol=1e-6)


def test_ratio_of_dominance_heeds_masks_and_nan():
    a = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    b = jnp.array([[0.5, 0.5], [2.0, 2.0], [jnp.nan, 0.0], [1.0, 1.0]])
    assert ratio_of_dominance(a, b) == 1
    assert ratio_of_dominance(a, b, valid_a=jnp.array([False, True])) == 0.5
    assert (
        ratio_of_dominance(a, b, valid_a=jnp.array([False, True]), valid_b=jnp.array([True, True, False, False])) == 0.5
    )
    assert ratio_of_dominance(a, b, valid_b=jnp.zeros(4, bool)) == 0
    assert ratio_of_dominance(a, b, valid_a=jnp.zeros(2, bool)) == 0


def test_ratio_of_dominance_refuses_different_numbers_of_objectives():
    with pytest.raises(AssertionError, match=r"\[b\]"):
        ratio_of_dominance(jnp.zeros((2, 2)), jnp.zeros((2, 3)))


@pytest.mark.parametrize("objectives", [2, 8])
def test_the_estimate_is_within_five_standard_errors_and_these_are_as_large_as_the_scatter(objectives, clouds):
    points = clouds(count=1, objectives=objectives, seed=8)[0]
    corner = np.full(objectives, 0.9, np.float32)
    exact = moocore.hypervolume(points.astype(float), ref=corner.astype(float))
    keys = jax.random.split(jax.random.key(objectives), 100)
    draw = jax.vmap(lambda key: hypervolume_estimate(points, corner, key=key, samples=3000))
    estimates, errors = map(np.asarray, draw(keys))
    assert (np.abs(estimates - exact) < 5 * errors).all()
    assert abs(estimates.mean() - exact) < 5 * errors.mean() / 10
    np.testing.assert_allclose(estimates.std(), errors.mean(), rtol=0.35)


def test_the_estimate_counts_only_what_is_in_the_box_and_only_points():
    points = jnp.array([[0.0, 0.0], [-9.0, jnp.nan], [-9.0, 2.0], [-9.0, -9.0]])
    valid, corner, key = jnp.array([True, True, True, False]), jnp.ones(2), jax.random.key(0)
    value, error = hypervolume_estimate(points, corner, key=key, samples=500, valid=valid)
    assert value == 1
    assert 0 < error < 0.01
    value, error = hypervolume_estimate(points, corner, key=key, samples=500, valid=valid, ideal=-jnp.ones(2))
    assert 0 < abs(value - 1) < 5 * error
    value, _ = hypervolume_estimate(points, corner, key=key, samples=500, valid=valid, ideal=jnp.full(2, 0.5))
    assert value == 0.25
    nothing = hypervolume_estimate(points, corner, key=key, samples=500, valid=jnp.zeros(4, bool))
    np.testing.assert_array_equal(nothing, [0, 0])


def test_an_estimate_without_samples_is_refused():
    with pytest.raises(ValueError, match="samples: expected at least 1, got 0"):
        hypervolume_estimate(jnp.zeros((2, 2)), jnp.ones(2), key=jax.random.key(0), samples=0)


@pytest.mark.parametrize("objectives", [2, 5])
def test_igd_plus_equals_that_of_moocore(objectives, clouds):
    points = clouds(count=125, objectives=objectives, seed=9)
    fronts = clouds(count=125, objectives=objectives, seed=10)[:, :17] * np.float32(0.5)
    found = jax.vmap(lambda a, b: igd_plus(a, b))(points, fronts)
    pairs = zip(points.astype(float), fronts.astype(float), strict=True)
    np.testing.assert_allclose(found, [moocore.igd_plus(a, ref=b) for a, b in pairs], rtol=1e-6)


def test_igd_plus_heeds_the_mask_and_nan_and_is_zero_where_the_front_is_reached():
    front = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    assert igd_plus(front - 1, front) == 0
    points = jnp.array([[0.0, 1.0], [jnp.nan, 0.0], [1.0, 0.0], [4.0, jnp.inf]])
    assert igd_plus(points, front, valid=jnp.array([True, True, False, True])) == 0.5
    assert igd_plus(points, front, valid=jnp.array([False, True, False, False])) == jnp.inf


@settings(max_examples=40, deadline=None)
@given(small, hnp.arrays(np.float32, (8, 3), elements=st.integers(0, 3).map(float)))
def test_igd_plus_never_rises_when_points_improve(points, gains):
    front = jnp.array([[0.0, 3.0, 3.0], [3.0, 0.0, 3.0], [3.0, 3.0, 0.0]])
    assert igd_plus(points - gains, front) <= igd_plus(points, front)
