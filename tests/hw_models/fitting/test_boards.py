"""Boards: the roofline of whole networks, fits of new boards, those of the package, and files of both."""

import csv
import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.fitting import (
    BoardPredictor,
    NetworkFeatures,
    board_names,
    fit_board,
    load_board_predictor,
    read_board_notes,
)

SHARED_DATA = os.environ.get("HADAS_SHARED_DATA")
SECONDS = {"mac": 2e-12, "element": 5e-10, "weight": 1e-9, "layer": 2e-5, "conv": 3e-5, "run": 1e-3}
ORDER = 2.0
POWER = {"log_idle_w": 2.0, "log_mac_j": 5e-12, "log_element_j": 3e-10}
COUNT = 60

RESNET50 = NetworkFeatures(
    macs=jnp.float32(3.9e9),
    conv_weights=jnp.float32(23.5e6),
    norm_weights=jnp.float32(106240),
    linear_weights=jnp.float32(2.05e6),
    activation_elements=jnp.float32(31.8e6),
    layers=jnp.float32(177),
    conv_layers=jnp.float32(53),
    norm_layers=jnp.float32(53),
    linear_layers=jnp.float32(1),
    resolution=jnp.float32(224),
)


def uncorrected(board: BoardPredictor) -> BoardPredictor:
    """The board with corrections that correct nothing, so that it predicts what its formulas say."""

    def neutral(correction):
        zero = jax.tree.map(np.zeros_like, correction)
        return dataclasses.replace(zero, scale=np.ones_like(correction.scale))

    return dataclasses.replace(
        board,
        latency_correction=neutral(board.latency_correction),
        power_correction=neutral(board.power_correction),
    )


@pytest.fixture(scope="module")
def one():
    return jax.jit(BoardPredictor.predict)


@pytest.fixture(scope="module")
def many():
    return jax.jit(jax.vmap(BoardPredictor.predict, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def formulas() -> BoardPredictor:
    """A board of known coefficients."""
    board = uncorrected(load_board_predictor("nano-gpu"))
    names = [f"log_{name}_s" for name in SECONDS]
    latency = dict(zip(names, SECONDS.values(), strict=True)) | {"log_order_above_one": ORDER - 1}
    return dataclasses.replace(
        board,
        latency_base=dataclasses.replace(board.latency_base, **{k: np.log(np.float32(v)) for k, v in latency.items()}),
        power_base=dataclasses.replace(board.power_base, **{k: np.log(np.float32(v)) for k, v in POWER.items()}),
    )


@pytest.fixture(scope="module")
def networks() -> NetworkFeatures:
    """Networks from 3 MMAC to 300 GMAC, some without batch norms or linear layers."""
    rng = np.random.default_rng(0)
    convs = rng.integers(5, 300, COUNT)
    columns = {
        "macs": 10 ** rng.uniform(6.5, 11.5, COUNT),
        "conv_weights": 10 ** rng.uniform(5.5, 8, COUNT),
        "norm_weights": np.where(convs % 5 == 0, 0, convs * 4 * 100),
        "linear_weights": np.where(convs % 7 == 0, 0, 1.28e6),
        "activation_elements": 10 ** rng.uniform(5, 9.5, COUNT),
        "layers": convs * rng.uniform(1.5, 5, COUNT),
        "conv_layers": convs,
        "norm_layers": np.where(convs % 5 == 0, 0, convs),
        "linear_layers": np.where(convs % 7 == 0, 0, 1),
        "resolution": rng.integers(32, 1000, COUNT),
    }
    return NetworkFeatures(**{name: jnp.asarray(column, jnp.float32) for name, column in columns.items()})


@pytest.fixture(scope="module")
def made(formulas, networks, many):
    """What the board of known coefficients takes for the networks: latency and power, float32[N] each."""
    found = many(formulas, networks)
    return np.asarray(found.latency.mean), np.asarray(found.power.mean)


@pytest.fixture(scope="module")
def fitted(networks, made) -> BoardPredictor:
    """A board fitted to those, where one network in fifteen took eight times as long and some powers are unknown."""
    latency_s, power_w = made
    is_outlier, is_unknown = np.arange(COUNT) % 15 == 0, np.arange(COUNT) % 4 == 1
    slowed = np.where(is_outlier, 8 * latency_s, latency_s)
    return fit_board(jax.random.key(0), networks, slowed, np.where(is_unknown, np.nan, power_w))


def test_latency_and_power_equal_the_formulas_in_float64(networks, made):
    n = {name: np.asarray(column, np.float64) for name, column in vars(networks).items()}
    memory = SECONDS["element"] * n["activation_elements"]
    memory += SECONDS["weight"] * (n["conv_weights"] + n["linear_weights"])
    latency = ((SECONDS["mac"] * n["macs"]) ** ORDER + memory**ORDER) ** (1 / ORDER)
    latency += SECONDS["layer"] * n["layers"] + SECONDS["conv"] * n["conv_layers"] + SECONDS["run"]
    work_j = POWER["log_mac_j"] * n["macs"] + POWER["log_element_j"] * n["activation_elements"]
    np.testing.assert_allclose(made[0], latency, rtol=1e-5)
    np.testing.assert_allclose(made[1], POWER["log_idle_w"] + work_j / latency, rtol=1e-5)


def test_the_fit_recovers_latency_and_power_that_the_model_made_despite_outliers(networks, made, fitted, many):
    latency_s, power_w = made
    found = many(uncorrected(fitted), networks)
    assert np.mean(np.abs(found.latency.mean / latency_s - 1)) < 0.03
    assert np.mean(np.abs(found.power.mean / power_w - 1)) < 0.03


@pytest.mark.parametrize("name", ["macs", "activation_elements", "conv_weights", "layers", "conv_layers"])
def test_more_work_never_takes_less_time(formulas, networks, made, many, name):
    more = dataclasses.replace(networks, **{name: getattr(networks, name) * 2.0})
    assert (np.asarray(many(formulas, more).latency.mean) >= made[0]).all()


@pytest.mark.parametrize("name", ["agx-xavier-gpu", "nano-gpu", "tx2-gpu"])
def test_a_board_of_the_package_states_its_source_and_reaches_its_goals(name):
    notes = read_board_notes(name)
    assert "github.com" in notes["source"]
    assert "GroupKFold" in notes["protocol"]
    latency, power = notes["families_left_out"]["latency, own"], notes["families_left_out"]["power, own"]
    assert latency["mean_error"] < (0.14 if name == "nano-gpu" else 0.12)
    assert latency["kendall_tau"] > 0.93
    assert power["mean_error"] < 0.12


def test_the_names_are_those_of_the_files():
    assert board_names() == ["agx-xavier-gpu", "nano-gpu", "tx2-gpu"]


def test_a_faster_board_takes_less_time_and_all_gradients_are_finite(one):
    latency = {}
    for name in board_names():
        board = load_board_predictor(name)
        found = one(board, RESNET50)
        latency[name] = float(found.latency.mean)
        assert 0.1 < float(found.power.mean) < 30
        np.testing.assert_allclose(found.energy_j, found.latency.mean * found.power.mean)
    assert 0.004 < latency["agx-xavier-gpu"] < latency["tx2-gpu"] < latency["nano-gpu"] < 0.3
    gradient = jax.jit(jax.grad(lambda network: board.predict(network).energy_j))
    empty = jax.tree.map(jnp.zeros_like, RESNET50)
    for network in (RESNET50, empty):
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient(network)))
    assert any(float(leaf) != 0 for leaf in jax.tree.leaves(gradient(RESNET50)))


