import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.settings import TrainingSettings
from hadas_jax.supernet import apply_training, initialise
from hadas_jax.training import init_state, sandwich_backbones, sandwich_step

BATCH, RATE = 30, 0.3
METRICS = {"loss", "accuracy", "smallest_accuracy", "gradient_norm"}


@pytest.fixture(scope="module")
def batch(spots):
    """The first images, so that all classes are there."""
    return spots.take(jnp.arange(BATCH))


@pytest.fixture(scope="module")
def step(tiny_space):
    """Options -> the compiled step."""

    @functools.cache
    def compiled(options):
        step = sandwich_step(tiny_space, optax.sgd(RATE), settings=options)
        chex.clear_trace_counter()  # it cannot tell steps of other options apart
        return jax.jit(chex.assert_max_traces(step, n=1))

    return compiled


@pytest.fixture(scope="module")
def run(step, fresh, batch):
    """Options, key -> gradients and metrics of one step from fresh weights."""

    def call(options, key):
        state, metrics = step(options)(init_state(fresh.backbone, optax.sgd(RATE)), key, batch)
        return jax.tree.map(lambda new, old: (old - new) / RATE, state.weights, fresh.backbone), metrics

    return call


@pytest.fixture(scope="module")
def alone(tiny_space, fresh, batch):
    """(backbone, slopes by the log-probabilities) -> gradients and logits of one backbone, nothing skipped."""

    @jax.jit
    def call(backbone, slopes):
        def loss(weights):
            logits = apply_training(tiny_space, weights, backbone, batch[0], skip="nothing")[1]
            return -jnp.sum(slopes * jax.nn.log_softmax(logits)) / BATCH, logits

        return jax.grad(loss, has_aux=True)(fresh.backbone)

    return call


def test_a_few_steps_lower_the_loss_and_report_finite_metrics(step, fresh, batch):
    state, losses = init_state(fresh.backbone, optax.sgd(RATE)), []
    for i in range(15):
        state, metrics = step(TrainingSettings(sampled=1))(state, jax.random.key(i), batch)
        assert set(metrics) == METRICS
        assert all(np.isfinite(value) for value in metrics.values())
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 15
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


@pytest.mark.parametrize("distillation", ["kl", "alpha"])
def test_gradients_are_the_sum_of_those_of_each_sub_network_alone(run, alone, tiny_space, batch, distillation):
    """The largest learns from labels; the others from its predictions, whose slopes are plain numbers here."""
    key = jax.random.key(4)
    found, metrics = run(TrainingSettings(sampled=1, distillation=distillation), key)
    backbones = sandwich_backbones(tiny_space, jax.random.split(key)[0], 1)
    largest, *others = [jax.tree.map(lambda leaf, i=i: leaf[i], backbones) for i in range(3)]
    labels = np.asarray(batch[1])
    truth = jnp.asarray(np.eye(3, dtype=np.float32)[labels] * 0.9 + 0.1 / 3)
    total, logits = alone(largest, truth)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    assert float(metrics["loss"]) == pytest.approx(-(np.asarray(truth) * np.log(p)).sum(1).mean(), rel=1e-4)
    assert float(metrics["accuracy"]) == pytest.approx((p.argmax(1) == labels).mean())
    for i, backbone in enumerate(others):
        _, own = alone(backbone, truth)
        slopes = p if distillation == "kl" else alpha_slopes(np.asarray(jax.nn.softmax(own), np.float64), p)
        gradient, own = alone(backbone, jnp.asarray(slopes, jnp.float32))
        total = jax.tree.map(jnp.add, total, gradient)
        if i == 0:
            right = (np.asarray(own).argmax(1) == labels).mean()
            assert float(metrics["smallest_accuracy"]) == pytest.approx(right)
    assert_close(found, total)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(total)), rel=1e-3)


def alpha_slopes(q, p):
    """See `alpha_divergence`: per sample those of the larger one."""
    weights = np.minimum(q / p, 5)
    negative, positive = 0.5 * (q * (weights - 1)).sum(1), (p * np.log(p / q)).sum(1)
    return np.where((negative > positive)[:, None], -q * weights, p)


def assert_close(found, expected, tolerance=1e-3):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * largest)


def test_computing_blocks_twice_and_what_is_used_alone_give_the_same_gradients(run):
    key = jax.random.key(4)
    exact, _ = run(TrainingSettings(sampled=1), key)
    again, _ = run(TrainingSettings(sampled=1, remat=True, cut=True), key)
    assert_close(again, exact)


def test_half_precision_gives_about_the_same_gradients_in_full_precision(run):
    key = jax.random.key(4)
    exact, metrics = run(TrainingSettings(sampled=1), key)
    rough, rough_metrics = run(TrainingSettings(sampled=1, dtype="bfloat16"), key)
    assert {leaf.dtype for leaf in jax.tree.leaves(rough)} == {jnp.dtype(jnp.float32)}
    assert_close(rough, exact, tolerance=0.1)
    assert float(rough_metrics["loss"]) == pytest.approx(float(metrics["loss"]), rel=0.05)
    assert float(rough_metrics["loss"]) != float(metrics["loss"])


def test_dropping_changes_the_largest_sub_network_alone(run):
    """Only the largest drops: the smallest answers as before, and rates of zero change nothing."""
    key = jax.random.key(4)
    _, plain = run(TrainingSettings(sampled=1), key)
    _, dropped = run(TrainingSettings(sampled=1, dropout=0.5, drop_connect=0.3), key)
    assert float(dropped["loss"]) != pytest.approx(float(plain["loss"]), rel=1e-3)
    assert float(dropped["smallest_accuracy"]) == float(plain["smallest_accuracy"])


def test_bestup_trains_other_sub_networks_than_uniform_sampling(run):
    differences = []
    for seed in range(4):
        uniform, _ = run(TrainingSettings(sampled=1), jax.random.key(seed))
        best, metrics = run(TrainingSettings(sampled=1, sampling="bestup"), jax.random.key(seed))
        assert all(np.isfinite(value) for value in metrics.values())
        differences.append(float(optax.tree.norm(jax.tree.map(jnp.subtract, uniform, best))))
    assert max(differences) > 1e-3


def test_every_sub_network_of_a_space_of_several_resolutions_sees_its_own(tiny_space, batch):
    """All shapes fit, for every option at once; the images themselves have a resolution of neither."""
    space = dataclasses.replace(tiny_space, resolution=(6, 8))
    options = TrainingSettings(sampling="bestup", distillation="alpha", dropout=0.1, dtype="bfloat16")
    optimiser = optax.sgd(RATE)
    weights = jax.eval_shape(lambda: initialise(space, jax.random.key(0))).backbone
    state = jax.eval_shape(lambda w: init_state(w, optimiser), weights)
    after, metrics = jax.eval_shape(sandwich_step(space, optimiser, settings=options), state, jax.random.key(0), batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert set(metrics) == METRICS


def test_the_sandwich_holds_the_largest_the_smallest_and_others(tiny_space):
    draw = jax.jit(sandwich_backbones, static_argnums=(0, 2))
    backbones, other = (draw(tiny_space, jax.random.key(seed), 3) for seed in (0, 1))
    assert backbones.width.shape == (5, 3)
    for row, wanted in enumerate((tiny_space.largest(), tiny_space.smallest())):
        for leaf, expected in zip(jax.tree.leaves(backbones), jax.tree.leaves(wanted), strict=True):
            assert (leaf[row] == expected).all()
    assert (backbones.depth[0] == 3).all()
    assert (other.width[2:] != backbones.width[2:]).any()
