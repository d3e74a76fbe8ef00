"""Calibration of a device file: measurements and a base in, a fitted file with its held-out errors out.

A file written from a fit says of every quantity whether the measurements informed it or the base gave it.

A clock table of the base stays where two settings or more were measured. It shrinks to the one setting that was
measured, or to its highest if none is known; where the base merely assumes a table, other clocks that were measured
take its place. Clocks are in MHz, as in files.
Shapes: N measurements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from scipy.stats import kendalltau

from hw_models.catalogue import LATENCY_QUANTITIES, POWER_QUANTITIES, device_names, read_device_file, to_device
from hw_models.correction import encode_correction
from hw_models.device import SAME_CLOCK, Device, match_settings
from hw_models.files import checked
from hw_models.fitting.correction import learn_correction
from hw_models.fitting.device_parameters import Measured, Target, fit, held_out, informed, predict, to_measured
from hw_models.layers import LayerKind
from hw_models.measuring.measurements import Measurement, yardsticks_ms
from hw_models.schema import (
    SCHEMA_VERSION,
    Clocks,
    Curve,
    DeviceFile,
    FitError,
    Latency,
    LearnedCorrection,
    Quantity,
    Runtime,
)
from hw_models.units import in_other_units

PartT = TypeVar("PartT", bound=pydantic.BaseModel)
FEW_ROWS = 30
"""Below so many measurements a fit stays near its base, unless told otherwise."""
LEARN_FROM = 100
"""From so many measurements on, a correction is tried."""
_WORTH = 0.95
"""A correction is kept that brings the error on what was left out down to this part, or further, ..."""
_TAU_MARGIN = 0.005
"""... and Kendall's tau down by no more than this."""
_SIGMA, _SIGMA_OF_FEW = 1.0, 0.3
_OF_CORE = ("core_idle", "core_load", "core_stalled_share")
_FAR = 20.0
"""Ratio to a base that calls for a warning: a wrong unit is a factor of a thousand."""
_NO_BOARD = 50.0
_STRAY = 300.0
_BESIDE_COMMON = ("norm_order", "format_speedup", "core_stalled_share")
"""Shapes and ratios, which the common factor of a fit does not move."""


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
        notes: What was found besides, one line each.
    """

    file: DeviceFile
    device: Device
    rows: tuple[Measurement, ...]
    held_out: tuple[HeldOut, ...]
    latency_error: float
    scale: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def calibrate(
    rows: Sequence[Measurement],
    base: DeviceFile,
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

    From `LEARN_FROM` measurements on, a correction of whole networks is learned on top, and kept where it predicts
    what was left out together better than the device without it.

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
        ValueError: Too few measurements, clocks or formats that the base lacks, a clock in some rows only, several
            runtimes, or powers beyond what a board of the base's kind takes.
    """
    rows = tuple(rows)
    _check_clock_columns(rows)
    runtime = _runtime(rows)
    base, warnings = _with_measured_clocks(rows, base, source)
    doubt = base.doubt_of_runtime(runtime.name) if runtime else None
    warnings += [] if doubt is None else [doubt]
    base = base.model_copy(update={"correction": None})  # of the base's own measurements
    base.roofline()  # a table of blocks has nothing to start from
    device = to_device(base)
    measured = to_measured(rows, device)
    schemes = _schemes(rows, measured)
    if not schemes:
        raise ValueError(
            f"measurements: expected at least two networks or two clocks to fit and to validate, got {len(rows)} "
            f"row{'s' * (len(rows) > 1)} of one network at one setting"
        )
    warnings += _doubts_of_units(rows, measured, device)
    if prior_sigma is None:
        prior_sigma = _SIGMA if len(rows) >= FEW_ROWS else _SIGMA_OF_FEW
    how: dict[str, Any] = {"prior_sigma": prior_sigma, "starts": starts, "steps": steps}
    fit_key, fold_key = jax.random.split(jax.random.key(seed))
    fitted = fit(fit_key, measured, device, weights=jnp.ones(len(rows)), **how)
    tests = tuple(
        _held_out(left_out, measured, *held_out(fold_key, measured, device, groups, **how))
        for left_out, groups in schemes.items()
    )
    correction: LearnedCorrection | None = None
    learned: tuple[HeldOut, ...] = ()
    notes: tuple[str, ...] = ()
    if len(rows) >= LEARN_FROM:
        left_out, groups = next(iter(schemes.items()))
        learn = partial(learn_correction, jax.random.key(seed), measured)
        by_learned = held_out(fold_key, measured, device, groups, learn=learn, **how)
        learned = (_held_out(f"{left_out}, with a correction", measured, *by_learned),)
        correction, notes = _worth(learned[0], tests[0], lambda: learn(fitted, np.arange(len(rows))), source)
    machines = {row.machine for row in rows}
    file = _fitted_file(
        base,
        fitted,
        measured,
        name=name,
        source=source,
        test=tests[0],
        prior_sigma=prior_sigma,
        measured_on=machines.pop() if len(machines) == 1 else None,
        runtime=runtime,
        layers_ms=yardsticks_ms(rows),
        correction=correction,
    )
    device_of_file = to_device(file)
    return Calibration(
        file=file,
        device=device_of_file,
        rows=rows,
        held_out=tests + learned,
        latency_error=_error(np.asarray(predict(measured, device_of_file)[0]), np.asarray(measured.latency_s)),
        scale=float(np.exp(np.median(_log_ratios(measured, device)))),
        warnings=tuple(warnings),
        notes=notes,
    )


