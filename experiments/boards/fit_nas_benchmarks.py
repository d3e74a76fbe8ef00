"""NAS benchmarks: latency of cells from 500 measurements, of blocks from layer counts, of a new device from 10 cells.

Command:   python experiments/boards/fit_nas_benchmarks.py --data DIR
           DIR holds nasbench201_latency.npz and fbnet_latency.npz, made of github HayeonLee/HELP (MIT); the figures are
           measurements of HW-NAS-Bench (https://arxiv.org/abs/2103.10584) and HELP (https://arxiv.org/abs/2106.08630)
Hardware:  2 CPU cores, 2 GB
Time:      90 s of CPU time (2 cores of an Intel Xeon with AVX-512, jax 0.10.2)
Expected:  tau after 500 cells, one-hot and structure: RasPi4 0.804, 0.894; Pixel 3 0.805, 0.893; 1080 Ti 0.912, 0.912;
           Gold 6226 0.921, 0.921 (0.938 with drift). Ceilings about 0.911, 0.899, 0.912, 0.919.
           From 10 cells, all other devices as donors: RasPi4 0.863, Pixel 3 0.876, 1080 Ti 0.903, Gold 6226 0.903;
           without devices of the same class, as both runtimes: 0.834, 0.809, 0.879, 0.895.
           FBNet blocks of a type, of a shape left out: RasPi4 12.5 %, 12.6 %; Pixel 3 5.7 %, 7.6 %; networks as sums
           of modelled blocks and a constant: 4.1 %, 1.0 %.

What phone runtimes make of a cell (`converted_edges`) was read off all cells of RasPi4 and Pixel 3; no parameter of a
fit sees a tested cell. Whether a device converts is chosen by leaving out one of the 500 cells.

Ceiling: cells that differ only in the numbering of nodes 1 and 2 have the same network, so their measurements differ
by noise. Added to the predictions of a fit to all cells, that noise alone gives the tau that a perfect model of the
same spread would reach.

Drift: latencies of some devices wander over the rows of the file, which has no order in the cells. The row with drift
adds the row number to the features, as slow waves; that corrects the run of measurements, not the model of the
hardware, and is reported apart.

FBNet: network latencies of RasPi4 and Pixel 3 are exactly a constant plus a sum over a block table, which is known up
to a constant per position. An identity skip costs nothing, which fixes that constant at 16 of the 22 positions; the
blocks of these are what the layer model is fitted to and tested on. That grouped convolutions are split and
concatenated (`fbnet.py`) was chosen with these blocks at hand.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import fbnet
import jax
import jax.numpy as jnp
import nasbench201
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from hw_models import Device, LayerTable, default_point, load_device
from hw_models.fitting.device_parameters import Measured, fit, predict
from hw_models.fitting.few_shot import RidgeFit, adapt, fit_ridge, nearest_donor

CELLS_FILE, BLOCKS_FILE = "nasbench201_latency.npz", "fbnet_latency.npz"
GOALS = {"raspi4": 0.87, "pixel3": 0.87, "1080ti_1": 0.95, "gold_6226": 0.95}
CLASSES = {
    "phone or board": ("raspi4", "pixel3", "pixel2"),
    "server CPU": ("gold_6226", "gold_6240", "silver_4114"),
    "GPU": ("1080ti_1", "2080ti_1", "titan_rtx_1", "titan_rtx_256"),
}
DEVICES = tuple(name for names in CLASSES.values() for name in names)
TRAINED, DONOR_CELLS, FEW = 500, 1000, 10
# Slow waves over the rows: 150 over 15,625 rows; correlation lengths in rows.
WAVES, CORRELATIONS, STRENGTHS = 150, (60.0,), (0.3, 1.0)
WIDTH = 130
BASE_DEVICE = "agx-xavier-gpu"


@dataclass(frozen=True)
class Experiment:
    """Latency models on NAS-Bench-201 and FBNet measurements."""

    data: Path
    """Folder of the two files."""
    draws: int = 5
    """Draws of 500 cells."""
    few_draws: int = 20
    """Draws of 10 cells."""


class Cells(NamedTuple):
    """Cells with features as if all edges ran (launched) and of what a phone runtime leaves (converted)."""

    edges: np.ndarray
    one_hot: jax.Array
    features: dict[str, jax.Array]
    milliseconds: dict[str, np.ndarray]


def main(experiment: Experiment) -> int:
    """Prints the tables; returns the exit code."""
    for name in (CELLS_FILE, BLOCKS_FILE):
        if not (experiment.data / name).is_file():
            print(f"--data: expected a folder with {name}, got {experiment.data}", file=sys.stderr)
            return 2
    console = Console(width=WIDTH)
    cells = load_cells(experiment.data / CELLS_FILE)
    console.print(cells_table(cells, experiment.draws))
    console.print(few_table(cells, experiment.few_draws))
    with np.load(experiment.data / BLOCKS_FILE) as file:
        console.print(blocks_table(dict(file)))
    return 0


def load_cells(path: Path) -> Cells:
    """Reads the measurements and computes the features of each cell."""
    with np.load(path) as file:
        edges = file["edges"].astype(np.int32)
        milliseconds = {name: file[f"{name}_ms"].astype(np.float32) for name in DEVICES}
    features = {
        "launched": jax.jit(jax.vmap(nasbench201.structure_features))(edges),
        "converted": jax.jit(jax.vmap(lambda e: nasbench201.structure_features(e, nasbench201.converted_edges(e))))(
            edges
        ),
    }
    one_hot = jax.nn.one_hot(edges, len(nasbench201.CellOp), dtype=jnp.float32).reshape(len(edges), -1)
    return Cells(edges, one_hot, features, milliseconds)


def cells_table(cells: Cells, draws: int) -> Table:
    """Kendall's tau after fitting on 500 cells."""
    table = Table(title=f"NAS-Bench-201: Kendall's tau on the rest after {TRAINED} cells, mean of {draws} draws (std)")
    for heading in ("device", "one-hot", "structure", "runtime", "fit on 10,000", "ceiling", "with drift", "goal"):
        table.add_column(heading)
    for name, goal in GOALS.items():
        target = cells.milliseconds[name]
        scores: dict[str, list[float]] = {"one-hot": [], "structure": [], "drift": []}
        runtimes = Counter[str]()
        for trained, rest in splits(len(target), TRAINED, draws):
            runtime, fitted = fit_best(cells.features, target, trained)
            runtimes[runtime] += 1
            scores["structure"].append(tau(fitted.predict(cells.features[runtime]), target, rest))
            baseline = fit_ridge(cells.one_hot[trained], target[trained])
            scores["one-hot"].append(tau(baseline.predict(cells.one_hot), target, rest))
            scores["drift"].append(tau(predict_with_drift(cells.features[runtime], target, trained), target, rest))
        runtime = runtimes.most_common(1)[0][0]
        trained, rest = next(splits(len(target), 10_000, 1))
        many = fit_ridge(cells.features[runtime][trained], target[trained]).predict(cells.features[runtime])
        table.add_row(
            name,
            *(f"{np.mean(scores[key]):.3f} ({np.std(scores[key]):.4f})" for key in ("one-hot", "structure")),
            f"{runtime} {runtimes[runtime]}/{draws}",
            f"{tau(many, target, rest):.3f}",
            f"{ceiling(cells.edges, np.asarray(many), target):.3f}",
            f"{np.mean(scores['drift']):.3f} ({np.std(scores['drift']):.4f})",
            f"{goal:.2f}",
        )
    return table


