"""The commands about devices: list and show them, measure a machine or a board, fit a device to measurements.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import platform
import re
import shlex
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from hadas_jax.report.console import StepProgress, new_console, new_file, print_line, waiting

if TYPE_CHECKING:
    from hadas_jax.deploy.kit import Kit
    from hw_models import LayerTable
    from hw_models.fitting.calibration import Calibration
    from hw_models.measuring import Step
    from hw_models.measuring.measurements import Measurement


def list_devices(*, console: Console | None = None) -> None:
    """Lists the devices that come with the package.

    Args:
        console: For the table; None: standard output.
    """
    from hadas_jax.report.devices import print_devices

    print_devices(console or new_console())


def show_device(
    device: str, *, space: str | None = None, plot: Path | str | None = None, console: Console | None = None
) -> None:
    """Shows a device: every quantity with its origin and error, and what its power modes cost.

    Args:
        device: A name of `hadas devices list`, or the path of a device file.
        space: Space to tell how near its smallest and largest network are to what the device's correction has seen.
        plot: PNG file for a picture of latency and energy over the clocks.
        console: For the tables; None: standard output.

    Raises:
        ValueError: The device is unknown or its file wrong, or the picture exists.
    """
    from hadas_jax.report.devices import print_device
    from hw_models import read_device_file

    console = console or new_console()
    file = read_device_file(device)
    picture = None if plot is None else new_file(plot, ".png", what="picture")
    print_device(file, console, picture=picture, networks={} if space is None else _ends_of_space(space))
    if plot is not None:
        print_line(console, f"Picture of latency and energy over the clocks: {plot}")


def _ends_of_space(name: str) -> dict[str, LayerTable]:
    """Returns the smallest and the largest network of a space, without exits."""
    import jax.numpy as jnp

    from hadas_jax.methods.hadas.constraints import trunk
    from hadas_jax.spaces.design import space_to_profile

    space = space_to_profile(name, None)
    genomes = {"smallest": space.smallest_genome, "largest": space.largest_genome}
    return {f"{end} of {name}": trunk(space, jnp.asarray(genome)) for end, genome in genomes.items()}


def write_blocks(
    output: Path | str,
    *,
    space: str = "digits",
    resolution: int | None = None,
    device: str | None = None,
    classes: int = 10,
    channels: int | None = None,
    console: Console | None = None,
) -> list[str]:
    """Writes the table of all blocks of a space, to be filled in with what they take, for `hadas search --device`.

    A table of measured blocks, under the names of Once-for-All's latency tables, is a device for the spaces whose
    blocks it has.

    Args:
        output: CSV file to write, with columns block, latency_ms and energy_mj.
        space: Space of the networks, a name or a space file.
        resolution: Resolution of the images in pixels; by default the smallest of the space, for a space that has none.
        device: Device whose roofline fills the table in, at its highest clocks; by default costs are left empty.
        classes: Of the data set.
        channels: Of its images; by default 1 for digits and 3 for the others.
        console: For the closing line; None: standard output.

    Returns:
        Names of the blocks.

    Raises:
        ValueError: The space or the device is unknown, or the file exists.
    """
    import csv
    import io

    import jax
    import jax.numpy as jnp

    from hadas_jax.spaces import load_space
    from hadas_jax.spaces.design import space_to_profile
    from hadas_jax.spaces.workload import block_names
    from hw_models import load_device
    from hw_models.blocks import BASE, block_layers, parse_block
    from hw_models.cost import cost, run_cost
    from hw_models.device import default_point
    from hw_models.files import write_whole

    console = console or new_console()
    target = new_file(output, ".csv", what="table")
    size = space_to_profile(space, resolution).resolution[0]
    chosen = load_space(space).adapt(
        in_channels=channels or (1 if space == "digits" else 3), classes=classes, image_size=size
    )
    if resolution is not None:
        chosen = dataclasses.replace(chosen, resolution=(size,))
    names = block_names(chosen)
    rows: list[list[object]] = [[name, "", ""] for name in names]
    if device is not None:
        model = load_device(device)
        point = default_point(model)
        price = jax.jit(lambda layers: jax.tree.map(jnp.sum, cost(layers, model, point)))
        run = run_cost(model, point, segments=1)
        found = {BASE: run} | {name: price(block_layers(parse_block(name))) for name in names}
        rows = [[name, 1e3 * float(each.latency_s), 1e3 * float(each.energy_j)] for name, each in found.items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["block", "latency_ms", "energy_mj"], *rows])
    write_whole(target, text.getvalue().encode("utf-8"))
    print_line(console, f"Written: {target}, {len(names)} blocks of {chosen.name}")
    print_line(console, f"To search for it: hadas search --space {space} --device {shlex.quote(str(target))}")
    return names


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
    """Fits a device to measurements, cross-validates it and writes its file, for `hadas search --device`.

    Args:
        measurements: CSV file as written by `hadas devices profile`, or a table of measured blocks, CSV or YAML, as
            Once-for-All's users have them.
        output: Device file to write, .yaml; a picture of predicted against measured goes beside it.
        base: Device to start from, a name or a path; by default the known one whose latencies are nearest in kind.
        name: Name of the new device; by default from `output`.
        prior_sigma: How far parameters may leave the base beyond one common factor, as the standard deviation of a log
            factor; by default 1, or 0.3 for fewer than 30 measurements.
        seed: Random seed of folds and starts.
        overwrite: Replace `output` and its picture.
        console: For progress and tables; None: standard output.

    Returns:
        The calibration, with its held-out errors.

    Raises:
        ValueError: The files or the measurements do not fit.
    """
    from hadas_jax.report.devices import print_calibration
    from hw_models import read_device_file, write_device_file
    from hw_models.fitting.calibration import calibrate, nearest_device

    console = console or new_console()
    is_file = isinstance(measurements, Path | str)
    rows = _read_rows(measurements) if isinstance(measurements, Path | str) else list(measurements)
    origin = f"{len(rows)} measurements of {Path(str(measurements)).name}" if is_file else f"{len(rows)} measurements"
    target = new_file(output, ".yaml", what="device file", overwrite=overwrite)
    picture = new_file(target.with_suffix(".png"), ".png", what="picture", overwrite=overwrite)
    name = name or re.sub(r"[^a-z0-9]+", "-", target.stem.lower()).strip("-")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError(f"name: expected lower-case letters, digits and hyphens, got {name!r} ({target.name})")
    if prior_sigma is not None and not prior_sigma > 0:
        raise ValueError(f"prior_sigma: expected a number above 0, got {prior_sigma:g}")
    if base is None:
        base = nearest_device(rows)
        print_line(console, f"Base: {base}, the known device whose latencies are nearest in kind")
    with waiting(console, f"Fitting {len(rows)} measurements, and cross-validating"):
        start = read_device_file(base)
        calibration = calibrate(rows, start, name=name, source=origin, prior_sigma=prior_sigma, seed=seed)
    write_device_file(target, calibration.file, overwrite=overwrite)
    print_calibration(calibration, console, picture=picture)
    print_line(console, f"Written: {target}, {picture}")
    print_line(console, f"To search for it: hadas search --device {shlex.quote(str(target))}")
    return calibration


def _read_rows(path: Path | str) -> list[Measurement]:
    """Reads measurements, or the blocks of a table."""
    from hw_models.lookup import is_block_table, read_block_costs
    from hw_models.measuring.measurements import block_measurements, read_measurements

    costs = read_block_costs(path) if is_block_table(path) else None
    return read_measurements(path) if costs is None else block_measurements(costs)


def write_kit(
    output: Path | str,
    *,
    space: str = "digits",
    resolution: int | None = None,
    networks: int = 60,
    layers: int = 3,
    batch: int = 1,
    number_formats: Sequence[Literal["fp32", "fp16", "int8"]] = ("fp32",),
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> Kit:
    """Writes a folder that measures a board without JAX: networks of a space as ONNX, single layers, and measure.py.

    The board needs Python 3.6 or newer with NumPy, and onnxruntime or trtexec. Networks are there whole and as segments
    that end with exits, so that hadas devices fit tells the cost of a call from that of layers.

    Args:
        output: Folder to write.
        space: Space of the networks: digits, small-images, attentivenas or attentivenas-native.
        resolution: Resolution of the images in pixels; by default the smallest of the space.
        networks: Number of networks.
        layers: Sizes of each kind of single layer, 0 to 4.
        batch: Images per run.
        number_formats: Formats in each of which everything is measured: fp32, fp16, int8.
        seed: Random seed of the choice of networks and of the places of their exits.
        overwrite: Replace the kit in the folder.
        console: For what to do next; None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A count is out of range, the extra onnx is missing, or the folder holds something else.
    """
    from hadas_jax.deploy.kit import write_space_kit
    from hadas_jax.spaces.design import space_to_profile

    console = console or new_console()
    chosen = space_to_profile(space, resolution)
    with waiting(console, f"Writing {networks} networks of {chosen.name}"):
        design = {"networks": networks, "layers": layers, "batch": batch, "seed": seed}
        kit = write_space_kit(output, chosen, number_formats=number_formats, overwrite=overwrite, **design)
    print_kit(kit, console)
    print_line(console, "Then here: hadas devices fit measurements.csv -o my_device.yaml")
    return kit


def print_kit(kit: Kit, console: Console) -> None:
    """Prints where a kit is and what to do with it on the board."""
    print_line(console, f"Written: {kit.folder}, kit {kit.digest}: {kit.cases} cases, {kit.bytes / 1e6:.1f} MB")
    folder = shlex.quote(kit.folder.name)
    print_line(
        console, f"Copy the folder to the board, and there: cd {folder} && python3 measure.py -o measurements.csv"
    )
    print_line(
        console,
        "It takes Python 3.6 or newer with numpy, and onnxruntime (pip install onnxruntime) or trtexec of TensorRT; "
        "python3 measure.py --dry-run lists what it would do.",
        wrap=True,
    )


@dataclasses.dataclass(frozen=True)
class MachineProfile:
    """What was measured of a machine.

    Attributes:
        rows: Of the file.
        inconclusive: Networks that have no row at some clocks, as every measurement of them was disturbed.
    """

    rows: list[Measurement]
    inconclusive: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of the command: 1 where networks have no row, as `measure.py` of a kit ends."""
        return 1 if self.inconclusive else 0


