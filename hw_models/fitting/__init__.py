"""Fitting: what measurements teach, as parameters of a device, learned corrections, or a mixture of known devices.

- `calibration` and `device_parameters` fit a device file to measured networks, by gradient through the cost model;
- `few_shot` makes a model of a new device from about ten measurements and models of known ones;
- `predictor` learns a correction on top of any cost model, `ridge` a linear model;
- `totals` and `board_predictor` predict networks of which only totals are known.
"""

from hw_models.fitting.calibration import Calibration, HeldOut, calibrate, nearest_device
from hw_models.fitting.correction import (
    BoardPrediction,
    BoardPredictor,
    NetworkFeatures,
    Prediction,
    Predictor,
    board_names,
    fit_board,
    fit_predictor,
    load_board_predictor,
    load_predictor,
    predict_board,
    predict_target,
    read_board_notes,
    save_board_predictor,
    save_predictor,
)
from hw_models.fitting.few_shot import (
    Adaptation,
    Nearest,
    RidgeFit,
    adapt,
    fit_ridge,
    nearest_donor,
    predict_adapted,
    predict_ridge,
)

__all__ = [
    "Adaptation",
    "BoardPrediction",
    "BoardPredictor",
    "Calibration",
    "HeldOut",
    "Nearest",
    "NetworkFeatures",
    "Prediction",
    "Predictor",
    "RidgeFit",
    "adapt",
    "board_names",
    "calibrate",
    "fit_board",
    "fit_predictor",
    "fit_ridge",
    "load_board_predictor",
    "load_predictor",
    "nearest_device",
    "nearest_donor",
    "predict_adapted",
    "predict_board",
    "predict_ridge",
    "predict_target",
    "read_board_notes",
    "save_board_predictor",
    "save_predictor",
]
