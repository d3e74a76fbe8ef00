"""Published methods, built from the parts of the other packages."""

from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.fronts import Candidates, exact_front
from hadas_jax.methods.hadas.inner import InnerResult, search_evolved, search_exact
from hadas_jax.methods.hadas.outer import Hadas, HadasState
from hadas_jax.methods.hadas.results import Design, Level, Performance, Result, level_rows, write_result
from hadas_jax.methods.hadas.run import Run
from hadas_jax.runs.loop import Progress
from hadas_jax.training.run import TrainingRun

__all__ = [
    "Archive",
    "Candidates",
    "Design",
    "Hadas",
    "HadasState",
    "InnerResult",
    "Level",
    "Performance",
    "Progress",
    "Result",
    "Run",
    "TrainingRun",
    "exact_front",
    "level_rows",
    "search_evolved",
    "search_exact",
    "write_result",
]
