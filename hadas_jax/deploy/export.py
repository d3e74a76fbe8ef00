"""Exports of a static network: one file for each segment with a manifest, and a check against JAX.

Run-time branches export badly, so each segment is a file of its own. Batch norm is folded into the layers before it.
Formats:
- `stablehlo`: each segment as `jax.export` serialises it, for CPU, CUDA and TPU; `jax.export.deserialize` reads it.
- `onnx`: each segment as ONNX in the number format of the network, and a copy of the runtime; needs the extra `onnx`.
- `saved`: layers and weights as data, for `hadas_jax.deploy.static_network.load_network`.

In another number format than fp32, runtimes round what is nearly half-way to one side or the other, so an export is
compared by what it decides and not by its logits.

The manifest, form `hadas_jax.export/1`, holds all that a device needs to run them; `hadas_jax.deploy.runtime` reads it.
Shapes: e exits, B batch, N images, K classes. Units in files: s, J, W, MHz.
"""

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Stream
from hadas_jax.deploy import runtime, static_network
from hadas_jax.deploy.given import GivenSegment, GivenSegments
from hadas_jax.deploy.layers import Segment, Shapes, Weights, output_shapes, run_segment
from hadas_jax.deploy.onnx import segment_as_onnx
from hadas_jax.deploy.operating_points import ExitCosts, operating_table
from hadas_jax.deploy.static_network import NETWORK_FILES, StaticNetwork
from hadas_jax.runs.checkpoints import output_directory
from hadas_jax.runs.workdir import versions, write_text
from hw_models import NumberFormat
from hw_models.files import whole_folder, write_whole

Format = Literal["stablehlo", "onnx", "saved"]
_PLATFORMS = ("cpu", "cuda", "tpu")
_EXPORT_FILES = (runtime.MANIFEST, "segment*.onnx", "segment*.jax_export", "runtime.py", *NETWORK_FILES)
_TOLERANCE = 1e-4  # of logits, relative to the largest
_OTHER_LABELS, _ACCURACY = 0.01, 0.005  # shares of images, in other formats than fp32
_FEW = 3  # images that tell nothing of shares
_BATCH, _ROUNDS = 128, 50
# (number of a segment, its input [B, H, W, C]) -> its outputs by kind
_RunSegment = Callable[[int, np.ndarray], dict[str, np.ndarray]]