def fit_best(features: dict[str, jax.Array], target: np.ndarray, trained: np.ndarray) -> tuple[str, RidgeFit]:
    """Fits with both kinds of features and keeps what predicts left-out cells best."""
    fits = {runtime: fit_ridge(columns[trained], target[trained]) for runtime, columns in features.items()}
    best = min(fits, key=lambda runtime: float(fits[runtime].held_out_rms))
    return best, fits[best]


def predict_with_drift(features: jax.Array, target: np.ndarray, trained: np.ndarray) -> jax.Array:
    """Predicts with slow waves over the row number as further features."""
    phase = np.pi * np.arange(len(target))[:, None] / len(target) * np.arange(1, WAVES + 1)
    scale = float(np.std(target[trained]))
    fits = []
    for correlation in CORRELATIONS:
        spectrum = 1 / np.sqrt(1 + (np.pi * np.arange(1, WAVES + 1) * correlation / len(target)) ** 2)
        waves = np.concatenate([np.cos(phase) * spectrum, np.sin(phase) * spectrum], axis=1)
        for strength in STRENGTHS:
            columns = jnp.concatenate([features, jnp.asarray(strength * waves, jnp.float32)], axis=1)
            fitted = fit_ridge(columns[trained], target[trained] / scale)
            fits.append((float(fitted.held_out_rms), fitted, columns))
    _, fitted, columns = min(fits, key=lambda entry: entry[0])
    return scale * fitted.predict(columns)


