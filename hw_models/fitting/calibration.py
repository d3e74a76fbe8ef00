"""Calibration of a device file: measurements and a base in, a fitted file with its held-out errors out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau

from hw_models import schema
from hw_models.catalogue import device_names, load_device, to_device
from hw_models.device import Device
from hw_models.figures import FitError
from hw_models.fitting.device_parameters import Measured, distance, fit_all, held_out, predict, scale_of
from hw_models.formats import NumberFormat
from hw_models.layers import LayerKind
from hw_models.measuring.measurements import Measurement, clocks, layer_tables, number_formats

_FAR = 20.0
_LATENCY_FIGURES = {
    # figure: parameter of the device, units of the parameter per unit of the figure
    "weight_bytes_per_cycle": ("weight_bytes_per_cycle", 1.0),
    "activation_bytes_per_cycle": ("activation_bytes_per_cycle", 1.0),
    "norm_order": ("norm_order", 1.0),
    "launch_cycles": ("launch_cycles", 1.0),
    "run_cycles": ("run_cycles", 1.0),
    "run_time": ("run_s", 1e-6),
}
_POWER_FIGURES = {
    "board": ("board_w", 1.0),
    "core_idle": ("core_idle_w", 1.0),
    "core_load": ("core_w_per_hz", 1e-9),
    "core_stalled_share": ("core_stalled_share", 1.0),
    "memory_clock": ("memory_w_per_hz", 1e-9),
    "byte_energy": ("byte_j", 1e-12),
    "host": ("host_curve_w", 1.0),
}


@dataclass(frozen=True)
class HeldOut:
    """Predictions of measurements from fits that had not seen them.

    Attributes:
        left_out: What was left out together: families, networks, core clocks or memory clocks.
        latency_s: float64[N].
        power_w: float64[N], NaN where no power was measured.
        latency_error: Mean absolute relative error of the latency.
        latency_tau: Kendall's tau of predicted and measured latency.
        power_error: Mean absolute relative error of the power; None where none was measured.
    """

    left_out: str
    latency_s: np.ndarray
    power_w: np.ndarray
    latency_error: float
    latency_tau: float
    power_error: float | None


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration.

    Attributes:
        file: The fitted device file.
        device: The same as a `Device`.
        rows: The measurements.
        held_out: One entry per way of leaving out; the first one's errors stand in the file.
        latency_error: Mean absolute relative error on the measurements themselves.
        scale: Median of measured latency over that of the base device.
        warnings: What the user should look at, one line each.
    """

    file: schema.DeviceFile
    device: Device
    rows: tuple[Measurement, ...]
    held_out: tuple[HeldOut, ...]
    latency_error: float
    scale: float
    warnings: tuple[str, ...]


def to_measured(rows: Sequence[Measurement], device: Device) -> Measured:
    """Turns rows into arrays; empty fields get the device's defaults.

    Raises:
        ValueError: A clock or a number format is none of the device's.
    """
    rows = list(rows)
    power_w = [np.nan if row.power_w is None else row.power_w for row in rows]
    return Measured(
        layers=layer_tables(rows),
        point=clocks(rows, device),
        batch=jnp.asarray([row.batch for row in rows], jnp.float32),
        number_format=jnp.asarray([int(form) for form in number_formats(rows, device)], jnp.int32),
        latency_s=jnp.asarray([row.latency_ms * 1e-3 for row in rows], jnp.float32),
        power_w=jnp.asarray(power_w, jnp.float32),
        is_core=jnp.asarray([row.power_rail == "core" for row in rows]),
    )


def nearest_device(rows: Sequence[Measurement]) -> str:
    """Returns the name of the known device whose latencies agree best after one common factor.

    Raises:
        ValueError: No device has the clocks and the number formats of the measurements.
    """
    distances = {}
    for name in device_names():
        device = load_device(name)
        try:
            distances[name] = float(distance(to_measured(rows, device), device))
        except ValueError:  # clocks or formats that this device lacks
            continue
    if not distances:
        raise ValueError(
            "measurements: expected clocks and formats of a known device, got others; name the base device"
        )
    return min(distances, key=distances.__getitem__)


