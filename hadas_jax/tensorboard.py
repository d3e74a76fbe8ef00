"""Scalars of a run for TensorBoard, one event file for each stage; needs the extra `tensorboard`."""

import contextlib
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hw_models.whole_files import unwritable

FOLDER = "tensorboard"


class Scalars:
    """Writes what a run measures into DIRECTORY/tensorboard/STAGE.

    Args:
      directory: the work directory.

    Raises:
      ValueError: the extra is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from tensorboardX import event_file_writer, summary
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError:
            raise ValueError(
                "--tensorboard: expected the extra tensorboard, got none; pip install 'hadas-jax[tensorboard]'"
            ) from None
        self._open, self._scalar = event_file_writer.EventsWriter, summary.scalar
        self._event, self._start = Event, SessionLog(status=SessionLog.START)
        self._place = directory / FOLDER
        self._stages: dict[str, Any] = {}
        weakref.finalize(self, _close, self._stages)

    def restart(self, stage: str, done: int, kept: list[dict[str, Any]]) -> None:
        """Goes on with a stage after step `done`.

        What TensorBoard has of later steps is dropped there; a run that did not write for it before begins with the
        lines kept in metrics.jsonl.

        Args:
          stage: that starts or resumes.
          done: steps that are not repeated.
          kept: metrics of the stage up to there.
        """
        place = self._place / stage
        is_new = not place.is_dir()
        with _named(place):
            place.mkdir(parents=True, exist_ok=True)
            if stage in self._stages:
                self._stages.pop(stage).close()
            # Names have whole seconds only.
            count = len(list(place.iterdir()))
            self._stages[stage] = self._open(str(place / "events"), f".{count}")
        self._write(stage, step=done + 1, session_log=self._start)
        for entry in kept if is_new else ():
            self.add(stage, entry["step"], {name: entry[name] for name in entry if name not in ("stage", "step")})

    def add(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """Writes one step, so that it can be seen at once."""
        if stage not in self._stages:
            self.restart(stage, step - 1, [])
        for name, value in metrics.items():
            self._write(stage, step=step, summary=self._scalar(name, value))

    def _write(self, stage: str, **content: Any) -> None:
        with _named(self._place / stage):
            self._stages[stage].write_event(self._event(wall_time=time.time(), **content))
            self._stages[stage].flush()


@contextlib.contextmanager
def _named(place: Path) -> Iterator[None]:
    """Gives an error of the disk the name of what could not be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(place, error) from error


def _close(stages: dict[str, Any]) -> None:
    for stage in stages.values():
        with contextlib.suppress(OSError):  # whatever was not written yet does not fit
            stage.close()
