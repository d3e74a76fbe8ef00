"""A whole HADAS run in stages: data, supernet, exit heads, search, thresholds, report.

Training and search keep checkpoints and resume exactly; what follows is computed anew from them. The test
split is read once, at the end, for designs that were chosen without it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
import optax

from hadas_jax.checkpoints import Checkpoints
from hadas_jax.data import LabelledImages, Splits, load_dataset
from hadas_jax.evaluation import Outcomes, pack_bits, population_outcomes
from hadas_jax.loop import Advance, scanned
from hadas_jax.loop import run as run_loop
from hadas_jax.methods.archive import Archive
from hadas_jax.methods.deploy import Deployment
from hadas_jax.methods.hadas import Engines, Hadas, HadasState
from hadas_jax.methods.inner import MAX_EXACT_EXITS
from hadas_jax.methods.pool import pool_of
from hadas_jax.methods.proposals import SurrogateProposer
from hadas_jax.methods.results import Result, write_result
from hadas_jax.methods.settings import Settings
from hadas_jax.methods.static import require_reachable
from hadas_jax.methods.warm_start import load_backbones
from hadas_jax.parallel import RowMap, share
from hadas_jax.search import load_strategy
from hadas_jax.spaces import MBConvSpace, load_space
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
        if len(self.space.resolution) > 1:
            raise ValueError(f"space {space.name}: expected one resolution, got {len(self.space.resolution)}")
        if settings.inner == "exact" and self.space.num_exits > MAX_EXACT_EXITS:
            raise ValueError(
                f"--inner exact: expected a space of at most {MAX_EXACT_EXITS} exit positions, got "
                f"{self.space.num_exits} of {space.name}; use --inner auto"
            )
        if self.space.resolution[0] != size:
            raise ValueError(f"space {space.name}: expected images of {self.space.resolution[0]}, got {size} pixels")
        self._check_strategy()
        self._warm_start = load_backbones(settings.warm_start, self.space)
        require_reachable(settings.limits, self.space, self.device)
        keys = jax.random.split(jax.random.key(settings.seed), 7)
        self._init_key, self._order_key, self._train_key = keys[:3]
        self._exit_order_key, self._exit_key, self._population_key, self._search_key = keys[3:]
        images = len(self.splits.train.labels)
        self._batch = min(settings.batch, images)
        self._steps_per_epoch = images // self._batch
        self._shift = size / 8

    def _check_strategy(self) -> None:
        settings, cardinalities = self.settings, tuple(int(c) for c in self.space.codec.cardinalities)
        try:
            strategy = load_strategy(
                settings.strategy, population_size=settings.population, cardinalities=cardinalities
            )
        except ValueError as error:
            raise ValueError(f"--strategy {settings.strategy} --population {settings.population}: {error}") from error
        if settings.surrogate and not strategy.accepts_any:
            raise ValueError(
                "--surrogate: expected a strategy that learns from any backbone (NSGA2, NSGA3 or RandomSearch), "
                f"got {settings.strategy}, which learns only from those it asked for"
            )

    def execute(self, workdir: WorkDir, progress: Progress) -> Result:
        """Runs all stages that are not done yet, and writes the result into the work directory.

        Raises:
          ValueError: a loss is no longer finite, or a checkpoint cannot be used.
        """
        params = self.train_supernet(self.initial_parameters(), workdir, progress)
        params = self.train_exits(params, workdir, progress)
        archive = self.search(params, workdir, progress)
        result = self.deploy(params, archive, progress)
        context = {"settings": dataclasses.asdict(self.settings), "versions": versions()}
        write_result(result, workdir.path, context=context)
        return result

    def initial_parameters(self) -> Parameters:
        """Returns the untrained supernet with its heads."""
        return initialise(self.space, self._init_key)

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
            scanned(step, data=self.splits.train, key=self._train_key, chunk=self._steps_per_epoch),
            init_state(params.backbone, optimiser),
            chunks=settings.epochs,
            chunk=self._steps_per_epoch,
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, backbone=share(state.weights))

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
        data = (self.splits.train, params.backbone)
        state = self._loop(
            "exits",
            scanned(step, data=data, key=self._exit_key, chunk=self._steps_per_epoch),
            init_state(params.heads, optimiser),
            chunks=settings.exit_epochs,
            chunk=self._steps_per_epoch,
            workdir=workdir,
            progress=progress,
        )
        return dataclasses.replace(params, heads=share(state.weights))

    def search(self, params: Parameters, workdir: WorkDir, progress: Progress) -> Archive:
        """Runs the nested search."""
        engines = self.engines(params)

        def advance(state: HadasState, done: int) -> tuple[HadasState, dict[str, Any]]:
            return engines.generation(state, jax.random.fold_in(self._search_key, done))

        state = self._loop(
            "search",
            advance,
            engines.init(self._population_key),
            chunks=self.settings.generations,
            chunk=1,
            workdir=workdir,
            progress=progress,
        )
        return state.archive

    def engines(self, params: Parameters) -> Hadas:
        """Returns the search engines over a trained supernet."""
        settings = self.settings
        judge = self._judge(params)
        return Hadas(
            space=self.space,
            device=self.device,
            evaluate=lambda genomes: np.asarray(pack_bits(judge(genomes, self.splits.validation).correct)),
            samples=len(self.splits.validation.labels),
            engines=Engines(
                population=settings.population,
                generations=settings.generations,
                elites=self._elites,
                strategy=settings.strategy,
                merit=settings.merit,
                gamma=settings.gamma,
                inner=settings.inner,
                limits=settings.limits,
            ),
            warm_start=self._warm_start,
            proposer=self._proposer,
        )

    @property
    def _elites(self) -> int:
        """With a surrogate all: it learns from merits, which cost far less than what the supernet answers."""
        settings = self.settings
        return settings.population if settings.surrogate else max(1, round(settings.elite_ratio * settings.population))

    @property
    def _proposer(self) -> SurrogateProposer | None:
        settings = self.settings
        if not settings.surrogate:
            return None
        return SurrogateProposer(
            space=self.space,
            device=self.device,
            samples=len(self.splits.validation.labels),
            limits=settings.limits,
            picks=settings.population,
            population=max(256, 2 * settings.population),
            gradient_seeds=settings.gradient_seeds,
        )

    def deploy(self, params: Parameters, archive: Archive, progress: Progress) -> Result:
        """Sets thresholds on the calibration split, chooses designs, and measures them on the test split."""
        settings, space = self.settings, self.space
        genomes = pool_of(archive, space, self.device, limits=settings.limits)
        judge = self._judge(params)

        def evaluate(genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
            found = judge(genomes, data)
            return [jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(len(genomes))]

        progress.stage("thresholds", 1)
        deployment = Deployment(
            space,
            self.device,
            genomes=genomes,
            splits=self.splits,
            policy=settings.policy,
            evaluate=evaluate,
            key=jax.random.fold_in(self._search_key, settings.generations),
            limits=settings.limits,
            per_exit_thresholds=settings.per_exit_thresholds,
        )
        choices = deployment.choices(settings.front_size)
        progress.update(1, {"backbones": float(len(genomes)), "designs": float(len(choices.designs))})
        progress.stage("test", 1)
        designs, measured = deployment.measure(choices)
        extremes = evaluate(np.stack([space.largest_genome, space.smallest_genome]), self.splits.test)
        largest, smallest = (float(np.mean(found.correct[-1])) for found in extremes)
        progress.update(1, {"largest_accuracy": largest, "smallest_accuracy": smallest})
        return Result(
            designs=designs,
            levels=measured,
            largest_test_accuracy=largest,
            smallest_test_accuracy=smallest,
            backbones=int(archive.size),
            candidates=int(np.sum(archive.versions, dtype=np.int64)),
            limits=settings.limits,
            within_limits=choices.within,
        )

    def _judge(self, params: Parameters) -> Callable[[np.ndarray, LabelledImages], Outcomes]:
        """Returns what gives the outcomes of backbones int32[N, G] on a split, spread over all devices."""
        group = self.settings.group

        def outcomes(genomes: jax.Array, shared: Any) -> Outcomes:
            params, data, calibration = shared
            return population_outcomes(self.space, params, genomes, data=data, calibration=calibration, group=group)

        spread = RowMap(outcomes, block=group)
        weights, images = spread.place((params, self._calibration_batches()))
        return lambda genomes, data: spread(genomes, (weights, data, images))

    def _calibration_batches(self) -> jax.Array:
        """Training images for batch-norm statistics, float32[batches, B, H, W, channels]."""
        batches = min(_CALIBRATION_BATCHES, self._steps_per_epoch)
        images = self.splits.train.images[: batches * self._batch]
        return images.reshape(batches, self._batch, *images.shape[1:])

    def _loop(
        self,
        name: str,
        advance: Advance,
        state: Any,
        *,
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
            workdir.add_metrics(name, done, found)
            progress.update(done, found)

        return run_loop(
            advance,
            state,
            chunks=chunks,
            chunk=chunk,
            name=name,
            checkpoints=checkpoints,
            report=report,
        )
