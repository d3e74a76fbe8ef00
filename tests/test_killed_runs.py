"""Runs that are killed without warning, and resumed."""

import os
import signal
import subprocess
import sys

import pytest

SMALL = ["--population", "8", "--generations", "3", "--epochs", "3", "--exit-epochs", "3", "--front-size", "16"]


def hadas(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "hadas_jax", "search", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"},
    )


def finish(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(hadas("--workdir", str(workdir), *SMALL))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["supernet: 30/", "exits: 30/", "search: 2/", "thresholds: starts", "test: starts"],
)
def test_a_run_killed_in_any_stage_ends_with_the_same_front(undisturbed, tmp_path, moment):
    workdir = tmp_path / "run"
    process = hadas("--workdir", str(workdir), *SMALL)
    for line in process.stdout:
        if line.startswith(moment):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    assert not (workdir / "front.csv").exists()
    finish(hadas("--workdir", str(workdir), "--resume"))
    assert (workdir / "front.csv").read_bytes() == (undisturbed / "front.csv").read_bytes()
    assert (workdir / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
