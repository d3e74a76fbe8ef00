"""Few measurements: a new device from models of known ones, and linear models, both in closed form.

`nearest_donor` picks the known device (donor) whose predictions agree best with about ten measurements after a scale
and an offset. `adapt` starts from it and corrects it along the differences between donors, with a Gaussian prior around
the nearest one: what the measurements do not show stays as on that device. To move the parameters of a `Device`
instead, see `hw_models.fitting.device_parameters` with a small `prior_sigma`.

`fit_ridge` is ridge regression with the penalty that leaves one sample out best. Coefficients have a Gaussian prior
around zero; the offset has none. The residuals of leaving each sample out follow from one singular value decomposition
(Allen 1974, PRESS), so every penalty costs a product of matrices. Differentiable in features and targets, away from
repeated singular values.

Shapes: D donors, N measured designs, M designs; F features, K penalties. Predictions and measurements are in one unit
of time (not logarithms).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Nearest(NamedTuple):
    """How well donors agree with measurements.

    Attributes:
        donor: int32[], position of the donor that agrees best.
        slopes: f32[D], scale of each donor's predictions, at least 0.
        offsets: f32[D], to be added.
        residuals: f32[D], root mean square of what remains, in units of the measurements.
    """

    donor: jax.Array
    slopes: jax.Array
    offsets: jax.Array
    residuals: jax.Array


@struct.dataclass
class Adaptation:
    """A model of the new device: a weighted sum of donors.

    Attributes:
        weights: f32[D], of each donor's prediction.
        offset: f32[].
        nearest: int32[], the donor it started from.
    """

    weights: jax.Array
    offset: jax.Array
    nearest: jax.Array

    def predict(self, donors: jax.Array) -> jax.Array:
        """Predicts designs on the new device, f32[...], from predictions of the same donors for them, f32[D, ...]."""
        return self.offset + jnp.tensordot(self.weights, donors, axes=1)


@struct.dataclass
class RidgeFit:
    """A fitted linear model.

    Attributes:
        weights: f32[F].
        center: f32[F], mean of each feature in the samples.
        offset: f32[], prediction at `center`.
        penalty: f32[], chosen from the candidates.
        held_out_rms: f32[], root mean square of the residuals of leaving each sample out, in units of the target.
    """

    weights: jax.Array
    center: jax.Array
    offset: jax.Array
    penalty: jax.Array
    held_out_rms: jax.Array

    def predict(self, features: jax.Array) -> jax.Array:
        """Predicts targets, f32[...], from features, f32[..., F]."""
        center = self.center.reshape((1,) * (features.ndim - 1) + self.center.shape)
        # Centred before the product, which keeps float32 digits.
        return self.offset + jnp.tensordot(features - center, self.weights, axes=1)


def nearest_donor(donors: jax.Array, measured: jax.Array) -> Nearest:
    """Compares measurements with every donor, each after its best scale and offset.

    Args:
        donors: f32[D, N], predictions of the donors for the measured designs.
        measured: f32[N].

    Returns:
        The comparison; a donor that orders the designs the other way round counts as a constant.

    Raises:
        ValueError: Shapes do not fit or there are fewer than three measurements.
    """
    if donors.ndim != 2 or donors.shape[0] < 1 or measured.shape != donors.shape[1:] or measured.shape[0] < 3:
        raise ValueError(
            "adaptation: expected donors [D, N] and measurements [N] with N >= 3, "
            f"got {donors.shape} and {measured.shape}"
        )
    centered = donors - jnp.mean(donors, axis=1, keepdims=True)
    target = measured - jnp.mean(measured)
    squares = jnp.sum(centered**2, axis=1)
    slopes = jnp.maximum(centered @ target, 0.0) / jnp.where(squares > 0, squares, 1.0)
    offsets = jnp.mean(measured) - slopes * jnp.mean(donors, axis=1)
    residuals = jnp.sqrt(jnp.mean((target[None] - slopes[:, None] * centered) ** 2, axis=1))
    return Nearest(jnp.argmin(residuals), slopes, offsets, residuals)


def adapt(
    donors: jax.Array, measured: jax.Array, *, spread: jax.Array | None = None, penalty: float = 1.0
) -> Adaptation:
    """Adapts the nearest donor to a new device.

    Args:
        donors: f32[D, N], predictions of the donors for the measured designs.
        measured: f32[N].
        spread: f32[D], standard deviation of each donor's predictions over the whole space, which puts donors on
            one scale; None: over the measured designs.
        penalty: Variance of the measurements' noise over that of the weights of donors, both relative to the
            spread; a large one keeps the nearest donor as it is, up to scale and offset.

    Returns:
        The model.

    Raises:
        ValueError: As `nearest_donor`, or `penalty` is not positive.
    """
    if penalty <= 0:
        raise ValueError(f"penalty: expected a positive number, got {penalty}")
    start = nearest_donor(donors, measured)
    centered = donors - jnp.mean(donors, axis=1, keepdims=True)
    scales = jnp.std(donors, axis=1) if spread is None else spread
    scales = jnp.where(scales > 0, scales, 1.0)
    standard = centered / scales[:, None]
    differences = standard - standard[start.donor][None]
    anchor_scale = start.slopes[start.donor] * scales[start.donor]
    residual = measured - jnp.mean(measured) - anchor_scale * standard[start.donor]
    # Dual form: as many unknowns as measurements; the offset is free, so all is centred.
    gram = differences.T @ differences + penalty * jnp.eye(measured.shape[0])
    own = differences @ jnp.linalg.solve(gram, residual)
    is_nearest = jnp.arange(donors.shape[0]) == start.donor
    weights = (own + jnp.where(is_nearest, anchor_scale - jnp.sum(own), 0.0)) / scales
    return Adaptation(weights, jnp.mean(measured) - weights @ jnp.mean(donors, axis=1), start.donor)


def fit_ridge(features: jax.Array, targets: jax.Array, *, penalties: tuple[float, ...] = PENALTIES) -> RidgeFit:
    """Fits weights, choosing the penalty by leaving one sample out.

    Args:
        features: f32[N, F].
        targets: f32[N].
        penalties: Candidates, positive: variance of the noise over that of a weight.

    Returns:
        The fit of the best penalty.

    Raises:
        ValueError: Shapes do not fit, there are fewer than three samples, or a penalty is not positive.
    """
    if features.ndim != 2 or targets.shape != features.shape[:1] or targets.shape[0] < 3:
        raise ValueError(
            f"ridge: expected features [N, F] and targets [N] with N >= 3, got {features.shape} and {targets.shape}"
        )
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties: expected positive numbers, got {penalties}")
    count = targets.shape[0]
    center, offset = jnp.mean(features, axis=0), jnp.mean(targets)
    centered = targets - offset
    left, singular, right = jnp.linalg.svd(features - center[None], full_matrices=False)
    projected = left.T @ centered

    def residual_rms(penalty: jax.Array) -> jax.Array:
        shrinkage = singular**2 / (singular**2 + penalty)
        leverage = (left**2) @ shrinkage + 1.0 / count
        residuals = (centered - left @ (shrinkage * projected)) / jnp.maximum(1.0 - leverage, 1e-6)
        return jnp.sqrt(jnp.mean(residuals**2))

    candidates = jnp.asarray(penalties, jnp.float32)
    scores = jax.vmap(residual_rms)(candidates)
    best = jnp.argmin(scores)
    weights = right.T @ (singular / (singular**2 + candidates[best]) * projected)
    return RidgeFit(weights=weights, center=center, offset=offset, penalty=candidates[best], held_out_rms=scores[best])
