"""A materialised network on disk: `network.json` and `weights.npz` beside its `architecture.json`.

What a static network predicts on a split, and who stops where.

Shapes: e exits of the network, N samples, K classes.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pydantic

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import Architecture, OnSplit, read_architecture, write_architecture
from hadas_jax.deploy.layers import Segment, Weights, fold_batch_norm, run_network, segments_as_json
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.evaluation import NO_DIFFERENCE, Outcomes, accuracy_difference, scores
from hadas_jax.evaluation.evaluator import outcomes_of_logits
from hadas_jax.methods.hadas.results import Performance
from hadas_jax.runs.checkpoints import read_checkpoint, validated
from hadas_jax.runs.workdir import ARCHITECTURE, versions, write_text
from hw_models.files import STAGED, as_npz, whole_folder, write_whole

FORM = "hadas_jax.network/1"
NETWORK, WEIGHTS = "network.json", "weights.npz"
_OWN = (NETWORK, WEIGHTS, ARCHITECTURE)


@dataclass(frozen=True)
class StaticNetwork:
    """A network of its own size, with what is needed to use it.

    Attributes:
        architecture: What it was selected as; its thresholds are those of this network.
        segments: One for each exit, and last for the classifier.
        weights: Of their layers.
        image_size: Height and width of the images that it takes.
    """

    architecture: Architecture
    segments: tuple[Segment, ...]
    weights: Weights
    image_size: int

    def folded(self) -> "StaticNetwork":
        """Returns this network with batch norm folded into the layers before it."""
        segments, weights = fold_batch_norm(self.segments, self.weights)
        return StaticNetwork(self.architecture, segments, weights, self.image_size)


@dataclass(frozen=True)
class _Held:
    """What network.json holds besides the digest of the weights."""

    segments: tuple[Segment, ...]
    image_size: pydantic.PositiveInt


def holds_network(place: Path | str) -> bool:
    """Whether a path is a directory with a materialised network."""
    return (Path(place) / NETWORK).is_file()


def require_place(directory: Path | str, own: tuple[str, ...], *, mark: str, overwrite: bool = False) -> Path:
    """Checks that files may be written to a directory, for `whole_folder`.

    Args:
        directory: None, an empty one, one that was not written to the end, or with `overwrite` one that such files were
            written to.
        own: Patterns of the files' names.
        mark: The file among them that says what they are.
        overwrite: Replace them.

    Raises:
        ValueError: The directory holds something else, or what may not be replaced.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory, got a file")
    held = sorted(entry for entry in directory.iterdir() if entry.name != STAGED) if directory.is_dir() else []
    is_unfinished = (directory / STAGED).is_dir()
    foreign = [entry.name for entry in held if not any(entry.match(pattern) for pattern in own)]
    is_marked = (directory / mark).is_file()
    if foreign or (held and not is_marked and not is_unfinished):
        other = foreign[0] if foreign else held[0].name
        raise ValueError(f"{directory}: expected none, an empty directory or one with {mark}, got one with {other}")
    if held and is_marked and not overwrite:
        raise ValueError(f"{directory} holds {mark}: --overwrite replaces it")
    if not directory.absolute().parent.is_dir():
        raise ValueError(f"{directory}: expected a directory in an existing folder")
    return directory


def save_network(directory: Path | str, network: StaticNetwork, *, overwrite: bool = False) -> None:
    """Writes a network, whole or not at all.

    Raises:
        ValueError: The directory holds something else, or a network that may not be replaced, or cannot be written to.
    """
    directory = require_place(directory, _OWN, mark=NETWORK, overwrite=overwrite)
    with whole_folder(directory, mark=NETWORK) as folder:
        write_network(folder, network)


def write_network(directory: Path, network: StaticNetwork) -> None:
    """Writes the files of a network into a folder that has none of them."""
    arrays: dict[str, Any] = {
        f"{layer}/{name}": np.asarray(leaf) for layer, own in network.weights.items() for name, leaf in own.items()
    }
    weights = as_npz(arrays)
    write_whole(directory / WEIGHTS, weights)
    write_architecture(directory / ARCHITECTURE, network.architecture)
    content = {
        "form": FORM,
        "image_size": network.image_size,
        "weights": {"file": WEIGHTS, "sha256": _digest(weights)},
        "segments": segments_as_json(network.segments),
        "versions": versions(),
    }
    write_text(directory / NETWORK, json.dumps(content, indent=1) + "\n")


