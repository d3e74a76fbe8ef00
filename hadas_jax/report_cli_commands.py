"""The command `hadas report` and its flags: thin, a library call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from hadas_jax import report_commands


@dataclass(frozen=True)
class Report:
    """Write one HTML page about runs: fronts, savings, clocks, exits, progress, settings. It works offline."""

    workdirs: Positional[Annotated[tuple[Path, ...], arg(metavar="WORKDIR")]]
    """Work directories of finished runs; several are overlaid."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.html")] = None
    """Page to write; by default report.html in the work directory, of one run."""
    figures: Path | None = None
    """Directory for every figure as PNG and as CSV, of its own; those of an earlier report are replaced."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output."""

    def run(self) -> None:
        """Executes the command."""
        report_commands.report(self.workdirs, output=self.output, figures=self.figures, overwrite=self.overwrite)


REPORT_COMMANDS = {"report": Report}
