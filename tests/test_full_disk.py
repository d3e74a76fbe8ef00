"""Disks that fill up or turn read-only while a run writes: one line, nothing damaged, and it goes on."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from full_disk import disk
from fuzzing import DRAWS
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tiny_hadas import ENVIRONMENT
from tiny_search import FLAGS

from hadas_jax.evaluation import Outcomes
from hadas_jax.evaluation.evaluator import _read, _write
from hadas_jax.report.pictures import save_picture
from hadas_jax.runs import loop as stages
from hadas_jax.runs.checkpoints import Checkpoints, read_weights, write_checkpoint
from hadas_jax.runs.loop import Guard, run_stage
from hadas_jax.runs.workdir import WorkDir, write_text
from hw_models.files import read_arrays, unwritable, whole_folder, write_arrays, write_whole

CODES = (errno.ENOSPC, errno.EROFS)


class Silent:
    def stage(self, name, total):
        pass

    def update(self, done, metrics):
        pass


class Light:
    """Checkpoints in one file, as quick as a file system."""

    def __init__(self, directory):
        self.file = directory / "newest"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(directory, error) from error

    def _kept(self):
        return pickle.loads(self.file.read_bytes()) if self.file.exists() else (None, None)

    def newest(self):
        return self._kept()[0]

    def save(self, step, state):
        write_whole(self.file, pickle.dumps((step, state)))

    def restore(self, step, like):
        return self._kept()[1]


def advance(state, done, retry):
    return {"x": state["x"] * 0.5 + done}, {"loss": np.full(2, 1.0 / (done + 1))}


def small_run(path, *, resume=False, chunks=2):
    """A run with everything that runs write: settings, metrics, checkpoints, weights, folders, tables, pictures."""
    workdir = WorkDir(path)
    with workdir.run({"seed": 1}, resume=resume, overwrite=False):
        for stage in ("supernet", "exits"):
            state = run_stage(
                stage,
                advance,
                {"x": np.float32(1)},
                chunks=chunks,
                chunk=2,
                workdir=workdir,
                progress=Silent(),
                guard=Guard(lower=lambda state, factor: state),
            )
        with whole_folder(path / "supernet", mark="supernet.json") as folder:
            write_whole(folder / "weights.bin", state["x"].tobytes() * 1000)
            write_text(folder / "supernet.json", "{}")
        write_text(path / "front.csv", f"x\n{state['x']}\n" * 1000)
        write_whole(path / "front.png", b"picture" * 100)


def refused(call, *arguments, code, **options):
    """Calls; returns whether it was refused, which takes one line that ends in the system's reason."""
    line = ""
    try:
        call(*arguments, **options)
    except ValueError as error:
        line = str(error)
    assert "\n" not in line
    assert not line or line.endswith(f"got: {os.strerror(code)}"), line
    return line


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def breaks_and_goes_on(path, most, code):
    """Runs on a disk with room for so many writes; returns whether it broke. Afterwards all is as if it had not."""
    with disk(path, most=most, code=code) as found:
        line = refused(small_run, path, code=code)
    assert (str(path) in line) == bool(line)
    for name, content in contents(path).items():  # whole, or known to be unfinished
        if name in ("config.json", "supernet/supernet.json"):
            json.loads(content)
        if name == "front.csv":
            assert content.count(b"\n") == 2000
    small_run(path, resume=(path / "config.json").exists())
    return found.is_broken


def left_alone(name):
    return name.endswith(".partial") or name == ".lock"


def same_runs(path, other):
    """Files are equal; of a disk that turned read-only an unfinished file may stay, which does no harm."""
    found, expected = contents(path), contents(other)
    assert {n: c for n, c in found.items() if not left_alone(n)} == {
        n: c for n, c in expected.items() if not left_alone(n)
    }


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr(stages, "Checkpoints", Light)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "Checkpoints", Light)
        path = tmp_path_factory.mktemp("whole") / "run"
        with disk(path) as found:
            small_run(path)
    return path, found.writes


@pytest.mark.parametrize("code", CODES)
def test_a_disk_that_breaks_at_any_write_is_one_line_and_the_run_goes_on_to_the_same_end(code, light, whole, tmp_path):
    expected, writes = whole
    assert writes > 30
    for most in range(writes):
        path = tmp_path / str(most)
        assert breaks_and_goes_on(path, most, code)
        same_runs(path, expected)


@pytest.mark.slow
@settings(max_examples=DRAWS)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(CODES)), min_size=1, max_size=2))
def test_a_run_that_meets_broken_disks_again_and_again_ends_the_same(tmp_path_factory, whole, breaks):
    path = tmp_path_factory.mktemp("again") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "Checkpoints", Light)
        for most, code in breaks:
            with disk(path, most=most, code=code):
                refused(small_run, path, resume=(path / "config.json").exists(), code=code)
        small_run(path, resume=(path / "config.json").exists())
    same_runs(path, whole[0])
    shutil.rmtree(path)


