import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hadas_jax.evaluation import segment_costs
from hadas_jax.methods import Run
from hadas_jax.methods.hadas.constraints import relative_excess
from hadas_jax.settings import NO_CONSTRAINTS, Constraints

pytestmark = pytest.mark.usefixtures("listed_space")
POSITIVE = st.floats(2.0**-9, 2.0**10, width=32)


def test_limits_are_in_the_units_of_objectives_and_none_is_infinite():
    limits = Constraints(max_latency_ms=2.0, min_accuracy=0.95)
    np.testing.assert_allclose(limits.objectives, [0.05, 2e-3, np.inf], rtol=1e-4)
    assert limits.params == np.inf
    assert limits.any
    assert not NO_CONSTRAINTS.any


@given(st.lists(st.tuples(st.floats(0, 1, width=32), POSITIVE, POSITIVE), min_size=1, max_size=8), POSITIVE, POSITIVE)
def test_the_excess_is_the_largest_relative_one_and_not_positive_within(points, latency, energy):
    values = np.array(points, np.float32)
    limits = np.array([0.25, latency, energy], np.float32)
    found = np.asarray(relative_excess(tuple(jnp.asarray(values).T), jnp.asarray(limits)))
    np.testing.assert_allclose(found, (values / limits - 1).max(axis=1), rtol=1e-4, atol=1e-5)
    assert ((found <= 0) == (values <= limits).all(axis=1)).all()


def test_without_limits_nothing_is_in_excess():
    found = relative_excess(
        (jnp.ones(2), jnp.array([jnp.inf, 0.0]), jnp.ones(2)), jnp.asarray(NO_CONSTRAINTS.objectives)
    )
    assert (found <= 0).all()


def test_an_accuracy_that_is_just_reached_is_accepted():
    limits = jnp.asarray(Constraints(min_accuracy=0.9).objectives)
    assert float(relative_excess((jnp.float32(1 - 243 / 270), jnp.ones(()), jnp.ones(())), limits)) <= 0


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_params": 10}, r"max_params: expected at least [\d,]+, the weights of the smallest backbone .* tiny"),
        ({"max_latency_ms": 1e-6}, r"max_latency_ms: expected more than .* ms, which the smallest backbone"),
        ({"max_energy_mj": 1e-6}, r"max_energy_mj: expected more than .* mJ, which the smallest backbone"),
        ({"max_p99_latency_ms": 1e-6}, r"max_p99_latency_ms: expected more than .* ms, which the smallest backbone"),
        (
            {"max_memory_mb": 1e-6},
            r"max_memory_mb: expected at least .* MB, which the activations of the",
        ),
        (
            {"max_flash_mb": 1e-3},
            r"max_flash_mb: expected at least .* MB, which the weights .* tiny take in fp32",
        ),
        ({"max_latency_ms": 1e-3}, r"max_latency_ms: .*, got 0.001: 1 ms if it was in s$"),
        ({"max_energy_mj": 0.02}, r"max_energy_mj: .*, got 0.02: 20 mJ if it was in J$"),
    ],
)
def test_limits_that_no_network_can_keep_are_refused_before_any_work(settings, limits, message):
    with pytest.raises(ValueError, match=message):
        Run(settings.replace(**limits))


def test_limits_that_contradict_each_other_are_refused(settings):
    run = Run(settings)
    costs = jax.jit(lambda: segment_costs(run.space, run.space.smallest(), run.device))()
    latency, energy = np.asarray(costs.latency_s)[0], np.asarray(costs.energy_j)[0]
    assert energy[latency.argmin()] > 1.05 * energy.min()
    tight = {"max_latency_ms": 1.001e3 * float(latency.min()), "max_energy_mj": 1.001e3 * float(energy.min())}
    with pytest.raises(ValueError, match=r"max_latency_ms .* and max_energy_mj .* contradict each other"):
        Run(settings.replace(**tight))