def profile_machine(
    output: Path | str,
    *,
    space: str = "digits",
    resolution: int | None = None,
    networks: int = 60,
    layers: int = 3,
    batch: int = 1,
    number_formats: Sequence[Literal["fp32", "fp16", "int8"]] = ("fp32",),
    runtime: Literal["onnxruntime", "jax"] | None = None,
    rounds: int = 3,
    core_mhz: Sequence[float] = (),
    memory_mhz: Sequence[float] = (),
    host_mhz: Sequence[float] = (),
    seed: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> MachineProfile:
    """Measures sub-networks and single layers on this machine, for `hadas devices fit`; exit code 1 if INCONCLUSIVE.

    On onnxruntime, which exported networks run on, this is what a kit measures on a board: sub-networks whole and as
    segments that end with exits. A measurement during which clocks moved or the machine throttled is repeated, then
    left out and counted; where a network has no row in the end the command ends with exit code 1, and resuming measures
    it again.

    Power is read from the rails of a Jetson or the counters of an x86 processor where that is allowed, and left
    empty elsewhere. Clocks are left as they are unless given; setting them needs write access to sysfs, and they are
    restored afterwards.

    Args:
        output: CSV file to write.
        space: Space of the sub-networks: digits or attentivenas.
        resolution: Resolution of the images in pixels; by default the smallest of the space.
        networks: Number of sub-networks.
        layers: Sizes of each kind of single layer, 0 to 4.
        batch: Images per run.
        number_formats: Formats in each of which everything is measured: fp32, fp16, int8; jax has fp32 alone.
        runtime: What runs the networks; by default onnxruntime where it is installed, else jax.
        rounds: Measurements of each network; its row is the median of theirs.
        core_mhz: Settings of the processor's clock to measure at.
        memory_mhz: Settings of the memory clock to measure at.
        host_mhz: Settings of the clock of the CPU that launches kernels on a GPU.
        seed: Random seed of the choice of sub-networks.
        resume: Continue the measurements in `output`.
        console: For progress; None: standard output.

    Returns:
        The rows of the file, and which networks have none.

    Raises:
        ValueError: A count is out of range, the file exists, the runtime is missing, or clocks cannot be set.
    """
    from hadas_jax.profiling import on_jax, on_onnxruntime
    from hadas_jax.spaces.design import space_to_profile
    from hw_models.measuring import ClockSetting, Measurement, profile
    from hw_models.measuring.measure import require_output, summary

    console = console or new_console()
    require_output(output, resume=resume)
    chosen = space_to_profile(space, resolution)
    design = {"networks": networks, "layers": layers, "batch": batch, "seed": seed}
    runtime = runtime or ("onnxruntime" if all(map(find_spec, ("onnx", "onnxruntime"))) else "jax")
    if runtime == "jax" and list(number_formats) != ["fp32"]:
        raise ValueError(f"number_formats: expected fp32 alone on jax, got {' '.join(number_formats)}")
    clocks = itertools.product(*(tuple(table) or (None,) for table in (core_mhz, memory_mhz, host_mhz)))
    steps: list[Step] = []
    without: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        if runtime == "jax":
            subjects = on_jax(chosen, **design)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "kit"
            with waiting(console, f"Writing {networks} networks of {chosen.name} as ONNX"):
                subjects = on_onnxruntime(folder, chosen, number_formats=number_formats, **design)
        machine, labels = subjects.machine, subjects.labels
        meter = machine.meter()
        print_line(console, f"Measuring on {machine.name}; {machine.power_in_words(meter)}")
        print_line(console, f"Runtime: {runtime} {labels['runtime_version']}, {labels['provider']}")
        print_line(console, f"Clocks: {machine.clocks_in_words()}")
        progress = stack.enter_context(StepProgress(console))

        def show(step: Step) -> None:
            steps.append(step)
            what = f"INCONCLUSIVE: {step.trouble}" if step.trouble else f"{step.latency_ms:.3g} ms"
            progress.update(step.done, step.total, f"round {step.round}: {step.name} {what}")

        rows = profile(
            subjects.cases,
            output,
            machine=machine,
            meter=meter,
            clocks=[ClockSetting(*setting) for setting in clocks],
            rounds=rounds,
            reference=subjects.reference,
            resume=resume,
            labels=labels,
            on_step=show,
            on_inconclusive=without.__setitem__,
        )
    for name, reason in without.items():
        print_line(console, f"INCONCLUSIVE: {name} has no row: {reason}")
    for line in summary(steps, labels["provider"]):
        print_line(console, line)
    print_line(console, f"Written: {output}, {len(rows)} rows")
    if without:
        lack = f"{len(without)} of {len(subjects.cases)} networks lack a row"
        print_line(console, f"INCONCLUSIVE: {lack}; --resume measures them again")
    is_x86 = machine.processor == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    base = " --base x86-cpu" if is_x86 else ""
    print_line(console, f"To fit a device to it: hadas devices fit {shlex.quote(str(output))}{base} -o my_device.yaml")
    known = ({name: value for name, value in row.items() if value is not None} for row in rows)
    return MachineProfile([Measurement.model_validate(row) for row in known], tuple(without))
