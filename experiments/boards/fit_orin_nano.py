"""Orin Nano: parameters fitted at one memory clock and half of the GPU clocks predict the other clocks.

Command:   python experiments/boards/fit_orin_nano.py --data DIR
           DIR holds orin_nano_dvfs_latency.csv, made of github dankang21/jetson-latency-lab (Apache-2.0)
Hardware:  1 CPU core, 1 GB
Time:      15 s (a core of an Intel Xeon, jax 0.10.2)
Expected:  layer by layer, mean of the four combinations of memory clock and half: 2.2 % (1.4 to 2.6 %) where the halves
           are every other GPU clock, 5.4 % (3.4 to 8.2 %) where they are the low or the high ones; MobileNetV2 alone
           1.1 % and 1.8 %. With other priors 2.1 to 2.8 % and 5.1 to 7.5 %.

A workload takes [(a / f_core)^p + (c / f_memory)^p]^(1/p) + d, MobileNetV2 as the sum of that over its layers. One
memory clock shows c only through the shape of the curve, so the fit is a maximum a posteriori under log-normal
priors, all of other boards or of what the workloads are:

- MobileNetV2: the shares of its layers in a and c from its layer table and the rates of AGX Xavier; p 3 and memory
  over compute time 0.62 at the highest clocks, as two networks on TX2 (p 3 and 3; 0.57 and 0.68); d 0.7 ms, 64 kernels
  of 11 us as on AGX Xavier.
- The proxies are single kernels: one p between them, 11, as one kernel overlaps better than a network; d 0.1 ms, a
  launch and an await.
- The memory-bound proxy: memory and compute time equal at the highest clocks, within 20 %. Boards are built so that the
  chip can just ask for what the memory gives, and its name says that memory decides.
- The compute-bound proxy: memory time a fifth of compute time, within a factor of 2.

Nothing of the tested cells enters a fit; the form of the model and the priors were written with the whole table at
hand, so the sensitivity to them is printed too.
"""

import csv
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import least_squares

from hw_models import LayerKind
from hw_models.reference_networks import mobilenet_v2
from hw_models.roofline import p_norm

FILE = "orin_nano_dvfs_latency.csv"
WORKLOADS = ("mobilenet_v2", "compute_bound_proxy", "memory_bound_proxy")
SPLITS = ("interleaved", "low or high")
HIGHEST_CORE, HIGHEST_MEMORY = 1.02, 3.199
HOST_MHZ = 1510.4
# Log error that measurement and model are trusted to.
NOISE = 0.02
# MobileNetV2: parameters in fp32, and core cycles of its MACs at the assumed rates of the device file.
WEIGHT_BYTES = 13.95e6
ASSUMED_MAC_CYCLES = 0.57e6
# Of AGX Xavier fitted with weights on the memory clock alone, as here: compute rate by kind relative to dense, and
# bytes per cycle of activations over weights.
RELATIVE_RATE = {
    LayerKind.DENSE: 1.0,
    LayerKind.POINTWISE: 1.0,
    LayerKind.DEPTHWISE: 93 / 465,
    LayerKind.POOLING: 128 / 465,
    LayerKind.ELEMENTWISE: 128 / 465,
    LayerKind.LINEAR: 1.0,
}
ACTIVATIONS_OVER_WEIGHTS = 15 / 3.71
ELEMENT_BYTES = 4
# Of a run, assumed in the device file: host cycles and seconds.
RUN_MS = (45300 / HOST_MHZ + 10) * 1e-3


class Prior(NamedTuple):
    """Log-normal prior: its median, and the standard deviation of the logarithm."""

    median: float
    spread: float


