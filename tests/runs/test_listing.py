import json
import os

import numpy as np
import pytest
from rich.console import Console

from hadas_jax.commands import list_runs
from hadas_jax.runs.listing import find_runs, read_metrics

LEVELS = """selection_accuracy_level,network,policy,test_accuracy,latency_ms,energy_mj,energy_saving
0.98,static,,0.97,0.5,5,0
0.98,exits + clocks,ideal,0.99,0.2,1,0.8
0.98,exits + clocks,deployable,0.975,0.3,2,0.6
0.9,exits + clocks,deployable,0.9,0.1,1,0.6
"""
FAIR = """selection_accuracy_level,network,policy,test_accuracy,latency_ms,energy_mj,energy_saving,energy_saving_dvfs,\
accuracy_difference,verdict
0.98,static + DVFS,,0.97,0.5,4,0.2,0,0,as accurate
0.98,exits + clocks,deployable,0.975,0.3,2,0.6,0.5,-0.005,not shown to be as accurate
"""
TUNED = '{"after": {"deployable": {"error": 0.025, "latency_s": 0.00025, "energy_j": 0.0015}}}'
EXITS = "backbone,block,test_accuracy\nlargest,2,0.8\nlargest,final,0.99\nsmallest,final,0.95\n"


def start(path, kind, metrics=(), files=(), **settings):
    """A work directory as a command leaves it."""
    path.mkdir()
    config = {"form": f"hadas_jax.{kind}/1", "settings": {"dataset": "npz:/data/my images.npz", **settings}}
    (path / "config.json").write_text(json.dumps(config))
    lines = [json.dumps({"stage": stage, "step": step, "loss": 0.5}) + "\n" for stage, step in metrics]
    if lines:
        (path / "metrics.jsonl").write_text("".join(lines))
    for name, text in files:
        (path / name).write_text(text)
    return path


def run_state(path):
    """The one run in a folder."""
    (run,) = find_runs([path])
    return run


@pytest.mark.parametrize(
    ("kind", "file", "text", "figures"),
    [
        ("search", "levels.csv", LEVELS, "97.5% at 0.3 ms, 2 mJ (60% saved)"),
        (
            "search",
            "levels.csv",
            FAIR,
            "97.5% at 0.3 ms, 2 mJ (60% saved, 50% of static + DVFS; -0.5 points, not shown to be as accurate)",
        ),
        ("train", "exits.csv", EXITS, "largest 99.0%, smallest 95.0%"),
        ("dnas-search", "genotype.json", '{"images_per_s": 1234.5, "energy_mj": null}', "1,234 images/s"),
        ("dnas-search", "genotype.json", '{"images_per_s": 50, "energy_mj": 2.5}', "50 images/s, 2.5 mJ"),
        ("dnas-retrain", "result.json", '{"test_accuracy": 0.9, "parameters": 12345}', "90.0%, 12,345 weights"),
        ("search", "levels.csv", "nothing", "levels.csv cannot be read"),
        ("fine-tune", "result.json", TUNED, "97.5% at 0.25 ms, 1.5 mJ"),
        ("fine-tune", "result.json", '{"after": {}}', "result.json cannot be read"),
        ("dnas-retrain", "result.json", "{", "result.json cannot be read"),
    ],
)
def test_a_finished_run_tells_its_figures(tmp_path, kind, file, text, figures):
    run = run_state(start(tmp_path / "run", kind, files=[(file, text)], device="my/board.yaml"))
    assert (run.kind, run.dataset, run.hardware, run.result) == (kind, "npz:my images", "board", figures)


def test_a_device_file_is_named_without_its_ending(tmp_path):
    assert run_state(start(tmp_path / "run", "search", device="my_device.yaml")).hardware == "my_device"


def test_an_unfinished_run_tells_its_stages(tmp_path):
    path = start(tmp_path / "run", "search", metrics=[("supernet", 15), ("supernet", 30), ("search", 2)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "search", "st')
    run = run_state(path)
    assert run.result is None
    assert run.steps == {"supernet": 30, "search": 2}


def test_lines_of_metrics_without_stage_and_step_are_left_out(tmp_path):
    assert read_metrics(tmp_path) == []
    lines = [
        b'{"stage": "search", "step": 1, "loss": NaN}',
        b"\xff\xfe",
        b'{"stage": "search", "step": "two"}',
        b'{"stage": 3, "step": 2}',
        b'{"step": 2}',
        b"[]",
        b'{"stage": "s\xffarch", "step": 2}',
        b'{"stage": "search", "st',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    first, damaged = read_metrics(tmp_path)
    assert (first["stage"], first["step"]) == ("search", 1)
    assert np.isnan(first["loss"])
    assert damaged == {"stage": "s\ufffdarch", "step": 2}


@pytest.mark.parametrize("config", ["", "[]", '{"form": "other/1", "settings": 3}'])
def test_a_config_that_cannot_be_read_is_listed_without_a_kind(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    run = run_state(tmp_path)
    assert (run.kind, run.dataset, run.result) == ("", "", None)


def test_fine_tuning_names_its_network_in_place_of_a_data_set(tmp_path):
    path = start(tmp_path / "run", "fine-tune", dataset=None, network="runs/mine/network")
    assert run_state(path).dataset == "mine/network"


def test_runs_are_found_once_the_newest_first(tmp_path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        path = start(tmp_path / name, "train")
        os.utime(path / "config.json", (1e9 - age, 1e9 - age))
    (tmp_path / "notes").mkdir()
    found = find_runs([tmp_path, tmp_path / "middle"])
    assert [run.path.name for run in found] == ["newest", "middle", "oldest"]
    with pytest.raises(ValueError, match="none: expected a work directory or a folder of them"):
        find_runs([tmp_path / "none"])


def test_the_table_of_runs_with_long_names_fits_eighty_columns(tmp_path, monkeypatch, capsys):
    name = "20261127-003541-digits-agx-xavier-gpu"
    start(tmp_path / name, "search", files=[("levels.csv", LEVELS)], device="agx-xavier-gpu")
    start(tmp_path / "tuned", "fine-tune", dataset=None, network=str(tmp_path / name / "network"))
    monkeypatch.chdir(tmp_path)
    console = Console(width=80)
    list_runs(["."], console=console)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) == 80
    cells = zip(*(line.split("│") for line in printed.splitlines() if line.startswith("│")), strict=True)
    columns = ["".join(cell.strip() for cell in column) for column in cells]
    for word in (name, "fine-tune", "agx-xavier-gpu", "finished", "97.5%"):
        assert any(word in column for column in columns), word


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    start(tmp_path / "sound", "train", metrics=[("supernet", 3)])
    damaged = start(tmp_path / "damaged", "train")
    (damaged / "metrics.jsonl").write_bytes(b'{"stage": "supernet", "step": 1}\n\xff\xfe\n')
    assert {run.path.name: run.steps for run in find_runs([tmp_path])} == {
        "sound": {"supernet": 3},
        "damaged": {"supernet": 1},
    }
