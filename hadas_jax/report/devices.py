"""Devices for people: the catalogue, one device with the origin of every quantity, and how near a fit comes."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
from matplotlib.axes import Axes
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hadas_jax.report.console import milli, new_table, print_line
from hadas_jax.report.pictures import compare_on_equal_axes, new_figure, save_picture, spread_rows, write_ticks_in_full
from hw_models import device_names, read_device_file
from hw_models.blocks import BlockTable
from hw_models.catalogue import mode_caps, to_device
from hw_models.correction import DeviceCorrection, layer_features
from hw_models.cost import network_cost, network_cost_everywhere
from hw_models.device import NumberFormat, OperatingPoint, default_point, with_caps
from hw_models.fitting.calibration import Calibration
from hw_models.layers import LayerTable
from hw_models.reference_networks import mobilenet_v2, resnet50
from hw_models.schema import Curve, DeviceFile, Quantity

_MOST_LINES = 5  # of memory clocks in a picture


def print_devices(console: Console) -> None:
    """Prints the devices that come with the package."""
    table = new_table("Devices")
    table.add_column("name", no_wrap=True)
    table.add_column("oper.\npoints", justify="right", no_wrap=True)
    table.add_column("format")
    table.add_column("power modes")
    table.add_column("figures", no_wrap=True)
    table.add_column("latency\nerror", justify="right", no_wrap=True)
    for name in device_names():
        file = read_device_file(name)
        device = to_device(file)
        points = len(device.core_hz) * len(device.memory_hz) * len(device.host_hz)
        errors = [quantity.error.value for _, quantity in _quantities(file.roofline()[0]) if quantity.error]
        is_all = len(device.formats) == len(NumberFormat)
        formats = "all" if is_all else " ".join(each.name.lower() for each in device.formats)
        error = f"{max(errors):.1%}" if errors else ""
        table.add_row(name, f"{points:,}", formats, " ".join(file.modes), _origins(file), error)
    console.print(table)
    print_line(
        console,
        "Figures: how many are measured/fitted/assumed. Latency error: of the fit, on networks or clocks left out of "
        "it; hadas devices show NAME says what was fitted and where each figure comes from.",
        wrap=True,
    )


def print_device(
    file: DeviceFile, console: Console, *, picture: Path | None = None, networks: Mapping[str, LayerTable] | None = None
) -> None:
    """Prints every quantity of a device with its origin, and what MobileNetV2 costs in each power mode.

    Args:
        file: The file of the device.
        console: The console.
        picture: PNG file for latency and energy over the clocks.
        networks: To tell how near they are to what a correction has seen, by name, besides two that everybody knows.

    Raises:
        ValueError: The picture cannot be written.
    """
    if picture is not None:
        file.roofline()  # a table of blocks has no clocks to draw over
        _plot_device(file, picture)
    console.print(Text.assemble((file.name, "bold"), f": {file.description}"))
    origins = [f"on {file.measured_on}"] if file.measured_on else []
    origins += [f"with {file.runtime}"] if file.runtime else []
    if origins:
        print_line(console, f"Measured {', '.join(origins)}")
    table = new_table("Figures")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", max_width=30)
    table.add_column("unit", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    table.add_column("held-out\nerror", justify="right", no_wrap=True)
    table.add_column("source", justify="right")
    sources: dict[str, int] = {}
    for part in (file.clocks, file.latency, file.power):
        for name, quantity in [] if part is None else _quantities(part):
            error = f"{quantity.error.value:.1%}" if quantity.error else ""
            source = sources.setdefault(" ".join(quantity.source.split()), len(sources) + 1)
            table.add_row(name, _value(quantity), quantity.unit, quantity.provenance, error, Text(f"[{source}]"))
        table.add_section()
    console.print(table)
    for text, number in sources.items():
        console.print(Padding(Text(f"[{number}] {text}"), (0, 0, 0, 2)), highlight=False)
    device = to_device(file)
    if device.blocks is not None:
        _print_blocks(device.blocks, console)
        return
    console.print(_modes_table(file))
    if device.correction is not None:
        _print_reach(device.correction, console, networks=networks)


def _print_blocks(blocks: BlockTable, console: Console) -> None:
    """Prints how many blocks of each kind a table has, and what they take."""
    table = new_table("Measured blocks", "kind", "blocks", "least ms", "most ms")
    kinds = np.array([name.partition("-")[0] for name in blocks.names])
    latencies = np.asarray(blocks.latency_s)
    for kind in dict.fromkeys(kinds.tolist()):
        own = latencies[kinds == kind]
        table.add_row(kind, str(len(own)), milli(own.min()), milli(own.max()))
    console.print(table)


def print_calibration(calibration: Calibration, console: Console, *, picture: Path) -> None:
    """Prints the errors of a fit and what to look at.

    Args:
        calibration: The calibration of a device.
        console: The console.
        picture: PNG file for held-out predictions against what was measured.

    Raises:
        ValueError: The picture cannot be written.
    """
    _plot_calibration(calibration, picture)
    headings = ("latency\nerror", "latency\nKendall tau", "power\nerror")
    table = new_table(f"{calibration.file.name}: held-out errors", "left out together", *headings)
    for found in calibration.held_out:
        power = "" if found.power_error is None else f"{found.power_error:.1%}"
        table.add_row(found.left_out, f"{found.latency_error:.1%}", f"{found.latency_tau:.3f}", power)
    console.print(table)
    print_line(
        console,
        f"Fitted to {len(calibration.rows)} measurements, on which the latency is off by "
        f"{calibration.latency_error:.1%}; they take {calibration.scale:.3g} times as long as on the base device.",
        wrap=True,
    )
    for note in calibration.notes:
        print_line(console, note, wrap=True)
    for warning in calibration.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, soft_wrap=not console.is_terminal)


def _modes(file: DeviceFile) -> dict[str, OperatingPoint]:
    """Returns the highest operating point of each power mode; `all clocks` if there are none."""
    device = to_device(file)
    return {
        "all clocks": default_point(device),
        **{name: default_point(with_caps(device, mode_caps(file, name))) for name in file.modes},
    }


def _modes_table(file: DeviceFile) -> Table:
    device = to_device(file)
    form = device.formats[0].name.lower()
    headings = ("core\nMHz", "memory\nMHz", "host\nMHz", "latency\nms", "energy\nmJ", "power\nW")
    title = f"MobileNetV2, 224 pixels, {form}, one image, at the highest clocks"
    table = new_table(title, "power mode", *headings)
    cost = jax.jit(network_cost)
    layers = mobilenet_v2()
    for name, point in _modes(file).items():
        found = cost(layers, device, point)
        mhz = (f"{float(hz) / 1e6:g}" for hz in (point.core_hz, point.memory_hz, point.host_hz))
        latency_s, energy_j = float(found.latency_s), float(found.energy_j)
        table.add_row(name, *mhz, milli(latency_s), milli(energy_j), f"{energy_j / latency_s:.3g}")
    return table


def _print_reach(correction: DeviceCorrection, console: Console, *, networks: Mapping[str, LayerTable] | None) -> None:
    """Prints how near networks are to those that a correction was fitted to."""
    weight = jax.jit(lambda layers: correction.weight(jax.tree.map(jnp.sum, layer_features(layers))))
    known = {"MobileNetV2": mobilenet_v2(), "ResNet-50": resnet50()}
    weights = {name: float(weight(layers)) for name, layers in (known | dict(networks or {})).items()}
    print_line(
        console,
        "Learned correction of whole networks, on latency and energy: it counts in full near those that it was fitted "
        "to and fades to none away from them. Weight: "
        + ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()),
        wrap=True,
    )


def _origins(part: pydantic.BaseModel) -> str:
    origins = [quantity.provenance for _, quantity in _quantities(part)]
    return "/".join(str(origins.count(origin)) for origin in ("measured", "fitted", "assumed"))


def _quantities(part: pydantic.BaseModel, prefix: str = "") -> Iterator[tuple[str, Quantity | Curve]]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Quantity | Curve):
            yield prefix + name, value
        elif isinstance(value, pydantic.BaseModel):
            yield from _quantities(value, f"{prefix}{name}.")


def _value(quantity: Quantity | Curve) -> str:
    values = np.atleast_1d(np.asarray(quantity.value))
    shown = " ".join(f"{value:.4g}" for value in values)
    if isinstance(quantity, Curve):
        return f"{shown} at {' '.join(f'{clock:g}' for clock in quantity.clock)} {quantity.clock_unit}"
    return shown if len(values) < 6 else f"{values[0]:g} to {values[-1]:g} ({len(values)})"


def _plot_device(file: DeviceFile, path: Path) -> None:
    """Draws latency and energy of MobileNetV2 over the core clock, one line per memory clock, as a PNG."""
    device = to_device(file)
    shape = (len(device.core_hz), len(device.memory_hz), len(device.host_hz))
    cost = jax.jit(network_cost_everywhere)(mobilenet_v2(), device)
    latency = np.asarray(cost.latency_s).reshape(shape)[..., -1]
    energy = np.asarray(cost.energy_j).reshape(shape)[..., -1]
    core = np.asarray(device.core_hz) / 1e6
    figure, (axes,) = new_figure((11, 4.6), 1, 2)
    shown = spread_rows(shape[1], _MOST_LINES)
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
        write_ticks_in_full(axis.yaxis, size=8)
        axis.grid(visible=True, which="both", alpha=0.25)
        for name, point in list(_modes(file).items())[1:]:
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


def _plot_calibration(calibration: Calibration, path: Path) -> None:
    """Draws held-out predicted against measured latency, and power where it was measured, as a PNG."""
    rows, found = calibration.rows, calibration.held_out[0]
    panels = [("latency (ms)", [row.latency_ms for row in rows], 1e3 * found.latency_s, found.latency_error)]
    if found.power_error is not None:
        measured = [np.nan if row.power_w is None else row.power_w for row in rows]
        panels.append(("power (W)", measured, found.power_w, found.power_error))
    figure, (axes,) = new_figure((5.4 * len(panels), 5), 1, len(panels))
    families = [row.group for row in rows]
    for axis, (label, actual, predicted, error) in zip(axes, panels, strict=True):
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
    measured = actual[np.isfinite(actual)], predicted[np.isfinite(actual)]
    compare_on_equal_axes(axis, np.concatenate(measured), below=0.9, above=1.1)
    axis.grid(visible=True, which="both", alpha=0.2)
    if is_named:
        axis.legend(fontsize=7)