def export_network(
    directory: Path | str,
    network: StaticNetwork | GivenSegments,
    *,
    format: Format = "stablehlo",
    batch: int | None = None,
    trained_on: LabelledImages | Stream | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an export, whole or not at all.

    Args:
        directory: Where it goes; created if need be.
        network: The network.
        format: The format of the segments.
        batch: Images at once; None: any number.
        trained_on: The images that the network was trained on, whose type and range the runtime checks; None: unknown.
        overwrite: Replace the export that is there.

    Raises:
        ValueError: An unknown format, a missing extra, a batch below 1, or the directory holds something else.
    """
    if format not in get_args(Format):
        raise ValueError(f"format: expected one of {', '.join(get_args(Format))}, got {format!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    form = network.architecture.number_format
    if format == "stablehlo" and form != NumberFormat.FP32 and isinstance(network, StaticNetwork):
        raise ValueError(
            f"format stablehlo: expected a network in fp32, got one in {form.name.lower()}, which runs as onnx: "
            "--format onnx"
        )
    if format == "onnx":
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError:
            raise ValueError("format onnx: expected the extra onnx, got none; pip install 'hadas-jax[onnx]'") from None
    if isinstance(network, GivenSegments):
        batch = _batch_of_given(network, format, batch)
    directory = output_directory(directory, _EXPORT_FILES, mark=runtime.MANIFEST, overwrite=overwrite)
    network = network.folded()
    if isinstance(network, StaticNetwork):
        network.require_finite_ranges()
    with whole_folder(directory, mark=runtime.MANIFEST) as folder:
        files: list[str] = []
        if isinstance(network, GivenSegments):
            suffix = "onnx" if format == "onnx" else "jax_export"
            files = [f"segment{number}.{suffix}" for number in range(len(network.segments))]
            for name, segment in zip(files, network.segments, strict=True):
                write_whole(folder / name, segment.blob)
        elif format == "saved":
            network.write(folder)
        else:
            suffix, serialise = ("onnx", _as_onnx) if format == "onnx" else ("jax_export", _as_stablehlo)
            files = [f"segment{number}.{suffix}" for number in range(len(network.segments))]
            channels = network.architecture.space.in_channels
            shapes = output_shapes(network.segments, network.weights, image_size=network.image_size, channels=channels)
            for name, blob in zip(files, serialise(network, shapes, batch), strict=True):
                write_whole(folder / name, blob)
        if format == "onnx":
            write_whole(folder / "runtime.py", Path(runtime.__file__).read_bytes())
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files or NETWORK_FILES}
        manifest = {
            "form": runtime.FORM,
            "format": format,
            "batch": batch,
            **_manifest(network, files, trained_on),
            "files": digests,
            "versions": versions(),
        }
        write_text(folder / runtime.MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _batch_of_given(network: GivenSegments, format: str, batch: int | None) -> int | None:
    """The batch of a given network's export, which stays in the format that it came in."""
    if format != network.format:
        came = "as ONNX" if network.format == "onnx" else "as JAX functions"
        raise ValueError(f"format: expected {network.format} for a network that was given {came}, got {format}")
    if network.batch is not None and batch not in (None, network.batch):
        raise ValueError(f"batch: expected {network.batch}, as the given model takes, got {batch}")
    return batch if network.batch is None else network.batch


def _as_onnx(network: StaticNetwork, shapes: Shapes, batch: int | None) -> list[bytes]:
    how: dict[str, Any] = {"shapes": shapes, "batch": batch, "number_format": network.architecture.number_format}
    return [segment_as_onnx(each, network.weights, **how) for each in network.segments]


def _as_stablehlo(network: StaticNetwork, shapes: Shapes, batch: int | None) -> list[bytes]:
    """Functions of [B, ...] that return the outputs of a segment in their order."""
    blobs = []
    for segment in network.segments:
        axes = jax.export.symbolic_shape(", ".join(map(str, (batch or "B", *shapes[segment.takes]))))
        run = _compiled(segment, network.weights)
        exported = jax.export.export(run, platforms=_PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
        blobs.append(bytes(exported.serialize()))
    return blobs


def _compiled(segment: Segment, weights: Weights, *, number_format: NumberFormat = NumberFormat.FP32) -> Any:
    """Returns a segment as a compiled function of its input, x -> its outputs in their order."""

    @jax.jit
    def run(x: jax.Array) -> tuple[jax.Array, ...]:
        values = run_segment(segment, weights, x, number_format=number_format)
        return tuple(values[name] for name in segment.outputs.values())

    return run


def _manifest(
    network: StaticNetwork | GivenSegments, files: Sequence[str], trained_on: LabelledImages | Stream | None
) -> dict[str, Any]:
    """What the manifest says of a network; `files` are those of the segments, none if there are none."""
    architecture, by = network.architecture, network.architecture.normalisation
    costs, channels, device = ExitCosts.of(architecture), architecture.space.in_channels, architecture.device
    dtype: str | None = None
    ends: tuple[float, float] | None = None
    if isinstance(trained_on, Stream) or (trained_on is not None and trained_on.images.dtype == np.uint8):
        dtype, ends = "uint8", (0, 255)
    elif trained_on is not None:
        dtype, ends = "float32", (float(trained_on.images.min()), float(trained_on.images.max()))
    return {
        "input": {
            "shape": [network.image_size, network.image_size, channels],
            "dtype": dtype,
            "range": ends,
            "bytes_are_divided_by": 255,
            "mean": by.mean if by else [0.0] * channels,
            "deviation": by.deviation if by else [1.0] * channels,
            **(network.preprocessing if isinstance(network, GivenSegments) else {}),
        },
        "number_format": device.number_format,
        "class_names": architecture.class_names,
        "policy": architecture.policy,
        "segments": _segment_entries(network, files, costs),
        "clocks": {
            "device": device.file.name,
            "number_format": device.number_format,
            "power_mode": device.power_mode,
            **operating_table(architecture, costs=costs).as_json(),
        },
        "expected": {name: getattr(architecture, name).model_dump(mode="json") for name in ("selection", "test")},
    }


def _segment_entries(
    network: StaticNetwork | GivenSegments, files: Sequence[str], costs: ExitCosts
) -> list[dict[str, Any]]:
    """One entry for each segment: its file, what goes in and out, when to stop, and the cost of a sample that does."""
    architecture, point = network.architecture, costs.selected_point(network.architecture)
    thresholds, segments = (*architecture.thresholds, math.inf), list[Segment | GivenSegment](network.segments)
    return [
        {
            "name": name,
            "file": files[number] if files else None,
            "input": segment.takes,
            "outputs": segment.outputs,
            "score": "confidence" if number == len(architecture.exits) else architecture.policy,
            "threshold": None if math.isinf(thresholds[number]) else thresholds[number],
            "latency_s": float(costs.latency_s[number, point]),
            "energy_j": float(costs.energy_j[number, point]),
        }
        for number, (name, segment) in enumerate(zip(architecture.exit_names, segments, strict=True))
    ]


@dataclass(frozen=True)
class ExportCheck:
    """An export beside the network in JAX.

    Attributes:
        images: N.
        difference: The largest difference of all logits, in units of the largest logit.
        other_exits: How many images stop at another exit.
        other_labels: How many images get another class.
        accuracy: The accuracy of the export.
        expected_accuracy: The accuracy of the network in JAX, simulated in its number format.
        number_format: Of the network.
        shares: The share of the images that stop at each exit, and last at the classifier.
        latency_s: Measured here, one image at a time, up to each exit and last the classifier.
    """

    images: int
    difference: float
    other_exits: int
    other_labels: int
    accuracy: float
    expected_accuracy: float
    number_format: NumberFormat
    shares: tuple[float, ...]
    latency_s: tuple[float, ...]

    @property
    def is_equal(self) -> bool:
        """Whether logits agree to 1e-4 and every image stops at the same exit.

        In another number format than fp32: whether at most 1 % of the images, or three, get another class, and the
        accuracy differs by at most half a point, or three images.
        """
        if self.number_format == NumberFormat.FP32:
            return self.difference <= _TOLERANCE and self.other_exits == 0
        off = abs(self.accuracy - self.expected_accuracy) * self.images
        few = _FEW + 0.5
        return self.other_labels <= max(_OTHER_LABELS * self.images, few) and off <= max(_ACCURACY * self.images, few)


def check_export(directory: Path | str, network: StaticNetwork | GivenSegments, data: LabelledImages) -> ExportCheck:
    """Runs an export beside the network that it was made of.

    Args:
        directory: The export.
        network: The network in JAX, or a given one, whole on onnxruntime.
        data: Images to run on.

    Raises:
        ValueError: The export is damaged, or needs an extra that is not installed.
    """
    manifest = runtime.read_manifest(directory)
    run = _segment_runner(Path(directory), manifest)
    architecture, labels, samples = network.architecture, np.asarray(data.labels), np.arange(data.count)
    form = architecture.number_format if isinstance(network, StaticNetwork) else NumberFormat.FP32
    logits, confidence = network.predict(data)
    outcomes = static_network.outcomes_at_exits(logits, confidence, labels)
    expected_exits = static_network.exits_taken(outcomes, architecture.thresholds, architecture.policy)
    images = np.asarray(data.take(jnp.arange(data.count))[0])
    exported, exits = _run_everywhere(run, manifest, images)
    classes = exported[exits, samples].argmax(axis=1)
    if manifest["format"] == "onnx":  # the runtime stops samples by itself
        classes, exits, _ = runtime.Runtime(directory)(np.asarray(data.images), batch=_BATCH)
    expected = logits[expected_exits, samples].argmax(axis=1)
    return ExportCheck(
        images=data.count,
        difference=float(np.abs(exported - logits).max() / np.abs(logits).max()),
        other_exits=int(np.sum(exits != expected_exits)),
        other_labels=int(np.sum(classes != expected)),
        accuracy=float(np.mean(classes == labels)),
        expected_accuracy=float(np.mean(expected == labels)),
        number_format=form,
        shares=tuple((np.bincount(exits, minlength=len(logits)) / data.count).tolist()),
        latency_s=_measure(run, len(logits), images[0]),
    )


def _segment_runner(directory: Path, manifest: dict[str, Any]) -> _RunSegment:
    """Returns what runs the segments of an export."""
    if manifest["format"] == "onnx":
        sessions = runtime.Runtime(directory)

        def by_onnx(number: int, x: np.ndarray) -> dict[str, np.ndarray]:
            outputs = sessions.run_segment(number, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            return {kind: leaf.transpose(0, 2, 3, 1) if leaf.ndim == 4 else leaf for kind, leaf in outputs.items()}

        return by_onnx
    if manifest["format"] == "saved":
        network = static_network.load_network(directory)
        form = network.architecture.number_format
        functions = [_compiled(segment, network.weights, number_format=form) for segment in network.segments]
    else:
        blobs = [(directory / segment["file"]).read_bytes() for segment in manifest["segments"]]
        functions = [jax.jit(jax.export.deserialize(bytearray(blob)).call) for blob in blobs]
    kinds, fixed = [tuple(segment["outputs"]) for segment in manifest["segments"]], manifest["batch"]

    def by_jax(number: int, x: np.ndarray) -> dict[str, np.ndarray]:
        count = len(x)
        if fixed and count < fixed:
            x = np.concatenate([x, np.zeros((fixed - count, *x.shape[1:]), x.dtype)])
        outputs = functions[number](x)
        return {kind: np.asarray(leaf)[:count] for kind, leaf in zip(kinds[number], outputs, strict=True)}

    return by_jax


def _run_everywhere(run: _RunSegment, manifest: dict[str, Any], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs all segments for all images: logits [e + 1, N, K], and the exit int[N] where each image stops."""
    size, segments = manifest["batch"] or _BATCH, manifest["segments"]
    parts = []
    for start in range(0, len(images), size):
        x, some_logits, some_scores = images[start : start + size], [], []
        for number, segment in enumerate(segments):
            outputs = run(number, x)
            some_logits.append(outputs["logits"])
            some_scores.append(runtime.exit_score(outputs["logits"], outputs.get("confidence"), segment["score"]))
            x = outputs.get("features", x)
        parts.append((np.stack(some_logits), np.stack(some_scores)))
    logits, scores = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    thresholds = [np.inf if segment["threshold"] is None else segment["threshold"] for segment in segments]
    stops = scores >= np.asarray(thresholds, np.float32)[:, None]
    stops[-1] = True
    return logits, stops.argmax(axis=0)


def _measure(run: _RunSegment, segments: int, image: np.ndarray) -> tuple[float, ...]:
    """Returns the median time in s from one image [H, W, C] to each exit."""

    def once() -> list[float]:
        start, x, times = time.perf_counter(), image[None], []
        for number in range(segments):
            outputs = run(number, x)
            times.append(time.perf_counter() - start)
            x = outputs.get("features", x)
        return times

    once()
    return tuple(statistics.median(times) for times in zip(*(once() for _ in range(_ROUNDS)), strict=True))
