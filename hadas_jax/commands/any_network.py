"""The commands for a network that a user brings: what it costs, and exits and clocks for it.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from rich.console import Console

from hadas_jax.commands.run import RunArguments, run_command
from hadas_jax.report.console import new_console, new_file, print_line
from hadas_jax.settings import ExitsSettings, OperatingSettings

if TYPE_CHECKING:
    from hadas_jax.deploy.pricing import NetworkPrice
    from hadas_jax.frozen.run import ExitsRun
    from hadas_jax.methods import Result

_AS_IT_COMES = OperatingSettings()


def price(
    model: Path | str,
    *,
    device: str = "agx-xavier-gpu",
    operating: OperatingSettings = _AS_IT_COMES,
    max_latency_ms: Sequence[float] = (),
    max_power_w: Sequence[float] = (),
    image_size: int | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> NetworkPrice:
    """Prices an ONNX model on a device: latency, energy and memory, layer by layer, at several clocks.

    Costs are of one sample, at the highest clocks, at those of least energy, and at the best ones for deadlines and
    power caps. Operators that are not known are counted by the bytes that they move, and named.

    Args:
        model: ONNX file; its weights need not be there.
        device: A device that comes with the package, or the path of a device file.
        operating: How the device is operated.
        max_latency_ms: Deadlines: the clocks of least energy that keep each.
        max_power_w: Caps on the mean power: the clocks of least latency that keep each.
        image_size: Height and width of images, where the model leaves them open.
        output: JSON file to write.
        overwrite: Replace the file.
        console: For the tables; None: standard output.

    Returns:
        The price.

    Raises:
        ValueError: The model or the device do not fit, or no clocks keep a deadline or a cap.
    """
    from hadas_jax.deploy.pricing import price_network
    from hadas_jax.report.any_network import print_price
    from hadas_jax.runs.workdir import write_text
    from hw_models import onnx_layers
    from hw_models.catalogue import chosen_device

    for name, asked in (("max_latency_ms", max_latency_ms), ("max_power_w", max_power_w)):
        for most in asked:
            if not 0 < most < math.inf:
                raise ValueError(f"{name}: expected a number above 0, got {most!r}")
    target = None if output is None else new_file(output, ".json", overwrite=overwrite)
    layers, chosen = onnx_layers(model, image_size=image_size), chosen_device(device, operating)
    found = price_network(
        layers, chosen, max_latency_s=[1e-3 * most for most in max_latency_ms], max_power_w=max_power_w
    )
    console = console or new_console()
    print_price(found, console, title=Path(model).name)
    if target is not None:
        write_text(target, json.dumps(found.as_json(), indent=1) + "\n")
        print_line(console, f"Written: {target}")
    return found


def exits(settings: ExitsSettings | None = None, **run: Unpack[RunArguments]) -> Result:
    """Finds exits, thresholds and clocks for an ONNX classifier of images, whose weights stay as they are.

    Places where one tensor alone passes on get heads, trained on features that are computed once and kept on disk.
    Exits and clocks are then searched exactly, thresholds set by conformal risk control, and the result is a work
    directory as that of hadas search: for hadas select, operating-points, export, report and devices check.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        **run: See `RunArguments`.

    Returns:
        The fronts and accuracy levels.

    Raises:
        ValueError: Settings, model, data or the work directory do not fit.
    """
    from hadas_jax.frozen.run import ExitsRun

    return _run_exits(ExitsRun, settings, **run)


def exits_of_stages(
    stages: Sequence[Callable[[Any], Any]], settings: ExitsSettings | None = None, **run: Unpack[RunArguments]
) -> Result:
    """Finds exits, thresholds and clocks for a network that is given as a list of JAX functions, as `exits` does.

    Args:
        stages: Pure functions, such as parts of a flax module; the first takes standardised images [B, H, W, C], the
            last gives logits [B, K]. Exits may follow all but the last.
        settings: Settings of the run; `model` is a name.
        **run: See `RunArguments`.

    Returns:
        The fronts and accuracy levels.

    Raises:
        ValueError: Settings, stages, data or the work directory do not fit.
    """
    from hadas_jax.frozen.run import ExitsRun

    return _run_exits(lambda given: ExitsRun(given, stages=stages), settings, **run)


def _run_exits(
    start: Callable[[ExitsSettings], ExitsRun], settings: ExitsSettings | None, **run: Unpack[RunArguments]
) -> Result:
    from hadas_jax.report.any_network import print_heads
    from hadas_jax.report.html.pictures import plot_front
    from hadas_jax.report.search import print_result

    def finish(started: ExitsRun, result: Result, path: Path, console: Console) -> None:
        print_heads(path, console)
        plot_front(result, path / "front.png")
        print_result(result, console)
        print_line(console, f"Written: {path}/front.csv, front.json, levels.csv, front.png, given/")
        report, select = (shlex.join(["hadas", command, str(path)]) for command in ("report", "select"))
        print_line(console, f"A page to look at: {report}; one network of the front: {select}")

    return run_command(
        ExitsSettings,
        start,
        settings,
        name=lambda started: (started.settings.data.dataset, Path(started.network.source).stem),
        finish=finish,
        **run,
    )