# `core` is a in ms GHz, `ratio` memory over compute time at the highest clocks, `constant` d in ms, `order` p - 1.
PRIORS: Mapping[str, Prior] = {
    "core mobilenet_v2": Prior(4, 2),
    "ratio mobilenet_v2": Prior(0.62, 0.5),
    "constant mobilenet_v2": Prior(0.7, 0.5),
    "order mobilenet_v2": Prior(2, 0.4),
    "core compute_bound_proxy": Prior(10, 2),
    "ratio compute_bound_proxy": Prior(0.2, 0.7),
    "constant compute_bound_proxy": Prior(0.1, 1),
    "core memory_bound_proxy": Prior(4, 2),
    "ratio memory_bound_proxy": Prior(1, 0.2),
    "constant memory_bound_proxy": Prior(0.1, 1),
    "order proxy": Prior(10, 0.7),
}
# Other priors that could have been written, for the sensitivity.
VARIANTS: Mapping[str, Mapping[str, Prior]] = {
    "as written": {},
    "proxy: ratio wider": {"ratio memory_bound_proxy": Prior(1, 0.4)},
    "proxy: memory 20 % longer": {"ratio memory_bound_proxy": Prior(1.2, 0.2)},
    "proxy: p 6": {"order proxy": Prior(5, 0.7)},
    "proxy: p 21": {"order proxy": Prior(20, 0.7)},
    "network: half the ratio": {"ratio mobilenet_v2": Prior(0.31, 0.5)},
    "network: twice the ratio": {"ratio mobilenet_v2": Prior(1.24, 0.5)},
    "network: d 1.1 ms": {"constant mobilenet_v2": Prior(1.1, 0.5)},
}


@dataclass(frozen=True)
class Experiment:
    """Latency of an Orin Nano at clocks that the fit has not seen."""

    data: Path
    """Folder of the CSV file."""


class Sweep(NamedTuple):
    """Measurements [R]: position in `WORKLOADS`, clocks in GHz, latency in ms."""

    workload: np.ndarray
    core: np.ndarray
    memory: np.ndarray
    latency: np.ndarray

    @property
    def throttled(self) -> np.ndarray:
        """The one measurement that is slower than at a lower memory clock."""
        at_highest = (self.core == HIGHEST_CORE) & (self.memory == HIGHEST_MEMORY)
        return at_highest & (self.workload == WORKLOADS.index("compute_bound_proxy"))


class Shares(NamedTuple):
    """Shares [L] of the layers of a network in its compute and memory time; each sums to 1."""

    compute: np.ndarray
    memory: np.ndarray


class Combination(NamedTuple):
    """One way to split the sweep, masks [R]."""

    name: str
    train: np.ndarray
    test: np.ndarray


