"""Boards that come with the package, fits of new ones, and files of both."""

import csv
import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.fitting import (
    NetworkFeatures,
    board_names,
    fit_board,
    load_board_predictor,
    predict_board,
    read_board_notes,
    save_board_predictor,
)

SHARED_DATA = os.environ.get("HADAS_SHARED_DATA")

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


def test_a_faster_board_takes_less_time_and_all_gradients_are_finite():
    predict = jax.jit(predict_board)
    latency = {}
    for name in board_names():
        board = load_board_predictor(name)
        found = predict(board, RESNET50)
        latency[name] = float(found.latency.mean)
        assert 0.1 < float(found.power.mean) < 30
        np.testing.assert_allclose(found.energy_j, found.latency.mean * found.power.mean)
    assert 0.004 < latency["agx-xavier-gpu"] < latency["tx2-gpu"] < latency["nano-gpu"] < 0.3
    gradient = jax.jit(jax.grad(lambda networks: predict_board(board, networks).energy_j))(RESNET50)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))
    assert any(float(leaf) != 0 for leaf in jax.tree.leaves(gradient))


def test_a_new_board_is_fitted_saved_and_loaded(tmp_path):
    rng = np.random.default_rng(0)
    factors = jnp.asarray(10 ** rng.uniform(-1, 1, (40, 10)), jnp.float32)
    names = [field.name for field in dataclasses.fields(NetworkFeatures)]
    networks = NetworkFeatures(**{name: getattr(RESNET50, name) * factors[:, i] for i, name in enumerate(names)})
    latency = np.asarray(1e-3 + 1e-12 * np.asarray(networks.macs) + 3e-5 * np.asarray(networks.layers))
    power = np.where(np.arange(40) % 4 == 0, np.nan, 3.0)
    board = fit_board(jax.random.key(0), networks, latency, power)
    found = jax.jit(jax.vmap(predict_board, in_axes=(None, 0)))(board, networks)
    assert np.abs(np.asarray(found.latency.mean) / latency - 1).mean() < 0.1
    np.testing.assert_allclose(found.power.mean, 3.0, rtol=0.1)
    save_board_predictor(tmp_path / "mine.npz", board, {"source": "made up"})
    jax.tree.map(np.testing.assert_array_equal, load_board_predictor(tmp_path / "mine.npz"), board)
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
        predict_board(board, pair)
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
    predict = jax.jit(jax.vmap(predict_board, in_axes=(None, 0)))
    for device, name in devices.items():
        rows = [row for row in table if row["device"] == device][:1000]
        numbers = [[float(row["flops"]) / 2, *(float(row[column]) for column in columns)] for row in rows]
        found = predict(load_board_predictor(name), NetworkFeatures(*jnp.asarray(numbers, jnp.float32).T))
        latency = np.array([float(row["latency_ms"]) for row in rows]) * 1e-3
        assert np.median(np.abs(np.asarray(found.latency.mean) / latency - 1)) < 0.05
