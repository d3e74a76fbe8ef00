"""The report of finished runs as a library call."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from hadas_jax.outputs import new_console, say
from hadas_jax.report.html import draw_pictures, figure_tables, read_record, render_page, report_content, write_tables
from hadas_jax.report.waiting import waiting
from hadas_jax.workdir import reading, write_text
from hw_models.whole_files import unwritable


def report(
    workdirs: Sequence[Path | str],
    *,
    output: Path | str | None = None,
    figures: Path | str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes one HTML page about one or several runs, which works offline; devices, seeds and methods are overlaid.

    Args:
      workdirs: of the runs, at most `hadas_jax.report.html.MOST_RUNS`.
      output: of the page; None: report.html in the work directory of the only run.
      figures: directory for a PNG and a CSV file of every figure; those of an earlier report are replaced;
        None: none are written.
      overwrite: replace the page. report.html in a work directory is its own and always replaced.
      console: for the closing line; None: standard output.

    Returns:
      The path of the page.

    Raises:
      ValueError: a work directory holds no finished run, or `output` exists or cannot be written, or `figures`
        holds something else.
    """
    if not workdirs:
        raise ValueError("WORKDIR: expected at least one work directory, got none")
    if output is None and len(workdirs) != 1:
        raise ValueError(f"--output: expected a file for a report of {len(workdirs)} runs, got none")
    path = Path(workdirs[0]) / "report.html" if output is None else Path(output)
    if output is not None:
        _check_new(path, overwrite=overwrite)
    if figures is not None:
        _check_figures(Path(figures))
    console = console or new_console()
    with reading(path), waiting(console, f"Drawing the report of {', '.join(map(str, workdirs))}"):
        content = report_content([read_record(workdir) for workdir in workdirs], made=datetime.now())
        write_text(path, render_page(content))
        written = [str(path)]
        if figures is not None:
            directory = Path(figures)
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(directory, error) from error
            tables = figure_tables(content)
            write_tables(tables, directory)
            written += [str(each) for each in draw_pictures(tables, directory)]
            written += [str(directory / f"{name}.csv") for name in tables]
    for run in content["runs"]:
        for note in run["notes"]:
            say(console, f"{run['name']}: {note}")
    say(console, f"Written: {', '.join(written)}")
    return path


def _check_new(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in (".html", ".htm"):
        raise ValueError(f"--output {path}: expected a file that ends in .html, got {path.suffix or 'no ending'!r}")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: expected a folder that exists, got {path.parent}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ValueError(f"--output {path}: expected a new file, got one that exists; --overwrite replaces it")


def _check_figures(directory: Path) -> None:
    """Refuses other files beside figures, which are called as files of runs are: front.csv for one."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"--figures {directory}: expected a directory, got a file")
    held = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    foreign = [name for name in held if not name.startswith(".") and Path(name).suffix not in (".csv", ".png")]
    if foreign:
        raise ValueError(
            f"--figures {directory}: expected none, an empty directory or one of figures alone, got one with "
            f"{foreign[0]}; give another one"
        )
