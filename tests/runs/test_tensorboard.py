import errno
import os
import struct
import sys

import pytest

from hadas_jax.cli import main
from hadas_jax.runs.workdir import WorkDir

pytest.importorskip("tensorboardX")
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


def events(folder):
    """Reads the event files of a stage, in the order of their names, as TensorBoard does."""
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size


def scalars(folder):
    """Returns name, step and value of what TensorBoard would show: a restart drops what came after its step."""
    found = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = [each for each in found if each[1] < event.step]
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def start(place, settings, *, overwrite=False):
    """Begins a run and leaves it."""
    with place.run(settings, resume=False, overwrite=overwrite):
        pass


def place_at(path):
    return WorkDir(path / "run", tensorboard=True)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    place = place_at(tmp_path)
    start(place, {})
    place.add_metrics("supernet", 1, {"loss": 1.0})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(EventsWriter, "flush", full)
        with pytest.raises(ValueError, match=r"tensorboard/supernet: .* got: No space left on device$"):
            place.add_metrics("supernet", 2, {"loss": 1.0})
    place.add_metrics("supernet", 2, {"loss": 1.0})


def test_metrics_are_scalars_of_their_stage_at_once(tmp_path):
    place = place_at(tmp_path)
    start(place, {})
    place.drop_metrics("supernet", 0)
    place.add_metrics("supernet", 10, {"loss": 0.5, "accuracy": 0.25})
    place.add_metrics("search", 1, {"hypervolume": 0.75})
    assert scalars(place.path / "tensorboard" / "supernet") == [("loss", 10, 0.5), ("accuracy", 10, 0.25)]
    assert scalars(place.path / "tensorboard" / "search") == [("hypervolume", 1, 0.75)]


def test_steps_that_are_repeated_count_once(tmp_path):
    first = place_at(tmp_path)
    start(first, {})
    first.drop_metrics("supernet", 0)
    for step in (1, 2, 3):
        first.add_metrics("supernet", step, {"loss": float(step)})
    again = place_at(tmp_path)
    again.drop_metrics("supernet", 1)
    again.add_metrics("supernet", 2, {"loss": 20.0})
    assert scalars(again.path / "tensorboard" / "supernet") == [("loss", 1, 1.0), ("loss", 2, 20.0)]


def test_a_run_that_did_without_gets_its_earlier_metrics_too(tmp_path):
    without = WorkDir(tmp_path / "run")
    start(without, {})
    for step in (1, 2):
        without.add_metrics("supernet", step, {"loss": float(step)})
    place = place_at(tmp_path)
    place.drop_metrics("supernet", 2)
    place.add_metrics("supernet", 3, {"loss": 3.0})
    assert scalars(place.path / "tensorboard" / "supernet") == [("loss", 1, 1.0), ("loss", 2, 2.0), ("loss", 3, 3.0)]


def test_overwriting_a_run_removes_its_scalars(tmp_path):
    place = place_at(tmp_path)
    start(place, {})
    place.add_metrics("supernet", 1, {"loss": 1.0})
    start(WorkDir(tmp_path / "run"), {}, overwrite=True)
    assert not (place.path / "tensorboard").exists()


@pytest.mark.parametrize("command", ["search", "train"])
def test_without_the_extra_the_command_names_it_and_writes_nothing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    with pytest.raises(SystemExit) as stop:
        main([command, "--tensorboard", "--workdir", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "hadas: error: --tensorboard: expected the extra tensorboard, got none; pip install 'hadas-jax[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()
