"""Fits the parameters of a device to measurements, by gradient through the pure cost model.

The unknowns are log factors on the parameters of a base device: one common factor of time (and one of power) and a
factor of each parameter besides, with Gaussian priors around the base. Parameters that no measurement informs thus
follow the common factor (`informed` tells them apart), and ten measurements are enough to move a known device to a new
one; many measurements outweigh the prior. Residuals are log ratios under a Huber loss; several starts run under vmap.
The call of a segment is an unknown where rows have different numbers of segments, which tell it from the run.
Shapes: N measurements, L layers. Units: s, W, Hz.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from hw_models.cost import network_cost
from hw_models.device import Device, NumberFormat, OperatingPoint, match_settings
from hw_models.layers import LayerTable
from hw_models.measuring.measurements import Measurement, layer_tables

TreeT = TypeVar("TreeT")
Target = Literal["latency", "power"]
_RATES = ("macs_per_cycle", "weight_bytes_per_cycle", "activation_bytes_per_cycle")
_COSTS = ("core_cycles_per_weight_byte", "launch_cycles", "run_cycles", "run_s")
_CALL = "segment_cycles"
_POWERS = ("board_w", "core_idle_w", "core_w_per_hz", "memory_w_per_hz", "byte_j")
_OF_BOARD = ("board_w", "memory_w_per_hz", "byte_j", "host_curve_w")
"""Powers that the rail of the core does not carry."""
_COMMON_SIGNS = dict.fromkeys(_RATES, -1.0) | dict.fromkeys((*_COSTS, _CALL, *_POWERS, "host_curve_w"), 1.0)
"""How the log of each parameter follows the common factor; the others do not."""
# Zero has no logarithm: a base without some cost starts from one too small to matter.
_FLOORS = {
    "core_cycles_per_weight_byte": 1e-3,
    "launch_cycles": 10.0,
    "run_cycles": 10.0,
    "run_s": 1e-8,
    "segment_cycles": 1e4,
    "board_w": 1e-3,
    "core_idle_w": 1e-3,
    "core_w_per_hz": 1e-13,
    "memory_w_per_hz": 1e-13,
    "byte_j": 1e-14,
}
_NOISE = 0.05
"""Scale of residuals, as a log ratio: beyond it the loss grows linearly."""
_COMMON_SIGMA = 5.0
_CALL_SIGMA = 3.0
"""Standard deviation of the log factor of a call: most bases have none, so the floor is all that is known."""
_START_SIGMA = 0.7
_INFORMED = 0.5
"""A parameter is informed if measurements narrow its log to this part of the prior's standard deviation."""
_NORM_ORDERS = (1.0, 30.0)


@struct.dataclass
class Measured:
    """Measurements as arrays.

    Attributes:
        layers: Columns [N, L].
        point: Leaves f32[N].
        batch: f32[N].
        number_format: int32[N], a `NumberFormat`.
        latency_s: f32[N].
        power_w: f32[N], mean power of a run; NaN where it was not measured.
        is_core: bool[N], whether `power_w` is of the core alone, not of the whole board.
        segments: f32[N], calls of a run.
    """

    layers: LayerTable
    point: OperatingPoint
    batch: jax.Array
    number_format: jax.Array
    latency_s: jax.Array
    power_w: jax.Array
    is_core: jax.Array
    segments: jax.Array

    @property
    def tells_calls(self) -> bool:
        """Whether runs differ in their number of calls, which tells the time of a call from that of a run."""
        return bool(np.ptp(np.asarray(self.segments)) > 0)


@struct.dataclass
class _Factors:
    """Log factors on the parameters of a base device.

    Attributes:
        common: f32[], of every time (or power).
        own: Besides, by parameter and shaped as the parameter.
    """

    common: jax.Array
    own: dict[str, jax.Array]


def to_measured(rows: Sequence[Measurement], device: Device) -> Measured:
    """Turns rows into arrays; an empty clock is the device's highest, an empty format its default.

    Raises:
        ValueError: A clock or a number format is none of the device's.
    """
    formats = [NumberFormat[row.format.upper()] if row.format else device.formats[0] for row in rows]
    for row, chosen in zip(rows, formats, strict=True):
        if chosen not in device.formats:
            runs = ", ".join(form.name.lower() for form in device.formats)
            raise ValueError(f"{row.network}: format: expected one that {device.name} runs ({runs}), got {row.format}")
    power_w = [np.nan if row.power_w is None else row.power_w for row in rows]
    return Measured(
        layers=layer_tables(rows),
        point=OperatingPoint(*(_clock(rows, device, clock) for clock in ("core", "memory", "host"))),
        batch=jnp.asarray([row.batch for row in rows], jnp.float32),
        number_format=jnp.asarray([int(form) for form in formats], jnp.int32),
        latency_s=jnp.asarray([row.latency_ms * 1e-3 for row in rows], jnp.float32),
        power_w=jnp.asarray(power_w, jnp.float32),
        is_core=jnp.asarray([row.power_rail == "core" for row in rows]),
        segments=jnp.asarray([row.segments for row in rows], jnp.float32),
    )


