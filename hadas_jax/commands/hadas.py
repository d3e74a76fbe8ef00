"""The command that searches with HADAS.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rich.console import Console

from hadas_jax.commands.run import RunArguments, run_command
from hadas_jax.report.console import print_line
from hadas_jax.settings import SearchSettings

if TYPE_CHECKING:
    from hadas_jax.methods import Result, Run


def search(
    settings: SearchSettings | None = None,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **run: Unpack[RunArguments],
) -> Result:
    """Searches dynamic networks with HADAS: trains a supernet and its exits, searches backbones, exits and clocks.

    Writes config.json, front.csv, front.json, levels.csv, front.png, metrics.jsonl, checkpoints/ and what it trains,
    supernet/, into the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        coordinator: HOST:PORT of the first of several processes that search together; auto on SLURM, Open MPI and TPU
            pods. JAX must not have been used before.
        num_processes: Number of these processes.
        process_id: Which of them this is, from 0; the first alone writes and prints.
        **run: See `RunArguments`.

    Returns:
        The designs found.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.

    Examples:
        >>> from hadas_jax.commands import search
        >>> from hadas_jax.settings import SearchSettings
        >>> result = search(SearchSettings.of(device="agx-xavier-gpu", population=32))  # doctest: +SKIP
        >>> result.levels[0].exits_and_clocks["deployable"].clocks_mhz  # doctest: +SKIP
    """
    from hadas_jax.backend import connect
    from hadas_jax.methods import Run
    from hadas_jax.report.html.pictures import plot_front
    from hadas_jax.report.search import print_result

    def finish(started: Run, result: Result, path: Path, console: Console) -> None:
        plot_front(result, path / "front.png")
        print_result(result, console)
        print_line(console, f"Written: {path}/front.csv, front.json, levels.csv, front.png")
        report, select = (shlex.join(["hadas", command, str(path)]) for command in ("report", "select"))
        print_line(console, f"A page to look at: {report}; one network of the front: {select}")

    connect(coordinator, num_processes, process_id)
    return run_command(
        SearchSettings,
        Run,
        settings,
        execute=Run.execute,
        name=lambda started: (started.settings.data.dataset, started.settings.device),
        finish=finish,
        **run,
    )
