"""Tests of few-shot adaptation."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.fitting.few_shot import adapt, nearest_donor


def draw(seed, donors=4, designs=200):
    """Donors that share a trend, f32[D, M]."""
    rng = np.random.default_rng(seed)
    shared = rng.gamma(4, 1, designs)
    return (shared + rng.gamma(2, 0.5, (donors, designs))).astype(np.float32)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 1000),
    donor=st.integers(0, 3),
    scale=st.floats(0.0625, 16, width=32),
    offset=st.floats(0, 10, width=32),
)
def test_a_scaled_and_shifted_donor_is_found_and_reproduced(seed, donor, scale, offset):
    donors = draw(seed)
    target = scale * donors[donor] + offset
    near = nearest_donor(jnp.asarray(donors[:, :10]), jnp.asarray(target[:10]))
    assert int(near.donor) == donor
    assert float(near.slopes[donor]) == pytest.approx(scale, rel=1e-3)
    model = adapt(jnp.asarray(donors[:, :10]), jnp.asarray(target[:10]))
    np.testing.assert_allclose(model.predict(jnp.asarray(donors)), target, rtol=1e-3, atol=1e-3)


def test_a_large_penalty_keeps_the_nearest_donor():
    donors = jnp.asarray(draw(0))
    target = donors[0] + 0.5 * donors[1]
    model = adapt(donors[:, :10], target[:10], penalty=1e6)
    predicted = np.asarray(model.predict(donors))
    kept = np.asarray(donors[model.nearest])
    assert np.corrcoef(predicted, kept)[0, 1] == pytest.approx(1, abs=1e-5)


def test_a_mixture_of_donors_is_predicted_better_than_by_the_nearest_alone():
    errors = []
    for seed in range(5):
        donors = jnp.asarray(draw(seed))
        target = 0.5 * donors[0] + 0.5 * donors[1]
        few = donors[:, :10], target[:10]
        predicted = [adapt(*few, penalty=penalty).predict(donors) for penalty in (0.1, 1e6)]
        errors.append([float(jnp.mean((one - target) ** 2)) for one in predicted])
    adapted, kept = np.mean(errors, axis=0)
    assert adapted < 0.5 * kept


def test_a_donor_that_orders_designs_the_other_way_is_not_nearest():
    donors = jnp.asarray(draw(1))
    target = -donors[2] + 20
    near = nearest_donor(donors[:, :10], target[:10])
    assert float(near.slopes[2]) == 0


@pytest.mark.parametrize("shapes", [((4, 10), (9,)), ((10,), (10,)), ((4, 2), (2,))])
def test_shapes_that_do_not_fit_are_named(shapes):
    with pytest.raises(ValueError, match=r"expected donors \[D, N\]"):
        nearest_donor(jnp.ones(shapes[0]), jnp.ones(shapes[1]))


def test_a_penalty_that_is_not_positive_is_named():
    with pytest.raises(ValueError, match="penalty: expected a positive number, got 0"):
        adapt(jnp.ones((2, 4)), jnp.ones(4), penalty=0)
