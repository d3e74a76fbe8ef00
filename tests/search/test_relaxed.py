"""Tests of gradient search: the optimum of separable problems, and what draws and scalarisation promise."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.search.directions import tchebycheff
from hadas_jax.search.relaxed import RelaxedParams, logits_of, relaxed_search

CARDINALITIES = (2, 5, 3, 4)
G, C = len(CARDINALITIES), max(CARDINALITIES)
VALID = np.arange(C) < np.array(CARDINALITIES)[:, None]
WEIGHTS = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.8, 0.2], [0.2, 0.8]], np.float32)
EVERY = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)


def make_costs(seed):
    """Cost of every choice in two objectives that disagree, float32[2, G, C]; padding would be the best choice."""
    first = np.random.default_rng(seed).random((G, C)).astype(np.float32)
    second = 1 - first + 0.2 * np.random.default_rng(seed + 100).random((G, C)).astype(np.float32)
    return np.where(VALID, np.stack([first, second]), -100).astype(np.float32)


def values_of(costs, genomes):
    return np.stack([costs[:, np.arange(G), genome].sum(1) for genome in genomes])


def frame_of(costs):
    values = values_of(costs, EVERY)
    return values.min(0), np.ptp(values, axis=0)


@jax.jit
def search(key, costs, ideal, span, params, start):
    def objectives(probabilities):
        return jnp.einsum("mgc,gc->m", costs, probabilities)

    return relaxed_search(
        key,
        objectives,
        cardinalities=CARDINALITIES,
        weights=jnp.asarray(WEIGHTS),
        ideal=ideal,
        span=span,
        params=params,
        start=start,
    )


def descend(seed, *, start=None, **changes):
    params = RelaxedParams.default().replace(**{name: jnp.float32(value) for name, value in changes.items()})
    costs = make_costs(seed)
    start = jnp.zeros((len(WEIGHTS), G, C)) if start is None else start
    found = search(jax.random.key(seed), costs, *frame_of(costs), params, start)
    return costs, found


@pytest.mark.parametrize("seed", range(3))
def test_descents_find_the_optimum_of_a_separable_problem(seed):
    costs, found = descend(seed)
    best = np.where(VALID, costs, np.inf).argmin(-1)
    np.testing.assert_array_equal(found.genomes[:2], best)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_genome_met_on_the_way_is_close_to_the_best_of_all_for_every_weight(seed):
    costs, found = descend(seed)
    ideal, span = frame_of(costs)

    def losses(genomes, weight):
        gaps = (values_of(costs, genomes) - ideal) / span
        return (weight * gaps).max(1) + 0.01 * gaps.sum(1)

    for w, weight in enumerate(WEIGHTS):
        assert losses(np.asarray(found.visited)[:, w], weight).min() < losses(EVERY, weight).min() + 0.05


def test_losses_are_the_objectives_scalarised():
    costs, found = descend(5)
    ideal, span = frame_of(costs)
    gaps = (np.asarray(found.objectives) - ideal) / span
    np.testing.assert_allclose(found.losses, (WEIGHTS * gaps).max(-1) + 0.01 * gaps.sum(-1), atol=1e-5)


def test_choices_past_a_genes_last_one_are_never_taken():
    _, found = descend(6)
    assert (np.asarray(found.probabilities)[:, ~VALID] == 0).all()
    assert (np.asarray(found.visited) < CARDINALITIES).all()
    np.testing.assert_allclose(np.sum(found.probabilities, -1), 1.0, atol=1e-6)


def test_descents_stay_finite_at_extreme_temperatures():
    _, found = descend(7, first_temperature=100.0, last_temperature=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in found)


def test_a_descent_that_does_not_move_ends_at_the_genomes_it_started_from():
    genomes = np.random.default_rng(8).integers(0, CARDINALITIES, (len(WEIGHTS), G)).astype(np.int32)
    start = logits_of(jnp.asarray(genomes), CARDINALITIES, confidence=0.8)
    _, found = descend(8, start=start, learning_rate=0.0)
    np.testing.assert_array_equal(found.genomes, genomes)
    taken = np.take_along_axis(np.asarray(found.probabilities), genomes[:, :, None], axis=-1)
    np.testing.assert_allclose(taken, 0.8, rtol=1e-5)


def test_the_same_key_gives_the_same_descents():
    (_, first), (_, second) = descend(9), descend(9)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(1e-3, 1e3),
    noise=st.floats(0, 5),
    scale=st.floats(0, 50),
)
def test_draws_are_finite_and_their_objectives_means_of_choices_that_there_are(seed, temperature, noise, scale):
    start = np.random.default_rng(seed).normal(0, scale, (len(WEIGHTS), G, C)).astype(np.float32)
    changes = {"first_temperature": temperature, "last_temperature": temperature, "noise": noise}
    costs, found = descend(seed % 1000, start=start, **changes)
    least, most = (
        pick(-1).sum(1) for pick in (np.where(VALID, costs, np.inf).min, np.where(VALID, costs, -np.inf).max)
    )
    met = np.asarray(found.objectives)
    assert (met > least - 1e-3).all()
    assert (met < most + 1e-3).all()


def test_likeliest_choices_of_draws_are_distributed_as_the_softmax():
    logits = np.random.default_rng(10).normal(size=(G, C)).astype(np.float32)
    start = np.repeat(logits[None], len(WEIGHTS), axis=0)
    drawn = [descend(seed, start=start, learning_rate=0.0, first_temperature=0.3)[1].visited for seed in range(40)]
    shares = (np.reshape(drawn, (-1, G))[..., None] == np.arange(C)).mean(0)
    weights = np.exp(logits) * VALID
    np.testing.assert_allclose(shares, weights / weights.sum(-1, keepdims=True), atol=0.015)


def test_a_dominated_point_is_never_preferred():
    rng = np.random.default_rng(11)
    better = rng.normal(size=(50, 3)).astype(np.float32)
    worse = better + np.eye(3, dtype=np.float32)[rng.integers(0, 3, 50)]
    for weight in (np.array([1, 0, 0], np.float32), np.array([0.2, 0.3, 0.5], np.float32)):
        score = jax.vmap(lambda distance, weight=weight: tchebycheff(distance, weight, augmentation=0.01))
        assert (score(better) < score(worse)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones(2, np.float32)}, r"\[weights\]"),
        ({"ideal": np.zeros(3, np.float32)}, r"\[ideal\]"),
        ({"span": np.ones(1, np.float32)}, r"\[span\]"),
        ({"start": np.zeros((1, G, C), np.float32)}, r"but expected \(5, 4, 5\)\. \[start\]"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    arguments = {"weights": WEIGHTS, "ideal": np.zeros(2, np.float32), "span": np.ones(2, np.float32)} | change
    with pytest.raises((ValueError, AssertionError), match=message):
        relaxed_search(
            jax.random.key(0),
            lambda probabilities: jnp.sum(probabilities, axis=0)[:2],
            cardinalities=CARDINALITIES,
            params=RelaxedParams.default(),
            **arguments,
        )


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence: expected a number between 0 and 1"):
        logits_of(jnp.zeros((1, G), jnp.int32), CARDINALITIES, confidence=confidence)
