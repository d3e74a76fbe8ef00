"""Learned correction of an analytic cost model: `log target = log base + correction(features)`.

The analytic model carries the scale and the physics, the correction what the model leaves out: a small ensemble of
perceptrons on standardised features, trained on the whole data with a robust (Huber) loss on the log ratio, so that
a relative error counts the same for small and large targets and outliers do not bend the fit. Features are clipped to
the range they were trained on: away from the data the correction stops growing and the analytic model takes over.
The members start from different weights; where they disagree, the data did not settle the correction.
Deep ensembles: Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474.

Shapes: N samples, D features, K members, H hidden units. `predict_target` takes one candidate; batch it with
`jax.vmap`.
Targets are in the user's unit, which must be that of the base.
"""

import dataclasses
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.typing import ArrayLike

from hw_models.fitting.descent import minimise
from hw_models.whole_files import as_npz, write_whole

_LEAST_SCALE = 1e-6
"""A feature that varies less than this is constant and stays at zero."""
_LEAST_SPREAD = 1e-6


@struct.dataclass
class Predictor:
    """A fitted correction; holds no training data.

    Attributes:
        center: f32[D], mean of each feature.
        scale: f32[D], standard deviation of each feature, 1 where it is constant.
        lowest: f32[D], smallest value of each feature in the training data.
        highest: f32[D], largest value.
        offset: f32[], median of the log ratio of target and base.
        input_weights: f32[K, D, H].
        input_bias: f32[K, H].
        hidden_weights: f32[K, H, H].
        hidden_bias: f32[K, H].
        output_weights: f32[K, H].
        output_bias: f32[K].
    """

    center: jax.Array
    scale: jax.Array
    lowest: jax.Array
    highest: jax.Array
    offset: jax.Array
    input_weights: jax.Array
    input_bias: jax.Array
    hidden_weights: jax.Array
    hidden_bias: jax.Array
    output_weights: jax.Array
    output_bias: jax.Array


class Prediction(NamedTuple):
    """What a predictor says of one candidate.

    Attributes:
        mean: f32[...], predicted target: geometric mean of the members.
        spread: f32[...], standard deviation of the members' log predictions, which is about a relative error.
            It ranks predictions by trust; noise of the measurements is not part of it.
    """

    mean: jax.Array
    spread: jax.Array


def fit_predictor(
    key: jax.Array,
    features: ArrayLike,
    log_base: ArrayLike,
    log_target: ArrayLike,
    *,
    members: int = 6,
    width: int = 32,
    steps: int = 600,
    learning_rate: float = 0.01,
    weight_decay: float = 0.5,
    huber_delta: float = 0.1,
) -> Predictor:
    """Fits the correction; one compiled scan over full-batch steps of AdamW with a cosine schedule.

    Args:
        key: Draws the initial weights.
        features: [N, D], what the correction may depend on, best as logarithms and ratios.
        log_base: [N], logarithm of the analytic model's prediction; zeros to learn the target alone.
        log_target: [N], logarithm of the measured target, in the unit of the base.
        members: K, size of the ensemble.
        width: H, hidden units of each of the two layers of a member.
        steps: Gradient steps.
        learning_rate: Of the first step.
        weight_decay: Pull of the weights towards zero, in units of the learning rate; the fewer samples and the
            noisier the targets, the more: 0.5 suits a thousand networks measured well, 3 to 6 some hundred.
        huber_delta: Log ratio up to which the loss is quadratic.

    Returns:
        The predictor.

    Raises:
        ValueError: Shapes do not match, there are fewer than two samples, or a value is not finite.
    """
    x, base, target = _checked(features, log_base, log_target)
    if min(members, width, steps) < 1:
        raise ValueError(f"fit_predictor: expected members, width, steps >= 1, got {members}, {width}, {steps}")
    deviation = x.std(axis=0)
    start = dataclasses.replace(
        _initial(key, members, x.shape[1], width),
        center=_f32(x.mean(axis=0)),
        scale=_f32(np.where(deviation > _LEAST_SCALE, deviation, 1.0)),
        lowest=_f32(x.min(axis=0)),
        highest=_f32(x.max(axis=0)),
        offset=_f32(np.median(target - base)),
    )
    rates = jnp.stack([_f32(learning_rate), _f32(weight_decay), _f32(huber_delta)])
    return _train(start, _f32(x), _f32(target - base), rates, steps)


def predict_target(predictor: Predictor, features: ArrayLike, log_base: ArrayLike) -> Prediction:
    """Predicts the target of one candidate; differentiable in the features and the base.

    Args:
        predictor: The fitted correction.
        features: [D].
        log_base: Scalar, logarithm of the analytic model's prediction.

    Returns:
        Mean in the unit of the base, and spread; both f32[].

    Raises:
        ValueError: `features` is not of shape [D] or `log_base` not a scalar.
    """
    x, base = jnp.asarray(features, jnp.float32), jnp.asarray(log_base, jnp.float32)
    if x.shape != predictor.center.shape or base.ndim != 0:
        raise ValueError(
            f"predict_target: expected features of shape {predictor.center.shape} and one log_base, "
            f"got {x.shape} and {base.shape}; use jax.vmap for several candidates"
        )
    corrections = _corrections(predictor, x)
    # The root has no gradient where all members agree.
    variance = jnp.mean((corrections - jnp.mean(corrections)) ** 2)
    return Prediction(mean=jnp.exp(base + jnp.mean(corrections)), spread=jnp.sqrt(variance + _LEAST_SPREAD**2))


