"""The difference in accuracy of two networks on the same images, with its 95 % interval.

Of n images, `gained` are those that only the first network gets right and `lost` those that only the second one does.
The rates of both are unknown, and the difference (gained - lost) / n is about theirs. With many of both the interval
is the percentile interval of the paired bootstrap: resampled differences are sums of n draws of +1, -1 and 0, so their
distribution is a convolution and needs no draws. With few it would be a point or too short, and the exact interval of
Fay and Lumbard (2021, https://doi.org/10.1002/sim.8829) takes its place: it joins the exact intervals of how often the
networks differ and of who is right then. Each end of either is missed at most 2.5 % of the time for every n and every
pair of rates that was tried (`experiments/interval_coverage.py`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betainc, betaincinv

TAIL = 0.025  # of each end
LEAST = 50  # gained and lost images that the bootstrap takes
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


@dataclass(frozen=True)
class Difference:
    """A difference in accuracy, a share of images, and the ends of its 95 % interval."""

    difference: float
    low: float
    high: float

    def is_shown(self, tolerance: float) -> bool:
        """Whether the first network is shown to be as accurate: less accurate by at most the tolerance."""
        return self.low >= -tolerance


NO_DIFFERENCE = Difference(0.0, 0.0, 0.0)  # of a network from itself


def accuracy_difference(gained: int, lost: int, *, images: int) -> Difference:
    """Compares two networks on the same images.

    Args:
        gained: Images that only the first one gets right.
        lost: Images that only the second one gets right.
        images: In all.

    Raises:
        ValueError: Counts that do not fit together.
    """
    if images < 1 or min(gained, lost) < 0 or gained + lost > images:
        raise ValueError(f"expected gained + lost of 0 .. images, got {gained} + {lost} of {images}")
    low, high = _interval(gained, lost, images)
    return Difference((gained - lost) / images, low, high)


def least_images(tolerance: float) -> int | None:
    """Returns how many images two networks that never differ need to be shown as accurate; None: no number is enough.

    The interval of no difference on n images reaches down to TAIL^(1/n) - 1.
    """
    if tolerance <= 0:
        return None
    return math.ceil(math.log(TAIL) / math.log1p(-tolerance)) if tolerance < 1 else 1


def accuracy_interval(right: int, *, images: int) -> tuple[float, float]:
    """Returns the exact 95 % interval (Clopper and Pearson 1934) of an accuracy: `right` of so many images."""
    low = betaincinv(right, images - right + 1, TAIL) if right else 0.0
    high = betaincinv(right + 1, images - right, 1 - TAIL) if right < images else 1.0
    return float(low), float(high)


@lru_cache(maxsize=4096)
def _interval(gained: int, lost: int, images: int) -> tuple[float, float]:
    interval = bootstrap_interval if min(gained, lost) >= LEAST else exact_interval
    return interval(gained, lost, images=images)


def bootstrap_interval(gained: int, lost: int, *, images: int) -> tuple[float, float]:
    """Returns the percentile interval of the paired bootstrap, from the exact distribution of its differences."""
    size = 1 << (2 * images).bit_length()
    one = np.zeros(size)
    one[:3] = np.array([lost, images - gained - lost, gained]) / images
    share = np.fft.irfft(np.fft.rfft(one) ** images, size)[: 2 * images + 1]

    def low(share: np.ndarray) -> float:
        return (int(np.searchsorted(np.cumsum(share), TAIL)) - images) / images

    return low(share), -low(share[::-1])


def exact_interval(gained: int, lost: int, *, images: int) -> tuple[float, float]:
    """Returns the melded interval of Fay and Lumbard, which agrees with the exact test of McNemar."""
    return _melded_low(gained, lost, images), -_melded_low(lost, gained, images)


def _melded_low(gained: int, lost: int, images: int) -> float:
    """The TAIL quantile of psi (2 theta - 1), both drawn from the lower confidence distributions.

    theta, the share of gained among images that differ, is Beta(gained, lost + 1). psi, the share of images that
    differ, is Beta(m, n - m + 1) where the product is positive, and Beta(m + 1, n - m) where it is negative, for then
    a larger share makes it lower; their distribution functions are those of binomial counts.
    """
    differ = gained + lost
    if differ == images:  # psi is 1
        return 2 * float(betaincinv(gained, lost + 1, TAIL)) - 1 if gained else -1.0
    below = float(betainc(gained, lost + 1, 0.5)) if gained else 1.0  # theta < 1/2: the product is negative
    start, end = (0.0, below) if below >= TAIL else (below, 1.0)
    at = start + (end - start) * (_NODES + 1) / 2
    weights = (end - start) * _WEIGHTS / 2
    lean = 2 * betaincinv(gained, lost + 1, at) - 1 if gained else np.full_like(at, -1.0)

    def share_below(product: float) -> float:
        psi = np.clip(product / lean, 0, 1)
        if below >= TAIL:
            return float(weights @ bdtr(differ, images, psi)) - TAIL
        return below + float(weights @ bdtrc(differ - 1, images, psi)) - TAIL

    ends = (-1.0, 0.0) if below >= TAIL else (0.0, 1.0)
    return float(brentq(share_below, *ends, xtol=1e-12)) if share_below(ends[1]) > 0 else ends[1]
