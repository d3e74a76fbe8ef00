"""What is NSGA-III's own; what all strategies satisfy stands in test_strategies.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga3 import HyperplaneNormalization
from pymoo.util.ref_dirs import get_reference_directions

from hadas_jax.search.directions import reference_directions, simplex_lattice, spread_weights
from hadas_jax.search.nsga3 import NSGA3, Frame, associate, normalise, queue_places

Q = 40


def blank(objectives):
    return Frame(jnp.full(objectives, jnp.inf), jnp.full((objectives, objectives), jnp.inf))


def sphere(count, objectives, seed):
    """Points on the positive part of a sphere, none of which dominates another, the axes among them."""
    values = np.abs(np.random.default_rng([seed, objectives]).normal(size=(count, objectives)))
    values[:objectives] = np.eye(objectives)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def everything(points):
    return {"counted": jnp.ones(len(points), bool), "front": jnp.ones(len(points), bool)}


@pytest.mark.parametrize(("objectives", "divisions"), [(1, 3), (2, 7), (3, 5), (5, 4), (8, 2)])
def test_the_lattice_is_that_of_pymoo(objectives, divisions):
    lattice = simplex_lattice(objectives, divisions=divisions)
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


@pytest.mark.parametrize("objectives", [2, 3, 8])
def test_normalisation_is_that_of_pymoo(objectives):
    points = sphere(Q, objectives, 0) * 3 + 1
    frame, scaled = normalise(jnp.asarray(points), blank(objectives), **everything(points))
    oracle = HyperplaneNormalization(objectives)
    oracle.update(points.astype(np.float64), nds=np.arange(Q))
    np.testing.assert_allclose(frame.ideal, oracle.ideal_point, rtol=1e-6)
    wanted = (points - oracle.ideal_point) / (oracle.nadir_point - oracle.ideal_point)
    np.testing.assert_allclose(scaled, wanted, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(-40, 40), min_size=3, max_size=3), st.integers(0, 9))
def test_units_of_the_objectives_do_not_matter(powers, seed):
    points = sphere(Q, 3, seed)
    units = np.float32(2.0) ** np.array(powers, np.float32)
    _, scaled = normalise(jnp.asarray(points), blank(3), **everything(points))
    _, other = normalise(jnp.asarray(points * units), blank(3), **everything(points))
    np.testing.assert_allclose(scaled, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objectives", [1, 2, 5])
def test_degenerate_fronts_give_no_nan(objectives):
    same = np.full((Q, objectives), 7.0, np.float32)
    line = same * np.arange(Q, dtype=np.float32)[:, None]
    flat = sphere(Q, objectives, 1) * np.float32([0.0] + [1.0] * (objectives - 1))
    huge = sphere(Q, objectives, 2) * np.float32(3e38)
    for points in (same, line, flat, huge, -huge):
        for chosen in (np.ones(Q, bool), np.arange(Q) == 3, np.zeros(Q, bool)):
            masks = {"counted": jnp.asarray(chosen), "front": jnp.asarray(chosen)}
            frame, scaled = normalise(jnp.asarray(points), blank(objectives), **masks)
            frame, scaled = normalise(jnp.asarray(points), frame, **masks)
            assert np.isfinite(scaled).all()
            assert (np.asarray(scaled) >= 0).all()
            assert np.isfinite(frame.ideal).all() == chosen.any()
            assert not np.isnan(frame.extremes).any()


@pytest.mark.parametrize("objectives", [2, 3, 6])
def test_each_point_goes_to_its_nearest_direction(objectives):
    points = sphere(Q, objectives, 3)
    directions = reference_directions(objectives, size=Q)
    niche, distance = associate(jnp.asarray(points), jnp.asarray(directions, jnp.float32))
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    feet = (points @ units.T)[..., None] * units[None]
    distances = np.linalg.norm(points[:, None] - feet, axis=-1)
    np.testing.assert_allclose(distance, distances.min(1), atol=1e-5)
    np.testing.assert_allclose(distances[np.arange(Q), np.asarray(niche)], distances.min(1), atol=1e-5)


def emptiest_niche_first(niche, late, wanted):
    """How many of each niche the paper's loop takes when niches of equal count go in any order: sorted counts."""
    counts = np.bincount(niche[~late], minlength=6)
    left = np.bincount(niche[late], minlength=6)
    for _ in range(wanted):
        home = min((n for n in range(6) if left[n]), key=lambda n: counts[n])
        counts[home] += 1
        left[home] -= 1
    return counts


