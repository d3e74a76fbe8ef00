import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.training import exit_losses, exit_step, init_state


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
def trained(tiny_space, fresh, spots, quick_jit):
    """Parameters before, backbone's weights as numpy before, states and metrics of ten steps."""
    before = jax.tree.map(np.array, fresh.backbone)
    optimiser = optax.sgd(0.1)
    run = quick_jit(
        exit_step(
            tiny_space,
            optimiser,
            batch=30,
            order_key=jax.random.key(2),
            sampled=1,
            shift=0.5,
        )
    )
    state, history = init_state(fresh.heads, optimiser), []
    for i in range(10):
        state, metrics = run(state, jax.random.key(i), (spots, fresh.backbone))
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
