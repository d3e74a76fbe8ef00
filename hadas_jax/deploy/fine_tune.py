"""Fine-tuning of a selected network as a run: training, thresholds set anew, and the report on the test split.

Exits and classifier are trained together. The loss is the classifier's cross-entropy plus each exit's loss of HADAS
(arXiv 2212.03354) times its weight; the gradients of all go through the shared layers. Batch norm normalises by the
batch, and its statistics for inference are estimated at the end, as those of every network here.
A network in another number format than fp32 is trained as it runs: with batch norm folded in, weights and activations
rounded, and gradients that pass the rounding straight through (`hadas_jax.supernet.quantisation`); ranges stay.
Training keeps checkpoints and resumes exactly. Thresholds are set on the calibration split alone, as a search sets
them; of the risk levels that all exits share, that one is taken which costs least energy on validation and calibration
samples without losing more accuracy than `TOLERANCE` against the classifier alone. The test split is read once.
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
from hadas_jax.deploy.architecture import Architecture, SplitMetrics
from hadas_jax.deploy.given import GivenSegments
from hadas_jax.deploy.layers import RANGE, STATISTICS, Segment, Weights, run_network
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.static_network import StaticNetwork, evaluate, outcomes_at_exits, save_network
from hadas_jax.evaluation import Outcomes, calibrate_thresholds, scores
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS
from hadas_jax.methods.hadas.selection import TOLERANCE
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.loop import Metrics, Progress, Step
from hadas_jax.runs.names import RESULT
from hadas_jax.runs.workdir import WorkDir, write_text
from hadas_jax.settings import FineTuneSettings
from hadas_jax.supernet import Tree
from hadas_jax.training import Schedule, TrainState, exit_losses, init_state, sgd, train_epochs, training_mesh
from hadas_jax.training.optimisers import descend
from hadas_jax.training.supernet import label_loss
from hw_models import NumberFormat

NETWORK = "network"  # the folder of the result in the work directory
_FORM = "hadas_jax.fine-tune/1"
_EXIT_WEIGHT, _STATS_BATCHES = 0.5, 8


@dataclass(frozen=True)
class FineTuneResult:
    """What a network does on the test split, as result.json has it; the tuned network is beside it in `network/`.

    Attributes:
        before: What it did before fine-tuning.
        after: What it does with its new weights and thresholds.
    """

    before: SplitMetrics
    after: SplitMetrics


def read_result(path: Path) -> FineTuneResult:
    """Reads the result.json of a fine-tuning run.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(FineTuneResult, read_json(path, _FORM, what="the result of hadas fine-tune"), path=path)


