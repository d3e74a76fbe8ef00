"""Exports a static network: one file for each segment, since run-time branches export badly, and a manifest.

Batch norm is folded into the layers before it. Formats:
- `stablehlo`: each segment as `jax.export` serialises it, for CPU, CUDA and TPU; `jax.export.deserialize` reads it.
- `onnx`: each segment as ONNX, and a copy of the runtime; needs the extra `onnx`.
- `saved`: layers and weights as data, for `hadas_jax.deploy.static_network.load_network`.

What stands beside exported segments: all that a device needs to run them, as JSON.

Form `hadas_jax.export/1`, read by `hadas_jax.deploy.runtime`. Units: s, J, W, MHz.

Whether an export does what the network does in JAX, and how long it takes on this machine.

Shapes: e exits, N images, K classes.
"""

import dataclasses
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Stream
from hadas_jax.deploy import runtime
from hadas_jax.deploy.layers import output_shapes, run_segment
from hadas_jax.deploy.onnx import require_onnx, segment_as_onnx
from hadas_jax.deploy.operating_points import exit_costs, operating_table
from hadas_jax.deploy.runtime import FORM, MANIFEST, Runtime, exit_score, read_manifest
from hadas_jax.deploy.static_network import (
    NETWORK,
    WEIGHTS,
    StaticNetwork,
    exits_taken,
    load_network,
    outcomes_at_exits,
    predict,
    require_place,
    write_network,
)
from hadas_jax.runs.workdir import ARCHITECTURE, versions, write_text
from hw_models.files import whole_folder, write_whole


@dataclass(frozen=True)
class ImageValues:
    """Of the images that a network was trained on.

    Attributes:
        dtype: uint8 or float32.
        least: Value; 0 of bytes.
        largest: Value; 255 of bytes.
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
        directory: Of the export.
        network: That was exported.
        format: Of the segments.
        batch: Images at once; None: any number.
        files: Of the segments in their order, and others behind them.
        values: Of the images that it was trained on; None: unknown.
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


Format = Literal["stablehlo", "onnx", "saved"]
FORMATS = get_args(Format)
PLATFORMS = ("cpu", "cuda", "tpu")
_OWN = (MANIFEST, "segment*.onnx", "segment*.jax_export", "runtime.py", NETWORK, WEIGHTS, ARCHITECTURE)


def export_network(
    directory: Path | str,
    network: StaticNetwork,
    *,
    format: Format = "stablehlo",
    batch: int | None = None,
    values: ImageValues | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an export, whole or not at all.

    Args:
        directory: Created if need be.
        network: To export.
        format: Of the segments.
        batch: Images at once; None: any number.
        values: Of the images that it was trained on, which the runtime checks; None: unknown.
        overwrite: Replace the export that is there.

    Raises:
        ValueError: An unknown format, a missing extra, a batch below 1, or the directory holds something else.
    """
    if format not in FORMATS:
        raise ValueError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"--batch: expected at least 1, got {batch}")
    if format == "onnx":
        require_onnx()
    directory = require_place(directory, _OWN, mark=MANIFEST, overwrite=overwrite)
    network = network.folded()
    with whole_folder(directory, mark=MANIFEST) as folder:
        files = _write_saved(folder, network) if format == "saved" else _write_segments(folder, network, format, batch)
        write_manifest(folder, network, format=format, batch=batch, files=files, values=values)


def _write_saved(folder: Path, network: StaticNetwork) -> list[str]:
    write_network(folder, network)
    return [NETWORK, WEIGHTS, ARCHITECTURE]


def _write_segments(folder: Path, network: StaticNetwork, format: Format, batch: int | None) -> list[str]:
    suffix = "onnx" if format == "onnx" else "jax_export"
    blobs = _as_onnx(network, batch) if format == "onnx" else _as_stablehlo(network, batch)
    files = [f"segment{number}.{suffix}" for number in range(len(network.segments))]
    for name, blob in zip(files, blobs, strict=True):
        write_whole(folder / name, blob)
    if format == "onnx":
        write_whole(folder / "runtime.py", Path(runtime.__file__).read_bytes())
    return files


def _as_onnx(network: StaticNetwork, batch: int | None) -> list[bytes]:
    shapes = _shapes(network)
    return [segment_as_onnx(each, network.weights, shapes=shapes, batch=batch) for each in network.segments]


def _as_stablehlo(network: StaticNetwork, batch: int | None) -> list[bytes]:
    """Functions of [B, ...] that return the outputs of a segment in their order."""
    shapes = _shapes(network)
    first = "B" if batch is None else str(batch)
    blobs = []
    for segment in network.segments:

        def run(x: jax.Array, segment=segment) -> tuple[jax.Array, ...]:  # type: ignore[no-untyped-def]
            found = run_segment(segment, network.weights, x, portable=True)
            return tuple(found[name] for name in segment.outputs)

        axes = jax.export.symbolic_shape(", ".join(map(str, (first, *shapes[segment.takes]))))
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
        blobs.append(bytes(exported.serialize()))
    return blobs


def _shapes(network: StaticNetwork) -> dict[str, tuple[int, ...]]:
    channels = network.architecture.space.in_channels
    return output_shapes(network.segments, network.weights, image_size=network.image_size, channels=channels)


