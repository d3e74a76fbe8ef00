"""One writer at a time in a work directory."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from failing_commands import fails
from fuzzing import DRAWS
from hypothesis import given, settings
from hypothesis import strategies as st

from hadas_jax.runs import workdir as locks
from hadas_jax.runs.workdir import InUseError, WorkDir, reading, writing

ME = f"in use by process {os.getpid()} on host {socket.gethostname()}; wait for it or take another `workdir`"
HOLD = """
import sys, time
from pathlib import Path
from hadas_jax.runs.workdir import WorkDir
with WorkDir(Path(sys.argv[1])).run({"seed": 1}, resume=False, overwrite="--overwrite" in sys.argv):
    print("held", flush=True)
    time.sleep(600)
"""


def started(workdir, *arguments):
    """Another process that tries to hold a work directory for ever."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def ended(process):
    process.kill()
    process.wait(timeout=60)
    process.stdout.close()
    process.stderr.close()


@pytest.fixture
def place(tmp_path):
    return WorkDir(tmp_path / "run")


@pytest.fixture
def held(place):
    """The work directory of a run that goes on."""
    with place.run({"seed": 1}, resume=False, overwrite=False):
        yield place


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (False, True), (True, False)])
def test_a_second_run_is_refused_and_touches_nothing(held, resume, overwrite):
    held.add_metrics("a", 1, {"loss": 0.5})
    before = contents(held.path)
    with (
        pytest.raises(InUseError, match=f"^work directory {held.path} is {ME}$"),
        WorkDir(held.path).run({"seed": 2}, resume=resume, overwrite=overwrite),
    ):
        raise AssertionError
    assert contents(held.path) == before


def test_a_run_that_ended_well_or_badly_holds_nothing(place):
    with pytest.raises(KeyError), place.run({}, resume=False, overwrite=False):
        raise KeyError
    with place.run({}, resume=True, overwrite=False):
        pass
    with place.run({"seed": 3}, resume=False, overwrite=True):
        pass
    assert place.settings() == {"seed": 3}
    assert [path.name for path in place.path.iterdir()] == ["config.json"]


def test_what_was_never_started_can_be_started(place):
    """A process that died between lock and config.json leaves a directory that counts as empty."""
    place.path.mkdir()
    (place.path / ".lock").touch()
    (place.path / ".lock.json").write_text("{")
    (place.path / "config.json.123.partial").write_text("{")
    with place.run({"seed": 1}, resume=False, overwrite=False):
        assert place.settings() == {"seed": 1}
    assert not (place.path / "config.json.123.partial").exists()


@pytest.mark.parametrize("held_by_file", ["thesis.tex", "notes.12.partial"])
def test_a_directory_with_something_else_gets_no_lock(place, held_by_file):
    place.path.mkdir()
    (place.path / held_by_file).write_text("mine")
    with pytest.raises(ValueError, match=f"got one with {held_by_file}"), place.run({}, resume=False, overwrite=True):
        raise AssertionError
    assert [path.name for path in place.path.iterdir()] == [held_by_file]


@pytest.mark.parametrize("target", ["architecture.json", "network", "export/deeper", "."])
def test_commands_that_write_beside_a_run_are_refused_and_readers_go_on(held, target, monkeypatch):
    monkeypatch.chdir(held.path)
    for name in (held.path / target, target):
        with pytest.raises(InUseError, match=ME), writing(name):
            raise AssertionError
        with reading(name):
            pass


def test_what_writes_beside_a_finished_run_keeps_a_new_one_out(place):
    with place.run({}, resume=False, overwrite=False):
        pass
    for context in (writing, reading):
        with (
            context(place.path / "network"),
            pytest.raises(InUseError, match=ME),
            WorkDir(place.path).run({}, resume=True, overwrite=False),
        ):
            raise AssertionError


