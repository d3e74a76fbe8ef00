"""Tests of the surrogate: a textbook Gaussian process, what it recovers, and what it must not look at."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau

from hadas_jax.search.surrogate import Surrogate

CARDINALITIES = (2, 3, 4, 2, 3, 5, 2, 3)
G, C, ROWS = len(CARDINALITIES), max(CARDINALITIES), 200
SURROGATE = Surrogate(CARDINALITIES, steps=30, block=64)
PREDICT = jax.jit(SURROGATE.predict)


def one_hot(genomes):
    return jax.nn.one_hot(jnp.asarray(genomes), C)


def draw_relaxed(rng, *leading):
    raw = rng.gamma(1.0, size=(*leading, G, C)) * (np.arange(C) < np.array(CARDINALITIES)[:, None])
    return raw / raw.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def archive():
    """Genomes and targets: additive, with an interaction, noisy; the last 40 rows empty, some targets missing."""
    rng = np.random.default_rng(0)
    genomes = rng.integers(0, CARDINALITIES, (2 * ROWS, G)).astype(np.int32)
    effects = [rng.normal(size=count) for count in CARDINALITIES]
    additive = sum(effect[genomes[:, g]] for g, effect in enumerate(effects))
    interaction = additive + 2.0 * (genomes[:, 0] == 1) * (genomes[:, 3] == 1)
    targets = np.stack([0.9 + 0.01 * additive, interaction, additive + rng.normal(size=2 * ROWS)], axis=1).astype(
        np.float32
    )
    mask = np.ones((ROWS, 3), bool)
    mask[160:] = False
    mask[:80:2, 1] = False
    return genomes, targets, mask


@pytest.fixture(scope="module")
def fitted(archive):
    genomes, targets, mask = archive
    return SURROGATE.fit(jax.random.key(0), genomes[:ROWS], targets[:ROWS], mask)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_an_additive_function_is_recovered_from_200_samples(archive):
    genomes, targets, mask = archive
    state = SURROGATE.fit(jax.random.key(0), genomes[:ROWS], targets[:ROWS], np.ones_like(mask))
    mean, _ = PREDICT(state, one_hot(genomes[ROWS:]))
    assert kendalltau(mean[:, 0], targets[ROWS:, 0]).statistic > 0.95
    assert kendalltau(mean[:, 1], targets[ROWS:, 1]).statistic > 0.9


def test_errors_on_new_genomes_are_as_large_as_the_deviation_says(archive, fitted):
    genomes, targets, _ = archive
    mean, std = PREDICT(fitted, one_hot(genomes[ROWS:]))
    spread = np.sqrt(np.mean(((targets[ROWS:] - mean) / std) ** 2, axis=0))
    assert (spread < 1.3).all()
    assert spread[2] > 0.8


def test_predictions_are_those_of_a_textbook_gaussian_process(archive, fitted):
    genomes, targets, mask = archive
    steps = [np.abs(np.subtract.outer(np.arange(count), np.arange(count))) / (count - 1) for count in CARDINALITIES]
    relevance = np.asarray(fitted.relevance, np.float64)
    mean, std = PREDICT(fitted, one_hot(genomes[ROWS:]))

    def kernel(a, b):
        exponent = 0
        for g, step in enumerate(steps):
            gap = step[a[:, g]][:, b[:, g]]
            exponent = exponent + relevance[g] * (2 * (gap > 0) + gap**2) / 3
        return np.exp(-exponent)

    for t in range(3):
        used = np.flatnonzero(mask[:, t])
        own, values = genomes[used], targets[used, t].astype(np.float64)
        noise = np.asarray(fitted.noise[t], np.float64)
        inverse = np.linalg.inv(kernel(own, own) + noise * np.eye(len(used)))
        near = kernel(genomes[ROWS:], own)
        centred = values - values.mean()
        signal = (centred @ inverse @ centred + values.var()) / (len(used) + 1)
        np.testing.assert_allclose(mean[:, t], values.mean() + near @ inverse @ centred, atol=2e-3 * values.std())
        variance = 1 + noise - np.einsum("qi,ij,qj->q", near, inverse, near)
        np.testing.assert_allclose(std[:, t], np.sqrt(signal * variance), rtol=5e-3)


def test_a_relaxed_genome_is_predicted_as_the_mean_over_the_genomes_it_stands_for(fitted):
    every = np.array(list(itertools.product(*map(range, CARDINALITIES))), np.int32)
    relaxed = draw_relaxed(np.random.default_rng(1))
    share = np.prod([relaxed[g, every[:, g]] for g in range(G)], axis=0)
    means, _ = PREDICT(fitted, one_hot(every))
    found, _ = PREDICT(fitted, jnp.asarray(relaxed, jnp.float32))
    np.testing.assert_allclose(found, share @ np.asarray(means, np.float64), rtol=1e-4, atol=1e-4)


def test_missing_targets_and_empty_rows_have_no_influence(archive, fitted):
    genomes, targets, mask = archive
    rng = np.random.default_rng(2)
    other = np.where(mask, targets[:ROWS], rng.choice([np.nan, np.inf, 1e9], mask.shape)).astype(np.float32)
    moved = genomes[:ROWS].copy()
    moved[160:] = 0
    state = SURROGATE.fit(jax.random.key(0), moved, other, mask)
    relaxed = jnp.asarray(draw_relaxed(rng, 20), jnp.float32)
    for found, expected in zip(PREDICT(state, relaxed), PREDICT(fitted, relaxed), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_values_that_are_not_finite_count_as_missing(archive, fitted):
    genomes, targets, mask = archive
    holes = np.where(mask, targets[:ROWS], np.nan).astype(np.float32)
    assert equal(SURROGATE.fit(jax.random.key(0), genomes[:ROWS], holes, np.ones_like(mask)), fitted)


def test_the_same_key_gives_the_same_fit(archive, fitted):
    genomes, targets, mask = archive
    again = SURROGATE.fit(jax.random.key(0), genomes[:ROWS], targets[:ROWS], mask)
    other = SURROGATE.fit(jax.random.key(1), genomes[:ROWS], targets[:ROWS], mask)
    assert equal(again, fitted)
    assert not np.array_equal(other.relevance, fitted.relevance)


def test_the_deviation_grows_away_from_the_data():
    rng = np.random.default_rng(3)
    genomes = np.zeros((ROWS, G), np.int32)
    genomes[:, :3] = rng.integers(0, CARDINALITIES[:3], (ROWS, 3))
    targets = genomes[:, :3].astype(np.float32)
    state = SURROGATE.fit(jax.random.key(0), genomes, targets, np.ones((ROWS, 3), bool))
    away = np.tile(np.array(CARDINALITIES, np.int32) - 1, (20, 1))
    away[:, :3] = genomes[:20, :3]
    _, near = PREDICT(state, one_hot(genomes[:20]))
    _, far = PREDICT(state, one_hot(away))
    assert (far > 2 * near).all()


def test_a_target_without_values_is_predicted_as_0_give_or_take_1(archive):
    genomes, targets, mask = archive
    state = SURROGATE.fit(jax.random.key(0), genomes[:ROWS], targets[:ROWS], mask & np.array([True, True, False]))
    mean, std = PREDICT(state, one_hot(genomes[ROWS:]))
    np.testing.assert_array_equal(mean[:, 2], 0.0)
    np.testing.assert_allclose(std[:, 2], 1.0, atol=0.1)
    assert np.isfinite(mean).all()


def test_gradients_are_finite_at_blurred_and_at_one_hot_genomes(archive, fitted):
    slope = jax.jit(jax.vmap(jax.grad(lambda relaxed: sum(jnp.sum(part) for part in PREDICT(fitted, relaxed)))))
    blurred = jnp.asarray(draw_relaxed(np.random.default_rng(4), 10), jnp.float32)
    for genomes in (blurred, one_hot(archive[0][:10])):
        gradient = np.asarray(slope(genomes))
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_any_leading_dimensions_give_what_one_genome_alone_gives(archive, fitted):
    genomes = one_hot(archive[0][:6])
    for together, alone in zip(
        PREDICT(fitted, genomes.reshape(2, 3, G, C)),
        jax.jit(jax.vmap(lambda genome: SURROGATE.predict(fitted, genome)))(genomes),
        strict=True,
    ):
        np.testing.assert_allclose(together.reshape(6, 3), alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"genomes": (5, G + 1)}, r"has shape \(5, 9\) but expected \(None, 8\)\. \[genomes\]"),
        ({"targets": (4, 2)}, r"has shape \(4, 2\) but expected \(5, None\)\. \[targets\]"),
        ({"mask": (5, 3)}, r"has shape \(5, 3\) but expected \(5, 2\)\. \[mask\]"),
    ],
)
def test_data_that_does_not_fit_is_refused(shapes, message):
    genomes = jnp.zeros(shapes.get("genomes", (5, G)), jnp.int32)
    targets = jnp.zeros(shapes.get("targets", (5, 2)))
    mask = jnp.ones(shapes.get("mask", (5, 2)), bool)
    with pytest.raises(AssertionError, match=message):
        SURROGATE.fit(jax.random.key(0), genomes, targets, mask)


def test_probabilities_of_another_width_are_refused(fitted):
    with pytest.raises(AssertionError, match=r"\[probabilities\]"):
        SURROGATE.predict(fitted, jnp.zeros((3, G, C - 1)))


@pytest.mark.parametrize("change", [{"cardinalities": (2, 0)}, {"steps": 0}, {"block": 0}, {"learning_rate": 0.0}])
def test_a_configuration_out_of_range_is_refused(change):
    with pytest.raises(ValueError, match="surrogate: expected numbers of at least 1"):
        Surrogate(**({"cardinalities": (2, 3)} | change))
