import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from levels import level

from hadas_jax.deploy.select import NEIGHBOURS, PREFERENCES, candidates, merit, select
from hadas_jax.evaluation import NO_DIFFERENCE
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.hadas.results import Percentiles
from hadas_jax.settings import Constraints

LIMITS = tuple(field.name for field in dataclasses.fields(Constraints))


@st.composite
def fronts(draw):
    """Objectives float64[M, 3] none of which dominates another, and weights int[M]."""
    steps = st.integers(1, 12)
    rows = draw(st.lists(st.tuples(steps, steps, steps), min_size=1, max_size=30, unique=True))
    points = np.array(rows, np.float64) * [0.05, 1e-3, 2e-3]
    no_worse = np.all(points[:, None] <= points[None], axis=-1)
    points = points[no_worse.sum(axis=0) == 1]
    return points, np.array(draw(st.lists(st.integers(1, 9), min_size=len(points), max_size=len(points)))) * 1000


@st.composite
def limits(draw):
    return Constraints(
        max_latency_ms=draw(st.none() | st.integers(0, 13).map(lambda step: step + 0.5)),
        max_energy_mj=draw(st.none() | st.integers(0, 13).map(lambda step: 2 * step + 1.0)),
        min_accuracy=draw(st.none() | st.integers(0, 13).map(lambda step: 1 - 0.05 * step - 0.025)),
        max_params=draw(st.none() | st.integers(0, 10).map(lambda step: 1000 * step + 500)),
    )


def keeps(points, weights, asked):
    """bool[M], by plain comparison; limits of this file lie between the values that are drawn."""
    within = np.ones(len(points), bool)
    for values, most in (
        (points[:, 1] * 1e3, asked.max_latency_ms),
        (points[:, 2] * 1e3, asked.max_energy_mj),
        (weights, asked.max_params),
        (points[:, 0], None if asked.min_accuracy is None else 1 - asked.min_accuracy),
    ):
        within &= True if most is None else values <= most
    return within


@given(fronts(), limits(), st.sampled_from(PREFERENCES))
def test_the_choice_keeps_all_limits_that_can_be_kept_and_is_the_best_that_does(front, asked, prefer):
    points, weights = front
    found = select(points, asked, others={"max_params": weights}, prefer=prefer)
    within = keeps(points, weights, asked)
    assert (found.violation == 0) == within.any() == within[found.chosen]
    if within.any():
        assert merit(points, prefer)[found.chosen] == merit(points, prefer)[within].min()
    else:
        every = [(points[[m]], {"max_params": weights[[m]]}) for m in range(len(points))]
        alone = [select(point, asked, others=others, prefer=prefer) for point, others in every]
        assert found.violation == min(each.violation for each in alone) > 0


@given(fronts(), limits(), st.sampled_from(PREFERENCES), st.sampled_from(LIMITS), st.floats(1, 3))
def test_a_wider_limit_never_makes_the_choice_worse(front, asked, prefer, name, factor):
    points, weights = front
    value = getattr(asked, name)
    if value is None:
        return
    wider = max(1 - factor * (1 - value), 0.0) if name == "min_accuracy" else type(value)(value * factor)
    before = select(points, asked, others={"max_params": weights}, prefer=prefer)
    after = select(points, dataclasses.replace(asked, **{name: wider}), others={"max_params": weights}, prefer=prefer)
    if before.violation == 0:
        assert after.violation == 0
        assert merit(points, prefer)[after.chosen] <= merit(points, prefer)[before.chosen]
    else:
        assert after.violation <= before.violation


@given(fronts(), limits(), st.sampled_from(PREFERENCES))
def test_neighbours_are_the_next_better_of_their_objective_and_dominate_nothing(front, asked, prefer):
    points, weights = front
    found = select(points, asked, others={"max_params": weights}, prefer=prefer)
    here = points[found.chosen]
    for m, name in enumerate(NEIGHBOURS):
        better = points[:, m] < here[m]
        assert (name in found.neighbours) == better.any()
        if better.any():
            row = found.neighbours[name]
            assert points[row, m] == points[better, m].max()
            assert (points[row] > here).any()


@given(fronts(), limits(), st.sampled_from(PREFERENCES))
def test_what_a_limit_costs_is_told_by_the_choice_without_it(front, asked, prefer):
    points, weights = front
    found = select(points, asked, others={"max_params": weights}, prefer=prefer)
    assert set(found.without) == {name for name in LIMITS if getattr(asked, name) is not None}
    for name, row in found.without.items():
        without = dataclasses.replace(asked, **{name: None})
        assert row == select(points, without, others={"max_params": weights}, prefer=prefer).chosen


