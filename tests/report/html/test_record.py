import json

import pytest

from hadas_jax.report.html import read_record


def test_a_training_is_read_up_to_a_half_written_line(workdir):
    record = read_record(workdir)
    assert record.kind == "train"
    assert record.settings == {"seed": 1}
    assert record.metrics == ({"stage": "supernet", "step": 1, "loss": 0.5},)
    assert record.result is None


def test_a_gradient_search_gives_its_genotype(workdir):
    (workdir / "config.json").write_text(json.dumps({"form": "hadas_jax.dnas-search/1", "settings": {}}))
    (workdir / "genotype.json").write_text(json.dumps({"genotype": "Genotype(...)"}))
    record = read_record(workdir)
    assert (record.kind, record.genotype) == ("dnas-search", "Genotype(...)")


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
            "front.json: expected form hadas_jax.front/1",
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
