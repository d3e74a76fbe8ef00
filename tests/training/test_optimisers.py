import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.supernet import is_kernel
from hadas_jax.training import init_state, lower_rate, paper_exit_optimiser, sgd
from hadas_jax.training.optimisers import descend


def test_only_kernels_are_decayed_also_where_blocks_are_stacked(fresh):
    marks = jax.tree_util.tree_leaves_with_path(is_kernel(fresh))
    names = {path[-1].key for path, _ in marks}
    assert names == {"kernel", "bias", "scale", "conv"}
    for path, mark in marks:
        assert mark == (path[-1].key in ("kernel", "conv"))
    rest = is_kernel(fresh.backbone)["stage0_rest"]
    assert not any(rest["project_bn"].values())
    assert rest["project"]["kernel"]
    assert rest["se"]["squeeze"] == {"kernel": True, "bias": False}


def test_sgd_clips_decays_and_follows_the_schedule_with_nesterov_momentum():
    weights = {"kernel": jnp.array([2.0, -1.0]), "bias": jnp.array([2.0, -1.0])}
    rates = [0.1, 0.05]
    optimiser = sgd(
        lambda count: jnp.where(count < 1, *jnp.asarray(rates, jnp.float32)),
        weight_decay=0.5,
        clip=optax.clip(1.0),
    )
    gradients = {name: jnp.array([3.0, 0.25]) for name in weights}
    state, found = optimiser.init(weights), weights
    expected = {name: np.array(value, np.float64) for name, value in weights.items()}
    momentum = dict.fromkeys(weights, 0.0)
    for rate in rates:
        updates, state = optimiser.update(gradients, state, found)
        found = optax.apply_updates(found, updates)
        for name in weights:
            slope = np.array([1.0, 0.25]) + (0.5 * expected[name] if name == "kernel" else 0.0)
            momentum[name] = 0.9 * momentum[name] + slope
            expected[name] = expected[name] - rate * (slope + 0.9 * momentum[name])
    for name in weights:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_a_lowered_rate_scales_the_steps_and_stays():
    optimiser, weights = optax.sgd(0.5), {"kernel": jnp.array([1.0])}
    state = init_state(weights, optimiser)
    lowered = lower_rate(lower_rate(state, 0.5), 0.5)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), lowered) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    for before, step in ((state, 0.5), (lowered, 0.125)):
        after = descend(before, {"kernel": jnp.array([1.0])}, optimiser)
        assert float(after.weights["kernel"][0]) == 1 - step
        assert float(after.rate) == float(before.rate)
        assert int(after.step) == 1


def test_the_papers_exit_optimiser_warms_up_falls_to_zero_and_clips():
    optimiser = paper_exit_optimiser(4, epochs=30, warmup_epochs=5, learning_rate=0.01)
    weights = {"bias": jnp.array([0.0])}
    state, steps = optimiser.init(weights), []

    @jax.jit
    def step(state):
        return optimiser.update({"bias": jnp.array([-10.0])}, state, weights)

    for _ in range(120):
        updates, state = step(state)
        steps.append(float(updates["bias"][0]))
    momentum = np.cumsum(0.9 ** np.arange(120))  # of gradients clipped to 1
    rates = np.array(steps) / (1 + 0.9 * momentum)
    count = np.arange(120)
    expected = np.where(count < 20, 0.01 * count / 20, 0.01 * (120 - count) / 100)
    np.testing.assert_allclose(rates, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps_per_epoch": 0}, "steps_per_epoch: expected at least 1, got 0"),
        ({"steps_per_epoch": 3, "epochs": 5}, "warmup_epochs: expected 0 to 4 of 5 epochs, got 5"),
    ],
)
def test_an_impossible_schedule_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        paper_exit_optimiser(**arguments)
