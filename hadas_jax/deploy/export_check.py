"""Whether an export does what the network does in JAX, and how long it takes on this machine.

Shapes: e exits, N images, K classes.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.runtime import Runtime, exit_score, read_manifest
from hadas_jax.deploy.static_apply import run_segment
from hadas_jax.deploy.static_network import StaticNetwork, load_network
from hadas_jax.deploy.static_outcomes import exits_taken, outcomes_at_exits, predict

TOLERANCE = 1e-4
_BATCH, _ROUNDS = 128, 50

# (number of a segment, its input [B, H, W, C]) -> its outputs by kind
RunSegment = Callable[[int, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ExportCheck:
    """An export beside the network in JAX.

    Attributes:
      images: N.
      difference: largest one of all logits, in units of the largest logit.
      other_exits: images that stop at another exit.
      other_labels: images that get another class.
      accuracy: of the export.
      shares: of the images that stop at each exit, and last at the classifier.
      latency_s: measured here, one image at a time, up to each exit and last the classifier.
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
      directory: of the export.
      network: in JAX.
      data: images to run on.

    Raises:
      ValueError: the export is damaged.
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
      ValueError: the export is damaged, or needs an extra that is not installed.
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