@given(fronts(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_knee_does_not_depend_on_the_units_of_latency_and_energy(front, latency, energy):
    points, _ = front
    scaled = points * [1, latency, energy]
    np.testing.assert_allclose(merit(scaled, "knee"), merit(points, "knee"), atol=1e-9)


def test_the_knee_of_a_bent_front_is_at_the_bend():
    points = np.array([[0.01, 9e-3, 9e-3], [0.02, 1.2e-3, 1.2e-3], [0.3, 1e-3, 1e-3]])
    found = select(points, Constraints(), others={})
    assert found.chosen == 1
    assert found.neighbours == {"more accurate": 0, "faster": 2, "less energy": 2}


def test_an_unknown_preference_is_named():
    with pytest.raises(ValueError, match="prefer: expected one of knee, accuracy, latency, energy, got 'luck'"):
        select(np.ones((1, 3)), Constraints(), others={}, prefer="luck")


def design(found_by, error, latency_ms, energy_mj):
    found = Performance(error, latency_ms * 1e-3, energy_mj * 1e-3)
    return Design(
        found_by=found_by,
        genome=(0,),
        backbone={},
        exits=(),
        thresholds=(),
        clocks_mhz={"core": 1.0, "memory": 1.0, "host": 1.0},
        dissimilarity=1.0,
        selection={"ideal": found, "deployable": found},
        test={"ideal": found, "deployable": found},
        static_selection=found,
        static_test=found,
        static_dvfs_selection=found,
        static_dvfs_test=found,
        static_dvfs_clocks_mhz={"core": 1.0, "memory": 1.0, "host": 1.0},
        differences=dict.fromkeys(("ideal", "deployable"), NO_DIFFERENCE),
        selection_shares=(1.0,),
        test_shares=(1.0,),
    )


def test_candidates_are_the_front_and_the_best_of_each_level_without_equals_and_dominated_ones():
    cheap, equal, good = (design("deployable", *row) for row in ((0.2, 1, 1), (0.2, 1, 1), (0.1, 2, 2)))
    of_level, dominated = design("deployable", 0.15, 1.5, 1.5), design("deployable", 0.2, 1.1, 1)
    ideal = design("ideal", 0.01, 1, 1)
    picks = {"ideal": ideal, "deployable": of_level}
    result = Result(
        designs=(ideal, cheap, equal, dominated, good),
        levels=(level(0.8, good, exits=picks, clocks=picks),),
        largest_test_accuracy=0.9,
        smallest_test_accuracy=0.8,
        backbones=1,
        candidates=1,
        test_images=10,
        accuracy_tolerance=0.005,
    )
    designs, objectives, _ = candidates(result, "deployable")
    assert designs == (cheap, good, of_level)
    np.testing.assert_allclose(objectives, [[0.2, 1e-3, 1e-3], [0.1, 2e-3, 2e-3], [0.15, 1.5e-3, 1.5e-3]])
    assert candidates(result, "ideal")[0] == (ideal,)
    with pytest.raises(ValueError, match="expected designs found under the deployable policy, got none"):
        candidates(dataclasses.replace(result, designs=(ideal,), levels=()), "deployable")


def test_what_is_limited_besides_means_is_chosen_by_too_and_has_to_be_known():
    def told(found, p99_ms, memory_bytes, weight_bytes):
        percentiles = dict.fromkeys(("ideal", "deployable"), Percentiles(0, 0, 1e-3 * p99_ms, 1))
        sizes = {"peak_memory_bytes": memory_bytes, "weight_bytes": weight_bytes}
        return dataclasses.replace(found, selection_percentiles=percentiles, **sizes)

    best, dominated = design("deployable", 0.1, 1, 1), design("deployable", 0.2, 2, 2)
    result = Result(
        designs=(told(best, 4, 4000, 8000), told(dominated, 3, 5000, 7000)),
        levels=(),
        largest_test_accuracy=0.9,
        smallest_test_accuracy=0.8,
        backbones=1,
        candidates=1,
        test_images=10,
        accuracy_tolerance=0.005,
    )
    assert candidates(result, "deployable")[0] == result.designs[:1]
    choices = [({"max_p99_latency_ms": 3.5}, 1), ({"max_flash_mb": 0.0075}, 1), ({"max_memory_mb": 0.0045}, 0)]
    for limit, chosen in choices:
        asked = Constraints(**limit)
        designs, objectives, others = candidates(result, "deployable", asked)
        found = select(objectives, asked, others=others)
        assert (designs[found.chosen], found.violation) == (result.designs[chosen], 0)
        before = dataclasses.replace(result, designs=(best, dominated))
        with pytest.raises(ValueError, match=f"{next(iter(limit))}: expected a search that tells it of its designs"):
            candidates(before, "deployable", asked)
