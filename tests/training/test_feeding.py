import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.training import TrainState
from hadas_jax.training import batches as feeding
from hadas_jax.training.batches import Pace, batch_indices, chunk_of, fed, pace_of

COUNT, PACE = 14, Pace(batch=4, chunk=3, steps_per_epoch=3)


class Notes:
    """A stream of images that all hold the number of their step, which notes whether random parts are read."""

    mean, std = (0.0,), (1.0,)

    def __init__(self):
        self.crops = []

    def batches(self, start_step, batch, *, augment=False, retry=0):
        self.crops.append(augment)
        step = start_step
        while True:
            yield np.full((batch, 4, 4, 1), step, np.float32), np.full(batch, step, np.int32)
            step += 1


@pytest.fixture(scope="module")
def labelled():
    images = jnp.arange(COUNT, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, 4, 4, 1))
    return LabelledImages(images, jnp.arange(COUNT, dtype=jnp.int32), mean=jnp.zeros(1), std=jnp.ones(1))


def start():
    return TrainState(weights={}, optimiser=optax.EmptyState(), step=jnp.int32(0), rate=jnp.float32(1))


def look(state, key, data):
    """A step that tells what it is given."""
    (images, labels), *shared = data if isinstance(data[0], tuple) else (data,)
    found = {"labels": labels, "images": images, **{f"shared{k}": value for k, value in enumerate(shared)}}
    return state.replace(step=state.step + 1), found


def advance(images, *, seed=0, augmentation="none", shared=()):
    key, order_key = jax.random.key(0), jax.random.key(seed)
    return fed(look, images, pace=PACE, key=key, order_key=order_key, augmentation=augmentation, shared=shared)


def test_images_on_the_device_come_in_the_order_of_their_key(labelled):
    for seed in (0, 1):
        _, found = advance(labelled, seed=seed)(start(), 0)
        wanted = [batch_indices(jax.random.key(seed), jnp.int32(k), size=COUNT, batch=4) for k in range(3)]
        np.testing.assert_array_equal(found["labels"], wanted)
        np.testing.assert_array_equal(found["images"][..., 0, 0, 0], found["labels"])


def test_a_retry_takes_other_batches_and_draws_other_numbers(labelled):
    _, first = advance(labelled)(start(), 0)
    _, again = advance(labelled)(start(), 0, 0)
    tries = [first, *(advance(labelled)(start(), 0, retry)[1] for retry in (1, 2, 3))]
    np.testing.assert_array_equal(first["labels"], again["labels"])
    assert len({found["labels"].tobytes() for found in map(dict, jax.tree.map(np.asarray, tries))}) == 4


def test_what_is_shared_comes_behind_the_batch(labelled):
    shared = (jnp.float32(7.0),)
    for images in (labelled, Notes()):
        _, found = advance(images, shared=shared)(start(), 0)
        np.testing.assert_array_equal(found["shared0"], [7.0] * 3)


def test_a_stream_goes_on_from_the_step_that_is_due():
    _, found = advance(Notes())(start(), 6)
    np.testing.assert_array_equal(found["labels"], np.repeat([[6], [7], [8]], 4, axis=1))


@pytest.mark.parametrize(
    ("name", "crops"), [("none", False), ("affine", False), ("crop-flip", True), ("randaugment", True)]
)
def test_a_stream_reads_random_parts_for_augmentations_that_crop(name, crops):
    stream = Notes()
    advance(stream, augmentation=name)(start(), 0)
    assert stream.crops == [crops]


def test_runs_of_other_seeds_share_compiled_code(labelled, monkeypatch):
    programs = set()
    for seed in (0, 1):
        given = {}
        monkeypatch.setattr(feeding, "scanned", lambda step, given=given, **rest: given.update(step=step, **rest))
        advance(labelled, seed=seed)
        programs.add(jax.jit(given["step"]).lower(start(), given["key"], given["data"]).as_text())
    assert len(programs) == 1


@pytest.mark.parametrize(
    ("samples", "batch", "pace"),
    [(60, 256, Pace(60, 1, 1)), (1000, 64, Pace(64, 15, 15)), (50_000, 128, Pace(128, 78, 390)), (389, 1, None)],
)
def test_an_epoch_has_whole_chunks(samples, batch, pace):
    found = pace_of(samples, batch=batch)
    assert pace in (None, found)
    assert found.steps_per_epoch % found.chunk == 0
    assert found.steps_per_epoch * found.batch <= samples


def test_long_epochs_are_cut_into_equal_chunks_that_leave_out_next_to_nothing():
    assert [chunk_of(steps) for steps in (1, 19, 100, 390, 3900, 389)] == [1, 19, 100, 78, 100, 97]
    for steps in range(1, 2000):
        chunk = chunk_of(steps)
        assert 1 <= chunk <= 100
        assert steps - steps // chunk * chunk <= steps / 90
