"""Retraining: the network of a genotype from fresh weights to its accuracy on the test split, and the file of it.

Training keeps checkpoints and resumes exactly; a diverging loss goes back to the last good one at a lower rate. Batch
norm's statistics are estimated on training images when it has ended.
Shapes: N images.
"""

import json
import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import memory_named
from hadas_jax.data import LabelledImages, SplitRecord, Splits, load
from hadas_jax.data.splits import random_batches
from hadas_jax.methods.eh_dnas.result import FORM as GENOTYPE_FORM
from hadas_jax.methods.eh_dnas.result import read_genotype
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.loop import Progress
from hadas_jax.runs.names import DERIVED, RESULT
from hadas_jax.runs.workdir import WorkDir, versions, write_text
from hadas_jax.settings import RetrainSettings
from hadas_jax.spaces.darts import format_code, parse_code
from hadas_jax.spaces.darts_costs import darts_counts
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import Genotype, code_of, read_architecture
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts.checkpoint import DerivedCheckpoint, save_derived
from hadas_jax.supernet.darts.network import apply_derived, estimate_statistics, initialise_derived
from hadas_jax.training import init_state
from hadas_jax.training.batches import Schedule, train_epochs, training_mesh
from hadas_jax.training.darts import retrain_optimiser, retrain_step
from hadas_jax.training.run import settings_name

