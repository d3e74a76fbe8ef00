import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.training.batches import batch_indices, permuted


def epoch(number):
    """The four batches of an epoch over 12 samples, joined."""
    steps = range(4 * number, 4 * number + 4)
    parts = [batch_indices(jax.random.key(1), jnp.int32(s), size=12, batch=3) for s in steps]
    return np.concatenate(parts).tolist()


def test_every_epoch_is_another_permutation():
    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert epoch(0) == first


def test_what_is_left_over_at_an_epochs_end_is_skipped():
    seen = [batch_indices(jax.random.key(1), jnp.int32(s), size=11, batch=4) for s in range(2)]
    assert len(set(np.concatenate(seen).tolist())) == 8


@pytest.mark.parametrize("size", [1, 2, 5, 64, 65, 1000, 4097])
def test_positions_of_any_number_of_samples_are_permuted(size):
    found = permuted(jax.random.key(size), jnp.arange(size), size=size)
    assert sorted(found.tolist()) == list(range(size))


def test_every_sample_is_as_likely_at_every_position_and_neighbours_are_torn_apart():
    orders = jax.vmap(lambda key: permuted(key, jnp.arange(20), size=20))(jax.random.split(jax.random.key(0), 4000))
    orders = np.asarray(orders)
    counts = np.stack([np.bincount(orders[:, position], minlength=20) for position in range(20)])
    assert np.abs(counts - 200).max() < 5 * 200**0.5
    following = np.mean(np.diff(orders, axis=1) == 1)
    assert following == pytest.approx(1 / 20, abs=0.005)


def test_a_batch_larger_than_the_data_is_named():
    with pytest.raises(ValueError, match="batch: expected at most the 5 samples, got 6"):
        batch_indices(jax.random.key(1), jnp.int32(0), size=5, batch=6)
