"""Predictors of latency and power of three Jetson boards: errors on network families left out, and the files shipped.

Command:   python experiments/boards/fit_jetson_boards.py --data jetson_cnn_profile.csv
           (`--write hw_models/boards` also fits all data and writes the files that come with the package)
           python experiments/boards/fit_jetson_boards.py --shipped --test FILE.csv -o FILE.json
           (errors of the devices that come with the package on rows of another file of the same columns)
Hardware:  2 CPU cores
Time:      6 minutes of CPU time for all boards; 16 minutes on cores shared with much other work
Data:      measurements of https://github.com/HalimaBouzidi/perf_prediction (MIT) as one table: device, network,
           resolution, params_conv, params_bn, params_fc, flops (2 x MACs), layers, conv_layers, bn_layers, fc_layers,
           activation_elements, latency_ms, power_mw (mean, one rail); empty where not measured
Protocol:  GroupKFold with 5 folds over families: all resolutions of a network are left out together. `own`: each
           random CNN is a family of its own; `one`: all random CNNs are a single family. Whatever is fitted
           (roofline, standardisation, corrections) is fitted to the other folds; the settings are the defaults of
           the library, the same for all boards and targets; they were chosen in trials on folds of two of the boards
           (agx_xavier and nano), so errors of those are slightly optimistic. Power follows the predicted latency.
           `device`: the latency that `--device` gives: the roofline of the device file, its correction fitted to the
           other folds, faded by the distance from them; by the function that every search uses
           (`hw_models.cost.whole_run`). The roofline sees a network as one layer with half of the activations, as
           the device files were fitted; its figures were fitted to all rows, and count where the correction fades.
Expected:  mean absolute relative error and Kendall tau, families `own` and `one`:
                        latency, own    latency, one    power, own     power, one
           agx_xavier   6.9 %, 0.971    8.8 %, 0.962    4.3 %, 0.962   6.1 %, 0.954
           tx2          8.2 %, 0.963    7.7 %, 0.965    6.1 %, 0.956   8.0 %, 0.955
           nano        10.8 %, 0.951   10.5 %, 0.950    5.4 %, 0.897   5.9 %, 0.893
           and through `--device`, families `own` and `one`:
           agx_xavier   7.0 %, 0.971    8.4 %, 0.963
           tx2          7.9 %, 0.965    7.7 %, 0.965
           nano        10.0 %, 0.955    9.6 %, 0.956
           `--shipped` on the data that the devices were fitted to: 4.5 %, 4.5 % and 5.4 % (tau 0.984, 0.983 and
           0.981); their rooflines alone 15.0 %, 15.4 % and 17.4 % (0.943, 0.937 and 0.928).
           Siblings (ResNet-50 and ResNet-101, widths of one MobileNet) are families of their own. With whole lines
           of architectures left out the latency of agx_xavier is off by 17.9 % (tau 0.924), by the roofline alone
           18.8 % (tau 0.932), and its power by 10.1 %.
"""

import csv
import dataclasses
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.typing import ArrayLike
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau
from sklearn.model_selection import GroupKFold

from hw_models import Device, LayerKind, cost, default_point, layer_table, load_device
from hw_models.correction import DeviceCorrection
from hw_models.cost import CorrectionTerms, whole_run
from hw_models.fitting import (
    BoardPrediction,
    BoardPredictor,
    NetworkFeatures,
    Prediction,
    fit_board,
)

BOARDS = {"agx_xavier": "agx-xavier-gpu", "tx2": "tx2-gpu", "nano": "nano-gpu"}
SOURCE = "https://github.com/HalimaBouzidi/perf_prediction (MIT)"
PROTOCOL = "GroupKFold(5) over network families; own: each random CNN is a family, one: all random CNNs are one"
COLUMNS = {
    *("device", "network", "resolution", "params_conv", "params_bn", "params_fc", "flops", "layers", "conv_layers"),
    *("bn_layers", "fc_layers", "activation_elements", "latency_ms", "power_mw"),
}
RANDOM_PREFIX = "basic_model_"
FOLDS = 5


@dataclass(frozen=True)
class Experiment:
    """Predictors of latency and power of three Jetson boards."""

    data: Path | None = None
    """The table of measurements to fit, a csv file."""
    shipped: bool = False
    """Price the rows of `test` on the devices that come with the package, and fit nothing."""
    test: Path | None = None
    """A table of the same columns, a csv file."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the errors on `test`."""
    boards: tuple[str, ...] = tuple(BOARDS)
    """Devices of the table."""
    write: Path | None = None
    """Also fit all data and write a file for each board into this folder."""
    seed: int = 0
    """Of the initial weights."""


