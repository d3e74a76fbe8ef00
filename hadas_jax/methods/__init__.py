"""Published methods, built from the parts of the other packages."""

from hadas_jax.methods.hadas import Archive, Hadas, HadasState, Problem
from hadas_jax.methods.results import Design, Level, Performance, Result, level_rows, write_result
from hadas_jax.methods.run import Progress, Run
from hadas_jax.methods.settings import Settings

__all__ = [
    "Archive",
    "Design",
    "Hadas",
    "HadasState",
    "Level",
    "Performance",
    "Problem",
    "Progress",
    "Result",
    "Run",
    "Settings",
    "level_rows",
    "write_result",
]
