"""What a network may cost at most: the limits of a search, and by how much something breaks them.

Objectives are (error, latency_s, energy_j); a limit that is not set is +inf. An excess is relative: 0.1 stands for a
tenth above the limit, and the excess of several objectives is the largest of theirs.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

_LEAST_ERROR = 1e-3  # an error limit of 0 would make every excess infinite
_ROUNDING = 1e-6  # of float32 errors, so that the accuracy asked for itself is accepted


@dataclass(frozen=True)
class Limits:
    """Limits of a search; None: no limit.

    Attributes:
      max_latency_ms: of a sample on average.
      max_energy_mj: of a sample on average.
      min_accuracy: share of samples.
      max_params: weights of the backbone with batch norm folded in, exit heads aside.
    """

    max_latency_ms: float | None = None
    max_energy_mj: float | None = None
    min_accuracy: float | None = None
    max_params: int | None = None

    @property
    def objectives(self) -> np.ndarray:
        """Highest error, latency_s and energy_j, float32[3]; +inf for none."""
        highest = [
            None if self.min_accuracy is None else 1 - self.min_accuracy + _ROUNDING,
            None if self.max_latency_ms is None else self.max_latency_ms * 1e-3,
            None if self.max_energy_mj is None else self.max_energy_mj * 1e-3,
        ]
        return np.array([np.inf if value is None else value for value in highest], np.float32)

    @property
    def params(self) -> np.float32:
        """Highest number of weights, +inf for none."""
        return np.float32(np.inf if self.max_params is None else self.max_params)

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return self != NO_LIMITS


NO_LIMITS = Limits()


def relative_excess(objectives: tuple[jax.Array, jax.Array, jax.Array], limits: jax.Array) -> jax.Array:
    """By how much candidates exceed their limits: the largest value / limit - 1 over error, latency and energy.

    Args:
      objectives: error, latency_s, energy_j, float32[...] that broadcast together.
      limits: float32[3], +inf for none.

    Returns:
      float32[...]: at most 0 exactly where all limits are kept. An excess of error is relative to at least 0.001.
    """
    scale = limits.at[0].max(_LEAST_ERROR)

    def excess(value: jax.Array, m: int) -> jax.Array:
        none = jnp.isinf(limits[m])
        limit, unit = jnp.where(none, 0.0, limits[m]), jnp.where(none, 1.0, scale[m])
        return jnp.where(none, -1.0, (value - limit) / unit)

    error, latency, energy = (excess(value, m) for m, value in enumerate(objectives))
    return jnp.maximum(error, jnp.maximum(latency, energy))
