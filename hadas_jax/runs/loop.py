"""Long loops in chunks with a checkpoint after each, resumed exactly; a stage of a run is such a loop.

Step i always gets the key `fold_in(key, i)`, so a run that was interrupted and resumed does what an undisturbed
one does, bit for bit on the CPU. After a rollback other keys take the place of all, see `retry_key`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.backend import guarded, place
from hadas_jax.runs.checkpoints import Checkpoints
from hadas_jax.runs.names import CHECKPOINTS
from hadas_jax.runs.workdir import WorkDir

State = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]
Report = Callable[[int, dict[str, np.ndarray]], None]
# (state, key, data) -> (next state, scalar metrics), a pure function
Step = Callable[[State, jax.Array, Any], tuple[State, Metrics]]
# (state, steps done, how often the loop went back) -> (state after the next chunk, metrics [chunk]); each time that it
# went back, batches and random numbers are others
Advance = Callable[[State, int, int], tuple[State, Mapping[str, Any]]]


class DivergenceError(ValueError):
    """A loss or another metric is no longer finite, or a loss rose far above what it was."""


def scanned(
    step: Step,
    *,
    data: Any,
    key: jax.Array,
    chunk: int,
    sharding: jax.sharding.NamedSharding | None = None,
    jit: Callable = jax.jit,
) -> Advance:
    """Returns a chunk of traced steps as one compiled scan.

    Args:
        step: The step.
        data: Arrays that every step reads; of typed PRNG keys among them, such as those of orders, a retry gets others.
        key: Typed PRNG key of the loop.
        chunk: Steps of a chunk.
        sharding: Sharding that state and data get first, so that first and following chunks are compiled once;
            None leaves them where they are.
        jit: Function that compiles the scan.
    """
    data = data if sharding is None else place(data, sharding)

    @jit  # the key is an argument, so that runs of all seeds share their compiled code
    def run_chunk(state: State, start: jax.Array, key: jax.Array, data: Any) -> tuple[State, Metrics]:
        def body(state: State, i: jax.Array) -> tuple[State, Metrics]:
            return step(state, jax.random.fold_in(key, i), data)

        return jax.lax.scan(body, state, start + jnp.arange(chunk))

    def advance(state: State, done: int, retry: int = 0) -> tuple[State, Metrics]:
        keys = jax.tree.map(lambda leaf: retry_key(leaf, retry) if _is_key(leaf) else leaf, (key, data))
        return run_chunk(state if sharding is None else place(state, sharding), jnp.int32(done), *keys)

    return advance


def retry_key(key: jax.Array, retry: int) -> jax.Array:
    """Returns the key that takes the place of another after so many rollbacks; the same where there was none."""
    return key if retry == 0 else jax.random.fold_in(key, np.uint32(2**32 - retry))  # beyond all numbers of steps


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@dataclass(frozen=True)
class Guard:
    """What a loop does about divergence before it gives up: back to the last good state, at a lower rate.

    A chunk has diverged when one of its metrics is not finite, or the loss of the last `window` steps exceeds `ratio`
    times the lowest so far. That loss is a mean in which no step counts for more than `most` times the bound, so that
    one hard batch does not decide, and steps that are not there count as the lowest does: those before the first, and
    those before a rollback. The steps after a rollback draw other batches.

    Attributes:
        lower: (state, factor) -> the state with its learning rate multiplied by the factor.
        rollbacks: The most rollbacks of the loop.
        factor: Factor of the learning rate at each.
        ratio: Bound of the loss, relative to the lowest.
        floor: The lowest loss counts as at least this much, so that tiny losses may rise.
        metric: Name of the loss among the metrics.
        window: Number of steps that are judged together.
        settled: Number of steps from which on a mean may be the lowest, at most `window`.
        most: The most that one step counts for, relative to the bound.
    """

    lower: Callable[[State, float], State]
    rollbacks: int = 3
    factor: float = 0.5
    ratio: float = 3.0
    floor: float = 0.1
    metric: str = "loss"
    window: int = 50
    settled: int = 10
    most: float = 10.0


class _GuardRecord(NamedTuple):
    """What a guard remembers, kept in checkpoints beside the state.

    Attributes:
        lowest: float32[], lowest mean loss of a window so far; infinite where there was none.
        rollbacks: int32[] so far.
        losses: float32[window] of the last steps, the newest last.
        seen: int32[], how many of them there are since the start or the last rollback, at most `window`.
    """

    lowest: np.floating
    rollbacks: np.integer
    losses: np.ndarray
    seen: np.integer

    @classmethod
    def new(cls, window: int) -> "_GuardRecord":
        """Returns what a guard with this window remembers before the first step."""
        return cls(np.float32(np.inf), np.int32(0), np.zeros(window, np.float32), np.int32(0))

    @property
    def recent(self) -> np.ndarray:
        """float32[seen]: losses of the last steps."""
        return self.losses[len(self.losses) - int(self.seen) :]

    def after(self, losses: np.ndarray, guard: Guard) -> "_GuardRecord":
        """Returns the record after a good chunk with these losses [chunk]."""
        kept = np.concatenate([self.losses, np.asarray(losses, np.float32)])[-guard.window :]
        record = self._replace(losses=kept, seen=np.int32(min(int(self.seen) + len(losses), guard.window)))
        if record.seen < min(guard.settled, guard.window):
            return record
        mean = np.float32(np.mean(record.recent, dtype=np.float64))
        return record._replace(lowest=np.minimum(self.lowest, mean))

    def rolled_back(self) -> "_GuardRecord":
        """Returns the record after a rollback: whoever tries again is judged by new steps."""
        rollbacks = self.rollbacks + np.int32(1)
        return self._replace(rollbacks=rollbacks, losses=np.zeros_like(self.losses), seen=np.int32(0))

    def rise(self, losses: np.ndarray, guard: Guard) -> tuple[float, float] | None:
        """Returns the mean loss of the last steps and its bound where these losses [chunk] are beyond it."""
        if not np.isfinite(self.lowest):
            return None
        lowest = max(float(self.lowest), guard.floor)
        bound = guard.ratio * lowest
        recent = np.concatenate([self.recent, losses])[-guard.window :].astype(np.float64)
        rise = np.sum(np.minimum(recent, guard.most * bound) - lowest) / guard.window
        return (float(np.mean(recent)), bound) if lowest + rise > bound else None


def run(
    advance: Advance,
    state: State,
    *,
    chunks: int,
    chunk: int,
    name: str = "loop",
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    write: Report | None = None,
    guard: Guard | None = None,
) -> State:
    """Runs `chunks` chunks from the newest checkpoint, or from `state` where there is none.

    Args:
        advance: Goes one chunk further, see `scanned`.
        state: The initial state; also the form that checkpoints must have.
        chunks: Number of chunks in all.
        chunk: Steps of a chunk, that is, between checkpoints and reports.
        name: Name of the loop, for messages.
        checkpoints: Where states are kept, with what it remembers where there is a guard; None keeps none.
        report: Called after each good chunk with the number of steps done and the chunk's metrics [chunk]; with a guard
            also `rollbacks` [1], their number so far.
        write: Called likewise, but before the state is kept, so that a run that ends in between repeats both.
        guard: What to do about divergence; None: stop at once where a metric is not finite.

    Returns:
        The state after all steps.

    Raises:
        DivergenceError: A metric is NaN or infinite, or the loss beyond the guard's bound, with no rollback left; the
            last good checkpoint stays.
        LostProcessError: Another process of the run is gone.
        ValueError: A checkpoint cannot be read or written, or is another run's.
    """
    done, record = 0, _GuardRecord.new(0 if guard is None else guard.window)
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
        following, values = guarded(partial(_read, advance, state, done, int(record.rollbacks)))
        wrong = _divergence(values, done, guard, record)
        if wrong:
            if guard is None or record.rollbacks >= guard.rollbacks:
                tried = f" with none of {guard.rollbacks} rollbacks left" if guard else ""
                raise DivergenceError(
                    f"{name}: {wrong}{tried}; the last good checkpoint is kept: lower the learning rate and start again"
                )
            # Not saved: a run that is interrupted here diverges and rolls back once more, in the same way.
            state, record = guard.lower(state, guard.factor), record.rolled_back()
            continue
        state, done = following, done + chunk
        if guard is not None:
            record = record.after(values[guard.metric], guard)
            values["rollbacks"] = np.array([record.rollbacks])
        if write is not None:
            write(done, values)
        if checkpoints is not None:
            checkpoints.save(done, state if guard is None else (state, record))
        if report is not None:
            report(done, values)
    return state


def _read(advance: Advance, state: State, done: int, rollbacks: int) -> tuple[State, dict[str, np.ndarray]]:
    """Goes one chunk further, and waits for its metrics."""
    following, metrics = advance(state, done, rollbacks)
    return following, {metric: np.asarray(value) for metric, value in metrics.items()}


def _divergence(metrics: dict[str, np.ndarray], done: int, guard: Guard | None, record: _GuardRecord) -> str | None:
    """Says what has diverged in a chunk, if anything has."""
    for metric, values in metrics.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            return f"{metric} became {values[bad[0]]} at step {done + int(bad[0]) + 1}"
    if guard is None:
        return None
    losses = metrics[guard.metric]
    if (rise := record.rise(losses, guard)) is None:
        return None
    last = done + len(losses)
    first = last - min(int(record.seen) + len(losses), guard.window) + 1
    return f"{guard.metric} rose to {rise[0]:.4g} in steps {first} to {last}, above {rise[1]:.4g}"


class Progress(Protocol):
    """Follows a run."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """So many steps of the stage are done."""


def run_stage(
    name: str,
    advance: Advance,
    state: Any,
    *,
    chunks: int,
    chunk: int,
    workdir: WorkDir,
    progress: Progress,
    guard: Guard | None = None,
) -> Any:
    """Runs one stage of a run, with its checkpoints, metrics and progress in their places.

    Args:
        name: Name of the stage.
        advance: Goes one chunk further, see `scanned`.
        state: The initial state.
        chunks: Number of chunks in all.
        chunk: Steps of a chunk.
        workdir: Work directory of the run.
        progress: What is told of every chunk.
        guard: What to do about divergence.

    Returns:
        The state after all steps.

    Raises:
        ValueError: As `run`.
    """
    checkpoints = Checkpoints(workdir.path / CHECKPOINTS / name)
    done = checkpoints.newest() or 0
    workdir.drop_metrics(name, done)
    progress.stage(name, chunks * chunk)
    progress.update(done, {})

    def means(metrics: dict[str, np.ndarray]) -> dict[str, float]:
        # Losses and accuracies are means over the chunk, a search's figures stand alone.
        return {metric: float(np.mean(values)) for metric, values in metrics.items()}

    return run(
        advance,
        state,
        chunks=chunks,
        chunk=chunk,
        name=name,
        checkpoints=checkpoints,
        report=lambda done, metrics: progress.update(done, means(metrics)),
        write=lambda done, metrics: workdir.add_metrics(name, done, means(metrics)),
        guard=guard,
    )
