import dataclasses
import io

import pytest
from rich.console import Console

from hadas_jax.methods import Design, Level, Limits, Performance, Result
from hadas_jax.report import LineProgress, LiveProgress, plot_front, print_result


def _design(found_by, energy):
    both = {"ideal": Performance(0.02, 1e-3, energy), "deployable": Performance(0.03, 2e-3, 1.5 * energy)}
    static = Performance(0.025, 3e-3, 4e-3)
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
        selection_shares=(0.5, 0.5),
        test_shares=(0.6, 0.4),
    )


@pytest.fixture(scope="module")
def result():
    designs = tuple(_design(policy, energy) for policy in ("ideal", "deployable") for energy in (1e-3, 2e-3))
    picks = {"ideal": designs[0], "deployable": designs[2]}
    level = Level(accuracy=0.975, static=designs[0], exits=picks, exits_and_clocks=picks)
    return Result(
        designs=designs,
        levels=(level,),
        largest_test_accuracy=0.98,
        smallest_test_accuracy=0.95,
        backbones=10,
        candidates=12345,
    )


def test_the_table_shows_savings_against_the_static_network(result):
    text = io.StringIO()
    print_result(result, Console(file=text, width=120))
    shown = text.getvalue()
    assert "97.5%" in shown
    assert "static" in shown
    assert "75%" in shown  # ideal: 1 mJ of 4 mJ
    assert "62%" in shown  # deployable: 1.5 mJ of 4 mJ
    assert "12,345 dynamic versions" in shown


def test_the_picture_is_a_png(result, tmp_path):
    plot_front(result, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_limits_that_are_broken_are_said_in_one_sentence(result, tmp_path):
    near = [
        dataclasses.replace(design, excess=excess)
        for design, excess in zip(result.designs, (0, 0, 0.6, 0.5), strict=True)
    ]
    limits = Limits(max_latency_ms=1.6, min_accuracy=0.98)
    broken = dataclasses.replace(
        result, designs=tuple(near), limits=limits, within_limits={"ideal": True, "deployable": False}
    )
    text = io.StringIO()
    print_result(broken, Console(file=text, width=120))
    sentences = [line for line in text.getvalue().splitlines() if line.startswith("No ")]
    assert sentences == [
        "No deployable design keeps the limits (latency ≤ 1.6 ms, accuracy ≥ 98%) on the samples it is chosen on; "
        "the nearest: latency 2 ms, 25% above; accuracy 97.0%, 1 points below."
    ]
    table = text.getvalue().split("No deployable")[0]
    assert "limit" in table
    narrow = io.StringIO()
    print_result(broken, Console(file=narrow, width=80))
    assert "…" not in narrow.getvalue()
    plot_front(broken, tmp_path / "limits.png")
    plot_front(result, tmp_path / "free.png")
    assert (tmp_path / "limits.png").read_bytes() != (tmp_path / "free.png").read_bytes()


def test_nothing_is_said_of_limits_where_there_are_none(result):
    text = io.StringIO()
    print_result(result, Console(file=text, width=120))
    assert "limit" not in text.getvalue()


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
