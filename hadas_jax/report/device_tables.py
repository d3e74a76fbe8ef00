"""Tables of devices: the catalogue, one device with the origin of every figure, and the errors of a fit."""

from collections.abc import Iterator

import jax
import numpy as np
import pydantic
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hw_models import device_names, read_device_file
from hw_models.catalogue import mode_caps, to_device
from hw_models.device import OperatingPoint, default_point, with_caps
from hw_models.figures import Curve, Figure
from hw_models.fitting.calibration import Calibration
from hw_models.formats import NumberFormat
from hw_models.networks.reference import mobilenet_v2
from hw_models.power import network_cost
from hw_models.schema import DeviceFile


def print_devices(console: Console) -> None:
    """Prints the devices that come with the package."""
    table = Table(title="Devices", title_style="bold")
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
        errors = [figure.error.value for _, figure in _figures(file.latency) if figure.error]
        table.add_row(
            name,
            f"{points:,}",
            "all" if len(device.formats) == len(NumberFormat) else " ".join(f.name.lower() for f in device.formats),
            " ".join(file.modes),
            _origins(file),
            f"{max(errors):.1%}" if errors else "",
        )
    console.print(table)
    console.print(
        "Figures: how many are measured/fitted/assumed. Latency error: of the fit, on networks or clocks left out of "
        "it; hadas devices show NAME says what was fitted and where each figure comes from.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )


def print_device(file: DeviceFile, console: Console) -> None:
    """Prints every figure of a device with its origin, and what MobileNetV2 costs in each power mode."""
    console.print(Text.assemble((file.name, "bold"), f": {file.description}"))
    table = Table(title="Figures", title_style="bold")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right", max_width=30)
    table.add_column("unit", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    table.add_column("held-out\nerror", justify="right", no_wrap=True)
    table.add_column("source", justify="right")
    sources: dict[str, int] = {}
    for part in ("clocks", "latency", "power"):
        for name, figure in _figures(getattr(file, part)):
            error = f"{figure.error.value:.1%}" if figure.error else ""
            source = sources.setdefault(" ".join(figure.source.split()), len(sources) + 1)
            table.add_row(name, _value(figure), figure.unit, figure.provenance, error, Text(f"[{source}]"))
        table.add_section()
    console.print(table)
    for text, number in sources.items():
        console.print(Padding(Text(f"[{number}] {text}"), (0, 0, 0, 2)), highlight=False)
    console.print(_modes_table(file))


def print_calibration(calibration: Calibration, console: Console) -> None:
    """Prints the errors of a fit and what to look at."""
    table = Table(title=f"{calibration.file.name}: held-out errors", title_style="bold")
    table.add_column("left out together")
    for name in ("latency\nerror", "latency\nKendall tau", "power\nerror"):
        table.add_column(name, justify="right")
    for found in calibration.held_out:
        power = "" if found.power_error is None else f"{found.power_error:.1%}"
        table.add_row(found.left_out, f"{found.latency_error:.1%}", f"{found.latency_tau:.3f}", power)
    console.print(table)
    console.print(
        f"Fitted to {len(calibration.rows)} measurements, on which the latency is off by "
        f"{calibration.latency_error:.1%}; they take {calibration.scale:.3g} times as long as on the base device.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
    for warning in calibration.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False, soft_wrap=not console.is_terminal)


def modes(file: DeviceFile) -> dict[str, OperatingPoint]:
    """Returns the highest operating point of each power mode; `all clocks` if there are none."""
    device = to_device(file)
    return {
        "all clocks": default_point(device),
        **{name: default_point(with_caps(device, mode_caps(file, name))) for name in file.modes},
    }


def _modes_table(file: DeviceFile) -> Table:
    device = to_device(file)
    form = device.formats[0].name.lower()
    table = Table(title=f"MobileNetV2, 224 pixels, {form}, one image, at the highest clocks", title_style="bold")
    table.add_column("power mode")
    for name in ("core\nMHz", "memory\nMHz", "host\nMHz", "latency\nms", "energy\nmJ", "power\nW"):
        table.add_column(name, justify="right")
    cost = jax.jit(network_cost)
    layers = mobilenet_v2()
    for name, point in modes(file).items():
        found = cost(layers, device, point)
        mhz = (f"{float(hz) / 1e6:g}" for hz in (point.core_hz, point.memory_hz, point.host_hz))
        latency_s, energy_j = float(found.latency_s), float(found.energy_j)
        table.add_row(name, *mhz, f"{latency_s * 1e3:.3g}", f"{energy_j * 1e3:.3g}", f"{energy_j / latency_s:.3g}")
    return table


def _origins(part: pydantic.BaseModel) -> str:
    found = [figure.provenance for _, figure in _figures(part)]
    return "/".join(str(found.count(origin)) for origin in ("measured", "fitted", "assumed"))


def _figures(part: pydantic.BaseModel, prefix: str = "") -> Iterator[tuple[str, Figure | Curve]]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Figure | Curve):
            yield prefix + name, value
        elif isinstance(value, pydantic.BaseModel):
            yield from _figures(value, f"{prefix}{name}.")


def _value(figure: Figure | Curve) -> str:
    values = np.atleast_1d(np.asarray(figure.value))
    shown = " ".join(f"{value:.4g}" for value in values)
    if isinstance(figure, Curve):
        return f"{shown} at {' '.join(f'{clock:g}' for clock in figure.clock)} {figure.clock_unit}"
    return shown if len(values) < 6 else f"{values[0]:g} to {values[-1]:g} ({len(values)})"
