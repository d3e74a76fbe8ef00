"""The commands about devices as library calls: list and show them, measure a machine, fit a device to measurements."""

import itertools
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hadas_jax import profiling
from hadas_jax.report import StepProgress, plot_calibration, plot_device, print_calibration, print_device, print_devices
from hadas_jax.report.console import new_console, say, waiting
from hw_models import read_device_file
from hw_models.catalogue import write_device_file
from hw_models.fitting.calibration import Calibration, calibrate, nearest_device
from hw_models.measuring.machine import ClockSetting
from hw_models.measuring.measurements import Measurement, read_measurements


def list_devices(*, console: Console | None = None) -> None:
    """Prints the devices that come with the package."""
    print_devices(_console(console))


def show_device(name_or_path: str, *, plot: Path | str | None = None, console: Console | None = None) -> None:
    """Prints a device's figures with their origin and its power modes; draws its costs over the clocks.

    Args:
        name_or_path: Of the device.
        plot: Where the picture goes; None: no picture.
        console: None: standard output.

    Raises:
        ValueError: The device is unknown or its file wrong, or the picture exists.
    """
    console = _console(console)
    file = read_device_file(name_or_path)
    if plot is not None:
        target = _new_file(plot, ".png", what="picture")
        plot_device(file, target)
    print_device(file, console)
    if plot is not None:
        say(console, f"Picture of latency and energy over the clocks: {plot}")


def fit_device(
    measurements: Path | str | Sequence[Measurement],
    output: Path | str,
    *,
    base: str | None = None,
    name: str | None = None,
    prior_sigma: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> Calibration:
    """Fits a device to measurements and writes its file, with a picture of predicted against measured beside it.

    Args:
        measurements: A CSV file (`hw_models.measuring.measurements`) or its rows.
        output: Of the device file, .yaml; the picture has the same name and .png.
        base: Device to start from, a name or a path; None: the known one whose latencies are nearest in kind.
        name: Of the device; None: from `output`.
        prior_sigma: How far parameters may leave the base beyond one common factor, as the standard deviation of a log
            factor; None: 1, or 0.3 for fewer than 30 measurements.
        seed: Of folds and starts.
        overwrite: Replace `output` and its picture.
        console: None: standard output.

    Returns:
        The calibration, with its held-out errors.

    Raises:
        ValueError: The files or the measurements do not fit.
    """
    console = _console(console)
    is_file = isinstance(measurements, Path | str)
    rows = read_measurements(measurements) if isinstance(measurements, Path | str) else list(measurements)
    origin = f"{len(rows)} measurements of {Path(str(measurements)).name}" if is_file else f"{len(rows)} measurements"
    target = _new_file(output, ".yaml", what="device file", overwrite=overwrite)
    picture = _new_file(target.with_suffix(".png"), ".png", what="picture", overwrite=overwrite)
    name = name or re.sub(r"[^a-z0-9]+", "-", target.stem.lower()).strip("-")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"--name: expected lower-case letters, digits and hyphens, got {name!r} ({target.name})")
    if prior_sigma is not None and not prior_sigma > 0:
        raise ValueError(f"--prior-sigma: expected a number above 0, got {prior_sigma:g}")
    if base is None:
        base = nearest_device(rows)
        say(console, f"Base: {base}, the known device whose latencies are nearest in kind")
    with waiting(console, f"Fitting {len(rows)} measurements, and cross-validating"):
        calibration = calibrate(
            rows,
            read_device_file(base),
            name=name,
            source=origin,
            prior_sigma=prior_sigma,
            seed=seed,
        )
    write_device_file(target, calibration.file, overwrite=overwrite)
    plot_calibration(calibration, picture)
    print_calibration(calibration, console)
    say(console, f"Written: {target}, {picture}")
    say(console, f"To search for it: hadas search --device {shlex.quote(str(target))}")
    return calibration


def profile_machine(
    output: Path | str,
    *,
    space: str = "digits",
    resolution: int | None = None,
    networks: int = 60,
    layers: int = 3,
    batch: int = 1,
    rounds: int = 3,
    core_mhz: Sequence[float] = (),
    memory_mhz: Sequence[float] = (),
    host_mhz: Sequence[float] = (),
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> list[Measurement]:
    """Measures sub-networks and single layers on this machine, at its clocks as they are or at given ones.

    Power is read from the rails of a Jetson or the counters of an x86 processor where that is allowed, and left
    empty elsewhere. Setting clocks needs write access to sysfs; they are restored afterwards.

    Args:
        output: CSV file of the measurements (`hw_models.measuring.measurements`).
        space: Of the sub-networks, digits or attentivenas.
        resolution: Of the images; None: the smallest of the space.
        networks: Number of sub-networks.
        layers: Sizes of each kind of single layer, 0 to 4.
        batch: Images per run.
        rounds: Measurements of each network; its row is the median of theirs.
        core_mhz: Settings of the processor's clock to measure at; empty: as it is.
        memory_mhz: As `core_mhz`, of the memory.
        host_mhz: As `core_mhz`, of the CPU that launches kernels on a GPU.
        seed: Of the choice of sub-networks.
        resume: Continue the measurements in `output`.
        console: For progress; None: standard output.

    Returns:
        The rows of the file.

    Raises:
        ValueError: A count is out of range, the file exists, or clocks cannot be set.
    """
    console = _console(console)
    machine = profiling.this_machine()
    meter = machine.meter()
    say(console, f"Measuring on {machine.name}; {machine.power_in_words()}")
    say(console, f"Clocks: {machine.clocks_in_words()}")
    clocks = itertools.product(*(tuple(table) or (None,) for table in (core_mhz, memory_mhz, host_mhz)))
    with StepProgress(console) as progress:
        rows = profiling.profile_machine(
            profiling.space_to_profile(space, resolution),
            output,
            networks=networks,
            layers=layers,
            batch=batch,
            seed=seed,
            machine=machine,
            meter=meter,
            settings=[ClockSetting(*setting) for setting in clocks],
            rounds=rounds,
            resume=resume,
            on_step=lambda step: progress.update(
                step.done, step.total, f"round {step.round}: {step.row.network} {step.row.latency_ms:.3g} ms"
            ),
        )
    say(console, f"Written: {output}, {len(rows)} rows")
    is_x86 = machine.processor == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    base = " --base x86-cpu" if is_x86 else ""
    say(console, f"To fit a device to it: hadas devices fit {shlex.quote(str(output))}{base} -o my_device.yaml")
    return rows


def _new_file(path: Path | str, suffix: str, *, what: str, overwrite: bool = False) -> Path:
    target = Path(path)
    if target.suffix != suffix:
        raise ValueError(f"{path}: expected a {what} that ends in {suffix}, got {target.suffix or 'no ending'!r}")
    if target.exists() and not overwrite:
        raise ValueError(f"{path}: expected a new {what}, got one that exists; nothing was written")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: expected a folder that exists, got {target.parent}")
    return target


def _console(console: Console | None) -> Console:
    return console or new_console()
