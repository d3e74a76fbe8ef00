"""Fine-tuning of a selected network as a run: training, thresholds set anew, and the report on the test split.

Training keeps checkpoints and resumes exactly. Thresholds are set on the calibration split alone, as a search sets
them; of the risk levels that all exits share, that one is taken which costs least energy on validation and calibration
samples without losing more accuracy than `TOLERANCE` against the classifier alone. The test split is read once.
"""

import dataclasses
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import Architecture, OnSplit
from hadas_jax.deploy.exit_costs import ExitCosts, exit_costs
from hadas_jax.deploy.fine_tune_result import FineTuneResult, write_result
from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.deploy.fold import is_folded
from hadas_jax.deploy.joint_training import joint_step, trained_part, with_statistics, with_trained
from hadas_jax.deploy.layers import Weights
from hadas_jax.deploy.source import data_of, moved, network_at
from hadas_jax.deploy.static_network import StaticNetwork, save_network
from hadas_jax.deploy.static_outcomes import on_split, outcomes_at_exits, predict
from hadas_jax.evaluation import Outcomes, calibrate_thresholds, scores
from hadas_jax.loop import Guard
from hadas_jax.memory import memory_named
from hadas_jax.methods.deploy import TOLERANCE
from hadas_jax.methods.plans import RISK_LEVELS
from hadas_jax.methods.stages import Progress, run_stage
from hadas_jax.methods.training_inputs import random_batches
from hadas_jax.training import TrainState, augmentation, init_state, lower_rate, sgd
from hadas_jax.training.feeding import Augmentation, fed, pace_of
from hadas_jax.workdir import RESULT, WorkDir

NETWORK = "network"
_EXIT_WEIGHT, _STATS_BATCHES = 0.5, 8


class FineTuneRun:
    """One run: reads its inputs at once, so that mistakes show before any work.

    Args:
      settings: of the run.

    Raises:
      ValueError: the network or its data set is not there, or they do not fit.
    """

    def __init__(self, settings: FineTuneSettings) -> None:
        if not settings.network:
            raise ValueError("NETWORK: expected a directory of hadas materialise or an ARCH.json, got none")
        self.settings = settings
        self.network = network_at(settings.network, dataset=settings.dataset, data_dir=settings.data_dir)
        self.network = dataclasses.replace(
            self.network,
            architecture=moved(self.network.architecture, dataset=settings.dataset, data_dir=settings.data_dir),
        )
        if is_folded(self.network.segments):
            raise ValueError(
                f"{settings.network}: expected a network with batch norm, got a folded one; hadas materialise without "
                "--fold-batch-norm"
            )
        exits = len(self.network.architecture.exits)
        self._exit_weights = settings.exit_weights or (_EXIT_WEIGHT,) * exits
        if len(self._exit_weights) != exits:
            raise ValueError(
                f"--exit-weights: expected {exits}, one for each exit of {settings.network}, got "
                f"{len(self._exit_weights)}"
            )
        self.splits = data_of(self.network.architecture, dataset=settings.dataset, data_dir=settings.data_dir)
        self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed))
        self._pace = pace_of(self.splits.train.count, batch=settings.batch)
        self._steps = settings.epochs * self._pace.steps_per_epoch

    def execute(self, workdir: WorkDir, progress: Progress) -> FineTuneResult:
        """Trains, sets thresholds, judges, and writes network/ and result.json into the work directory.

        Raises:
          ValueError: a loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        trained = self.train(workdir, progress)
        weights = self._with_statistics(with_trained(self.network.weights, trained))
        tuned = dataclasses.replace(self.network, weights=weights)
        architecture = self._with_thresholds(tuned)
        progress.stage("test", 1)
        before = self._judged(self.network, self.network.architecture, self.splits.test)
        after = self._judged(tuned, architecture, self.splits.test)
        progress.update(1, {"test_accuracy": after.deployable.accuracy})
        architecture = architecture.model_copy(update={"test": after})
        network = dataclasses.replace(tuned, architecture=architecture)
        result = FineTuneResult(before=before, after=after, network=network)
        save_network(workdir.path / NETWORK, result.network, overwrite=True)
        write_result(workdir.path / RESULT, result, self.settings)
        return result

    def train(self, workdir: WorkDir, progress: Progress) -> Weights:
        """Trains from the network's weights, or goes on from a checkpoint; returns what was trained."""
        settings = self.settings
        optimiser = sgd(
            optax.cosine_decay_schedule(settings.learning_rate, self._steps),
            weight_decay=settings.weight_decay,
            clip=optax.clip_by_global_norm(1.0),
        )
        step = joint_step(
            self.network.segments,
            self.network.weights,
            optimiser,
            exit_weights=self._exit_weights,
            label_smoothing=settings.label_smoothing,
        )
        advance = fed(
            step,
            self.splits.train,
            pace=self._pace,
            key=self._train_key,
            order_key=self._order_key,
            augmentation=Augmentation(settings.augmentation, augmentation(settings.augmentation)),
        )
        with memory_named("--batch", self._pace.batch, "images"):
            state: TrainState = run_stage(
                "fine-tune",
                advance,
                init_state(trained_part(self.network.weights), optimiser),
                chunks=self._steps // self._pace.chunk,
                chunk=self._pace.chunk,
                workdir=workdir,
                progress=progress,
                guard=Guard(lower=lower_rate),
            )
        return jax.tree.map(jnp.asarray, state.weights)

    def _with_statistics(self, weights: Weights) -> Weights:
        """Estimates batch norm's statistics on random training images, not augmented."""
        train = self.splits.train
        batches = min(_STATS_BATCHES, train.count // self._pace.batch)
        images = random_batches(train, batches, self._pace.batch, seed=self.settings.seed)
        return with_statistics(self.network.segments, weights, images)

    def _with_thresholds(self, network: StaticNetwork) -> Architecture:
        """The architecture with thresholds of these weights, and what they do on the selection samples."""
        given, splits = network.architecture, self.splits
        calibration = _outcomes(network, splits.calibration)
        levels = jnp.asarray(RISK_LEVELS, jnp.float32)
        found = calibrate_thresholds(scores(calibration, given.policy), calibration.correct, levels)
        selection = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b], axis=-1), _outcomes(network, splits.validation), calibration
        )
        plans = [given.model_copy(update={"thresholds": tuple(map(float, each))}) for each in np.asarray(found)]
        judged = [self._judged_by(plan, selection) for plan in plans]
        most = judged[0].static.error + TOLERANCE
        energies = [j.deployable.energy_j if j.deployable.error <= most else np.inf for j in judged]
        chosen = int(np.argmin(energies))
        return plans[chosen].model_copy(update={"selection": judged[chosen]})

    def _judged(self, network: StaticNetwork, architecture: Architecture, data: LabelledImages) -> OnSplit:
        return self._judged_by(architecture, _outcomes(network, data))

    def _judged_by(self, architecture: Architecture, outcomes: Outcomes) -> OnSplit:
        costs, clocks = self._costs, architecture.clocks_mhz
        return on_split(
            outcomes,
            thresholds=architecture.thresholds,
            policy=architecture.policy,
            costs=costs,
            point=costs.point((clocks.core, clocks.memory, clocks.host)),
            static=architecture.test.static,
            static_dvfs=architecture.test.static_dvfs,
        )

    @cached_property
    def _costs(self) -> ExitCosts:
        return exit_costs(self.network.architecture)


def _outcomes(network: StaticNetwork, data: LabelledImages) -> Outcomes:
    return outcomes_at_exits(*predict(network.segments, network.weights, data), np.asarray(data.labels))
