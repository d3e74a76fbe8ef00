"""The commands about runs that are there: list them, report them.

Every function imports what it needs itself: `hadas --help` and `hadas runs` import this module, and not JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hadas_jax.report.console import new_console, new_file, print_line, waiting

if TYPE_CHECKING:
    from hadas_jax.runs.listing import RunState

RUNS = Path("runs")
_LEAST_WIDTH = 8


def _runs_table(runs: Sequence[RunState]) -> Table:
    """Returns a table of runs: what each is of, how far it is, and what it found."""
    table = Table(title="Work directories", title_style="bold")
    for heading in (
        "work directory",
        "kind",
        "data,\nhardware",
        "last change",
        "state",
        "on the test split,\nor its costs",
    ):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("kind", "last change"), min_width=_LEAST_WIDTH)
    for run in runs:
        changed = datetime.fromtimestamp(run.changed).strftime("%m-%d %H:%M")
        names = "\n".join(name for name in (run.dataset, run.hardware) if name)
        shown = (str(run.path), run.kind or "unreadable", names, changed, _state(run), run.result or "")
        table.add_row(*map(Text, shown))
    return table


def _state(run: RunState) -> str:
    if run.result is not None:
        return "finished"
    return ", ".join(f"{stage} {step:,}" for stage, step in run.steps.items()) or "started"


def list_runs(folders: Sequence[Path | str] = (), *, console: Console | None = None) -> list[RunState]:
    """Lists work directories, the newest first: what each is of, how far it is, and what it found.

    Args:
        folders: Work directories, or folders of them; by default runs/.
        console: For the table; None: standard output.

    Returns:
        The runs.

    Raises:
        ValueError: A folder does not exist.
    """
    from hadas_jax.runs.listing import find_runs

    console = console or new_console()
    runs = find_runs(folders or ([RUNS] if RUNS.is_dir() else []))
    if runs:
        console.print(_runs_table(runs))
    else:
        print_line(console, f"No work directory in {', '.join(map(str, folders or [RUNS]))}; hadas search starts one")
    return runs


def report(
    workdirs: Sequence[Path | str],
    *,
    output: Path | str | None = None,
    figures: Path | str | None = None,
    corruptions: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes one HTML page about runs: fronts, savings, clocks, exits, progress, settings. It works offline.

    Several runs are overlaid, whatever their devices, seeds and methods.

    Args:
        workdirs: Work directories of finished runs.
        output: Page to write; by default report.html in the work directory of the only run, which is its own and
            always replaced.
        figures: Directory for every figure as PNG and as CSV, of its own; those of an earlier report are replaced.
        corruptions: Evaluate the network of each work directory (ARCH.json of hadas select, or a fine-tuned one) on its
            test images under noise, blur, contrast and brightness at three strengths too. Takes 13 runs over the test
            images: seconds on digits, minutes on thousands of images of 32 pixels on a CPU. Needs weights and images.
        overwrite: Replace `output`.
        console: For the closing line; None: standard output.

    Returns:
        The path of the page.

    Raises:
        ValueError: A work directory holds no finished run, or `output` exists or cannot be written, or `figures` holds
            something else.
    """
    from hadas_jax.report.html import content, page, pictures, record
    from hadas_jax.report.network import corruptions_table
    from hadas_jax.runs.workdir import reading, write_text
    from hw_models.files import unwritable

    if not workdirs:
        raise ValueError("workdirs: expected at least one work directory, got none")
    if output is None and len(workdirs) != 1:
        raise ValueError(f"output: expected a file for a report of {len(workdirs)} runs, got none")
    path = Path(workdirs[0]) / "report.html"
    if output is not None:
        path = new_file(output, ".html", ".htm", what="page", overwrite=overwrite)
    if figures is not None:
        _check_figures(Path(figures))
    console = console or new_console()
    with reading(path), waiting(console, f"Drawing the report of {', '.join(map(str, workdirs))}"):
        records = [record.read_record(workdir) for workdir in workdirs]
        robustness = [record.read_robustness(each) if corruptions else () for each in records]
        report_content = content.report_content(records, made=datetime.now(), robustness=robustness)
        write_text(path, page.render_page(report_content))
        written = [str(path)]
        if figures is not None:
            directory = Path(figures)
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(directory, error) from error
            tables = pictures.plot_tables(report_content)
            written += [str(each) for each in pictures.write_figures(tables, directory)]
            written += [str(directory / f"{name}.csv") for name in tables]
    for run, found in zip(report_content["runs"], robustness, strict=True):
        if run["corruptions"] and not isinstance(found, str):
            console.print(corruptions_table(run["name"], found))
        for note in run["notes"]:
            print_line(console, f"{run['name']}: {note}")
    print_line(console, f"Written: {', '.join(written)}")
    return path


def _check_figures(directory: Path) -> None:
    """Refuses other files beside figures, which are called as files of runs are: front.csv for one."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"figures {directory}: expected a directory, got a file")
    held = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    foreign = [name for name in held if not name.startswith(".") and Path(name).suffix not in (".csv", ".png")]
    if foreign:
        raise ValueError(
            f"figures {directory}: expected none, an empty directory or one of figures alone, got one with "
            f"{foreign[0]}; give another one"
        )
