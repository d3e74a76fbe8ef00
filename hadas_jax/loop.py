"""Long loops in chunks with a checkpoint after each, resumed exactly.

Step i always gets the key `fold_in(key, i)`, so a run that was interrupted and resumed does what an undisturbed
one does, bit for bit on the CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.checkpoints import Checkpoints

State = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]
Report = Callable[[int, dict[str, np.ndarray]], None]


# (state, key, data) -> (next state, scalar metrics), a pure function
Step = Callable[[State, jax.Array, Any], tuple[State, Metrics]]

# (state, steps done) -> (state after the next chunk, metrics with a leading axis over its steps)
Advance = Callable[[State, int], tuple[State, Mapping[str, Any]]]


class DivergenceError(ValueError):
    """A loss or another metric is no longer finite, or a loss rose far above what it was."""


def scanned(
    step: Step, *, data: Any, key: jax.Array, chunk: int, place: jax.sharding.Sharding | None = None
) -> Advance:
    """Returns a chunk of traced steps as one compiled scan.

    Args:
      step: the step.
      data: arrays that every step reads.
      key: typed PRNG key of the loop.
      chunk: steps of a chunk.
      place: where state and data go first, so that the first chunk and the following ones are compiled once; None
        leaves them where they are.
    """
    data = data if place is None else jax.device_put(data, place)

    @jax.jit  # the key is an argument, so that runs of all seeds share their compiled code
    def run_chunk(state: State, start: jax.Array, key: jax.Array, data: Any) -> tuple[State, Metrics]:
        def body(state: State, i: jax.Array) -> tuple[State, Metrics]:
            return step(state, jax.random.fold_in(key, i), data)

        return jax.lax.scan(body, state, start + jnp.arange(chunk))

    def advance(state: State, done: int) -> tuple[State, Metrics]:
        return run_chunk(state if place is None else jax.device_put(state, place), jnp.int32(done), key, data)

    return advance


@dataclass(frozen=True)
class Guard:
    """What a loop does about divergence before it gives up: back to the last good state, at a lower rate.

    A chunk has diverged when one of its metrics is not finite, or its mean loss exceeds `ratio` times the lowest of
    a chunk so far.

    Attributes:
      lower: (state, factor) -> the state with its learning rate multiplied by the factor.
      rollbacks: how often in all.
      factor: of each.
      ratio: bound of the mean loss, relative to the lowest.
      floor: the lowest loss counts as at least this much, so that tiny losses may rise.
      metric: the loss among the metrics.
    """

    lower: Callable[[State, float], State]
    rollbacks: int = 3
    factor: float = 0.5
    ratio: float = 3.0
    floor: float = 0.1
    metric: str = "loss"


class GuardRecord(NamedTuple):
    """What a guard remembers, kept in checkpoints beside the state.

    Attributes:
      lowest: float32[], mean loss of the best chunk so far.
      rollbacks: int32[] so far.
    """

    lowest: np.floating
    rollbacks: np.integer


def run(
    advance: Advance,
    state: State,
    *,
    chunks: int,
    chunk: int,
    name: str = "loop",
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    guard: Guard | None = None,
) -> State:
    """Runs `chunks` chunks from the newest checkpoint, or from `state` where there is none.

    Args:
      advance: goes one chunk further, see `scanned`.
      state: the initial state; also the form that checkpoints must have.
      chunks: how many chunks there are in all.
      chunk: steps of a chunk, that is, between checkpoints and reports.
      name: of the loop, for messages.
      checkpoints: where states are kept, with a `GuardRecord` where there is a guard; None keeps none.
      report: called after each good chunk with the number of steps done and the chunk's metrics [chunk]; with a
        guard also `rollbacks` [1], their number so far.
      guard: what to do about divergence; None: stop at once where a metric is not finite.

    Returns:
      The state after all steps.

    Raises:
      DivergenceError: a metric is NaN or infinite, or the loss beyond the guard's bound, with no rollback left; the
        last good checkpoint stays.
      ValueError: a checkpoint cannot be read or is another run's.
    """
    done, record = 0, GuardRecord(np.float32(np.inf), np.int32(0))
    if checkpoints is not None and (newest := checkpoints.newest()) is not None:
        if newest > chunks * chunk or newest % chunk:
            raise ValueError(
                f"{name}: expected a checkpoint within {chunks} chunks of {chunk} steps, got step {newest}"
            )
        done = newest
        if guard is None:
            state = checkpoints.restore(newest, state)
        else:
            state, record = checkpoints.restore(newest, (state, record))
    while done < chunks * chunk:
        following, metrics = advance(state, done)
        values = {metric: np.asarray(value) for metric, value in metrics.items()}
        wrong = _divergence(values, done, guard, record)
        if wrong:
            if guard is None or record.rollbacks >= guard.rollbacks:
                tried = f" with none of {guard.rollbacks} rollbacks left" if guard else ""
                raise DivergenceError(
                    f"{name}: {wrong}{tried}; the last good checkpoint is kept: lower the learning rate and start again"
                )
            # Not saved: a run that is interrupted here diverges and rolls back once more, in the same way.
            state, record = guard.lower(state, guard.factor), record._replace(rollbacks=record.rollbacks + np.int32(1))
            continue
        state, done = following, done + chunk
        if guard is not None:
            record = record._replace(lowest=np.minimum(record.lowest, _mean(values[guard.metric])))
            values["rollbacks"] = np.array([record.rollbacks])
        if checkpoints is not None:
            checkpoints.save(done, state if guard is None else (state, record))
        if report is not None:
            report(done, values)
    return state


def _divergence(metrics: dict[str, np.ndarray], done: int, guard: Guard | None, record: GuardRecord) -> str | None:
    """Says what has diverged in a chunk, if anything has."""
    for metric, values in metrics.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            return f"{metric} became {values[bad[0]]} at step {done + int(bad[0]) + 1}"
    if guard is not None and np.isfinite(record.lowest):
        loss, bound = _mean(metrics[guard.metric]), guard.ratio * max(float(record.lowest), guard.floor)
        if loss > bound:
            steps = f"steps {done + 1} to {done + len(metrics[guard.metric])}"
            return f"{guard.metric} rose to {loss:.4g} in {steps}, above {bound:.4g}"
    return None


def _mean(values: np.ndarray) -> np.float32:
    return np.float32(np.mean(values, dtype=np.float64))
