"""Retraining: the network of a genotype from fresh weights to its accuracy on the test split, and the file of it.

Training keeps checkpoints and resumes exactly; a diverging loss goes back to the last good one at a lower rate. Batch
norm's statistics are estimated on training images when it has ended.
Shapes: N images.
"""

import dataclasses
import json
import shlex
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import memory_named
from hadas_jax.data import LabelledImages, SplitRecord, Splits
from hadas_jax.data.settings import DataSettings, load_splits, require_same
from hadas_jax.data.splits import random_batches
from hadas_jax.methods.eh_dnas.result import FORM as GENOTYPE_FORM
from hadas_jax.methods.eh_dnas.result import read_genotype
from hadas_jax.runs.checkpoints import read_checkpoint, validated
from hadas_jax.runs.loop import Guard, Progress, run_stage
from hadas_jax.runs.settings import check_choice, check_fields, check_number
from hadas_jax.runs.workdir import DERIVED, RESULT, WorkDir, versions, write_text
from hadas_jax.spaces.darts import format_code, parse_code
from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import Genotype, code_of, genotype_of, read_architecture
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts.checkpoint import DerivedCheckpoint, save_derived
from hadas_jax.supernet.darts.network import apply_derived, estimate_statistics, initialise_derived
from hadas_jax.training import AUGMENTATIONS, DTYPES, TrainState, init_state, lower_rate
from hadas_jax.training.batches import Augmentation, fed, pace_of
from hadas_jax.training.darts import RetrainOptions, retrain_augmentation, retrain_optimiser, retrain_step
from hadas_jax.training.run import settings_name
from hw_models.accelerator import row_counts

FORM = "hadas_jax.retrained/1"
STYLES = ("cifar", "imagenet")
_PIXELS = 2**17  # of a batch: 128 images of 32x32