def test_folders_that_are_no_work_directories_get_no_lock(tmp_path):
    (tmp_path / "config.json").write_text('{"form": "other/1"}')
    with writing(tmp_path / "deeper" / "network"), writing(tmp_path / "deeper" / "network"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_of_many_that_start_at_once_one_wins(tmp_path):
    for number in range(10):
        place, won, lost, go = tmp_path / str(number), [], [], threading.Barrier(6)
        done = threading.Barrier(6)

        def start(seed, place=place, won=won, lost=lost, go=go, done=done):
            go.wait()
            try:
                with WorkDir(place).run({"seed": seed}, resume=False, overwrite=True):
                    won.append(seed)
                    done.wait()
            except InUseError:
                lost.append(seed)
                done.wait()

        threads = [threading.Thread(target=start, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 5)
        assert WorkDir(place).settings() == {"seed": won[0]}


@pytest.mark.parametrize("command", ["search", "train", "fine-tune", "dnas search", "dnas retrain --genotype DARTS_V2"])
@pytest.mark.parametrize("flags", ["", "--overwrite", "--resume"])
def test_every_command_that_starts_a_run_is_refused_at_once(held, command, flags, capsys):
    before = contents(held.path)
    command = "fine-tune nowhere" if command == "fine-tune" and flags != "--resume" else command
    kinds = {"fine-tune": "fine-tune", "dnas search": "dnas-search", "dnas retrain --genotype DARTS_V2": "dnas-retrain"}
    if flags == "--resume" and command not in ("search",):
        kind = kinds.get(command, "train")
        config = json.loads((held.path / "config.json").read_text()) | {"form": f"hadas_jax.{kind}/1"}
        (held.path / "config.json").write_text(json.dumps(config))
        before = contents(held.path)
    line = fails(f"{command} --workdir {held.path} {flags}", capsys)
    assert ME.replace("`workdir`", "--workdir") in line
    assert contents(held.path) == before


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(place, code, monkeypatch, capsys):
    class Lock(locks.FileLock):
        def acquire(self, *_, **__):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "FileLock", Lock)
    with place.run({"seed": 1}, resume=False, overwrite=False):
        assert place.settings() == {"seed": 1}
    said = f"hadas: the file system of {place.path} has no locks: see to it that one run at a time writes there\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_directory_that_cannot_be_written_to_is_one_line(place, code, monkeypatch):
    class Lock(locks.FileLock):
        def acquire(self, *_, **__):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "FileLock", Lock)
    with (
        pytest.raises(ValueError, match=f"run/.lock: expected a file that can be written, got: {os.strerror(code)}$"),
        place.run({}, resume=False, overwrite=False),
    ):
        raise AssertionError


def test_the_first_of_several_processes_alone_takes_the_lock(held, monkeypatch):
    monkeypatch.setattr(locks, "is_first", lambda: False)
    with WorkDir(held.path).run({}, resume=True, overwrite=False):
        pass


def test_a_killed_holder_holds_nothing(tmp_path):
    process = started(tmp_path / "run")
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InUseError, match=f"in use by process {process.pid} on host {socket.gethostname()};"):
        WorkDir(tmp_path / "run").require_unused()
    ended(process)
    with WorkDir(tmp_path / "run").run({"seed": 1}, resume=True, overwrite=False):
        require_held(tmp_path / "run")


def require_held(directory):
    with pytest.raises(InUseError, match=ME):
        WorkDir(directory).require_unused()


@pytest.mark.slow
@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_of_processes_that_start_at_once_one_wins_and_the_others_say_who(tmp_path, flag):
    workdir = tmp_path / "run"
    processes = [started(workdir, *flag) for _ in range(3)]
    winners = [process for process in processes if process.stdout.readline() == "held\n"]
    try:
        assert len(winners) == 1
        for loser in [process for process in processes if process is not winners[0]]:
            assert f"in use by process {winners[0].pid} on host" in loser.stderr.read().splitlines()[-1]
    finally:
        for process in processes:
            ended(process)


def leave(context, error=None):
    assert not context.__exit__(type(error) if error else None, error, None)


@pytest.mark.slow
@settings(max_examples=DRAWS)
@given(st.lists(st.sampled_from(["start", "resume", "overwrite", "write", "read", "end", "die"]), max_size=12))
def test_whatever_is_tried_in_whatever_order_one_holds_the_directory(tmp_path_factory, steps):
    """A model: what is refused is what meets a run that holds the directory."""
    workdir = tmp_path_factory.mktemp("model") / "run"
    holder, is_there = None, False
    for seed, step in enumerate(steps):
        if step in ("end", "die"):
            if holder is not None:
                leave(holder, None if step == "end" else KeyError())
            holder = None
        elif step in ("write", "read"):
            attempt = (writing if step == "write" else reading)(workdir / "x")
            if holder is not None and step == "write":
                with pytest.raises(InUseError):
                    attempt.__enter__()
            else:
                with attempt:
                    pass
        else:
            attempt = WorkDir(workdir).run({"seed": seed}, resume=step == "resume", overwrite=step == "overwrite")
            if step == "resume" and not is_there:
                continue
            if holder is not None:
                with pytest.raises(InUseError):
                    attempt.__enter__()
            elif step == "start" and is_there:
                with pytest.raises(ValueError, match="`resume` continues it"):
                    attempt.__enter__()
            else:
                attempt.__enter__()
                holder, is_there = attempt, True
    if holder is not None:
        leave(holder)
