import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.data import split

OF_ITS_OWN = {"held_out": 100_000, "test": 200_000}  # numbers of images that do not come from the training images


def numbered(labels, first=0, *, size=3):
    """Images whose first pixel tells which they are."""
    images = np.random.default_rng(0).random((len(labels), size, size, 1)).astype(np.float32)
    images[:, 0, 0, 0] = first + np.arange(len(labels))
    return images


def all_parts(splits):
    return (splits.train, splits.validation, splits.calibration, splits.test)


def parts_of(splits):
    """The numbers of the images in every part, as int arrays."""
    return [np.asarray(part.images)[:, 0, 0, 0].astype(int) for part in all_parts(splits)]


def make_labels(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


def divided(labels, *, held_out=None, test=None, **arguments):
    """The numbers of the images in every part; of groups of its own they begin with `OF_ITS_OWN`."""
    own = {"held_out": held_out, "test": test}
    pairs = {name: (numbered(of, OF_ITS_OWN[name], size=1), of) for name, of in own.items() if of is not None}
    return parts_of(split(numbered(labels, size=1), labels, seed=0, source="x", **pairs, **arguments))


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
    expected = ((pytest.approx(train.mean(), rel=1e-5),), (pytest.approx(train.std(), rel=1e-5),))
    assert splits.normalisation == expected
    taken, _ = splits.test.take(np.arange(splits.test.count))
    expected = (images[parts_of(splits)[3]] - train.mean()) / train.std()
    np.testing.assert_allclose(taken, expected, rtol=1e-3, atol=1e-4)
    assert (splits.image_size, splits.channels, splits.class_names) == (3, 1, ("a", "b", "c"))


def test_a_given_normalisation_replaces_that_of_the_training_images():
    labels = make_labels([50, 60])
    images = numbered(labels)
    splits = split(images, labels, seed=0, source="x", normalisation=((0.5,), (2.0,)))
    assert splits.normalisation == ((0.5,), (2.0,))
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
    parts = divided(labels)
    assert [len(part) for part in parts] == [50_000 - 7_500 - 10_000, 5000, 5000, 7500]
    assert_shares(labels, parts[1], 2)
    assert len(divided(make_labels([40_000, 40_000]))[3]) == 10_000


def test_a_test_set_of_its_own_is_the_test_part():
    labels, test = make_labels([100, 60]), make_labels([9, 1])
    *others, tested = divided(labels, test=test)
    assert tested.tolist() == [OF_ITS_OWN["test"] + row for row in range(10)]
    assert [len(part) for part in others] == [160 - 48, 24, 24]
    assert sorted(np.concatenate(others).tolist()) == list(range(160))


def test_held_out_images_are_validation_and_calibration_by_halves():
    labels, held_out, test = make_labels([3, 3]), make_labels([40, 20]), make_labels([5, 5])
    train, *halves, tested = divided(labels, held_out=held_out, test=test)
    assert (train.tolist(), tested[0]) == (list(range(6)), OF_ITS_OWN["test"])
    halves = [half - OF_ITS_OWN["held_out"] for half in halves]
    assert sorted(np.concatenate(halves).tolist()) == list(range(60))
    for half in halves:
        assert_shares(held_out, half, 2)


@settings(max_examples=25)
@given(st.integers(3, 30), st.booleans(), st.booleans())
def test_evaluation_parts_are_no_larger_than_asked_and_keep_the_shares(most, own_held_out, own_test):
    labels = make_labels([90, 60, 50])
    own = {"held_out": labels if own_held_out else None, "test": labels if own_test else None}
    whole, parts = divided(labels, **own), divided(labels, evaluation_images=most, **own)
    assert (parts[0] == whole[0]).all()
    for part, all_of_it in zip(parts[1:], whole[1:], strict=True):
        assert set(part.tolist()) <= set(all_of_it.tolist())
        assert len(part) == min(most, len(all_of_it))
        assert_shares(labels, part % 100_000, 2)


def test_fewer_evaluation_images_than_classes_are_refused():
    with pytest.raises(ValueError, match="x: evaluation images: expected at least 3, the classes, got 2"):
        divided(make_labels([20, 20, 20]), evaluation_images=2)


def test_the_smallest_class_is_named_where_it_is_too_small():
    with pytest.raises(ValueError, match="got 1 of owl and too few of 1 more"):
        divided(make_labels([9, 1, 3]), class_names=("cat", "owl", "dog"))
    with pytest.raises(ValueError, match=r"got 1 of class 1$"):
        divided(make_labels([9, 1, 9]))


def test_one_held_out_image_is_refused_because_calibration_would_have_none():
    with pytest.raises(ValueError, match=r"x: expected at least 2 images in its validation set, .* got 1"):
        divided(make_labels([9, 9]), held_out=make_labels([1]), test=make_labels([2, 2]))
    parts = divided(make_labels([9, 9]), held_out=make_labels([1, 1]), test=make_labels([2, 2]))
    assert [len(part) for part in parts[1:3]] == [1, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_statistics_are_those_of_each_channel(dtype):
    images = np.random.default_rng(0).integers(0, [256, 20], (1500, 3, 3, 2)).astype(dtype)
    splits = split(images, make_labels([800, 700]), seed=0, source="x")
    values = np.asarray(splits.train.images, np.float64) / (255 if dtype == np.uint8 else 1)
    means, deviations = splits.normalisation
    np.testing.assert_allclose(means, values.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(deviations, values.std((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_channel_keeps_its_unit_and_constant_images_are_refused(dtype):
    images, labels = np.random.default_rng(0).integers(0, 256, (30, 3, 3, 2)).astype(dtype), make_labels([15, 15])
    images[..., 1] = 7
    assert split(images, labels, seed=0, source="x").normalisation[1][1] == 1.0
    with pytest.raises(ValueError, match=r"x: images: expected different values, got .* everywhere"):
        split(images[..., 1:], labels, seed=0, source="x")
