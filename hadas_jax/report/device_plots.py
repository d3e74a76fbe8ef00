"""Pictures of devices: latency and energy over the clocks, and predicted against measured."""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hadas_jax.report.device_tables import modes
from hadas_jax.report.picture_file import save_picture
from hw_models.catalogue import to_device
from hw_models.clock_grid import clock_grid, cost_everywhere, sum_layers
from hw_models.device import operating_points
from hw_models.fitting.calibration import Calibration
from hw_models.networks.reference import mobilenet_v2
from hw_models.power import run_energy
from hw_models.roofline import run_latency
from hw_models.schema import DeviceFile

_MOST_LINES = 5


def plot_device(file: DeviceFile, path: Path) -> None:
    """Draws latency and energy of MobileNetV2 over the core clock, one line per memory clock, as a PNG.

    Args:
      file: of the device.
      path: of the picture.
    """
    device = to_device(file)
    shape = (len(device.core_hz), len(device.memory_hz), len(device.host_hz))
    points = operating_points(device)
    cost = jax.jit(lambda layers: cost_everywhere(sum_layers(clock_grid(layers, device)), device))(mobilenet_v2())
    latency = np.asarray(cost.latency_s + run_latency(device, points)).reshape(shape)[..., -1]
    energy = np.asarray(cost.energy_j + run_energy(device, points)).reshape(shape)[..., -1]
    core = np.asarray(device.core_hz) / 1e6
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2)
    shown = np.unique(np.linspace(0, shape[1] - 1, min(shape[1], _MOST_LINES)).round().astype(int))
    colours = np.linspace(0.85, 0.1, len(shown))
    for axis, values, label in ((axes[0], latency, "latency (ms)"), (axes[1], energy, "energy (mJ)")):
        for memory, colour in zip(shown, colours, strict=True):
            memory_mhz = float(device.memory_hz[memory]) / 1e6
            line = 1e3 * values[:, memory]
            shade = (0.1, 0.2 + 0.6 * colour, 0.95 - 0.35 * colour)
            axis.plot(core, line, marker="o", markersize=3.5, color=shade, label=f"memory {memory_mhz:g} MHz")
            if axis is axes[1] and len(core) > 1:
                best = int(np.argmin(line))
                axis.plot(core[best], line[best], marker="v", markersize=9, color=shade)
        axis.set_xlabel("core clock (MHz)")
        axis.set_ylabel(label)
        # The slowest memory clocks take ten times as long as the others.
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="both", labelsize=8)
        axis.grid(visible=True, which="both", alpha=0.25)
        for name, point in list(modes(file).items())[1:]:
            mhz = float(point.core_hz) / 1e6
            axis.axvline(mhz, color="grey", linewidth=0.8, linestyle=":")
            axis.annotate(
                name, (mhz, 1), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, ha="right", va="top"
            )
    axes[0].legend(fontsize=8)
    form = device.formats[0].name.lower()
    host = f"host {float(device.host_hz[-1]) / 1e6:g} MHz"
    figure.suptitle(f"{file.name}: MobileNetV2, 224 pixels, {form}, one image; {host}; triangles: least energy")
    save_picture(figure, path)


def plot_calibration(calibration: Calibration, path: Path) -> None:
    """Draws held-out predicted against measured latency, and power where it was measured, as a PNG.

    Args:
      calibration: of a device.
      path: of the picture.
    """
    rows, found = calibration.rows, calibration.held_out[0]
    panels = [("latency (ms)", [row.latency_ms for row in rows], 1e3 * found.latency_s, found.latency_error)]
    if found.power_error is not None:
        measured = [np.nan if row.power_w is None else row.power_w for row in rows]
        panels.append(("power (W)", measured, found.power_w, found.power_error))
    figure = Figure(figsize=(5.4 * len(panels), 5), layout="constrained")
    families = [row.group for row in rows]
    for axis, (label, actual, predicted, error) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _scatter(axis, np.asarray(actual, float), np.asarray(predicted, float), families)
        axis.set_xlabel(f"measured {label}")
        axis.set_ylabel(f"predicted {label}")
        axis.set_title(f"mean error {error:.1%}", fontsize=10)
    figure.suptitle(f"{calibration.file.name}: predicted with the {found.left_out} left out of the fit")
    save_picture(figure, path)


def _scatter(axis: Axes, actual: np.ndarray, predicted: np.ndarray, families: list[str]) -> None:
    groups = list(dict.fromkeys(families))
    is_named = len(groups) <= 10
    for group in groups if is_named else [None]:
        chosen = np.array([is_named is False or family == group for family in families])
        axis.scatter(actual[chosen], predicted[chosen], s=18, alpha=0.7, linewidths=0, label=group)
    known = np.isfinite(actual)
    ends = (
        min(actual[known].min(), predicted[known].min()) * 0.9,
        max(actual[known].max(), predicted[known].max()) * 1.1,
    )
    axis.plot(ends, ends, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(ends)
    axis.set_ylim(ends)
    axis.set_aspect("equal")
    axis.grid(visible=True, which="both", alpha=0.2)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter("{x:g}")
        scale.set_minor_formatter("{x:g}")
    axis.tick_params(which="both", labelsize=7)
    if is_named:
        axis.legend(fontsize=7)
