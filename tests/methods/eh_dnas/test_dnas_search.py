"""The search step, on a network that is quick to compile: a linear classifier of shares and images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.methods.eh_dnas.bilevel import WeightDescent
from hadas_jax.methods.eh_dnas.hardware import Costs, Hardware, Objective
from hadas_jax.methods.eh_dnas.search import SearchState, search_step
from hadas_jax.settings import HardwareLossSettings
from hadas_jax.spaces.darts import relaxed_code
from hadas_jax.training.optimisers import lower_rate

RNG = np.random.default_rng(0)
CONVOLUTION = jnp.arange(8) >= 4
WEIGHTS = {"kernel": jnp.asarray(0.1 * RNG.normal(size=(224, 3, 2)), jnp.float32)}
ALPHA = jnp.asarray(0.1 * RNG.normal(size=(28, 8)), jnp.float32)
LABELS = jnp.array([0, 1, 0, 1, 1, 0], jnp.int32)
BATCHES = tuple((jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32), LABELS) for _ in range(2))


def _network(weights, shares, images):
    return images @ jnp.tensordot(shares.ravel(), weights["kernel"], axes=1)


def _costs(distribution):
    """Seconds per image: one for each convolution, and one besides."""
    shares = jax.nn.one_hot(distribution, 8) if jnp.issubdtype(distribution.dtype, jnp.integer) else distribution
    return Costs(1.0 + jnp.sum(shares * CONVOLUTION.astype(jnp.float32)[None])[None], None)


def _step(**changed):
    """The step, and the state before it."""
    objective = Objective(HardwareLossSettings(**{"weight": 0.0, "budget_ascent": 0.1} | changed.pop("loss", {})))
    hardware = changed.pop("hardware", Hardware("toy", lambda alpha, key: _costs(relaxed_code(alpha)), _costs, None))
    descent = WeightDescent(schedule=lambda step: jnp.float32(0.05))
    options = {"descent": descent, "optimiser": optax.sgd(0.1), "second_order": False} | changed
    multipliers = jnp.zeros(len(objective.constraints)) if objective.constraints else None
    state = SearchState.start(WEIGHTS, ALPHA, options["optimiser"], multipliers=multipliers)
    chex.clear_trace_counter()
    return jax.jit(chex.assert_max_traces(search_step(_network, hardware, objective, **options), n=1)), state


def _stepped(steps=1, seed=4, **changed):
    step, state = _step(**changed)
    for i in range(steps):
        state, metrics = step(state, jax.random.fold_in(jax.random.key(seed), i), BATCHES)
    return state, metrics


def _moved(**changed):
    return _stepped(**changed)[0].architecture - ALPHA


@pytest.mark.parametrize("second_order", [False, True])
def test_hardware_adds_its_own_gradient_and_nothing_else(second_order):
    blind = _moved(second_order=second_order)
    seeing = _moved(second_order=second_order, loss={"weight": 0.7})
    slope = jax.jit(jax.grad(lambda alpha: jnp.log(_costs(relaxed_code(alpha)).image_s[0])))(ALPHA)
    np.testing.assert_allclose(seeing - blind, -0.1 * 0.7 * slope, atol=1e-6)


@pytest.mark.slow
def test_hardware_is_descended_not_ascended():
    states = [_stepped(30, optimiser=optax.adam(0.05), loss={"weight": weight})[0] for weight in (0.0, 5.0)]
    costs = [float(_costs(relaxed_code(state.architecture)).image_s[0]) for state in states]
    assert costs[1] < 0.5 * costs[0]


def test_multiplier_of_a_broken_budget_rises_until_the_derived_network_keeps_it():
    step, state = _step(loss={"max_latency_ms": 6000.0}, optimiser=optax.adam(0.05))
    for i in range(200):
        state, metrics = step(state, jax.random.key(i), BATCHES)
        if i == 2:
            assert float(state.multipliers[0]) > 0
    assert float(metrics["images_per_s"]) >= 1 / 6.0 * 0.8


def test_without_budgets_there_are_no_multipliers_and_metrics_are_of_the_network_that_alpha_stands_for():
    state, metrics = _stepped()
    assert state.multipliers is None
    assert not [name for name in metrics if name.startswith("multiplier")]
    assert float(metrics["images_per_s"]) in [pytest.approx(1 / (1 + n)) for n in range(17)]
    np.testing.assert_allclose(metrics["entropy"], np.log(8), rtol=0.02)
    assert np.isfinite([float(value) for value in metrics.values()]).all()


def test_a_network_that_does_not_fit_is_worth_no_images_and_raises_the_multiplier():
    nothing_fits = Hardware(
        "full", lambda alpha, key: _costs(relaxed_code(alpha)), lambda code: Costs(jnp.full(1, jnp.inf), None), None
    )
    state, metrics = _stepped(hardware=nothing_fits, loss={"max_latency_ms": 6000.0})
    assert float(metrics["images_per_s"]) == 0
    np.testing.assert_allclose(state.multipliers, [0.1])


@pytest.mark.parametrize("sampled", [False, True])
def test_gumbel_steps_depend_on_their_key_and_softmax_steps_do_not(sampled):
    step, state = _step(temperature=(lambda step: jnp.float32(1.0)) if sampled else None)
    one, other = (step(state, jax.random.key(seed), BATCHES)[0].architecture for seed in (4, 5))
    difference = float(jnp.max(jnp.abs(one - other)))
    assert difference > 1e-5 if sampled else difference == 0


def test_a_lower_rate_slows_the_weights_alone():
    step, state = _step()
    plain, _ = step(state, jax.random.key(0), BATCHES)
    slow, _ = step(lower_rate(state, 0.5), jax.random.key(0), BATCHES)
    np.testing.assert_array_equal(plain.architecture, slow.architecture)
    moved = [each.weights["kernel"] - WEIGHTS["kernel"] for each in (plain, slow)]
    np.testing.assert_allclose(moved[1], 0.5 * moved[0], atol=1e-7)
