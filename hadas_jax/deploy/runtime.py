"""Runs an exported network with early exit on onnxruntime: NumPy and onnxruntime are all that it needs.

    python -m hadas_jax.deploy.runtime DIR images.npz

This file imports nothing of the package, and `hadas export --format onnx` puts a copy beside the network.
Samples that are sure enough stop at an exit, and the following segments run on those that are left.
Shapes: N images, B batch, H, W height and width, C channels, K classes, e exits.
"""

import argparse
import hashlib
import io
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORM = "hadas_jax.export/1"
MANIFEST = "manifest.json"
_FORMATS = ("fp32", "fp16", "int8")
_BEYOND_UNIT, _ROUNDING = 0.5, 0.01  # resizing goes a little beyond 0 .. 1
# In widths of the range of the training images, where that is none of bytes:
_REFUSED_BEYOND, _NARROW = 3, 0.01


class Predictions(NamedTuple):
    """What a network predicts of some images.

    Attributes:
        labels: int64[N], the class of each image.
        exits: int64[N], where each image stopped: 0 .. e - 1, or e for the classifier.
        scores: float32[N], how sure that exit was; the threshold's score at an exit, probability at the classifier.
    """

    labels: np.ndarray
    exits: np.ndarray
    scores: np.ndarray


class Runtime:
    """A network that `hadas export --format onnx` wrote.

    Args:
        directory: The export.
        threads: The threads of onnxruntime.

    Raises:
        ValueError: One line: no export, another form or format, a damaged file, or a number format that this
            onnxruntime does not run.

    Examples:
        >>> network = Runtime("runs/digits/export")  # doctest: +SKIP
        >>> network(images).labels  # doctest: +SKIP
    """

    def __init__(self, directory: Path | str, *, threads: int = 1) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(directory)
        if self.manifest["format"] != "onnx":
            raise ValueError(f"{directory}: expected an export of format onnx, got {self.manifest['format']}")
        form = self.manifest.get("number_format", "fp32")  # of earlier versions
        if form not in _FORMATS:
            raise ValueError(f"{directory}: expected a number format of {', '.join(_FORMATS)}, got {form!r}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._segments = self.manifest["segments"]
        never = [np.inf if each["threshold"] is None else each["threshold"] for each in self._segments[:-1]]
        self._thresholds = np.array([*never, -np.inf], np.float32)  # at the classifier every image stops
        self._sessions = []
        for path in (self.directory / segment["file"] for segment in self._segments):
            try:
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # onnxruntime's own, which no common class announces
                by, reason = f"onnxruntime {onnxruntime.__version__}", " ".join(str(error).split())
                raise ValueError(f"{path}: expected a network in {form} that {by} runs, got: {reason}") from None
            self._sessions.append(session)

    @property
    def exits(self) -> int:
        """Number of exits, the classifier aside."""
        return len(self._segments) - 1

    def __call__(self, images: np.ndarray, *, batch: int = 256) -> Predictions:
        """Predicts.

        Args:
            images: uint8 or floating [N, H, W, C] as the data set has them, not standardised; floats in 0 .. 1 are
                bytes over 255.
            batch: Images at once; an export of a fixed batch takes that one.

        Raises:
            ValueError: Images of another shape, type or range than the network was trained on, or a batch below 1.
        """
        if batch < 1:
            raise ValueError(f"batch: expected at least 1, got {batch}")
        fixed = self.manifest["batch"]
        images = _checked(images, self.manifest["input"])
        if len(images) == 1:
            return self._one(_standardised(images, self.manifest["input"]))
        parts = [
            self._some(_standardised(images[start : start + (fixed or batch)], self.manifest["input"]))
            for start in range(0, len(images), fixed or batch)
        ]
        if not parts:
            return Predictions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        return Predictions(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def standardise(self, images: np.ndarray) -> np.ndarray:
        """Returns images [B, H, W, C] as the first segment takes them, float32[B, C, H, W].

        Raises:
            ValueError: Images of another shape, type or range than the network was trained on.
        """
        return _standardised(_checked(images, self.manifest["input"]), self.manifest["input"])

    def run_segment(self, number: int, x: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one segment on what it takes; returns `features`, `logits` and `confidence`, those that there are."""
        description, session, fixed = self._segments[number], self._sessions[number], self.manifest["batch"]
        count = len(x)
        if fixed and count < fixed:
            x = np.concatenate([x, np.zeros((fixed - count, *x.shape[1:]), x.dtype)])
        names = description["outputs"]
        outputs = session.run(list(names.values()), {description["input"]: x})
        return {kind: leaf[:count] for kind, leaf in zip(names, outputs, strict=True)}

    def _one(self, x: np.ndarray) -> Predictions:
        """As `_some` for a single image, in as few steps as can be."""
        for number, description in enumerate(self._segments):
            outputs = self.run_segment(number, x)
            score = exit_score(outputs["logits"], outputs.get("confidence"), description["score"])
            if score[0] >= self._thresholds[number]:
                break
            x = outputs["features"]
        return Predictions(outputs["logits"].argmax(axis=1), np.array([number]), score)

    def _some(self, x: np.ndarray) -> Predictions:
        labels, exits = np.zeros(len(x), np.int64), np.full(len(x), self.exits)
        sure, left = np.zeros(len(x), np.float32), np.arange(len(x))
        for number, description in enumerate(self._segments):
            outputs = self.run_segment(number, x)
            score = exit_score(outputs["logits"], outputs.get("confidence"), description["score"])
            stops = score >= self._thresholds[number]
            if np.any(stops):
                stopped = left[stops]
                labels[stopped], exits[stopped] = outputs["logits"][stops].argmax(axis=1), number
                sure[stopped], left = score[stops], left[~stops]
                if not len(left):
                    break
                x = outputs["features"][~stops]
            else:
                x = outputs["features"]
        return Predictions(labels, exits, sure)


def _checked(images: np.ndarray, description: dict[str, Any]) -> np.ndarray:
    """Returns images as [N, H, W, C] where they are of the kind that a network was trained on.

    Args:
        images: [N, H, W, C], or [N, H, W] of one channel.
        description: `input` of the manifest. Exports of older versions do not say which values their images have.

    Raises:
        ValueError: One line: another shape or type, values that are not finite, or of another range.
    """
    images = np.asarray(images)
    if images.ndim == 3 and description["shape"][2] == 1:
        images = images[..., None]
    if list(images.shape[1:]) != description["shape"]:
        wanted = ", ".join(map(str, description["shape"]))
        raise ValueError(f"images: expected shape [N, {wanted}], got {list(images.shape)}")
    is_bytes = images.dtype == np.uint8
    if not is_bytes and not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"images: expected uint8 or floating values, got {images.dtype}; images.astype(numpy.uint8) makes bytes of "
            "whole numbers in 0 .. 255"
        )
    if images.size and not is_bytes:
        least, largest = float(images.min()), float(images.max())
        if not (math.isfinite(least) and math.isfinite(largest)):
            bad = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
            raise ValueError(f"images: expected finite values, got NaN or infinity in image {bad}")
        if description.get("dtype") is not None:
            _require_range(least, largest, description["dtype"], *description["range"])
    elif (
        images.size
        and description.get("dtype") is not None
        and not _is_unit(description["dtype"], *description["range"])
    ):
        low, high = description["range"]
        raise ValueError(
            f"images: expected floating values in {low:g} .. {high:g} as the network was trained on, got bytes, which "
            "are divided by 255; pass floating values in that range"
        )
    return images


def _is_unit(trained: str, low: float, high: float) -> bool:
    """Whether a network was trained on bytes, or on floating values as bytes over 255 are."""
    return trained == "uint8" or (low >= -_ROUNDING and 0.5 < high <= 1 + _ROUNDING)


def _require_range(least: float, largest: float, trained: str, low: float, high: float) -> None:
    """Refuses floating values far from `low` to `high` that a network was trained on; warns of what is less clear."""
    is_unit = _is_unit(trained, low, high)
    if is_unit and least >= -_BEYOND_UNIT and largest <= 1 + _BEYOND_UNIT:
        return
    what = "bytes" if trained == "uint8" else f"floating values in {low:g} .. {high:g}"
    got = f"floating values in {least:g} .. {largest:g}"
    if is_unit:
        hint = "pass uint8, or divide by 255" if largest <= 255 + _BEYOND_UNIT else "scale them to 0 .. 1"
        if least < -_BEYOND_UNIT:
            hint = "pass them as they were before standardising"
        wanted = f"{what}, or floating values in 0 .. 1," if trained == "uint8" else what
        raise ValueError(f"images: expected {wanted} as the network was trained on, got {got}; {hint}")
    width = high - low
    if least < low - _REFUSED_BEYOND * width or largest > high + _REFUSED_BEYOND * width:
        raise ValueError(f"images: expected {what} as the network was trained on, got {got}")
    if least < low - width or largest > high + width or largest - least < _NARROW * width:
        warnings.warn(f"images: {got}, but the network was trained on {what}", stacklevel=4)


def _standardised(images: np.ndarray, description: dict[str, Any]) -> np.ndarray:
    """Returns images [B, H, W, C] as float32[B, C, H, W] with the mean removed, in units of the deviation."""
    values = images.astype(np.float32)
    if images.dtype == np.uint8:
        values = values / np.float32(255)
    mean, deviation = (np.asarray(description[name], np.float32) for name in ("mean", "deviation"))
    return np.ascontiguousarray(((values - mean) / deviation).transpose(0, 3, 1, 2))


def exit_score(logits: np.ndarray, confidence: np.ndarray | None, policy: str) -> np.ndarray:
    """Returns float32[B]: how sure an exit is, higher is surer.

    Args:
        logits: float32[B, K].
        confidence: float32[B, 1], the exit's own, for the policy `learned`.
        policy: Confidence (largest probability), entropy (its negative, in nats) or learned.
    """
    if policy == "learned" and confidence is not None:
        return confidence[:, 0]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if policy == "confidence":
        return np.exp(logarithms).max(axis=1)
    return (np.exp(logarithms) * logarithms).sum(axis=1)


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """Reads what an export holds, and checks its files.

    Raises:
        ValueError: One line: there is none, of another form or version, or a file is missing or damaged.
    """
    directory = Path(directory)
    path = directory / MANIFEST
    if not path.is_file():
        raise ValueError(f"{directory}: expected an export as hadas export writes, got none (no {MANIFEST})")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        form, files = manifest["form"], manifest["files"]
        if form == FORM:
            missing = {"format", "batch", "input", "segments"} - set(manifest)
            digests = {name: files[name] for name in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the manifest of an export, cannot read it") from error
    if form != FORM:
        raise ValueError(f"{path}: expected form {FORM}, got {form!r}")
    if missing:
        raise ValueError(f"{path}: expected {sorted(missing)[0]}, got none")
    for name, wanted in digests.items():
        file = directory / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{file}: expected the file that {MANIFEST} describes, it is missing or damaged")
    return manifest


def main(arguments: list[str] | None = None) -> int:
    """Evaluates an export on labelled images; returns the exit code."""
    parser = argparse.ArgumentParser(description="Runs an exported network with early exit on labelled images.")
    parser.add_argument("directory", type=Path, help="that hadas export --format onnx wrote")
    parser.add_argument("images", type=Path, help="npz file with images [N, H, W, C] and, if known, labels [N]")
    parser.add_argument("--batch", type=int, default=256, help="images at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    parsed = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the locale's encoding does not have
    try:
        network = Runtime(parsed.directory, threads=parsed.threads)
        images, labels = _read_images(parsed.images)
        predictions = network(images, batch=parsed.batch)
    except (ValueError, KeyError, OSError, ImportError) as error:
        print(f"runtime: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"images {len(images)}")
    if labels is not None and len(labels):
        print(f"accuracy {np.mean(predictions.labels == labels):.4f}")
    names = [segment["name"] for segment in network.manifest["segments"]]
    shares = np.bincount(predictions.exits, minlength=len(names)) / max(len(images), 1)
    for name, share in zip(names, shares, strict=True):
        print(f"{name} {share:.4f}")
    return 0


def _read_images(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns images [N, ...] and labels [N], None where the file has none."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"] if "labels" in arrays.files else None
    except Exception as error:  # numpy and zipfile raise whatever the damage causes
        raise ValueError(f"{path}: expected an npz file with images, cannot read it") from error
    if images.ndim < 3:
        raise ValueError(f"{path}: images: expected [N, H, W, C], got shape {list(images.shape)}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: labels: expected one for each of {len(images)} images, got {list(labels.shape)}")
    return images, labels


if __name__ == "__main__":
    sys.exit(main())