def read_sweep(path: Path) -> Sweep:
    """Reads the table."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in rows])

    workload = np.array([WORKLOADS.index(row["workload"]) for row in rows])
    return Sweep(workload, column("gpu_mhz") / 1e3, column("emc_mhz") / 1e3, column("latency_ms_p50"))


def network_work() -> tuple[np.ndarray, np.ndarray]:
    """MobileNetV2 layer by layer: MACs at the rate of dense ones, and bytes at that of activations, [L] each."""
    layers = mobilenet_v2(224)
    relative = np.array([RELATIVE_RATE[kind] for kind in LayerKind])[np.asarray(layers.kind)]
    activations = np.asarray(layers.input_elements + layers.output_elements, np.float64)
    weights = np.asarray(layers.weight_elements, np.float64) * ACTIVATIONS_OVER_WEIGHTS
    return np.asarray(layers.macs, np.float64) / relative, ELEMENT_BYTES * (weights + activations)


def network_shares(*, by_layer: bool) -> Shares:
    """Shares of the layers of MobileNetV2, or of the network as one layer."""
    if not by_layer:
        return Shares(np.ones(1), np.ones(1))
    macs, traffic = network_work()
    return Shares(macs / macs.sum(), traffic / traffic.sum())


def combinations(sweep: Sweep, split: str) -> Iterator[Combination]:
    """Yields the four combinations of memory clock and half of the GPU clocks to fit at.

    The tested cells are at the other memory clock and the other half.
    """
    clocks = np.unique(sweep.core)
    middle = len(clocks) // 2
    halves = {
        "interleaved": (clocks[::2], clocks[1::2]),
        "low or high": (clocks[:middle], clocks[middle:]),
    }[split]
    for memory, half in itertools.product(np.unique(sweep.memory), halves):
        at_memory, at_half = sweep.memory == memory, np.isin(sweep.core, half)
        name = f"{memory * 1e3:.0f} MHz; GPU {', '.join(f'{clock * 1e3:.0f}' for clock in half)}"
        yield Combination(name, at_memory & at_half, ~at_memory & ~at_half)


def predict(logs: jax.Array, sweep: Sweep, shares: Shares) -> jax.Array:
    """Latency in ms, [R], of parameters in the order of `PRIORS`, as logarithms."""
    values = dict(zip(PRIORS, jnp.exp(logs), strict=True))
    predicted = jnp.zeros(len(sweep.latency))
    for i, name in enumerate(WORKLOADS):
        compute, memory = shares if name == "mobilenet_v2" else Shares(np.ones(1), np.ones(1))
        order = 1.0 + values["order mobilenet_v2" if name == "mobilenet_v2" else "order proxy"]
        core_work = values[f"core {name}"]
        memory_work = values[f"ratio {name}"] * core_work * (HIGHEST_MEMORY / HIGHEST_CORE)
        busy = p_norm(core_work * compute / sweep.core[:, None], memory_work * memory / sweep.memory[:, None], order)
        predicted = jnp.where(sweep.workload == i, busy.sum(axis=1) + values[f"constant {name}"], predicted)
    return predicted


class Fitter:
    """Maximum a posteriori of one form of the model; compiled once for all combinations and priors."""

    def __init__(self, sweep: Sweep, *, by_layer: bool):
        self._shares = network_shares(by_layer=by_layer)
        self._sweep = sweep
        self._residuals = jax.jit(self._all_residuals)
        self._jacobian = jax.jit(jax.jacfwd(self._all_residuals))
        self.predict = jax.jit(lambda logs: predict(logs, sweep, self._shares))

    def fit(self, train: np.ndarray, priors: Mapping[str, Prior]) -> np.ndarray:
        """Returns the log parameters for the rows of a mask [R]."""
        medians, spreads = np.log([prior.median for prior in priors.values()]), [p.spread for p in priors.values()]
        arguments = (train.astype(float), medians, np.array(spreads))
        found = least_squares(self._residuals, medians, jac=self._jacobian, args=arguments)
        return found.x

    def _all_residuals(self, logs: jax.Array, train: jax.Array, medians: jax.Array, spreads: jax.Array) -> jax.Array:
        ratio = jnp.log(predict(logs, self._sweep, self._shares) / self._sweep.latency)
        return jnp.concatenate([train * ratio / NOISE, (logs - medians) / spreads])


def errors_of_split(
    fitter: Fitter, sweep: Sweep, split: str, priors: Mapping[str, Prior]
) -> tuple[list[str], np.ndarray]:
    """Mean absolute relative errors of the tested cells.

    Returns:
        Names of the combinations, and [4, 5]: of all, of all but the throttled one, and of each workload.
    """
    names, rows = [], []
    for combination in combinations(sweep, split):
        logs = fitter.fit(combination.train, priors)
        errors = np.abs(fitter.predict(logs) / sweep.latency - 1)
        of_workload = [combination.test & (sweep.workload == i) for i in range(len(WORKLOADS))]
        masks = [combination.test, combination.test & ~sweep.throttled, *of_workload]
        names.append(combination.name)
        rows.append([errors[mask].mean() for mask in masks])
    return names, np.array(rows)


def core_only_error(sweep: Sweep) -> float:
    """Error at the lower memory clock and the upper half of GPU clocks of a fit a / f_core + d at the higher one."""
    train, test = sweep.memory == HIGHEST_MEMORY, (sweep.memory != HIGHEST_MEMORY) & (sweep.core > HIGHEST_CORE * 0.65)
    errors = []
    for i in range(len(WORKLOADS)):
        rows = train & (sweep.workload == i)
        line = np.polyfit(1 / sweep.core[rows], sweep.latency[rows], 1)
        rows = test & (sweep.workload == i)
        errors.append(np.abs(np.polyval(line, 1 / sweep.core[rows]) / sweep.latency[rows] - 1))
    return float(np.concatenate(errors).mean())


def show_errors(console: Console, fitter: Fitter, sweep: Sweep, form: str) -> None:
    """Prints the errors of both splits."""
    for split in SPLITS:
        table = Table("fitted at", "all", "not throttled", *WORKLOADS, title=f"{form}; {split} halves")
        names, errors = errors_of_split(fitter, sweep, split, PRIORS)
        for name, row in zip([*names, "mean"], [*errors, errors.mean(axis=0)], strict=True):
            table.add_row(name, *(f"{error:.1%}" for error in row))
        console.print(table)


def show_figures(console: Console, fitter: Fitter, sweep: Sweep) -> None:
    """Prints the figures of the device file, fitted to the whole sweep."""
    values = dict(zip(PRIORS, np.exp(fitter.fit(np.ones(len(sweep.latency), bool), PRIORS)), strict=True))
    macs, traffic = network_work()
    core_work = values["core mobilenet_v2"]
    memory_work = values["ratio mobilenet_v2"] * core_work * HIGHEST_MEMORY / HIGHEST_CORE
    activation_bytes = traffic.sum() / memory_work * 1e-6
    launch_ms = (values["constant mobilenet_v2"] - RUN_MS) / len(macs)
    table = Table("figure", "value", title="Device file: MobileNetV2 layer by layer, whole sweep")
    core_cycles = 1e6 * core_work
    table.add_row("all core time as MACs", f"{macs.sum() / core_cycles:.4g} MAC/cycle")
    weight_cycles = core_cycles - ASSUMED_MAC_CYCLES
    table.add_row("core_weight_bytes_per_cycle, MACs at assumed rates", f"{WEIGHT_BYTES / weight_cycles:.4g} B/cycle")
    table.add_row("weight_bytes_per_cycle", f"{activation_bytes / ACTIVATIONS_OVER_WEIGHTS:.4g} B/cycle")
    table.add_row("activation_bytes_per_cycle", f"{activation_bytes:.4g} B/cycle")
    table.add_row("norm_order", f"{1 + values['order mobilenet_v2']:.4g}")
    table.add_row("launch_cycles", f"{launch_ms * 1e3:.4g} us = {launch_ms * HOST_MHZ * 1e3:.4g} cycles")
    console.print(table)


def main(experiment: Experiment) -> None:
    """Prints errors of all combinations, their sensitivity to the priors, and the figures of the device file."""
    path = experiment.data / FILE
    if not path.is_file():
        print(f"data: expected the file {FILE} in {experiment.data}, found none", file=sys.stderr)
        raise SystemExit(2)
    jax.config.update("jax_enable_x64", True)
    sweep, console = read_sweep(path), Console(width=120)
    console.print(f"GPU clock alone, fitted at 3199 MHz, at 2133 MHz and 714 MHz or more: {core_only_error(sweep):.1%}")
    fitters = {form: Fitter(sweep, by_layer=form == "layers") for form in ("network as a whole", "layers")}
    for form, fitter in fitters.items():
        show_errors(console, fitter, sweep, form)
    table = Table("priors", *SPLITS, title="layers; mean error of the four combinations")
    for name, changed in VARIANTS.items():
        priors = {**PRIORS, **changed}
        errors = [errors_of_split(fitters["layers"], sweep, split, priors)[1][:, 0].mean() for split in SPLITS]
        table.add_row(name, *(f"{error:.1%}" for error in errors))
    console.print(table)
    show_figures(console, fitters["layers"], sweep)


if __name__ == "__main__":
    main(tyro.cli(Experiment))
