"""Fitting: what measurements teach, as parameters of a device, learned corrections, or a mixture of known devices.

- `calibrate` fits a device file to measured networks, by gradient through the cost model;
- `adapt` makes a model of a new device from about ten measurements and models of known ones;
- `fit_predictor` learns a correction on top of any cost model, `fit_ridge` a linear model;
- `fit_board` fits a board to networks of which only network-level features are known; `load_board_predictor` loads
  those that come with the package.
"""

from hw_models.correction import (
    BoardPrediction,
    BoardPredictor,
    Correction,
    NetworkFeatures,
    Prediction,
    board_names,
    load_board_predictor,
    read_board_notes,
)
from hw_models.fitting.calibration import Calibration, HeldOut, calibrate, nearest_device
from hw_models.fitting.correction import fit_board, fit_predictor
from hw_models.fitting.few_shot import (
    Adaptation,
    Nearest,
    RidgeFit,
    adapt,
    fit_ridge,
    nearest_donor,
)

__all__ = [
    "Adaptation",
    "BoardPrediction",
    "BoardPredictor",
    "Calibration",
    "Correction",
    "HeldOut",
    "Nearest",
    "NetworkFeatures",
    "Prediction",
    "RidgeFit",
    "adapt",
    "board_names",
    "calibrate",
    "fit_board",
    "fit_predictor",
    "fit_ridge",
    "load_board_predictor",
    "nearest_device",
    "nearest_donor",
    "read_board_notes",
]
