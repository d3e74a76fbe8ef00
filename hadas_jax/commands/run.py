"""What the commands that run something share: settings, the work directory and its lock, progress, the data.

Nothing is imported at the top that imports JAX, so that `hadas --help` and `hadas runs` are quick; what a function
needs besides, it imports itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

from rich.console import Console

from hadas_jax.settings import RunSettings

if TYPE_CHECKING:
    from hadas_jax.data import Splits
    from hadas_jax.methods import Progress
    from hadas_jax.runs.workdir import WorkDir

# Settings that say where images are, which may be elsewhere on another machine.
_PLACES = ("dataset", "data_dir")
# Settings that a resumed run may change: how networks are evaluated, what is checked, where the same images are; not
# what is found.
FREE = ("eval_batch", "group", "dataset", "data_dir", "accuracy_tolerance", "debug")
AnySettings = TypeVar("AnySettings", bound=RunSettings)
AnyResult = TypeVar("AnyResult")


@dataclass(frozen=True)
class Processes:
    """The processes, on one machine or on several, that compute a run together; by default there is one."""

    coordinator: str | None = None
    """HOST:PORT of the first process of several that run together; auto on SLURM, Open MPI and TPU pods. JAX must not
    have been used before."""
    num_processes: int | None = None
    """Number of these processes."""
    process_id: int | None = None
    """Which of them this is, from 0; the first alone prints, and writes all but checkpoints."""


ALONE = Processes()


class RunArguments(TypedDict, total=False):
    """What every command takes that starts or resumes a run."""

    workdir: Path | str | None
    """Where everything is written; by default runs/<time>-<dataset>-<device or command>."""
    resume: bool
    """Continue the run in `workdir`, with its settings; a finished one is only evaluated again."""
    overwrite: bool
    """Replace the run in `workdir`."""
    tensorboard: bool
    """Write metrics for TensorBoard too, into tensorboard/ of the work directory; needs the extra tensorboard."""
    console: Console | None
    """For progress and tables; by default standard output."""


class _Started(Protocol):
    """A run whose inputs are read."""

    splits: Splits

    def execute(self, workdir: WorkDir, progress: Progress) -> Any:
        """Does what is not done yet, writes it into the work directory and returns it."""


AnyRun = TypeVar("AnyRun", bound=_Started)


def run_command(
    kind: type[AnySettings],
    start: Callable[[AnySettings], AnyRun],
    settings: AnySettings | None,
    *,
    name: Callable[[AnyRun], tuple[str, str]],
    finish: Callable[[AnyRun, AnyResult, Path, Console], None],
    processes: Processes = ALONE,
    workdir: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
) -> AnyResult:
    """Starts or resumes a run, executes it with its progress on a console, and closes with what it found.

    Args:
        kind: The class of its settings.
        start: Reads the inputs of a run, given its settings.
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        name: What a new work directory is named after: the data set, and the device or the command.
        finish: Draws pictures into the work directory and prints tables; called by the first process alone.
        processes: Which of several processes this is.
        workdir: As `RunArguments` has it, like those that follow.
        resume: Continue the run.
        overwrite: Replace the run.
        tensorboard: Write metrics for TensorBoard too.
        console: For progress and tables.

    Returns:
        The result of the run.

    Raises:
        ValueError: Settings, inputs or the work directory do not fit, the processes cannot be reached or differ in
            versions, settings or images, or the run fails.
    """
    from hadas_jax.backend import connect, is_first, require_same, share_json
    from hadas_jax.report.console import LineProgress, LiveProgress, new_console, print_line
    from hadas_jax.runs.workdir import WorkDir, versions

    connect(processes.coordinator, processes.num_processes, processes.process_id)
    settings = settings_of_run(settings, kind, workdir=workdir, resume=resume, overwrite=overwrite)
    require_same("versions", {name: version for name, version in versions().items() if name != "python"})
    given = {name: value for name, value in settings.flat().items() if name not in _PLACES}
    require_same("settings", {**given, "resume": resume, "overwrite": overwrite})
    run = start(settings)
    require_same("images", run.splits.record.as_json())
    path = Path(workdir or share_json(str(default_workdir(*name(run)))))
    place = WorkDir(path, kind=kind.KIND, tensorboard=tensorboard)
    console = console or new_console(quiet=not is_first())
    with running(place, settings, run.splits, resume=resume, overwrite=overwrite):
        print_line(console, f"Work directory: {place.path}")
        print_line(console, data_line(run.splits))
        with LiveProgress(console) if console.is_terminal else contextlib.nullcontext(LineProgress(console)) as shown:
            result: AnyResult = run.execute(place, shown)
        if is_first():
            finish(run, result, place.path, console)
    return result


def default_workdir(dataset: str, what: str) -> Path:
    """Returns runs/<time>-<dataset>-<what>, where `what` is the device or the command."""
    names = (Path(name.rpartition(":")[2]).stem for name in (dataset, what))
    words = [datetime.now().strftime("%Y%m%d-%H%M%S"), *(re.sub(r"[^\w.-]+", "_", name) for name in names)]
    return Path("runs") / "-".join(words)


def data_line(splits: Splits) -> str:
    """Returns what a command says of the data that it read."""
    return f"Data: {splits.name}, {splits.summary()}"


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
        workdir: Work directory of the run.
        resume: The run is there already.
        overwrite: What is there is replaced.

    Raises:
        InUseError: Another process writes into `workdir`.
        ValueError: Arguments that contradict each other, or settings other than those of the run to resume.
    """
    from hadas_jax.runs.workdir import WorkDir

    if workdir is not None:
        WorkDir(Path(workdir)).require_unused()
    if not resume:
        return (settings or kind()).absolute()
    if overwrite:
        raise ValueError("resume and overwrite: expected one of them, got both")
    if workdir is None:
        raise ValueError("resume: expected `workdir` with the run to continue, got none")
    started = _stored_settings(workdir, kind)
    settings = (settings or started).absolute()
    before = started.flat()
    for name, value in settings.flat().items():
        if name not in FREE and value != before[name]:
            raise ValueError(
                f"resume: expected the settings that the run was started with, got {name} {value!r} instead of "
                f"{before[name]!r}"
            )
    return settings


