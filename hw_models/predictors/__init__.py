"""Learned predictors of what hardware takes: fitted to priced architectures, differentiable in the architecture.

`fit_predictor` makes one for the codes of a `CodeLayout`, `predict_throughput` asks it about a code or a distribution
over operations, and `write_predictor` keeps it in a file.
"""

from hw_models.codes import CodeLayout
from hw_models.predictors.files import PUBLISHED_SCALES, import_predictor, read_predictor, write_predictor
from hw_models.predictors.fitting import FittedPredictor, HeldOutErrors, fit_predictor
from hw_models.predictors.predictor import (
    KINDS,
    LEAST_THROUGHPUT,
    Prediction,
    PredictorNotes,
    Recipe,
    ThroughputPredictor,
    predict_throughput,
    predict_throughputs,
    recipe_of,
)

__all__ = [
    "KINDS",
    "LEAST_THROUGHPUT",
    "PUBLISHED_SCALES",
    "CodeLayout",
    "FittedPredictor",
    "HeldOutErrors",
    "Prediction",
    "PredictorNotes",
    "Recipe",
    "ThroughputPredictor",
    "fit_predictor",
    "import_predictor",
    "predict_throughput",
    "predict_throughputs",
    "read_predictor",
    "recipe_of",
    "write_predictor",
]
