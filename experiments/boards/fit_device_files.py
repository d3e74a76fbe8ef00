"""Latency and GPU-rail power of Jetson boards from measured networks: the fitted figures of the device files.

Command:   python experiments/boards/fit_device_files.py --data DIR
           DIR holds jetson_cnn_profile.csv, made of github HalimaBouzidi/perf_prediction (MIT)
Hardware:  1 CPU core, 1 GB
Time:      about 2 minutes (a core of an Intel Xeon, jax 0.10.2)
Expected:  latency of held-out families off by 15.7 / 16.4 / 17.9 % (AGX Xavier / TX2 / Nano; named families alone
           14.1 / 14.6 / 15.4 %), Kendall tau 0.939 / 0.931 / 0.924; ResNet-50 on TX2 over swept clocks by 1.8 %;
           mean power of the GPU rail by 8.8 / 13.0 / 10.1 %. With weights that cost the core nothing, latency by
           17.6 / 18.1 / 18.4 % and ResNet-50 over swept clocks by 27.4 %.

The fit is of network totals, since the data say no more: a p-norm of compute and memory time and a launch time
per convolution, all parameters as logarithms, by least squares with a robust loss on the log ratio.

Layers with many weights and few pixels leave most of a GPU idle. Rates of weights on both sides of the p-norm count
that: core cycles for the idle lanes, memory cycles for the traffic. Networks at one clock setting hardly tell the two
from each other and from the norm order, so TX2 is fitted together with how much slower ResNet-50 is over a sweep of
both clocks, and the other boards take from it the norm order and the ratio of the two weight rates at the highest
clocks. A held-out family is held out of that fit on TX2 too.
"""

import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.typing import ArrayLike
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares
from scipy.stats import kendalltau

from hw_models.roofline import p_norm

FILE = "jetson_cnn_profile.csv"
FOLDS = 5
# Activations of the data count convolution, normalisation and activation function apart; a table with one row for
# the three has 2.2 (ResNet-50) to 3.2 (MobileNetV2) times fewer. A sum of p-norms over layers exceeds the p-norm of
# the totals, which a smaller divisor makes up for: layer by layer, these two networks are nearest to their
# measurements on the three boards with this one.
ACTIVATION_DIVISOR = 2.0
ELEMENT_BYTES = 4
# B/s of weights on the core's side that take no time.
NO_CORE_TIME = 1e30
# Residuals beyond this log ratio count linearly.
ROBUST_SCALE = 0.1


@dataclass(frozen=True)
class Experiment:
    """Fits what the device files of Jetson boards say as fitted to whole networks."""

    data: Path
    """Folder of the CSV file."""


class Board(NamedTuple):
    """A board and its clocks in MHz that the data are taken to be measured at: the highest.

    Attributes:
        name: Of the device file.
        column: Name in the data.
        core: Core clock.
        memory: Memory clock.
        host: Host clock.
        voltage: Core voltage there over its lowest.
        launch_cycles: Assumed launch cost where the fit gives none; None: fitted.
    """

    name: str
    column: str
    core: float
    memory: float
    host: float
    voltage: float
    launch_cycles: float | None = None


SWEPT = Board("tx2-gpu", "tx2", 1300.5, 1866.0, 2035.2, 1.288)
BOARDS = (
    Board("agx-xavier-gpu", "agx_xavier", 1377.0, 2133.0, 2265.6, 1.288),
    SWEPT,
    # Launches as of TX2, whose host cores are of the same kind.
    Board("nano-gpu", "nano", 921.6, 1600.0, 1479.0, 1.097 / 0.819, launch_cycles=17700.0),
)
# At 224 pixels, counted as in the data: MACs, weight bytes, activation bytes read and written, convolutions.
RESNET_50 = (3.893e9, 4 * 25.64e6, 8 * 37.12e6, 53)