def fit(
    key: jax.Array,
    measured: Measured,
    base: Device,
    *,
    weights: jax.Array,
    prior_sigma: float = 1.0,
    starts: int = 4,
    steps: int = 500,
) -> Device:
    """Fits the latency parameters of a device, then its power parameters at the latencies so found.

    The clocks and the voltage curve stay; without any measured power, all powers do. Where only the core's rail was
    measured, the powers of the rest of the board stay.

    Args:
        key: Of the starts; the first start is the base itself.
        measured: N measurements.
        base: Where to start from, and the centre of the prior.
        weights: f32[N], weight of each measurement in the loss; 0 leaves it out.
        prior_sigma: Standard deviation of the log factor of a parameter beyond the common one; small values
            stay near the base, as few measurements need.
        starts: Number of starts.
        steps: Steps of Adam per start.

    Returns:
        The device of the best start.
    """
    how: dict[str, Any] = {"weights": weights, "prior_sigma": prior_sigma, "starts": starts, "steps": steps}
    how["with_calls"] = measured.tells_calls
    device = _fit(key, measured, base, quantity="latency", **how)
    has_power = bool(np.any(np.isfinite(measured.power_w) & (np.asarray(weights) > 0)))
    return _fit(key, measured, device, quantity="power", **how) if has_power else device


@functools.partial(jax.jit, static_argnames=("quantity", "starts", "steps", "with_calls"))
def _fit(
    key: jax.Array,
    measured: Measured,
    base: Device,
    *,
    quantity: Target,
    weights: jax.Array,
    prior_sigma: jax.Array | float,
    starts: int,
    steps: int,
    with_calls: bool,
) -> Device:
    target = jnp.log(measured.latency_s if quantity == "latency" else measured.power_w)
    is_measured = (weights > 0) & jnp.isfinite(target)

    def loss(factors: _Factors) -> jax.Array:
        latency_s, power_w = predict(measured, _scaled(base, factors, quantity))
        predicted = jnp.log(latency_s if quantity == "latency" else power_w)
        residual = jnp.where(is_measured, predicted - jnp.where(is_measured, target, 0.0), 0.0) / _NOISE
        misfit = jnp.sum(weights * optax.losses.huber_loss(residual))
        calls = factors.own.get(_CALL, jnp.float32(0.0))
        own = sum(jnp.sum(leaf**2) for name, leaf in sorted(factors.own.items()) if name != _CALL)
        prior = own / prior_sigma**2 + (calls / _CALL_SIGMA) ** 2 + (factors.common / _COMMON_SIGMA) ** 2
        return misfit + 0.5 * prior

    optimiser = optax.chain(
        optax.clip_by_global_norm(100.0), optax.adam(optax.cosine_decay_schedule(0.1, steps, alpha=0.01))
    )

    def descend(start: _Factors) -> tuple[_Factors, jax.Array]:
        factors = minimise(loss, start, optimiser, steps=steps)
        return factors, loss(factors)

    ends, losses = jax.vmap(descend)(_starts(key, _centre(base, quantity, with_calls=with_calls), starts))
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    fitted = _scaled(base, jax.tree.map(lambda leaf: leaf[best], ends), quantity)
    if quantity == "latency":
        return fitted
    has_board = jnp.any(is_measured & ~measured.is_core)
    rest: dict[str, Any] = {
        name: jnp.where(has_board, getattr(fitted, name), getattr(base, name)) for name in _OF_BOARD
    }
    return dataclasses.replace(fitted, **rest)


@jax.jit
def predict(measured: Measured, device: Device) -> tuple[jax.Array, jax.Array]:
    """Predicts each measurement.

    Returns:
        latency_s and power_w, both f32[N]; the power is that of the measured rail.
    """
    nothing: dict[str, Any] = {name: jnp.zeros_like(getattr(device, name)) for name in _OF_BOARD}
    core = dataclasses.replace(device, **nothing)

    def one(row: Measured) -> tuple[jax.Array, jax.Array]:
        of_board, of_core = (
            network_cost(
                row.layers,
                powered,
                row.point,
                batch=row.batch,
                number_format=row.number_format,
                segments=row.segments,
            )
            for powered in (device, core)
        )
        return of_board.latency_s, jnp.where(row.is_core, of_core.energy_j, of_board.energy_j) / of_board.latency_s

    return jax.vmap(one)(measured)


