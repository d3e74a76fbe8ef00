import dataclasses
import json
from datetime import datetime

import pytest

from hadas_jax.deploy.robustness import UnderCorruption
from hadas_jax.methods.hadas.results import Percentiles
from hadas_jax.report.html.content import MOST_RUNS, network_rows, report_content
from hadas_jax.report.html.page import render_page
from hadas_jax.report.html.pictures import plot_tables


def test_every_network_is_there_once_with_the_figures_of_its_policy(content):
    rows = content["runs"][0]["networks"]
    kinds = [row["kind"] for row in rows]
    counts = {"ideal": 3, "deployable": 3, "exits": 2, "static": 1, "static + DVFS": 1}
    assert {kind: kinds.count(kind) for kind in kinds} == counts
    ideal, deployable = rows[0], rows[2]
    assert [ideal[name] for name in ("accuracy", "latency", "energy")] == pytest.approx([95.0, 1.0, 1.0])
    assert [deployable[name] for name in ("accuracy", "latency", "energy")] == pytest.approx([90.0, 2.0, 1.5])
    static = next(row for row in rows if row["kind"] == "static")
    assert [static[name] for name in ("accuracy", "latency", "energy")] == pytest.approx([91.0, 5.0, 8.0])
    by_clocks = next(row for row in rows if row["kind"] == "static + DVFS")
    assert [by_clocks[name] for name in ("accuracy", "latency", "energy")] == pytest.approx([91.0, 6.0, 6.0])
    for row in rows:
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_members_of_the_front_of_the_selection_samples_are_joined_and_those_behind_on_test_are_pale(content):
    rows = [row for row in content["runs"][0]["networks"] if row["kind"] == "deployable"]
    assert [row["energy"] for row in rows] == pytest.approx([1.5, 3.0, 6.0])
    # All have the same error on the selection samples: the cheapest alone is on that front.
    assert [row["joined"]["energy"] for row in rows] == [0, None, None]
    assert [row["holds"]["energy"] for row in rows] == [True, False, False]


def test_savings_are_against_the_static_networks_of_their_level(content):
    rows = {(row["network"], row["policy"]): row for row in content["runs"][0]["levels"]}
    assert rows["static", ""]["energy_saved"] == 0
    assert rows["exits + clocks", "deployable"]["energy_saved"] == pytest.approx(100 * (1 - 3.0 / 8.0))
    assert rows["exits + clocks", "deployable"]["energy_saved_dvfs"] == pytest.approx(100 * (1 - 3.0 / 6.0))
    assert rows["static + DVFS", ""]["energy_saved"] == pytest.approx(100 * (1 - 6.0 / 8.0))
    assert rows["exits", "deployable"]["accuracy_difference"] == pytest.approx(-1.0)
    assert rows["exits", "deployable"]["verdict"] == "not shown to be as accurate"
    assert "100 test images are too few to tell" in content["runs"][0]["legend"][-1]
    assert rows["exits + clocks", "ideal"]["latency_saved"] == pytest.approx(100 * (1 - 2.0 / 5.0))


def test_what_corruptions_do_is_a_table_or_a_note_why_not(record):
    found = UnderCorruption("blur", 2, 0.75, 0.8, 1e-3, 2e-3, 3e-3, (0.25, 0.25, 0.5))
    content = report_content([record], made=datetime(2026, 1, 1), robustness=[(found,)])
    (row,) = content["runs"][0]["corruptions"]
    assert row == {
        "corruption": "blur",
        "strength": 2,
        "accuracy": 75.0,
        "classifier_accuracy": 80.0,
        "stopped": 50.0,
        "latency": 1.0,
        "p99": 2.0,
        "energy": 3.0,
    }
    assert plot_tables(content)["corruptions"] == [{"run": content["runs"][0]["name"], **row}]
    page = render_page(content)
    assert "Under corruption" in page
    assert "75.0 %" in page
    (run,) = report_content([record], made=datetime(2026, 1, 1), robustness=["no weights"])["runs"]
    assert run["corruptions"] == []
    assert "no weights" in run["notes"]


def test_latencies_sizes_and_aurocs_of_networks_are_there_where_a_search_tells_them(record, content):
    known = Percentiles(1e-3, 2e-3, 3e-3, 4e-3)
    told = {"test_percentiles": dict.fromkeys(("ideal", "deployable"), known), "test_aurocs": (0.75, None)}
    told["test_eces"] = (0.25, 0.5)
    told |= {"peak_memory_bytes": 2500, "weight_bytes": 12000}
    designs = tuple(dataclasses.replace(design, **told) for design in record.result.designs)
    row = network_rows(dataclasses.replace(record.result, designs=designs))[0]
    assert row["percentiles"]["ideal"] == {"p50": 1.0, "p95": 2.0, "p99": 3.0, "longest": 4.0}
    assert row["sizes"] == {"memory": 2.5, "weights": 12.0}
    assert (row["aurocs"], row["eces"]) == ([0.75, None], [0.25, 0.5])
    before = content["runs"][0]["networks"][0]
    assert (before["percentiles"], before["sizes"], before["aurocs"], before["eces"]) == ({}, None, [], [])


def test_curves_are_by_stage_and_metric(overlay):
    assert overlay["runs"][0]["curves"]["search"]["hypervolume"] == {"steps": [1, 2, 3], "values": [0.5, 0.75, 0.875]}
    supernet = overlay["runs"][2]["curves"]["supernet"]
    assert supernet["accuracy"] == {"steps": [1, 2], "values": [0.1, 0.2]}
    assert supernet["loss"]["values"] == [None, None]


def test_the_classifier_follows_the_last_exit(overlay):
    (curve,) = overlay["runs"][2]["exits"].values()
    assert curve == {
        "blocks": [2, 3, 4],
        "accuracies": [80.0, 85.0, 90.0],
        "aurocs": [{}, {}, {}],
        "eces": [{}, {}, {}],
    }


def test_thresholds_that_nobody_passes_are_none_and_content_is_plain_json(content):
    assert content["runs"][0]["networks"][0]["thresholds"] == [0.75, None]
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_runs_of_one_name_are_told_apart_by_their_paths(record, tmp_path):
    content = report_content(
        [record, dataclasses.replace(record, path=tmp_path / "other" / "one")], made=datetime(2026, 1, 1)
    )
    assert [run["name"] for run in content["runs"]] == [str(tmp_path / "one"), str(tmp_path / "other" / "one")]


def test_a_device_that_is_gone_leaves_out_the_clocks_and_says_so(record):
    (run,) = report_content([record], made=datetime(2026, 1, 1))["runs"]
    assert run["clock_grid"] is None
    assert run["notes"][0].startswith("Energy over clocks is left out: ")
    assert "\n" not in run["notes"][0]


@pytest.mark.parametrize("count", [0, MOST_RUNS + 1])
def test_too_many_runs_or_none_are_refused(record, count):
    with pytest.raises(ValueError, match=f"expected 1 to {MOST_RUNS}, got {count}"):
        report_content([record] * count, made=datetime(2026, 1, 1))


def test_a_run_given_twice_is_refused(record):
    with pytest.raises(ValueError, match=r"expected different ones, got .*one twice"):
        report_content([record, record], made=datetime(2026, 1, 1))
