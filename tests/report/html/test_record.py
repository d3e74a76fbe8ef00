import json
from datetime import datetime

import numpy as np
import pytest

from hadas_jax.methods.eh_dnas.result import DnasResult, write_genotype
from hadas_jax.methods.eh_dnas.retrain import RetrainResult, write_result
from hadas_jax.report.html.content import report_content
from hadas_jax.report.html.record import read_record
from hadas_jax.spaces.darts_network import DartsNetwork

CODE = "53 033 0303 00320  15 603 0022 00440"


def test_a_training_is_read_up_to_a_half_written_line(workdir):
    record = read_record(workdir)
    assert record.kind == "train"
    assert record.settings == {"seed": 1}
    assert record.metrics == ({"stage": "supernet", "step": 1, "loss": 0.5},)
    assert record.result is None


def test_a_search_by_gradient_gives_its_network_as_it_was_written(workdir):
    result = DnasResult(
        code=CODE,
        hardware="tx2-gpu",
        images_per_s=500.0,
        energy_mj=4.0,
        clocks_mhz=(1300.5, 1866.0, 2035.2),
        within_budgets=True,
        code_without_budgets=CODE,
        alpha=tuple(map(tuple, np.linspace(0, 1, 224).reshape(28, 8).round(6).tolist())),
    )
    (workdir / "config.json").write_text(json.dumps({"form": "hadas_jax.dnas-search/1", "settings": {}}))
    assert read_record(workdir).outcome is None
    write_genotype(result, workdir, settings={})
    assert read_record(workdir).outcome == result


def test_a_retraining_gives_its_figures_as_they_were_written(workdir):
    result = RetrainResult(CODE, 0.9, 0.8, 1234, 5678)
    (workdir / "config.json").write_text(json.dumps({"form": "hadas_jax.dnas-retrain/1", "settings": {}}))
    write_result(workdir / "result.json", result, network=DartsNetwork(), settings={})
    assert read_record(workdir).outcome == result


def test_fine_tuning_gives_what_the_network_does_before_and_after(workdir):
    figures = {"error": 0.1, "latency_s": 0.002, "energy_j": 0.003}
    split = {name: figures for name in ("ideal", "deployable", "static")} | {"shares": [0.5, 0.5]}
    (workdir / "config.json").write_text(json.dumps({"form": "hadas_jax.fine-tune/1", "settings": {}}))
    content = {"form": "hadas_jax.fine-tune/1", "before": split, "after": split, "settings": {}}
    (workdir / "result.json").write_text(json.dumps(content))
    record = read_record(workdir)
    assert record.outcome.after.deployable.accuracy == pytest.approx(0.9)
    (run,) = report_content([record], made=datetime(2026, 1, 1))["runs"]
    assert ["after fine-tuning", "90.00 %, 2 ms, 3 mJ"] in run["facts"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected a work directory, got one without config.json"),
        ({"config.json": "{"}, "config.json: expected a JSON file, cannot read it"),
        ({"config.json": "[]"}, "config.json: expected an object, got list"),
        ({"config.json": '{"form": "other/1", "settings": {}}'}, "expected form hadas_jax.KIND/1 with settings"),
        ({"config.json": '{"form": "hadas_jax.search/1", "settings": {}}'}, "expected a finished search"),
        ({"config.json": '{"form": "hadas_jax.train/1", "settings": {}}'}, "one of kind train that has none yet"),
        (
            {"config.json": '{"form": "hadas_jax.search/1", "settings": {}}', "front.json": '{"form": "x/1"}'},
            "expected a search that says which images it used, got one of an earlier version",
        ),
        (
            {
                "config.json": '{"form": "hadas_jax.search/1", "settings": {}, "data": {}}',
                "front.json": '{"form": "x/1"}',
            },
            "front.json: expected form hadas_jax.front/2",
        ),
        (
            {
                "config.json": '{"form": "hadas_jax.dnas-search/1", "settings": {}}',
                "genotype.json": '{"form": "hadas_jax.genotype/2"}',
            },
            "genotype.json: expected form hadas_jax.genotype/1, got 'hadas_jax.genotype/2'",
        ),
        (
            {
                "config.json": '{"form": "hadas_jax.dnas-retrain/1", "settings": {}}',
                "result.json": '{"form": "hadas_jax.retrained/1", "code": "1"}',
            },
            "result.json: validation_accuracy: expected a value, got nothing",
        ),
        (
            {
                "config.json": '{"form": "hadas_jax.train/1", "settings": {}}',
                "metrics.jsonl": '{"stage": "a", "step": 1}\n',
                "exits.csv": "a,b\n1,2\n",
            },
            "exits.csv: expected columns backbone, block, test_accuracy, got a, b",
        ),
    ],
)
def test_what_is_no_run_is_said_in_one_line(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="expected") as error:
        read_record(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
