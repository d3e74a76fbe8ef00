import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.methods.eh_dnas.hardware import Constraint, Costs, Objective
from hadas_jax.settings import HardwareLossSettings

COSTS = Costs(image_s=jnp.array([0.010, 0.005, 0.002]), energy_j=jnp.array([0.1, 0.15, 0.9]))


def _objective(*, reference=0.1, **changed):
    fields = {"minimise": "energy", "weight": 0.5, "budget_ascent": 0.1}
    return Objective(HardwareLossSettings(**fields | changed), reference)


def test_loss_is_the_weighted_logarithm_at_the_best_clocks():
    loss, point = _objective().loss(COSTS, jnp.zeros(0))
    assert int(point) == 0
    np.testing.assert_allclose(loss, 0.0, atol=1e-7)
    loss, point = _objective(minimise="latency", form="relative", reference=0.01).loss(COSTS, jnp.zeros(0))
    assert int(point) == 2
    np.testing.assert_allclose(loss, 0.5 * 0.2, rtol=1e-6)
    _, point = _objective(minimise="edp").loss(COSTS, jnp.zeros(0))
    assert int(point) == 1


@given(cost=st.floats(1e-6, 1e3), scale=st.floats(1e-3, 1e3))
def test_gradient_of_the_log_form_does_not_depend_on_the_unit(cost, scale):
    def loss(log_cost, unit):
        costs = Costs(jnp.exp(log_cost)[None] * unit, None)
        return _objective(minimise="latency").loss(costs, jnp.zeros(0))[0]

    slope = jax.grad(loss)(jnp.log(jnp.float32(cost)), jnp.float32(scale))
    np.testing.assert_allclose(slope, 0.5, rtol=1e-5)


def test_multipliers_push_towards_the_clocks_that_keep_the_budget():
    objective = _objective(max_latency_ms=4.0)
    assert int(objective.loss(COSTS, jnp.array([0.0]))[1]) == 0
    assert int(objective.loss(COSTS, jnp.array([5.0]))[1]) == 2


def test_the_point_is_the_least_metric_within_the_budgets_or_the_least_beyond():
    assert int(_objective().chosen_point(COSTS)) == 0
    assert int(_objective(max_latency_ms=6.0).chosen_point(COSTS)) == 1
    both = _objective(max_latency_ms=4.0, max_energy_mj=120.0)
    # Beyond: log 2.5, log 1.25, log 7.5.
    assert int(both.chosen_point(COSTS)) == 1
    np.testing.assert_allclose(both.violations(COSTS), np.log([1.25, 1.25]), rtol=1e-5)


def test_multipliers_rise_beyond_a_budget_fall_within_and_never_below_zero():
    objective = _objective(max_latency_ms=1e3, max_energy_mj=1e3)
    raised = objective.ascend(jnp.array([0.0, 0.3]), jnp.array([0.5, -0.2]))
    np.testing.assert_allclose(raised, [0.05, 0.28], rtol=1e-5)
    np.testing.assert_allclose(objective.ascend(jnp.array([0.0, 0.3]), jnp.array([-0.5, jnp.inf])), [0.0, 0.4])


def test_plain_darts_is_told_from_searches_that_look_at_hardware():
    assert _objective(weight=0.0).is_blind
    assert not _objective().is_blind
    assert not _objective(weight=0.0, max_latency_ms=1e3).is_blind


def test_metrics_of_accelerators_know_no_energy():
    costs = Costs(jnp.array([0.25]), None)
    assert float(costs.at(0).image_s) == 0.25
    with pytest.raises(ValueError, match="minimise energy: expected latency"):
        costs.metric("energy")


def test_budgets_are_in_seconds_per_image_and_joules():
    assert Objective(HardwareLossSettings()).constraints == ()
    assert Objective(HardwareLossSettings(min_fps=1000.0)).constraints == (Constraint("latency", 0.001),)
    both = HardwareLossSettings(min_fps=100.0, max_latency_ms=5.0, max_energy_mj=20.0)
    assert Objective(both).constraints == (Constraint("latency", 0.005), Constraint("energy", 0.02))