class Measurements(NamedTuple):
    """All networks measured on one board; N rows."""

    networks: np.ndarray
    features: NetworkFeatures
    latency_s: np.ndarray
    power_w: np.ndarray
    """NaN where not measured."""

    @property
    def is_random(self) -> np.ndarray:
        """Marks random CNNs, bool[N]."""
        return np.char.startswith(self.networks, RANDOM_PREFIX)

    def rows(self, index: np.ndarray) -> "Measurements":
        """Keeps some rows."""
        return jax.tree.map(lambda column: column[index], self)


def read(path: Path, board: str) -> Measurements:
    """Reads the rows of one board that have a latency."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = sorted(COLUMNS - set(reader.fieldnames or ()))
        if missing:
            raise ValueError(f"{path}: expected a column {missing[0]}, got {', '.join(reader.fieldnames or ['none'])}")
        rows = [row for row in reader if row["device"] == board and row["latency_ms"]]
    if not rows:
        raise ValueError(f"{path}: expected rows of device {board!r} with a latency, got none")

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in rows])

    def feature(name: str, factor: float = 1.0) -> jax.Array:
        return jnp.asarray(column(name) * factor, jnp.float32)

    features = NetworkFeatures(
        macs=feature("flops", 0.5),
        conv_weights=feature("params_conv"),
        norm_weights=feature("params_bn"),
        linear_weights=feature("params_fc"),
        activation_elements=feature("activation_elements"),
        layers=feature("layers"),
        conv_layers=feature("conv_layers"),
        norm_layers=feature("bn_layers"),
        linear_layers=feature("fc_layers"),
        resolution=feature("resolution"),
    )
    networks = np.array([row["network"] for row in rows])
    return Measurements(networks, features, column("latency_ms") * 1e-3, column("power_mw") * 1e-3)


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def device_latency(network: NetworkFeatures, device: Device) -> tuple[jax.Array, jax.Array]:
    """Latency of networks of which features are known, by a device at its highest clocks, and the correction's weight.

    Args:
        network: Leaves f32[N].
        device: With a correction, or without: then its weight is 0.

    Returns:
        f32[N] twice.
    """
    weights = network.conv_weights + network.norm_weights + network.linear_weights
    elements = network.activation_elements / 2.0
    row = layer_table(
        [LayerKind.DENSE],
        network.macs[None],
        weight_elements=weights[None],
        input_elements=elements[None],
        output_elements=elements[None],
        kernels=network.conv_layers[None],
    )
    point, correction = default_point(device), device.correction
    total = jax.tree.map(jnp.sum, cost(row, device, point))
    if correction is None:
        return whole_run(total, device, point, None).latency_s, jnp.float32(0.0)
    at_data = jnp.sum(cost(row, device, correction.point).latency_s)
    found = whole_run(total, device, point, CorrectionTerms(network, at_data))
    return found.latency_s, correction.weight(network)


def with_board(device: Device, board: BoardPredictor) -> Device:
    """Returns a device with the correction that a board gives it."""
    of_board = DeviceCorrection(board.latency_base, board.distilled, board.seen, default_point(device))
    return dataclasses.replace(device, correction=of_board)


def price_shipped(path: Path, boards: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Errors of the devices that come with the package on the rows of a table, by device, beside their rooflines."""
    found = {}
    for board in boards:
        try:
            data = read(path, board)
        except ValueError as error:
            if "with a latency" not in str(error):
                raise
            continue
        device = load_device(BOARDS[board])
        for name, priced in ((device.name, device), (f"{device.name}, roofline", bare(device))):
            latency_s, weight = device_latency(data.features, priced)
            found[name] = {**errors(latency_s, data.latency_s), "mean_weight": round(float(jnp.mean(weight)), 4)}
    if not found:
        raise ValueError(f"{path}: expected rows of {', '.join(boards)} with a latency, got none")
    return found


def bare(device: Device) -> Device:
    """Returns the roofline of a device alone."""
    return dataclasses.replace(device, correction=None)


def errors(predicted: ArrayLike, measured: np.ndarray) -> dict[str, float]:
    """Mean and median absolute relative error and Kendall tau, rounded."""
    error = np.abs(np.asarray(predicted, np.float64) / measured - 1)
    return {
        "networks": len(measured),
        "mean_error": round(float(error.mean()), 4),
        "median_error": round(float(np.median(error)), 4),
        "kendall_tau": round(float(kendalltau(predicted, measured)[0]), 4),
    }


class HeldOut(NamedTuple):
    """Predictions of networks by fits that their families are not in, leaves f32[N].

    Attributes:
        board: By the board predictor.
        latency_s: By the device that has its correction.
        weight: How far the device was corrected.
    """

    board: BoardPrediction
    latency_s: jax.Array
    weight: jax.Array