class FineTuneRun:
    """One run: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: The settings of the run.

    Attributes:
        network: The network as it is given.
        splits: The data of its search.

    Raises:
        ValueError: The network or its data set is not there, or they do not fit.
    """

    def __init__(self, settings: FineTuneSettings) -> None:
        if not settings.network:
            raise ValueError("network: expected a directory of hadas materialise or an ARCH.json, got none")
        self.settings = settings
        network = network_at(settings.network, dataset=settings.dataset, data_dir=settings.data_dir)
        if isinstance(network, GivenSegments):
            raise ValueError(
                f"{settings.network}: expected a network of a supernet, got a given one, whose weights stay as they are"
            )
        self._format = network.architecture.number_format
        self.network = network if self._format == NumberFormat.FP32 else network.folded()
        self.network.require_finite_ranges()
        if self._format == NumberFormat.FP32 and not any(each.has_batch_norm for each in network.segments):
            raise ValueError(
                f"{settings.network}: expected a network with batch norm, got a folded one; hadas materialise without "
                "fold_batch_norm writes one"
            )
        exits = len(self.network.architecture.exits)
        self._exit_weights = settings.exit_weights or (_EXIT_WEIGHT,) * exits
        if len(self._exit_weights) != exits:
            raise ValueError(
                f"exit_weights: expected {exits}, one for each exit of {settings.network}, got "
                f"{len(self._exit_weights)}"
            )
        self.splits = data_of(self.network.architecture)
        self._order_key, self._train_key = jax.random.split(jax.random.key(settings.seed))
        self._schedule = Schedule.of(self.splits.train.count, batch=settings.batch)
        self._mesh = training_mesh(self._schedule.batch, data_parallel=settings.data_parallel)

    def execute(self, workdir: WorkDir, progress: Progress) -> FineTuneResult:
        """Trains, sets thresholds, evaluates, and writes network/ and result.json into the work directory.

        Raises:
            ValueError: A loss stays infinite or NaN, a checkpoint cannot be used, or memory does not suffice.
        """
        weights = self._finished(self.train(workdir, progress))
        tuned = dataclasses.replace(self.network, weights=weights)
        architecture = self._with_thresholds(tuned)
        progress.stage("test", 1)
        before = self._evaluate(self.network.architecture, _outcomes(self.network, self.splits.test))
        after = self._evaluate(architecture, _outcomes(tuned, self.splits.test))
        progress.update(1, {"test_accuracy": after.deployable.accuracy})
        network = dataclasses.replace(tuned, architecture=architecture.model_copy(update={"test": after}))
        result = FineTuneResult(before=before, after=after)
        save_network(workdir.path / NETWORK, network, overwrite=True)
        metrics = {name: getattr(result, name).model_dump(mode="json") for name in ("before", "after")}
        content = {"form": _FORM, **metrics, "settings": self.settings.flat()}
        write_text(workdir.path / RESULT, json.dumps(content, indent=1) + "\n")
        return result

    def _finished(self, trained: Weights) -> Weights:
        """All weights after training, with batch-norm statistics where there is batch norm."""
        if self._format != NumberFormat.FP32:
            return _updated(self.network.weights, trained)
        train = self.splits.train
        batches = min(_STATS_BATCHES, train.count // self._schedule.batch)
        images = random_batches(train, batches, self._schedule.batch, seed=self.settings.seed)
        return with_statistics(self.network.segments, self.network.weights, trained, images)

    def train(self, workdir: WorkDir, progress: Progress) -> Weights:
        """Trains from the network's weights, or goes on from a checkpoint; returns what was trained."""
        settings = self.settings
        optimiser = sgd(
            optax.cosine_decay_schedule(settings.learning_rate, settings.epochs * self._schedule.steps_per_epoch),
            weight_decay=settings.weight_decay,
            clip=optax.clip_by_global_norm(1.0),
        )
        state, step = joint_training(
            self.network.segments,
            self.network.weights,
            optimiser,
            exit_weights=self._exit_weights,
            label_smoothing=settings.label_smoothing,
            number_format=self._format,
        )
        state = train_epochs(
            "fine-tune",
            step,
            state,
            self.splits.train,
            schedule=self._schedule,
            epochs=settings.epochs,
            key=self._train_key,
            order_key=self._order_key,
            augmentation=settings.augmentation,
            mesh=self._mesh,
            workdir=workdir,
            progress=progress,
        )
        return state.weights

    def _with_thresholds(self, network: StaticNetwork) -> Architecture:
        """The architecture with thresholds of these weights, and what they do on the selection samples."""
        given, splits = network.architecture, self.splits
        calibration = _outcomes(network, splits.calibration)
        levels = jnp.asarray(RISK_LEVELS, jnp.float32)
        thresholds = calibrate_thresholds(scores(calibration, given.policy), calibration.correct, levels)
        selection = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b], axis=-1), _outcomes(network, splits.validation), calibration
        )
        tuned = [given.model_copy(update={"thresholds": tuple(map(float, each))}) for each in np.asarray(thresholds)]
        metrics = [self._evaluate(architecture, selection) for architecture in tuned]
        most = metrics[0].static.error + TOLERANCE
        energies = [each.deployable.energy_j if each.deployable.error <= most else np.inf for each in metrics]
        chosen = int(np.argmin(energies))
        return tuned[chosen].model_copy(update={"selection": metrics[chosen]})

    def _evaluate(self, architecture: Architecture, outcomes: Outcomes) -> SplitMetrics:
        return evaluate(architecture, outcomes, costs=self._costs)

    @cached_property
    def _costs(self) -> ExitCosts:
        return ExitCosts.of(self.network.architecture)


