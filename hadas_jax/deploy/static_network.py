"""A static network: read and written, run on a split, and evaluated with its exits.

On disk it is a directory with `network.json` and `weights.npz` beside its `architecture.json`.
Shapes: e exits of the network, N samples, K classes.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pydantic

from hadas_jax.backend import is_first
from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import Architecture, SplitMetrics, read_architecture, write_architecture
from hadas_jax.deploy.layers import RANGE, Segment, Weights, fold_batch_norm, run_network
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.evaluation import NO_DIFFERENCE, Outcomes, accuracy_difference, scores
from hadas_jax.evaluation.evaluator import outcomes_of_logits
from hadas_jax.evaluation.score_quality import score_quality
from hadas_jax.methods.hadas.results import Percentiles, Performance
from hadas_jax.runs.checkpoints import WEIGHTS, output_directory, read_json, read_weights, validated, write_described
from hadas_jax.runs.names import ARCHITECTURE
from hw_models import NumberFormat
from hw_models.files import whole_folder

_FORM = "hadas_jax.network/1"
_NETWORK = "network.json"
NETWORK_FILES = (_NETWORK, WEIGHTS, ARCHITECTURE)


@dataclass(frozen=True)
class StaticNetwork:
    """A network of its own size, with what is needed to use it.

    Attributes:
        architecture: What it was selected as; its thresholds are those of this network.
        segments: One for each exit, and last for the classifier.
        weights: The weights of their layers.
        image_size: Height and width of the images that it takes.
    """

    architecture: Architecture
    segments: tuple[Segment, ...]
    weights: Weights
    image_size: int

    def folded(self) -> "StaticNetwork":
        """Returns this network with batch norm folded into the layers before it."""
        segments, weights = fold_batch_norm(self.segments, self.weights)
        return dataclasses.replace(self, segments=segments, weights=weights)

    def require_finite_ranges(self) -> None:
        """Refuses a network in int8 that does not have, for all that it stores, ranges that are finite.

        Raises:
            ValueError: As said.
        """
        if self.architecture.number_format != NumberFormat.INT8:
            return
        ranges = {name: np.asarray(own[RANGE]) for name, own in self.weights.items() if RANGE in own}
        if not ranges:
            raise ValueError(
                "ranges: expected those of the activations of a network in int8, got none; hadas materialise keeps them"
            )
        for name, (low, high) in ranges.items():
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise ValueError(f"range of {name}: expected two finite numbers that rise, got {low:g} and {high:g}")

    def predict(self, data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        """Runs this network on a split in its number format, see the function `predict`."""
        return predict(self.segments, self.weights, data, number_format=self.architecture.number_format)

    def write(self, folder: Path) -> None:
        """Writes the files of this network, `NETWORK_FILES`, into a folder that has none of them."""
        write_architecture(folder / ARCHITECTURE, self.architecture)
        segments = [dataclasses.asdict(segment) for segment in self.segments]
        content = {"form": _FORM, "image_size": self.image_size, "segments": segments}
        write_described(folder, _NETWORK, content, self.weights)


def save_network(directory: Path | str, network: StaticNetwork, *, overwrite: bool = False) -> None:
    """Writes a network, whole or not at all; does nothing in all processes of a run but the first.

    Raises:
        ValueError: The directory holds something else, or a network that may not be replaced, or cannot be written to.
    """
    if not is_first():
        return
    directory = output_directory(directory, NETWORK_FILES, mark=_NETWORK, overwrite=overwrite)
    with whole_folder(directory, mark=_NETWORK) as folder:
        network.write(folder)


def holds_network(path: Path | str) -> bool:
    """Whether a path is a directory that `save_network` wrote."""
    return (Path(path) / _NETWORK).is_file()


@dataclass(frozen=True)
class _Stored:
    """What network.json holds besides the digest of the weights."""

    segments: tuple[Segment, ...]
    image_size: pydantic.PositiveInt


def load_network(directory: Path | str) -> StaticNetwork:
    """Reads a network that `save_network` wrote.

    Raises:
        ValueError: One line: there is none, it is damaged, or of another form or version.
    """
    directory = Path(directory)
    if not holds_network(directory):
        raise ValueError(f"{directory}: expected a network as hadas materialise writes, got none (no {_NETWORK})")
    path = directory / _NETWORK
    content = read_json(path, _FORM, what="a network as hadas materialise writes")
    stored = validated(_Stored, content, path=path)
    weights: Weights = read_weights(directory, _NETWORK)
    return StaticNetwork(read_architecture(directory), stored.segments, weights, stored.image_size)


def predict(
    segments: Sequence[Segment],
    weights: Weights,
    data: LabelledImages,
    *,
    batch: int = 128,
    number_format: NumberFormat = NumberFormat.FP32,
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a network on a split.

    Args:
        segments: The segments of the network.
        weights: The weights of its layers.
        data: The split.
        batch: Images at once.
        number_format: What it runs in; simulated, with batch norm folded, where that is not fp32.

    Returns:
        Logits float32[e + 1, N, K], the classifier last, and confidence logits float32[e, N].
    """
    if number_format != NumberFormat.FP32:
        segments, weights = fold_batch_norm(segments, weights)
    last, parts = data.count - 1, []
    for start in range(0, data.count, batch):
        rows = jnp.minimum(start + jnp.arange(batch), last)
        parts.append(jax.tree.map(np.asarray, _predict(tuple(segments), number_format, weights, data, rows)))
    logits, confidence = (np.concatenate(each, axis=1)[:, : data.count] for each in zip(*parts, strict=True))
    return logits, confidence


