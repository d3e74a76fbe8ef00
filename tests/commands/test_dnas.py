"""Searching architectures through the commands, with a network as small as can be."""

import json
import shutil

import numpy as np
import pytest

from hadas_jax.cli import main
from hadas_jax.commands.dnas import search
from hadas_jax.settings import DnasSettings
from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.genotypes import Genotype, code_of

TINY = "--channels 2 --cells 3 --epochs 2 --batch 128 --order first --predictor-samples 3000 --augmentation none"


@pytest.fixture(scope="module", autouse=True)
def _no_user_cache():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a search on an accelerator."""
    workdir = tmp_path_factory.mktemp("dnas") / "run"
    main(f"dnas search {TINY} --hardware pipeline --workdir {workdir}".split())
    return workdir


@pytest.mark.slow
def test_a_search_leaves_a_network_that_other_commands_take(finished, capsys):
    content = json.loads((finished / "genotype.json").read_text())
    assert content["form"] == "hadas_jax.genotype/1"
    code = parse_code(content["code"])
    np.testing.assert_array_equal(code_of(Genotype.parse(content["genotype"])), code)
    assert content["images_per_s"] > 0
    assert content["hardware"] == "pipeline accelerator on ku115"
    assert np.asarray(content["alpha"]).shape == (28, 8)
    assert (finished / "genotype.png").stat().st_size > 1000
    assert (finished / "predictor.npz").is_file()
    stages = [json.loads(line)["stage"] for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert set(stages) == {"predictor", "architecture"}
    main(["dnas", "price", str(finished / "genotype.json"), "--paradigm", "generic"])
    assert "images/s" in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_that_was_stopped_ends_as_an_undisturbed_one(finished, tmp_path):
    workdir = tmp_path / "stopped"
    shutil.copytree(finished, workdir)
    whole = (workdir / "genotype.json").read_text()
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "genotype.json").unlink()
    main(f"dnas search --workdir {workdir} --resume".split())
    assert (workdir / "genotype.json").read_text() == whole


@pytest.mark.slow
def test_budget_and_clocks_of_a_device_are_kept_and_reported(tmp_path):
    """With the settings of docs/eh_dnas.md, so that the program which tests/docs compiles is compiled once."""
    small = {"channels": 2, "cells": 3, "epochs": 1, "batch": 128, "order": "first"}
    settings = DnasSettings.of(hardware="tx2-gpu", search_clocks=True, minimise="energy", max_latency_ms=5.0, **small)
    result = search(settings, workdir=tmp_path / "run")
    assert result.within_budgets
    assert result.images_per_s >= 200
    assert len(result.clocks_mhz) == 3
    content = json.loads((tmp_path / "run" / "genotype.json").read_text())
    assert content["within_budgets"] is True
    assert content["energy_mj"] == result.energy_mj > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--hardware moon", "device: expected one of"),
        ("--hardware generic --minimise energy", "--minimise: expected latency for a generic accelerator"),
        ("--hardware pipeline --search-clocks", "--search-clocks: expected with a device as --hardware"),
        ("--hardware tx2-gpu --core-mhz 3", "core_hz: expected settings of tx2-gpu"),
        ("--fpga moon", "FPGA: expected"),
        ("--predictor moon.npz", "moon.npz"),
        ("--channels 3", "channels: expected an even number, got 3"),
        ("--dataset moon", "unknown dataset 'moon'"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(f"dnas search {TINY} --workdir {tmp_path / 'run'} {flags}".split())
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.slow
def test_a_predictor_of_other_networks_is_refused(finished, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(
            f"dnas search {TINY} --hardware generic --predictor {finished / 'predictor.npz'} "
            f"--workdir {tmp_path / 'run'}".split()
        )
    assert "expected a predictor of paradigm generic, got one of pipeline" in capsys.readouterr().err
