"""Calibration of a device file: measurements and a base in, a fitted file with its held-out errors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau

from hw_models import schema
from hw_models.catalogue import device_names, read_device_file, to_device
from hw_models.device import Device
from hw_models.fitting.device_parameters import Measured, distance, fit_all, held_out, predict, scale_of
from hw_models.fitting.fitted_file import fitted_file
from hw_models.fitting.measured_clocks import check_clock_columns, with_measured_clocks
from hw_models.fitting.units_of_rows import doubts_of_units
from hw_models.measuring.measurements import Measurement, clocks, layer_tables, number_formats

FEW_ROWS = 30
"""Below so many measurements a fit stays near its base, unless told otherwise."""

_SIGMA, _SIGMA_OF_FEW = 1.0, 0.3


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
        ValueError: No device has the clocks and the number formats of the measurements, or some rows lack a clock
            that others have.
    """
    check_clock_columns(rows)
    distances = {}
    for name in device_names():
        try:
            device = to_device(with_measured_clocks(rows, read_device_file(name), "the measurements")[0])
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
    prior_sigma: float | None = None,
    seed: int = 0,
    starts: int = 4,
    steps: int = 500,
) -> Calibration:
    """Fits a device file to measurements and cross-validates it by network family and by clock.

    Clock tables stay where two settings or more were measured. A table of which one setting was measured shrinks
    to it, one of which none is known to its highest; where the base merely assumes a table, the measured clocks
    may be others and take its place. What the measurements do not inform is marked as assumed in the file.

    Args:
        rows: Measurements of at least two networks or clocks.
        base: The file to start from; its voltage curve stays.
        name: Of the new device.
        source: Where the measurements come from, for the file.
        prior_sigma: How far, as the standard deviation of a log factor, a parameter may leave the base beyond
            the common factor; None: 1, or 0.3 below `FEW_ROWS` rows.
        seed: Of folds and starts.
        starts: As in `hw_models.fitting.device_parameters.fit`.
        steps: As in `hw_models.fitting.device_parameters.fit`.

    Returns:
        The calibration.

    Raises:
        ValueError: Too few measurements, clocks or formats that the base lacks, a clock in some rows only, or powers
            beyond what a board of the base's kind takes.
    """
    rows = tuple(rows)
    check_clock_columns(rows)
    base, warnings = with_measured_clocks(rows, base, source)
    device = to_device(base)
    measured = to_measured(rows, device)
    schemes = _schemes(rows, measured)
    if not schemes:
        raise ValueError(
            f"measurements: expected at least two networks or two clocks to fit and to validate, got {len(rows)} "
            f"row{'s' * (len(rows) > 1)} of one network at one setting"
        )
    warnings += doubts_of_units(rows, measured, device)
    if prior_sigma is None:
        prior_sigma = _SIGMA if len(rows) >= FEW_ROWS else _SIGMA_OF_FEW
    how: dict[str, Any] = {"prior_sigma": prior_sigma, "starts": starts, "steps": steps}
    fit_key, fold_key = jax.random.split(jax.random.key(seed))
    fitted = fit_all(fit_key, measured, device, weights=jnp.ones(len(rows)), **how)
    tests = tuple(
        _held_out(left_out, measured, *held_out(fold_key, measured, device, groups, **how))
        for left_out, groups in schemes.items()
    )
    file = fitted_file(
        base,
        fitted,
        measured,
        name=name,
        source=source,
        left_out=tests[0].left_out,
        errors=(tests[0].latency_error, tests[0].power_error),
        prior_sigma=prior_sigma,
        measured_on=_machine(rows),
    )
    found = to_device(file)
    return Calibration(
        file=file,
        device=found,
        rows=rows,
        held_out=tests,
        latency_error=_error(np.asarray(predict(measured, found)[0]), np.asarray(measured.latency_s)),
        scale=float(scale_of(measured, device)),
        warnings=tuple(warnings),
    )


def _machine(rows: Sequence[Measurement]) -> str | None:
    """The machine of all measurements, if it is known and the only one."""
    machines = {row.machine for row in rows}
    return machines.pop() if len(machines) == 1 else None


def _schemes(rows: Sequence[Measurement], measured: Measured) -> dict[str, np.ndarray]:
    groups = {
        "families": np.array([row.group for row in rows]),
        "core clocks": np.asarray(measured.point.core_hz),
        "memory clocks": np.asarray(measured.point.memory_hz),
        "host clocks": np.asarray(measured.point.host_hz),
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
