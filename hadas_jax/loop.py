"""Long loops in chunks with a checkpoint after each, resumed exactly.

Step i always gets the key `fold_in(key, i)`, so a run that was interrupted and resumed does what an undisturbed
one does, bit for bit on the CPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

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
    """A loss or another metric is no longer finite."""


def scanned(step: Step, *, data: Any, key: jax.Array, chunk: int) -> Advance:
    """Returns a chunk of traced steps as one compiled scan.

    Args:
      step: the step.
      data: arrays that every step reads.
      key: typed PRNG key of the loop.
      chunk: steps of a chunk.
    """

    @jax.jit
    def run_chunk(state: State, start: jax.Array, data: Any) -> tuple[State, Metrics]:
        def body(state: State, i: jax.Array) -> tuple[State, Metrics]:
            return step(state, jax.random.fold_in(key, i), data)

        return jax.lax.scan(body, state, start + jnp.arange(chunk))

    return lambda state, done: run_chunk(state, jnp.int32(done), data)


def run(
    advance: Advance,
    state: State,
    *,
    chunks: int,
    chunk: int,
    name: str = "loop",
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
) -> State:
    """Runs `chunks` chunks from the newest checkpoint, or from `state` where there is none.

    Args:
      advance: goes one chunk further, see `scanned`.
      state: the initial state; also the form that checkpoints must have.
      chunks: how many chunks there are in all.
      chunk: steps of a chunk, that is, between checkpoints and reports.
      name: of the loop, for messages.
      checkpoints: where states are kept; None keeps none.
      report: called after each chunk with the number of steps done and the chunk's metrics [chunk].

    Returns:
      The state after all steps.

    Raises:
      DivergenceError: a metric is NaN or infinite; the last good checkpoint stays.
      ValueError: a checkpoint cannot be read or is another run's.
    """
    done = 0
    if checkpoints is not None and (newest := checkpoints.newest()) is not None:
        if newest > chunks * chunk or newest % chunk:
            raise ValueError(
                f"{name}: expected a checkpoint within {chunks} chunks of {chunk} steps, got step {newest}"
            )
        done, state = newest, checkpoints.restore(newest, state)
    while done < chunks * chunk:
        state, metrics = advance(state, done)
        values = {metric: np.asarray(value) for metric, value in metrics.items()}
        _require_finite(values, name, done)
        done += chunk
        if checkpoints is not None:
            checkpoints.save(done, state)
        if report is not None:
            report(done, values)
    return state


def _require_finite(metrics: dict[str, np.ndarray], name: str, done: int) -> None:
    for metric, values in metrics.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DivergenceError(
                f"{name}: {metric} became {values[bad[0]]} at step {done + int(bad[0]) + 1}; "
                "the last good checkpoint is kept: lower the learning rate and start again"
            )