def calibrate(
    rows: Sequence[Measurement],
    base: schema.DeviceFile,
    *,
    name: str,
    source: str,
    prior_sigma: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Calibration:
    """Fits a device file to measurements and cross-validates it by network family and by clock.

    Args:
        rows: Measurements of at least two networks or clocks.
        base: The file to start from; its clock tables and voltage curve stay.
        name: Of the new device.
        source: Where the measurements come from, for the file.
        prior_sigma: How far, as the standard deviation of a log factor, a parameter may leave the base beyond
            the common factor; 0.3 or less suits ten measurements.
        seed: Of folds and starts.
        options: `starts` and `steps` of `hw_models.fitting.device_parameters.fit`.

    Returns:
        The calibration.

    Raises:
        ValueError: Too few measurements, or clocks or formats that the base lacks.
    """
    rows, device = tuple(rows), to_device(base)
    measured = to_measured(rows, device)
    schemes = _schemes(rows, measured)
    if not schemes:
        raise ValueError(
            f"measurements: expected at least two networks or two clocks to fit and to validate, got {len(rows)} "
            f"row{'s' * (len(rows) > 1)} of one network at one setting"
        )
    scale, warnings = float(scale_of(measured, device)), []
    if not 1 / _FAR < scale < _FAR:
        warnings.append(
            f"measured latencies are {scale:.3g} times those of {base.name}: check that latency_ms is in ms "
            "and that layers, batch and base device fit"
        )
    fit_key, fold_key = jax.random.split(jax.random.key(seed))
    options = {"prior_sigma": prior_sigma, **options}
    fitted = fit_all(fit_key, measured, device, weights=jnp.ones(len(rows)), **options)
    tests = tuple(
        _held_out(left_out, measured, *held_out(fold_key, measured, device, groups, **options))
        for left_out, groups in schemes.items()
    )
    return Calibration(
        file=_fitted_file(base, device, fitted, measured, name=name, source=source, tests=tests),
        device=dataclasses.replace(fitted, name=name),
        rows=rows,
        held_out=tests,
        latency_error=_error(np.asarray(predict(measured, fitted)[0]), np.asarray(measured.latency_s)),
        scale=scale,
        warnings=tuple(warnings),
    )


def _schemes(rows: Sequence[Measurement], measured: Measured) -> dict[str, np.ndarray]:
    groups = {
        "families": np.array([row.group for row in rows]),
        "core clocks": np.asarray(measured.point.core_hz),
        "memory clocks": np.asarray(measured.point.memory_hz),
    }
    if len(set(groups["families"])) == 1:
        groups = {"networks": np.array([row.network for row in rows])} | groups
    return {name: group for name, group in groups.items() if len(set(group.tolist())) > 1}


def _held_out(left_out: str, measured: Measured, latency_s: jax.Array, power_w: jax.Array) -> HeldOut:
    predicted, actual = np.asarray(latency_s, np.float64), np.asarray(measured.latency_s, np.float64)
    measured_w = np.asarray(measured.power_w, np.float64)
    has_power = np.isfinite(measured_w)
    return HeldOut(
        left_out=left_out,
        latency_s=predicted,
        power_w=np.where(has_power, np.asarray(power_w, np.float64), np.nan),
        latency_error=_error(predicted, actual),
        latency_tau=float(kendalltau(predicted, actual).statistic),
        power_error=_error(np.asarray(power_w)[has_power], measured_w[has_power]) if has_power.any() else None,
    )


def _error(predicted: np.ndarray, actual: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted / actual - 1)))


def _fitted_file(
    base: schema.DeviceFile,
    before: Device,
    after: Device,
    measured: Measured,
    *,
    name: str,
    source: str,
    tests: Sequence[HeldOut],
) -> schema.DeviceFile:
    """Lays fitted values over the base; figures that nothing informed say so."""
    latency, power = base.latency, base.power
    first = tests[0]
    metric, what = "mean absolute relative error of the {}, all its parameters together", f"{first.left_out}, in folds"
    seen = set(np.asarray(measured.layers.kind)[np.asarray(measured.layers.active) > 0].tolist())

    def replaced(figure: Any, value: Any, error: FitError | None) -> Any:
        update: dict[str, Any] = {"value": np.asarray(_rounded(value)).tolist(), "error": error, "source": source}
        if error is None:
            update["source"] = f"{base.name}, moved by the common factor of a fit to {source}; not measured itself"
        return figure.model_copy(update={**update, "provenance": "fitted" if error else "assumed"})

    error = FitError(value=round(first.latency_error, 4), metric=metric.format("latency"), held_out=what)
    rates = {
        kind.name.lower(): replaced(
            getattr(latency.macs_per_cycle, kind.name.lower()),
            after.macs_per_cycle[kind],
            error if int(kind) in seen else None,
        )
        for kind in LayerKind
    }
    formats_seen = set(np.asarray(measured.number_format).tolist())
    speedups = {
        form.name.lower(): replaced(
            getattr(latency.format_speedup, form.name.lower()), after.format_speedup[form], error
        )
        for form in NumberFormat
        if int(form) in formats_seen and form in before.formats[1:]
    }
    fitted_latency = latency.model_copy(
        update={
            "macs_per_cycle": latency.macs_per_cycle.model_copy(update=rates),
            "format_speedup": latency.format_speedup.model_copy(update=speedups),
            **{
                field: replaced(getattr(latency, field), getattr(after, parameter) / unit, error)
                for field, (parameter, unit) in _LATENCY_FIGURES.items()
            },
            "core_weight_bytes_per_cycle": replaced(
                latency.core_weight_bytes_per_cycle or latency.weight_bytes_per_cycle,
                1 / after.core_cycles_per_weight_byte,
                error,
            ),
        }
    )
    if first.power_error is not None:
        error = FitError(value=round(first.power_error, 4), metric=metric.format("power"), held_out=what)
        update = {
            field: replaced(getattr(power, field), getattr(after, parameter) / unit, error)
            for field, (parameter, unit) in _POWER_FIGURES.items()
        }
        power = power.model_copy(update=update)
    description = f"{base.description}; calibrated from {base.name} with {len(measured.latency_s)} measurements"
    changed = {"name": name, "description": description, "latency": fitted_latency, "power": power}
    return schema.parse(base.model_copy(update=changed).model_dump(exclude_none=True))


def _rounded(value: Any) -> Any:
    """Rounds to 4 significant digits."""
    array = np.asarray(value, np.float64)
    digits = 3 - np.floor(np.log10(np.where(array == 0, 1, np.abs(array))))
    return np.round(array * 10**digits) / 10**digits