@partial(jax.jit, static_argnums=(0, 1))
def _predict(
    segments: tuple[Segment, ...],
    number_format: NumberFormat,
    weights: Weights,
    data: LabelledImages,
    rows: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    return run_network(segments, weights, data.take(rows)[0], number_format=number_format)


def outcomes_at_exits(logits: np.ndarray, confidence: np.ndarray, labels: np.ndarray) -> Outcomes:
    """Returns the outcomes [e + 1, N] of what `predict` returns; all exits are the network's own."""
    available = jnp.ones(len(logits), bool)
    return outcomes_of_logits(jnp.asarray(logits), jnp.asarray(confidence), jnp.asarray(labels), available)


def exits_taken(outcomes: Outcomes, thresholds: Sequence[float], policy: str) -> np.ndarray:
    """Returns int[N]: the exit where each sample stops when deployed, e for the classifier."""
    return _first(scores(outcomes, policy) >= jnp.asarray(thresholds, jnp.float32)[:, None])


def evaluate(architecture: Architecture, outcomes: Outcomes, *, costs: ExitCosts) -> SplitMetrics:
    """Evaluates a network on a split by its thresholds and at its clocks.

    Args:
        architecture: The network; the costs of its backbone without exits stay what they are.
        outcomes: What happens at its exits, [e + 1, N].
        costs: What its exits cost.

    Raises:
        ValueError: The network's clocks are none of its device.
    """
    correct, point = np.asarray(outcomes.correct), costs.selected_point(architecture)
    samples = np.arange(correct.shape[1])

    def performance(taken: np.ndarray) -> Performance:
        latency, energy = (cost[taken, point].mean() for cost in (costs.latency_s, costs.energy_j))
        return Performance(1.0 - float(correct[taken, samples].mean()), float(latency), float(energy))

    deployed = exits_taken(outcomes, architecture.thresholds, architecture.policy)
    right, without, error = correct[deployed, samples], correct[-1], 1.0 - float(correct[-1].mean())
    difference = NO_DIFFERENCE
    if architecture.exits:
        gained, lost = int((right & ~without).sum()), int((without & ~right).sum())
        difference = accuracy_difference(gained, lost, images=len(samples))
    static, static_dvfs = architecture.test.static, architecture.test.static_dvfs
    shares = (np.bincount(deployed, minlength=len(correct)) / len(samples)).tolist()
    return SplitMetrics(
        ideal=performance(_first(outcomes.correct[:-1])),
        deployable=performance(deployed),
        static=dataclasses.replace(static, error=error),
        static_dvfs=static_dvfs and dataclasses.replace(static_dvfs, error=error),
        difference=difference,
        shares=tuple(shares),
        percentiles=Percentiles.of(shares, costs.latency_s[:, point]),
        aurocs=score_quality(outcomes, architecture.policy).aurocs,
    )


def _first(stops: jax.Array) -> np.ndarray:
    """Returns the first exit at which each sample stops, bool[e, N] -> int[N]."""
    last = np.ones((1, stops.shape[1]), bool)
    return np.concatenate([np.asarray(stops), last]).argmax(axis=0)