def load_network(directory: Path | str) -> StaticNetwork:
    """Reads a network that `save_network` wrote.

    Raises:
        ValueError: One line: there is none, it is damaged, or of another form or version.
    """
    directory = Path(directory)
    path = directory / NETWORK
    if not path.is_file():
        raise ValueError(f"{directory}: expected a network as hadas materialise writes, got none (no {NETWORK})")
    content = read_checkpoint(path, FORM, what="a network as hadas materialise writes")
    held = validated(_Held, content, path=path)
    weights = _weights(directory / WEIGHTS, content.get("weights"))
    return StaticNetwork(read_architecture(directory), held.segments, weights, held.image_size)


def _weights(path: Path, described: object) -> Weights:
    try:
        blob = path.read_bytes()
        wanted = described["sha256"]  # type: ignore[index]
        if _digest(blob) != wanted:
            raise ValueError("digests differ")
        with np.load(io.BytesIO(blob)) as arrays:
            leaves = {name: jnp.asarray(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected the weights that {NETWORK} describes, they are damaged or others"
        ) from error
    weights: Weights = {}
    for name, leaf in leaves.items():
        layer, own = name.split("/")
        weights.setdefault(layer, {})[own] = leaf
    return weights


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


_BATCH = 128


def predict(
    segments: Sequence[Segment], weights: Weights, data: LabelledImages, *, batch: int = _BATCH
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a network on a split.

    Args:
        segments: Of the network.
        weights: Of its layers.
        data: The split.
        batch: Images at once.

    Returns:
        Logits float32[e + 1, N, K], the classifier last, and confidence logits float32[e, N].
    """
    last, parts = data.count - 1, []
    for start in range(0, data.count, batch):
        rows = jnp.minimum(start + jnp.arange(batch), last)
        parts.append(jax.tree.map(np.asarray, _predict(tuple(segments), weights, data, rows)))
    logits, confidence = (np.concatenate(each, axis=1)[:, : data.count] for each in zip(*parts, strict=True))
    return logits, confidence


@partial(jax.jit, static_argnums=0)
def _predict(
    segments: tuple[Segment, ...], weights: Weights, data: LabelledImages, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return run_network(segments, weights, data.take(rows)[0])


def outcomes_at_exits(logits: np.ndarray, confidence: np.ndarray, labels: np.ndarray) -> Outcomes:
    """Returns the outcomes [e + 1, N] of what `predict` returns, all exits being the network's own."""
    available = jnp.ones(len(logits), bool)
    return outcomes_of_logits(jnp.asarray(logits), jnp.asarray(confidence), jnp.asarray(labels), available)


def exits_taken(outcomes: Outcomes, thresholds: Sequence[float], policy: str) -> np.ndarray:
    """Returns int[N]: the exit where each sample stops, e for the classifier."""
    return _first(scores(outcomes, policy) >= jnp.asarray(thresholds, jnp.float32)[:, None])


def on_split(
    outcomes: Outcomes,
    *,
    thresholds: Sequence[float],
    policy: str,
    costs: ExitCosts,
    point: int,
    static: Performance,
    static_dvfs: Performance | None,
) -> OnSplit:
    """Judges a network on a split.

    Args:
        outcomes: At its exits.
        thresholds: Of them.
        policy: The score that thresholds compare with.
        costs: By exit.
        point: The operating point.
        static: Of the network without exits, whose costs stay.
        static_dvfs: Likewise, at its best clocks; None: unknown.
    """
    correct = np.asarray(outcomes.correct)
    samples = np.arange(correct.shape[1])

    def performance(taken: np.ndarray) -> Performance:
        latency, energy = (cost[taken, point].mean() for cost in (costs.latency_s, costs.energy_j))
        return Performance(1.0 - float(correct[taken, samples].mean()), float(latency), float(energy))

    deployed = exits_taken(outcomes, thresholds, policy)
    right, without, error = correct[deployed, samples], correct[-1], 1.0 - float(correct[-1].mean())
    shares = np.bincount(deployed, minlength=len(correct)) / len(samples)
    return OnSplit(
        ideal=performance(_first(outcomes.correct[:-1])),
        deployable=performance(deployed),
        static=dataclasses.replace(static, error=error),
        static_dvfs=static_dvfs and dataclasses.replace(static_dvfs, error=error),
        difference=accuracy_difference(
            int((right & ~without).sum()), int((without & ~right).sum()), images=len(samples)
        )
        if thresholds
        else NO_DIFFERENCE,
        shares=tuple(shares.tolist()),
    )


def _first(stops: jax.Array) -> np.ndarray:
    """The first exit at which each sample stops, bool[e, N] -> int[N]."""
    last = np.ones((1, stops.shape[1]), bool)
    return np.concatenate([np.asarray(stops), last]).argmax(axis=0)
