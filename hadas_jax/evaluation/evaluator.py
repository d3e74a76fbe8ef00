"""What backbones predict at every exit, population by population.

Backbones are judged by resolution: one compilation serves all that share one, whatever else they are. One backbone
after another, blocks, taps and channels that a backbone does not use are skipped; several side by side, they are
masked (on two CPU cores half as fast; 16 at once and larger batches twice as fast as 4 on an H100, see
`experiments/benchmark_supernet.py`).
Batch-norm statistics belong to a backbone and are re-estimated on training images before it is judged.
Shapes: P backbones, G genes, E exits, N images, K classes.

Short names of values, equal for equal ones: what answers depend on, in the name of the folder that keeps them.

What backbones answer, kept on disk: judged once, read by every search over the same supernet and images.

Outcomes depend on neither device nor seed of a search. A folder holds those of any number of supernets and splits,
told apart by what answers follow from: FOLDER/<supernet>/<images>/<genes>.npz, one file for each backbone.
Shapes: P backbones, G genes, E exits, N images.
"""

import dataclasses
import hashlib
import zipfile
import zlib
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.backend import RowMap, is_first, memory_named, on_cpu, share_json
from hadas_jax.data import LabelledImages
from hadas_jax.settings import EvaluationSettings
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, available_exits
from hadas_jax.supernet import BatchStats, Parameters, Skip, apply, estimate_batch_stats, resize
from hw_models.files import as_npz, write_whole


def fingerprint(*values: Any) -> str:
    """Returns 20 hexadecimal digits that follow from types, shapes and contents of pytrees of arrays, and from texts.

    Args:
        values: Texts, or pytrees of arrays; the names of a pytree's fields count too.
    """
    digest = hashlib.blake2b(digest_size=10)
    for value in values:
        if isinstance(value, str):
            digest.update(repr(value).encode())
            continue
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


_CPU_PIXELS = 2**17  # of a batch: 128 images of 32x32 keep its caches warm
_PIXELS = 2**19  # of a batch on an accelerator
_SIDE_BY_SIDE = 16  # backbones at once on an accelerator


@struct.dataclass
class Outcomes:
    """What happens to each image at each exit; the final classifier is the last row.

    Rows of exits that a backbone does not have are never right and have no confidence.

    Attributes:
        correct: bool[..., E + 1, N].
        confidence: float32[..., E + 1, N], the largest probability.
        entropy: float32[..., E + 1, N], of the probabilities, in nats.
        learned: float32[..., E + 1, N], the head's own confidence as a logit; +inf for the final classifier.
    """

    correct: jax.Array
    confidence: jax.Array
    entropy: jax.Array
    learned: jax.Array


def of_each(population: Outcomes) -> list[Outcomes]:
    """Returns the outcomes of each backbone of a population, leading axis P, by itself."""
    return [jax.tree.map(lambda leaf, row=row: leaf[row], population) for row in range(len(population.correct))]


