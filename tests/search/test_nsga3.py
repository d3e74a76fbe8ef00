"""What is NSGA-III's own; what all strategies satisfy stands in test_strategies.py."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga3 import HyperplaneNormalization
from pymoo.util.ref_dirs import get_reference_directions

from hadas_jax.search import NSGA3
from hadas_jax.search.directions import reference_directions, spread_weights

P, Q, M = 20, 40, 5
GENOMES = np.stack([np.arange(Q), np.arange(Q)], axis=1).astype(np.int32)
STRATEGY = NSGA3(P, (Q, Q))


def sphere(count, objectives, seed):
    """Points on the positive part of a sphere, none of which dominates another, the axes among them."""
    values = np.abs(np.random.default_rng([seed, objectives]).normal(size=(count, objectives)))
    values[:objectives] = np.eye(objectives)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("objectives", "divisions"), [(1, 3), (2, 7), (3, 5), (5, 4), (8, 2)])
def test_the_lattice_is_that_of_pymoo(objectives, divisions):
    lattice = reference_directions(objectives, size=1, divisions=divisions)
    wanted = get_reference_directions("das-dennis", objectives, n_partitions=divisions) if objectives > 1 else [[1.0]]
    np.testing.assert_allclose(sorted(lattice.tolist()), sorted(np.asarray(wanted).tolist()), atol=1e-12)


@pytest.mark.parametrize("objectives", range(1, 9))
def test_directions_fill_the_population_and_reach_the_inside(objectives):
    for size in (1, 10, 100):
        directions = reference_directions(objectives, size=size)
        assert len(directions) <= max(size, objectives)
        assert len(np.unique(directions, axis=0)) == len(directions)
        np.testing.assert_allclose(directions.sum(1), 1)
        np.testing.assert_array_equal(np.isin(np.eye(objectives), directions).all(), True)
    assert (directions > 0).all(1).any()


@given(objectives=st.integers(2, 6), count=st.integers(1, 20))
def test_spread_weights_are_distinct_mixtures(objectives, count):
    weights = spread_weights(objectives, count=count)
    assert weights.shape == (count, objectives)
    assert len(np.unique(weights.round(9), axis=0)) == count
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1)
    with pytest.raises(ValueError, match="count: expected at least 1"):
        spread_weights(objectives, count=0)


def survivors(points, violation=None, seed=0):
    """The state after half of the points and then the other half were told of; genomes are their numbers."""
    key, params = jax.random.key(seed), STRATEGY.default_params
    first, then = np.split(points.astype(np.float32), 2)
    broken = np.split(np.zeros(Q, np.float32) if violation is None else violation, 2)
    state = STRATEGY.init(key, GENOMES[:P], first, params, violation=broken[0])
    return STRATEGY.tell(key, GENOMES[P:], then, state, params, violation=broken[1])[0]


def niches_of(points, ranks, last):
    """The nearest direction of each point and its distance, after pymoo's normalisation, in float64."""
    counted = np.flatnonzero(ranks <= last)
    frame = HyperplaneNormalization(M)
    frame.update(points[counted], nds=np.flatnonzero(ranks[counted] == 0))
    scaled = (points - frame.ideal_point) / (frame.nadir_point - frame.ideal_point)
    directions = reference_directions(M, size=P)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    distances = np.linalg.norm(scaled[:, None] - (scaled @ units.T)[..., None] * units[None], axis=-1)
    return distances.argmin(1), distances.min(1), frame.ideal_point


def emptiest_niche_first(niche, late, wanted):
    """How many of each niche the paper's loop takes when niches of equal count go in any order: sorted counts."""
    counts = np.bincount(niche[~late], minlength=niche.max() + 1)
    left = np.bincount(niche[late], minlength=niche.max() + 1)
    for _ in range(wanted):
        home = min((n for n in range(len(left)) if left[n]), key=lambda n: counts[n])
        counts[home] += 1
        left[home] -= 1
    return sorted(counts)


def test_survivors_fill_niches_as_the_loop_of_the_paper_does():
    for seed in range(15):
        points = sphere(Q, M, seed).astype(np.float64)
        points[np.random.default_rng(seed).permutation(np.arange(M, Q))[: 2 * seed]] *= 1.5
        points = points[np.random.default_rng(seed).permutation(Q)] * 3 + 1
        state = survivors(points, seed=seed)
        points = points.astype(np.float32).astype(np.float64)
        ranks = moocore.pareto_rank(points) - moocore.pareto_rank(points).min()
        last = np.sort(ranks)[P - 1]
        niche, distance, ideal = niches_of(points, ranks, last)
        kept = np.asarray(state.population)[:, 0]
        np.testing.assert_allclose(state.memory.ideal, ideal, rtol=1e-6)
        assert set(np.flatnonzero(ranks < last)) <= set(kept)
        assert (ranks[kept] <= last).all()
        late = ranks[ranks <= last] == last
        wanted = emptiest_niche_first(niche[ranks <= last], late, P - (ranks < last).sum())
        assert sorted(np.bincount(niche[kept], minlength=len(wanted))) == wanted
        for n in set(niche[ranks == last]) - set(niche[ranks < last]):
            members = np.flatnonzero((niche == n) & (ranks == last))
            if set(members) & set(kept):
                assert members[distance[members].argmin()] in kept


@given(st.lists(st.integers(-40, 40), min_size=M, max_size=M), st.integers(0, 9))
def test_units_of_the_objectives_do_not_matter(powers, seed):
    points = sphere(Q, M, seed)
    units = np.float32(2.0) ** np.array(powers, np.float32)
    np.testing.assert_array_equal(survivors(points).population, survivors(points * units).population)


def test_degenerate_fronts_give_no_nan():
    same = np.full((Q, M), 7.0, np.float32)
    line = same * np.arange(Q, dtype=np.float32)[:, None]
    flat = sphere(Q, M, 1) * np.float32([0, 1, 1, 1, 1])
    huge = sphere(Q, M, 2) * np.float32(3e38)
    for points in (same, line, flat, huge, -huge):
        for broken in (np.zeros(Q), np.arange(Q) != 3, np.ones(Q)):
            state = survivors(points, violation=broken.astype(np.float32))
            assert not any(np.isnan(leaf).any() for leaf in (state.crowding, state.memory.extremes))
            assert np.isfinite(state.memory.ideal).all() == (broken == 0).any()
            assert len(np.unique(state.population, axis=0)) == P


def test_merit_decides_who_mates_and_the_place_in_a_niche_does_not():
    state = survivors(sphere(Q, M, 0))
    still = STRATEGY.default_params.replace(crossover_probability=jnp.float32(0), mutation_probability=jnp.float32(0))
    preferred = STRATEGY.prefer(state, jnp.full(P, jnp.nan).at[5].set(1.0))
    asked = np.concatenate([STRATEGY.ask(jax.random.key(k), preferred, still)[0] for k in range(200)])
    share = (asked == np.asarray(state.population[5])).all(1).mean()
    assert abs(share - (2 * P - 1) / P**2) < 0.02
    other = STRATEGY.ask(jax.random.key(0), preferred.replace(crowding=-preferred.crowding), still)[0]
    np.testing.assert_array_equal(other, asked[:P])


def test_a_lattice_without_divisions_is_refused():
    with pytest.raises(ValueError, match="divisions: expected at least 1, got 0"):
        NSGA3(30, (64, 64), divisions=0)
