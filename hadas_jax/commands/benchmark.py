"""The command that measures search throughput.

It imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from hadas_jax.report.console import new_console, new_file, print_line

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

    from hadas_jax.benchmark import measure_throughput, plot_throughput, pymoo_version, throughput_table
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
    console.print(throughput_table(rows, title=title))
    if output is not None:
        content = {
            "form": FORM,
            "device": device,
            "machine": {"backend": jax.default_backend(), "devices": [d.device_kind for d in jax.devices()]},
            "versions": {**versions(), "pymoo": pymoo_version()},
            "seed": seed,
            "rounds": rounds,
            "rows": [dataclasses.asdict(row) | {"per_second": row.per_second} for row in rows],
        }
        write_text(target, json.dumps(content, indent=1) + "\n")
        plot_throughput(rows, picture, title=title)
        print_line(console, f"Written: {target}, {picture}")
    return rows
