"""What backbones predict at every exit, population by population.

Backbones are evaluated in the number format that they run in, simulated (`hadas_jax.supernet.quantisation`), and by
resolution and format: one compilation serves all that share both, whatever else they are. One backbone
after another, blocks, taps and channels that a backbone does not use are skipped; several side by side, they are
masked (on two CPU cores half as fast; 16 at once and larger batches twice as fast as 4 on an H100, see
`experiments/benchmark_supernet.py`).
Batch-norm statistics belong to a backbone and are re-estimated on training images before it is evaluated, and so are
the ranges of its activations in int8.

`CachedEvaluator` does neither twice: it keeps statistics and outcomes in memory, and outcomes in a folder as well.
Outcomes depend on neither device nor seed of a search. A folder holds those of any number of supernets and splits,
told apart by what outcomes follow from: FOLDER/<supernet>/<images>/<genes>.npz, one file for each backbone in fp32, and
<genes>-<format>.npz in another format.
Shapes: P backbones, G genes, E exits, N images, K classes.
"""

import dataclasses
import hashlib
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.backend import RowMap, is_first, memory_named, on_cpu, share_json
from hadas_jax.data import LabelledImages
from hadas_jax.settings import EvaluationSettings
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, available_exits
from hadas_jax.supernet import BatchStats, Parameters, Skip, apply, estimate_batch_stats, resize
from hadas_jax.supernet.fold import stored_network
from hadas_jax.supernet.quantisation import FLOAT32, RangeMethod, Storage
from hw_models import NumberFormat
from hw_models.files import as_npz, write_whole

_CPU_PIXELS = 2**17  # of a batch: 128 images of 32x32 keep its caches warm
_PIXELS = 2**19  # of a batch on an accelerator
_SIDE_BY_SIDE = 16  # backbones at once on an accelerator
_KEPT_BYTES = 2**29  # of outcomes, and as much of statistics
_SCORES = ("confidence", "entropy", "learned")
_FORMAT_GENE = "number_format"


def _fingerprint(*values: Any) -> str:
    """Returns 20 hexadecimal digits that follow from texts, and from names, types, shapes and contents of pytrees."""
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


def of_each(population: Any) -> list[Any]:
    """Returns the outcomes, or statistics, of each backbone of a population, leading axis P, by itself."""
    rows = len(jax.tree.leaves(population)[0])
    return [jax.tree.map(lambda leaf, row=row: leaf[row].copy(), population) for row in range(rows)]


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
        dtype: What networks in fp32 compute in, float32 or bfloat16; others are simulated in float32.
        ranges: How the ranges of int8 are found, see `hadas_jax.supernet.quantisation.find_range`.

    Examples:
        >>> evaluate = Evaluator(space, params, calibration)  # doctest: +SKIP
        >>> evaluate(genomes, splits.validation).correct.mean(-1)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: MBConvSpace,
        params: Parameters,
        calibration: jax.Array,
        settings: EvaluationSettings | None = None,
        *,
        dtype: str = "float32",
        ranges: RangeMethod = "mse",
    ) -> None:
        self._space, self._settings, self._dtype = space, settings or EvaluationSettings(), dtype
        self._ranges: RangeMethod = ranges
        # Ranges of int8 are found wherever a backbone may need them, so that those of all formats share statistics.
        self._finds = NumberFormat.INT8 if NumberFormat.INT8 in space.number_formats else NumberFormat.FP32
        place = self._map(_statistics_map, space.resolution[0], self._finds).place
        self._params, self._calibration = place((params, calibration))
        self._data: tuple[LabelledImages | None, Any] = (None, None)

    def statistics(self, genomes: np.ndarray) -> BatchStats:
        """Estimates the batch-norm statistics of backbones int32[P, G]; numpy arrays with leading axis P.

        Raises:
            ValueError: There is too little memory for a batch.
        """
        shared, batch = (self._params, self._calibration), self._calibration.shape[1]
        return self._by_kind(_statistics_map, genomes, (), shared, "batch", lambda _: batch)

    def __call__(self, genomes: np.ndarray, data: LabelledImages, *, statistics: BatchStats | None = None) -> Outcomes:
        """Evaluates backbones int32[P, G] on some images.

        Args:
            genomes: The backbones.
            data: The images.
            statistics: Of `statistics`; None: they are estimated.

        Returns:
            Outcomes as numpy arrays with leading axis P.

        Raises:
            ValueError: There is too little memory for a batch.
        """
        if statistics is None:
            statistics = self.statistics(genomes)
        if self._data[0] is not data:
            with memory_named("evaluation_images", data.count, "images"):
                self._data = data, self._map(_outcomes_map, self._space.resolution[0], self._finds).place(data)
        shared, batch = (self._params, self._data[1]), partial(images_at_once, self._settings)
        return self._by_kind(_outcomes_map, genomes, (statistics,), shared, "eval_batch", batch)

    def _by_kind(
        self,
        rows_map: Callable[..., RowMap],
        genomes: np.ndarray,
        others: tuple[Any, ...],
        shared: Any,
        argument: str,
        batch: Callable[[int], int],
    ) -> Any:
        """Maps over backbones and other rows, those of one resolution and format together; results are in order.

        Too little memory for the batch of a resolution is told of by the name of the argument that sets it.
        """
        backbones = jax.tree.map(np.asarray, jax.vmap(self._space.decode)(jnp.asarray(genomes, jnp.int32)))
        formats = backbones.number_format
        if formats is None or rows_map is _statistics_map:
            formats = np.full(len(genomes), self._finds)
        kinds, rows, parts = np.stack([backbones.resolution, formats], axis=1), [], []
        for resolution, number_format in np.unique(kinds, axis=0).tolist():
            chosen = np.flatnonzero((kinds == (resolution, number_format)).all(axis=1))
            picked = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], (backbones, *others))
            with memory_named(argument, batch(resolution), f"images of {resolution} pixels"):
                parts.append(self._map(rows_map, resolution, NumberFormat(number_format))(picked, shared))
            rows.append(chosen)
        order = np.argsort(np.concatenate(rows))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *parts)

    @property
    def fingerprint(self) -> str:
        """Of space, weights, calibration images and what is computed in, which outcomes follow from."""
        return _fingerprint(repr(self._space), self._dtype, self._params, self._calibration)

    def genes_and_format(self, genome: np.ndarray) -> tuple[str, NumberFormat]:
        """Returns the genes of a backbone int32[G] as text, the format's left out, and its format."""
        names, space = self._space.codec.names, self._space
        genes = [str(gene) for name, gene in zip(names, genome.tolist(), strict=True) if name != _FORMAT_GENE]
        formats = space.number_formats or (NumberFormat.FP32,)
        return "-".join(genes), NumberFormat(formats[genome[names.index(_FORMAT_GENE)] if _FORMAT_GENE in names else 0])

    def _map(self, rows_map: Callable[..., RowMap], resolution: int, number_format: NumberFormat) -> RowMap:
        space = dataclasses.replace(self._space, resolution=(resolution,), number_formats=())
        group = self._settings.group or (1 if on_cpu() else _SIDE_BY_SIDE)
        storage = FLOAT32 if number_format == NumberFormat.FP32 else Storage(number_format, self._ranges)
        dtype = self._dtype if storage == FLOAT32 else "float32"
        return rows_map(space, images_at_once(self._settings, resolution), group, dtype, storage)


