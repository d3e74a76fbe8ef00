"""The command that measures search throughput.

It imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hadas_jax.report.console import new_console, new_file, new_table, print_line

if TYPE_CHECKING:
    from hadas_jax.benchmark import Throughput

FORM = "hadas_jax.bench/1"


def bench(
    output: Path | str | None = None,
    *,
    device: str = "agx-xavier-gpu",
    populations: Sequence[int] = (64, 256, 1024, 4096, 16384, 65536),
    rounds: int = 5,
    peer_limit: int = 16384,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[Throughput]:
    """Measures how many candidates per second each part of a search gets through, beside pymoo where installed.

    Args:
        output: JSON file to write; a picture goes beside it. By default nothing is written.
        device: Cost model: a name of `hadas devices list`, or the path of a device file.
        populations: Population sizes to measure.
        rounds: Measurements of each, of which the median counts.
        peer_limit: Largest population that pymoo gets, a tenth of it where it removes duplicates; 0: none.
        seed: Random seed.
        overwrite: Replace `output` and its picture.
        console: For progress and the table; None: standard output.

    Returns:
        What was measured.

    Raises:
        ValueError: Files that exist, an unknown device, or numbers that are too small.
    """
    import jax

    from hadas_jax.benchmark import measure_throughput
    from hadas_jax.runs.workdir import versions, write_text

    console = console or new_console()
    if output is not None:
        target = new_file(output, ".json", overwrite=overwrite)
        picture = new_file(target.with_suffix(".png"), ".png", what="picture", overwrite=overwrite)
    rows = []
    for row in measure_throughput(
        device=device, populations=populations, rounds=rounds, peer_limit=peer_limit, seed=seed
    ):
        rows.append(row)
        print_line(console, f"{row.work}, population {row.population:,}: {row.per_second:,.0f} candidates per second")
    title = f"Search throughput: {jax.device_count()} {jax.devices()[0].device_kind}, {device}"
    console.print(_throughput_table(rows, title=title))
    if output is not None:
        content = {
            "form": FORM,
            "device": device,
            "machine": {"backend": jax.default_backend(), "devices": [d.device_kind for d in jax.devices()]},
            "versions": {**versions(), "pymoo": importlib.metadata.version("pymoo") if find_spec("pymoo") else None},
            "seed": seed,
            "rounds": rounds,
            "rows": [dataclasses.asdict(row) | {"per_second": row.per_second} for row in rows],
        }
        write_text(target, json.dumps(content, indent=1) + "\n")
        _plot(rows, picture, title=title)
        print_line(console, f"Written: {target}, {picture}")
    return rows


def _throughput_table(rows: Sequence[Throughput], *, title: str) -> Table:
    """Candidates per second by work and population, and how many times as fast as pymoo that is."""
    peers = ("times\npymoo", "times\npymoo\nunique") if any(row.peer_seconds for row in rows) else ()
    headings = ("popu-\nlation", "candidates\nper second", "one call\nms", "first call\ns", *peers)
    table = new_table(title, "work", *headings, no_wrap=True)
    table.columns[0].no_wrap = True
    for work in dict.fromkeys(row.work for row in rows):
        for row in (row for row in rows if row.work == work):
            cells = (_short(row.per_second), f"{1e3 * row.seconds:.3g}", f"{row.first_call_s:.2f}")
            ratios = (_times(row.peer_seconds, row.seconds), _times(row.peer_unique_seconds, row.seconds))
            table.add_row(work, f"{row.population:,}", *cells, *(ratios if peers else ()))
        table.add_section()
    return table


def _plot(rows: Sequence[Throughput], path: Path, *, title: str) -> None:
    """Draws candidates per second over population size as a PNG; pymoo's dashed."""
    from hadas_jax.report.pictures import new_figure, save_picture

    figure, [[axis]] = new_figure((7.5, 4.8))
    for number, work in enumerate(dict.fromkeys(row.work for row in rows)):
        points = [row for row in rows if row.work == work]
        colour = f"C{number}"
        axis.plot([r.population for r in points], [r.per_second for r in points], "o-", c=colour, label=work)
        peers = [(r.population, r.candidates / r.peer_seconds) for r in points if r.peer_seconds]
        if peers:
            axis.plot(*zip(*peers, strict=True), "s--", c=colour, alpha=0.6, label=f"{work}, pymoo")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("population (exit subsets for the inner search)")
    axis.set_ylabel("candidates per second")
    axis.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, ncols=4)
    axis.set_title(title, fontsize=10)
    save_picture(figure, path)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _times(peer: float | None, seconds: float) -> str:
    return "" if peer is None else f"{peer / seconds:.1f}"
