import dataclasses
import io

import pytest
from levels import level
from rich.console import Console

from hadas_jax.evaluation import accuracy_difference
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.hadas.results import AsAccurate, Versus, level_rows
from hadas_jax.report import LineProgress, LiveProgress
from hadas_jax.report.html.content import network_rows
from hadas_jax.report.html.pictures import plot_front
from hadas_jax.report.search import print_result
from hadas_jax.settings import Constraints

LESS = accuracy_difference(5, 10, images=1000)  # -0.5 points [-1.4, +0.4]


def _design(found_by, energy):
    both = {"ideal": Performance(0.02, 1e-3, energy), "deployable": Performance(0.03, 2e-3, 1.5 * energy)}
    static, by_clocks = Performance(0.025, 3e-3, 4e-3), Performance(0.025, 4e-3, 3e-3)
    return Design(
        found_by=found_by,
        genome=(0, 1),
        backbone={"resolution": 8, "depth": [1, 2]},
        exits=(1,),
        thresholds=(0.9,),
        clocks_mhz={"core": 1.0, "memory": 2.0, "host": 3.0},
        dissimilarity=1.0,
        selection=both,
        test=both,
        static_selection=static,
        static_test=static,
        static_dvfs_selection=by_clocks,
        static_dvfs_test=by_clocks,
        static_dvfs_clocks_mhz={"core": 0.5, "memory": 2.0, "host": 3.0},
        differences={"ideal": accuracy_difference(4, 0, images=1000), "deployable": LESS},
        selection_shares=(0.5, 0.5),
        test_shares=(0.6, 0.4),
    )


@pytest.fixture(scope="module")
def result():
    designs = tuple(_design(policy, energy) for policy in ("ideal", "deployable") for energy in (1e-3, 2e-3))
    picks = {"ideal": designs[0], "deployable": designs[2]}
    at_best = Performance(0.025, 4e-3, 3e-3)
    by_clocks = dataclasses.replace(designs[0], test=dict.fromkeys(("ideal", "deployable"), at_best))
    found = level(0.975, designs[0], static_dvfs=by_clocks, exits=picks, clocks=picks, difference=LESS)
    return Result(
        designs=designs,
        levels=(found,),
        largest_test_accuracy=0.98,
        smallest_test_accuracy=0.95,
        backbones=10,
        candidates=12345,
        test_images=1000,
        accuracy_tolerance=0.005,
    )


def printed(result, width):
    text = io.StringIO()
    print_result(result, Console(file=text, width=width))
    return text.getvalue()


def test_the_table_shows_savings_against_the_static_network(result):
    shown = printed(result, 120)
    assert "97.5%" in shown
    assert "static" in shown
    assert "75%" in shown  # ideal: 1 mJ of 4 mJ
    assert "62%" in shown  # deployable: 1.5 mJ of 4 mJ
    assert "12,345 dynamic candidates" in shown


def test_the_table_shows_savings_at_best_clocks_and_differences_in_accuracy_within_eighty_columns(result):
    shown = printed(result, 80)
    lines = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    assert "25%" in lines["static + DVFS"]  # 3 mJ of 4 mJ
    assert "62%" in lines["exits + DVFS"]
    assert "50%" in lines["exits + DVFS"]  # 1.5 mJ of 3 mJ
    assert lines["exits + DVFS"].rstrip().endswith("-0.5 [-1.4, +0.4] ?")
    assert "none is shown" in lines["as accurate"]
    table = shown.split("?: not shown")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table


def test_a_test_split_that_is_too_small_to_tell_is_said(result):
    assert "too few" not in printed(result, 80)
    shown = printed(dataclasses.replace(result, test_images=270), 80)
    assert "too few to tell" in shown
    assert "even for two that never differ it takes 736." in " ".join(shown.split())
    never = printed(dataclasses.replace(result, accuracy_tolerance=0.0), 80)
    assert "no number of images shows that" in " ".join(never.split())


def test_the_network_that_is_shown_to_be_as_accurate_has_a_row_of_its_own(result):
    same = accuracy_difference(0, 0, images=1000)
    found = AsAccurate(0.98, result.designs[3], Versus(same, same))
    level = dataclasses.replace(result.levels[0], as_accurate=found)
    line = next(
        line
        for line in printed(dataclasses.replace(result, levels=(level,)), 80).splitlines()
        if line.startswith(" as accurate")
    )
    assert line.split() == ["as", "accurate", "97.0%", "2.000", "3.00", "25%", "0%", "+0.0", "[-0.4,", "+0.4]"]
    rows = level_rows(dataclasses.replace(result, levels=(level,)))
    assert (rows[-1]["network"], rows[-1]["energy_saving"], rows[-1]["verdict"]) == (
        "as accurate",
        pytest.approx(0.25),
        "as accurate",
    )


