from itertools import islice

import numpy as np
import pytest

from hadas_jax.data import Stream
from hadas_jax.data.images import ImageError, Source

COUNT, SIZE = 23, 6


def numbered(broken):
    """Images of several widths whose values tell which they are; some cannot be read."""

    def read(row):
        if row in broken:
            raise ImageError(f"row {row}")
        return np.full((SIZE, SIZE + row % 3, 3), row, np.uint8), row % 7

    return Source(
        name="x",
        channels=3,
        stored_bytes=1000,
        rows=np.arange(100),
        read=read,
        content=lambda row: read(row)[0].tobytes(),
        name_and_size=lambda row: f"{row}".encode(),
        read_labels=lambda: None,
    )


def stream(*, seed=3, broken=(), rows=None):
    source = numbered(broken).select(np.arange(10, 10 + COUNT) if rows is None else rows)
    return Stream(source, image_size=SIZE, seed=seed, name="x", mean=(0.1,) * 3, std=(0.5,) * 3)


def numbers(batches):
    """Of the images of batches, which they are."""
    return np.concatenate([images[:, 0, 0, 0] for images, _ in batches])


def test_batches_are_bytes_with_their_labels():
    images, labels = next(stream().batches(0, 5))
    assert (images.shape, images.dtype) == ((5, SIZE, SIZE, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((5,), np.int32)
    assert (labels == images[:, 0, 0, 0] % 7).all()


def test_every_epoch_has_every_image_once_in_another_order():
    found = numbers(islice(stream().batches(0, COUNT), 3))
    epochs = found.reshape(3, COUNT)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10, 10 + COUNT))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_what_processes_read_of_a_batch_is_all_of_it_in_order():
    whole = list(islice(stream(rows=np.arange(COUNT)).batches(2, 6, augment=True), 5))
    parts = [
        list(islice(stream(rows=np.arange(COUNT)).batches(2, 6, augment=True, part=part, parts=3), 5))
        for part in range(3)
    ]
    for number, batch in enumerate(whole):
        for kind, values in enumerate(batch):
            np.testing.assert_array_equal(np.concatenate([part[number][kind] for part in parts]), values)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("start", [1, 4, 9])
def test_training_goes_on_at_any_step_as_if_it_had_not_stopped(start, augment):
    rows = np.arange(COUNT)
    whole = list(islice(stream(rows=rows).batches(0, 5, augment=augment), 12))
    rest = list(islice(stream(rows=rows).batches(start, 5, augment=augment), 12 - start))
    for (images, labels), (found, others) in zip(whole[start:], rest, strict=True):
        assert (images == found).all()
        assert (labels == others).all()


def test_a_batch_may_be_larger_than_an_epoch():
    found = numbers([next(stream(rows=np.arange(3)).batches(2, 10))])
    assert set(found) == {0, 1, 2}


def test_the_seed_decides_the_order():
    orders = {seed: tuple(numbers(islice(stream(seed=seed).batches(0, 5), 3))) for seed in (0, 1, 2**32 - 1)}
    assert len(set(orders.values())) == 3


def test_a_retry_has_another_order():
    orders = [tuple(numbers(islice(stream().batches(0, 5, retry=retry), 3))) for retry in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 3


def test_samples_are_different_images_and_always_the_same():
    sample = stream().sample(9)
    drawn = np.asarray(sample.images)[:, 0, 0, 0]
    assert len(set(drawn.tolist())) == 9
    assert set(drawn.tolist()) <= set(range(10, 10 + COUNT))
    assert (np.asarray(sample.labels) == drawn % 7).all()
    assert (np.asarray(stream().sample(9).images) == np.asarray(sample.images)).all()
    images, _ = sample.take(np.arange(2))
    np.testing.assert_allclose(images[:, 0, 0, 0], (drawn[:2] / 255 - 0.1) / 0.5, rtol=1e-5)


@pytest.mark.parametrize("count", [0, COUNT + 1])
def test_samples_of_more_images_than_there_are_are_refused(count):
    with pytest.raises(ValueError, match=f"x: sample: expected 1 to {COUNT} images, got {count}"):
        stream().sample(count)


def test_an_image_that_cannot_be_read_is_named_when_its_batch_comes():
    broken = stream(broken=(12,))
    with pytest.raises(ValueError, match="expected an image of 8 bits, cannot read row 12"):
        list(islice(broken.batches(0, 5), 5))
    with pytest.raises(ValueError, match="x: expected images of 8 bits, cannot read 1: row 12"):
        broken.sample(COUNT)
