import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from hadas_jax.search import crowding_distance, non_dominated_mask, non_dominated_ranks, truncate
from hadas_jax.search.pareto import first_occurrences

small = hnp.arrays(np.float32, (12, 3), elements=st.integers(-3, 3).map(float))


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_ranks_masks_and_crowding_equal_those_of_pymoo_and_moocore(objectives, clouds):
    fitness = clouds(count=125, objectives=objectives, seed=0)
    ranks = np.asarray(jax.vmap(non_dominated_ranks)(fitness))
    masks = np.asarray(jax.vmap(non_dominated_mask)(fitness))
    crowding = np.asarray(jax.vmap(crowding_distance)(fitness, ranks))
    distance = get_crowding_function("cd")
    for cloud, rank, mask, room in zip(fitness, ranks, masks, crowding, strict=True):
        values = cloud.astype(np.float64)
        np.testing.assert_array_equal(rank, moocore.pareto_rank(values) - moocore.pareto_rank(values).min())
        np.testing.assert_array_equal(mask, moocore.is_nondominated(values, keep_weakly=True))
        fronts = NonDominatedSorting().do(values)
        for index, front in enumerate(fronts):
            members = np.sort(front)
            np.testing.assert_array_equal(members, np.flatnonzero(rank == index))
            np.testing.assert_allclose(room[members], distance.do(values[members]), rtol=1e-6, atol=1e-7)


def test_more_points_than_a_word_holds_are_ranked_as_moocore_ranks_them():
    values = np.random.default_rng(1).integers(0, 40, (700, 3)).astype(np.float32)
    expected = moocore.pareto_rank(values.astype(np.float64))
    np.testing.assert_array_equal(non_dominated_ranks(values), expected - expected.min())


def test_a_chain_has_as_many_fronts_as_points():
    values = jnp.repeat(jnp.arange(40, dtype=jnp.float32)[::-1, None], 2, axis=1)
    np.testing.assert_array_equal(non_dominated_ranks(values), np.arange(40)[::-1])


@settings(max_examples=60, deadline=None)
@given(small)
def test_no_member_of_a_front_is_dominated_by_a_member_of_its_own_or_a_later_front(values):
    ranks = np.asarray(non_dominated_ranks(values))
    dominates = (values[:, None] <= values[None]).all(-1) & (values[:, None] < values[None]).any(-1)
    assert not (dominates & (ranks[:, None] >= ranks[None])).any()
    for i in np.flatnonzero(ranks):
        assert (dominates[:, i] & (ranks == ranks[i] - 1)).any()


@settings(max_examples=60, deadline=None)
@given(small, st.permutations(range(12)))
def test_ranks_depend_neither_on_order_nor_on_monotone_rescaling(values, order):
    ranks = np.asarray(non_dominated_ranks(values))
    np.testing.assert_array_equal(non_dominated_ranks(values[order]), ranks[order])
    np.testing.assert_array_equal(non_dominated_ranks(values**3 * np.float32([1, 2, 4]) + 7), ranks)


def test_nan_is_worse_than_infinity_and_infinity_worse_than_any_number():
    values = jnp.array([[jnp.nan, 0], [jnp.inf, jnp.inf], [1, 1], [0, jnp.nan], [1, jnp.inf]])
    np.testing.assert_array_equal(non_dominated_ranks(values), [3, 2, 0, 3, 1])
    np.testing.assert_array_equal(non_dominated_mask(values), [False, False, True, False, False])
    assert not np.isnan(crowding_distance(values, non_dominated_ranks(values))).any()


def test_minus_zero_equals_zero():
    np.testing.assert_array_equal(non_dominated_ranks(jnp.array([[0.0, -0.0], [-0.0, 0.0]])), [0, 0])


def test_rows_that_are_not_valid_neither_dominate_nor_get_a_rank():
    values = jnp.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    valid = jnp.array([False, True, True])
    np.testing.assert_array_equal(non_dominated_ranks(values, valid=valid), [3, 0, 1])
    np.testing.assert_array_equal(non_dominated_mask(values, valid), [False, True, False])
    np.testing.assert_array_equal(non_dominated_ranks(values, valid=jnp.zeros(3, bool)), [3, 3, 3])


def test_infeasible_rows_are_ranked_after_feasible_ones_by_their_violation_alone():
    values = jnp.array([[5.0, 5.0], [0.0, 0.0], [1.0, 9.0], [4.0, 4.0], [0.0, jnp.inf], [-jnp.inf, 0.0]])
    violation = jnp.array([0.0, 2.0, 0.5, 0.0, 0.5, jnp.inf])
    np.testing.assert_array_equal(non_dominated_ranks(values, violation=violation), [1, 3, 2, 0, 2, 4])