def test_the_line_joins_the_front_of_the_selection_samples_and_is_pale_where_it_falls_behind_on_test(result):
    base = result.designs[2]

    def one(selection, test):
        found = {"selection": Performance(*selection), "test": Performance(*test)}
        return dataclasses.replace(base, **{name: {"deployable": each} for name, each in found.items()})

    designs = [
        one((0.1, 1.0, 3.0), (0.10, 1.0, 3.0)),
        one((0.3, 1.0, 1.0), (0.30, 1.0, 1.0)),
        one((0.2, 1.0, 2.0), (0.30, 1.0, 2.0)),  # no better on test than the one before, and dearer
        one((0.3, 1.0, 2.5), (0.01, 1.0, 0.5)),  # not on that front, lucky on test
    ]
    rows = network_rows(dataclasses.replace(result, designs=tuple(designs), levels=()))
    assert [row["joined"]["energy"] for row in rows] == [2, 0, 1, None]
    assert [row["holds"]["energy"] for row in rows] == [True, True, False, False]


def test_limits_that_are_broken_are_said_in_one_sentence_and_drawn_and_nothing_is_said_of_none(result, tmp_path):
    near = [
        dataclasses.replace(design, excess=excess)
        for design, excess in zip(result.designs, (0, 0, 0.6, 0.5), strict=True)
    ]
    levels = [dataclasses.replace(result.levels[0], exits_and_clocks={"ideal": near[0], "deployable": near[3]})]
    limits = Constraints(max_latency_ms=1.6, min_accuracy=0.98)
    broken = dataclasses.replace(
        result,
        designs=tuple(near),
        levels=tuple(levels),
        limits=limits,
        within_limits={"ideal": True, "deployable": False},
    )
    shown = printed(broken, 120)
    sentences = [line for line in shown.splitlines() if line.startswith("No ")]
    assert sentences == [
        "No deployable design keeps the limits (latency ≤ 1.6 ms, accuracy ≥ 98%) on the samples it is chosen on; "
        "the nearest: latency 2 ms, 25% above; accuracy 97.0%, 1 points below."
    ]
    table = shown.split("No deployable")[0]
    assert "50.0% over" in table
    assert "within the limits" in table
    assert "…" not in printed(broken, 80)
    assert "limit" not in printed(result, 120)
    plot_front(broken, tmp_path / "limits.png")
    plot_front(result, tmp_path / "free.png")
    assert (tmp_path / "free.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "limits.png").read_bytes() != (tmp_path / "free.png").read_bytes()


def test_plain_progress_is_one_line_for_every_update():
    text = io.StringIO()
    progress = LineProgress(Console(file=text, width=40))
    progress.stage("search", 4)
    progress.update(1, {})
    for done in (2, 3, 4):
        progress.update(done, {"hypervolume": 0.5, "candidates": 1e6 * done})
    lines = text.getvalue().splitlines()
    assert lines[:2] == [
        "search: starts, 4 generations, the first with compilation",
        "search: 1 of 4 generations done before",
    ]
    assert len(lines) == 5
    assert lines[2].startswith("search: 2/4 generations hypervolume 0.5000")
    assert "candidates/s" in lines[3]
    assert "s left" in lines[3]
    assert "s left" not in lines[4]


def test_the_live_display_follows_the_stages():
    text = io.StringIO()
    with LiveProgress(Console(file=text, force_terminal=True, width=120)) as progress:
        with pytest.raises(ValueError, match="expected a stage"):
            progress.update(1, {})
        progress.stage("supernet", 2)
        progress.update(0, {})
        progress.update(2, {"loss": 0.25})
    assert "supernet" in text.getvalue()
    assert "loss 0.250" in text.getvalue()


def test_a_saving_is_relative_to_the_reference():
    found = Performance(0.1, 1.0, 3.0)
    assert found.saving(dataclasses.replace(found, energy_j=4.0)) == pytest.approx(0.25)


def test_rollbacks_of_a_training_are_told_once_there_are_some():
    text = io.StringIO()
    progress = LineProgress(Console(file=text, width=80))
    progress.stage("supernet", 20)
    progress.update(10, {"loss": 2.5, "rollbacks": 0.0})
    progress.update(20, {"loss": 2.0, "rollbacks": 1.0})
    assert "supernet: 10/20 steps loss 2.500\n" in text.getvalue()
    assert "supernet: 20/20 steps loss 2.000, rollbacks 1\n" in text.getvalue()
