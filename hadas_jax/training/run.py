"""A training run: data, supernet and exit heads, trained anew, fine-tuned or taken from a trained supernet, and judged.

Training keeps checkpoints and resumes exactly; a diverging loss goes back to the last good one at a lower rate.
Shapes: N backbones, E exits.
"""

import csv
import dataclasses
import io
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.backend import memory_named
from hadas_jax.data import LabelledImages, SplitRecord, Splits, Stream, load
from hadas_jax.data.record import FEW
from hadas_jax.data.splits import random_batches
from hadas_jax.evaluation import POLICIES, Evaluator
from hadas_jax.evaluation.evaluator import of_each
from hadas_jax.evaluation.score_quality import PROBABILITIES, ScoreQuality, score_quality
from hadas_jax.runs.loop import Progress, Step
from hadas_jax.runs.names import SUPERNET
from hadas_jax.runs.workdir import WorkDir, write_text
from hadas_jax.settings import SupernetRunSettings
from hadas_jax.spaces import PUBLISHED_NAMES, Backbone, MBConvSpace, available_exits, load_space, published_in
from hadas_jax.supernet import Parameters, Tree, initialise
from hadas_jax.supernet.checkpoint import SupernetCheckpoint, load_supernet, rewrite_description, save_supernet
from hadas_jax.training.batches import Schedule, train_epochs, training_mesh
from hadas_jax.training.exits import exit_step
from hadas_jax.training.optimisers import init_state, paper_exit_optimiser, sgd
from hadas_jax.training.supernet import sandwich_step

EXITS = "exits.csv"
SMALL_IMAGES_FROM = 20  # pixels from which the default space is the larger one


def at_resolutions(space: MBConvSpace, resolutions: Sequence[int]) -> MBConvSpace:
    """Returns a space at some of its resolutions, at all if none are given.

    Raises:
        ValueError: The space does not have them.
    """
    wrong = [size for size in resolutions if size not in space.resolution]
    if wrong:
        known = ", ".join(map(str, space.resolution))
        raise ValueError(f"resolutions: expected some of {known} as space {space.name} has, got {wrong[0]}")
    chosen = tuple(size for size in space.resolution if size in resolutions) or space.resolution
    return dataclasses.replace(space, resolution=chosen)


def _named_backbone(name: str, space: MBConvSpace) -> Backbone:
    """Returns the backbone of a name; in a space of one resolution it runs at that.

    Raises:
        ValueError: An unknown name, or a backbone that the space does not have.
    """
    ends: dict[str, Callable[[], Backbone]] = {"largest": space.largest, "smallest": space.smallest}
    if name in ends:
        return ends[name]()
    if name not in PUBLISHED_NAMES:
        known = ", ".join((*ends, *PUBLISHED_NAMES))
        raise ValueError(f"exits_for: expected one of {known}, got {name!r}")
    try:
        return published_in(space, name)
    except ValueError as error:
        raise ValueError(f"exits_for {error}") from error


def settings_name(dataset: str) -> str:
    """Returns a data set's name without the folders of the user's machine."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}{colon}{Path(path).name}" if colon else dataset


@dataclass(frozen=True)
class ExitAccuracies:
    """Accuracy of one backbone along its depth.

    Attributes:
        backbone: Its name.
        blocks: Its own blocks that have an exit, from 0, in order.
        exits: Test accuracy of each of these exits, a share.
        final: Of the classifier.
        qualities: By score (`POLICIES`), what it is worth at each exit.
    """

    backbone: str
    blocks: tuple[int, ...]
    exits: tuple[float, ...]
    final: float
    qualities: dict[str, ScoreQuality] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves.

    Attributes:
        trained: The supernet, also in the work directory.
        accuracies: Of the largest and the smallest backbone, and of the one whose exits were trained, if one was.
    """

    trained: SupernetCheckpoint
    accuracies: tuple[ExitAccuracies, ...]