def test_a_new_board_predicts_what_it_was_fitted_to_and_survives_its_file(tmp_path, networks, made, fitted, many):
    found = many(fitted, networks)
    assert np.median(np.abs(np.asarray(found.latency.mean) / made[0] - 1)) < 0.1
    assert np.median(np.abs(np.asarray(found.power.mean) / made[1] - 1)) < 0.1
    fitted.save(tmp_path / "mine.npz", {"source": "made up"})
    jax.tree.map(np.testing.assert_array_equal, load_board_predictor(tmp_path / "mine.npz"), fitted)
    assert read_board_notes(tmp_path / "mine.npz") == {"source": "made up"}
    assert (tmp_path / "mine.npz").stat().st_size < 150_000


def test_wrong_names_files_and_shapes_are_refused_in_one_line(tmp_path):
    np.savez(tmp_path / "foreign.npz", center=np.zeros(3))
    board, pair = load_board_predictor("tx2-gpu"), dataclasses.replace(RESNET50, macs=jnp.ones(2))
    two = jax.tree.map(lambda feature: jnp.stack([feature, feature]), RESNET50)
    key = jax.random.key(0)
    calls = [
        (lambda: load_board_predictor("tx3"), "expected one of agx-xavier-gpu"),
        (lambda: load_board_predictor(tmp_path / "missing.npz"), "No such file"),
        (lambda: load_board_predictor(tmp_path / "foreign.npz"), "expected arrays"),
        (lambda: fit_board(key, two, np.ones(3), np.ones(3)), r"\[N\]"),
        (lambda: fit_board(key, two, np.array([1.0, -1.0]), np.ones(2)), "positive latency_s"),
        (lambda: fit_board(key, two, np.ones(2), np.array([1.0, 0.0])), "positive power_w"),
    ]
    with pytest.raises(AssertionError, match=r"macs: use jax\.vmap"):
        board.predict(pair)
    for call, message in calls:
        with pytest.raises(ValueError, match=message) as refusal:
            call()
        assert "\n" not in str(refusal.value)


@pytest.mark.skipif(SHARED_DATA is None, reason="set HADAS_SHARED_DATA to the folder of jetson_cnn_profile.csv")
def test_the_boards_of_the_package_agree_with_the_measurements_they_were_fitted_to():
    devices = {"agx_xavier": "agx-xavier-gpu", "tx2": "tx2-gpu", "nano": "nano-gpu"}
    columns = ("params_conv", "params_bn", "params_fc", "activation_elements", "layers", "conv_layers", "bn_layers")
    columns += ("fc_layers", "resolution")
    with (Path(SHARED_DATA) / "jetson_cnn_profile.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["latency_ms"]]
    predict = jax.jit(jax.vmap(BoardPredictor.predict, in_axes=(None, 0)))
    for device, name in devices.items():
        rows = [row for row in table if row["device"] == device][:1000]
        numbers = [[float(row["flops"]) / 2, *(float(row[column]) for column in columns)] for row in rows]
        found = predict(load_board_predictor(name), NetworkFeatures(*jnp.asarray(numbers, jnp.float32).T))
        latency = np.array([float(row["latency_ms"]) for row in rows]) * 1e-3
        assert np.median(np.abs(np.asarray(found.latency.mean) / latency - 1)) < 0.05
