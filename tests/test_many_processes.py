"""The same search on one device, on several, and by two processes, one of which may be killed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SEARCH = {"space": "tiny", "population": 4, "generations": 3, "elite-ratio": 0.5, "epochs": 1, "exit-epochs": 1}
SMALL = [word for name, value in SEARCH.items() for word in (f"--{name}", str(value))]
# Sums in XLA's matrix products depend on the number of its threads, which is at least that of the devices.
THREADS = {"NPROC": "8"}


def hadas(workdir, *arguments, **environment):
    return subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("tiny_hadas.py")),
            "search",
            "--workdir",
            str(workdir),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu", **THREADS, **environment},
    )


def two(workdir, *arguments):
    """The two processes of one run; each gets a work directory of its own name, so that it shows who writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2"]
    places = (workdir, workdir if "--resume" in arguments else workdir.with_name("other"))
    return [hadas(p, *arguments, *shared, "--process-id", str(number)) for number, p in enumerate(places)]


def finish(*processes):
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def assert_same(workdir, other):
    for name in ("front.csv", "levels.csv", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(hadas(workdir, *SMALL))
    return workdir


@pytest.mark.slow
def test_eight_devices_find_the_front_of_one(alone, tmp_path):
    finish(hadas(tmp_path / "run", *SMALL, XLA_FLAGS="--xla_force_host_platform_device_count=8"))
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_two_processes_find_the_front_of_one_and_the_first_alone_writes_and_prints(alone, tmp_path):
    first, second = finish(*two(tmp_path / "run", *SMALL))
    assert_same(tmp_path / "run", alone)
    assert not (tmp_path / "other").exists()
    assert "Searched " in first
    assert "search:" not in second


@pytest.mark.slow
def test_a_run_that_lost_a_process_ends_and_goes_on_to_the_same_front(alone, tmp_path):
    workdir = tmp_path / "run"
    first, second = two(workdir, *SMALL)
    for line in first.stdout:
        if line.startswith("search: 1/"):
            break
    second.send_signal(signal.SIGKILL)
    output, _ = first.communicate(timeout=200)
    second.communicate(timeout=60)
    assert first.returncode not in (0, 2), output
    assert not (workdir / "front.csv").exists()
    finish(*two(workdir, "--resume"))
    assert_same(workdir, alone)


def test_a_port_that_nobody_answers_on_is_no_traceback():
    process = hadas("unused", "--coordinator", "nowhere", "--num-processes", "2", "--process-id", "1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.strip().splitlines()[-1] == "hadas: error: --coordinator: expected HOST:PORT or auto, got 'nowhere'"
