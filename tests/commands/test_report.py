import io
import json

import pytest
from failing_commands import fails
from rich.console import Console

from hadas_jax.cli import main
from hadas_jax.commands.reports import report


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The work directory of a training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    place = tmp_path / "trained"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"form": "hadas_jax.train/1", "settings": {}}))
    (place / "metrics.jsonl").write_text('{"stage": "supernet", "step": 1, "loss": 0.5}\n')
    return place


def test_a_report_goes_into_the_work_directory_and_can_be_made_again(trained):
    for _ in range(2):
        main(["report", str(trained)])
        assert "<title>trained</title>" in (trained / "report.html").read_text()
        (trained / "report.html").write_text("old")


def test_figures_are_written_beside_the_page(trained, tmp_path):
    text = io.StringIO()
    path = report([trained], output=tmp_path / "r.html", figures=tmp_path / "figures", console=Console(file=text))
    assert path == tmp_path / "r.html"
    assert sorted(each.name for each in (tmp_path / "figures").iterdir()) == ["progress.csv", "progress.png"]
    assert not (trained / "report.html").exists()
    assert "progress.png" in text.getvalue()


def test_figures_replace_those_of_an_earlier_report_and_never_the_files_of_a_run(trained, capsys):
    (trained / "exits.csv").write_text("of the run")
    assert "--figures trained: expected none, an empty directory or one of figures alone, got one with config.json" in (
        fails("report trained --figures trained --overwrite", capsys)
    )
    assert (trained / "exits.csv").read_text() == "of the run"
    assert not (trained / "report.html").exists()
    for _ in range(2):
        main(["report", "trained", "--figures", "figures"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report trained --figures old.html", "--figures old.html: expected a directory, got a file"),
        ("report", "WORKDIR: expected at least one work directory, got none"),
        ("report nowhere", "nowhere: expected a work directory, got one without config.json"),
        ("report trained trained", "--output: expected a file for a report of 2 runs, got none"),
        ("report trained trained -o r.html", "expected different ones"),
        ("report trained -o r.txt", "r.txt: expected a page that ends in .html, got '.txt'"),
        ("report trained -o none/r.html", "none/r.html: expected a folder that exists, got none"),
        ("report trained -o old.html", "old.html: expected a new page, got one that exists"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, trained, tmp_path, capsys):
    (tmp_path / "old.html").write_text("precious")
    assert message in fails(arguments, capsys)
    assert (tmp_path / "old.html").read_text() == "precious"
