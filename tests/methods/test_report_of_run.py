from datetime import datetime

import pytest

from hadas_jax.commands.reports import report
from hadas_jax.report.html.content import report_content
from hadas_jax.report.html.pictures import plot_tables
from hadas_jax.report.html.record import read_record


@pytest.fixture(scope="module")
def content(finished):
    return report_content([read_record(finished[0])], made=datetime(2026, 1, 1))


def test_the_report_of_a_search_has_all_its_designs_and_their_clocks(finished, content):
    (run,) = content["runs"]
    assert run["notes"] == []
    designs = [row for row in run["networks"] if row["kind"] in ("ideal", "deployable")]
    assert [tuple(row["genome"]) for row in designs] == [design.genome for design in finished[1].designs]
    for row in run["networks"]:
        core, memory, _ = row["curves"]["at"]
        energy = row["curves"]["energy"][row["curves"]["memory"].index(memory)][core]
        assert energy == pytest.approx(row["metrics"]["deployable"]["energy"], rel=1e-3)


def test_the_report_of_a_search_has_every_figure_but_those_of_trainings(content):
    assert list(plot_tables(content)) == ["front", "gains", "exit_usage", "clocks", "progress"]


def test_the_page_of_a_search_is_written_below_six_megabytes(finished, tmp_path):
    assert report([finished[0]], output=tmp_path / "report.html").stat().st_size < 6e6