def ceiling(edges: np.ndarray, predicted: np.ndarray, target: np.ndarray) -> float:
    """Tau of predictions with themselves under the noise between measurements of isomorphic cells."""
    row = {tuple(cell): i for i, cell in enumerate(edges.tolist())}
    pairs = []
    for i, (to_1, to_2, between, direct, from_1, from_2) in enumerate(edges.tolist()):
        other = row[(to_2, to_1, 0, direct, from_2, from_1)]
        if between == nasbench201.CellOp.NONE and other > i:
            pairs.append((i, other))
    first, second = np.asarray(pairs).T
    noise = (target[first] - target[second]) / np.sqrt(2)
    level = (predicted[first] + predicted[second]) / 2
    order = np.argsort(level)
    rng = np.random.default_rng(0)
    near = np.searchsorted(level[order], predicted) + rng.integers(-40, 41, len(predicted))
    drawn = noise[order[np.clip(near, 0, len(order) - 1)]] * rng.choice([-1, 1], len(predicted))
    return float(kendalltau(predicted, predicted + drawn).statistic)


def few_table(cells: Cells, draws: int) -> Table:
    """Kendall's tau on a new device from 10 of its cells."""
    donors = {}
    for name in DEVICES:
        target = cells.milliseconds[name]
        trained, _ = next(splits(len(target), DONOR_CELLS, 1))
        runtime, fitted = fit_best(cells.features, target, trained)
        own = fitted.predict(cells.features[runtime])
        donors[name] = {"own": own, **{key: fitted.predict(cells.features[key]) for key in cells.features}}
    table = Table(title=f"NAS-Bench-201: tau of a new device from {FEW} cells, mean of {draws} draws (std, min)")
    for heading in ("device", "donors", "nearest donor", "nearest as it is", "adapted"):
        table.add_column(heading)
    for name in GOALS:
        own_class = next(members for members in CLASSES.values() if name in members)
        without_class = [other for other in DEVICES if other not in own_class]
        variants = {
            "all others": [(other, "own") for other in DEVICES if other != name],
            "other classes": [(other, "own") for other in without_class],
            "other classes, both runtimes": [(other, key) for other in without_class for key in cells.features],
        }
        for title, chosen in variants.items():
            predictions = jnp.stack([donors[other][key] for other, key in chosen])
            near, adapted = few_shot(predictions, cells.milliseconds[name], draws)
            picked, times = Counter(chosen[i] for i, _ in near).most_common(1)[0]
            picked_name = picked[0] if picked[1] == "own" else f"{picked[0]}, {picked[1]}"
            scores = [np.asarray([score for _, score in near]), np.asarray(adapted)]
            shown = [f"{score.mean():.3f} ({score.std():.3f}, {score.min():.3f})" for score in scores]
            table.add_row(name, title, f"{picked_name} {times}/{draws}", *shown)
    return table


def few_shot(predictions: jax.Array, target: np.ndarray, draws: int) -> tuple[list[tuple[int, float]], list[float]]:
    """Nearest donor with its tau, and tau after adaptation, for each draw."""
    near, adapted = [], []
    spread = jnp.std(predictions, axis=1)
    for few, rest in splits(len(target), FEW, draws):
        start = int(nearest_donor(predictions[:, few], target[few]).donor)
        near.append((start, tau(predictions[start], target, rest)))
        model = adapt(predictions[:, few], target[few], spread=spread)
        adapted.append(tau(model.predict(predictions), target, rest))
    return near, adapted