@dataclass(frozen=True)
class RetrainSettings(DataSettings):
    """Settings of the training of a genotype's network from scratch."""

    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = ("genotype",)

    genotype: str = "DARTS_V2"
    """DARTS_V1, DARTS_V2, OURS_ACC or OURS_PIP; a code of 28 digits; the text Genotype(...); or a file with one of
    them, such as genotype.json of hadas dnas search."""
    evaluation_images: int | None = None
    """Most images of validation, calibration and test each, chosen of these parts; by default all, of streams 10,000
    for the test."""
    style: str = "cifar"
    """Stem: cifar, one convolution, or imagenet, three of stride 2."""
    channels: int = 16
    """Of the first cell; DARTS has 36 for CIFAR and 48 for ImageNet."""
    cells: int = 8
    """Those at a third and two thirds of the way are reduce cells; DARTS has 20 for CIFAR and 14 for ImageNet."""
    epochs: int = 60
    """Epochs of training; DARTS has 600 for CIFAR."""
    batch: int = 96
    """Images per training step."""
    learning_rate: float = 0.025
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = 3e-4
    """Of all weights."""
    auxiliary_weight: float = 0.4
    """Of the loss of an auxiliary head after the second reduce cell, in training alone; 0: no such head."""
    drop_path: float = 0.2
    """Share of edges that are dropped at the end, rising from 0; DARTS has 0.3 for CIFAR and 0 for ImageNet."""
    cutout: int | None = None
    """Side in pixels of the square that is cut out of training images; by default half the image's, 0: none."""
    augmentation: str = "affine"
    """Of training images, before cutout: none, affine, crop-flip (photos) or randaugment."""
    label_smoothing: float = 0.0
    """Of the targets; DARTS has 0.1 for ImageNet."""
    dtype: str = "float32"
    """What the network computes in: float32 or bfloat16; weights, statistics and losses are float32."""
    remat: bool = False
    """Compute each cell twice instead of keeping its activations, for large networks and batches."""
    stats_batches: int = 10
    """Training batches that batch-norm statistics are estimated on at the end."""
    eval_batch: int | None = None
    """Images at once when the network is judged; by default 128 of 32x32 pixels, or as many pixels."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cells", "epochs", "batch", "stats_batches"):
            check_number(name, getattr(self, name), int, lowest=1)
        check_number("channels", self.channels, int, lowest=2)
        if self.channels % 2:
            raise ValueError(f"channels: expected an even number, got {self.channels}")
        for name in ("evaluation_images", "eval_batch"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), int, lowest=1)
        if self.cutout is not None:
            check_number("cutout", self.cutout, int, lowest=0)
        check_number("seed", self.seed, int, lowest=0)
        check_number("learning_rate", self.learning_rate, float, above=0)
        for name in ("weight_decay", "auxiliary_weight"):
            check_number(name, getattr(self, name), float, lowest=0)
        for name in ("drop_path", "label_smoothing"):
            check_number(name, getattr(self, name), float, lowest=0, below=1)
        check_fields(self, ("genotype",), str, "text")
        check_fields(self, ("remat",), bool, "true or false")
        for name, choices in (("style", STYLES), ("augmentation", AUGMENTATIONS), ("dtype", DTYPES)):
            check_choice(self, name, choices)


@dataclass(frozen=True)
class _RetrainMetrics:
    """What a retraining says of its network.

    Attributes:
        validation_accuracy: A share.
        test_accuracy: Likewise.
        parameters: Of the network, without an auxiliary head.
        macs: multiply-accumulates for one image, of convolutions and classifier.
    """

    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class RetrainResult(_RetrainMetrics):
    """What a retraining run leaves.

    Attributes:
        trained: The network, also in the work directory.
    """

    trained: DerivedCheckpoint


@dataclass(frozen=True, kw_only=True)
class RetrainedNetwork(_RetrainMetrics):
    """What a retraining run leaves, as its result.json has it.

    Attributes:
        code: Of the network, 28 digits.
    """

    code: str

    def __post_init__(self) -> None:
        parse_code(self.code)


class RetrainRun:
    """One retraining: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Of the run.

    Raises:
        ValueError: No genotype, an unknown data set, or a square to cut out that is larger than the images.
    """

    def __init__(self, settings: RetrainSettings) -> None:
        self.settings = settings
        self.genotype: Genotype = _genotype(settings.genotype)
        found_on = _data_of(settings.genotype)
        self.splits: Splits = load_splits(
            settings, seed=settings.seed, record=found_on, evaluation_images=settings.evaluation_images
        )
        if found_on is not None and found_on.is_related(self.splits.record):
            owner, hint = f"genotype {settings.genotype}", "use those, or give its code instead of its file"
            require_same(self.splits, found_on, dataset=settings.dataset, owner=owner, hint=hint)
        if found_on is not None and settings.split_seed not in (None, found_on.seed):
            raise ValueError(
                f"split_seed {settings.split_seed}: expected none beside genotype {settings.genotype}, which was "
                f"chosen on images divided with seed {found_on.seed}; retraining divides them alike"
            )
        size = self.splits.image_size
        self.network = DartsNetwork(
            channels=settings.channels,
            cells=settings.cells,
            classes=self.splits.classes,
            image_size=size,
            in_channels=self.splits.channels,
            stem="cifar" if settings.style == "cifar" else "imagenet",
        )
        if settings.cutout is not None and settings.cutout > size:
            raise ValueError(f"cutout: expected at most the {size} pixels of the images, got {settings.cutout}")
        cutout = size // 2 if settings.cutout is None else settings.cutout
        self._augment = retrain_augmentation(settings.augmentation, cutout_size=cutout)
        self._init_key, self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed), 3)
        self._pace = pace_of(self.splits.train.count, batch=settings.batch)

    def execute(self, workdir: WorkDir, progress: Progress) -> RetrainResult:
        """Trains the network, evaluates it on validation and test images, and writes all into the work directory.

        Raises:
            ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        settings, weights = self.settings, self.train(workdir, progress)
        progress.stage("test", 1)
        statistics = self.statistics(weights)
        shares = {
            "validation_accuracy": self.accuracy(weights, statistics, self.splits.validation),
            "test_accuracy": self.accuracy(weights, statistics, self.splits.test),
        }
        progress.update(1, shares)
        result = RetrainResult(
            trained=self._described(weights, statistics, shares),
            **shares,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(weights)),
            macs=network_macs(self.network, self.genotype),
        )
        save_derived(workdir.path / DERIVED, result.trained)
        write_result(workdir.path / RESULT, result, settings=dataclasses.asdict(settings))
        return result

    def train(self, workdir: WorkDir, progress: Progress) -> Tree:
        """Trains from fresh weights, or goes on from a checkpoint; returns the weights without an auxiliary head."""
        settings, steps = self.settings, self.settings.epochs * self._pace.steps_per_epoch
        has_head = settings.auxiliary_weight > 0
        fresh = initialise_derived(self.network, self.genotype, self._init_key, auxiliary=has_head)
        optimiser = retrain_optimiser(settings.learning_rate, steps, weight_decay=settings.weight_decay)
        options = RetrainOptions(
            auxiliary_weight=settings.auxiliary_weight,
            drop_path=settings.drop_path,
            label_smoothing=settings.label_smoothing,
            dtype=settings.dtype,
            remat=settings.remat,
        )
        step = retrain_step(self.network, self.genotype, optimiser, steps=steps, options=options)
        advance = fed(
            step,
            self.splits.train,
            pace=self._pace,
            key=self._train_key,
            order_key=self._order_key,
            augmentation=Augmentation(settings.augmentation, self._augment),
        )
        with memory_named("--batch", self._pace.batch, "images"):
            state: TrainState = run_stage(
                "retrain",
                advance,
                init_state(fresh, optimiser),
                chunks=steps // self._pace.chunk,
                chunk=self._pace.chunk,
                workdir=workdir,
                progress=progress,
                guard=Guard(lower=lower_rate),
            )
        return {name: part for name, part in state.weights.items() if name != "auxiliary"}

    def statistics(self, weights: Tree) -> Tree:
        """Estimates batch norm's statistics on random training images, not augmented."""
        settings, train = self.settings, self.splits.train
        batches = min(settings.stats_batches, train.count // self._pace.batch)
        images = random_batches(train, batches, self._pace.batch, seed=settings.seed)
        with memory_named("--stats-batches", settings.stats_batches, "batches"):
            return estimate_statistics(
                self.network,
                self.genotype,
                weights,
                images,
                dtype=settings.dtype,
            )

    def accuracy(self, weights: Tree, statistics: Tree, data: LabelledImages) -> float:
        """Returns the share of images that a trained network puts into their class.

        Raises:
            ValueError: There is too little memory for a batch.
        """
        batch = self.settings.eval_batch or max(_PIXELS // self.network.image_size**2, 1)
        size = min(batch, data.count)
        with memory_named("--eval-batch", size, "images"):
            is_right = _is_right(self.network, self.genotype, size, self.settings.dtype, weights, statistics, data)
            return float(jnp.mean(is_right, dtype=jnp.float32))

    def _described(self, weights: Tree, statistics: Tree, shares: dict[str, float]) -> DerivedCheckpoint:
        return DerivedCheckpoint(
            network=self.network,
            code=format_code(code_of(self.genotype)),
            normalisation=(self.splits.mean, self.splits.deviation),
            class_names=self.splits.class_names,
            data=self.splits.record,
            source=f"hadas dnas retrain on {settings_name(self.settings.dataset)}",
            details={"settings": dataclasses.asdict(self.settings), **shares},
            weights=weights,
            statistics=statistics,
        )


def network_macs(network: DartsNetwork, genotype: Genotype) -> int:
    """Counts the multiply-accumulates of convolutions and classifier for one image."""
    rows = network_rows(network)
    layers = np.asarray(row_counts(rows, darts_counts(jnp.asarray(code_of(genotype)))), np.float64)
    return round(float(np.sum((layers * rows.macs)[rows.is_weighted])))


def write_result(path: Path, result: RetrainResult, *, settings: dict[str, Any]) -> None:
    """Writes accuracies, sizes, genotype, settings and versions as JSON."""
    trained = result.trained
    content = {
        "form": FORM,
        "code": trained.code,
        "genotype": str(trained.genotype),
        "network": asdict(trained.network),
        **{field.name: getattr(result, field.name) for field in fields(_RetrainMetrics)},
        "settings": settings,
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_result(path: Path) -> RetrainedNetwork:
    """Reads what `write_result` wrote.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(RetrainedNetwork, read_checkpoint(path, FORM, what="the result of hadas dnas retrain"), path=path)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _is_right(
    network: DartsNetwork,
    genotype: Genotype,
    batch: int,
    dtype: str,
    weights: Tree,
    statistics: Tree,
    data: LabelledImages,
) -> jax.Array:
    """Returns bool[N]."""

    def one(start: jax.Array) -> jax.Array:
        images, labels = data.take(jnp.minimum(start + jnp.arange(batch), data.count - 1))
        logits = apply_derived(network, genotype, weights, statistics, images.astype(jnp.dtype(dtype)))
        return jnp.argmax(logits, axis=-1) == labels

    return jax.lax.map(one, jnp.arange(0, data.count, batch)).reshape(-1)[: data.count]


def _data_of(source: str) -> SplitRecord | None:
    """The data that a genotype was chosen on, where it comes from a search."""
    path = Path(source)
    if path.suffix != ".json" or not path.is_file():
        return None
    if f'"{GENOTYPE_FORM}"' not in path.read_text(encoding="utf-8"):
        return None
    searched = read_genotype(path)
    if searched.data is None:
        raise ValueError(
            f"genotype {source}: expected a search that says which images it used, got one of an earlier version, "
            f"which does not; search anew, or give its code instead: {shlex.quote(searched.code)}"
        )
    return searched.data


def _genotype(source: str) -> Genotype:
    try:
        return genotype_of(read_architecture(source))
    except ValueError as error:
        raise ValueError(f"genotype {source}: {error}") from error
