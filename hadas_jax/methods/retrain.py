"""A retraining run as a whole: the network of a genotype from fresh weights to its accuracy on the test split.

Training keeps checkpoints and resumes exactly; a diverging loss goes back to the last good one at a lower rate. Batch
norm's statistics are estimated on training images when it has ended.
"""

import dataclasses
import shlex
from functools import partial
from pathlib import Path

import jax

from hadas_jax.data import SplitRecord, Splits
from hadas_jax.evaluation.derived_accuracy import derived_accuracy
from hadas_jax.loop import Guard
from hadas_jax.memory import memory_named
from hadas_jax.methods.data_settings import load_splits, require_same
from hadas_jax.methods.eh_dnas.result import FORM as GENOTYPE_FORM
from hadas_jax.methods.eh_dnas.result import read_genotype
from hadas_jax.methods.retrain_result import RetrainResult, network_macs, write_result
from hadas_jax.methods.retrain_settings import RetrainSettings
from hadas_jax.methods.stages import Progress, run_stage
from hadas_jax.methods.training_inputs import random_batches, settings_name
from hadas_jax.spaces.architecture_text import read_architecture
from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.genotypes import Genotype, code_of, genotype_of
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts.derived import estimate_statistics
from hadas_jax.supernet.darts.skeleton import initialise_derived
from hadas_jax.trained_derived import TrainedDerived, save_derived
from hadas_jax.training import TrainState, init_state, lower_rate
from hadas_jax.training.feeding import Augmentation, fed, pace_of
from hadas_jax.training.retrain import RetrainOptions, retrain_augmentation, retrain_optimiser, retrain_step
from hadas_jax.workdir import DERIVED, RESULT, WorkDir
from hw_models.accelerator.network import DartsNetwork


class RetrainRun:
    """One retraining: reads its inputs at once, so that mistakes show before any work.

    Args:
      settings: of the run.

    Raises:
      ValueError: no genotype, an unknown data set, or a square to cut out that is larger than the images.
    """

    def __init__(self, settings: RetrainSettings) -> None:
        self.settings = settings
        self.genotype: Genotype = _genotype(settings.genotype)
        found_on = _data_of(settings.genotype)
        self.splits: Splits = load_splits(
            settings, seed=settings.seed, record=found_on, evaluation_images=settings.evaluation_images
        )
        if found_on is not None and found_on.is_related(self.splits.record):
            owner, hint = f"--genotype {settings.genotype}", "use those, or give its code instead of its file"
            require_same(self.splits, found_on, dataset=settings.dataset, owner=owner, hint=hint)
        if found_on is not None and settings.split_seed not in (None, found_on.seed):
            raise ValueError(
                f"--split-seed {settings.split_seed}: expected none beside --genotype {settings.genotype}, which was "
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
            raise ValueError(f"--cutout: expected at most the {size} pixels of the images, got {settings.cutout}")
        cutout = size // 2 if settings.cutout is None else settings.cutout
        self._augment = retrain_augmentation(settings.augmentation, cutout_size=cutout)
        self._init_key, self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed), 3)
        self._pace = pace_of(self.splits.train.count, batch=settings.batch)

    def execute(self, workdir: WorkDir, progress: Progress) -> RetrainResult:
        """Trains the network, judges it on validation and test images, and writes all into the work directory.

        Raises:
          ValueError: a loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        settings, weights = self.settings, self.train(workdir, progress)
        progress.stage("test", 1)
        statistics = self.statistics(weights)
        judge = partial(derived_accuracy, self.network, self.genotype, weights, statistics)
        shares = {
            name: judge(data, batch=settings.eval_batch, dtype=settings.dtype)
            for name, data in (
                ("validation_accuracy", self.splits.validation),
                ("test_accuracy", self.splits.test),
            )
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

    def _described(self, weights: Tree, statistics: Tree, shares: dict[str, float]) -> TrainedDerived:
        return TrainedDerived(
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
            f"--genotype {source}: expected a search that says which images it used, got one of an earlier version, "
            f"which does not; search anew, or give its code instead: {shlex.quote(found.code)}"
        )
    return found.data


def _genotype(source: str) -> Genotype:
    try:
        return genotype_of(read_architecture(source))
    except ValueError as error:
        raise ValueError(f"--genotype {source}: {error}") from error
