"""The same training and search on one device, on several, and by two processes, one of which may be killed.

A process of two devices computes what two processes of one device do, bit for bit.
"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_hadas import ENVIRONMENT, finished, started

SEARCH = {"space": "tiny", "population": 4, "generations": 2, "elite-ratio": 0.5, "epochs": 2, "exit-epochs": 1}
SMALL = [word for name, value in SEARCH.items() for word in (f"--{name}", value)]
# Sums in XLA's matrix products depend on the number of its threads, which is at least that of the devices.
THREADS = {"NPROC": "8"}
TWO_DEVICES = {"JAX_NUM_CPU_DEVICES": "2"}
LOST = "hadas: another process of the run is gone; start all processes again with --resume"


def hadas(workdir, *arguments, command=("search",), **environment):
    return started(*command, *arguments, "--workdir", workdir, **THREADS, **environment)


def meeting_point():
    """An address of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def two(workdir, *arguments, second=(), **options):
    """The two processes of one run; `second`: further arguments of the second."""
    shared = [*arguments, "--coordinator", meeting_point(), "--num-processes", "2", "--process-id"]
    return hadas(workdir, *shared, 0, **options), hadas(workdir, *shared, 1, *second, **options)


def wait_for(process, line):
    """Reads what a process prints up to a line that begins as this pattern."""
    printed = []
    assert any(printed.append(each) or re.match(line, each) for each in process.stdout), "".join(printed)


def last_line_of_the_survivor(victim, survivor):
    """Kills a process without warning; what the other prints before it ends, within half a minute, at last."""
    victim.kill()
    output, _ = survivor.communicate(timeout=30)
    victim.communicate(timeout=60)
    assert survivor.returncode not in (0, 2), output
    assert "Traceback" not in output
    return output.strip().splitlines()[-1]


def assert_same(workdir, other, *names):
    for name in names or ("front.csv", "levels.csv", "metrics.jsonl"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
def test_two_processes_train_as_one_of_two_devices(tmp_path):
    """Fifty steps, from arrays and from a stream: losses within 1e-5, weights within 1e-4."""
    script = [sys.executable, str(Path(__file__).parent / "training" / "global_steps.py")]
    environment = os.environ | ENVIRONMENT | THREADS
    alone, together, meeting = tmp_path / "alone.npz", tmp_path / "together.npz", meeting_point()
    assert not subprocess.run([*script, str(alone)], env=environment | TWO_DEVICES, timeout=600).returncode
    command = [*script, str(together), meeting, "2"]
    processes = [subprocess.Popen([*command, str(number)], env=environment) for number in range(2)]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    with np.load(alone) as expected, np.load(together) as found:
        assert sorted(found.files) == sorted(expected.files)
        for name in found.files:
            bound = 1e-5 if name.endswith("loss") else 1e-4
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=bound, err_msg=name)
        for source in ("arrays", "stream"):
            assert found[f"{source}/loss"].shape == (50,)
            assert found[f"{source}/loss"][-1] < 0.6 * found[f"{source}/loss"][0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A search on two devices of one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finished(hadas(workdir, *SMALL, "--data-parallel", **TWO_DEVICES))
    return workdir


@pytest.mark.slow
def test_eight_devices_find_the_front_of_one(tmp_path):
    finished(hadas(tmp_path / "one", *SMALL), hadas(tmp_path / "run", *SMALL, JAX_NUM_CPU_DEVICES="8"))
    assert_same(tmp_path / "run", tmp_path / "one")


@pytest.mark.slow
def test_two_processes_that_lose_each_other_twice_go_on_to_the_front_of_one_bit_for_bit(alone, tmp_path):
    """In training the first is lost, in the search the second; and the first alone writes and prints."""
    workdir = tmp_path / "run"
    first, second = two(workdir, *SMALL)
    wait_for(first, "supernet: [1-9]")
    assert last_line_of_the_survivor(first, second) == LOST
    first, second = two(workdir, "--resume")
    wait_for(first, "search: 1/")
    assert last_line_of_the_survivor(second, first) == LOST
    assert not (workdir / "front.csv").exists()
    first, second = finished(*two(workdir, "--resume"))
    assert_same(workdir, alone)
    weights = [dict(np.load(place / "supernet" / "weights.npz")) for place in (workdir, alone)]
    for name, leaf in weights[0].items():
        np.testing.assert_array_equal(leaf, weights[1][name])
    assert "Searched " in first
    assert "search:" not in second


@pytest.mark.slow
def test_two_processes_fine_tune_as_two_devices_of_one(alone, tmp_path):
    finished(started("select", alone))
    tune = {"command": ["fine-tune", alone]}
    finished(hadas(tmp_path / "tuned", "--epochs", 1, "--data-parallel", **tune, **TWO_DEVICES))
    finished(*two(tmp_path / "tuned by two", "--epochs", 1, **tune))
    assert_same(tmp_path / "tuned by two", tmp_path / "tuned", "metrics.jsonl")
    assert (tmp_path / "tuned by two" / "network" / "network.json").is_file()


@pytest.mark.slow
def test_two_processes_retrain_as_two_devices_of_one(tmp_path):
    small = ["--genotype", 2 * "33330330033000", "--channels", 2, "--cells", 3, "--epochs", 1]
    retrain = {"command": ["dnas", "retrain"]}
    finished(hadas(tmp_path / "run", *small, "--data-parallel", **retrain, **TWO_DEVICES))
    finished(*two(tmp_path / "by two", *small, **retrain))
    assert_same(tmp_path / "by two", tmp_path / "run", "metrics.jsonl")


def assert_both_say(processes, message):
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2
        assert message in output.strip().splitlines()[-1]


@pytest.mark.slow
def test_processes_of_other_settings_are_named_by_both(tmp_path):
    message = "settings: expected the same in all processes, got seed 0 in process 0 and 1 in process 1"
    assert_both_say(two(tmp_path / "run", *SMALL, second=["--seed", 1]), message)


@pytest.mark.slow
def test_a_cluster_is_found_and_processes_of_other_versions_are_named_by_both(tmp_path):
    """What SLURM sets is all that `auto` needs; the second process sees another version of a package."""
    other = tmp_path / "site" / "optax-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 9.9.9\n", encoding="utf-8")
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    paths = os.environ.get("PYTHONPATH", ""), os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")])
    processes = [
        hadas(
            tmp_path / "run",
            *SMALL,
            "--coordinator",
            "auto",
            PYTHONPATH=path,
            SLURM_PROCID=str(number),
            SLURM_LOCALID=str(number),
            **job,
        )
        for number, path in enumerate(paths)
    ]
    assert_both_say(processes, "in process 0 and '9.9.9' in process 1; start all of them alike")


@pytest.mark.slow
def test_a_coordinator_that_nobody_reaches_is_one_line(tmp_path):
    """So it is for the first process, which waits in vain, and for another one."""
    arguments = ["--coordinator", meeting_point(), "--num-processes", 2]
    others = ["--coordinator", meeting_point(), "--num-processes", 2]
    processes = [hadas(tmp_path / "run", *given, "--process-id", i) for i, given in enumerate((arguments, others))]
    for process in processes:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 2
        assert output.startswith("hadas: error: --coordinator: expected all processes of the run to meet at 127.0.0.1:")
        assert len(output.strip().splitlines()) == 1


def test_a_port_that_nobody_answers_on_is_no_traceback():
    process = hadas("unused", "--coordinator", "nowhere", "--num-processes", 2, "--process-id", 1)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert output.strip().splitlines()[-1] == "hadas: error: --coordinator: expected HOST:PORT or auto, got 'nowhere'"
