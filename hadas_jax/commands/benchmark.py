"""The command that measures search throughput, as a library call."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

from hadas_jax.benchmark import Throughput, measure_throughput, plot_throughput, pymoo_version, throughput_table
from hadas_jax.report.console import new_console, say
from hadas_jax.runs.workdir import versions, write_text

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
    """Measures search throughput, prints a table, and writes it as JSON with a picture beside it.

    Args:
        output: JSON file; a PNG of the same name goes beside it. None: nothing is written.
        device: Cost model, a name or the path of a device file.
        populations: Sizes to measure.
        rounds: Measurements of each, of which the median counts.
        peer_limit: Largest population that pymoo gets where it is installed; 0: none.
        seed: Of everything random.
        overwrite: Replace the files.
        console: For the table; None: standard output.

    Returns:
        What was measured.

    Raises:
        ValueError: Files that exist, an unknown device, or numbers that are too small.
    """
    console = console or new_console()
    target = None if output is None else _target(Path(output), overwrite=overwrite)
    rows = []
    for row in measure_throughput(
        device=device, populations=populations, rounds=rounds, peer_limit=peer_limit, seed=seed
    ):
        rows.append(row)
        say(console, f"{row.work}, population {row.population:,}: {row.per_second:,.0f} candidates per second")
    title = f"Search throughput: {jax.device_count()} {jax.devices()[0].device_kind}, {device}"
    console.print(throughput_table(rows, title=title))
    if target is not None:
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
        plot_throughput(rows, target.with_suffix(".png"), title=title)
        say(console, f"Written: {target}, {target.with_suffix('.png')}")
    return rows


def _target(path: Path, *, overwrite: bool) -> Path:
    if path.suffix != ".json":
        raise ValueError(f"--output: expected a .json file, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"--output: expected a file in an existing folder, got {path}")
    taken = [str(file) for file in (path, path.with_suffix(".png")) if file.exists()]
    if taken and not overwrite:
        raise ValueError(f"--output: {taken[0]} exists; --overwrite replaces it")
    return path