FORM = "hadas_jax.retrained/1"
_PIXELS = 2**17  # of a batch: 128 images of 32x32


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining says of its network, as result.json has it; the network is beside it in `derived/`.

    Attributes:
        code: The network, 28 digits.
        validation_accuracy: A share.
        test_accuracy: A share.
        parameters: Number of weights, without an auxiliary head.
        macs: Multiply-accumulates for one image, of convolutions and classifier.
    """

    code: str
    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int

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
        self.splits: Splits = load(settings.data, stream_seed=settings.seed, record=found_on)
        if found_on is not None:
            self._require_data_of(found_on)
        size, training = self.splits.image_size, settings.training
        self.network = DartsNetwork(
            channels=settings.channels,
            cells=settings.cells,
            classes=self.splits.classes,
            image_size=size,
            in_channels=self.splits.channels,
            stem=settings.style,
        )
        if training.cutout is not None and training.cutout > size:
            raise ValueError(f"cutout: expected at most the {size} pixels of the images, got {training.cutout}")
        self._cutout = size // 2 if training.cutout is None else training.cutout
        self._init_key, self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed), 3)
        self._schedule = Schedule.of(self.splits.train.count, batch=training.batch)
        self._mesh = training_mesh(self._schedule.batch, data_parallel=training.data_parallel)

    def _require_data_of(self, search: SplitRecord) -> None:
        """Refuses the images of the search where they are others by now, or are divided otherwise."""
        data, owner = self.settings.data, f"genotype {self.settings.genotype}"
        if search.is_related(self.splits.record):
            hint = "use those, or give its code instead of its file"
            search.require(self.splits.record, dataset=data.dataset, owner=owner, hint=hint)
        if data.split_seed not in (None, search.seed):
            raise ValueError(
                f"split_seed {data.split_seed}: expected none beside {owner}, which was chosen on images divided with "
                f"seed {search.seed}; retraining divides them alike"
            )

    def execute(self, workdir: WorkDir, progress: Progress) -> RetrainResult:
        """Trains the network, judges it on validation and test images, and writes all into the work directory.

        Raises:
            ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        settings, weights = self.settings, self.train(workdir, progress)
        progress.stage("test", 1)
        statistics = self.statistics(weights)
        parts = {"validation_accuracy": self.splits.validation, "test_accuracy": self.splits.test}
        shares = {name: self._accuracy(weights, statistics, data) for name, data in parts.items()}
        progress.update(1, shares)
        trained = self._described(weights, statistics, shares)
        result = RetrainResult(
            code=trained.code,
            **shares,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(weights)),
            macs=_count_macs(self.network, self.genotype),
        )
        save_derived(workdir.path / DERIVED, trained)
        write_result(workdir.path / RESULT, result, network=self.network, settings=settings.flat())
        return result

    def train(self, workdir: WorkDir, progress: Progress) -> Tree:
        """Trains from fresh weights, or goes on from a checkpoint; returns the weights without an auxiliary head."""
        training = self.settings.training
        steps = training.epochs * self._schedule.steps_per_epoch
        has_head = training.auxiliary_weight > 0
        fresh = initialise_derived(self.network, self.genotype, self._init_key, auxiliary=has_head)
        optimiser = retrain_optimiser(training.learning_rate, steps, weight_decay=training.weight_decay)
        state = train_epochs(
            "retrain",
            retrain_step(self.network, self.genotype, optimiser, steps=steps, settings=training),
            init_state(fresh, optimiser),
            self.splits.train,
            schedule=self._schedule,
            epochs=training.epochs,
            key=self._train_key,
            order_key=self._order_key,
            augmentation=training.augmentation,
            cutout_size=self._cutout,
            mesh=self._mesh,
            workdir=workdir,
            progress=progress,
        )
        return {name: part for name, part in state.weights.items() if name != "auxiliary"}

    def statistics(self, weights: Tree) -> Tree:
        """Estimates batch norm's statistics on random training images, not augmented."""
        settings, train = self.settings, self.splits.train
        batches = min(settings.stats_batches, train.count // self._schedule.batch)
        images = random_batches(train, batches, self._schedule.batch, seed=settings.seed)
        with memory_named("stats_batches", settings.stats_batches, "batches"):
            return estimate_statistics(
                self.network,
                self.genotype,
                weights,
                images,
                dtype=settings.training.dtype,
            )

    def _accuracy(self, weights: Tree, statistics: Tree, data: LabelledImages) -> float:
        """Returns the share of images that the trained network puts into their class."""
        settings = self.settings
        size = min(settings.eval_batch or max(_PIXELS // self.network.image_size**2, 1), data.count)
        with memory_named("eval_batch", size, "images"):
            right = _is_right(self.network, self.genotype, size, settings.training.dtype, weights, statistics, data)
            return float(jnp.mean(right, dtype=jnp.float32))

    def _described(self, weights: Tree, statistics: Tree, shares: dict[str, float]) -> DerivedCheckpoint:
        return DerivedCheckpoint(
            network=self.network,
            code=format_code(code_of(self.genotype)),
            normalisation=self.splits.normalisation,
            class_names=self.splits.class_names,
            data=self.splits.record,
            source=f"hadas dnas retrain on {settings_name(self.settings.data.dataset)}",
            details={"settings": self.settings.flat(), **shares},
            weights=weights,
            statistics=statistics,
        )


def _count_macs(network: DartsNetwork, genotype: Genotype) -> int:
    """Counts the multiply-accumulates of convolutions and classifier for one image."""
    rows = network_rows(network)
    layers = np.asarray(rows.layer_counts(darts_counts(jnp.asarray(code_of(genotype)))), np.float64)
    return round(float(np.sum((layers * rows.macs)[rows.is_weighted])))


def write_result(path: Path, result: RetrainResult, *, network: DartsNetwork, settings: dict[str, Any]) -> None:
    """Writes accuracies, sizes, genotype, settings and versions as JSON."""
    content = {
        "form": FORM,
        **asdict(result),
        "genotype": str(Genotype.of(parse_code(result.code))),
        "network": asdict(network),
        "settings": settings,
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_result(path: Path) -> RetrainResult:
    """Reads what `write_result` wrote.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(RetrainResult, read_json(path, FORM, what="the result of hadas dnas retrain"), path=path)


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
    found = read_genotype(path)
    if found.data is None:
        raise ValueError(
            f"genotype {source}: expected a search that says which images it used, got one of an earlier version, "
            f"which does not; search anew, or give its code instead: {shlex.quote(found.code)}"
        )
    return found.data


def _genotype(source: str) -> Genotype:
    try:
        return Genotype.of(read_architecture(source))
    except ValueError as error:
        raise ValueError(f"genotype {source}: {error}") from error