def nearest_device(rows: Sequence[Measurement]) -> str:
    """Returns the name of the known device whose latencies agree best after one common factor.

    Raises:
        ValueError: No device has the clocks and the number formats of the measurements, or some rows lack a clock
            that others have.
    """
    _check_clock_columns(rows)
    distances = {}
    for name in device_names():
        try:
            file = read_device_file(name).model_copy(update={"correction": None})
            device = to_device(_with_measured_clocks(rows, file, "the measurements")[0])
            ratios = _log_ratios(to_measured(rows, device), device)
        except ValueError:  # clocks or formats that this device lacks
            continue
        distances[name] = np.mean(np.abs(ratios - np.median(ratios)))
    if not distances:
        raise ValueError(
            "measurements: expected clocks and formats of a known device, got others; name the base device"
        )
    return min(distances, key=distances.__getitem__)


@dataclass(frozen=True)
class _Overlay:
    """Lays values of a fit over quantities of its base, and says of each where it comes from.

    Attributes:
        base: Name of the base.
        source: Of the measurements.
        error: Of the fit.
        is_informed: By parameter of the device, as `hw_models.fitting.device_parameters.informed`.
    """

    base: str
    source: str
    error: FitError
    is_informed: dict[str, np.ndarray]

    def __call__(self, quantity: PartT, parameter: str, value: Any, index: Any = ()) -> PartT:
        """Returns the quantity with the value of a parameter, or of one element of it."""
        update: dict[str, Any] = {"value": _rounded(value).tolist()}
        if self.is_informed[parameter][index]:
            return quantity.model_copy(
                update={**update, "provenance": "fitted", "source": self.source, "error": self.error}
            )
        if not np.any(quantity.value):  # type: ignore[attr-defined]
            return _taken_over(quantity, self.base)
        source = f"{self.base}, moved by the common factor of a fit to {self.source}; not measured itself"
        if parameter in _BESIDE_COMMON:
            source = f"{self.base}, with the rest of a fit to {self.source}; not measured itself"
        return quantity.model_copy(update={**update, "provenance": "assumed", "source": source, "error": None})


