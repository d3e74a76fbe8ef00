"""Stages of a run: each has its checkpoints, metrics and progress in their places."""

from typing import Any, Protocol

import numpy as np

from hadas_jax.checkpoints import Checkpoints
from hadas_jax.loop import Advance, Guard
from hadas_jax.loop import run as run_loop
from hadas_jax.workdir import CHECKPOINTS, WorkDir


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
      name: of the stage.
      advance: goes one chunk further, see `hadas_jax.loop.run`.
      state: the initial one.
      chunks: how many chunks there are in all.
      chunk: steps of a chunk.
      workdir: of the run.
      progress: told of every chunk.
      guard: what to do about divergence.

    Returns:
      The state after all steps.

    Raises:
      ValueError: as `hadas_jax.loop.run`.
    """
    checkpoints = Checkpoints(workdir.path / CHECKPOINTS / name)
    done = checkpoints.newest() or 0
    workdir.drop_metrics(name, done)
    progress.stage(name, chunks * chunk)
    progress.update(done, {})

    def means(metrics: dict[str, np.ndarray]) -> dict[str, float]:
        # Losses and accuracies are means over the chunk, a search's figures stand alone.
        return {metric: float(np.mean(values)) for metric, values in metrics.items()}

    return run_loop(
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
