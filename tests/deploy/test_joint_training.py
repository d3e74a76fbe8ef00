import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from static_networks import cut

from hadas_jax.deploy.fine_tune import joint_step, trainable, updated, with_statistics
from hadas_jax.deploy.materialise import materialise
from hadas_jax.runs.loop import scanned
from hadas_jax.supernet import estimate_batch_stats
from hadas_jax.training import init_state, resident


@pytest.fixture(scope="module")
def network(tiny_space, draw):
    """Segments and weights of the largest backbone of one stage, with two exits."""
    return cut(tiny_space, draw(tiny_space, 1), tiny_space.largest_genome, (1, 2))


def test_what_is_trained_comes_back_and_statistics_do_not_change(network):
    _, weights = network
    trained = trainable(weights)
    names = {name for own in trained.values() for name in own}
    assert names == {"kernel", "bias", "scale"}
    changed = updated(weights, jax.tree.map(lambda leaf: leaf + 1, trained))
    for layer, own in changed.items():
        for name, leaf in own.items():
            change = 0.0 if name in ("mean", "var") else 1.0
            np.testing.assert_allclose(leaf - weights[layer][name], change, atol=1e-6)


def test_statistics_are_those_that_the_supernet_estimates(tiny_space, draw):
    params, stats = draw(tiny_space, 2)
    backbone = tiny_space.largest()
    batches = jax.random.normal(jax.random.key(0), (3, 8, 9, 9, 1))
    estimated = estimate_batch_stats(tiny_space, params, backbone, batches, skip="blocks")
    place = {"backbone": backbone, "exits": (1, 2), "image_size": 9}
    segments, wanted = materialise(tiny_space, params, estimated, **place)
    _, before = materialise(tiny_space, params, stats, **place)
    found = with_statistics(segments, before, batches)
    for layer, own in wanted.items():
        for name, leaf in own.items():
            np.testing.assert_allclose(found[layer][name], leaf, rtol=1e-4, atol=1e-5)


def test_exits_and_classifier_learn_together(network, spots):
    segments, weights = network
    optimiser = optax.sgd(0.05, momentum=0.9)
    step = joint_step(segments, weights, optimiser, exit_weights=(0.5, 0.5))
    advance = scanned(
        resident(step, batch=30, order_key=jax.random.key(1)), data=spots, key=jax.random.key(2), chunk=30
    )
    state, metrics = advance(init_state(trainable(weights), optimiser), 0)
    assert jnp.mean(metrics["loss"][-5:]) < 0.7 * metrics["loss"][0]
    assert jnp.mean(metrics["accuracy"][-5:]) > 0.8
    assert jnp.mean(metrics["exit_accuracy"][-5:]) > 0.8
    assert int(state.step) == 30


def test_the_weight_of_an_exit_reaches_its_head_alone_and_the_trunk(network, spots):
    segments, weights = network
    images, labels = spots.take(jnp.arange(12))

    def changes(exit_weights):
        optimiser = optax.sgd(1.0)
        step = joint_step(segments, weights, optimiser, exit_weights=exit_weights)
        state, _ = jax.jit(step)(init_state(trainable(weights), optimiser), jax.random.key(0), (images, labels))
        moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), state.weights, trainable(weights))
        return {layer: max(own.values()) for layer, own in moved.items()}

    silent = changes((0.0, 1.0))
    assert silent["exit1_logits"] == 0
    assert silent["exit2_logits"] > 0
    assert silent["stem"] > 0
