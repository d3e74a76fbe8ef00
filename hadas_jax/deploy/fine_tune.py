"""Fine-tuning of a selected network as a run: training, thresholds set anew, and the report on the test split.

Training keeps checkpoints and resumes exactly. Thresholds are set on the calibration split alone, as a search sets
them; of the risk levels that all exits share, that one is taken which costs least energy on validation and calibration
samples without losing more accuracy than `TOLERANCE` against the classifier alone. The test split is read once.

What fine-tuning leaves: a network, what it did on the test split before and after, and the file that says so.

The step that trains a static network's exits and classifier together, and its statistics afterwards.

The loss is the classifier's cross-entropy plus each exit's loss of HADAS (arXiv 2212.03354) times its weight; the
gradients of all go through the shared layers. Batch norm normalises by the batch, and its statistics for inference
are estimated at the end, as those of every network here.
Shapes: e exits, B batch, N batches, H, W image, C channels.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.data import LabelledImages
from hadas_jax.data.splits import random_batches
from hadas_jax.deploy.architecture import Architecture, OnSplit
from hadas_jax.deploy.layers import Segment, Weights, is_folded, run_network
from hadas_jax.deploy.materialise import data_of, moved, network_at
from hadas_jax.deploy.operating_points import ExitCosts, exit_costs
from hadas_jax.deploy.static_network import StaticNetwork, on_split, outcomes_at_exits, predict, save_network
from hadas_jax.evaluation import Outcomes, calibrate_thresholds, scores
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS
from hadas_jax.methods.hadas.selection import TOLERANCE
from hadas_jax.runs.checkpoints import read_checkpoint, validated
from hadas_jax.runs.loop import Metrics, Progress, Step
from hadas_jax.runs.workdir import RESULT, WorkDir, write_text
from hadas_jax.settings import FineTuneSettings
from hadas_jax.supernet import Tree
from hadas_jax.training import TrainState, init_state, sgd
from hadas_jax.training.batches import Schedule, train_epochs
from hadas_jax.training.exits import exit_losses
from hadas_jax.training.optimisers import descend, global_norm
from hadas_jax.training.supernet import label_loss

FORM = "hadas_jax.fine-tune/1"


@dataclass(frozen=True)
class FineTuneResult:
    """What a network does on the test split, as result.json has it; the tuned network is beside it in `network/`.

    Attributes:
        before: The network as it was.
        after: The network with its new weights and thresholds.
    """

    before: OnSplit
    after: OnSplit


def write_result(path: Path, result: FineTuneResult, settings: FineTuneSettings) -> None:
    """Writes the figures of both networks, and the settings, as JSON."""
    figures = {name: getattr(result, name).model_dump(mode="json") for name in ("before", "after")}
    write_text(path, json.dumps({"form": FORM, **figures, "settings": settings.flat()}, indent=1) + "\n")


def read_result(path: Path) -> FineTuneResult:
    """Reads what `write_result` wrote.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(FineTuneResult, read_checkpoint(path, FORM, what="the result of hadas fine-tune"), path=path)


_NOT_TRAINED = ("mean", "var", "rows")


def trained_part(weights: Weights) -> Weights:
    """Returns the weights that training changes: all but batch-norm statistics and the rows of resizing."""
    parts = {
        layer: {name: leaf for name, leaf in own.items() if name not in _NOT_TRAINED} for layer, own in weights.items()
    }
    return {layer: own for layer, own in parts.items() if own}


def with_trained(weights: Weights, trained: Weights) -> Weights:
    """Returns weights with what was trained in place of theirs."""
    return {layer: {**own, **trained.get(layer, {})} for layer, own in weights.items()}


