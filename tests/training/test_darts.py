import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.settings import DartsTrainingSettings
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.supernet.darts.network import initialise_derived
from hadas_jax.training import init_state
from hadas_jax.training.darts import retrain_optimiser, retrain_step

NETWORK = DartsNetwork(channels=4, cells=1, classes=3, image_size=9, in_channels=1)
CELL = (
    *(("avg_pool_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 0), ("skip_connect", 2)),
    *(("dil_conv_3x3", 2), ("skip_connect", 0), ("skip_connect", 3), ("skip_connect", 4)),
)
GENOTYPE = Genotype(CELL, CELL)
STEPS = 10


@pytest.fixture(scope="module")
def batch(spots):
    return spots.take(jnp.arange(30))


@pytest.fixture(scope="module")
def weights():
    return initialise_derived(NETWORK, GENOTYPE, jax.random.key(0), auxiliary=True)


@pytest.fixture(scope="module")
def run(weights, batch):
    """Options, rate and number of steps -> the states and metrics of a training from fresh weights."""

    def call(settings, *, rate=0.1, steps=1):
        optimiser = retrain_optimiser(rate, STEPS, weight_decay=3e-4)
        step = retrain_step(NETWORK, GENOTYPE, optimiser, steps=STEPS, settings=settings)
        chex.clear_trace_counter()  # it cannot tell steps of other settings apart
        step = jax.jit(chex.assert_max_traces(step, n=1))
        states, metrics = [init_state(weights, optimiser)], []
        for i in range(steps):
            state, found = step(states[-1], jax.random.key(i), batch)
            states.append(state)
            metrics.append(found)
        return states, metrics

    return call


@pytest.fixture(scope="module")
def plain(run):
    return run(DartsTrainingSettings(drop_path=0.0), steps=STEPS)


def test_steps_lower_the_loss_and_report_finite_metrics(plain):
    _, metrics = plain
    assert set(metrics[0]) == {"loss", "accuracy", "gradient_norm"}
    assert all(np.isfinite(float(value)) for found in metrics for value in found.values())
    assert float(metrics[-1]["loss"]) < 0.5 * float(metrics[0]["loss"])
    assert float(metrics[-1]["accuracy"]) > 0.9


def test_all_weights_are_trained_the_auxiliary_head_too(plain):
    states, _ = plain
    for path, moved in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: np.abs(np.asarray(a - b)).max(), states[0].weights, states[-1].weights)
    ):
        assert moved > 0, jax.tree_util.keystr(path)


def test_nothing_is_dropped_at_the_first_step_and_something_later(run, plain):
    _, metrics = run(DartsTrainingSettings(drop_path=0.9), steps=3)
    losses = [(float(found["loss"]), float(whole["loss"])) for found, whole in zip(metrics, plain[1], strict=False)]
    assert losses[0][0] == pytest.approx(losses[0][1], rel=1e-5)
    assert losses[2][0] != pytest.approx(losses[2][1], rel=1e-2)


def test_targets_are_smoothed_and_without_its_weight_the_auxiliary_head_stays_as_it_is_but_for_decay(run, plain):
    settings = DartsTrainingSettings(auxiliary_weight=0.0, drop_path=0.0, label_smoothing=0.3)
    (before, after), metrics = run(settings)
    old, new = (state.weights["auxiliary"]["classifier"]["kernel"] for state in (before, after))
    np.testing.assert_allclose(new, old * (1 - 0.1 * 3e-4), rtol=1e-5)
    assert float(metrics[0]["loss"]) != pytest.approx(float(plain[1][0]["loss"]), rel=1e-3)


def test_the_optimiser_is_clipped_sgd_with_momentum_along_a_cosine():
    rng, rate, decay = np.random.default_rng(0), 0.1, 0.01
    optimiser = retrain_optimiser(rate, STEPS, weight_decay=decay)
    weights = {"kernel": rng.normal(size=(4, 3)), "scale": rng.normal(size=3)}
    gradients = [{name: 4 * rng.normal(size=leaf.shape) for name, leaf in weights.items()} for _ in range(STEPS)]
    as_jax = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)  # noqa: E731
    found, state = as_jax(weights), optimiser.init(as_jax(weights))
    momentum = {name: np.zeros_like(leaf) for name, leaf in weights.items()}
    for i, gradient in enumerate(gradients):
        updates, state = optimiser.update(as_jax(gradient), state, found)
        found = jax.tree.map(jnp.add, found, updates)
        scale = min(1, 5 / np.sqrt(sum(np.sum(leaf**2) for leaf in gradient.values())))
        now = 0.5 * rate * (1 + np.cos(np.pi * i / STEPS))
        for name in weights:
            momentum[name] = 0.9 * momentum[name] + scale * gradient[name] + decay * weights[name]
            weights[name] = weights[name] - now * momentum[name]
    for name, leaf in weights.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-5)
