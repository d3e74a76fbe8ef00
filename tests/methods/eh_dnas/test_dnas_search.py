"""The search step, on a network that is quick to compile: a linear classifier of shares and images."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.methods.eh_dnas.bilevel import WeightDescent
from hadas_jax.methods.eh_dnas.hardware import Costs, Hardware, Objective
from hadas_jax.methods.eh_dnas.search import Search, alpha_optimiser, init_search, lower_weights_rate, search_step
from hadas_jax.settings import HardwareLossSettings
from hadas_jax.spaces.darts import relaxed_code

CONVOLUTION = jnp.arange(8) >= 4
WEIGHTS = {"kernel": 0.1 * jax.random.normal(jax.random.key(0), (224, 3, 2))}
ALPHA = 0.1 * jax.random.normal(jax.random.key(1), (28, 8))
BATCHES = tuple(
    (jax.random.normal(jax.random.key(seed), (6, 3)), jnp.array([0, 1, 0, 1, 1, 0], jnp.int32)) for seed in (2, 3)
)


def _network(weights, shares, images):
    return images @ jnp.tensordot(shares.ravel(), weights["kernel"], axes=1)


def _costs(distribution):
    """Seconds per image: one for each convolution, and one besides."""
    shares = jax.nn.one_hot(distribution, 8) if jnp.issubdtype(distribution.dtype, jnp.integer) else distribution
    return Costs(1.0 + jnp.sum(shares * CONVOLUTION.astype(jnp.float32)[None])[None], None)


def _search(**changed):
    loss = HardwareLossSettings(**{"weight": 0.0, "budget_ascent": 0.1} | changed.pop("loss", {}))
    fields = {
        "network": _network,
        "hardware": Hardware("toy", lambda alpha, key: _costs(relaxed_code(alpha)), _costs, None),
        "objective": Objective(loss),
        "descent": WeightDescent(schedule=lambda step: jnp.float32(0.05)),
        "optimiser": optax.sgd(0.1),
        "second_order": False,
        "relaxation": "softmax",
        "temperature": lambda step: jnp.float32(1.0),
    }
    return Search(**fields | changed)


def _stepped(search, steps=1, seed=4):
    chex.clear_trace_counter()
    state, step = init_search(search, WEIGHTS, ALPHA), jax.jit(chex.assert_max_traces(search_step(search), n=1))
    for i in range(steps):
        state, metrics = step(state, jax.random.fold_in(jax.random.key(seed), i), BATCHES)
    return state, metrics


def _moved(**changed):
    return _stepped(_search(**changed))[0].bilevel.architecture - ALPHA


@pytest.mark.parametrize("second_order", [False, True])
def test_hardware_adds_its_own_gradient_and_nothing_else(second_order):
    blind = _moved(second_order=second_order)
    seeing = _moved(second_order=second_order, loss={"weight": 0.7})
    slope = jax.grad(lambda alpha: jnp.log(_costs(relaxed_code(alpha)).image_s[0]))(ALPHA)
    np.testing.assert_allclose(seeing - blind, -0.1 * 0.7 * slope, atol=1e-6)


def test_hardware_is_descended_not_ascended():
    free = _search(optimiser=alpha_optimiser(0.05, 0.0))
    costs = [
        float(
            _costs(
                relaxed_code(_stepped(dataclasses.replace(free, objective=objective), 30)[0].bilevel.architecture)
            ).image_s[0]
        )
        for objective in (free.objective, Objective(HardwareLossSettings(weight=5.0)))
    ]
    assert costs[1] < 0.5 * costs[0]


def test_multiplier_of_a_broken_budget_rises_until_the_derived_network_keeps_it():
    search = _search(loss={"max_latency_ms": 6000.0}, optimiser=alpha_optimiser(0.05, 0.0))
    state, metrics = _stepped(search, 3)
    assert float(state.multipliers[0]) > 0
    state, metrics = _stepped(search, 200)
    assert float(metrics["images_per_s"]) >= 1 / 6.0 * 0.8


def test_without_budgets_there_are_no_multipliers_to_keep():
    state, metrics = _stepped(_search())
    assert state.multipliers is None
    assert not [name for name in metrics if name.startswith("multiplier")]


def test_metrics_are_of_the_network_that_alpha_stands_for():
    _, metrics = _stepped(_search())
    assert float(metrics["images_per_s"]) in [pytest.approx(1 / (1 + n)) for n in range(17)]
    np.testing.assert_allclose(metrics["entropy"], np.log(8), rtol=0.02)
    assert np.isfinite([float(value) for value in metrics.values()]).all()


def test_a_network_that_does_not_fit_is_worth_no_images_and_raises_the_multiplier():
    nothing_fits = Hardware(
        "full", lambda alpha, key: _costs(relaxed_code(alpha)), lambda code: Costs(jnp.full(1, jnp.inf), None), None
    )
    search = _search(hardware=nothing_fits, loss={"max_latency_ms": 6000.0})
    state, metrics = _stepped(search)
    assert float(metrics["images_per_s"]) == 0
    np.testing.assert_allclose(state.multipliers, [0.1])


def test_gumbel_steps_depend_on_their_key_and_softmax_steps_do_not():
    def moved(relaxation, seed):
        return _stepped(_search(relaxation=relaxation), seed=seed)[0].bilevel.architecture

    np.testing.assert_array_equal(moved("softmax", 4), moved("softmax", 5))
    assert float(jnp.max(jnp.abs(moved("gumbel", 4) - moved("gumbel", 5)))) > 1e-5


def test_a_lower_rate_slows_the_weights_alone():
    search = _search()
    state = init_search(search, WEIGHTS, ALPHA)
    step = search_step(search)
    plain, _ = step(state, jax.random.key(0), BATCHES)
    slow, _ = step(lower_weights_rate(state, 0.5), jax.random.key(0), BATCHES)
    np.testing.assert_array_equal(plain.bilevel.architecture, slow.bilevel.architecture)
    moved = [each.bilevel.weights["kernel"] - WEIGHTS["kernel"] for each in (plain, slow)]
    np.testing.assert_allclose(moved[1], 0.5 * moved[0], atol=1e-7)