def joint_step(
    segments: tuple[Segment, ...],
    fixed: Weights,
    optimiser: optax.GradientTransformation,
    *,
    exit_weights: Sequence[float],
    label_smoothing: float = 0.0,
) -> Step:
    """Returns the step.

    Its state is a `TrainState` of `trained_part`; its data a batch, images float32[B, H, W, C] standardised and labels
    int32[B]. Metrics: loss of everything, accuracy of the classifier, mean accuracy of the exits, gradient's norm.

    Args:
        segments: Of the network, with batch norm.
        fixed: Weights of the network, for what is not trained.
        optimiser: Of what is trained.
        exit_weights: E factors.
        label_smoothing: Of the classifier's targets.
    """
    factors = jnp.asarray(exit_weights, jnp.float32)

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = data

        def loss(trained: Weights) -> tuple[jax.Array, jax.Array]:
            logits, confidence = run_network(segments, with_trained(fixed, trained), images, statistics={})
            own = jnp.mean(label_loss(logits[-1], labels, label_smoothing))
            exits = exit_losses(logits[:-1], confidence, jax.lax.stop_gradient(logits[-1]), labels)
            return own + jnp.sum(factors * exits), logits

        (total, logits), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        right = jnp.mean((jnp.argmax(logits, -1) == labels[None]).astype(jnp.float32), axis=1)
        metrics = {
            "loss": total,
            "accuracy": right[-1],
            "exit_accuracy": jnp.mean(right[:-1]) if len(factors) else right[-1],
            "gradient_norm": global_norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    return step


@partial(jax.jit, static_argnums=0)
def with_statistics(segments: tuple[Segment, ...], weights: Weights, batches: jax.Array) -> Weights:
    """Returns weights with batch-norm statistics estimated anew: the mean over batches of each batch's own.

    Args:
        segments: Of the network.
        weights: Of it.
        batches: float32[N, B, H, W, C], standardised training images.
    """

    def one(images: jax.Array) -> dict[str, Tree]:
        found: dict[str, Tree] = {}
        run_network(segments, weights, images, statistics=found)
        return found

    found = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.lax.map(one, batches))
    return {layer: {**own, **found.get(layer, {})} for layer, own in weights.items()}


NETWORK = "network"
_EXIT_WEIGHT, _STATS_BATCHES = 0.5, 8


class FineTuneRun:
    """One run: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Of the run.

    Raises:
        ValueError: The network or its data set is not there, or they do not fit.
    """

    def __init__(self, settings: FineTuneSettings) -> None:
        if not settings.network:
            raise ValueError("network: expected a directory of hadas materialise or an ARCH.json, got none")
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
                f"exit_weights: expected {exits}, one for each exit of {settings.network}, got "
                f"{len(self._exit_weights)}"
            )
        self.splits = data_of(self.network.architecture, dataset=settings.dataset, data_dir=settings.data_dir)
        self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed))
        self._schedule = Schedule.of(self.splits.train.count, batch=settings.batch)

    def execute(self, workdir: WorkDir, progress: Progress) -> FineTuneResult:
        """Trains, sets thresholds, judges, and writes network/ and result.json into the work directory.

        Raises:
            ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
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
        result = FineTuneResult(before=before, after=after)
        save_network(workdir.path / NETWORK, network, overwrite=True)
        write_result(workdir.path / RESULT, result, self.settings)
        return result

    def train(self, workdir: WorkDir, progress: Progress) -> Weights:
        """Trains from the network's weights, or goes on from a checkpoint; returns what was trained."""
        settings = self.settings
        optimiser = sgd(
            optax.cosine_decay_schedule(settings.learning_rate, settings.epochs * self._schedule.steps_per_epoch),
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
        state = train_epochs(
            "fine-tune",
            step,
            init_state(trained_part(self.network.weights), optimiser),
            self.splits.train,
            schedule=self._schedule,
            epochs=settings.epochs,
            key=self._train_key,
            order_key=self._order_key,
            augmentation=settings.augmentation,
            workdir=workdir,
            progress=progress,
        )
        return jax.tree.map(jnp.asarray, state.weights)

    def _with_statistics(self, weights: Weights) -> Weights:
        """Estimates batch norm's statistics on random training images, not augmented."""
        train = self.splits.train
        batches = min(_STATS_BATCHES, train.count // self._schedule.batch)
        images = random_batches(train, batches, self._schedule.batch, seed=self.settings.seed)
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
