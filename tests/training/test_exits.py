import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.spaces import available_exits
from hadas_jax.supernet import apply_training, run_heads
from hadas_jax.training import exit_losses, exit_step, init_state, paper_exit_optimiser, sandwich_backbones

RATE = 0.1


def log_softmax(x):
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_exit_losses_are_those_written_out():
    rng = np.random.default_rng(0)
    logits, confidence, final = (rng.normal(0, 2, s).astype(np.float32) for s in ((4, 6, 3), (4, 6), (6, 3)))
    labels = rng.integers(0, 3, 6).astype(np.int32)
    expected = np.zeros(4)
    for e in range(4):
        for b in range(6):
            predicted = log_softmax(logits[e, b].astype(np.float64))
            right = logits[e, b].argmax() == labels[b]
            sure = 1 / (1 + np.exp(-np.float64(confidence[e, b])))
            expected[e] -= (np.exp(log_softmax(final[b].astype(np.float64))) * predicted).sum()
            expected[e] -= predicted[labels[b]]
            expected[e] -= np.log(sure if right else 1 - sure)
    found = exit_losses(*map(jnp.asarray, (logits, confidence, final, labels)))
    np.testing.assert_allclose(found, expected / 6, rtol=1e-4)


@pytest.fixture(scope="module")
def batch(spots):
    """The first images, so that all classes are there."""
    return spots.take(jnp.arange(30))


@pytest.fixture(scope="module")
def step(tiny_space):
    return jax.jit(chex.assert_max_traces(exit_step(tiny_space, optax.sgd(RATE), sampled=1), n=1))


@pytest.fixture(scope="module")
def trained(step, fresh, batch):
    """Backbone's weights as numpy before, states and metrics of ten steps."""
    before = jax.tree.map(np.array, fresh.backbone)
    state, history = init_state(fresh.heads, optax.sgd(RATE)), []
    for i in range(10):
        state, metrics = step(state, jax.random.key(i), (batch, fresh.backbone))
        history.append(metrics)
    return before, state, history


def test_exit_training_lowers_the_loss(trained):
    _, state, history = trained
    losses = [float(metrics["loss"]) for metrics in history]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert all(0 <= float(metrics["accuracy"]) <= 1 for metrics in history)
    assert int(state.step) == 10


def test_exit_training_moves_every_head_and_leaves_the_backbone(trained, fresh):
    before, state, _ = trained
    assert jax.tree.structure(state.weights) == jax.tree.structure(fresh.heads)
    for old, new in zip(jax.tree.leaves(fresh.heads), jax.tree.leaves(state.weights), strict=True):
        moved = np.asarray(old != new).reshape(len(new), -1)
        assert moved.any(1).all()
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(fresh.backbone), strict=True):
        assert (old == new).all()


@pytest.fixture(scope="module")
def alone(tiny_space, fresh, batch):
    """(heads, backbone) -> summed loss of the exits that it has, how many, and gradients; nothing is skipped."""
    images, labels = batch

    def total(heads, backbone):
        features, final = apply_training(tiny_space, fresh.backbone, backbone, images, skip="nothing")
        available = available_exits(tiny_space, backbone)
        logits, confidence, _ = run_heads(tiny_space, heads, features, available)
        losses = exit_losses(logits, confidence, final, labels)
        return jnp.sum(jnp.where(available, losses, 0.0)), jnp.sum(available)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("fixed", [False, True])
def test_gradients_are_those_of_the_mean_over_all_exits_that_the_backbones_have(
    tiny_space, fresh, batch, step, alone, fixed
):
    key = jax.random.key(7)
    backbones = sandwich_backbones(tiny_space, key, 1)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], backbones) for i in range(3)]
    if fixed:
        rows = rows[2:]
        step = jax.jit(exit_step(tiny_space, optax.sgd(RATE), backbone=rows[0]))
    state, metrics = step(init_state(fresh.heads, optax.sgd(RATE)), key, (batch, fresh.backbone))
    found = jax.tree.map(lambda old, new: (old - new) / RATE, fresh.heads, state.weights)
    expected, loss, exits = jax.tree.map(jnp.zeros_like, fresh.heads), 0.0, 0
    for backbone in rows:
        (part, count), gradient = alone(fresh.heads, backbone)
        expected = jax.tree.map(jnp.add, expected, gradient)
        loss, exits = loss + float(part), exits + int(count)
    assert float(metrics["loss"]) == pytest.approx(loss / exits, rel=1e-4)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) / exits
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b / exits, atol=1e-3 * largest)


def test_shapes_fit_for_several_resolutions_and_half_precision(tiny_space, fresh, batch):
    space = dataclasses.replace(tiny_space, resolution=(6, 8))
    optimiser = paper_exit_optimiser(3)
    state = init_state(fresh.heads, optimiser)
    step = exit_step(space, optimiser, dtype="bfloat16")
    after, metrics = jax.eval_shape(step, state, jax.random.key(0), (batch, fresh.backbone))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert set(metrics) == {"loss", "accuracy", "gradient_norm"}