def save_predictor(path: str | Path, predictor: Predictor) -> None:
    """Writes a predictor to an npz file of some 10 to 100 KB.

    Raises:
        ValueError: The file cannot be written.
    """
    write_whole(path, as_npz(to_arrays(predictor), compressed=True))


def load_predictor(path: str | Path) -> Predictor:
    """Reads what `save_predictor` wrote.

    Raises:
        ValueError: The file is missing or holds no predictor.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return from_arrays(dict(file))
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: expected a file of save_predictor, got: {error}") from None


def to_arrays(predictor: Predictor, prefix: str = "") -> dict[str, np.ndarray]:
    """The leaves of a predictor by name, as `np.savez` takes them."""
    return {prefix + name: np.asarray(leaf) for name, leaf in vars(predictor).items()}


def from_arrays(arrays: dict[str, np.ndarray], prefix: str = "") -> Predictor:
    """Builds a predictor from what `to_arrays` returned.

    Raises:
        ValueError: A leaf is missing.
    """
    names = [prefix + name for name in Predictor.__dataclass_fields__]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"predictor: expected arrays {', '.join(names)}, got none for {', '.join(missing)}")
    return Predictor(*(_f32(arrays[name]) for name in names))


def _corrections(predictor: Predictor, features: jax.Array) -> jax.Array:
    """Log corrections of the members for one candidate, f32[K]."""
    inside = jnp.clip(features, predictor.lowest, predictor.highest)
    x = (inside - predictor.center) / predictor.scale
    hidden = jax.nn.silu(jnp.einsum("d,kdh->kh", x, predictor.input_weights) + predictor.input_bias)
    hidden = jax.nn.silu(jnp.einsum("kh,khj->kj", hidden, predictor.hidden_weights) + predictor.hidden_bias)
    return predictor.offset + jnp.einsum("kh,kh->k", hidden, predictor.output_weights) + predictor.output_bias


@partial(jax.jit, static_argnames="steps")
def _train(start: Predictor, x: jax.Array, log_ratio: jax.Array, rates: jax.Array, steps: int) -> Predictor:
    learning_rate, weight_decay, huber_delta = rates
    schedule = optax.cosine_decay_schedule(1.0, steps)
    optimiser = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_schedule(lambda step: -learning_rate * schedule(step)),
    )

    def loss(trained: dict[str, jax.Array]) -> jax.Array:
        errors = jax.vmap(partial(_corrections, dataclasses.replace(start, **trained)))(x) - log_ratio[:, None]
        size = jnp.abs(errors)
        quadratic = 0.5 * errors**2 / huber_delta
        # The sum over members gives each the gradient it would have alone.
        return jnp.sum(jnp.mean(jnp.where(size < huber_delta, quadratic, size - 0.5 * huber_delta), axis=0))

    first = {name: leaf for name, leaf in vars(start).items() if name.endswith(("_weights", "_bias"))}
    return dataclasses.replace(start, **minimise(loss, first, optimiser, steps=steps))


def _initial(key: jax.Array, members: int, inputs: int, width: int) -> Predictor:
    input_key, hidden_key = jax.random.split(key)
    return Predictor(
        center=jnp.zeros(inputs),
        scale=jnp.ones(inputs),
        lowest=jnp.zeros(inputs),
        highest=jnp.zeros(inputs),
        offset=jnp.zeros(()),
        input_weights=jax.random.normal(input_key, (members, inputs, width)) / inputs**0.5,
        input_bias=jnp.zeros((members, width)),
        hidden_weights=jax.random.normal(hidden_key, (members, width, width)) / width**0.5,
        hidden_bias=jnp.zeros((members, width)),
        output_weights=jnp.zeros((members, width)),
        output_bias=jnp.zeros(members),
    )


def _checked(features: ArrayLike, log_base: ArrayLike, log_target: ArrayLike) -> tuple[np.ndarray, ...]:
    x, base, target = (np.asarray(values, np.float64) for values in (features, log_base, log_target))
    if x.ndim != 2 or base.shape != x.shape[:1] or target.shape != x.shape[:1]:
        raise ValueError(
            "fit_predictor: expected features [N, D], log_base [N] and log_target [N], "
            f"got {x.shape}, {base.shape} and {target.shape}"
        )
    if x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"fit_predictor: expected at least 2 samples of 1 feature, got {x.shape[0]} of {x.shape[1]}")
    for name, values in (("features", x), ("log_base", base), ("log_target", target)):
        if not np.isfinite(values).all():
            raise ValueError(f"fit_predictor: {name}: expected finite values, got {values[~np.isfinite(values)][0]}")
    return x, base, target


def _f32(values: ArrayLike) -> jax.Array:
    return jnp.asarray(values, jnp.float32)
