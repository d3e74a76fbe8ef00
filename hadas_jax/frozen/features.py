"""Features of all images at all places of a frozen network, computed once and kept on disk.

    features/train-00-mean.npy ...    float32[N, D], one file for each part, place and way of pooling
    features/train-logits.npy         float32[N, K], of the network's own classifier
    features/train-labels.npy         int32[N]
    features/features.json            how far each part is, and of what all that is

Files are memory-mapped. Training images are in a random order, so that a few rows in a row are a fair sample of them.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data import LabelledImages, Splits, Stream
from hadas_jax.frozen.backbone import Backbone, Place
from hadas_jax.runs.loop import Progress
from hadas_jax.runs.workdir import write_text

PARTS = ("train", "validation", "calibration", "test")
_RECORD, _FORM = "features.json", "hadas_jax.features/1"
_BATCH = 32  # images at once, at most
_KEPT_EVERY = 3.0  # seconds between two records of how far it is
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Features:
    """The features of a data set.

    Attributes:
        folder: Where they are.
        places: What they are of.
        has_logits: Whether the network's own logits are among them.
    """

    folder: Path
    places: tuple[Place, ...]
    has_logits: bool

    def of(self, part: str, place: int) -> dict[str, np.ndarray]:
        """Returns the features of a part at a place by the way they are pooled, [N, D] each, memory-mapped."""
        return {how: self._open(f"{part}-{place:02d}-{how}") for how in self.places[place].pools}

    def logits(self, part: str) -> np.ndarray:
        """Returns the logits of the network's own classifier, [N, K], memory-mapped."""
        return self._open(f"{part}-logits")

    def labels(self, part: str) -> np.ndarray:
        """Returns the labels, int32[N]."""
        return np.array(self._open(f"{part}-labels"))

    def _open(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")


def collect_features(
    folder: Path,
    network: Backbone,
    places: Sequence[Place],
    splits: Splits,
    *,
    with_logits: bool,
    memory_mb: float,
    disk_mb: float,
    seed: int,
    progress: Progress,
) -> Features:
    """Runs a network over all images, or over those that are left of an earlier start.

    Args:
        folder: Where features are kept.
        network: The network.
        places: Where it is looked at.
        splits: The data, standardised as the network takes it.
        with_logits: Keep the logits of its own classifier, too.
        memory_mb: What images and activations of a batch may take.
        disk_mb: What all files may take; of more training images than that holds a random part is used.
        seed: Of the order of training images.
        progress: Follows the images.

    Raises:
        ValueError: Not even the images to evaluate on fit, or onnxruntime refuses the model.
    """
    columns = {f"{n:02d}-{how}": place.width for n, place in enumerate(places) for how in place.pools}
    columns |= {"logits": network.classes} if with_logits else {}
    rows = _rows_by_part(splits, bytes_each=4 * (sum(columns.values()) + 1), disk_mb=disk_mb, seed=seed)
    key = _key(network, places, splits, rows)
    done = _begun(folder, key)
    batch = network.batch or _images_at_once(network, memory_mb)
    run = network.runner(places, with_logits=with_logits)
    progress.stage("features", sum(map(len, rows.values())))
    if before := sum(done.values()):
        progress.update(before, {})
    begin = kept = time.monotonic()
    for part in PARTS:
        files = {
            name: _file(folder / f"{part}-{name}.npy", (len(rows[part]), width), np.float32, begun=part in done)
            for name, width in columns.items()
        }
        labels = _file(folder / f"{part}-labels.npy", (len(rows[part]),), np.int32, begun=part in done)
        start = done.get(part, 0)
        for images, own in _batches(splits, part, rows[part][start:], batch):
            end = start + len(own)
            for file, values in zip(files.values(), run(images), strict=True):
                file[start:end] = values.reshape(len(values), -1)[: len(own)]
            labels[start:end], start = own, end
            done[part], now = end, time.monotonic()
            if now - kept >= _KEPT_EVERY or end == len(rows[part]):
                _keep([*files.values(), labels], folder, key, done)
                kept, count = now, sum(done.values())
                progress.update(count, {"inferred_per_s": (count - before) / max(now - begin, 1e-9)})
    return Features(folder, tuple(places), with_logits)


def _rows_by_part(splits: Splits, *, bytes_each: int, disk_mb: float, seed: int) -> dict[str, np.ndarray]:
    rows = {part: np.arange(getattr(splits, part).count) for part in PARTS}
    evaluated = sum(len(rows[part]) for part in PARTS[1:])
    room = int(disk_mb * _MEGABYTE // bytes_each) - evaluated
    if room < splits.classes:
        raise ValueError(
            f"features_mb: expected more than {evaluated * bytes_each / _MEGABYTE:.0f}, which the images to evaluate "
            f"on take, got {disk_mb:g}; `evaluation_images` makes them fewer"
        )
    rows["train"] = np.random.default_rng(seed).permutation(rows["train"])[:room]
    return rows


def _images_at_once(network: Backbone, memory_mb: float) -> int:
    return int(np.clip(memory_mb * _MEGABYTE // (8 * network.layers.memory), 1, _BATCH))


def _key(network: Backbone, places: Sequence[Place], splits: Splits, rows: dict[str, np.ndarray]) -> str:
    about = {
        "model": network.digest,
        "places": [(place.tensor, place.pools) for place in places],
        "data": splits.record.as_json(),
        "normalisation": splits.normalisation,
        "rows": {part: hashlib.sha256(own.tobytes()).hexdigest() for part, own in rows.items()},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _begun(folder: Path, key: str) -> dict[str, int]:
    """How many images of each part are done; none where the folder is of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record["form"] == _FORM and record["key"] == key:
            return dict(record["done"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _file(path: Path, shape: tuple[int, ...], dtype: type, *, begun: bool) -> Any:
    if begun and path.is_file():
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _keep(files: Sequence[Any], folder: Path, key: str, done: dict[str, int]) -> None:
    for file in files:
        file.flush()
    write_text(folder / _RECORD, json.dumps({"form": _FORM, "key": key, "done": done}) + "\n")


def _batches(splits: Splits, part: str, rows: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Standardised images float32[B, C, H, W], the last batch filled up, and the labels of those that count."""
    data: LabelledImages | Stream = getattr(splits, part)
    mean, deviation = (np.asarray(values, np.float32) for values in splits.normalisation)
    stored = None if isinstance(data, Stream) else (np.asarray(data.images), np.asarray(data.labels))
    for start in range(0, len(rows), batch):
        own = rows[start : start + batch]
        if isinstance(data, Stream):
            images, labels = data.source.read_images(own, size=data.image_size, name=data.name)
        elif stored is not None:
            images, labels = stored[0][own], stored[1][own]
        yield as_input(images, mean, deviation, batch), labels


def as_input(images: np.ndarray, mean: np.ndarray, deviation: np.ndarray, batch: int) -> np.ndarray:
    """Standardises images [n, H, W, C] to float32[batch, C, H, W], filled up with the last one."""
    values = images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)
    x = ((values - mean) / deviation).transpose(0, 3, 1, 2)
    missing = batch - len(x)
    return np.ascontiguousarray(np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x)


def run_over(
    run: Callable[[np.ndarray], Sequence[np.ndarray]], data: LabelledImages, *, batch: int | None
) -> list[np.ndarray]:
    """Runs a function from images float32[B, C, H, W] over all images of a part, and returns its outputs."""
    size = batch or _BATCH
    mean, deviation = (np.asarray(values, np.float32) for values in (data.mean, data.std))
    images, found = np.asarray(data.images), []
    for start in range(0, len(images), size):
        own = images[start : start + size]
        found.append([np.asarray(values)[: len(own)] for values in run(as_input(own, mean, deviation, size))])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]