def _fitted_file(
    base: DeviceFile,
    fitted: Device,
    measured: Measured,
    *,
    name: str,
    source: str,
    test: HeldOut,
    prior_sigma: float,
    measured_on: str | None,
    runtime: Runtime | None,
    layers_ms: dict[str, float],
    correction: LearnedCorrection | None,
) -> DeviceFile:
    """Lays fitted values over a base, with the errors of a test; quantities that nothing informed say so."""

    def overlay(target: Target, error: float) -> _Overlay:
        metric = f"mean absolute relative error of the {target}, all its parameters together"
        return _Overlay(
            base=base.name,
            source=source,
            error=FitError(value=round(error, 4), metric=metric, held_out=f"{test.left_out}, in folds"),
            is_informed=informed(measured, fitted, quantity=target, prior_sigma=prior_sigma),
        )

    _, power_of_base = base.roofline()
    power = _taken_over(power_of_base, base.name)
    if test.power_error is not None:
        has_board = bool(np.any(np.isfinite(measured.power_w) & ~np.asarray(measured.is_core)))
        laid = overlay("power", test.power_error)
        update = {
            field: laid(getattr(power_of_base, field), parameter, getattr(fitted, parameter) / unit)
            for field, (parameter, unit) in POWER_QUANTITIES.items()
            if has_board or field in _OF_CORE
        }
        power = power.model_copy(update=update)
    changed = {
        "name": name,
        "description": f"{base.description}; calibrated from {base.name} with {len(measured.latency_s)} measurements",
        "measured_on": measured_on,
        "runtime": runtime,
        "yardsticks_ms": layers_ms or None,
        "correction": correction,
        "latency": _latency(base, fitted, measured, overlay("latency", test.latency_error)),
        "power": power,
        "modes": {mode: _taken_over(caps, base.name) for mode, caps in base.modes.items()},
    }
    return checked(base.model_copy(update=changed).model_dump(exclude_none=True), DeviceFile, version=SCHEMA_VERSION)


def _latency(base: DeviceFile, fitted: Device, measured: Measured, overlay: _Overlay) -> Latency:
    latency = _taken_over(base.roofline()[0], base.name)
    rates = {
        kind.name.lower(): overlay(
            getattr(latency.macs_per_cycle, kind.name.lower()), "macs_per_cycle", fitted.macs_per_cycle[kind], kind
        )
        for kind in LayerKind
    }
    seen = set(np.asarray(measured.number_format).tolist())
    speedups = {
        form.name.lower(): overlay(
            getattr(latency.format_speedup, form.name.lower()), "format_speedup", fitted.format_speedup[form], form
        )
        for form in fitted.formats[1:]
        if int(form) in seen
    }
    update: dict[str, Any] = {
        "macs_per_cycle": latency.macs_per_cycle.model_copy(update=rates),
        "format_speedup": latency.format_speedup.model_copy(update=speedups),
        **{
            field: overlay(getattr(latency, field), parameter, getattr(fitted, parameter) / unit)
            for field, (parameter, unit) in LATENCY_QUANTITIES.items()
        },
    }
    # Absent from most bases: free of cost there, and then left so unless it was measured.
    if measured.tells_calls:
        call = latency.segment_cycles or latency.run_cycles
        update["segment_cycles"] = overlay(call, "segment_cycles", fitted.segment_cycles)
    quantity, parameter = latency.core_weight_bytes_per_cycle, "core_cycles_per_weight_byte"
    if quantity is not None or overlay.is_informed[parameter]:
        quantity = quantity or latency.weight_bytes_per_cycle
        update["core_weight_bytes_per_cycle"] = overlay(quantity, parameter, 1 / getattr(fitted, parameter))
    return latency.model_copy(update=update)


def _taken_over(part: PartT, base: str) -> PartT:
    """Marks all quantities in a part of a base as assumed: they are of another device."""
    update: dict[str, Any] = {"provenance": "assumed", "source": f"as {base}; not measured on this device"}
    if isinstance(part, Quantity | Curve):
        update["error"] = None
    else:
        fields = {name: getattr(part, name) for name in type(part).model_fields}
        update = {name: _taken_over(field, base) for name, field in fields.items() if field is not None}
    return part.model_copy(update=update)


