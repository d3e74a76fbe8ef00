"""Latency of the CPUs of Raspberry Pi 4 and Pixel 3 from measured FBNet networks: figures of their device files.

Command:   python experiments/boards/fit_phone_files.py --data DIR
           DIR holds fbnet_latency.npz, made of github HayeonLee/HELP (MIT); the figures are measurements of
           HW-NAS-Bench (https://arxiv.org/abs/2103.10584)
Hardware:  1 CPU core, 1 GB
Time:      10 s (a core of an Intel Xeon, jax 0.10.2)
Expected:  error of the held-out networks 2.4 % (Kendall tau 0.881) on Raspberry Pi 4, 0.66 % (0.971) on Pixel 3.
           A MAC takes 0.116 and 0.125 ms per million, a depthwise one 0.986 and 0.703; a kernel and a run nothing more.

Terms add up (norm order 1), so the fit is a least squares of non-negative coefficients on the relative error, to half
of the networks; the other half is held out.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import fbnet
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls
from scipy.stats import kendalltau

from hw_models import LayerKind

FILE = "fbnet_latency.npz"
ELEMENT_BYTES = 4
CONVOLUTIONS = (LayerKind.DENSE, LayerKind.POINTWISE, LayerKind.LINEAR)
TERMS = ("macs", "depthwise macs", "elements", "weights", "kernels", "constant")


class Cpu(NamedTuple):
    """A device file, the column of the data, and the clocks in MHz that the data are taken to be measured at."""

    name: str
    column: str
    core: float
    memory: float


CPUS = (Cpu("raspberry-pi-4", "raspi4_ms", 1500.0, 1600.0), Cpu("pixel-3", "pixel3_ms", 2803.2, 1866.0))


@dataclass(frozen=True)
class Experiment:
    """Fits what the device files of two phone-class CPUs say as fitted to FBNet."""

    data: Path
    """Folder of the NPZ file."""


def terms(choices: np.ndarray) -> np.ndarray:
    """Work of networks [R, 22] in the order of `TERMS`, [R, 6]: millions, but for kernels and the constant."""
    layers = jax.tree.map(np.asarray, jax.jit(jax.vmap(fbnet.workload))(jnp.asarray(choices, jnp.int32)))

    def total(column: np.ndarray, kinds: tuple[LayerKind, ...] = tuple(LayerKind)) -> np.ndarray:
        counted = layers.active * np.isin(layers.kind, kinds)
        return np.einsum("rl,rl->r", column.astype(np.float64), counted.astype(np.float64))

    elements = layers.input_elements + layers.output_elements
    millions = [
        total(layers.macs, CONVOLUTIONS),
        total(layers.macs, (LayerKind.DEPTHWISE,)),
        total(elements),
        total(layers.weight_elements),
    ]
    return np.stack([*(column * 1e-6 for column in millions), total(layers.kernels), np.ones(len(choices))], axis=1)


def fit(work: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    """Returns the coefficients [6] in ms."""
    return nnls(work / latency_ms[:, None], np.ones(len(latency_ms)))[0]


def report(cpu: Cpu, work: np.ndarray, latency_ms: np.ndarray) -> Table:
    """Lists the figures of a file, fitted to all networks, and the error of a fit to half of them."""
    shuffled = np.random.default_rng(0).permutation(len(work))
    train, test = np.split(shuffled, [len(shuffled) // 2])
    predicted = work[test] @ fit(work[train], latency_ms[train])
    tau = kendalltau(predicted, latency_ms[test]).statistic
    error = np.mean(np.abs(predicted / latency_ms[test] - 1))
    found: Mapping[str, float] = dict(zip(TERMS, fit(work, latency_ms), strict=True))
    table = Table("figure", "value", title=cpu.name, min_width=70)
    for figure, term in (("pointwise", "macs"), ("depthwise", "depthwise macs")):
        rate = f"{1e3 / found[term] / cpu.core:.4g} MAC/cycle"
        table.add_row(f"macs_per_cycle.{figure}", f"{found[term]:.4g} ms per million, {rate}")
    for figure, term in (("weight", "weights"), ("activation", "elements")):
        rate = f"{ELEMENT_BYTES * 1e3 / found[term] / cpu.memory:.4g} B/cycle"
        table.add_row(f"{figure}_bytes_per_cycle", f"{found[term]:.4g} ms per million, {rate}")
    table.add_row("launch_cycles", f"{found['kernels']:.4g} ms, {found['kernels'] * cpu.core * 1e3:.4g} cycles")
    table.add_row("run_time", f"{found['constant']:.4g} ms")
    table.add_row("latency, held out", f"{error:.4f}; Kendall tau {tau:.3f}")
    return table


def main(experiment: Experiment) -> None:
    """Fits both CPUs and prints their figures."""
    path = experiment.data / FILE
    if not path.is_file():
        print(f"data: expected the file {FILE} in {experiment.data}, found none", file=sys.stderr)
        raise SystemExit(2)
    with np.load(path) as file:
        work = terms(file["arch"])
        for cpu in CPUS:
            Console(width=120).print(report(cpu, work, file[cpu.column].astype(np.float64)))


if __name__ == "__main__":
    main(tyro.cli(Experiment))
