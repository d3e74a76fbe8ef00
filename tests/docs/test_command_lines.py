"""Every `hadas` line that a document shows is one that the program understands."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import documents
import pytest

from hadas_jax.cli import parse
from hadas_jax.methods.hadas import results
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import SearchSettings

# Each line with one of the pages that show it.
LINES = {shlex.join(words): page.name for page in documents.pages() for words in documents.command_lines(page)}


@pytest.fixture(autouse=True)
def _runs_to_resume_are_there(monkeypatch):
    monkeypatch.setattr(WorkDir, "settings", lambda place: {})
    search = SimpleNamespace(settings=SearchSettings(), supernet=Path("supernet"))
    monkeypatch.setattr(results, "read_search", lambda workdir: search)


@pytest.mark.parametrize("line", sorted(LINES), ids=lambda line: f"{LINES[line]}: {line}")
def test_a_line_can_be_read(line):
    assert callable(parse(shlex.split(line)))


def test_lines_are_found_in_readme_and_in_most_pages():
    assert len(LINES) > 60
    assert len(set(LINES.values())) > 12


def test_a_line_with_a_flag_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["search", "--popluation", "3"])
    assert stop.value.code == 2
    assert "--popluation" in capsys.readouterr().err
