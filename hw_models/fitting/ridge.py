"""Ridge regression in closed form, with the penalty that leaves one sample out best.

Weights have a Gaussian prior around zero; the offset has none. The residuals of leaving each sample out follow from
one singular value decomposition (Allen 1974, PRESS), so every penalty costs a product of matrices. Differentiable in
features and targets, away from repeated singular values.
Shapes: N samples, F features, K penalties. `predict_ridge` takes one sample or any leading dimensions.
"""

import jax
import jax.numpy as jnp
from flax import struct

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


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


def predict_ridge(fit: RidgeFit, features: jax.Array) -> jax.Array:
    """Predicts targets.

    Args:
        fit: A fit of F features.
        features: f32[..., F].

    Returns:
        f32[...].
    """
    center = fit.center.reshape((1,) * (features.ndim - 1) + fit.center.shape)
    # Centred before the product, which keeps float32 digits.
    return fit.offset + jnp.tensordot(features - center, fit.weights, axes=1)
