import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from static_networks import cut

from hadas_jax.deploy.fine_tune import joint_training, with_statistics
from hadas_jax.supernet import estimate_batch_stats


@pytest.fixture(scope="module")
def network(short):
    """Segments and weights of the largest backbone, with two exits."""
    return cut(*short, short[0].largest_genome, (1, 2))


OPTIMISER = optax.sgd(0.05, momentum=0.9)


def test_what_is_trained_is_neither_statistics_nor_the_rows_of_resizing(network):
    segments, weights = network
    state, _ = joint_training(segments, weights, OPTIMISER, exit_weights=(0.5, 0.5))
    assert {name for leaves in state.weights.values() for name in leaves} == {"kernel", "bias", "scale"}
    for layer, leaves in state.weights.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, weights[layer][name])


def test_statistics_are_those_that_the_supernet_estimates(short, network):
    space, (params, _) = short
    segments, before = network
    batches = jax.random.normal(jax.random.key(0), (3, 8, 9, 9, 1))
    estimated = estimate_batch_stats(space, params, space.largest(), batches, skip="blocks")
    _, wanted = cut(space, (params, estimated), space.largest_genome, (1, 2))
    found = with_statistics(segments, before, {}, batches)
    for layer, own in wanted.items():
        for name, leaf in own.items():
            np.testing.assert_allclose(found[layer][name], leaf, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def train(network, spots):
    """Weights of the exits' losses -> weights before and after 30 steps, and metrics; compiled once."""
    segments, weights = network
    order = np.concatenate([np.random.default_rng(k).permutation(90) for k in range(10)]).reshape(30, 30)
    images, labels = spots.take(jnp.arange(90))

    @jax.jit
    def run(exit_weights):
        before, step = joint_training(segments, weights, OPTIMISER, exit_weights=exit_weights)

        def one(state, rows):
            return step(state, jax.random.key(0), (images[rows], labels[rows]))

        after, metrics = jax.lax.scan(one, before, jnp.asarray(order))
        return before, after, metrics

    return lambda *exit_weights: run(jnp.array(exit_weights, jnp.float32))


def test_exits_and_classifier_learn_together(train):
    _, after, metrics = train(0.5, 0.5)
    assert jnp.mean(metrics["loss"][-5:]) < 0.7 * metrics["loss"][0]
    assert jnp.mean(metrics["accuracy"][-5:]) > 0.8
    assert jnp.mean(metrics["exit_accuracy"][-5:]) > 0.8
    assert int(after.step) == 30


def test_the_weight_of_an_exit_reaches_its_head_alone_and_the_trunk(train):
    before, after, _ = train(0.0, 1.0)

    def moved(layer):
        return max(
            float(jnp.abs(after.weights[layer][name] - leaf).max()) for name, leaf in before.weights[layer].items()
        )

    assert moved("exit1_logits") == 0
    assert moved("exit2_logits") > 0
    assert moved("stem") > 0