def settings_from(
    kind: type[AnySettings],
    values: dict[str, Any],
    *,
    file: Path | str | None = None,
    workdir: Path | str | None = None,
    resume: bool = False,
) -> AnySettings:
    """Returns settings given by name, laid over those of a file, or over those of the run to resume.

    Args:
        kind: Their class.
        values: Settings by name.
        file: A YAML or JSON mapping, or the config.json of a run; None: the defaults, or with `resume_from` what that
            search had, and its supernet.
        workdir: Work directory of the run to resume.
        resume: The run is there already.

    Raises:
        ValueError: A setting that does not fit, both a file and a run, or one of them cannot be read.
    """
    if resume and workdir is not None:
        if file is not None:
            raise ValueError("config and resume: expected one of them, got both; a run keeps its settings")
        started = _stored_settings(workdir, kind)
    elif values.get("resume_from") is not None and file is None:
        from hadas_jax.methods.hadas.results import read_search

        search = read_search(values["resume_from"])
        started = kind.of(**search.settings.flat() | {"checkpoint": str(search.supernet), "split_seed": None})
    else:
        started = kind() if file is None else _settings_file(file, kind)
    return started.replace(**values)


def _stored_settings(workdir: Path | str, kind: type[AnySettings]) -> AnySettings:
    """Returns the settings that the run in a work directory was started with."""
    from hadas_jax.runs.workdir import WorkDir

    place = WorkDir(Path(workdir), kind=kind.KIND)
    return kind.from_mapping(place.settings(), source=str(place.path / "config.json"))


def _settings_file(path: Path | str, kind: type[AnySettings]) -> AnySettings:
    """Returns the settings in a file: of a YAML or JSON mapping, or the config.json of a run."""
    from hadas_jax.runs.workdir import settings_within
    from hw_models.files import load_yaml

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
        content = settings_within(content, kind=kind.KIND, source=source)
    return kind.from_mapping(content, source=source)


@contextlib.contextmanager
def running(place: WorkDir, settings: RunSettings, splits: Splits, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Holds a work directory for a run, which is begun anew, or goes on on the images that it began with.

    Args:
        place: The work directory.
        settings: Settings of the run.
        splits: Its data.
        resume: The run is there already.
        overwrite: Replace the run that is there.

    Raises:
        ValueError: As `WorkDir.run`, or data other than those of the run to resume.
    """
    kept, record = settings.flat(), splits.record.as_json()
    with place.run(kept, resume=resume, overwrite=overwrite, data=record, reads=kept.get("checkpoint")):
        if resume:
            _require_same_data(place, splits)
        yield


def _require_same_data(place: WorkDir, splits: Splits) -> None:
    from hadas_jax.data import SplitRecord
    from hadas_jax.runs.checkpoints import validated
    from hadas_jax.runs.names import CONFIG

    before = place.data()
    if before is None:
        raise ValueError(
            f"resume: expected a run that says which images it began with, got one of an earlier version in "
            f"{place.path}, which does not; start it anew"
        )
    record = validated(SplitRecord, before, path=place.path / CONFIG)
    hint = "the same images are needed to go on; `dataset` names their place if they were moved"
    record.require(splits.record, dataset=splits.name, owner=f"the run in {place.path}", hint=hint)
