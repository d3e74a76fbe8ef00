import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.data import split
from hadas_jax.data.parts import HELD_OUT, TEST, TRAINING, Group, divide, limit


def numbered(labels):
    """Images whose first pixel tells which they are."""
    images = np.random.default_rng(0).random((len(labels), 3, 3, 1)).astype(np.float32)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return images


def all_parts(splits):
    return (splits.train, splits.validation, splits.calibration, splits.test)


def parts_of(splits):
    """The numbers of the images in every part, as int arrays."""
    return [np.asarray(part.images)[:, 0, 0, 0].astype(int) for part in all_parts(splits)]


def make_labels(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


def as_groups(train, held_out=None, test=None):
    """Groups that are given by their labels."""
    given = {TRAINING: train, HELD_OUT: held_out, TEST: test}
    return {name: Group(len(labels), labels) for name, labels in given.items() if labels is not None}


def plan(train, *, held_out=None, test=None, **arguments):
    """The parts of groups that are given by their labels."""
    return divide(as_groups(train, held_out, test), seed=0, source="x", **arguments)


def some(parts, images, *groups):
    """Parts of groups that are given by their labels, with fewer images to evaluate on."""
    return limit(parts, as_groups(*groups), seed=0, source="x", images=images, test_images=images)


def assert_shares(labels, chosen, slack):
    """Every class has its share of the chosen indices."""
    counts = np.bincount(labels)
    held = np.bincount(labels[chosen], minlength=len(counts))
    assert (np.abs(held - counts * len(chosen) / len(labels)) < slack).all()


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
    for part, chosen in zip(all_parts(splits), parts, strict=True):
        assert (np.asarray(part.labels) == labels[chosen]).all()
        assert (np.bincount(labels[chosen], minlength=len(counts)) >= 1).all()
        assert_shares(labels, chosen, 3)


def test_the_seed_alone_decides_the_split():
    labels = make_labels([30, 40])
    images = numbered(labels)
    first, again, other = (parts_of(split(images, labels, seed=seed, source="x")) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


def test_all_parts_are_standardised_by_the_training_images():
    labels = make_labels([50, 60, 70])
    images = numbered(labels)
    splits = split(images, labels, seed=0, source="x", class_names=("a", "b", "c"))
    train = images[parts_of(splits)[0]]
    assert splits.mean == (pytest.approx(train.mean(), rel=1e-5),)
    assert splits.std == (pytest.approx(train.std(), rel=1e-5),)
    taken, _ = splits.test.take(np.arange(splits.test.count))
    expected = (images[parts_of(splits)[3]] - train.mean()) / train.std()
    np.testing.assert_allclose(taken, expected, rtol=1e-3, atol=1e-4)
    assert (splits.image_size, splits.channels, splits.class_names) == (3, 1, ("a", "b", "c"))


def test_a_given_normalisation_replaces_that_of_the_training_images():
    labels = make_labels([50, 60])
    images = numbered(labels)
    splits = split(images, labels, seed=0, source="x", normalisation=((0.5,), (2.0,)))
    assert (splits.mean, splits.std) == ((0.5,), (2.0,))
    taken, _ = splits.train.take(np.arange(3))
    np.testing.assert_allclose(taken, (np.asarray(splits.train.images[:3]) - 0.5) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (((0.5,) * 3, (1.0,) * 3), "expected 1 means and deviations (channels), got 3 and 3"),
        (((0.5,), (0.0,)), "expected finite means, positive deviations"),
        (((float("nan"),), (1.0,)), "expected finite means, positive deviations"),
    ],
)
def test_a_wrong_normalisation_is_refused(wrong, message):
    labels = make_labels([50, 60])
    with pytest.raises(ValueError, match=r"x: normalisation: ") as caught:
        split(numbered(labels), labels, seed=0, source="x", normalisation=wrong)
    assert message in str(caught.value)


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


def test_validation_and_calibration_have_at_most_five_thousand_images():
    labels = make_labels([30_000, 20_000])
    parts = plan(labels)
    assert [len(part.rows) for part in parts] == [50_000 - 7_500 - 10_000, 5000, 5000, 7500]
    assert_shares(labels, parts.validation.rows, 2)
    assert len(plan(make_labels([40_000, 40_000])).test.rows) == 10_000


def test_a_test_set_of_its_own_is_the_test_part():
    labels, test = make_labels([100, 60]), make_labels([9, 1])
    parts = plan(labels, test=test)
    assert [part.group for part in parts] == [TRAINING, TRAINING, TRAINING, TEST]
    assert parts.test.rows.tolist() == list(range(10))
    assert [len(part.rows) for part in parts[:3]] == [160 - 48, 24, 24]
    assert sorted(np.concatenate([part.rows for part in parts[:3]]).tolist()) == list(range(160))


def test_held_out_images_are_validation_and_calibration_by_halves():
    labels, held_out, test = make_labels([3, 3]), make_labels([40, 20]), make_labels([5, 5])
    parts = plan(labels, held_out=held_out, test=test)
    assert [part.group for part in parts] == [TRAINING, HELD_OUT, HELD_OUT, TEST]
    assert len(parts.train.rows) == 6
    halves = [part.rows for part in (parts.validation, parts.calibration)]
    assert sorted(np.concatenate(halves).tolist()) == list(range(60))
    for half in halves:
        assert_shares(held_out, half, 2)


@settings(max_examples=25)
@given(st.integers(3, 30), st.booleans(), st.booleans())
def test_evaluation_parts_are_no_larger_than_asked_and_keep_the_shares(most, own_held_out, own_test):
    labels = make_labels([90, 60, 50])
    own = {"held_out": labels if own_held_out else None, "test": labels if own_test else None}
    whole = plan(labels, **own)
    parts = some(whole, most, labels, own["held_out"], own["test"])
    assert (parts.train.rows == whole.train.rows).all()
    for part, all_of_it in zip(parts[1:], whole[1:], strict=True):
        assert part.group == all_of_it.group
        assert set(part.rows.tolist()) <= set(all_of_it.rows.tolist())
        assert len(part.rows) == min(most, len(all_of_it.rows))
        assert_shares(labels, part.rows, 2)


def test_fewer_evaluation_images_than_classes_are_refused():
    labels = make_labels([20, 20, 20])
    with pytest.raises(ValueError, match="x: evaluation images: expected at least 3, the classes, got 2"):
        some(plan(labels), 2, labels)


def test_the_smallest_class_is_named_where_it_is_too_small():
    with pytest.raises(ValueError, match="got 1 of owl and too few of 1 more"):
        plan(make_labels([9, 1, 3]), class_names=("cat", "owl", "dog"))
    with pytest.raises(ValueError, match=r"got 1 of class 1$"):
        plan(make_labels([9, 1, 9]))


def test_without_labels_parts_are_drawn_from_all_images():
    groups = {TRAINING: Group(1000, None), TEST: Group(300, None)}
    parts = limit(divide(groups, seed=0, source="x"), groups, seed=0, source="x", images=None, test_images=100)
    assert [len(part.rows) for part in parts] == [700, 150, 150, 100]
    assert len(np.unique(np.concatenate([part.rows for part in parts[:3]]))) == 1000
    assert parts.test.rows.tolist() == sorted(set(parts.test.rows.tolist()))


def test_one_held_out_image_is_refused_because_calibration_would_have_none():
    with pytest.raises(ValueError, match=r"x: expected at least 2 images in its validation set, .* got 1"):
        plan(make_labels([9, 9]), held_out=make_labels([1]), test=make_labels([2, 2]))
    parts = plan(make_labels([9, 9]), held_out=make_labels([1, 1]), test=make_labels([2, 2]))
    assert (len(parts.validation.rows), len(parts.calibration.rows)) == (1, 1)
