"""The commands as library calls, for notebooks and scripts; the command line adds only its flags."""

import dataclasses
import re
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console

from hadas_jax.methods import Result, Run, Settings
from hadas_jax.parallel import is_first
from hadas_jax.report import LineProgress, LiveProgress, plot_front, print_result
from hadas_jax.workdir import WorkDir


def default_workdir(settings: Settings) -> Path:
    """Returns runs/<time>-<dataset>-<device>."""
    names = (Path(name).stem if "/" in name or ":" in name else name for name in (settings.dataset, settings.device))
    words = [datetime.now().strftime("%Y%m%d-%H%M%S"), *(re.sub(r"[^\w.-]+", "_", name) for name in names)]
    return Path("runs") / "-".join(words)


def search(
    settings: Settings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Result:
    """Runs HADAS: trains, searches, sets thresholds, reports; keeps everything in a work directory.

    Args:
      settings: of the run; None: the defaults, or when resuming those that the run was started with.
      workdir: of the run; None: a new one, `default_workdir`.
      resume: continue the run in `workdir`; a finished one only reports again.
      overwrite: replace the run in `workdir`.
      console: for progress and tables; None: standard output.

    Returns:
      The designs found. The work directory then holds config.json, front.csv, front.json, levels.csv, front.png,
      metrics.jsonl and checkpoints/.

    Raises:
      ValueError: settings, files or the work directory do not fit, or a loss is no longer finite.

    Example:
      >>> from hadas_jax.commands import search
      >>> from hadas_jax.methods import Settings
      >>> result = search(Settings(device="agx-xavier-gpu", population=32))  # doctest: +SKIP
      >>> result.levels[0].exits_and_clocks["deployable"].clocks_mhz  # doctest: +SKIP
    """
    if resume and overwrite:
        raise ValueError("--resume and --overwrite: expected one of them, got both")
    if resume and workdir is None:
        raise ValueError("--resume: expected --workdir with the run to continue, got none")
    if resume:
        started = stored_settings(workdir)
        settings = settings or started
        changed = [
            f.name for f in dataclasses.fields(settings) if getattr(settings, f.name) != getattr(started, f.name)
        ]
        if changed:
            name = changed[0]
            raise ValueError(
                f"--resume: expected the settings that the run was started with, got {name} "
                f"{getattr(settings, name)!r} instead of {getattr(started, name)!r}"
            )
    settings = settings or Settings()
    run = Run(settings)
    place = WorkDir(Path(workdir) if workdir is not None else default_workdir(settings))
    if not resume:
        place.start(dataclasses.asdict(settings), overwrite=overwrite)
    console = console or Console(file=sys.stdout, quiet=not is_first())
    console.print(f"Work directory: {place.path}", highlight=False, soft_wrap=True)
    if console.is_terminal:
        with LiveProgress(console) as live:
            result = run.execute(place, live)
    else:
        result = run.execute(place, LineProgress(console))
    if is_first():
        plot_front(result, place.path / "front.png")
    print_result(result, console)
    console.print(
        f"Written: {place.path}/front.csv, front.json, levels.csv, front.png", highlight=False, soft_wrap=True
    )
    return result


def stored_settings(workdir: Path | str | None) -> Settings:
    """Returns the settings that the run in a work directory was started with.

    Raises:
      ValueError: there is no run, or its settings cannot be read.
    """
    place = WorkDir(Path(workdir or "."))
    return Settings.from_mapping(place.settings(), source=str(place.path / "config.json"))
