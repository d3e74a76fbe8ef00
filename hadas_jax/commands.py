"""The commands as library calls, for notebooks and scripts; the command line adds only its flags."""

import dataclasses
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.methods import Progress, Result, Run, Settings, TrainSettings
from hadas_jax.methods.eh_dnas.settings import DnasSettings
from hadas_jax.methods.retrain_settings import RetrainSettings
from hadas_jax.methods.stored_settings import StoredSettings
from hadas_jax.outputs import say
from hadas_jax.parallel import is_first
from hadas_jax.report import LineProgress, LiveProgress, plot_front, print_result
from hadas_jax.workdir import WorkDir

# Settings that a resumed run may change: how networks are judged, not what is found.
FREE = ("eval_batch", "group", "accuracy_tolerance")
# Of work directories.
KINDS: dict[type, str] = {
    Settings: "search",
    TrainSettings: "train",
    DnasSettings: "dnas-search",
    RetrainSettings: "dnas-retrain",
    FineTuneSettings: "fine-tune",
}

AnySettings = TypeVar("AnySettings", bound=StoredSettings)
T = TypeVar("T")


def default_workdir(dataset: str, what: str) -> Path:
    """Returns runs/<time>-<dataset>-<what>, where `what` is the device or the command."""
    names = (Path(name.rpartition(":")[2]).stem for name in (dataset, what))
    words = [datetime.now().strftime("%Y%m%d-%H%M%S"), *(re.sub(r"[^\w.-]+", "_", name) for name in names)]
    return Path("runs") / "-".join(words)


def search(
    settings: Settings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> Result:
    """Runs HADAS: trains, searches, sets thresholds, reports; keeps everything in a work directory.

    Args:
      settings: of the run; None: the defaults, or when resuming those that the run was started with.
      workdir: of the run; None: a new one, `default_workdir`.
      resume: continue the run in `workdir`; a finished one only reports again.
      overwrite: replace the run in `workdir`.
      tensorboard: write metrics into tensorboard/ too; needs the extra `tensorboard`.
      console: for progress and tables; None: standard output.

    Returns:
      The designs found. The work directory then holds config.json, front.csv, front.json, levels.csv, front.png,
      metrics.jsonl, checkpoints/ and, where the run trained any of it, supernet/.

    Raises:
      ValueError: settings, files or the work directory do not fit, or a loss is no longer finite.

    Examples:
      >>> from hadas_jax.commands import search
      >>> from hadas_jax.methods import Settings
      >>> result = search(Settings(device="agx-xavier-gpu", population=32))  # doctest: +SKIP
      >>> result.levels[0].exits_and_clocks["deployable"].clocks_mhz  # doctest: +SKIP
    """
    settings = settings_of_run(settings, Settings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = Run(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.dataset, settings.device)
    place = WorkDir(path, tensorboard=tensorboard)
    if not resume:
        place.start(dataclasses.asdict(settings), overwrite=overwrite, reads=settings.checkpoint)
    console = console or Console(file=sys.stdout, quiet=not is_first())
    result = followed(run.execute, place, console)
    if is_first():
        plot_front(result, place.path / "front.png")
    print_result(result, console)
    for line in (
        f"Written: {place.path}/front.csv, front.json, levels.csv, front.png",
        f"A page to look at: hadas report {place.path}; one network of the front: hadas select {place.path}",
    ):
        say(console, line)
    return result


def settings_of_run(
    settings: AnySettings | None,
    kind: type[AnySettings],
    *,
    workdir: Path | str | None,
    resume: bool,
    overwrite: bool,
) -> AnySettings:
    """Returns the settings of a run that is started or resumed.

    Args:
      settings: given ones; None: the defaults, or when resuming those that the run was started with.
      kind: their class.
      workdir: of the run.
      resume: the run is there already.
      overwrite: what is there is replaced.

    Raises:
      ValueError: arguments that contradict each other, or settings other than those of the run to resume.
    """
    if not resume:
        return settings or kind()
    if overwrite:
        raise ValueError("--resume and --overwrite: expected one of them, got both")
    if workdir is None:
        raise ValueError("--resume: expected --workdir with the run to continue, got none")
    started = stored_settings(workdir, kind)
    settings = settings or started
    fixed = [field.name for field in dataclasses.fields(settings) if field.name not in FREE]
    changed = [name for name in fixed if getattr(settings, name) != getattr(started, name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"--resume: expected the settings that the run was started with, got {name} "
            f"{getattr(settings, name)!r} instead of {getattr(started, name)!r}"
        )
    return settings


def stored_settings(workdir: Path | str | None, kind: type[AnySettings]) -> AnySettings:
    """Returns the settings that the run in a work directory was started with.

    Args:
      workdir: of the run.
      kind: `Settings` of a search or `TrainSettings` of a training.

    Raises:
      ValueError: there is no such run, or its settings cannot be read.
    """
    place = WorkDir(Path(workdir or "."), kind=KINDS[kind])
    return kind.from_mapping(place.settings(), source=str(place.path / "config.json"))


def followed(execute: Callable[[WorkDir, Progress], T], place: WorkDir, console: Console) -> T:
    """Executes a run with its progress on a console."""
    console.print(f"Work directory: {place.path}", highlight=False, soft_wrap=True)
    if console.is_terminal:
        with LiveProgress(console) as live:
            return execute(place, live)
    return execute(place, LineProgress(console))
