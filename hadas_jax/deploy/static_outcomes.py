"""What a static network predicts on a split, and who stops where.

Shapes: e exits of the network, N samples, K classes.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import OnSplit
from hadas_jax.deploy.exit_costs import ExitCosts
from hadas_jax.deploy.layers import Segment, Weights
from hadas_jax.deploy.static_apply import run_network
from hadas_jax.evaluation import NO_DIFFERENCE, Outcomes, accuracy_difference, ideal_stops, scores, threshold_stops
from hadas_jax.evaluation.accuracy import outcomes_of_logits
from hadas_jax.methods.results import Performance

_BATCH = 128


def predict(
    segments: Sequence[Segment], weights: Weights, data: LabelledImages, *, batch: int = _BATCH
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a network on a split.

    Args:
      segments: of the network.
      weights: of its layers.
      data: the split.
      batch: images at once.

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
    return _first(threshold_stops(scores(outcomes, policy), jnp.asarray(thresholds, jnp.float32)))


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
      outcomes: at its exits.
      thresholds: of them.
      policy: the score that thresholds compare with.
      costs: by exit.
      point: the operating point.
      static: of the network without exits, whose costs stay.
      static_dvfs: likewise, at its best clocks; None: unknown.
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
        ideal=performance(_first(ideal_stops(outcomes))),
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