def blocks_table(file: dict[str, np.ndarray]) -> Table:
    """Errors of the layer model on FBNet blocks and of sums of blocks on networks."""
    table = Table(title="FBNet, CIFAR-100: mean absolute relative error")
    headings = ("device", "blocks: fitted", "a block type left out", "a shape left out", "entries")
    for heading in (*headings, "networks: table + constant", "networks: layer model + constant"):
        table.add_column(heading)
    positions = fbnet.positions()
    has_identity = np.asarray([position.has_identity for position in positions])
    shape = np.asarray([sorted(set(positions)).index(position) for position in positions])
    tables = fbnet.block_workloads()
    device = load_device(BASE_DEVICE)
    rows, choice = (axis.ravel() for axis in np.meshgrid(np.arange(len(positions)), np.arange(9), indexing="ij"))
    tested = has_identity[rows] & (choice != fbnet.SKIP)
    for name in ("raspi4", "pixel3"):
        lut, networks = file[f"{name}_block_lut_ms"].astype(np.float64), file[f"{name}_ms"].astype(np.float64)
        block_ms = lut[rows, choice] - lut[rows, fbnet.SKIP]
        tested_now = tested & (block_ms > 0)
        blocks = jax.tree.map(lambda column: column[rows, choice], tables)
        predicted_of = partial(fit_blocks, as_measured(blocks, np.maximum(block_ms, 1e-6) * 1e-3), device)
        fitted = predicted_of(tested_now)
        actual = np.where(tested_now, block_ms, 1.0)
        errors = [np.mean(np.abs(fitted / actual - 1)[tested_now])]
        for group in (choice, shape[rows]):
            held_out = np.full(len(rows), np.nan)
            for value in np.unique(group[tested_now]):
                held_out = np.where(group == value, predicted_of(tested_now & (group != value)), held_out)
            errors.append(np.mean(np.abs(held_out / actual - 1)[tested_now]))
        arch = file["arch"].astype(np.int32)
        at = np.arange(len(positions))
        grid = np.where(has_identity[rows] & (choice == fbnet.SKIP), 0.0, fitted).reshape(lut.shape)
        sums = [entries[at, arch].sum(axis=1) for entries in (lut, grid)]
        counts = f"{tested_now.sum()} tested, {np.sum(tested & ~tested_now)} not positive, "
        counts += f"{np.sum(has_identity)} identity skips, {9 * np.sum(~has_identity)} of unknown constant"
        table.add_row(
            name,
            *(f"{100 * error:.1f} %" for error in errors),
            counts,
            *(f"{100 * network_error(total, networks):.2g} %" for total in sums),
        )
    return table


def as_measured(layers: LayerTable, latency_s: np.ndarray) -> Measured:
    """Puts blocks and latencies into the form of the calibration, at the clocks of the base device."""
    device, count = load_device(BASE_DEVICE), len(latency_s)
    return Measured(
        layers=layers,
        point=jax.tree.map(lambda clock: jnp.full(count, clock), default_point(device)),
        batch=jnp.ones(count),
        number_format=jnp.full(count, int(device.formats[0]), jnp.int32),
        latency_s=jnp.asarray(latency_s, jnp.float32),
        power_w=jnp.full(count, jnp.nan),
        is_core=jnp.zeros(count, bool),
        segments=jnp.ones(count),
    )


def fit_blocks(measured: Measured, device: Device, trained: np.ndarray) -> np.ndarray:
    """Fits the layer model to some blocks; predicted latency of all, in ms."""
    weights = jnp.asarray(trained, jnp.float32)
    key = jax.random.key(0)
    fitted = fit(key, measured, device, weights=weights, starts=3, steps=600)
    return 1e3 * np.asarray(predict(measured, fitted)[0], np.float64)


def network_error(total: np.ndarray, networks: np.ndarray) -> float:
    """Mean absolute relative error after a constant fitted on 50 networks, on the rest."""
    constant = np.median(networks[:50] - total[:50])
    return float(np.mean(np.abs((total[50:] + constant) / networks[50:] - 1)))


def splits(count: int, trained: int, draws: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random rows to train on and the rest."""
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(count)
        yield order[:trained], order[trained:]


def tau(predicted: jax.Array, target: np.ndarray, rows: np.ndarray) -> float:
    """Kendall's tau of some rows."""
    return float(kendalltau(np.asarray(predicted)[rows], target[rows]).statistic)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Experiment)))
