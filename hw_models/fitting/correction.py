"""Fits learned corrections of analytic cost models, and boards that are known as a whole; see `hw_models.correction`.

All is trained on the whole data with a robust (Huber) loss on the log ratio of target and base, so that a relative
error counts the same for small and large targets and outliers do not bend the fit.

Shapes: N samples (networks), D features, K members, H hidden units. Units: s, W, J, elements.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from scipy.cluster.vq import kmeans2

from hw_models.correction import (
    BoardPredictor,
    Correction,
    DeviceCorrection,
    LatencyBase,
    NetworkFeatures,
    PowerBase,
    Seen,
    base_power,
    base_times,
    latency_features,
    layer_features,
    log_corrections,
    power_features,
    predict_latency,
)
from hw_models.cost import network_cost, segment_latency
from hw_models.device import Device, OperatingPoint, default_point
from hw_models.fitting.device_parameters import Measured, minimise

_LEAST_SCALE = 1e-6
"""A feature that varies less than this is constant and stays at zero."""
_BASE_STEPS = 800
_BASE_LEARNING_RATE = 0.05
_BASE_HUBER_DELTA = 0.1
_MANY = 500
_WEIGHT_DECAY, _LESS_DECAY = 3.0, 0.5
"""Of a device's correction below and from `_MANY` measurements."""
_LEAST_SHARE = 0.1
"""Of a measured latency that is left to the layers of a network, however much its calls take."""
_POINTS = 32
"""Clusters that say where the data of a correction lie."""
_STUDENT: dict[str, Any] = {"members": 1, "width": 32, "steps": 1500, "weight_decay": 0.05, "learning_rate": 0.02}
"""What is trained to say what an ensemble says: there is no noise to guard against."""
_NEIGHBOUR = 0.1
"""Distance of a neighbour from a network, in standard deviations of each feature."""
_PartT = TypeVar("_PartT")


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
) -> Correction:
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
        The correction.

    Raises:
        ValueError: Shapes do not match, there are fewer than two samples, or a value is not finite.
    """
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
    if min(members, width, steps) < 1:
        raise ValueError(f"fit_predictor: expected members, width, steps >= 1, got {members}, {width}, {steps}")
    inputs, std = x.shape[1], x.std(axis=0)
    input_key, hidden_key = jax.random.split(key)
    start = Correction(
        center=jnp.float32(x.mean(axis=0)),
        scale=jnp.float32(np.where(std > _LEAST_SCALE, std, 1.0)),
        lowest=jnp.float32(x.min(axis=0)),
        highest=jnp.float32(x.max(axis=0)),
        offset=jnp.float32(np.median(target - base)),
        input_weights=jax.random.normal(input_key, (members, inputs, width)) / inputs**0.5,
        input_bias=jnp.zeros((members, width)),
        hidden_weights=jax.random.normal(hidden_key, (members, width, width)) / width**0.5,
        hidden_bias=jnp.zeros((members, width)),
        output_weights=jnp.zeros((members, width)),
        output_bias=jnp.zeros(members),
    )
    rates = jnp.stack([jnp.float32(learning_rate), jnp.float32(weight_decay), jnp.float32(huber_delta)])
    return _train(start, jnp.float32(x), jnp.float32(target - base), rates, steps)


def learn_correction(key: jax.Array, measured: Measured, device: Device, rows: np.ndarray) -> Device:
    """Adds to a device what measurements of networks teach beyond its roofline.

    What a network takes at any clocks, batch and format over the roofline there is taken to be the same at the highest
    clocks, one image at a time in the default format; calls of segments are left out.

    Args:
        key: Draws the initial weights of the correction.
        measured: N measurements.
        device: A roofline.
        rows: int[n], the measurements to learn from.

    Returns:
        The device with a correction.
    """
    # As many rows for every fold: what is trained in one shape is compiled once.
    rows = np.resize(rows, len(measured.latency_s))
    point = default_point(device)
    features, at_data, log_ratio = _as_at(jax.tree.map(lambda leaf: leaf[rows], measured), device, point)
    base, inputs, _ = _fit_latency_base(features, at_data * jnp.exp(log_ratio))
    decay = _WEIGHT_DECAY if len(rows) < _MANY else _LESS_DECAY
    learned = fit_predictor(key, inputs, np.zeros(len(rows)), log_ratio, weight_decay=decay)
    correction = DeviceCorrection(
        base=base,
        latency=distilled(learned, inputs),
        seen=seen_at(learned, inputs),
        point=point,
        number_format=device.formats[0],
        is_relative=True,
    )
    return dataclasses.replace(device, correction=correction)


@partial(jax.jit)
def _as_at(measured: Measured, device: Device, point: OperatingPoint) -> tuple[NetworkFeatures, jax.Array, jax.Array]:
    """Features of each network, its roofline at a point, and how much longer than the roofline it took; f32[N]."""

    def one(row: Measured) -> tuple[NetworkFeatures, jax.Array, jax.Array]:
        how: dict[str, Any] = {"batch": row.batch, "number_format": row.number_format, "segments": 0}
        calls_s = row.segments * segment_latency(device, row.point)
        roofline_s = network_cost(row.layers, device, row.point, **how).latency_s
        longer = jnp.log(jnp.maximum(row.latency_s - calls_s, _LEAST_SHARE * row.latency_s) / roofline_s)
        features = jax.tree.map(jnp.sum, layer_features(row.layers))
        return features, network_cost(row.layers, device, point, segments=0).latency_s, longer

    return jax.vmap(one)(measured)


def distilled(correction: Correction, features: ArrayLike) -> Correction:
    """Trains one small perceptron to say what an ensemble says: at networks, between pairs of them, and near them.

    Its draws are fixed: what it says is the ensemble's word, whichever weights it starts from.

    Args:
        correction: The ensemble.
        features: [N, D], of the networks that it was fitted to.

    Returns:
        A correction of one member, of the same range of features.
    """
    inside = np.asarray(features, np.float64)
    draws = np.random.default_rng(0)
    count = 2 * len(inside)
    first, second, third = (inside[draws.integers(0, len(inside), count)] for _ in range(3))
    share = draws.uniform(0, 1, (count, 1))
    near = third + _NEIGHBOUR * draws.standard_normal(third.shape) * np.asarray(correction.scale)
    every = np.concatenate([inside, inside, share * first + (1 - share) * second, near])
    every = np.clip(every, np.asarray(correction.lowest), np.asarray(correction.highest))
    said = np.asarray(jnp.mean(log_corrections(correction, jnp.float32(every.T)), axis=0))
    standard = (every - np.asarray(correction.center)) / np.asarray(correction.scale)
    student = fit_predictor(jax.random.key(0), standard, np.zeros(len(every)), said, **_STUDENT)
    # It standardises what is standardised already: that goes into its first layer.
    weights = student.input_weights / student.scale[None, :, None]
    return dataclasses.replace(
        student,
        input_weights=weights,
        input_bias=student.input_bias - jnp.einsum("d,kdh->kh", student.center, weights),
        **{name: getattr(correction, name) for name in ("center", "scale", "lowest", "highest")},
    )


def seen_at(correction: Correction, features: ArrayLike) -> Seen:
    """Summarises where the data of a correction lie, features [N, D], by the centres of clusters."""
    standard = (np.asarray(features, np.float64) - np.asarray(correction.center)) / np.asarray(correction.scale)
    distinct = np.unique(standard, axis=0)
    if len(distinct) > _POINTS:
        distinct = kmeans2(distinct, _POINTS, minit="++", seed=0, missing="warn")[0]
    return Seen(jnp.asarray(distinct, jnp.float32))


def fit_board(key: jax.Array, network: NetworkFeatures, latency_s: ArrayLike, power_w: ArrayLike) -> BoardPredictor:
    """Fits a board to measured networks.

    Args:
        key: Draws the initial weights of the corrections.
        network: Leaves f32[N].
        latency_s: f32[N], measured.
        power_w: f32[N], measured mean power of one rail; NaN where it was not measured.

    Returns:
        The board.

    Raises:
        ValueError: Shapes do not match, a latency is not positive and finite, or fewer than two networks have a
            power.
    """
    latency, power = np.asarray(latency_s, np.float32), np.asarray(power_w, np.float32)
    shapes = {np.shape(feature) for feature in vars(network).values()} | {power.shape}
    if latency.ndim != 1 or shapes != {latency.shape}:
        raise ValueError(f"fit_board: expected features, latency_s and power_w [N], got {latency.shape} and {shapes}")
    measured = ~np.isnan(power)
    if not (np.isfinite(latency).all() and (latency > 0).all() and (power[measured] > 0).all()):
        raise ValueError("fit_board: expected positive latency_s and positive power_w or NaN")
    latency_key, power_key = jax.random.split(key)
    latency_base, inputs, log_latency = _fit_latency_base(network, jnp.asarray(latency))
    correction = fit_predictor(latency_key, inputs, log_latency, np.log(latency))
    with_power = jax.tree.map(lambda feature: jnp.asarray(feature, jnp.float32)[measured], network)
    watts = jnp.asarray(power[measured])
    power_base, features, log_power = _fit_power_base(latency_base, correction, with_power, watts)
    return BoardPredictor(
        latency_base=latency_base,
        latency_correction=correction,
        power_base=power_base,
        power_correction=fit_predictor(power_key, features, log_power, jnp.log(watts)),
        seen=seen_at(correction, inputs),
        distilled=distilled(correction, inputs),
    )


@partial(jax.jit, static_argnames="steps")
def _train(start: Correction, x: jax.Array, log_ratio: jax.Array, rates: jax.Array, steps: int) -> Correction:
    learning_rate, weight_decay, huber_delta = rates
    schedule = optax.cosine_decay_schedule(1.0, steps)
    optimiser = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_schedule(lambda step: -learning_rate * schedule(step)),
    )

    def loss(trained: dict[str, jax.Array]) -> jax.Array:
        errors = jax.vmap(partial(log_corrections, dataclasses.replace(start, **trained)))(x) - log_ratio[:, None]
        size = jnp.abs(errors)
        quadratic = 0.5 * errors**2 / huber_delta
        # The sum over members gives each the gradient it would have alone.
        return jnp.sum(jnp.mean(jnp.where(size < huber_delta, quadratic, size - 0.5 * huber_delta), axis=0))

    first = {name: leaf for name, leaf in vars(start).items() if name.endswith(("_weights", "_bias"))}
    return dataclasses.replace(start, **minimise(loss, first, optimiser, steps=steps))


@jax.jit
def _fit_latency_base(network: NetworkFeatures, latency_s: jax.Array) -> tuple[LatencyBase, jax.Array, jax.Array]:
    """Fits the roofline; with features [N, 22] and log latencies [N] for its correction."""
    # Typical rates of embedded GPUs: 1 TMAC/s, 1e9 elements/s, 10 us per layer.
    first = LatencyBase(*(jnp.log(jnp.float32(start)) for start in (1e-12, 1e-9, 1e-9, 1e-5, 1e-5, 1e-4, 1.0)))
    base = _fit_base(first, lambda base: base_times(base, network).latency_s, latency_s)
    times = jax.vmap(base_times, in_axes=(None, 0))(base, network)
    return base, jax.vmap(latency_features)(network, times), jnp.log(times.latency_s)


@jax.jit
def _fit_power_base(
    latency_base: LatencyBase, correction: Correction, network: NetworkFeatures, power_w: jax.Array
) -> tuple[PowerBase, jax.Array, jax.Array]:
    """Fits the mean power at predicted latencies; with features [N, 25] and log powers [N] for its correction."""
    features, latency = jax.vmap(predict_latency, in_axes=(None, None, 0))(latency_base, correction, network)
    first = PowerBase(*(jnp.log(jnp.float32(start)) for start in (1.0, 1e-11, 1e-9)))
    base = _fit_base(first, lambda base: base_power(base, network, latency.mean), power_w)
    features = jax.vmap(power_features)(features, latency.mean)
    return base, features, jnp.log(base_power(base, network, latency.mean))


def _fit_base(first: _PartT, model: Callable[[_PartT], jax.Array], target: jax.Array) -> _PartT:
    optimiser = optax.adam(optax.cosine_decay_schedule(_BASE_LEARNING_RATE, _BASE_STEPS))

    def loss(base: _PartT) -> jax.Array:
        return jnp.mean(optax.huber_loss(jnp.log(model(base) / target), delta=_BASE_HUBER_DELTA))

    return minimise(loss, first, optimiser, steps=_BASE_STEPS)
