"""This machine: a device fitted to 40 measured sub-networks predicts 20 others.

Command:   hadas devices profile -o measurements.csv --runtime jax --layers 0 --batch 32
           python experiments/boards/fit_this_machine.py --measurements measurements.csv
Hardware:  any machine with JAX
Time:      6 minutes and half a minute on 2 cores
Expected:  tau 0.921 (0.863 to 0.989) and an error of 3.8 % over 10 splits on 2 virtual cores of an Intel Xeon, jax
           0.10.2; one rate of MACs: 0.909 and 33 %. With other work on the cores 0.87 to 0.89.

Every split draws other networks to leave out; the fit is that of `hadas devices fit` from the generic x86 CPU (or
--base). MACs alone are shown beside it, as a fit of one rate.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from hw_models import load_device, total_macs
from hw_models.fitting.device_parameters import fit, predict, to_measured
from hw_models.measuring import read_measurements


@dataclass(frozen=True)
class Experiment:
    """Fits a device to most of the measured networks and predicts the others."""

    measurements: Path
    """CSV file of `hadas devices profile`."""
    base: str = "x86-cpu"
    """Device to start from."""
    left_out: int = 20
    """Networks to predict in each split."""
    splits: int = 10
    """Random splits."""


def run(experiment: Experiment, console: Console) -> None:
    """Prints tau and error over the splits."""
    rows = [row for row in read_measurements(experiment.measurements) if not row.network.startswith("layer-")]
    if len(rows) < 2 * experiment.left_out:
        raise ValueError(f"expected at least {2 * experiment.left_out} measured networks, got {len(rows)}")
    device = load_device(experiment.base)
    measured = to_measured(rows, device)
    latency, macs = np.asarray(measured.latency_s), np.asarray(jax.vmap(total_macs)(measured.layers))
    found: dict[str, list[tuple[float, float]]] = {"device": [], "MACs": []}
    for split in range(experiment.splits):
        order = np.random.default_rng(split).permutation(len(rows))
        tested, fitted_to = order[: experiment.left_out], order[experiment.left_out :]
        weights = jnp.zeros(len(rows)).at[fitted_to].set(1.0)
        fitted = fit(jax.random.key(split), measured, device, weights=weights)
        guesses = {
            "device": np.asarray(predict(measured, fitted)[0]),
            "MACs": macs * np.median(latency[fitted_to] / macs[fitted_to]),
        }
        for name, guess in guesses.items():
            error = float(np.mean(np.abs(guess[tested] / latency[tested] - 1)))
            found[name].append((float(kendalltau(guess[tested], latency[tested]).statistic), error))
    spread = np.median([(row.spread_ms or 0.0) / row.latency_ms for row in rows])
    table = Table(
        title=f"{len(rows)} networks, {1e3 * latency.min():.3g} to {1e3 * latency.max():.3g} ms, spread {spread:.1%}"
    )
    for column in ("model", "tau, mean", "lowest", "highest", "error"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, pairs in found.items():
        taus, errors = np.array(pairs).T
        table.add_row(name, *(f"{tau:.3f}" for tau in (taus.mean(), taus.min(), taus.max())), f"{errors.mean():.1%}")
    console.print(table)


if __name__ == "__main__":
    try:
        run(tyro.cli(Experiment, description=__doc__), Console())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
