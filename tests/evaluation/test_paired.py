import numpy as np
import pytest
from fuzzing import DRAWS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, binomtest, multinomial

from hadas_jax.evaluation import NO_DIFFERENCE, accuracy_difference, accuracy_interval, least_images
from hadas_jax.evaluation.paired import LEAST, TAIL, bootstrap_interval, exact_interval


@st.composite
def outcomes(draw, most=3000):
    """Counts of images that only one or only the other network gets right, and of all images."""
    images = draw(st.integers(1, most))
    gained = draw(st.integers(0, images))
    return gained, draw(st.integers(0, images - gained)), images


def counts(images):
    """Every outcome on so many images, int[n, 2]."""
    return np.array([(gained, lost) for gained in range(images + 1) for lost in range(images + 1 - gained)])


def melded_tail(low, gained, lost, images):
    """The share of psi (2 theta - 1) at or below `low`, by adaptive quadrature over theta's density."""
    differ = gained + lost
    if gained == 0:
        return beta.sf(-low, differ + 1, images - differ)

    def below(theta):
        return beta.pdf(theta, gained, lost + 1) * beta.sf(low / (2 * theta - 1), differ + 1, images - differ)

    def above(theta):
        return beta.pdf(theta, gained, lost + 1) * beta.cdf(low / (2 * theta - 1), differ, images - differ + 1)

    if low < 0:
        return quad(below, 0, 0.5, limit=500)[0]
    return beta.cdf(0.5, gained, lost + 1) + quad(above, 0.5, 1, limit=500)[0]


@pytest.mark.parametrize(
    "case",
    [(0, 0, 270), (0, 2, 270), (1, 0, 270), (3, 5, 270), (6, 0, 270), (20, 25, 270), (9, 1, 11), (120, 3, 400)],
)
def test_the_exact_interval_ends_where_quadrature_says(case):
    gained, lost, images = case
    low, high = exact_interval(gained, lost, images=images)
    assert melded_tail(low, gained, lost, images) == pytest.approx(TAIL, abs=2e-5)
    assert melded_tail(-high, lost, gained, images) == pytest.approx(TAIL, abs=2e-5)


@pytest.mark.parametrize("images", [1, 4, 11, 20])
def test_the_exact_interval_covers_every_pair_of_rates_and_misses_at_no_end_too_often(images):
    pairs = counts(images)
    ends = np.array([exact_interval(int(gained), int(lost), images=images) for gained, lost in pairs])
    grid = np.r_[0, 0.001, 0.01, 0.03, np.linspace(0.05, 1, 20)]
    for gain, loss in ((gain, loss) for gain in grid for loss in grid if gain + loss <= 1):
        chances = multinomial.pmf(
            np.c_[pairs, images - pairs.sum(axis=1)], images, [gain, loss, max(0, 1 - gain - loss)]
        )
        for missed in (ends[:, 0] > gain - loss + 1e-9, ends[:, 1] < gain - loss - 1e-9):
            assert chances[missed].sum() <= TAIL + 1e-9


@settings(max_examples=200)
@given(outcomes())
def test_the_interval_holds_the_difference_is_symmetric_and_follows_the_counts(case):
    gained, lost, images = case
    found, mirrored = accuracy_difference(*case[:2], images=images), accuracy_difference(lost, gained, images=images)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert (mirrored.low, mirrored.high) == (-found.high, -found.low)
    low, _ = exact_interval(gained, lost, images=images)
    if gained + lost < images:
        assert exact_interval(gained + 1, lost, images=images)[0] >= low - 1e-9
        assert exact_interval(gained, lost + 1, images=images)[0] <= low + 1e-9


@pytest.mark.slow
@settings(max_examples=DRAWS)
@given(outcomes(most=100_000))
def test_every_outcome_has_an_interval(case):
    gained, lost, images = case
    found = accuracy_difference(gained, lost, images=images)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.is_shown(1.0)
    assert found.high - found.low < 1e-9 or gained + lost or found.low < 0


@settings(max_examples=100)
@given(outcomes(most=300))
def test_the_exact_interval_agrees_with_the_exact_test_of_mcnemar(case):
    gained, lost, images = case
    if gained + lost in (0, images):
        return
    low, _ = exact_interval(gained, lost, images=images)
    one_sided = binomtest(gained, gained + lost, alternative="greater").pvalue
    if abs(one_sided - TAIL) > 1e-6:
        assert (low > 0) == (one_sided < TAIL)


def test_the_bootstrap_is_the_sum_of_resampled_images():
    gained, lost, images = 60, 75, 400
    drawn = np.random.default_rng(0).multinomial(images, [gained / images, lost / images, 265 / images], size=200_000)
    wanted = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, [TAIL, 1 - TAIL])
    np.testing.assert_allclose(bootstrap_interval(gained, lost, images=images), wanted, atol=1.01 / images)
    found = accuracy_difference(gained, lost, images=images)
    assert min(gained, lost) >= LEAST
    assert (found.low, found.high) == bootstrap_interval(gained, lost, images=images)
    narrow, wide = (high - low for low, high in ((found.low, found.high), exact_interval(gained, lost, images=images)))
    assert 0.9 * wide < narrow <= wide


def test_networks_that_never_differ_need_so_many_images_to_be_shown_as_accurate():
    needed = least_images(0.005)
    assert needed == 736
    assert accuracy_difference(0, 0, images=needed).is_shown(0.005)
    assert not accuracy_difference(0, 0, images=needed - 1).is_shown(0.005)
    assert least_images(0.0) is None
    assert least_images(1.0) == 1
    assert NO_DIFFERENCE.is_shown(0.0)


def test_intervals_of_accuracies_are_those_of_clopper_and_pearson():
    for right in (0, 1, 7, 39, 40):
        wanted = binomtest(right, 40).proportion_ci(0.95, "exact")
        np.testing.assert_allclose(accuracy_interval(right, images=40), wanted, atol=1e-9)


@pytest.mark.parametrize("case", [(0, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_counts_that_do_not_fit_together_are_refused(case):
    with pytest.raises(ValueError, match=r"expected gained \+ lost of 0 \.\. images, got"):
        accuracy_difference(*case[:2], images=case[2])
