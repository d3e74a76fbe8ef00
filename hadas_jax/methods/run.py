"""A whole HADAS run in stages: data, supernet, exit heads, search, thresholds, report.

Training and search keep checkpoints and resume exactly; what follows is computed anew from them. The test
split is read once, at the end, for designs that were chosen without it.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.checkpoints import Checkpoints
from hadas_jax.data import LabelledImages, Splits, load_dataset
from hadas_jax.evaluation import Outcomes, population_outcomes
from hadas_jax.loop import Step
from hadas_jax.loop import run as run_loop
from hadas_jax.methods.deploy import Deployment, pool_of
from hadas_jax.methods.hadas import Archive, Hadas, Problem
from hadas_jax.methods.results import Result, write_result
from hadas_jax.methods.settings import Settings
from hadas_jax.spaces import MBConvSpace, load_space
from hadas_jax.spaces.exits import MAX_EXITS
from hadas_jax.supernet import Parameters, initialise
from hadas_jax.training import exit_step, init_state, sandwich_step, sgd
from hadas_jax.workdir import CHECKPOINTS, WorkDir, versions
from hw_models import Device

_CALIBRATION_BATCHES = 4


class Progress(Protocol):
    """Follows a run."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """So many steps of the stage are done."""


class Run:
    """One HADAS run: reads its inputs at once, so that mistakes show before any work.

    Args:
      settings: of the run.

    Raises:
      ValueError: an unknown data set, device or space, or files that do not fit.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device: Device = settings.load_device()
        space = load_space(settings.space)
        self.splits: Splits = load_dataset(settings.dataset, seed=settings.seed)
        _, size, _, channels = self.splits.train.images.shape
        self.space: MBConvSpace = space.adapt(in_channels=channels, classes=self.splits.classes, image_size=size)
        if len(self.space.resolution) > 1 or self.space.num_exits > MAX_EXITS:
            raise ValueError(
                f"space {space.name}: expected one resolution and at most {MAX_EXITS} exit positions for the "
                f"exact inner search, got {len(self.space.resolution)} and {self.space.num_exits}; "
                "use --space digits"
            )
        if self.space.resolution[0] != size:
            raise ValueError(f"space {space.name}: expected images of {self.space.resolution[0]}, got {size} pixels")
        keys = jax.random.split(jax.random.key(settings.seed), 7)
        self._init_key, self._order_key, self._train_key = keys[:3]
        self._exit_order_key, self._exit_key, self._population_key, self._search_key = keys[3:]
        images = len(self.splits.train.labels)
        self._batch = min(settings.batch, images)
        self._steps_per_epoch = images // self._batch
        self._shift = size / 8

    def execute(self, workdir: WorkDir, progress: Progress) -> Result:
        """Runs all stages that are not done yet, and writes the result into the work directory.

        Raises:
          ValueError: a loss is no longer finite, or a checkpoint cannot be used.
        """
        params = initialise(self.space, self._init_key)
        params = self.train_supernet(params, workdir, progress)
        params = self.train_exits(params, workdir, progress)
        archive = self.search(params, workdir, progress)
        result = self.deploy(params, archive, progress)
        context = {"settings": dataclasses.asdict(self.settings), "versions": versions()}
        write_result(result, workdir.path, context=context)
        return result

    def train_supernet(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Parameters:
        """Trains the shared weights by the sandwich rule."""
        settings = self.settings
        steps = settings.epochs * self._steps_per_epoch
        optimiser = sgd(
            optax.cosine_decay_schedule(settings.learning_rate, steps),
            weight_decay=1e-5,
            clip=optax.clip(1.0),
        )
        step = sandwich_step(self.space, optimiser, batch=self._batch, order_key=self._order_key, shift=self._shift)
        state = self._loop(
            "supernet",
            step,
            init_state(params.backbone, optimiser),
            data=self.splits.train,
            key=self._train_key,
            chunks=settings.epochs,
            chunk=self._steps_per_epoch,
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, backbone=state.weights)

    def train_exits(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Parameters:
        """Trains the shared exit heads, the backbone's weights frozen."""
        settings = self.settings
        steps = settings.exit_epochs * self._steps_per_epoch
        optimiser = sgd(
            optax.warmup_cosine_decay_schedule(0.0, settings.exit_learning_rate, steps // 6, steps),
            weight_decay=1e-5,
            clip=optax.clip_by_global_norm(1.0),
        )
        step = exit_step(
            self.space,
            optimiser,
            batch=self._batch,
            order_key=self._exit_order_key,
            shift=self._shift,
        )
        state = self._loop(
            "exits",
            step,
            init_state(params.heads, optimiser),
            data=(self.splits.train, params.backbone),
            key=self._exit_key,
            chunks=settings.exit_epochs,
            chunk=self._steps_per_epoch,
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, heads=state.weights)

    def search(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Archive:
        """Runs the nested search."""
        settings = self.settings
        engines = Hadas(
            space=self.space,
            population=settings.population,
            generations=settings.generations,
            elites=self._elites,
            samples=len(self.splits.validation.labels),
            group=settings.group,
        )
        problem = Problem(
            params=params,
            validation=self.splits.validation,
            calibration=self._calibration_batches(),
            device=self.device,
        )
        state = self._loop(
            "search",
            engines.generation,
            engines.init(self._population_key),
            data=problem,
            key=self._search_key,
            chunks=settings.generations,
            chunk=1,
            workdir=workdir,
            progress=progress,
        )
        return state.archive

    def deploy(self, params: Parameters, archive: Archive, progress: Progress) -> Result:
        """Sets thresholds on the calibration split, chooses designs, and measures them on the test split."""
        settings, space = self.settings, self.space
        genomes = np.unique(
            np.concatenate([pool_of(archive), space.largest_genome[None], space.smallest_genome[None]]),
            axis=0,
        )
        calibration = self._calibration_batches()

        def evaluate(genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
            return _outcomes(space, params, genomes, data=data, calibration=calibration, group=settings.group)

        progress.stage("thresholds", 1)
        deployment = Deployment(
            space,
            self.device,
            genomes=genomes,
            splits=self.splits,
            policy=settings.policy,
            evaluate=evaluate,
        )
        chosen, levels = deployment.choices(settings.front_size)
        progress.update(1, {"backbones": float(len(genomes)), "designs": float(len(chosen))})
        progress.stage("test", 1)
        designs, measured = deployment.measure(chosen, levels)
        extremes = evaluate(np.stack([space.largest_genome, space.smallest_genome]), self.splits.test)
        largest, smallest = (float(np.mean(found.correct[-1])) for found in extremes)
        progress.update(1, {"largest_accuracy": largest, "smallest_accuracy": smallest})
        return Result(
            designs=designs,
            levels=measured,
            largest_test_accuracy=largest,
            smallest_test_accuracy=smallest,
            backbones=int(archive.size),
            candidates=self._candidates * settings.generations,
        )

    @property
    def _elites(self) -> int:
        return max(1, round(self.settings.elite_ratio * self.settings.population))

    @property
    def _candidates(self) -> int:
        """Dynamic versions that the inner engine judges in a generation."""
        points = np.prod([len(table) for table in _clock_tables(self.device)])
        return int(self._elites * 2**self.space.num_exits * points)

    def _calibration_batches(self) -> jax.Array:
        """Training images for batch-norm statistics, float32[batches, B, H, W, channels]."""
        batches = min(_CALIBRATION_BATCHES, self._steps_per_epoch)
        images = self.splits.train.images[: batches * self._batch]
        return images.reshape(batches, self._batch, *images.shape[1:])

    def _loop(
        self,
        name: str,
        step: Step,
        state: Any,
        *,
        data: Any,
        key: jax.Array,
        chunks: int,
        chunk: int,
        workdir: WorkDir,
        progress: Progress,
    ) -> Any:
        checkpoints = Checkpoints(workdir.path / CHECKPOINTS / name)
        done = checkpoints.newest() or 0
        workdir.drop_metrics(name, done)
        progress.stage(name, chunks * chunk)
        progress.update(done, {})
        searching = name == "search"

        def report(done: int, metrics: dict[str, np.ndarray]) -> None:
            # Losses and accuracies are means over the chunk, the search's figures the newest.
            found = {m: float(v[-1] if searching else np.mean(v)) for m, v in metrics.items()}
            if searching:
                found["candidates"] = float(self._candidates * done)
            workdir.add_metrics(name, done, found)
            progress.update(done, found)

        return run_loop(
            step,
            state,
            data=data,
            key=key,
            chunks=chunks,
            chunk=chunk,
            name=name,
            checkpoints=checkpoints,
            report=report,
        )


def _outcomes(
    space: MBConvSpace,
    params: Parameters,
    genomes: np.ndarray,
    *,
    data: LabelledImages,
    calibration: jax.Array,
    group: int,
) -> list[Outcomes]:
    """Judges backbones one group at a time, so that any number of them takes one compilation."""
    found = []
    for start in range(0, len(genomes), group):
        part = genomes[start : start + group]
        padded = np.concatenate([part, np.repeat(part[:1], group - len(part), axis=0)])
        outcomes = population_outcomes(
            space, params, jnp.asarray(padded), data=data, calibration=calibration, group=group
        )
        plain = jax.tree.map(np.asarray, outcomes)
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], plain) for i in range(len(part))]
    return found


def _clock_tables(device: Device) -> tuple[jax.Array, jax.Array, jax.Array]:
    return device.core_hz, device.memory_hz, device.host_hz
