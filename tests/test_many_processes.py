"""The same search on one device, on several, and by two processes, one of which may be killed."""

import socket

import pytest
from tiny_hadas import finished, started

SEARCH = {"space": "tiny", "population": 4, "generations": 2, "elite-ratio": 0.5, "epochs": 1, "exit-epochs": 1}
SMALL = [word for name, value in SEARCH.items() for word in (f"--{name}", value)]
# Sums in XLA's matrix products depend on the number of its threads, which is at least that of the devices.
THREADS = {"NPROC": "8"}


def hadas(workdir, *arguments, **environment):
    return started("search", "--workdir", workdir, *arguments, **THREADS, **environment)


def two(workdir, *arguments):
    """The two processes of one run; each gets a work directory of its own name, so that it shows who writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2"]
    places = (workdir, workdir if "--resume" in arguments else workdir.with_name("other"))
    return [hadas(p, *arguments, *shared, "--process-id", number) for number, p in enumerate(places)]


def assert_same(workdir, other):
    for name in ("front.csv", "levels.csv", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finished(hadas(workdir, *SMALL))
    return workdir


@pytest.mark.slow
def test_eight_devices_find_the_front_of_one(alone, tmp_path):
    finished(hadas(tmp_path / "run", *SMALL, JAX_NUM_CPU_DEVICES="8"))
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_two_processes_of_which_one_is_lost_end_and_go_on_to_the_front_of_one(alone, tmp_path):
    """And the first alone writes and prints."""
    workdir = tmp_path / "run"
    first, second = two(workdir, *SMALL)
    assert any(line.startswith("search: 1/") for line in first.stdout)
    second.kill()
    output, _ = first.communicate(timeout=200)
    second.communicate(timeout=60)
    assert first.returncode not in (0, 2), output
    assert not (workdir / "front.csv").exists()
    first, second = finished(*two(workdir, "--resume"))
    assert_same(workdir, alone)
    assert not (tmp_path / "other").exists()
    assert "Searched " in first
    assert "search:" not in second


def test_a_port_that_nobody_answers_on_is_no_traceback():
    process = hadas("unused", "--coordinator", "nowhere", "--num-processes", 2, "--process-id", 1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.strip().splitlines()[-1] == "hadas: error: --coordinator: expected HOST:PORT or auto, got 'nowhere'"