def cross_validate(data: Measurements, families: np.ndarray, key: jax.Array, device: Device) -> HeldOut:
    """Predicts every network by a board fitted to the folds that its family is not in, and by its device."""
    predict = jax.jit(jax.vmap(BoardPredictor.predict, in_axes=(None, 0)))
    folds = list(GroupKFold(FOLDS).split(families, groups=families))
    predicted = []
    for fold, (train, test) in enumerate(folds):
        seen = data.rows(train)
        board = fit_board(jax.random.fold_in(key, fold), seen.features, seen.latency_s, seen.power_w)
        features = data.rows(test).features
        predicted.append(HeldOut(predict(board, features), *device_latency(features, with_board(device, board))))
    rows = np.argsort(np.concatenate([test for _, test in folds]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[rows], *predicted)


def figures(prediction: Prediction, measured: np.ndarray, is_random: np.ndarray) -> dict[str, float]:
    """Errors over the networks that were measured, rounded: of all, of named networks and of random CNNs."""
    predicted, spread = np.asarray(prediction.mean), np.asarray(prediction.spread)
    known = np.isfinite(measured)
    error = np.abs(predicted / np.where(known, measured, 1.0) - 1)
    found = {
        "networks": float(known.sum()),
        "mean_error": error[known].mean(),
        "median_error": np.median(error[known]),
        "kendall_tau": kendalltau(predicted[known], measured[known])[0],
        "mean_error_named": error[known & ~is_random].mean(),
        "kendall_tau_named": kendalltau(predicted[known & ~is_random], measured[known & ~is_random])[0],
        "mean_error_random": error[known & is_random].mean(),
        "kendall_tau_random": kendalltau(predicted[known & is_random], measured[known & is_random])[0],
        "tau_of_spread_and_error": kendalltau(spread[known], error[known])[0],
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def validate(data: Measurements, key: jax.Array, device: Device) -> dict[str, dict[str, float]]:
    """Figures of latency and power under both protocols, by `target, protocol`."""
    random = data.is_random
    found = {}
    for protocol, families in (
        ("own", data.networks),
        ("one", np.where(random, RANDOM_PREFIX, data.networks)),
    ):
        result = cross_validate(data, families, key, device)
        latency, power = result.board
        by_device = Prediction(result.latency_s, latency.spread)
        found[f"device, {protocol}"] = figures(by_device, data.latency_s, random)
        found[f"latency, {protocol}"] = figures(latency, data.latency_s, random)
        found[f"power, {protocol}"] = figures(power, data.power_w, random)
    return found


def main(experiment: Experiment) -> None:
    """Prints the errors of all boards, and writes their files if asked to."""
    if experiment.shipped:
        _main_shipped(experiment)
        return
    if experiment.data is None or not experiment.data.is_file():
        sys.exit(_refuse(f"--data: expected a csv file, got {experiment.data or 'none'}"))
    key = jax.random.key(experiment.seed)
    table = Table(title="Families left out: mean absolute relative error and Kendall tau")
    for name in ("board", "target, families", "N", "error", "median", "tau", "named", "tau", "random", "tau", "spread"):
        table.add_column(name, justify="right")
    for device in experiment.boards:
        try:
            data = read(experiment.data, device)
        except (ValueError, OSError) as error:
            sys.exit(_refuse(str(error)))
        cv_key, fit_key = jax.random.split(key)
        found = validate(data, cv_key, load_device(BOARDS[device]))
        for name, row in found.items():
            count, *values = row.values()
            is_error = ["error" in label and "tau" not in label for label in list(row)[1:]]
            cells = [f"{v:.1%}" if shown else f"{v:.3f}" for v, shown in zip(values, is_error, strict=True)]
            table.add_row(device, name, f"{count:.0f}", *cells)
        table.add_section()
        if experiment.write is not None:
            experiment.write.mkdir(parents=True, exist_ok=True)
            name = BOARDS.get(device, device)
            notes = {"source": SOURCE, "protocol": PROTOCOL, "families_left_out": found}
            board = fit_board(fit_key, data.features, data.latency_s, data.power_w)
            board.save(experiment.write / f"{name}.npz", notes)
    Console(width=120).print(table)


def _main_shipped(experiment: Experiment) -> None:
    if experiment.test is None:
        sys.exit(_refuse("--test: expected a csv file beside --shipped, got none"))
    try:
        found = price_shipped(experiment.test, experiment.boards)
        if experiment.output is not None:
            experiment.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(_refuse(str(error)))
    table = Table(title="Latency by the devices of the package")
    for name in ("device", "N", "error", "median", "tau", "weight of the correction"):
        table.add_column(name, justify="right")
    for name, row in found.items():
        count, mean, median, tau, weight = row.values()
        table.add_row(name, f"{count}", f"{mean:.1%}", f"{median:.1%}", f"{tau:.3f}", f"{weight:.2f}")
    Console(width=120).print(table)


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main(tyro.cli(Experiment))
