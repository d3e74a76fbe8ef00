"""Work directories as a table."""

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from hadas_jax.runs import RunState

_LEAST_WIDTH = 8


def runs_table(runs: Sequence[RunState]) -> Table:
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
        shown = (str(run.path), run.kind or "unreadable", names, changed, _state(run), run.figures or "")
        table.add_row(*map(Text, shown))
    return table


def _state(run: RunState) -> str:
    if run.figures is not None:
        return "finished"
    return ", ".join(f"{stage} {step:,}" for stage, step in run.steps.items()) or "started"