def images_at_once(settings: EvaluationSettings, resolution: int) -> int:
    """Returns how many images of a resolution in pixels are evaluated at once."""
    pixels = _CPU_PIXELS if on_cpu() else _PIXELS
    return settings.eval_batch or max(pixels // resolution**2, 1)


class Evaluator:
    """Gives the outcomes of backbones on a data set, spread over all devices.

    Args:
        space: Of the backbones, of any number of resolutions.
        params: Shared weights.
        calibration: float32[batches, B, H, W, channels], standardised training images for the batch-norm statistics.
        settings: How many images and backbones are evaluated at once.
        dtype: What networks compute in, float32 or bfloat16.

    Examples:
      >>> judge = Evaluator(space, params, calibration)  # doctest: +SKIP
      >>> judge(genomes, splits.validation).correct.mean(-1)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: MBConvSpace,
        params: Parameters,
        calibration: jax.Array,
        settings: EvaluationSettings | None = None,
        *,
        dtype: str = "float32",
    ) -> None:
        self._space, self._settings, self._dtype = space, settings or EvaluationSettings(), dtype
        spread = self._spread(space.resolution[0])
        self._params, self._calibration = spread.place((params, calibration))
        self._data: tuple[LabelledImages | None, Any] = (None, None)

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Judges backbones int32[P, G] on some images.

        Returns:
            Outcomes as numpy arrays with leading axis P.

        Raises:
            ValueError: There is too little memory for a batch.
        """
        if self._data[0] is not data:
            with memory_named("evaluation_images", data.count, "images"):
                self._data = data, self._spread(self._space.resolution[0]).place(data)
        shared = (self._params, self._calibration, self._data[1])
        backbones = jax.tree.map(np.asarray, jax.vmap(self._space.decode)(jnp.asarray(genomes, jnp.int32)))
        rows, parts = [], []
        for resolution in np.unique(backbones.resolution).tolist():
            chosen = np.flatnonzero(backbones.resolution == resolution)
            own = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], backbones)
            with self._memory(resolution):
                parts.append(self._spread(resolution)(own, shared))
            rows.append(chosen)
        order = np.argsort(np.concatenate(rows))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *parts)

    @property
    def fingerprint(self) -> str:
        """Of space, weights, calibration images and number format, which answers follow from."""
        return fingerprint(repr(self._space), self._dtype, self._params, self._calibration)

    def _memory(self, resolution: int) -> AbstractContextManager[None]:
        """Names the flag of the larger batch: of the images that are judged, or of those for the statistics."""
        judged, calibrated = images_at_once(self._settings, resolution), self._calibration.shape[1]
        flag, batch = ("eval_batch", judged) if judged >= calibrated else ("batch", calibrated)
        return memory_named(flag, batch, f"images of {resolution} pixels")

    def _spread(self, resolution: int) -> RowMap:
        space = dataclasses.replace(self._space, resolution=(resolution,))
        group = self._settings.group or (1 if on_cpu() else _SIDE_BY_SIDE)
        return _judge_rows(space, images_at_once(self._settings, resolution), group, self._dtype)


@lru_cache(maxsize=16)
def _judge_rows(space: MBConvSpace, batch: int, group: int, dtype: str) -> RowMap:
    """Kept for equal arguments, so that judges of one space share compiled code."""

    def judge(backbones: Backbone, shared: Any) -> Outcomes:
        params, calibration, data = shared
        one = partial(outcomes, space, params, data=data, calibration=calibration, batch=batch, dtype=dtype)
        if group > 1:
            return jax.vmap(one)(backbones)
        return jax.lax.map(partial(one, skip="all"), backbones)

    return RowMap(judge, block=group)


def outcomes(
    space: MBConvSpace,
    params: Parameters,
    backbone: Backbone,
    *,
    data: LabelledImages,
    calibration: jax.Array,
    batch: int,
    dtype: str = "float32",
    skip: Skip = "nothing",
) -> Outcomes:
    """Judges one backbone with batch-norm statistics of its own.

    Args:
        space: Static, of one resolution, which images are resized to.
        params: Shared weights.
        backbone: One design of the space.
        data: The images to judge on.
        calibration: See `Evaluator`.
        batch: Static, images at once.
        dtype: Static, float32 or bfloat16.
        skip: Static; what the backbone does not use is skipped instead of masked, not for `jax.vmap`.
    """
    (resolution,) = space.resolution
    # Taps and channels are masked here: these are few images, and code for every variant takes long to compile.
    estimated: Skip = "blocks" if skip == "all" else skip
    stats = estimate_batch_stats(
        space, params, backbone, calibration, skip=estimated, resolution=resolution, dtype=dtype
    )
    return outcomes_given(space, params, stats, backbone, data=data, batch=batch, dtype=dtype, skip=skip)


