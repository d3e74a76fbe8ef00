import dataclasses
import io
import json

import pytest
from rich.console import Console

from hadas_jax import benchmark
from hadas_jax.benchmark import GENERATIONS, WORK, measure_throughput
from hadas_jax.commands.benchmark import bench


@pytest.fixture(scope="module")
def written(tiny_space, tmp_path_factory):
    """A small measurement with pymoo beside it, in a small space: the rows, the file and what was printed."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "load_space", {"attentivenas": tiny_space}.get)
        rows = bench(
            path, device="tx2-cpu", populations=(8,), rounds=1, peer_limit=80, console=Console(file=printed, width=120)
        )
    return rows, path, printed.getvalue()


def test_every_part_of_the_search_is_measured_and_pymoo_where_it_has_the_part(written):
    rows, _, _ = written
    assert [row.work for row in rows] == list(WORK)
    by_work = {row.work: row for row in rows}
    assert by_work["generation"].candidates == 8
    assert by_work["search"].candidates == 8 * (GENERATIONS + 1)
    assert by_work["inner search"].candidates == 8 * 12 * 11
    for row in rows:
        assert row.per_second > 0
        assert row.first_call_s > 0
        measured = (row.peer_seconds is not None, row.peer_unique_seconds is not None)
        assert measured == ((True, True) if row.work in ("variation", "generation", "search") else (False, False))


def test_figures_are_written_with_versions_and_a_picture(written):
    rows, path, text = written
    content = json.loads(path.read_text())
    assert content["form"] == "hadas_jax.bench/1"
    assert content["versions"]["pymoo"]
    assert [row["per_second"] for row in content["rows"]] == [row.per_second for row in rows]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "candidates" in text
    assert text.count("pymoo") >= 2


def test_the_table_fits_eighty_columns_and_has_no_columns_of_peers_where_there_are_none(written, monkeypatch):
    rows, _, _ = written
    alone = [dataclasses.replace(row, peer_seconds=None, peer_unique_seconds=None) for row in rows]
    shown = []
    for some in (rows, alone):
        console = Console(file=io.StringIO(), width=80)
        monkeypatch.setattr(benchmark, "measure_throughput", lambda some=some, **_: iter(some))
        bench(console=console)
        shown.append(console.file.getvalue())
        assert "…" not in shown[-1]
        assert all(work in shown[-1] for work in WORK)
    assert ["pymoo" in text for text in shown] == [True, False]


def test_nothing_is_overwritten_unasked(written):
    _, path, _ = written
    with pytest.raises(ValueError, match="exists; `overwrite` replaces it"):
        bench(path, populations=(40,))
    with pytest.raises(ValueError, match=r"expected a file that ends in \.json"):
        bench(path.with_suffix(".txt"))
    with pytest.raises(ValueError, match="expected a folder that exists"):
        bench(path.parent / "missing" / "bench.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"populations": (1,)}, r"populations: expected sizes of at least 2, got \[1\]"),
        ({"populations": ()}, "populations: expected sizes"),
        ({"rounds": 0}, "rounds: expected at least 1, got 0"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_numbers_that_are_too_small_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        next(measure_throughput(**settings))
