import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.spaces import block_active
from hadas_jax.supernet import apply_training, is_kernel
from hadas_jax.training import init_state, sandwich_backbones, sandwich_step, sgd
from hadas_jax.training.augment import batch_indices, random_affine

BATCH, RATE = 30, 0.3
ORDER_KEY = jax.random.key(9)


@pytest.fixture(scope="module")
def step(tiny_space, quick_jit):
    optimiser = optax.sgd(RATE)
    function = sandwich_step(tiny_space, optimiser, batch=BATCH, order_key=ORDER_KEY, sampled=1)
    return quick_jit(function), optimiser


def test_a_few_steps_lower_the_loss_and_report_finite_metrics(step, fresh, spots):
    run, optimiser = step
    state, losses = init_state(fresh.backbone, optimiser), []
    for i in range(15):
        state, metrics = run(state, jax.random.key(i), spots)
        assert set(metrics) == {"loss", "accuracy", "smallest_accuracy"}
        assert all(np.isfinite(value) for value in metrics.values())
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 15
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_the_largest_backbone_learns_from_labels_alone_and_teaches_without_a_gradient(
    step, fresh, spots, tiny_space, quick_jit
):
    """The classifier's gradient is that of losses whose targets are plain numbers."""
    run, optimiser = step
    key = jax.random.key(4)
    state, metrics = run(init_state(fresh.backbone, optimiser), key, spots)
    found = jax.tree.map(lambda new, old: (old - new) / RATE, state.weights["tail"]["classifier"], fresh.backbone["tail"]["classifier"])

    sample_key, shift_key = jax.random.split(key)
    backbones = sandwich_backbones(tiny_space, sample_key, 1)
    chosen = batch_indices(ORDER_KEY, jnp.int32(0), size=90, batch=BATCH)
    truth = np.eye(3, dtype=np.float32)[np.asarray(spots.labels[chosen])] * 0.9 + 0.1 / 3

    @quick_jit
    def logits_and_gradient(targets):
        def loss(classifier):
            images = random_affine(shift_key, spots.images[chosen], 0.0)
            weights = fresh.backbone | {"tail": fresh.backbone["tail"] | {"classifier": classifier}}
            logits = jax.vmap(lambda b: apply_training(tiny_space, weights, b, images, skip="nothing")[1])(backbones)
            return -jnp.sum(targets * jax.nn.log_softmax(logits)) / BATCH, logits

        return jax.grad(loss, has_aux=True)(fresh.backbone["tail"]["classifier"])

    _, logits = logits_and_gradient(jnp.zeros((3, BATCH, 3), jnp.float32))
    teacher = np.asarray(jax.nn.softmax(logits[0]))
    expected, _ = logits_and_gradient(jnp.asarray(np.stack([truth, teacher, teacher])))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(float(jnp.abs(b).max()), 1e-2))
    cross_entropy = -(truth * np.asarray(jax.nn.log_softmax(logits[0]))).sum(1).mean()
    assert float(metrics["loss"]) == pytest.approx(cross_entropy, rel=1e-4)


def test_the_sandwich_holds_the_largest_the_smallest_and_others(tiny_space):
    backbones = sandwich_backbones(tiny_space, jax.random.key(0), 3)
    assert backbones.width.shape == (5, 3)
    for row, wanted in enumerate((tiny_space.largest(), tiny_space.smallest())):
        for leaf, expected in zip(jax.tree.leaves(backbones), jax.tree.leaves(wanted), strict=True):
            assert (leaf[row] == expected).all()
    active = jax.vmap(lambda b: block_active(tiny_space, b))(backbones)
    assert active[0].all()
    other = sandwich_backbones(tiny_space, jax.random.key(1), 3)
    assert (other.width[2:] != backbones.width[2:]).any()


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
