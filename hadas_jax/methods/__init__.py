"""Published methods, built from the parts of the other packages."""

from hadas_jax.methods.archive import Archive
from hadas_jax.methods.hadas import Engines, Hadas, HadasState
from hadas_jax.methods.inner import DynamicFront, Inner, exact_front, search_evolved, search_exact
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.results import Design, Level, Performance, Result, level_rows, write_result
from hadas_jax.methods.run import Run
from hadas_jax.methods.settings import Settings
from hadas_jax.methods.stages import Progress
from hadas_jax.methods.training_run import TrainingRun
from hadas_jax.methods.training_settings import TrainingSettings, TrainSettings

__all__ = [
    "Archive",
    "Design",
    "DynamicFront",
    "Engines",
    "Hadas",
    "HadasState",
    "Inner",
    "Level",
    "Limits",
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
