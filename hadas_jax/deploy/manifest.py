"""What stands beside exported segments: all that a device needs to run them, as JSON.

Form `hadas_jax.export/1`, read by `hadas_jax.deploy.runtime`. Units: s, J, W, MHz.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data import LabelledImages, Stream
from hadas_jax.deploy.exit_costs import exit_costs
from hadas_jax.deploy.operating_points import operating_table
from hadas_jax.deploy.runtime import FORM, MANIFEST
from hadas_jax.deploy.static_network import StaticNetwork
from hadas_jax.workdir import versions, write_text


@dataclass(frozen=True)
class ImageValues:
    """Of the images that a network was trained on.

    Attributes:
      dtype: uint8 or float32.
      least: value; 0 of bytes.
      largest: value; 255 of bytes.
    """

    dtype: str
    least: float
    largest: float


def image_values(train: LabelledImages | Stream) -> ImageValues:
    """Returns the type and range of training images."""
    if isinstance(train, Stream) or train.images.dtype == np.uint8:
        return ImageValues("uint8", 0, 255)
    return ImageValues("float32", float(train.images.min()), float(train.images.max()))


def write_manifest(
    directory: Path,
    network: StaticNetwork,
    *,
    format: str,
    batch: int | None,
    files: list[str],
    values: ImageValues | None,
) -> None:
    """Writes the manifest of an export whose other files are there.

    Args:
      directory: of the export.
      network: that was exported.
      format: of the segments.
      batch: images at once; None: any number.
      files: of the segments in their order, and others behind them.
      values: of the images that it was trained on; None: unknown.
    """
    architecture, by = network.architecture, network.architecture.normalisation
    channels = architecture.space.in_channels
    content = {
        "form": FORM,
        "format": format,
        "batch": batch,
        "input": {
            "shape": [network.image_size, network.image_size, channels],
            "dtype": values and values.dtype,
            "range": values and [values.least, values.largest],
            "bytes_are_divided_by": 255,
            "mean": by.mean if by else [0.0] * channels,
            "deviation": by.deviation if by else [1.0] * channels,
        },
        "class_names": architecture.class_names,
        "policy": architecture.policy,
        "segments": _segments(network, files),
        "clocks": _clocks(network),
        "expected": {name: getattr(architecture, name).model_dump(mode="json") for name in ("selection", "test")},
        "files": {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files},
        "versions": versions(),
    }
    write_text(directory / MANIFEST, json.dumps(content, indent=1) + "\n")


def _segments(network: StaticNetwork, files: list[str]) -> list[dict[str, Any]]:
    """One entry for each segment: its file, what goes in and out, when to stop, and the cost of a sample that does."""
    architecture, clocks = network.architecture, network.architecture.clocks_mhz
    costs = exit_costs(architecture)
    point = costs.point((clocks.core, clocks.memory, clocks.host))
    found = []
    for number, segment in enumerate(network.segments):
        last = number == len(architecture.exits)
        threshold = math.inf if last else architecture.thresholds[number]
        outputs = {"features": segment.features, "logits": segment.logits, "confidence": segment.confidence}
        found.append(
            {
                "name": "classifier" if last else f"exit after block {architecture.exits[number]}",
                "file": files[number] if len(files) > number and files[number].startswith("segment") else None,
                "input": segment.takes,
                "outputs": {kind: name for kind, name in outputs.items() if name is not None},
                "score": "confidence" if last else architecture.policy,
                "threshold": None if math.isinf(threshold) else threshold,
                "latency_s": float(costs.latency_s[number, point]),
                "energy_j": float(costs.energy_j[number, point]),
            }
        )
    return found


def _clocks(network: StaticNetwork) -> dict[str, Any]:
    """The clocks that it was selected with, and the best ones for each deadline and power cap."""
    device, table = network.architecture.device, operating_table(network.architecture)
    return {
        "device": device.file.name,
        "number_format": device.number_format,
        "power_mode": device.power_mode,
        "selected": dataclasses.asdict(table.selected),
        "deadlines": [dataclasses.asdict(point) for point in table.deadlines],
        "power_caps": [dataclasses.asdict(point) for point in table.power_caps],
    }
