"""The commands for a network that a user brings: what it costs, and exits and clocks for it.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hadas_jax.report.console import new_console, new_file, print_line
from hadas_jax.settings import OperatingSettings

if TYPE_CHECKING:
    from hadas_jax.deploy.pricing import NetworkPrice

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
