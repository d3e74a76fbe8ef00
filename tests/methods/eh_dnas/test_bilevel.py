from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.data.arrays import LabelledImages
from hadas_jax.methods.eh_dnas.bilevel import BilevelState, WeightDescent, bilevel_step, resident_pair

WEIGHTS = {"w": jnp.array([0.3, -0.7, 1.1]), "b": jnp.array(0.2)}
ALPHA = jnp.array([0.5, -0.4])
KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 3)  # of the training loss ahead, of the search loss, of the training loss


def _batch(seed):
    images = jax.random.normal(jax.random.key(seed), (6, 3))
    return images, jnp.array([0, 1, 1, 0, 1, 0], jnp.int32)


def _loss(weights, alpha, batch, key):
    """Smooth, and neither quadratic nor separable in weights and architecture."""
    images, labels = batch
    mixed = jnp.tanh(images @ weights["w"]) * alpha[0] + jnp.sin(images @ (weights["w"] ** 2)) * jnp.exp(alpha[1])
    logit = mixed + weights["b"]
    return jnp.mean((logit - labels.astype(jnp.float32)) ** 2), {"accuracy": jnp.mean(logit)}


OPTIMISER = optax.sgd(0.1)


def _state():
    state = BilevelState.start(WEIGHTS, ALPHA, OPTIMISER)
    momentum = {"w": jnp.array([0.1, 0.2, -0.3]), "b": jnp.array(-0.2)}
    return state.replace(momentum=momentum)


def _gradient(descent, *, second_order=True, state=None):
    """The architecture's gradient, of a step by plain gradient descent at rate 1."""
    optimiser = optax.sgd(1.0)
    step = bilevel_step(_loss, descent=descent, optimiser=optimiser, second_order=second_order)
    state = (_state() if state is None else state).replace(architecture_optimiser=optimiser.init(ALPHA))
    return ALPHA - jax.jit(step)(state, KEY, (_batch(0), _batch(1)))[0].architecture


@partial(jax.jit, static_argnums=1)
def _unrolled(alpha, descent, rate=1.0):
    """Search loss after one step of the weights, by the definition."""
    gradient = jax.grad(lambda w: _loss(w, alpha, _batch(0), KEYS[0])[0])(WEIGHTS)
    state = _state()
    ahead = jax.tree.map(
        lambda w, g, m: w - rate * 0.5 * (descent.momentum * m + g + descent.weight_decay * w),
        WEIGHTS,
        gradient,
        state.momentum,
    )
    return _loss(ahead, alpha, _batch(1), KEYS[1])[0]


def test_second_order_gradient_agrees_with_finite_differences():
    descent = WeightDescent(schedule=lambda step: jnp.float32(0.5), clip=1e6)
    gradient = _gradient(descent)
    step = 1e-2
    for i in range(len(ALPHA)):
        move = step * jnp.eye(len(ALPHA))[i]
        slopes = [
            (_unrolled(ALPHA + scale * move, descent) - _unrolled(ALPHA - scale * move, descent)) / (2 * scale * step)
            for scale in (1.0, 0.5)
        ]
        extrapolated = (4 * slopes[1] - slopes[0]) / 3
        np.testing.assert_allclose(gradient[i], extrapolated, rtol=2e-3, atol=1e-5)


def test_second_order_with_a_bounded_gradient_shrinks_its_step():
    norm = float(optax.tree.norm(jax.grad(lambda w: _loss(w, ALPHA, _batch(0), KEYS[0])[0])(WEIGHTS)))
    state = _state().replace(momentum=jax.tree.map(jnp.zeros_like, WEIGHTS))
    found = [
        _gradient(
            WeightDescent(schedule=lambda step, rate=rate: jnp.float32(rate), clip=clip, weight_decay=0.0), state=state
        )
        for rate, clip in ((0.5, 1e6), (1.0, norm / 2))
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_first_order_gradient_is_that_of_the_search_loss_alone():
    gradient = _gradient(WeightDescent(schedule=lambda step: jnp.float32(0.5)), second_order=False)
    expected = jax.grad(lambda alpha: _loss(WEIGHTS, alpha, _batch(1), KEYS[1])[0])(ALPHA)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_step_moves_the_architecture_first_and_the_weights_by_it(second_order):
    descent = WeightDescent(schedule=lambda step: jnp.float32(0.5), momentum=0.5, weight_decay=0.01, clip=1e6)
    state = _state()
    step = bilevel_step(_loss, descent=descent, optimiser=OPTIMISER, second_order=second_order)
    following, metrics = step(state, KEY, (_batch(0), _batch(1)))
    gradient = _gradient(descent, second_order=second_order)
    np.testing.assert_allclose(following.architecture, ALPHA - 0.1 * gradient, rtol=1e-5)
    slope = jax.grad(lambda w: _loss(w, following.architecture, _batch(0), KEYS[0])[0])(WEIGHTS)
    momentum = jax.tree.map(lambda m, g, w: 0.5 * m + g + 0.01 * w, state.momentum, slope, WEIGHTS)
    expected = jax.tree.map(lambda w, m: w - 0.5 * m, WEIGHTS, momentum)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), following.weights, expected)
    assert int(following.step) == 1
    assert set(metrics) == {"loss", "accuracy", "train_loss", "train_accuracy", "architecture_gradient"}


def test_pair_of_batches_comes_from_the_sets_in_their_order():
    def images(value, count):
        return LabelledImages(
            images=jnp.full((count, 2, 2, 1), value, jnp.float32),
            labels=jnp.full((count,), int(value), jnp.int32),
            mean=jnp.zeros(1),
            std=jnp.ones(1),
        )

    def step(state, key, data):
        (train, train_labels), (search, search_labels) = data
        return state, {"train": train[0, 0, 0, 0], "search": search[0, 0, 0, 0], "labels": search_labels - train_labels}

    orders = (jax.random.key(0), jax.random.key(1))
    data = (images(1.0, 7), images(4.0, 5), orders)
    _, metrics = resident_pair(step, batch=3)(_state(), jax.random.key(2), data)
    assert float(metrics["train"]) == 1.0
    assert float(metrics["search"]) == 4.0
    np.testing.assert_array_equal(metrics["labels"], [3, 3, 3])
