import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.runs import loop
from hadas_jax.runs.checkpoints import Checkpoints
from hadas_jax.runs.loop import Guard
from hadas_jax.training import TrainState, augmentation, init_state, lower_rate, resident
from hadas_jax.training.batches import Schedule, make_train_chunk
from hadas_jax.training.optimisers import descend

ORDER, KEY = jax.random.key(1), jax.random.key(2)
COUNT, BATCH = 14, 4
OPTIMISER = optax.sgd(1e-3, momentum=0.9)
MEAN, DEVIATION = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.25], np.float32)


@pytest.fixture(scope="module")
def bytes_():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def labelled(bytes_):
    labels = jnp.arange(COUNT, dtype=jnp.int32)
    return LabelledImages(jnp.asarray(bytes_), labels, mean=jnp.asarray(MEAN), std=jnp.asarray(DEVIATION))


def at(step):
    """A state of so many steps that holds no weights."""
    return TrainState(weights={}, optimiser=(), step=jnp.asarray(step, jnp.int32), rate=jnp.float32(1))


def look(state, key, data):
    """A step that tells what it is given."""
    images, labels = data
    return state, {"labels": labels, "images": images, "draw": jax.random.uniform(key)}


@partial(jax.jit, static_argnums=(0, 2))
def _samples(count, step, batch):
    numbered = LabelledImages(jnp.zeros((count, 1, 1, 1)), jnp.arange(count, dtype=jnp.int32))
    return resident(look, batch=batch, order_key=ORDER)(at(step), KEY, numbered)[1]["labels"]


def samples(count, step, batch):
    """Which of so many samples the arrays' step takes."""
    return np.asarray(_samples(count, step, batch))


class Record:
    """A stream of the batches that arrays on the device give, which notes where it is started."""

    mean, std = tuple(MEAN.tolist()), tuple(DEVIATION.tolist())

    def __init__(self, images):
        self.images, self.starts = images, []

    def batches(self, start_step, batch, *, augment=False, retry=0):
        self.starts.append((start_step, retry))
        for step in itertools.count(start_step):
            index = samples(len(self.images), step, batch)
            yield self.images[index], index


def test_a_step_gets_its_part_of_the_epochs_order_standardised(labelled, bytes_):
    run = jax.jit(resident(look, batch=BATCH, order_key=ORDER))
    for step in (0, 2, 5):
        _, found = run(at(step), KEY, labelled)
        expected = samples(COUNT, step, BATCH)
        assert found["labels"].tolist() == expected.tolist()
        np.testing.assert_allclose(found["images"], (bytes_[expected] / 255 - MEAN) / DEVIATION, atol=1e-5)


def test_augmentation_sees_images_of_0_to_1_and_draws_apart_from_the_step(labelled, bytes_):
    seen = []

    def augment(key, images):
        seen.append((images.dtype, images.shape))
        return images * 0.0 + jax.random.uniform(key)

    run = jax.jit(resident(look, batch=BATCH, order_key=ORDER, augment=augment))
    _, found = run(at(0), KEY, labelled)
    assert seen == [(jnp.float32, (BATCH, 6, 6, 3))]
    drawn = np.asarray(found["images"])[0, 0, 0] * DEVIATION + MEAN
    assert (drawn >= 0).all()
    assert (drawn <= 1).all()
    assert float(found["draw"]) != pytest.approx(float(drawn[0]))


def test_what_every_step_shares_follows_the_batch(labelled):
    def step(state, key, data):
        (_, labels), weights = data
        return state, {"labels": labels, "weights": weights}

    run = jax.jit(resident(step, batch=BATCH, order_key=ORDER))
    _, found = run(at(0), KEY, (labelled, jnp.float32(7)))
    assert found["labels"].shape == (BATCH,)
    assert float(found["weights"]) == 7


def test_affine_warps_before_and_after_standardising_are_the_same(labelled):
    affine = augmentation("affine")
    before, plain = (
        jax.jit(resident(look, batch=BATCH, order_key=ORDER, augment=augment))(at(0), KEY, labelled)[1]["images"]
        for augment in (affine, None)
    )
    np.testing.assert_allclose(before, affine(jax.random.split(KEY)[1], plain), atol=1e-4)


def regression(state, key, data):
    """Something that learns from its batch and its key."""
    images, labels = data

    def loss(weights):
        noise = 0.01 * jax.random.normal(key, (len(labels),))
        return jnp.mean((jnp.sum(images, (1, 2)) @ weights - labels.astype(jnp.float32) / 10 + noise) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.weights)
    return descend(state, gradient, OPTIMISER), {"loss": value}


@pytest.fixture
def start():
    return init_state(jnp.zeros(3, jnp.float32), OPTIMISER)


def stream_of(images, chunk, stream=None):
    schedule = Schedule(BATCH, chunk, chunk)
    return make_train_chunk(
        regression, stream or Record(images), schedule=schedule, key=KEY, order_key=ORDER, augmentation="crop-flip"
    )


def test_streamed_steps_are_those_on_arrays(bytes_, labelled, start):
    step = resident(regression, batch=BATCH, order_key=ORDER, augment=augmentation("crop-flip"))
    whole = loop.run(loop.scanned(step, data=labelled, key=KEY, chunk=4), start, chunks=2, chunk=4)
    found = loop.run(stream_of(bytes_, 4), start, chunks=2, chunk=4)
    np.testing.assert_allclose(found.weights, whole.weights, rtol=1e-4)
    assert int(found.step) == 8


def test_a_stream_is_opened_once_and_where_a_resumed_run_goes_on(bytes_, start, tmp_path):
    stream = Record(bytes_)
    whole = loop.run(stream_of(bytes_, 2, stream), start, chunks=4, chunk=2)
    assert stream.starts == [(0, 0)]
    loop.run(stream_of(bytes_, 2, stream), start, chunks=1, chunk=2, checkpoints=Checkpoints(tmp_path))
    resumed = loop.run(stream_of(bytes_, 2, stream), start, chunks=4, chunk=2, checkpoints=Checkpoints(tmp_path))
    assert stream.starts == [(0, 0), (0, 0), (2, 0)]
    assert jax.tree.all(jax.tree.map(lambda a, b: (np.asarray(a) == np.asarray(b)).all(), resumed, whole))


def test_a_rolled_back_stream_is_asked_for_other_batches(bytes_, start):
    stream, calls = Record(bytes_), []
    advance = stream_of(bytes_, 2, stream)

    def once_bad(state, done, retry):
        state, metrics = advance(state, done, retry)
        calls.append((done, float(state.rate)))
        return state, metrics | ({"loss": np.full(2, np.nan)} if len(calls) == 2 else {})

    loop.run(once_bad, start, chunks=3, chunk=2, guard=Guard(lower_rate))
    assert calls == [(0, 1.0), (2, 1.0), (2, 0.5), (4, 0.5)]
    assert stream.starts == [(0, 0), (2, 1)]