def _each(one: Callable[..., Any], group: int, *, skip: Skip) -> RowMap:
    """Maps over rows: one after another, where what a backbone does not use is skipped, or side by side, masked."""

    def rows_of(rows: tuple[Any, ...], shared: Any) -> Any:
        if group > 1:
            return jax.vmap(lambda row: one(*row, *shared, skip="nothing"))(rows)
        return jax.lax.map(lambda row: one(*row, *shared, skip=skip), rows)

    return RowMap(rows_of, block=group)


# Kept for equal arguments, so that evaluators of one space share compiled code.
@lru_cache(maxsize=16)
def _statistics_map(space: MBConvSpace, batch: int, group: int, dtype: str, storage: Storage) -> RowMap:
    del batch
    how: dict[str, Any] = {"resolution": space.resolution[0], "dtype": dtype, "storage": storage}

    def statistics(backbone: Backbone, params: Parameters, calibration: jax.Array, *, skip: Skip) -> BatchStats:
        return estimate_batch_stats(space, params, backbone, calibration, skip=skip, **how)

    # Taps and channels are masked here: these are few images, and code for every variant takes long to compile.
    return _each(statistics, group, skip="blocks")


@lru_cache(maxsize=16)
def _outcomes_map(space: MBConvSpace, batch: int, group: int, dtype: str, storage: Storage) -> RowMap:
    how: dict[str, Any] = {"batch": batch, "dtype": dtype, "storage": storage}

    def outcomes(
        backbone: Backbone, stats: BatchStats, params: Parameters, data: LabelledImages, *, skip: Skip
    ) -> Outcomes:
        return outcomes_given(space, params, stats, backbone, data=data, skip=skip, **how)

    return _each(outcomes, group, skip="all")


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
    storage: Storage = FLOAT32,
) -> Outcomes:
    """Evaluates one backbone with given batch-norm statistics, a batch of images at a time.

    Args:
        space: Static, of one resolution, which images are resized to.
        params: Shared weights.
        stats: Batch-norm statistics of the backbone.
        backbone: One design of the space.
        data: The images.
        batch: Static, images at once.
        dtype: Static, float32 or bfloat16.
        skip: Static; what the backbone does not use is skipped instead of masked, not for `jax.vmap`.
        storage: Static, how weights and activations are stored.
    """
    params, stats = stored_network(space, params, stats, backbone, storage=storage)
    (resolution,) = space.resolution
    size, available = data.count, jnp.append(available_exits(space, backbone), True)
    count = -(-size // batch)
    batch = -(-size // count)

    def one_batch(start: jax.Array) -> Outcomes:
        images, labels = data.take(jnp.minimum(start + jnp.arange(batch), size - 1))
        shaped = resize(images, resolution).astype(jnp.dtype(dtype))
        logits = apply(space, params, stats, backbone, shaped, skip=skip, storage=storage)
        return outcomes_of_logits(logits.exits, logits.confidence, labels, available)

    parts = jax.lax.map(one_batch, batch * jnp.arange(count))
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(len(available), -1)[:, :size], parts)


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


class CachedEvaluator:
    """An evaluator that remembers; what it gives is what was given when a backbone was evaluated, bit for bit.

    Statistics and outcomes stay in memory, where they fit; outcomes in a folder as well, if one is given.

    Args:
        evaluator: Asked about backbones that are not known yet.
        folder: Made where it is not there; of several processes, all must see it, and the first one writes.

    Examples:
        >>> evaluate = CachedEvaluator(evaluator, Path("outcomes"))  # doctest: +SKIP
        >>> evaluate(genomes, splits.validation).correct.mean(-1)  # doctest: +SKIP
    """

    def __init__(self, evaluator: Evaluator, folder: Path | None = None) -> None:
        self._evaluator = evaluator
        self._folder = None if folder is None else folder / evaluator.fingerprint
        self._splits: list[tuple[LabelledImages, str]] = []
        self._statistics, self._outcomes = _Memory(_KEPT_BYTES), _Memory(_KEPT_BYTES)
        self.evaluated = 0
        """Backbones that were not known, so far."""

    def __call__(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Evaluates backbones int32[P, G] on some images.

        Returns:
            Outcomes as numpy arrays with leading axis P.

        Raises:
            ValueError: The folder cannot be written to or read, a file in it is damaged, or there is too little memory
                for a batch.
        """
        genomes, name = np.asarray(genomes, np.int32), self._name(data)
        keys = [(name, genome.tobytes()) for genome in genomes]
        return self._outcomes.fetch(keys, lambda rows: self._from_folder(genomes[rows], data, name))

    def _name(self, data: LabelledImages) -> str:
        """What tells these images from others, in memory and in the folder."""
        for known, name in self._splits:
            if known is data:
                return name
        self._splits.append((data, str(len(self._splits)) if self._folder is None else _fingerprint(data)))
        return self._splits[-1][1]

    def _from_folder(self, genomes: np.ndarray, data: LabelledImages, name: str) -> list[Outcomes]:
        if self._folder is None:
            return self._new(genomes, data)
        folder = self._folder / name
        paths = [folder / self._file_name(genome) for genome in genomes]
        try:
            known = np.array(share_json([path.is_file() for path in paths]), bool)
            outcomes = {row: _read(paths[row], data.count) for row in np.flatnonzero(known).tolist()}
            if not known.all():
                new = zip(np.flatnonzero(~known).tolist(), self._new(genomes[~known], data), strict=True)
                for row, one in new:
                    outcomes[row] = one
                    if is_first():
                        _write(one, paths[row])
        except OSError as error:
            raise ValueError(f"outcomes: expected a folder to read and write, got {folder}: {error}") from error
        return [outcomes[row] for row in range(len(genomes))]

    def _file_name(self, genome: np.ndarray) -> str:
        genes, number_format = self._evaluator.genes_and_format(genome)
        return f"{genes}.npz" if number_format == NumberFormat.FP32 else f"{genes}-{number_format.name.lower()}.npz"

    def _new(self, genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
        self.evaluated += len(genomes)
        keys = [self._evaluator.genes_and_format(genome)[0] for genome in genomes]
        statistics = self._statistics.fetch(keys, lambda rows: of_each(self._evaluator.statistics(genomes[rows])))
        return of_each(self._evaluator(genomes, data, statistics=statistics))


class _Memory:
    """Pytrees of numpy arrays by key, the last used ones that fit into a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def fetch(self, keys: list[Any], compute: Callable[[list[int]], list[Any]]) -> Any:
        """Returns the values of some keys, stacked; `compute` gives those of the rows that are not here, each once."""
        values = {key: self._values.get(key) for key in keys}
        rows = [row for row, key in enumerate(keys) if values[key] is None and key not in keys[:row]]
        if rows:
            values |= zip([keys[row] for row in rows], compute(rows), strict=True)
        for key, value in values.items():
            self._keep(key, value)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(values[key] for key in keys))

    def _keep(self, key: Hashable, value: Any) -> None:
        if key not in self._values:
            self._bytes += _bytes(value)
        self._values[key] = value
        self._values.move_to_end(key)
        while self._bytes > self._most:
            self._bytes -= _bytes(self._values.popitem(last=False)[1])


def _bytes(value: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(value))


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
            f"outcomes: expected how a backbone did, got a damaged file, {path}; delete it, and it is evaluated again"
        ) from error
