"""Thresholds keep what conformal risk control promises, over cuts into calibration and test samples.

Scores are uniform, the classifier is always right, and an exit is wrong with a chance of SLOPE (1 - score): the risk of
a threshold t is then SLOPE (1 - t)^2 / 2 exactly.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from hadas_jax.evaluation import calibrate_thresholds, pack_bits
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS, Stops

CUTS, EXITS, SLOPE = 200, 3, 0.4
LEVELS = np.array(RISK_LEVELS, np.float32)
calibrated = jax.jit(jax.vmap(lambda score, correct: calibrate_thresholds(score, correct, jnp.asarray(LEVELS))))


def draw(seed, *, cuts, samples, grid=None):
    """Scores float32[cuts, EXITS, samples], on a grid if any, and who is right, bool[cuts, EXITS + 1, samples]."""
    rng = np.random.default_rng(seed)
    score = rng.random((cuts, EXITS, samples)).astype(np.float32)
    if grid is not None:
        score = np.floor(score * grid) / np.float32(grid)
    wrong = rng.random(score.shape) < SLOPE * (1 - score)
    return score, np.concatenate([~wrong, np.ones((cuts, 1, samples), bool)], axis=1)


def true_risk(thresholds, grid=None):
    """The chance that a new sample is harmed."""
    if grid is None:
        return np.where(np.isfinite(thresholds), SLOPE * (1 - np.minimum(thresholds, 1)) ** 2 / 2, 0)
    values = np.arange(grid) / grid
    return (SLOPE * (1 - values) * (values >= thresholds[..., None] - 1e-6)).sum(axis=-1) / grid


def harmed(level, samples):
    """How many calibration samples a threshold may harm."""
    return np.floor(level * (samples + 1) + 1e-6) - 1


@pytest.mark.parametrize("samples", [60, 270, 2000])
@pytest.mark.parametrize("grid", [None, 12])
def test_the_mean_risk_is_at_most_the_level_and_cuts_break_it_no_more_often_than_they_may(samples, grid):
    thresholds = np.asarray(calibrated(*draw(samples, cuts=CUTS, samples=samples, grid=grid)))
    risk = true_risk(thresholds, grid)  # [CUTS, R, EXITS]
    for row, level in enumerate(LEVELS.tolist()):
        for exit in range(EXITS):
            found = risk[:, row, exit]
            assert found.mean() <= level + 3 * found.std() / CUTS**0.5
            allowed = binom.cdf(harmed(level, samples), samples, level)
            assert (found > level + 1e-6).mean() <= allowed + 3 * (allowed * (1 - allowed) / CUTS) ** 0.5 + 1e-9
            if grid is None and harmed(level, samples) >= 0:
                assert (found > level + 1e-6).mean() >= 0.6 * allowed, "the bound is far from what happens"


def test_on_test_samples_of_one_set_cuts_break_the_level_no_more_often_than_shuffling_allows():
    calibration, test = 270, 150
    score, correct = draw(3, cuts=1, samples=calibration + test)
    rng = np.random.default_rng(4)
    order = np.stack([rng.permutation(calibration + test) for _ in range(CUTS)])
    scores, rights = (np.moveaxis(each[0][:, order], 1, 0) for each in (score, correct))
    thresholds = np.asarray(calibrated(scores[..., :calibration], rights[..., :calibration]))
    stops = scores[:, None, :, calibration:] >= thresholds[..., None]
    risk = (stops & ~rights[:, None, :-1, calibration:]).mean(axis=-1)
    for row, level in enumerate(LEVELS.tolist()):
        most = np.floor(level * test + 1e-6)
        ranked = min(harmed(level, calibration) + 1 + most, calibration + test)
        allowed = hypergeom.cdf(harmed(level, calibration), calibration + test, calibration, ranked)
        for exit in range(EXITS):
            broken = (risk[:, row, exit] > level + 1e-6).mean()
            assert broken <= allowed + 3 * (allowed * (1 - allowed) / CUTS) ** 0.5


@pytest.mark.parametrize("grid", [None, 12])
def test_a_network_of_several_exits_loses_at_most_the_sum_of_what_its_exits_may(grid):
    """Every sample that it loses is harmed by the exit that it stops at, whichever other exits there are."""
    thresholds = np.asarray(calibrated(*draw(5, cuts=CUTS, samples=270, grid=grid)))
    (score,), (correct,) = draw(6, cuts=1, samples=4000, grid=grid)
    configs = np.array(list(itertools.product(range(len(LEVELS) + 1), repeat=EXITS)), np.int32)[::9]
    promised = np.append(0, LEVELS)[configs].sum(axis=1)
    losses = []
    for own in thresholds:
        stops = jnp.asarray(score >= own[..., None])
        found = Stops(pack_bits(stops), pack_bits(jnp.asarray(correct)), score.shape[1])
        losses.append(np.asarray(found.evaluate(jnp.asarray(configs)).error))  # the classifier is always right
        harm = (np.asarray(stops) & ~correct[None, :-1]).mean(axis=-1)
        most = np.concatenate([np.zeros((1, EXITS)), harm])[configs, np.arange(EXITS)].sum(axis=1)
        assert (losses[-1] <= most + 1e-6).all()
    mean, error = np.mean(losses, axis=0), np.std(losses, axis=0) / CUTS**0.5
    # The samples are the same for all cuts: their own spread is part of the error.
    assert (mean <= promised + 3 * error + 3 * (promised / score.shape[1]) ** 0.5).all()