def held_out(
    key: jax.Array,
    measured: Measured,
    base: Device,
    groups: np.ndarray,
    *,
    folds: int = 5,
    prior_sigma: float = 1.0,
    starts: int = 4,
    steps: int = 500,
    learn: Callable[[Device, np.ndarray], Device] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Predicts every measurement from a fit that has not seen its group.

    Args:
        key: Of the folds and the starts.
        measured: N measurements.
        base: As in `fit`.
        groups: [N], anything that can be compared; measurements of one group stay together.
        folds: At most; fewer where there are fewer groups.
        prior_sigma: As in `fit`.
        starts: As in `fit`.
        steps: As in `fit`.
        learn: Adds to a fitted device what some measurements int[n] teach besides; None: nothing.

    Returns:
        latency_s and power_w, f32[N]; the power at predicted latencies.

    Raises:
        ValueError: There is only one group.
    """
    _, members = np.unique(groups, return_inverse=True)
    count = int(members.max()) + 1
    if count < 2:
        raise ValueError("cross-validation: expected at least 2 groups, got 1")
    folds = min(folds, count)
    fold_key, fit_key = jax.random.split(key)
    fold_of_group = np.asarray(jax.random.permutation(fold_key, count)) % folds
    fold = jnp.asarray(fold_of_group[members])
    latency_s, power_w = jnp.zeros_like(measured.latency_s), jnp.zeros_like(measured.power_w)
    for i in range(folds):
        weights = (fold != i).astype(jnp.float32)
        device = fit(fit_key, measured, base, weights=weights, prior_sigma=prior_sigma, starts=starts, steps=steps)
        if learn is not None:
            device = learn(device, np.flatnonzero(np.asarray(weights)))
        predicted = predict(measured, device)
        latency_s = jnp.where(fold == i, predicted[0], latency_s)
        power_w = jnp.where(fold == i, predicted[1], power_w)
    return latency_s, power_w


def informed(
    measured: Measured, fitted: Device, *, quantity: Target, prior_sigma: float = 1.0
) -> dict[str, np.ndarray]:
    """Tells which parameters of a fitted device the measurements determine, and which the prior does.

    At the fitted parameters, the posterior is taken as Gaussian: Fisher information of the log predictions plus
    the precision of the prior, of all factors, the common one included. A parameter is informed if the standard
    deviation of its log, its own and the common factor together, is below half of `prior_sigma`; one that no
    measurement depends on keeps at least all of it.

    Args:
        measured: N measurements, all of which were fitted.
        fitted: What `fit` returned.
        quantity: What was fitted.
        prior_sigma: As in `fit`.

    Returns:
        bool by name of the parameter and shaped as the parameter; one for the whole curve of the host.
    """
    centre = _centre(fitted, quantity, with_calls=measured.tells_calls)
    target = np.asarray(measured.latency_s if quantity == "latency" else measured.power_w, np.float64)
    slopes = np.asarray(_slopes(measured, fitted, centre, quantity), np.float64)[np.isfinite(target)] / _NOISE
    own_signs = {name: jnp.full_like(leaf, _COMMON_SIGNS.get(name, 0.0)) for name, leaf in centre.own.items()}
    signs = _raveled(_Factors(common=jnp.float32(0.0), own=own_signs))
    is_common = _raveled(dataclasses.replace(centre, common=jnp.float32(1.0))) > 0
    common = int(np.argmax(is_common))
    sigmas = dict.fromkeys(own_signs, prior_sigma) | {_CALL: _CALL_SIGMA}
    sigma = {name: jnp.full_like(leaf, sigmas[name]) for name, leaf in own_signs.items()}
    precision = _raveled(_Factors(common=jnp.float32(_COMMON_SIGMA), own=sigma)) ** -2.0
    covariance = np.linalg.inv(slopes.T @ slopes + np.diag(precision))
    variance = np.diag(covariance) + 2 * signs * covariance[common] + signs**2 * covariance[common, common]
    _, shaped = ravel_pytree(centre)
    is_informed = shaped(jnp.asarray(variance < (_INFORMED * prior_sigma) ** 2, jnp.float32))
    return {_CALL: np.array(False)} | {name: np.asarray(leaf) > 0 for name, leaf in is_informed.own.items()}


def minimise(
    loss: Callable[[TreeT], jax.Array], first: TreeT, optimiser: optax.GradientTransformation, *, steps: int
) -> TreeT:
    """Follows the gradient of a loss from a first point.

    Args:
        loss: Maps a pytree of parameters to a scalar.
        first: The parameters to start from.
        optimiser: Turns gradients into updates.
        steps: How many; static.

    Returns:
        The parameters after the last step.
    """

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        parameters, state = carry
        gradient = jax.grad(loss)(parameters)
        # Adam raises its decay, a float, to its count, an int: no strict promotion rule allows that.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    (parameters, _), _ = jax.lax.scan(step, (first, optimiser.init(first)), None, length=steps)
    return parameters


def _clock(rows: Sequence[Measurement], device: Device, clock: str) -> jax.Array:
    """Settings of a clock of the device at which rows were measured, f32[N]."""
    table = np.asarray(getattr(device, f"{clock}_hz"), np.float64)
    given = [getattr(row, f"{clock}_mhz") for row in rows]
    hz = np.array([table[-1] if mhz is None else mhz * 1e6 for mhz in given])
    nearest, is_known = match_settings(table, hz)
    off = np.flatnonzero(~is_known)
    if off.size:
        settings = " ".join(f"{setting / 1e6:g}" for setting in table)
        raise ValueError(
            f"{rows[off[0]].network}: {clock}_mhz: expected a setting of {device.name} ({settings}), got "
            f"{given[off[0]]:g}; take a base whose clocks are assumed, or edit the table in a copy of it"
        )
    return jnp.asarray(table[nearest], jnp.float32)


def _scaled(base: Device, factors: _Factors, quantity: Target) -> Device:
    """Applies log factors; a common factor of time divides rates and multiplies costs."""
    own, common = factors.own, factors.common
    floored = {name: jnp.maximum(getattr(base, name), _FLOORS.get(name, 0.0)) for name in own}
    changed: dict[str, Any]
    if quantity == "latency":
        changed = {name: floored[name] * jnp.exp(own[name] - common) for name in _RATES}
        changed |= {name: floored[name] * jnp.exp(own[name] + common) for name in (*_COSTS, _CALL) if name in own}
        changed["format_speedup"] = base.format_speedup * jnp.exp(own["format_speedup"])
        lowest, highest = _NORM_ORDERS
        span = jnp.clip(base.norm_order - lowest, 0.02, highest - lowest)
        changed["norm_order"] = lowest + jnp.minimum(span * jnp.exp(own["norm_order"]), highest - lowest)
        # The speedup of the default format stays: the rates, which it multiplies, take its part.
        default = base.formats[0]
        changed["format_speedup"] = changed["format_speedup"].at[default].set(base.format_speedup[default])
    else:
        changed = {name: floored[name] * jnp.exp(own[name] + common) for name in _POWERS}
        changed["host_curve_w"] = base.host_curve_w * jnp.exp(own["host_curve_w"] + common)
        share = jnp.clip(base.core_stalled_share, 0.01, 0.99)
        odds = share / (1.0 - share) * jnp.exp(own["core_stalled_share"])
        changed["core_stalled_share"] = odds / (1.0 + odds)
    return dataclasses.replace(base, **changed)


def _raveled(factors: _Factors) -> np.ndarray:
    return np.asarray(ravel_pytree(factors)[0], np.float64)


@functools.partial(jax.jit, static_argnames="quantity")
def _slopes(measured: Measured, device: Device, centre: _Factors, quantity: Target) -> jax.Array:
    """Derivatives of the log predictions by the raveled log factors on a device, f32[N, P]."""
    flat, shaped = ravel_pytree(centre)

    def log_predicted(factors: jax.Array) -> jax.Array:
        return jnp.log(predict(measured, _scaled(device, shaped(factors), quantity))[quantity == "power"])

    return jax.jacfwd(log_predicted)(flat)


def _centre(base: Device, quantity: Target, *, with_calls: bool) -> _Factors:
    """Returns the factors of the base itself, all zero."""
    of_latency = (*_RATES, *_COSTS, *((_CALL,) if with_calls else ()), "format_speedup", "norm_order")
    of_power = (*_POWERS, "core_stalled_share")
    own = {name: jnp.zeros_like(getattr(base, name)) for name in (of_latency if quantity == "latency" else of_power)}
    if quantity == "power":
        own["host_curve_w"] = jnp.float32(0.0)  # one factor of the whole curve
    return _Factors(common=jnp.float32(0.0), own=own)


def _starts(key: jax.Array, centre: _Factors, starts: int) -> _Factors:
    """Returns the centre and random neighbours, leaves [starts, ...]."""
    leaves, shape = jax.tree.flatten(centre)
    keys = jax.random.split(key, len(leaves))
    is_random = (jnp.arange(starts) > 0).astype(jnp.float32)
    drawn = [
        _START_SIGMA * jax.random.normal(one, (starts, *leaf.shape)) * is_random.reshape(-1, *(1,) * leaf.ndim)
        for one, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(shape, drawn)
