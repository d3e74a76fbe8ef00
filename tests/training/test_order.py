from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages
from hadas_jax.training import TrainState, resident


@partial(jax.jit, static_argnames=("size", "batch"))
def samples(key, step, *, size, batch):
    """The samples that a step takes of so many."""
    images = LabelledImages(jnp.zeros((size, 1, 1, 1)), jnp.arange(size, dtype=jnp.int32))
    state = TrainState(weights={}, optimiser=(), step=jnp.asarray(step, jnp.int32), rate=jnp.float32(1))
    look = resident(lambda state, key, data: (state, {"labels": data[1]}), batch=batch, order_key=key)
    return look(state, jax.random.key(0), images)[1]["labels"]


def epoch(number):
    """The four batches of an epoch over 12 samples, joined."""
    parts = [samples(jax.random.key(1), step, size=12, batch=3) for step in range(4 * number, 4 * number + 4)]
    return np.concatenate(parts).tolist()


def test_every_epoch_is_another_permutation():
    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert epoch(0) == first


def test_what_is_left_over_at_an_epochs_end_is_skipped():
    seen = [samples(jax.random.key(1), step, size=11, batch=4) for step in range(2)]
    assert len(set(np.concatenate(seen).tolist())) == 8


@pytest.mark.parametrize("size", [1, 2, 64, 65, 1000])
def test_any_number_of_samples_is_permuted(size):
    found = samples(jax.random.key(size), 0, size=size, batch=size)
    assert sorted(found.tolist()) == list(range(size))


def test_every_sample_is_as_likely_at_every_position_and_neighbours_are_torn_apart():
    keys = jax.random.split(jax.random.key(0), 4000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: samples(key, 0, size=20, batch=20)))(keys))
    counts = np.stack([np.bincount(orders[:, position], minlength=20) for position in range(20)])
    assert np.abs(counts - 200).max() < 5 * 200**0.5
    following = np.mean(np.diff(orders, axis=1) == 1)
    assert following == pytest.approx(1 / 20, abs=0.005)


def test_a_batch_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match="batch: expected at most the 5 samples, got 6"):
        samples(jax.random.key(1), 0, size=5, batch=6)
