"""The command that closes the loop: networks of a front are measured and set beside what the search promised.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hadas_jax.commands.devices import print_kit
from hadas_jax.report.console import StepProgress, new_console, new_file, print_line, waiting

if TYPE_CHECKING:
    from hadas_jax.deploy.check import Check, EndToEnd
    from hadas_jax.deploy.kit import Kit

_IMAGES = 500  # of the test split, at most, that networks run on end to end


def check_front(
    workdir: Path | str,
    *,
    device: str | None = None,
    networks: int = 20,
    kit: Path | str | None = None,
    measurements: Path | str | None = None,
    output: Path | str | None = None,
    tolerance: float = 0.1,
    rounds: int = 3,
    threads: int = 1,
    corruptions: int = 0,
    dataset: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Check | Kit:
    """Measures networks of a front and sets them beside what the search promised; exit code 1 beyond the tolerance.

    Networks across the deployable front are exported to ONNX with their weights. On this machine every exit's path is
    timed, and the runtime runs them on test images, one at a time. For a board, `kit` writes a folder to run there, and
    `measurements` reads its CSV file. check.json comes with check.csv, for hadas devices fit --base, and check.png.

    Args:
        workdir: Work directory of a finished search.
        device: Device model to check, a name or a path; by default that of the search.
        networks: Number of networks, at most.
        kit: Folder to write for a board, and no more.
        measurements: CSV file that measure.py wrote on the board.
        output: File to write, .json; by default check.json in `workdir`, which is replaced.
        tolerance: Mean relative error that is still well.
        rounds: Measurements of each network.
        threads: Threads of onnxruntime.
        corruptions: Number of these networks, spread over the front, whose accuracy and measured cost are told under
            noise, blur, contrast and brightness at three strengths too. Takes 13 runs over the test images for each.
        dataset: Where the images of the search are now, if they were moved; as the dataset of hadas search.
        data_dir: Likewise, as the data_dir of hadas search.
        overwrite: Replace `output`, what is beside it, and the kit in its folder.
        console: For tables; None: standard output.

    Returns:
        What was found, or the kit.

    Raises:
        ValueError: The search is unfinished or its weights are gone, a runtime is missing, or measurements are of
            another kit.
    """
    import numpy as np

    from hadas_jax.deploy import check
    from hadas_jax.deploy.kit import require_onnx, write_network_kit
    from hadas_jax.deploy.robustness import under_corruptions
    from hadas_jax.methods.hadas.results import read_search
    from hadas_jax.report.check import plot_check, print_check
    from hadas_jax.report.pictures import spread_rows
    from hadas_jax.runs.names import CHECK
    from hadas_jax.runs.workdir import reading, writing
    from hw_models.measuring import find_engine, read_measurements

    console = console or new_console()
    if kit is not None and measurements is not None:
        raise ValueError("kit and measurements: expected one of them: a kit is written, or its measurements are read")
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a number above 0, got {tolerance:g}")
    if not 0 <= corruptions <= networks:
        raise ValueError(f"corruptions: expected 0 to {networks}, the number of networks, got {corruptions}")
    if rounds < 1:
        raise ValueError(f"rounds: expected 1 or more, got {rounds}")
    search = read_search(workdir)
    target = search.path / CHECK
    if output is not None:
        target = new_file(output, ".json", what="check", overwrite=overwrite)
    with tempfile.TemporaryDirectory() as aside:
        rows = [] if measurements is None else read_measurements(measurements)
        if measurements is None:
            require_onnx()
            if kit is None:
                find_engine("onnxruntime")
            chosen = check.choose(search, networks)
        else:
            chosen = check.recall_kit(search, rows, source=str(measurements))
        if measurements is None or corruptions:
            with waiting(console, f"Cutting {len(chosen)} networks of the front out of their supernet"):
                named, test = check.cut_out(search, chosen, Path(aside), dataset=dataset, data_dir=data_dir)
        if kit is not None:
            with writing(search.path):
                written = write_network_kit(kit, named, overwrite=overwrite)
                check.remember_kit(search.path, written.digest, chosen)
            print_kit(written, console)
            back = shlex.join(["hadas", "devices", "check", str(search.path), "--measurements", "measurements.csv"])
            print_line(console, f"Then here: {back}")
            return written
        end_to_end: dict[str, EndToEnd] | None = None
        protocol: dict[str, Any] = {"rounds": None, "threads": None, "images": 0}
        if measurements is None:
            images = np.asarray(test.images)
            protocol = {"rounds": rounds, "threads": threads, "images": min(len(images), _IMAGES)}
            with StepProgress(console) as progress:
                rows, end_to_end = check.measure_here(
                    named,
                    images[spread_rows(len(images), _IMAGES)],
                    Path(aside),
                    rounds=rounds,
                    threads=threads,
                    on_step=lambda step: progress.update(
                        step.done,
                        step.total,
                        f"round {step.round}: {step.name} {step.trouble or f'{step.latency_ms:.3g} ms'}",
                    ),
                )
        corrupted = {}
        if corruptions:
            with waiting(console, f"Corrupting the test images of {corruptions} networks"):
                some = [named[row] for row in spread_rows(len(named), corruptions)]
                corrupted = {name: under_corruptions(network, test) for name, network in some}
    found = check.compare(
        search,
        chosen,
        rows,
        device=device or search.settings.device,
        end_to_end=end_to_end,
        corruptions=corrupted,
        tolerance=tolerance,
        protocol=protocol,
    )
    print_check(found, console)
    with reading(search.path):
        if measurements is None:  # so that they can be read again, with another device
            check.remember_kit(search.path, str(rows[0].kit), chosen)
        check.write_check(target, found, rows)
        plot_check(found, target.with_suffix(".png"))
    print_line(console, f"Written: {target}, {target.with_suffix('.csv')}, {target.with_suffix('.png')}")
    if not found.is_within:
        csv, base = shlex.quote(str(target.with_suffix(".csv"))), shlex.quote(str(device or search.settings.device))
        print_line(console, f"To bring the device nearer: hadas devices fit {csv} --base {base} -o my_device.yaml")
    return found
