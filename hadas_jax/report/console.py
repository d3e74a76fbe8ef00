"""What commands print on a console: lines, tables and their cells, and the progress of a run.

Progress is a live display on a terminal and plain lines elsewhere.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import progress
from rich.box import HORIZONTALS
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table


def new_file(path: Path | str, *suffixes: str, what: str = "file", overwrite: bool | None = None) -> Path:
    """Checks that a file may be written.

    Args:
        path: Path of the file.
        suffixes: Endings that it may have.
        what: What it is, for messages.
        overwrite: Whether it may exist; None: it may not, and nothing can replace it.

    Raises:
        ValueError: Its ending is another, it exists, or its folder does not.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise ValueError(f"{path}: expected a {what} that ends in {suffixes[0]}, got {target.suffix or 'no ending'!r}")
    if target.exists() and not overwrite:
        hint = "nothing was written" if overwrite is None else "`overwrite` replaces it"
        raise ValueError(f"{path}: expected a new {what}, got one that exists; {hint}")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: expected a folder that exists, got {target.parent}")
    return target


def new_console(*, quiet: bool = False) -> Console:
    """Returns a console on standard output that prints text as it is: `[x]` and `:x:` in a path are no markup."""
    return Console(file=sys.stdout, markup=False, emoji=False, quiet=quiet)


def print_line(console: Console, text: str, *, wrap: bool = False) -> None:
    """Prints a line as it is; `wrap` breaks it between words where the console is a terminal."""
    soft_wrap = not (wrap and console.is_terminal)
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)


def new_table(title: str, *headings: str, names: int = 1, dense: bool = False, no_wrap: bool = False) -> Table:
    """Returns an empty table.

    Args:
        title: Its title.
        headings: The headings of its columns.
        names: How many of the first columns hold names, which stand on the left; numbers stand on the right.
        dense: Whether it has no lines between columns.
        no_wrap: Whether numbers are kept on one line.
    """
    style = {"box": HORIZONTALS, "padding": (0, 1, 0, 0)} if dense else {}
    table = Table(title=title, title_style="bold", **style)  # type: ignore[arg-type]
    for number, heading in enumerate(headings):
        is_name = number < names
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=no_wrap and not is_name)
    return table


def milli(value: float) -> str:
    """Returns seconds as milliseconds, or joules as millijoules, with three digits."""
    return f"{value * 1e3:.3g}"


def megahertz(clocks: Iterable[float]) -> str:
    """Returns clocks in MHz side by side."""
    return " ".join(f"{clock:.5g}" for clock in clocks)


@contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Says what is going on: beside a spinner on a terminal, in a line elsewhere.

    Args:
        console: The console.
        text: What is going on, without a full stop.
    """
    if console.is_terminal:
        with console.status(escape(text)):
            yield
    else:
        print_line(console, text)
        yield


_UNITS = {
    "supernet": "steps",
    "exits": "steps",
    "search": "generations",
    "predictor": "epochs",
    "architecture": "steps",
    "retrain": "steps",
    "fine-tune": "steps",
    "features": "images",
    "heads": "",
    "thresholds": "",
    "test": "",
}
_SHOWN = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.1%}",
    "exit_accuracy": "exits {:.1%}",
    "train_accuracy": "training accuracy {:.1%}",
    "images_per_s": "derived {:,.0f} images/s",
    "inferred_per_s": "{:,.0f} images/s",
    "validation_accuracy": "validation {:.1%}",
    "test_accuracy": "test {:.1%}",
    "smallest_accuracy": "smallest {:.1%}",
    "largest_accuracy": "largest {:.1%}",
    "evaluated": "{:.0f} backbones",
    "front_cells": "front {:.0f}",
    "hypervolume": "hypervolume {:.4f}",
    "lowest_error": "lowest error {:.2%}",
    "backbones": "{:.0f} backbones",
    "designs": "{:.0f} designs",
}


_Mark = tuple[float, int, float]  # time, steps done, candidates


def _pace(marks: list[_Mark], total: int) -> tuple[float | None, float | None]:
    """Returns candidates per second and seconds left, None where unknown.

    The first update of a stage carries its compilation and is left out.
    """
    if len(marks) < 3:
        return None, None
    (start, first, _), (before, _, fewer), (now, done, more) = marks[1], marks[-2], marks[-1]
    rate = (more - fewer) / max(now - before, 1e-9) if more > fewer else None
    return rate, (total - done) * (now - start) / (done - first) if done > first else None


def _describe(metrics: dict[str, float]) -> str:
    """Returns the metrics of an update in words."""
    words = [text.format(metrics[name]) for name, text in _SHOWN.items() if name in metrics]
    if rollbacks := metrics.get("rollbacks"):  # after divergence
        words.append(f"rollbacks {rollbacks:.0f}")
    return ", ".join(words)


class LineProgress:
    """One line for every update, for logs; follows `hadas_jax.methods.Progress`.

    Args:
        console: To print on.
    """

    def __init__(self, console: Console) -> None:
        self._console, self._name, self._total = console, "", 0
        self._marks: list[_Mark] = []

    def stage(self, name: str, total: int) -> None:
        """Announces a stage."""
        self._name, self._total, self._marks = name, total, []
        unit = _UNITS.get(name, "")
        self._print(f"{name}: starts" + (f", {total} {unit}, the first with compilation" if unit else ""))

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Prints how far the stage is."""
        self._marks.append((time.monotonic(), done, metrics.get("candidates", 0.0)))
        if not metrics:
            if done:
                self._print(f"{self._name}: {done} of {self._total} {_UNITS[self._name]} done before")
            return
        parts = [_describe(metrics)]
        rate, left = _pace(self._marks, self._total)
        parts += [f"{rate:,.0f} candidates/s"] if rate is not None else []
        parts += [f"{left:.0f} s left"] if left is not None and done < self._total else []
        count = f" {done}/{self._total} {_UNITS[self._name]}" if self._total > 1 else ""
        self._print(f"{self._name}:{count} {', '.join(parts)}")

    def _print(self, line: str) -> None:
        print_line(self._console, line)


class LiveProgress:
    """A bar for every stage; follows `hadas_jax.methods.Progress`. Use as a context manager.

    Args:
        console: A terminal to draw on.
    """

    def __init__(self, console: Console) -> None:
        self._marks: list[_Mark] = []
        self._bars = progress.Progress(
            progress.TextColumn("[bold]{task.description:<11}"),
            progress.BarColumn(bar_width=12),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[note]}", table_column=Column(overflow="fold")),
            console=console,
        )
        self._task: progress.TaskID | None = None

    def __enter__(self) -> "LiveProgress":
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """Adds a bar."""
        self._marks = []
        self._task = self._bars.add_task(name, total=total, note="compiles")

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Moves the bar."""
        if self._task is None:
            raise ValueError("progress: expected a stage before its first update")
        self._marks.append((time.monotonic(), done, metrics.get("candidates", 0.0)))
        rate, _ = _pace(self._marks, done)
        note = _describe(metrics) + (f", {rate:,.0f} candidates/s" if rate is not None else "")
        self._bars.update(self._task, completed=done)
        if metrics:
            self._bars.update(self._task, note=note)


class StepProgress:
    """Progress of one stage that says what it did last: a bar on a terminal, now and then a line elsewhere."""

    _LINES = 10

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("")
        self._said = 0

    def __enter__(self) -> "StepProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int, text: str) -> None:
        """Shows how far the stage is and what it did last."""
        self._bar.update(self._task, completed=done, total=total, description=text)
        share = done * self._LINES // total
        if not self._console.is_terminal and share > self._said:
            self._said = share
            print_line(self._console, f"{done} of {total}, {text}")
