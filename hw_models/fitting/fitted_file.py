"""A device file written from a fit: every figure says whether the measurements informed it or the base gave it."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pydantic

from hw_models import schema
from hw_models.device import Device
from hw_models.figures import Curve, Figure, FitError
from hw_models.fitting.device_parameters import Measured, Quantity, informed
from hw_models.layers import LayerKind

PartT = TypeVar("PartT", bound=pydantic.BaseModel)

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
_OF_CORE = ("core_idle", "core_load", "core_stalled_share")
_BESIDE_COMMON = ("norm_order", "format_speedup", "core_stalled_share")
"""Shapes and ratios, which the common factor of a fit does not move."""


@dataclass(frozen=True)
class _Overlay:
    """Lays values of a fit over figures of its base, and says of each where it comes from.

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

    def __call__(self, figure: PartT, parameter: str, value: Any, index: Any = ()) -> PartT:
        """Returns the figure with the value of a parameter, or of one element of it."""
        update: dict[str, Any] = {"value": _rounded(value).tolist()}
        if self.is_informed[parameter][index]:
            return figure.model_copy(
                update={**update, "provenance": "fitted", "source": self.source, "error": self.error}
            )
        if not np.any(figure.value):  # type: ignore[attr-defined]
            return _taken_over(figure, self.base)
        source = f"{self.base}, moved by the common factor of a fit to {self.source}; not measured itself"
        if parameter in _BESIDE_COMMON:
            source = f"{self.base}, with the rest of a fit to {self.source}; not measured itself"
        return figure.model_copy(update={**update, "provenance": "assumed", "source": source, "error": None})


def fitted_file(
    base: schema.DeviceFile,
    fitted: Device,
    measured: Measured,
    *,
    name: str,
    source: str,
    left_out: str,
    errors: tuple[float, float | None],
    prior_sigma: float,
    measured_on: str | None = None,
) -> schema.DeviceFile:
    """Lays fitted values over a base; figures that nothing informed say so.

    Args:
        base: The file that the fit started from, with the clocks of the measurements.
        fitted: What was found.
        measured: What it was fitted to.
        name: Of the new device.
        source: Of the measurements.
        left_out: What the errors are of: what was left out of the fit.
        errors: Of the latency, and of the power or None where none was measured.
        prior_sigma: Of the fit.
        measured_on: The machine of all measurements; None: unknown, or several.

    Returns:
        The checked file.
    """
    latency_error, power_error = errors

    def overlay(quantity: Quantity, error: float) -> _Overlay:
        metric = f"mean absolute relative error of the {quantity}, all its parameters together"
        return _Overlay(
            base=base.name,
            source=source,
            error=FitError(value=round(error, 4), metric=metric, held_out=f"{left_out}, in folds"),
            is_informed=informed(measured, fitted, quantity=quantity, prior_sigma=prior_sigma),
        )

    power = _taken_over(base.power, base.name)
    if power_error is not None:
        has_board = bool(np.any(np.isfinite(measured.power_w) & ~np.asarray(measured.is_core)))
        power = _power_figures(power, base, fitted, overlay("power", power_error), has_board=has_board)
    changed = {
        "name": name,
        "description": f"{base.description}; calibrated from {base.name} with {len(measured.latency_s)} measurements",
        "measured_on": measured_on,
        "latency": _latency_figures(base, fitted, measured, overlay("latency", latency_error)),
        "power": power,
        "modes": {mode: _taken_over(caps, base.name) for mode, caps in base.modes.items()},
    }
    return schema.parse(base.model_copy(update=changed).model_dump(exclude_none=True))


def _latency_figures(base: schema.DeviceFile, fitted: Device, measured: Measured, overlay: _Overlay) -> schema.Latency:
    latency = _taken_over(base.latency, base.name)
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
            for field, (parameter, unit) in _LATENCY_FIGURES.items()
        },
    }
    # Absent from the base: free of cost there, and then left so unless it was measured.
    figure, parameter = latency.core_weight_bytes_per_cycle, "core_cycles_per_weight_byte"
    if figure is not None or overlay.is_informed[parameter]:
        figure = figure or latency.weight_bytes_per_cycle
        update["core_weight_bytes_per_cycle"] = overlay(figure, parameter, 1 / getattr(fitted, parameter))
    return latency.model_copy(update=update)


def _power_figures(
    taken_over: schema.Power, base: schema.DeviceFile, fitted: Device, overlay: _Overlay, *, has_board: bool
) -> schema.Power:
    update = {
        field: overlay(getattr(base.power, field), parameter, getattr(fitted, parameter) / unit)
        for field, (parameter, unit) in _POWER_FIGURES.items()
        if has_board or field in _OF_CORE
    }
    return taken_over.model_copy(update=update)


def _taken_over(part: PartT, base: str) -> PartT:
    """Marks all figures in a part of a base as assumed: they are of another device."""
    update: dict[str, Any] = {"provenance": "assumed", "source": f"as {base}; not measured on this device"}
    if isinstance(part, Figure | Curve):
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
