"""The roofline of whole networks: parts against float64, recovery of known coefficients, finite gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.correction import (
    LatencyBase,
    NetworkFeatures,
    PowerBase,
    base_power,
    base_times,
    latency_features,
    power_features,
)
from hw_models.fitting import fit_board

SECONDS = {"mac": 2e-12, "element": 5e-10, "weight": 1e-9, "layer": 2e-5, "conv": 3e-5, "run": 1e-3}
ORDER = 2.0


@pytest.fixture(scope="module")
def base() -> LatencyBase:
    return LatencyBase(*(jnp.log(jnp.float32(value)) for value in (*SECONDS.values(), ORDER - 1)))


@pytest.fixture(scope="module")
def networks() -> NetworkFeatures:
    """120 networks from 3 MMAC to 300 GMAC, some without batch norms or linear layers."""
    rng = np.random.default_rng(0)
    convs = rng.integers(5, 300, 120)
    columns = {
        "macs": 10 ** rng.uniform(6.5, 11.5, 120),
        "conv_weights": 10 ** rng.uniform(5.5, 8, 120),
        "norm_weights": np.where(convs % 5 == 0, 0, convs * 4 * 100),
        "linear_weights": np.where(convs % 7 == 0, 0, 1.28e6),
        "activation_elements": 10 ** rng.uniform(5, 9.5, 120),
        "layers": convs * rng.uniform(1.5, 5, 120),
        "conv_layers": convs,
        "norm_layers": np.where(convs % 5 == 0, 0, convs),
        "linear_layers": np.where(convs % 7 == 0, 0, 1),
        "resolution": rng.integers(32, 1000, 120),
    }
    return NetworkFeatures(**{name: jnp.asarray(column, jnp.float32) for name, column in columns.items()})


@pytest.fixture(scope="module")
def timed():
    return jax.jit(jax.vmap(base_times, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def times(base, networks, timed):
    return timed(base, networks)


def test_the_latency_equals_the_formula_in_float64(networks, times):
    n = {name: np.asarray(column, np.float64) for name, column in vars(networks).items()}
    memory = SECONDS["element"] * n["activation_elements"]
    memory += SECONDS["weight"] * (n["conv_weights"] + n["linear_weights"])
    expected = ((SECONDS["mac"] * n["macs"]) ** ORDER + memory**ORDER) ** (1 / ORDER)
    expected += SECONDS["layer"] * n["layers"] + SECONDS["conv"] * n["conv_layers"] + SECONDS["run"]
    np.testing.assert_allclose(times.latency_s, expected, rtol=1e-5)


def test_the_fit_recovers_latency_and_power_that_the_model_made_despite_outliers(networks, times, timed):
    latency = times.latency_s.at[::15].multiply(8.0)
    made = PowerBase(*(jnp.log(jnp.float32(value)) for value in (2.0, 5e-12, 3e-10)))
    power = base_power(made, networks, times.latency_s)
    board = fit_board(jax.random.key(0), networks, latency, power)
    found = timed(board.latency_base, networks).latency_s
    assert float(jnp.mean(jnp.abs(found / times.latency_s - 1))) < 0.03
    found = base_power(board.power_base, networks, times.latency_s)
    assert float(jnp.mean(jnp.abs(found / power - 1))) < 0.03


def test_features_are_finite_and_the_shares_add_up_to_one(networks, times):
    features = jax.jit(jax.vmap(latency_features))(networks, times)
    assert features.shape == (120, 22)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(np.exp(np.asarray(features[:, -3:])).sum(1), 1.0, rtol=1e-4)
    assert jax.vmap(power_features)(features, networks, times.latency_s).shape == (120, 25)


def test_features_and_latency_have_finite_gradients_for_an_empty_network(base, networks):
    def total(totals):
        times = base_times(base, totals)
        return latency_features(totals, times).sum() + times.latency_s

    gradient = jax.jit(jax.grad(total))
    empty = jax.tree.map(lambda column: jnp.zeros_like(column[0]), networks)
    for network in (empty, jax.tree.map(lambda column: column[0], networks)):
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient(network)))


@pytest.mark.parametrize("name", ["macs", "activation_elements", "conv_weights", "layers", "conv_layers"])
def test_more_work_never_takes_less_time(base, networks, times, timed, name):
    more = dataclasses.replace(networks, **{name: getattr(networks, name) * 2.0})
    slower = timed(base, more).latency_s
    assert (np.asarray(slower) >= np.asarray(times.latency_s)).all()
