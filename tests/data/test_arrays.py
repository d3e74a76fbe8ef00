import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.data import check_arrays, split


def numbered(labels):
    """Images whose first pixel tells which they are."""
    images = np.random.default_rng(0).random((len(labels), 3, 3, 1)).astype(np.float32)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return images


def parts_of(splits):
    """The numbers of the images in every part, as int arrays."""
    parts = (splits.train, splits.validation, splits.calibration, splits.test)
    raw = [np.asarray(part.images)[:, 0, 0, 0] * splits.deviation + splits.mean for part in parts]
    return [np.rint(values).astype(int) for values in raw]


def make_labels(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


@settings(max_examples=30)
@given(st.lists(st.integers(7, 40), min_size=2, max_size=12), st.integers(0, 5))
def test_parts_are_disjoint_stratified_and_complete(counts, seed):
    labels = make_labels(counts, seed)
    splits = split(numbered(labels), labels, seed=seed, source="x")
    parts = parts_of(splits)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    size = round(0.15 * len(labels))
    assert [len(part) for part in parts[1:]] == [size] * 3
    assert splits.classes == len(counts)
    found = (splits.train, splits.validation, splits.calibration, splits.test)
    for part, chosen in zip(found, parts, strict=True):
        assert (np.asarray(part.labels) == labels[chosen]).all()
        held = np.bincount(labels[chosen], minlength=len(counts))
        share = np.array(counts) * len(chosen) / len(labels)
        assert (held >= 1).all()
        assert (np.abs(held - share) < 3).all()


def test_the_seed_alone_decides_the_split():
    labels = make_labels([30, 40])
    images = numbered(labels)
    first, again, other = (parts_of(split(images, labels, seed=seed, source="x")) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


def test_all_parts_are_standardised_by_the_training_images():
    labels = make_labels([50, 60, 70])
    images = numbered(labels)
    splits = split(images, labels, seed=0, source="x")
    train = images[parts_of(splits)[0]]
    assert splits.mean == pytest.approx(train.mean(), rel=1e-5)
    assert splits.deviation == pytest.approx(train.std(), rel=1e-5)
    assert float(splits.train.images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(splits.train.images.std()) == pytest.approx(1, abs=1e-4)
    expected = (images[parts_of(splits)[3]] - train.mean()) / train.std()
    np.testing.assert_allclose(splits.test.images, expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=25)
@given(st.floats(0.05, 0.25), st.integers(1, 25))
def test_a_class_is_in_all_parts_or_the_number_needed_is_named(share, smallest):
    labels = make_labels([smallest, 40])
    needed = max(4, int(np.ceil(1 / share)))
    if smallest < needed:
        message = f"x: expected at least {needed} images of every class to split, got {smallest}"
        with pytest.raises(ValueError, match=message):
            split(numbered(labels), labels, seed=0, source="x", share=share)
    else:
        for part in parts_of(split(numbered(labels), labels, seed=0, source="x", share=share)):
            assert (np.bincount(labels[part], minlength=2) >= 1).all()


def test_bytes_are_scaled_to_one_and_channels_are_added():
    images, labels = check_arrays(np.full((4, 2, 2), 255, np.uint8), np.array([0, 1, 0, 1], np.uint8), source="x")
    assert images.shape == (4, 2, 2, 1)
    assert images.dtype == np.float32
    assert (images == 1).all()
    assert labels.dtype == np.int32
