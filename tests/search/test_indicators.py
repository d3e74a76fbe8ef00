import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hadas_jax.search import hypervolume, ratio_of_dominance

small = hnp.arrays(np.float32, (8, 3), elements=st.integers(0, 6).map(float))


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("reference", [1.1, 0.7])
def test_hypervolume_equals_that_of_moocore(objectives, reference, clouds):
    points = clouds(count=250, objectives=objectives, seed=3)
    corner = np.full(objectives, reference, np.float32)
    found = jax.vmap(hypervolume, in_axes=(0, None))(points, corner)
    expected = [moocore.hypervolume(cloud.astype(float), ref=corner.astype(float)) for cloud in points]
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


@pytest.mark.parametrize("objectives", [1, 4])
def test_other_numbers_of_objectives_are_refused(objectives):
    with pytest.raises(ValueError, match=f"expected 2 or 3 objectives, got {objectives}"):
        hypervolume(jnp.zeros((3, objectives)), jnp.ones(objectives))


def test_a_reference_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match=r"reference: expected shape \(3,\), got \(2,\)"):
        hypervolume(jnp.zeros((4, 3)), jnp.ones(2))


@pytest.mark.parametrize("objectives", [2, 3, 5])
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
    with pytest.raises(ValueError, match="b: expected a matrix"):
        ratio_of_dominance(jnp.zeros((2, 2)), jnp.zeros((2, 3)))