def constrained_ranks(values, violation, valid):
    """Ranks by peeling fronts off, in float64, rule by rule."""
    values, violation = values.astype(float), violation.astype(float)
    missing = np.isnan(values).any(1) | np.isnan(violation)
    count = len(values)
    beats = np.zeros((count, count), bool)
    for i, j in np.ndindex(count, count):
        if missing[i] or missing[j]:
            beats[i, j] = missing[j] and not missing[i]
        elif violation[i] > 0 or violation[j] > 0:
            beats[i, j] = violation[i] < violation[j]
        else:
            beats[i, j] = (values[i] <= values[j]).all() and (values[i] < values[j]).any()
    ranks, left, front = np.full(count, count), valid.copy(), 0
    while left.any():
        free = left & ~beats[left].any(0)
        ranks[free], left, front = front, left & ~free, front + 1
    return ranks


awkward = st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, 2.0, 3e38])


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float32, (20, 2), elements=awkward),
    hnp.arrays(np.float32, 20, elements=st.sampled_from([0.0, 0.0, 0.0, 1e-30, 1.0, 3.0, np.inf, np.nan])),
    hnp.arrays(bool, 20, elements=st.sampled_from([True, True, False])),
)
def test_constraint_domination_equals_its_rules_applied_pair_by_pair(values, violation, valid):
    found = non_dominated_ranks(values, violation=violation, valid=valid)
    np.testing.assert_array_equal(found, constrained_ranks(values, violation, valid))


@pytest.mark.parametrize("objectives", [1, 3])
def test_totally_ordered_points_with_copies_have_as_many_fronts_as_values(objectives):
    order = np.random.default_rng(2).integers(0, 900, 1500)
    values = np.repeat(order[:, None], objectives, axis=1).astype(np.float32)
    np.testing.assert_array_equal(non_dominated_ranks(values), np.unique(order, return_inverse=True)[1])


def test_an_objective_of_infinite_range_counts_nothing_in_crowding():
    values = jnp.array([[0.0, 3.0], [1.0, 2.0], [3.0, 1.0], [4.0, -jnp.inf]])
    crowding = crowding_distance(values, jnp.zeros(4, jnp.int32))
    np.testing.assert_allclose(crowding, [np.inf, 0.375, 0.375, np.inf])


def test_truncation_goes_by_rank_then_crowding_then_index():
    ranks = jnp.array([1, 0, 0, 1, 0], jnp.int32)
    crowding = jnp.array([jnp.inf, 1.0, 2.0, jnp.inf, 1.0])
    np.testing.assert_array_equal(truncate(ranks, crowding, size=5), [2, 1, 4, 0, 3])


@pytest.mark.parametrize("bad", [jnp.zeros(3), jnp.zeros((3, 2), jnp.int32)])
def test_what_is_no_floating_matrix_is_refused(bad):
    for call in (non_dominated_ranks, non_dominated_mask, lambda f: crowding_distance(f, jnp.zeros(3, int))):
        with pytest.raises(AssertionError, match=r"\[fitness\]"):
            call(bad)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError, match=r"\[ranks\]"):
        crowding_distance(jnp.zeros((3, 2)), jnp.zeros(2, jnp.int32))
    with pytest.raises(ValueError, match=r"size: expected 1 \.\. 3, got 4"):
        truncate(jnp.zeros(3, jnp.int32), jnp.zeros(3), size=4)
    with pytest.raises(AssertionError, match=r"\[valid\]"):
        non_dominated_mask(jnp.zeros((3, 2)), jnp.ones(2, bool))


@pytest.mark.parametrize("cardinalities", [(2, 3, 2), (2**16, 2**16, 2), (2**31 - 1, 2, 2**31 - 1)])
def test_first_occurrences_are_those_of_a_set(cardinalities):
    rng = np.random.default_rng(6)
    genomes = rng.integers(0, cardinalities, (50, 3)).astype(np.int32)
    genomes[25:] = genomes[rng.integers(0, 30, 25)]
    _, first = np.unique(genomes, axis=0, return_index=True)
    np.testing.assert_array_equal(
        np.flatnonzero(first_occurrences(jnp.asarray(genomes), cardinalities)), np.sort(first)
    )
    with pytest.raises(AssertionError, match=r"\[genome\]"):
        first_occurrences(jnp.asarray(genomes), (2, 2))
