"""Speed of fitting and asking predictors, beside the same network in PyTorch, and their errors on networks left out.

    python experiments/benchmark_predictor.py                     speed alone, about a minute
    python experiments/benchmark_predictor.py --data FILE.npz     errors of all kinds too, 20 minutes or more

FILE.npz: `hadas dnas sample --count 1450000 -o FILE.npz`, of which 50,000 are left out. PyTorch is measured where it
is installed, with the number of threads that is fastest. Expected: docs/predictors.md.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.spaces.darts import DARTS_CODES, sample_codes
from hadas_jax.spaces.darts_costs import PricedNetworks
from hw_models.predictors import KINDS, ThroughputPredictor, fit_predictor, predict_throughputs, recipe_of

BATCH = 128


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set of hadas dnas sample")
    parser.add_argument("--count", type=int, default=100_000, help="networks of the timed epochs")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    console = Console(width=110)
    console.print(_speeds(arguments.count, arguments.rounds))
    if arguments.data is not None:
        console.print(_errors(arguments.data, console))


def _speeds(count: int, rounds: int) -> Table:
    """Times one epoch of each in turn, so that the load is shared alike."""
    codes = np.asarray(jax.jit(sample_codes, static_argnums=1)(jax.random.key(0), count))
    costs = np.exp(np.random.default_rng(0).normal(size=count)).astype(np.float32)
    runs = {f"JAX, {kind}, batch {batch}": _jax_epochs(codes, costs, kind, batch) for kind, batch in _cases()}
    runs |= _torch_epochs(codes, costs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        for seconds in run(2)[1:]:  # the first epoch has compilation in it
            times[name].append(seconds)
    for _ in range(rounds - 1):
        for name, run in runs.items():
            times[name].append(run(2)[1])
    forward = _forward_times(codes, rounds)
    load = os.getloadavg()[0]
    table = Table(title=f"{jax.default_backend()}, {os.cpu_count()} cores, load {load:.1f}, medians of {rounds}")
    table.add_column("what")
    table.add_column("networks per second", justify="right")
    for name, found in (times | forward).items():
        table.add_row(name, f"{count / statistics.median(found):,.0f}")
    return table


def _cases() -> list[tuple[str, int]]:
    return [("embedding", BATCH), ("mlp", BATCH), ("mlp", 2048), ("lookup", 2048)]


def _jax_epochs(codes: np.ndarray, costs: np.ndarray, kind: str, batch: int) -> Callable[[int], list[float]]:
    """Returns a function that fits for some epochs and says how long each took."""

    def run(epochs: int) -> list[float]:
        marks = [time.perf_counter()]
        recipe = dataclasses.replace(recipe_of(kind), epochs=epochs, batch=batch)
        fit_predictor(
            jax.random.key(0),
            codes,
            costs,
            layout=DARTS_CODES,
            kind=kind,
            recipe=recipe,
            held_out=1,
            on_epoch=lambda *_: marks.append(time.perf_counter()),
        )
        return np.diff(marks).tolist()

    return run


def _torch_epochs(codes: np.ndarray, costs: np.ndarray) -> dict[str, Callable[[int], list[float]]]:
    """The predictor of EH-DNAS in PyTorch, data as tensors in memory."""
    try:
        import torch
    except ImportError:
        return {}
    nn = torch.nn

    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(28 * 8, 10)
            self.layers = nn.Sequential(
                nn.Dropout(recipe_of("embedding").dropout),
                nn.Linear(280, 200),
                nn.ReLU(),
                nn.Linear(200, 100),
                nn.ReLU(),
                nn.Linear(100, 1),
            )

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.layers(self.table(rows).flatten(1))[:, 0]

    rows = torch.from_numpy(codes.astype(np.int64) + 8 * np.arange(28))
    targets = torch.from_numpy(np.log(costs))

    def run(epochs: int, threads: int) -> list[float]:
        torch.set_num_threads(threads)
        model, marks = Embedding(), [time.perf_counter()]
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        for _ in range(epochs):
            for chosen in torch.randperm(len(rows))[: len(rows) // BATCH * BATCH].view(-1, BATCH):
                optimiser.zero_grad(set_to_none=True)
                nn.functional.l1_loss(model(rows[chosen]), targets[chosen]).backward()
                optimiser.step()
            marks.append(time.perf_counter())
        return np.diff(marks).tolist()

    counts = [1, *([os.cpu_count() or 1] if (os.cpu_count() or 1) > 1 else [])]
    best = min(counts, key=lambda threads: run(1, threads)[0])
    return {f"PyTorch, embedding, batch {BATCH}, {best} threads": lambda epochs: run(epochs, best)}


def _forward_times(codes: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Times the prediction of all networks by one model, and by an ensemble of five."""
    times: dict[str, list[float]] = {}
    device = jnp.asarray(codes)
    for kind in KINDS:
        for members in (1, 5):
            predictor = _drawn(codes, kind, members)
            jax.block_until_ready(predict_throughputs(predictor, device))
            found = times.setdefault(f"JAX, {kind}, prediction, {members} members", [])
            for _ in range(rounds):
                start = time.perf_counter()
                jax.block_until_ready(predict_throughputs(predictor, device))
                found.append(time.perf_counter() - start)
    return times


def _drawn(codes: np.ndarray, kind: str, members: int) -> ThroughputPredictor:
    recipe = dataclasses.replace(recipe_of(kind), epochs=1)
    key = jax.random.key(0)
    return fit_predictor(
        key, codes[:1000], np.ones(1000), layout=DARTS_CODES, kind=kind, members=members, recipe=recipe
    ).predictor


def _errors(path: Path, console: Console) -> Table:
    """Fits every kind to both paradigms."""
    priced = PricedNetworks.read(path)
    table = Table(title=f"{len(priced.codes):,} networks, 50,000 of them left out")
    for column in ("paradigm", "kind", "mean error", "median", "95 of 100 below", "Kendall tau", "seconds"):
        table.add_column(column, justify="left" if column in ("paradigm", "kind") else "right")
    embedding = recipe_of("embedding")
    recipes = {
        "lookup": recipe_of("lookup"),
        "mlp": recipe_of("mlp"),
        "embedding, no dropout": dataclasses.replace(recipe_of("mlp"), hidden=embedding.hidden),
        "embedding, as published": embedding,
    }
    for (name, recipe), paradigm in itertools.product(recipes.items(), priced.throughputs):
        start, fits = time.perf_counter(), priced.throughputs[paradigm] > 0
        fitted = fit_predictor(
            jax.random.key(0),
            priced.codes[fits],
            priced.throughputs[paradigm][fits],
            layout=DARTS_CODES,
            kind=name.split(",")[0],
            recipe=recipe,
            held_out=50_000,
        )
        seconds, errors = time.perf_counter() - start, fitted.held_out
        shares = (f"{share:.3%}" for share in (errors.mean, errors.median, errors.percentile_95))
        row = (paradigm, name, *shares, f"{errors.kendall_tau:.4f}", f"{seconds:.0f}")
        table.add_row(*row)
        console.print(*row, highlight=False)
    return table


if __name__ == "__main__":
    main()