def _rounded(value: Any) -> np.ndarray:
    """Rounds to 4 significant digits."""
    array = np.asarray(value, np.float64)
    digits = 3 - np.floor(np.log10(np.where(array == 0, 1, np.abs(array))))
    return np.round(array * 10**digits) / 10**digits


def _log_ratios(measured: Measured, device: Device) -> np.ndarray:
    """Logarithms of measured over predicted latencies, float32[N]."""
    return np.log(np.asarray(measured.latency_s)) - np.log(np.asarray(predict(measured, device)[0]))


def _worth(
    learned: HeldOut, plain: HeldOut, learn: Callable[[], Device], source: str
) -> tuple[LearnedCorrection | None, tuple[str]]:
    """Returns the correction of all measurements where it helps with those left out, and says whether it does."""
    errors = (
        f"latency off by {learned.latency_error:.1%} with it and {plain.latency_error:.1%} without, tau "
        f"{learned.latency_tau:.3f} and {plain.latency_tau:.3f}, with {plain.left_out} left out"
    )
    is_better = learned.latency_error < _WORTH * plain.latency_error
    if not is_better or learned.latency_tau < plain.latency_tau - _TAU_MARGIN:
        return None, (f"A learned correction does not help and is left off: {errors}",)
    correction = learn().correction
    if correction is None:
        raise TypeError("correction: expected a device that learned one, got none")
    error = FitError(
        value=round(learned.latency_error, 4),
        metric="mean absolute relative error of the latency",
        held_out=f"{plain.left_out}, in folds",
    )
    kept = LearnedCorrection(npz=encode_correction(correction), provenance="fitted", source=source, error=error)
    return kept, (f"A learned correction of whole networks helps and is in the file: {errors}",)


def _runtime(rows: Sequence[Measurement]) -> Runtime | None:
    """Returns what ran all rows; None where some rows do not say it.

    Raises:
        ValueError: Rows are of several runtimes or providers.
    """
    kinds = sorted({f"{row.runtime} {row.provider or ''}".strip() for row in rows if row.runtime is not None})
    if len(kinds) > 1:
        raise ValueError(f"measurements: expected rows of one runtime, got {', '.join(kinds)}; fit a device to each")
    name = rows[0].runtime
    if name is None or any(row.runtime is None for row in rows):
        return None
    versions = ", ".join(sorted({row.runtime_version for row in rows if row.runtime_version}))
    return Runtime(name=name, version=versions or "unknown", provider=rows[0].provider)


def _check_clock_columns(rows: Sequence[Measurement]) -> None:
    """Raises `ValueError` if a clock is known in some rows only."""
    for clock in Clocks.model_fields:
        given = sum(getattr(row, f"{clock}_mhz") is not None for row in rows)
        if 0 < given < len(rows):
            raise ValueError(
                f"measurements: {clock}_mhz: expected a clock in every row or in none, got one in {given} of "
                f"{len(rows)} rows"
            )


def _with_measured_clocks(rows: Sequence[Measurement], base: DeviceFile, source: str) -> tuple[DeviceFile, list[str]]:
    """Gives a base the clock tables of measurements, each clock in all of them or in none; and warnings of others."""
    warnings, tables = [], {}
    for clock in Clocks.model_fields:
        quantity: Quantity = getattr(base.clocks, clock)
        mhz = np.array([getattr(row, f"{clock}_mhz") for row in rows if getattr(row, f"{clock}_mhz") is not None])
        tables[clock] = _clock_table(quantity, mhz, source)
        if not mhz.size and len(quantity.value) > 1:
            warnings.append(
                f"{clock} clock unknown in all rows: the device gets one setting, {quantity.value[-1]:g} MHz, the "
                f"highest of {base.name}; give {clock}_mhz to search over it"
            )
        warnings += _doubts_of_clock(clock, mhz, base)
    is_whole = all(table.value == getattr(base.clocks, clock).value for clock, table in tables.items())
    changed = {"clocks": Clocks(**tables), "modes": base.modes if is_whole else {}}
    return base.model_copy(update=changed), warnings


