"""The commands as library calls, for notebooks and scripts; the command line adds only its flags."""

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from hadas_jax.backend import is_first
from hadas_jax.data import SplitRecord, Splits
from hadas_jax.methods import Progress, Result, Run
from hadas_jax.report import LineProgress, LiveProgress, plot_front, print_result
from hadas_jax.report.console import new_console, say
from hadas_jax.runs.checkpoints import validated
from hadas_jax.runs.lock import require_unused
from hadas_jax.runs.workdir import CONFIG, WorkDir, settings_within
from hadas_jax.settings import (
    DnasSettings,
    FineTuneSettings,
    RetrainSettings,
    RunSettings,
    SearchSettings,
    TrainSettings,
)
from hw_models.files import load_yaml

# Settings that a resumed run may change: how networks are judged, and where the same images are, not what is found.
FREE = ("eval_batch", "group", "dataset", "data_dir", "accuracy_tolerance")
# Of work directories.
KINDS: dict[type, str] = {
    SearchSettings: "search",
    TrainSettings: "train",
    DnasSettings: "dnas-search",
    RetrainSettings: "dnas-retrain",
    FineTuneSettings: "fine-tune",
}
AnySettings = TypeVar("AnySettings", bound=RunSettings)
T = TypeVar("T")


def default_workdir(dataset: str, what: str) -> Path:
    """Returns runs/<time>-<dataset>-<what>, where `what` is the device or the command."""
    names = (Path(name.rpartition(":")[2]).stem for name in (dataset, what))
    words = [datetime.now().strftime("%Y%m%d-%H%M%S"), *(re.sub(r"[^\w.-]+", "_", name) for name in names)]
    return Path("runs") / "-".join(words)


def search(
    settings: SearchSettings | None = None,
    *,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> Result:
    """Runs HADAS: trains, searches, sets thresholds, reports; keeps everything in a work directory.

    Args:
        settings: Of the run; None: the defaults, or when resuming those that the run was started with.
        workdir: Of the run; None: a new one, `default_workdir`.
        resume: Continue the run in `workdir`; a finished one only reports again.
        overwrite: Replace the run in `workdir`.
        tensorboard: Write metrics into tensorboard/ too; needs the extra `tensorboard`.
        console: For progress and tables; None: standard output.

    Returns:
        The designs found. The work directory then holds config.json, front.csv, front.json, levels.csv, front.png,
        metrics.jsonl, checkpoints/ and, where the run trained any of it, supernet/.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.

    Examples:
      >>> from hadas_jax.commands import search
      >>> from hadas_jax.methods import SearchSettings
      >>> result = search(SearchSettings.of(device="agx-xavier-gpu", population=32))  # doctest: +SKIP
      >>> result.levels[0].exits_and_clocks["deployable"].clocks_mhz  # doctest: +SKIP
    """
    settings = settings_of_run(settings, SearchSettings, workdir=workdir, resume=resume, overwrite=overwrite)
    run = Run(settings)
    path = Path(workdir) if workdir is not None else default_workdir(settings.data.dataset, settings.device)
    place = WorkDir(path, tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite, reads=settings.supernet.checkpoint):
        result = run_with_progress(run.execute, place, console, splits=run.splits)
        if is_first():
            plot_front(result, place.path / "front.png")
    print_result(result, console)
    for line in (
        f"Written: {place.path}/front.csv, front.json, levels.csv, front.png",
        f"A page to look at: {shlex.join(['hadas', 'report', str(place.path)])}; one network of the front: "
        f"{shlex.join(['hadas', 'select', str(place.path)])}",
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
        settings: Given ones; None: the defaults, or when resuming those that the run was started with.
        kind: Their class.
        workdir: Of the run.
        resume: The run is there already.
        overwrite: What is there is replaced.

    Raises:
        InUseError: Another process writes into `workdir`.
        ValueError: Arguments that contradict each other, or settings other than those of the run to resume.
    """
    if workdir is not None:
        require_unused(Path(workdir))
    if not resume:
        return (settings or kind()).absolute()
    if overwrite:
        raise ValueError("resume and overwrite: expected one of them, got both")
    if workdir is None:
        raise ValueError("resume: expected workdir with the run to continue, got none")
    started = stored_settings(workdir, kind)
    settings = (settings or started).absolute()
    before = started.flat()
    for name, value in settings.flat().items():
        if name not in FREE and value != before[name]:
            raise ValueError(
                f"resume: expected the settings that the run was started with, got {name} {value!r} instead of "
                f"{before[name]!r}"
            )
    return settings


def stored_settings(workdir: Path | str | None, kind: type[AnySettings]) -> AnySettings:
    """Returns the settings that the run in a work directory was started with.

    Args:
        workdir: Of the run.
        kind: `SearchSettings` of a search or `TrainSettings` of a training.

    Raises:
        ValueError: There is no such run, or its settings cannot be read.
    """
    place = WorkDir(Path(workdir or "."), kind=KINDS[kind])
    return kind.from_mapping(place.settings(), source=str(place.path / "config.json"))


def settings_file(path: Path | str, kind: type[AnySettings]) -> AnySettings:
    """Returns the settings in a file: of a YAML or JSON mapping, or the config.json of a run.

    Args:
        path: Of the file.
        kind: Of the settings.

    Raises:
        ValueError: It cannot be read, is of another kind of run, or a setting does not fit.
    """
    source = f"config {path}"
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{source}: expected a YAML or JSON file of settings, got: {reason}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: expected a YAML or JSON file in UTF-8, got another encoding") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if isinstance(content, dict) and {"form", "settings"} <= set(content):
        content = settings_within(content, kind=KINDS[kind], source=source)
    return kind.from_mapping(content, source=source)


@contextlib.contextmanager
def running(
    place: WorkDir, settings: RunSettings, splits: Splits, *, resume: bool, overwrite: bool, reads: str | None = None
) -> Iterator[None]:
    """Holds a work directory for a run, which is begun anew, or goes on on the images that it began with.

    Args:
        place: The work directory.
        settings: Of the run.
        splits: Its data.
        resume: The run is there already.
        overwrite: Replace the run that is there.
        reads: Directory of a supernet that the run starts from.

    Raises:
        ValueError: As `WorkDir.run`, or data other than those of the run to resume.
    """
    data = splits.record.as_json()
    with place.run(settings.flat(), resume=resume, overwrite=overwrite, data=data, reads=reads):
        if resume:
            _require_same_data(place, splits)
        yield


def _require_same_data(place: WorkDir, splits: Splits) -> None:
    before = place.data()
    if before is None:
        raise ValueError(
            f"resume: expected a run that says which images it began with, got one of an earlier version in "
            f"{place.path}, which does not; start it anew"
        )
    record = validated(SplitRecord, before, path=place.path / CONFIG)
    hint = "the same images are needed to go on; dataset names their place if they were moved"
    record.require(splits.record, dataset=splits.name, owner=f"the run in {place.path}", hint=hint)


def data_line(splits: Splits) -> str:
    """Returns what a command says of the data that it read."""
    return f"Data: {splits.name}, {splits.summary()}"


def run_with_progress(
    execute: Callable[[WorkDir, Progress], T], place: WorkDir, console: Console, *, splits: Splits
) -> T:
    """Executes a run with its progress on a console, which first says what was read."""
    say(console, f"Work directory: {place.path}")
    say(console, data_line(splits))
    if console.is_terminal:
        with LiveProgress(console) as live:
            return execute(place, live)
    return execute(place, LineProgress(console))