@given(st.integers(0, 10**6))
def test_places_in_queues_fill_niches_as_the_loop_of_the_paper_does(seed):
    rng = np.random.default_rng(seed)
    niche, distance = rng.integers(0, rng.integers(1, 7), Q), rng.random(Q).astype(np.float32)
    late, valid = rng.random(Q) < rng.random(), rng.random(Q) < 0.9
    level = np.asarray(
        queue_places(
            jax.random.key(seed),
            jnp.asarray(niche, jnp.int32),
            jnp.asarray(distance),
            niches=6,
            late=jnp.asarray(late),
            valid=jnp.asarray(valid),
        )
    )
    assert (level[~valid] == Q).all()
    for n in range(6):
        members = valid & (niche == n)
        assert sorted(level[members]) == list(range(members.sum()))
        if (members & late).any():
            first = np.flatnonzero(members & late)[level[members & late].argmin()]
            if not (members & ~late).any():
                assert distance[first] == distance[members].min()
            else:
                assert level[members & ~late].max() < level[first]
    choice = np.flatnonzero(late & valid)
    wanted = rng.integers(0, len(choice) + 1)
    taken = choice[np.argsort(level[choice], kind="stable")[:wanted]]
    counts = np.bincount(niche[~late & valid], minlength=6) + np.bincount(niche[taken], minlength=6)
    loop = emptiest_niche_first(niche[valid], late[valid], wanted)
    assert sorted(counts) == sorted(loop)


def test_survivors_spread_over_the_directions():
    strategy = NSGA3(30, (64, 64), divisions=9)
    first = np.linspace(0, 1, 300).astype(np.float32)[np.random.default_rng(0).permutation(300)] ** 4
    genomes = jnp.asarray(np.stack([np.arange(300) % 64, np.arange(300) // 64], axis=1), jnp.int32)
    points = jnp.asarray(np.stack([first, 1 - first], axis=1))
    params, state = strategy.default_params, None
    for k in range(10):
        rows = slice(30 * k, 30 * (k + 1))
        if state is None:
            state = strategy.init(jax.random.key(0), genomes[rows], points[rows], params)
        else:
            state, _ = strategy.tell(jax.random.key(k), genomes[rows], points[rows], state, params)
    assert (state.ranks == 0).all()
    niche, _ = associate(state.fitness, jnp.asarray(simplex_lattice(2, divisions=9), jnp.float32))
    counts = np.bincount(niche, minlength=10)
    np.testing.assert_array_equal(counts, 3)
    with pytest.raises(ValueError, match="divisions: expected at least 1, got 0"):
        NSGA3(30, (64, 64), divisions=0)


def test_merit_decides_who_mates():
    strategy = NSGA3(8, (8, 8))
    genomes = jnp.stack([jnp.arange(8, dtype=jnp.int32)] * 2, axis=1)
    fitness = jnp.concatenate([genomes, 7 - genomes], axis=1).astype(jnp.float32)
    still = strategy.default_params.replace(crossover_probability=jnp.float32(0), mutation_probability=jnp.float32(0))
    state = strategy.init(jax.random.key(0), genomes, fitness, still)
    preferred = strategy.prefer(state, jnp.full(8, jnp.nan).at[5].set(1.0))
    asked = np.concatenate([strategy.ask(jax.random.key(k), preferred, still)[0] for k in range(100)])
    share = (asked == np.asarray(state.population[5])).all(1).mean()
    assert abs(share - 15 / 64) < 0.05