def state_of(seed):
    return {"a": np.random.default_rng(seed).normal(size=(50, 7)).astype(np.float32), "b": np.int32(seed)}


@pytest.mark.parametrize("code", CODES)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(code, tmp_path):
    """Orbax's own writes in Python break one after the other."""
    most, broke = 0, True
    while broke:
        path = tmp_path / str(most)
        Checkpoints(path).save(1, state_of(1))
        with disk(path, most=most, code=code) as found:
            line = refused(lambda path=path: Checkpoints(path).save(2, state_of(2)), code=code)
        assert (str(path) in line) == bool(line)
        broke = found.is_broken
        again = Checkpoints(path)
        newest = again.newest()
        np.testing.assert_array_equal(again.restore(newest, state_of(0))["a"], state_of(newest)["a"])
        again.save(3, state_of(3))
        assert Checkpoints(path).newest() == 3
        most += 1
    assert newest == 2
    assert most > 3


def outcomes(seed):
    rng = np.random.default_rng(seed)
    return Outcomes(rng.random((3, 20)) < 0.5, *(rng.random((3, 20)).astype(np.float32) for _ in range(3)))


WRITERS = {
    "text": (lambda path, seed: write_text(path, f"{seed}\n" * 99), lambda path: path.read_text()),
    "picture": (
        lambda path, seed: save_picture(Figure(figsize=(1, 1), facecolor=str(seed / 9)), path),
        lambda path: path.read_bytes(),
    ),
    "arrays": (
        lambda path, seed: write_arrays(path, {"x": np.arange(99) + seed}, form="f/1", metadata={}),
        lambda path: read_arrays(path, form="f/1")[0]["x"].tolist(),
    ),
    "outcomes": (lambda path, seed: _write(outcomes(seed), path), lambda path: _read(path, 20).confidence.tolist()),
    "checkpoint": (
        lambda path, seed: write_checkpoint(path, "x.json", {"seed": seed}, state_of(seed)),
        lambda path: ((path / "x.json").read_text(), np.asarray(read_weights(path, "x.json")["a"]).tolist()),
    ),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_replaced_stays_as_it_was(kind, code, tmp_path):
    write, read = WRITERS[kind]
    most, broke = 0, True
    while broke:
        path = tmp_path / str(most) / "x"
        path.parent.mkdir()
        write(path, 1)
        before = read(path)
        with disk(path.parent, most=most, code=code) as found:
            line = refused(write, path, 2, code=code)
        assert (str(path) in line) == bool(line)
        broke = found.is_broken
        if broke:
            assert read(path) == before
            if code == errno.ENOSPC:
                assert [entry.name for entry in path.parent.iterdir()] == ["x"]
        most += 1
    assert read(path) != before
    assert most > 1


def test_half_a_line_of_metrics_is_taken_back(tmp_path):
    workdir = WorkDir(tmp_path)
    workdir.add_metrics("a", 1, {"loss": 1.0})
    with disk(tmp_path, most=0), pytest.raises(ValueError, match=r"metrics\.jsonl: .* got: No space left on device"):
        workdir.add_metrics("a", 2, {"loss": 1.0})
    workdir.add_metrics("a", 3, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 3]


def hadas(workdir, *arguments):
    words = [sys.executable, Path(__file__).with_name("tiny_hadas.py"), "search", "--workdir", workdir, *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | ENVIRONMENT, check=False, timeout=600)


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory of one page, and a function that mounts it with other options."""

    def mount(options):
        return subprocess.run(["mount", *options, str(tmp_path)], capture_output=True, check=False).returncode == 0

    if not mount(["-t", "tmpfs", "-o", "size=4k", "none"]):
        pytest.skip("needs the right to mount a file system")
    yield tmp_path, lambda options: mount(["-o", f"remount,{options}"])
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
def test_a_search_on_a_small_disk_that_grows_again_and_again_ends_as_on_a_large_one(small_disk, finished_search):
    """And then on one that is read-only."""
    place, remount = small_disk
    expected, _ = finished_search
    size = sum(4096 + len(content) for content in contents(expected).values())
    for share in (0.0, 0.3, 0.6):
        assert remount(f"size={4096 + int(share * size)}")
        done = hadas(place / "run", *(["--resume"] if (place / "run" / "config.json").exists() else FLAGS.split()))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("hadas: error: ")
        assert str(place / "run") in done.stderr
        assert done.stderr.endswith("No space left on device\n")
    assert remount(f"size={4 * size}")
    done = hadas(place / "run", "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("front.csv", "front.json", "levels.csv", "metrics.jsonl"):
        assert (place / "run" / name).read_bytes() == (expected / name).read_bytes()
    before = contents(place / "run")
    assert remount("ro")
    done = hadas(place / "run", "--resume")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.endswith("run/.lock: expected a file that can be written, got: Read-only file system\n")
    assert contents(place / "run") == before
