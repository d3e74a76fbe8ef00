"""Published methods, built from the parts of the other packages."""

from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import Constraints
from hadas_jax.methods.hadas.fronts import Candidates, exact_front
from hadas_jax.methods.hadas.inner import search_evolved, search_exact
from hadas_jax.methods.hadas.outer import Engines, Hadas, HadasState
from hadas_jax.methods.hadas.results import Design, Level, Performance, Result, level_rows, write_result
from hadas_jax.methods.hadas.run import Run
from hadas_jax.methods.hadas.score import InnerResult
from hadas_jax.methods.hadas.settings import Settings
from hadas_jax.runs.loop import Progress
from hadas_jax.training.run import TrainingRun
from hadas_jax.training.settings import TrainingSettings, TrainSettings

__all__ = [
    "Archive",
    "Candidates",
    "Constraints",
    "Design",
    "Engines",
    "Hadas",
    "HadasState",
    "InnerResult",
    "Level",
    "Performance",
    "Progress",
    "Result",
    "Run",
    "Settings",
    "TrainSettings",
    "TrainingRun",
    "TrainingSettings",
    "exact_front",
    "level_rows",
    "search_evolved",
    "search_exact",
    "write_result",
]