TOLERANCE = 1e-4
_BATCH, _ROUNDS = 128, 50
# (number of a segment, its input [B, H, W, C]) -> its outputs by kind
RunSegment = Callable[[int, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ExportCheck:
    """An export beside the network in JAX.

    Attributes:
        images: N.
        difference: Largest one of all logits, in units of the largest logit.
        other_exits: Images that stop at another exit.
        other_labels: Images that get another class.
        accuracy: Of the export.
        shares: Of the images that stop at each exit, and last at the classifier.
        latency_s: Measured here, one image at a time, up to each exit and last the classifier.
    """

    images: int
    difference: float
    other_exits: int
    other_labels: int
    accuracy: float
    shares: tuple[float, ...]
    latency_s: tuple[float, ...]

    @property
    def is_equal(self) -> bool:
        """Whether logits agree to 1e-4 and every image stops at the same exit."""
        return self.difference <= TOLERANCE and self.other_exits == 0


def check_export(directory: Path | str, network: StaticNetwork, data: LabelledImages) -> ExportCheck:
    """Runs an export beside the network that it was made of.

    Args:
        directory: Of the export.
        network: In JAX.
        data: Images to run on.

    Raises:
        ValueError: The export is damaged.
    """
    manifest, run = read_manifest(directory), segment_runner(directory)
    architecture = network.architecture
    logits, confidence = predict(network.segments, network.weights, data)
    labels = np.asarray(data.labels)
    outcomes = outcomes_at_exits(logits, confidence, labels)
    wanted = exits_taken(outcomes, architecture.thresholds, architecture.policy)
    standardised = np.asarray(data.take(jnp.arange(data.count))[0])
    exported, scores = _everywhere(run, manifest, standardised)
    taken, found = _stops(manifest, exported, scores)
    if manifest["format"] == "onnx":
        found, taken, _ = Runtime(directory)(np.asarray(data.images), batch=_BATCH)
    expected = logits[wanted, np.arange(data.count)].argmax(axis=1)
    return ExportCheck(
        images=data.count,
        difference=float(np.abs(exported - logits).max() / np.abs(logits).max()),
        other_exits=int(np.sum(taken != wanted)),
        other_labels=int(np.sum(found != expected)),
        accuracy=float(np.mean(found == labels)),
        shares=tuple((np.bincount(taken, minlength=len(logits)) / data.count).tolist()),
        latency_s=measure(run, manifest, standardised[0]),
    )


def segment_runner(directory: Path | str) -> RunSegment:
    """Returns what runs the segments of an export.

    Raises:
        ValueError: The export is damaged, or needs an extra that is not installed.
    """
    directory, manifest = Path(directory), read_manifest(directory)
    kinds = [tuple(segment["outputs"]) for segment in manifest["segments"]]
    if manifest["format"] == "onnx":
        sessions = Runtime(directory)

        def by_onnx(number: int, x: np.ndarray) -> dict[str, np.ndarray]:
            found = sessions.run_segment(number, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            return {kind: leaf.transpose(0, 2, 3, 1) if leaf.ndim == 4 else leaf for kind, leaf in found.items()}

        return by_onnx
    functions = _saved(directory) if manifest["format"] == "saved" else _stablehlo(directory, manifest)
    fixed = manifest["batch"]

    def by_jax(number: int, x: np.ndarray) -> dict[str, np.ndarray]:
        count = len(x)
        if fixed and count < fixed:
            x = np.concatenate([x, np.zeros((fixed - count, *x.shape[1:]), x.dtype)])
        found = functions[number](x)
        return {kind: np.asarray(leaf)[:count] for kind, leaf in zip(kinds[number], found, strict=True)}

    return by_jax


def _stablehlo(directory: Path, manifest: dict[str, Any]) -> list[Callable[[Any], tuple]]:
    blobs = [(directory / segment["file"]).read_bytes() for segment in manifest["segments"]]
    return [jax.jit(jax.export.deserialize(bytearray(blob)).call) for blob in blobs]


def _saved(directory: Path) -> list[Callable[[Any], tuple]]:
    network = load_network(directory)

    def function(segment: Any) -> Callable[[Any], tuple]:
        @jax.jit
        def run(x: jax.Array) -> tuple:
            found = run_segment(segment, network.weights, x)
            return tuple(found[name] for name in segment.outputs)

        return run

    return [function(segment) for segment in network.segments]


def _everywhere(run: RunSegment, manifest: dict[str, Any], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs all segments for all images: logits [e + 1, N, K] and scores [e + 1, N]."""
    size = manifest["batch"] or _BATCH
    parts = []
    for start in range(0, len(images), size):
        x, logits, scores = images[start : start + size], [], []
        for number, segment in enumerate(manifest["segments"]):
            found = run(number, x)
            logits.append(found["logits"])
            scores.append(exit_score(found["logits"], found.get("confidence"), segment["score"]))
            x = found.get("features", x)
        parts.append((np.stack(logits), np.stack(scores)))
    everything = [np.concatenate(each, axis=1) for each in zip(*parts, strict=True)]
    return everything[0], everything[1]


def _stops(manifest: dict[str, Any], logits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exit that each image takes and its class, int[N] each."""
    thresholds = [np.inf if s["threshold"] is None else s["threshold"] for s in manifest["segments"]]
    stops = scores >= np.asarray(thresholds, np.float32)[:, None]
    stops[-1] = True
    taken = stops.argmax(axis=0)
    return taken, logits[taken, np.arange(len(taken))].argmax(axis=1)


def measure(run: RunSegment, manifest: dict[str, Any], image: np.ndarray) -> tuple[float, ...]:
    """Returns the median time in s from one image [H, W, C] to each exit."""

    def once() -> list[float]:
        start, x, times = time.perf_counter(), image[None], []
        for number in range(len(manifest["segments"])):
            found = run(number, x)
            times.append(time.perf_counter() - start)
            x = found.get("features", x)
        return times

    once()
    return tuple(statistics.median(times) for times in zip(*(once() for _ in range(_ROUNDS)), strict=True))