def swept_slowdown() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clocks of TX2 over the highest ones, core and memory, and how much slower ResNet-50 is there, [S] each.

    By the fit to a measured sweep (github thynics/jetson_dvfs) of error 0.3 %.
    """
    core = np.array(
        [114.75, 216.75, 318.75, 420.75, 522.75, 624.75, 726.75, 854.25, 930.75, 1032.75, 1122, 1236.75, 1300.5]
    )
    memory = np.array([408, 665.6, 800, 1062.4, 1331.2, 1600, 1866])
    core_ghz, memory_ghz = (grid.ravel() * 1e-3 for grid in np.meshgrid(core, memory))
    latency = ((21.2 / core_ghz) ** 3 + (20.8 / memory_ghz) ** 3) ** (1 / 3) + 0.74
    return core_ghz / core_ghz.max(), memory_ghz / memory_ghz.max(), latency / latency.min()


class Profile(NamedTuple):
    """Measured networks of one board, arrays [R]; `power_w` is nan where it was not measured."""

    family: np.ndarray
    macs: np.ndarray
    weight_bytes: np.ndarray
    activation_bytes: np.ndarray
    kernels: np.ndarray
    latency_s: np.ndarray
    power_w: np.ndarray

    def where(self, rows: np.ndarray) -> "Profile":
        """Returns the rows of a mask or of indices."""
        return Profile(*(column[rows] for column in self))


class Shape(NamedTuple):
    """What networks at one clock setting do not tell, of a board with a sweep; logarithms.

    Attributes:
        order: Norm order - 1.
        core_over_memory: Weight B/s on the core's side over those on the memory's side, at the highest clocks.
    """

    order: float
    core_over_memory: float


class Times(NamedTuple):
    """Predicted times in s, arrays [R]."""

    compute: jax.Array
    roofline: jax.Array
    total: jax.Array


def read_profile(path: Path, board: Board) -> Profile:
    """Reads the networks of a board that have a latency."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["device"] == board.column and row["latency_ms"]]

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name] or "nan") for row in rows])

    return Profile(
        family=np.array(["random" if row["network"].startswith("basic_model") else row["network"] for row in rows]),
        macs=column("flops") / 2,
        weight_bytes=ELEMENT_BYTES * (column("params_conv") + column("params_bn") + column("params_fc")),
        activation_bytes=2 * ELEMENT_BYTES * column("activation_elements"),
        kernels=column("conv_layers"),
        latency_s=column("latency_ms") * 1e-3,
        power_w=column("power_mw") * 1e-3,
    )


def predict_times(
    log_parameters: ArrayLike, profile: Profile, *, core: ArrayLike = 1.0, memory_clock: ArrayLike = 1.0
) -> Times:
    """Times at clocks relative to those of the data.

    Args:
        log_parameters: Logarithms of MAC/s, weight B/s on the memory's side, activation B/s, norm order - 1, seconds
            per kernel, and weight B/s on the core's side.
        profile: Networks.
        core: Core clock over that of the data.
        memory_clock: Memory clock over that of the data.
    """
    rate, weight_rate, activation_rate, order, launch_s, core_weight_rate = jnp.exp(log_parameters)
    busy = profile.macs / rate / core
    compute = (profile.macs / rate + profile.weight_bytes / core_weight_rate) / core
    memory = (profile.weight_bytes / weight_rate + profile.activation_bytes / activation_rate) / memory_clock
    roofline = p_norm(compute, memory, 1.0 + order)
    return Times(busy, roofline, roofline + profile.kernels * launch_s)


def predict_power(log_parameters: ArrayLike, times: Times) -> jax.Array:
    """Mean rail power in W from logarithms of W idle, W while kernels run, W by compute time, and s of idle gap."""
    idle, running, computing, gap = jnp.exp(log_parameters)
    return idle + (running * times.roofline + computing * times.compute) / (times.total + gap)


