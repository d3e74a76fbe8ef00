"""Every `hadas` line that a document shows is one that the program understands."""

import shlex

import documents
import pytest

from hadas_jax.cli import parse
from hadas_jax.runs.workdir import WorkDir

LINES = sorted(
    {(page.name, shlex.join(words)) for page in documents.pages() for words in documents.command_lines(page)}
)


@pytest.fixture(autouse=True)
def _runs_to_resume_are_there(monkeypatch):
    monkeypatch.setattr(WorkDir, "settings", lambda place: {})


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_a_line_can_be_read(page, line):
    assert callable(parse(shlex.split(line)))


def test_lines_are_found_in_readme_and_in_most_pages():
    assert len(LINES) > 60
    assert len({page for page, _ in LINES}) > 12


def test_a_line_with_a_flag_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["search", "--popluation", "3"])
    assert stop.value.code == 2
    assert "--popluation" in capsys.readouterr().err