def _outcomes(network: StaticNetwork, data: LabelledImages) -> Outcomes:
    return outcomes_at_exits(*network.predict(data), np.asarray(data.labels))


def joint_training(
    segments: tuple[Segment, ...],
    weights: Weights,
    optimiser: optax.GradientTransformation,
    *,
    exit_weights: Sequence[float],
    label_smoothing: float = 0.0,
    number_format: NumberFormat = NumberFormat.FP32,
) -> tuple[TrainState, Step]:
    """Returns the first state and the step that train exits and classifier together.

    The state holds the weights that training changes: all but batch-norm statistics, ranges and the rows of resizing.
    The data of a step is a batch, images float32[B, H, W, C] standardised and labels int32[B]. Metrics: total loss,
    accuracy of the classifier, mean accuracy of the exits, gradient's norm.

    Args:
        segments: The segments of the network, with batch norm, or in another format than fp32 without.
        weights: The weights of the network.
        optimiser: The optimiser of what is trained.
        exit_weights: The weight of each exit's loss, e factors.
        label_smoothing: The label smoothing of the classifier's targets.
        number_format: What the network runs in.
    """
    factors = jnp.asarray(exit_weights, jnp.float32)

    def step(state: TrainState, key: jax.Array, data: tuple[jax.Array, jax.Array]) -> tuple[TrainState, Metrics]:
        images, labels = data

        def loss(trained: Weights) -> tuple[jax.Array, jax.Array]:
            current = _updated(weights, trained)
            logits, confidence = run_network(segments, current, images, statistics={}, number_format=number_format)
            classifier = jnp.mean(label_loss(logits[-1], labels, label_smoothing))
            exits = exit_losses(logits[:-1], confidence, jax.lax.stop_gradient(logits[-1]), labels)
            return classifier + jnp.sum(factors * exits), logits

        (total, logits), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        right = jnp.mean((jnp.argmax(logits, -1) == labels[None]).astype(jnp.float32), axis=1)
        metrics = {
            "loss": total,
            "accuracy": right[-1],
            "exit_accuracy": jnp.mean(right[:-1]) if len(factors) else right[-1],
            "gradient_norm": optax.tree.norm(gradients),
        }
        return descend(state, gradients, optimiser), metrics

    fixed = (*STATISTICS, RANGE, "rows")
    trained = {layer: {n: leaf for n, leaf in leaves.items() if n not in fixed} for layer, leaves in weights.items()}
    return init_state({layer: leaves for layer, leaves in trained.items() if leaves}, optimiser), step


@partial(jax.jit, static_argnums=0)
def with_statistics(segments: tuple[Segment, ...], weights: Weights, trained: Weights, batches: jax.Array) -> Weights:
    """Returns trained weights among the others, with batch-norm statistics: the mean over batches of each one's own.

    Args:
        segments: The segments of the network.
        weights: The weights of the network before training.
        trained: Those that training has changed.
        batches: Standardised training images, float32[N, B, H, W, C].
    """
    changed = _updated(weights, trained)

    def of_batch(images: jax.Array) -> dict[str, Tree]:
        statistics: dict[str, Tree] = {}
        run_network(segments, changed, images, statistics=statistics)
        return statistics

    means = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.lax.map(of_batch, batches))
    return _updated(changed, means)


def _updated(weights: Weights, changes: Weights) -> Weights:
    """Returns weights with some of their arrays replaced."""
    return {layer: {**leaves, **changes.get(layer, {})} for layer, leaves in weights.items()}
