"""Errors of a predictor on networks that it was not fitted to.

Shapes: H networks left out.
"""

import dataclasses

import numpy as np
from scipy.stats import kendalltau


@dataclasses.dataclass(frozen=True)
class HeldOutErrors:
    """How near a predictor comes on networks it was not fitted to.

    Attributes:
        actual: float64[H], images/s.
        predicted: float64[H].
    """

    actual: np.ndarray
    predicted: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Relative errors, float64[H]."""
        return np.abs(self.predicted / self.actual - 1)

    @property
    def mean(self) -> float:
        """Mean relative error."""
        return float(self.relative.mean())

    @property
    def median(self) -> float:
        """Median relative error."""
        return float(np.median(self.relative))

    @property
    def percentile_95(self) -> float:
        """Relative error that 95 of 100 networks stay below."""
        return float(np.quantile(self.relative, 0.95))

    @property
    def kendall_tau(self) -> float:
        """Rank correlation; not a number for less than two networks."""
        if len(self.actual) < 2:
            return float("nan")
        return float(kendalltau(self.actual, self.predicted).statistic)