def _doubts_of_clock(clock: str, mhz: np.ndarray, base: DeviceFile) -> list[str]:
    """A warning if clocks are far from all of a base's."""
    table = getattr(base.clocks, clock).value
    if not mhz.size or table[0] / _FAR < np.median(mhz) < table[-1] * _FAR:
        return []
    times = np.median(mhz) / table[-1]
    return [f"{clock} clocks are {times:.3g} times those of {base.name}: check that {clock}_mhz is in MHz"]


def _clock_table(quantity: Quantity, mhz: np.ndarray, source: str) -> Quantity:
    """Returns the clock table of measurements at some clocks; the base's own where these do not fit it."""
    table = np.asarray(quantity.value)
    if not mhz.size:
        unknown = {"provenance": "assumed", "source": "clock unknown while measuring; stands for it", "error": None}
        return quantity.model_copy(update={"value": [quantity.value[-1]], **unknown})
    nearest, is_known = match_settings(table, mhz)
    used = np.unique(nearest)
    if is_known.all() and used.size == 1:
        settings = table[used]
    elif quantity.provenance == "assumed" and not is_known.any():
        settings = _settings(mhz)
    else:
        return quantity
    update = {"value": settings.tolist(), "provenance": "measured", "source": source, "error": None}
    return quantity.model_copy(update=update)


def _settings(mhz: np.ndarray) -> np.ndarray:
    """Merges clocks that differ by no more than reading them does, ascending."""
    groups: list[list[float]] = []
    for value in np.unique(mhz).tolist():
        if groups and value <= (1 + SAME_CLOCK) * groups[-1][0]:
            groups[-1].append(value)
        else:
            groups.append([value])
    return np.array([group[len(group) // 2] for group in groups])


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


def _doubts_of_units(rows: Sequence[Measurement], measured: Measured, base: Device) -> list[str]:
    """Compares measurements with a base.

    Args:
        rows: N measurements.
        measured: The same as arrays.
        base: The device to compare with, at the clocks of the measurements.

    Returns:
        Warnings of latencies and powers, one line each.

    Raises:
        ValueError: Powers are beyond what a board of the base's kind takes.
    """
    latency_s, power_w = (np.asarray(quantity, np.float64) for quantity in predict(measured, base))
    latency, power = np.asarray(measured.latency_s) / latency_s, np.asarray(measured.power_w) / power_w
    warnings = _doubts_of("latency_ms", "latencies", "ms", rows=rows, ratios=latency, base=base.name)
    if not np.isfinite(power).any():
        return warnings
    doubts = _doubts_of("power_w", "powers", "W", rows=rows, ratios=power, base=base.name)
    if np.nanmedian(power) > _NO_BOARD:
        raise ValueError(f"measurements: {doubts[0]}; name a base of the board's kind if they are right")
    return warnings + doubts


def _doubts_of(
    column: str, what: str, unit: str, *, rows: Sequence[Measurement], ratios: np.ndarray, base: str
) -> list[str]:
    doubts = []
    typical = float(np.nanmedian(ratios))
    if not _is_near(typical):
        value = float(np.nanmedian([getattr(row, column) or np.nan for row in rows]))
        likely = in_other_units(value, unit, lambda meant: _is_near(typical * meant / value))
        hint = f" (the median, {value:,.6g}, is {likely})" if likely else ""
        doubts.append(
            f"measured {what} are {typical:.3g} times those of {base}: check that {column} is in {unit}{hint} and that "
            "layers, batch and base device fit"
        )
    stray = np.flatnonzero(np.abs(np.log(ratios / typical)) > np.log(_STRAY))
    if stray.size:
        first = rows[stray[0]]
        doubts.append(
            f"{stray.size} of {len(rows)} rows, the first of {first.network}, have a {column} "
            f"({getattr(first, column):g}) more than {_STRAY:g} times off what the others make likely: check that all "
            f"are in {unit}"
        )
    return doubts


def _is_near(ratio: float) -> bool:
    """Whether a ratio to a base needs no explanation."""
    return 1 / _FAR < ratio < _FAR