def fit(predict: Callable[[jax.Array], jax.Array], measured: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns the log parameters of least robust loss on the log ratio."""
    residuals = jax.jit(lambda parameters: jnp.log(predict(parameters) / measured))
    jacobian = jax.jit(jax.jacfwd(lambda parameters: jnp.log(predict(parameters) / measured)))
    found = least_squares(residuals, start, jac=jacobian, loss="soft_l1", f_scale=ROBUST_SCALE)
    return found.x


def fit_latency(profile: Profile, board: Board, *, shape: Shape | None = None, core_weights: bool = True) -> np.ndarray:
    """Fits `predict_times`, for the board with a sweep to that too.

    Args:
        profile: Networks to fit.
        board: Their board.
        shape: Of the board with a sweep; None: fitted.
        core_weights: Whether weights cost the core time.

    Returns:
        The log parameters.
    """

    def complete(parameters: jax.Array) -> jax.Array:
        if board.launch_cycles is not None:
            parameters = parameters.at[4].set(math.log(board.launch_cycles / board.host * 1e-6))
        if shape is not None:
            parameters = parameters.at[3].set(shape.order).at[5].set(parameters[1] + shape.core_over_memory)
        return parameters if core_weights else parameters.at[5].set(math.log(NO_CORE_TIME))

    with_sweep = core_weights and board is SWEPT

    def predict(parameters: jax.Array) -> jax.Array:
        parameters = complete(parameters)
        latency = predict_times(parameters, profile).total
        return jnp.concatenate([latency, predict_slowdown(parameters)]) if with_sweep else latency

    measured = np.concatenate([profile.latency_s, swept_slowdown()[2]]) if with_sweep else profile.latency_s
    found = fit(predict, measured, np.log([1e11, 1e10, 1e10, 0.5, 1e-5, 1e10]))
    return np.asarray(complete(jnp.asarray(found)))


def fit_shape(swept: Profile) -> Shape:
    """Fits the board with a sweep and returns what the others take from it."""
    parameters = fit_latency(swept, SWEPT)
    return Shape(order=parameters[3], core_over_memory=parameters[5] - parameters[1])


def predict_slowdown(log_parameters: ArrayLike) -> jax.Array:
    """How much slower ResNet-50 is at the swept clocks than at the highest, [S]."""
    unknown = np.array([np.nan])
    macs, weights, activations, kernels = (np.array([count]) for count in RESNET_50)
    one = Profile(np.array(["ResNet-50"]), macs, weights, activations, kernels, unknown, unknown)
    core, memory_clock, _ = swept_slowdown()
    at_highest = predict_times(log_parameters, one).total
    return predict_times(log_parameters, one, core=core, memory_clock=memory_clock).total / at_highest


def fit_power(profile: Profile, times: Times) -> np.ndarray:
    """Returns the log parameters of `predict_power`."""
    return fit(lambda parameters: predict_power(parameters, times), profile.power_w, np.log([0.5, 3.0, 3.0, 0.1]))


def folds(family: np.ndarray) -> np.ndarray:
    """Deals whole families to folds, [R]."""
    names = np.unique(family)
    dealt = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return dealt[np.searchsorted(names, family)]


class HeldOut(NamedTuple):
    """Predictions of each row from the other folds, [R]."""

    latency: np.ndarray
    power: np.ndarray
    power_of_measured: np.ndarray


def held_out(profile: Profile, board: Board, swept: Profile) -> HeldOut:
    """Predicts each row from the other folds: latency, power from predicted times, power from measured latency."""
    latency, power, power_of_measured = (np.full(len(profile.family), np.nan) for _ in range(3))
    fold = folds(profile.family)
    for left_out in range(FOLDS):
        train, test = profile.where(fold != left_out), profile.where(fold == left_out)
        shape = None if board is SWEPT else fit_shape(swept.where(~np.isin(swept.family, test.family)))
        parameters = fit_latency(train, board, shape=shape)
        times = predict_times(parameters, test)
        latency[fold == left_out] = times.total
        powered = train.where(np.isfinite(train.power_w))
        rails = fit_power(powered, predict_times(parameters, powered))
        power[fold == left_out] = predict_power(rails, times)
        ratio = jnp.asarray(test.latency_s) / times.total
        power_of_measured[fold == left_out] = predict_power(rails, Times(*(time * ratio for time in times)))
    return HeldOut(latency, power, power_of_measured)


def held_out_without_core(profile: Profile, board: Board) -> np.ndarray:
    """Predicts the latency of each row from the other folds where weights cost the core nothing, [R]."""
    latency, fold = np.full(len(profile.family), np.nan), folds(profile.family)
    for left_out in range(FOLDS):
        parameters = fit_latency(profile.where(fold != left_out), board, core_weights=False)
        latency[fold == left_out] = predict_times(parameters, profile.where(fold == left_out)).total
    return latency


def relative_error(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Absolute relative errors, [R]."""
    return np.abs(predicted - measured) / measured


def add_sweep(table: Table, log_parameters: np.ndarray, name: str) -> None:
    """Adds a row with the error of ResNet-50's slowdown over the swept clocks."""
    slowdown = np.asarray(predict_slowdown(jnp.asarray(log_parameters)))
    table.add_row(name, f"{relative_error(slowdown, swept_slowdown()[2]).mean():.3f}")


def report(board: Board, profile: Profile, swept: Profile) -> Table:
    """Fits a board and lists the figures of its file and their errors."""
    table = Table("figure", "value", title=f"{board.name}: {len(profile.family)} latencies", min_width=60)
    parameters = fit_latency(profile, board, shape=None if board is SWEPT else fit_shape(swept))
    rate, weight_rate, activation_rate, order, launch_s, core_weight_rate = np.exp(parameters)
    table.add_row("macs_per_cycle.dense, pointwise", f"{rate / board.core / 1e6:.4g} MAC/cycle")
    table.add_row("core_weight_bytes_per_cycle", f"{core_weight_rate / board.core / 1e6:.4g} B/cycle")
    table.add_row("weight_bytes_per_cycle", f"{weight_rate / board.memory / 1e6:.4g} B/cycle")
    whole = activation_rate / board.memory / 1e6
    table.add_row("activation_bytes_per_cycle", f"{whole:.4g} / {ACTIVATION_DIVISOR} B/cycle")
    table.add_row("norm_order", f"{1 + order:.4g}")
    table.add_row("weights, core over memory rate", f"{core_weight_rate / weight_rate:.3f}")
    table.add_row("launch_cycles", f"{launch_s * 1e6:.4g} us = {launch_s * board.host * 1e6:.4g} cycles")
    found, named = held_out(profile, board, swept), profile.family != "random"
    errors = relative_error(found.latency, profile.latency_s)
    table.add_row("families", f"{len(np.unique(profile.family[named]))} named, 1 random")
    table.add_row("latency, held out", f"{errors.mean():.3f} (median {np.median(errors):.3f})")
    table.add_row("  named, random", f"{errors[named].mean():.3f}, {errors[~named].mean():.3f}")
    table.add_row("  Kendall tau", f"{kendalltau(found.latency, profile.latency_s).statistic:.3f}")
    errors = relative_error(held_out_without_core(profile, board), profile.latency_s)
    table.add_row("  no weights on the core", f"{errors.mean():.3f}; named {errors[named].mean():.3f}")
    if board is SWEPT:
        add_sweep(table, parameters, "ResNet-50 over clocks")
        add_sweep(table, fit_latency(profile, board, core_weights=False), "  no weights on the core")

    powered = np.isfinite(profile.power_w)
    rows = profile.where(powered)
    idle, running, computing, gap = np.exp(fit_power(rows, predict_times(parameters, rows)))
    full = running + computing
    table.add_section()
    table.add_row("rows with power", f"{powered.sum()}")
    table.add_row("core_idle", f"{idle:.4g} W / v^2 = {idle / board.voltage**2:.4g} W")
    load = full / board.core / board.voltage**2 * 1e3
    table.add_row("core_load", f"{full:.4g} W = {running:.4g} + {computing:.4g}; {load:.4g} mW/MHz")
    table.add_row("core_stalled_share", f"{running / full:.3f}")
    table.add_row("idle gap", f"{gap:.3f} s")
    errors = relative_error(found.power, profile.power_w)
    table.add_row("power, held out", f"{errors[powered].mean():.3f}")
    table.add_row("  named, random", f"{errors[powered & named].mean():.3f}, {errors[powered & ~named].mean():.3f}")
    errors = relative_error(found.power_of_measured, profile.power_w)
    table.add_row("  from measured latency", f"{errors[powered].mean():.3f}")
    return table


def main(experiment: Experiment) -> None:
    """Fits every board and prints its figures."""
    path = experiment.data / FILE
    if not path.is_file():
        print(f"data: expected the file {FILE} in {experiment.data}, found none", file=sys.stderr)
        raise SystemExit(2)
    jax.config.update("jax_enable_x64", True)
    swept = read_profile(path, SWEPT)
    for board in BOARDS:
        Console(width=120).print(report(board, read_profile(path, board), swept))


if __name__ == "__main__":
    main(tyro.cli(Experiment))
