import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.training import TrainState
from hadas_jax.training import batches as feeding
from hadas_jax.training.batches import Schedule, make_train_chunk, resident

COUNT, SCHEDULE = 14, Schedule(batch=4, chunk=3, steps_per_epoch=3)


class Notes:
    """A stream of images that all hold the number of their step, which notes whether random parts are read."""

    mean, std = (0.0,), (1.0,)

    def __init__(self):
        self.crops = []

    def batches(self, start_step, batch, *, augment=False, retry=0, part=0, parts=1):
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


def advance(images, *, seed=0, step=look, **options):
    key, order_key = jax.random.key(0), jax.random.key(seed)
    return make_train_chunk(step, images, schedule=SCHEDULE, key=key, order_key=order_key, **options)


def order_of(labelled, seed):
    """The samples that three steps on the device take by an order's key."""
    run = jax.jit(resident(look, batch=4, order_key=jax.random.key(seed)))
    states = [start().replace(step=jnp.int32(step)) for step in range(3)]
    return [run(state, jax.random.key(9), labelled)[1]["labels"] for state in states]


def test_images_on_the_device_come_in_the_order_of_their_key(labelled):
    for seed in (0, 1):
        _, found = advance(labelled, seed=seed)(start(), 0)
        np.testing.assert_array_equal(found["labels"], order_of(labelled, seed))
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
    ("samples", "batch", "expected"),
    [(60, 256, (60, 1, 1)), (1000, 64, (64, 15, 15)), (50_000, 128, (128, 78, 390)), (389, 1, None)],
)
def test_an_epoch_has_whole_chunks(samples, batch, expected):
    found = Schedule.of(samples, batch=batch)
    assert expected in (None, dataclasses.astuple(found))
    assert found.steps_per_epoch % found.chunk == 0
    assert found.steps_per_epoch * found.batch <= samples


def test_long_epochs_are_cut_into_equal_chunks_that_leave_out_next_to_nothing():
    chunks = [0, *(Schedule.of(steps, batch=1).chunk for steps in range(1, 4000))]
    assert [chunks[steps] for steps in (1, 19, 100, 390, 3900, 389)] == [1, 19, 100, 78, 100, 97]
    for steps, chunk in enumerate(chunks[1:2000], 1):
        assert 1 <= chunk <= 100
        assert steps - steps // chunk * chunk <= steps / 90


@pytest.mark.parametrize("stream", [False, True])
def test_debugging_names_the_step_and_the_value_that_is_not_finite(labelled, stream):
    def step(state, key, data):
        weights = {"kernel": jnp.float32(1) / (2 - state.step).astype(jnp.float32)}
        return state.replace(step=state.step + 1, weights=weights), {"loss": jnp.float32(0)}

    run = advance(Notes() if stream else labelled, step=step, debug=True)
    before = start().replace(weights={"kernel": jnp.float32(0)})
    with pytest.raises(ValueError, match=r"^weights/kernel: expected finite numbers, got others at step 3$"):
        run(before, 0)
    quiet = advance(Notes() if stream else labelled, step=step)
    assert np.isinf(quiet(before, 0)[0].weights["kernel"])


def test_debugging_changes_nothing_where_all_is_finite(labelled):
    plain, debugged = (advance(labelled, debug=debug)(start(), 0)[1] for debug in (False, True))
    for name, value in plain.items():
        np.testing.assert_array_equal(debugged[name], value)
