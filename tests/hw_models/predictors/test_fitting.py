import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau

from hadas_jax.spaces.darts import DARTS_CODES
from hw_models.predictors import KINDS, HeldOutErrors, Recipe, fit_predictor, predict_throughputs


def fit(codes, throughputs, **settings):
    return fit_predictor(jax.random.key(0), codes, throughputs, layout=DARTS_CODES, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind, fitted):
    losses = fitted[kind].losses
    assert losses[-1] < 0.9 * losses[0]


def test_a_lookup_finds_the_table_that_made_the_data(fitted):
    assert fitted["lookup"].held_out_error < 1e-3
    assert fitted["lookup"].held_out.kendall_tau > 0.999


def test_a_perceptron_learns_the_generic_paradigm(fitted):
    assert fitted["mlp"].held_out_error < 0.02


@pytest.mark.parametrize("kind", ["mlp", "embedding"])
def test_members_of_an_ensemble_differ(kind, fitted, codes):
    weights = fitted[kind].predictor.weights
    assert not np.array_equal(weights.layers[0].kernel[0], weights.layers[0].kernel[1])
    spread = np.asarray(predict_throughputs(fitted[kind].predictor, jnp.asarray(codes[:20])).spread)
    assert spread.mean() > 1e-4
    assert (spread > 5e-6).all()  # of members that agree it is 1e-6


def test_networks_left_out_have_no_part_in_a_fit_which_its_key_repeats(codes, throughputs):
    """What becomes of the same fit when the throughputs left out are ten times as large: nothing."""
    codes, throughputs = codes[:600], throughputs[:600]
    how = {"recipe": Recipe(hidden=(16,), epochs=3, batch=100), "held_out": 200}
    before = fit(codes, throughputs, **how)
    left_out = np.isin(throughputs.astype(float), before.held_out.actual)
    once = np.array([np.sum(throughputs == value) == 1 for value in throughputs])
    changed = np.where(left_out & once, 10 * throughputs, throughputs)
    after = fit(codes, changed, **how)
    assert np.sum(left_out & once) > 100
    assert jax.tree.all(jax.tree.map(np.array_equal, before.predictor.weights, after.predictor.weights))
    assert after.held_out_error > 0.5


def test_notes_say_what_a_predictor_was_fitted_to(fitted, codes):
    notes = fitted["lookup"].predictor.notes
    assert (notes.paradigm, notes.fpga, notes.source) == ("generic", "ku115", "a test")
    assert notes.networks == len(codes) - 300
    assert notes.held_out_error == fitted["lookup"].held_out_error


def test_errors_are_those_of_numpy():
    rng = np.random.default_rng(0)
    actual = rng.uniform(1, 2, 200)
    predicted = actual * (1 + rng.normal(0, 0.1, 200))
    errors = HeldOutErrors(actual, predicted)
    relative = np.sort(np.abs(predicted - actual) / actual)
    assert errors.mean == pytest.approx(np.mean(relative))
    assert errors.median == pytest.approx((relative[99] + relative[100]) / 2)
    assert relative[188] < errors.percentile_95 < relative[190]
    assert errors.kendall_tau == pytest.approx(kendalltau(predicted, actual).statistic)
    assert np.isnan(HeldOutErrors(actual[:1], predicted[:1]).kendall_tau)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tree"}, "kind: expected one of mlp, embedding, lookup, got 'tree'"),
        ({"members": 0}, "members: expected at least 1, got 0"),
        ({"held_out": 0}, "held_out: expected 1 to 99 of 100 networks, got 0"),
        ({"held_out": 100}, "held_out: expected 1 to 99 of 100 networks, got 100"),
    ],
)
def test_wrong_settings_are_refused(settings, message, codes, throughputs):
    with pytest.raises(ValueError, match=message):
        fit(codes[:100], throughputs[:100], **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: (c[:, :27], t), r"codes: expected int\[N, 28\], got int8\[100, 27\]"),
        (lambda c, t: (c.astype(float), t), r"codes: expected int\[N, 28\], got float64\[100, 28\]"),
        (lambda c, t: (c + 3, t), "codes: expected digits from 0 to 7, got 3 to 10"),
        (lambda c, t: (c[:1], t[:1]), "codes: expected at least 2 networks, got 1"),
        (lambda c, t: (c, t[:5]), "throughputs: expected one for each of 100 codes"),
        (lambda c, t: (c, 0 * t), "throughputs: expected numbers above 0, got 0.0 in place 0"),
        (lambda c, t: (c, np.nan * t), "throughputs: expected numbers above 0, got nan in place 0"),
    ],
)
def test_wrong_data_is_refused(change, message, codes, throughputs):
    with pytest.raises(ValueError, match=message):
        fit(*change(codes[:100], throughputs[:100]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"hidden": (8, 0)}, "hidden: expected sizes of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0"),
        ({"weight_decay": -1.0}, "weight_decay: expected a number of at least 0"),
        ({"dropout": 1.0}, "dropout: expected at least 0 and below 1"),
    ],
)
def test_wrong_recipes_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**setting)


def test_a_fit_that_diverges_says_so(codes, throughputs):
    recipe = Recipe(hidden=(16,), epochs=3, batch=100, learning_rate=1e38)
    with pytest.raises(ValueError, match=r"learning_rate: expected one that converges, got 1e\+38: .* in epoch 1"):
        fit(codes[:300], throughputs[:300], recipe=recipe)