class TrainingRun:
    """Data and supernet of one run: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Settings of the run.
        fine_tune: Train the supernet of the checkpoint further, on any number of classes, and its exits in any case,
            instead of using what is trained in it as it is.
        exits_for: Name of the backbone whose exits are trained, as the paper does; None: all backbones share theirs.
        splits: The data of `settings`, where they are loaded already.

    Raises:
        ValueError: An unknown data set or space, or a supernet, resolutions or images that do not fit.
    """

    def __init__(
        self,
        settings: SupernetRunSettings,
        *,
        fine_tune: bool = True,
        exits_for: str | None = None,
        splits: Splits | None = None,
    ) -> None:
        self.settings = settings
        checkpoint, training = settings.supernet.checkpoint, settings.training
        self.loaded = None if checkpoint is None else load_supernet(checkpoint)
        self._trains_supernet = self.loaded is None or (fine_tune and training.epochs > 0)
        self._trains_exits = fine_tune
        record = None if self.loaded is None else self.loaded.data
        self.splits = splits or load(settings.data, stream_seed=settings.seed, record=record)
        self._require_known_data()
        self.space = at_resolutions(self._space(), settings.supernet.resolutions)
        self._require_own_data()
        if self.loaded is not None and self.loaded.normalisation is not None:
            self.splits = self.splits.standardised_by(*self.loaded.normalisation)
        self.exits_backbone = None if exits_for is None else _named_backbone(exits_for, self.space)
        self.exits_for = exits_for
        keys = jax.random.split(jax.random.key(settings.seed), 7)
        self._init_key, self._order_key, self._train_key = keys[:3]
        self._exit_order_key, self._exit_key, self.population_key, self.search_key = keys[3:]
        self._schedule = Schedule.of(self.splits.train.count, batch=training.batch)
        if training.augmentation == "randaugment":
            _require_unit_range(self.splits.train, settings.data.dataset)
        self._mesh = training_mesh(self._schedule.batch, data_parallel=training.data_parallel)

    def _space(self) -> MBConvSpace:
        """Returns the space, adapted to the data or as the checkpoint has it.

        Raises:
            ValueError: An unknown space, or a supernet or images that do not fit each other.
        """
        splits, loaded, given = self.splits, self.loaded, self.settings.supernet.space
        if loaded is None:
            space = load_space(given or ("digits" if splits.image_size < SMALL_IMAGES_FROM else "small-images"))
            return space.adapt(in_channels=splits.channels, classes=splits.classes, image_size=splits.image_size)
        space, checkpoint = loaded.space, f"checkpoint {self.settings.supernet.checkpoint}"
        dataset = f"dataset {self.settings.data.dataset}"
        if given not in (None, space.name):
            raise ValueError(f"space {given}: expected {space.name} as {checkpoint} has, or leave it out")
        if space.in_channels != splits.channels:
            raise ValueError(
                f"{dataset}: expected images of {space.in_channels} channels as {checkpoint} takes, "
                f"got {splits.channels}"
            )
        if self._trains_supernet:
            return dataclasses.replace(space, classes=splits.classes)
        if not loaded.has_classifier:
            raise ValueError(
                f"{checkpoint}: expected a trained classifier, got a fresh one; {self._training} trains it"
            )
        if splits.classes > space.classes:
            raise ValueError(
                f"{dataset}: expected at most {space.classes} classes as {checkpoint} has, got {splits.classes}; "
                f"{self._training} trains it for them"
            )
        for number, (name, expected) in enumerate(
            zip(splits.class_names or (), loaded.class_names or (), strict=False)
        ):
            if name != expected:
                raise ValueError(
                    f"{dataset}: expected the classes of {checkpoint}, where class {number} is {expected!r}, got "
                    f"{name!r}; hadas train trains the supernet for others"
                )
        return space

    @property
    def _training(self) -> str:
        """The command that trains the run's checkpoint on its data."""
        checkpoint, dataset = self.settings.supernet.checkpoint, self.settings.data.dataset
        return shlex.join(["hadas", "train", "--checkpoint", str(checkpoint), "--dataset", dataset])

    def _require_known_data(self) -> None:
        """Refuses images that the checkpoint's weights have seen in another division, or before they changed."""
        dataset, loaded = self.settings.data.dataset, self.loaded
        if loaded is None:
            return
        checkpoint, known = f"checkpoint {self.settings.supernet.checkpoint}", loaded.data
        if known is None and "settings" in loaded.details:
            raise ValueError(
                f"{checkpoint}: expected a supernet that says which images trained it, got one of an earlier version, "
                "which does not; train it anew"
            )
        if known is None:
            self._add_note("which images trained the checkpoint is not known")
        elif self._comes_of(known):
            hint = f"use those as they were, or train on these without {checkpoint}"
            known.require(self.splits.record, dataset=dataset, owner=checkpoint, hint=hint)
        elif self._trains_supernet:
            evaluated = self.splits.evaluated_fingerprints
            seen = int(np.isin(evaluated, loaded.seen).sum())
            if seen:
                raise ValueError(
                    f"dataset {dataset}: expected images that {checkpoint} has not seen, but {seen:,} of its "
                    f"{len(evaluated):,} validation, calibration and test images trained it; leave them out"
                )
            self._add_note("other images than the checkpoint's, as far as their bytes tell")

    def _comes_of(self, known: SplitRecord) -> bool:
        """Whether the data are those of the checkpoint, or what has become of them."""
        if known.told_by == self.splits.record.told_by or self.loaded is None:
            return known.is_related(self.splits.record)
        # Files that became too many to be read, or few enough, share names and sizes.
        return bool(np.isin(self.splits.fingerprints, self.loaded.seen).mean() > FEW)

    def _require_own_data(self) -> None:
        """Refuses other images than the checkpoint's where its weights are taken as they are."""
        settings, loaded = self.settings, self.loaded
        if loaded is None or loaded.data is None or self._trains_supernet:
            return
        owner, hint = f"checkpoint {settings.supernet.checkpoint}", f"{self._training} trains it for these"
        loaded.data.require(self.splits.record, dataset=settings.data.dataset, owner=owner, hint=hint)

    def _add_note(self, note: str) -> None:
        self.splits = dataclasses.replace(self.splits, notes=(*self.splits.notes, note))

    def initial_parameters(self) -> Parameters:
        """Returns the supernet before this run's training: fresh, or loaded with whatever is fresh in it.

        Another number of classes than the checkpoint's makes classifiers fresh; exits for one backbone are fresh.
        """
        fresh = initialise(self.space, self._init_key)
        if self.loaded is None:
            return fresh
        params = self.loaded.params
        if self.space.classes != self.loaded.space.classes:
            params = jax.tree_util.tree_map_with_path(
                lambda path, new, old: new if any(getattr(key, "key", None) == "classifier" for key in path) else old,
                fresh,
                params,
            )
        return params if self.exits_backbone is None else dataclasses.replace(params, heads=fresh.heads)

    @property
    def trained_exits(self) -> tuple[int, ...]:
        """Block positions whose exit heads are trained after this run's training."""
        if self.exits_backbone is None:
            return tuple(range(self.space.first_exit, self.space.positions))
        found = np.flatnonzero(np.asarray(available_exits(self.space, self.exits_backbone)))
        return tuple((found + self.space.first_exit).tolist())

    @property
    def uses_checkpoint_as_it_is(self) -> bool:
        """Whether the supernet of the checkpoint needs no training."""
        loaded = self.loaded
        shares_all = loaded and loaded.exits_of is None and len(loaded.trained_exits) == loaded.space.num_exits
        return bool(shares_all) and not self._trains_exits

    def train(self, workdir: WorkDir, progress: Progress) -> Parameters:
        """Trains what is not trained yet: the supernet, then its exit heads.

        Raises:
            ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        params = self.initial_parameters()
        if self._trains_supernet:
            params = self.train_supernet(params, workdir, progress)
        if self.uses_checkpoint_as_it_is:
            return params
        return self.train_exits(params, workdir, progress)

    def train_supernet(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Parameters:
        """Trains the shared weights by the sandwich rule."""
        training = self.settings.training
        optimiser = sgd(
            optax.cosine_decay_schedule(training.learning_rate, training.epochs * self._schedule.steps_per_epoch),
            weight_decay=training.weight_decay,
            clip=optax.clip(1.0),
        )
        weights = self._trained(
            "supernet",
            sandwich_step(self.space, optimiser, settings=training),
            params.backbone,
            optimiser,
            epochs=training.epochs,
            order_key=self._order_key,
            key=self._train_key,
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, backbone=weights)

    def train_exits(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Parameters:
        """Trains exit heads, the backbone's weights frozen: shared ones, or those of one backbone."""
        training = self.settings.training
        steps = training.exit_epochs * self._schedule.steps_per_epoch
        optimiser = sgd(
            optax.warmup_cosine_decay_schedule(0.0, training.exit_learning_rate, steps // 6, steps),
            weight_decay=training.weight_decay,
            clip=optax.clip_by_global_norm(1.0),
        )
        if self.exits_backbone is not None:
            optimiser = paper_exit_optimiser(
                self._schedule.steps_per_epoch,
                epochs=training.exit_epochs,
                warmup_epochs=training.exit_epochs // 6,
                learning_rate=training.exit_learning_rate,
                weight_decay=training.weight_decay,
            )
        step = exit_step(
            self.space,
            optimiser,
            sampled=training.sampled,
            backbone=self.exits_backbone,
            dtype=training.dtype,
        )
        weights = self._trained(
            "exits",
            step,
            params.heads,
            optimiser,
            epochs=training.exit_epochs,
            order_key=self._exit_order_key,
            key=self._exit_key,
            shared=(params.backbone,),
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, heads=weights)

    def _trained(
        self, name: str, step: Step, weights: Tree, optimiser: optax.GradientTransformation, **training: Any
    ) -> Tree:
        """Trains weights as a stage of the run."""
        state = train_epochs(
            name,
            step,
            init_state(weights, optimiser),
            self.splits.train,
            schedule=self._schedule,
            augmentation=self.settings.training.augmentation,
            mesh=self._mesh,
            debug=self.settings.training.debug,
            **training,
        )
        return state.weights

    def execute(self, workdir: WorkDir, progress: Progress) -> TrainResult:
        """Trains the supernet and its exits, judges them on the test split, and writes all into the work directory.

        Raises:
            ValueError: As `train`.
        """
        params = self.train(workdir, progress)
        trained = self.described(params, {"settings": self.settings.flat()})
        save_supernet(workdir.path / SUPERNET, trained, overwrite=True)  # before judging, which may run out of memory
        progress.stage("test", 1)
        genomes = {"largest": self.space.largest_genome, "smallest": self.space.smallest_genome}
        if self.exits_for is not None and self.exits_backbone is not None:
            genomes[self.exits_for] = self.space.encode(self.exits_backbone)
        found = self.along_depth(params, genomes)
        progress.update(1, {"largest_accuracy": found[0].final, "smallest_accuracy": found[1].final})
        shares = {each.backbone: each.final for each in found}
        trained = dataclasses.replace(trained, details=trained.details | {"test_accuracy": shares})
        rewrite_description(workdir.path / SUPERNET, trained)
        write_text(workdir.path / EXITS, _as_csv(found))
        return TrainResult(trained=trained, accuracies=found)

    def along_depth(self, params: Parameters, genomes: dict[str, np.ndarray]) -> tuple[ExitAccuracies, ...]:
        """Judges backbones on the test split, at the exits that they have and that the run trains.

        Args:
            params: Weights to judge by.
            genomes: int32[G] by name.
        """
        space, found = self.space, []
        judged = of_each(self.evaluator(params)(np.stack(list(genomes.values())), self.splits.test))
        trained = np.isin(np.arange(space.first_exit, space.positions), self.trained_exits)
        for (name, genome), outcomes in zip(genomes.items(), judged, strict=True):
            shares = np.asarray(outcomes.correct, np.float64).mean(axis=-1)
            backbone = space.decode(jnp.asarray(genome))
            available = np.asarray(available_exits(space, backbone))
            own = int(np.sum(np.asarray(backbone.depth)))
            blocks = own - int(available.sum()) + np.cumsum(available) - 1  # exits follow all blocks from the first on
            chosen = available & trained
            exits = tuple(shares[:-1][chosen].tolist())
            rows = np.flatnonzero(chosen)
            every = {policy: score_quality(outcomes, policy) for policy in POLICIES}
            own_exits = {
                policy: ScoreQuality(*(tuple(values[row] for row in rows) for values in quality))
                for policy, quality in every.items()
            }
            found.append(ExitAccuracies(name, tuple(blocks[chosen].tolist()), exits, float(shares[-1]), own_exits))
        return tuple(found)

    def evaluator(self, params: Parameters, *, space: MBConvSpace | None = None) -> Evaluator:
        """Returns what gives the outcomes of backbones int32[N, G] on a split; `space` is the run's with formats."""
        evaluation, dtype = self.settings.evaluation, self.settings.training.dtype
        with memory_named("stats_batches", evaluation.stats_batches, "batches"):
            return Evaluator(space or self.space, params, self.calibration_batches(), evaluation, dtype=dtype)

    def accuracies(self, params: Parameters, genomes: np.ndarray, data: LabelledImages) -> np.ndarray:
        """Returns float64[N, E + 1]: the accuracy of backbones int32[N, G] at every exit and, last, the classifier."""
        return np.asarray(self.evaluator(params)(genomes, data).correct, np.float64).mean(axis=-1)

    def calibration_batches(self) -> jax.Array:
        """Random training images for batch-norm statistics, float32[batches, B, H, W, channels]."""
        batches = min(self.settings.evaluation.stats_batches, self._schedule.steps_per_epoch)
        return random_batches(self.splits.train, batches, self._schedule.batch, seed=self.settings.seed)

    def described(
        self, params: Parameters, details: dict[str, Any], *, command: str = "hadas train"
    ) -> SupernetCheckpoint:
        """Returns the trained supernet, by this command, with what is needed to use it elsewhere."""
        splits, before = self.splits, self.loaded
        return SupernetCheckpoint(
            space=self.space,
            params=params,
            trained_exits=self.trained_exits,
            exits_of=self.exits_for,
            normalisation=splits.normalisation,
            class_names=splits.class_names if self._trains_supernet or before is None else before.class_names,
            data=splits.record,
            seen=splits.fingerprints if before is None else np.union1d(splits.fingerprints, before.seen),
            source=f"{command} on {settings_name(self.settings.data.dataset)}"
            + (f", from: {before.source}" if before else ""),
            details=details,
        )


def _require_unit_range(train: LabelledImages | Stream, dataset: str) -> None:
    """Raises for floating images that RandAugment, which works on values from 0 to 1, would cut off."""
    if isinstance(train, Stream) or train.images.dtype == jnp.uint8:
        return
    lowest, highest = float(jnp.min(train.images)), float(jnp.max(train.images))
    if lowest < 0 or highest > 1:
        raise ValueError(
            f"augmentation randaugment: expected images of bytes or of values from 0 to 1, got {lowest:g} to "
            f"{highest:g} in {dataset}"
        )


def _as_csv(found: tuple[ExitAccuracies, ...]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    names = [*(f"auroc_{policy}" for policy in POLICIES), *(f"ece_{policy}" for policy in PROBABILITIES)]
    rows.writerow(["backbone", "block", "test_accuracy", *names])
    for each in found:
        columns = [each.qualities[policy].aurocs for policy in POLICIES]
        columns += [each.qualities[policy].eces for policy in PROBABILITIES]
        for block, accuracy, *values in zip(each.blocks, each.exits, *columns, strict=True):
            rows.writerow([each.backbone, block, accuracy, *values])
        rows.writerow([each.backbone, "final", each.final, *[None] * len(names)])
    return text.getvalue()