def outcomes_given(
    space: MBConvSpace,
    params: Parameters,
    stats: BatchStats,
    backbone: Backbone,
    *,
    data: LabelledImages,
    batch: int,
    dtype: str = "float32",
    skip: Skip = "nothing",
) -> Outcomes:
    """Judges one backbone with given batch-norm statistics, a batch of images at a time; see `outcomes`."""
    (resolution,) = space.resolution
    size, available = data.count, jnp.append(available_exits(space, backbone), True)
    count = -(-size // batch)
    batch = -(-size // count)

    def judge(start: jax.Array) -> Outcomes:
        images, labels = data.take(jnp.minimum(start + jnp.arange(batch), size - 1))
        shaped = resize(images, resolution).astype(jnp.dtype(dtype))
        logits = apply(space, params, stats, backbone, shaped, skip=skip)
        return outcomes_of_logits(logits.exits, logits.confidence, labels, available)

    found = jax.lax.map(judge, batch * jnp.arange(count))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(len(available), -1)[:, :size], found)


def outcomes_of_logits(exits: jax.Array, confidence: jax.Array, labels: jax.Array, available: jax.Array) -> Outcomes:
    """Returns the outcomes of one batch.

    Args:
        exits: float32[E + 1, B, K], logits of every exit and last the classifier.
        confidence: float32[E, B], logits of the heads' own confidence.
        labels: int32[B].
        available: bool[E + 1], exits that the backbone has, and True for the classifier.
    """
    log_probabilities = jax.nn.log_softmax(exits)
    probabilities = jnp.exp(log_probabilities)
    batch = exits.shape[1]
    right = jnp.argmax(exits, axis=-1) == labels[None]
    return Outcomes(
        correct=right & available[:, None],
        confidence=jnp.where(available[:, None], jnp.max(probabilities, axis=-1), 0.0),
        entropy=-jnp.sum(probabilities * log_probabilities, axis=-1),
        learned=jnp.concatenate([confidence, jnp.full((1, batch), jnp.inf, jnp.float32)]),
    )


_SCORES = ("confidence", "entropy", "learned")


class PopulationEvaluator(Protocol):
    """What judges backbones, such as `Evaluator`."""

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Returns outcomes, leading axis P, of backbones int32[P, G]."""

    @property
    def fingerprint(self) -> str:
        """Of all that answers follow from, backbones and images aside."""


class CachedEvaluator:
    """A judge that remembers in a folder; what it gives is what was given when the backbone was judged, bit for bit.

    Args:
        judge: Asked about backbones that are not in the folder yet.
        folder: Made where it is not there; of several processes, all must see it, and the first one writes.

    Examples:
      >>> kept = CachedEvaluator(judge, Path("outcomes"))  # doctest: +SKIP
      >>> kept(genomes, splits.validation).correct.mean(-1)  # doctest: +SKIP
    """

    def __init__(self, judge: PopulationEvaluator, folder: Path) -> None:
        self._judge, self._folder = judge, folder / judge.fingerprint
        self._data: tuple[LabelledImages | None, Path] = (None, folder)
        self.judged = 0
        """Backbones that were not in the folder, so far."""

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Judges backbones int32[P, G] on some images.

        Returns:
            Outcomes as numpy arrays with leading axis P.

        Raises:
            ValueError: The folder cannot be written to or read, a file in it is damaged, or there is too little memory
                for a batch.
        """
        folder = self._folder_of(data)
        paths = [folder / f"{'-'.join(map(str, genome))}.npz" for genome in np.asarray(genomes).tolist()]
        try:
            known = np.array(share_json([path.is_file() for path in paths]), bool)
            found = [_read(path, data.count) if there else None for path, there in zip(paths, known, strict=True)]
            if not known.all():
                for row, one in zip(np.flatnonzero(~known).tolist(), self._new(genomes[~known], data), strict=True):
                    found[row] = one
                    if is_first():
                        _write(one, paths[row])
        except OSError as error:
            raise ValueError(f"outcomes: expected a folder to read and write, got {folder}: {error}") from error
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def _new(self, genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
        judged = self._judge(genomes, data)
        self.judged += len(genomes)
        return of_each(judged)

    def _folder_of(self, data: LabelledImages) -> Path:
        """The folder of one supernet's answers on these images; made where it is not there."""
        if self._data[0] is not data:
            self._data = data, self._folder / fingerprint(data)
        return self._data[1]


def _write(outcomes: Outcomes, path: Path) -> None:
    """Writes the outcomes of one backbone, so that whoever reads finds a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = {name: getattr(outcomes, name) for name in _SCORES}
    write_whole(path, as_npz({"correct": np.packbits(outcomes.correct, axis=-1), **scores}))


def _read(path: Path, images: int) -> Outcomes:
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            correct: Any = np.unpackbits(file["correct"], axis=-1, count=images).astype(bool)
            return Outcomes(correct, *(file[name] for name in _SCORES))
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"outcomes: expected how a backbone did, got a damaged file, {path}; delete it, and it is judged again"
        ) from error
