"""Seconds of a step of the DARTS search, first and second order, beside plain PyTorch.

Command:   pip install 'hadas-jax[torch]'
           python experiments/benchmark_darts.py -o benchmark_darts.json
Hardware:  any; the figures below are of 2 virtual cores of an AMD EPYC with AVX-512, jax 0.10.2, PyTorch 2.13
Time:      25 minutes
Expected:  a second-order step 16.9 s and at most 6.3 GB, PyTorch's 29.0 s and 9.9 GB; a first-order step 6.5 s and 3.1
           GB, PyTorch's 11.1 s and 9.8 GB. Measured with `--orders second --rounds 1` and `--orders first --rounds 2`,
           at the highest priority on cores that had other work.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.methods.eh_dnas.bilevel import Batch, BilevelState, WeightDescent, bilevel_step
from hadas_jax.runs.loop import Metrics
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.supernet import Tree
from hadas_jax.supernet.darts import apply_search, initialise_search

CLASSES = 10


@dataclass(frozen=True)
class Benchmark:
    """Seconds of a step of the DARTS search."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    batch: int = 64
    """Images of each of the two batches."""
    channels: int = 16
    """Of the first cell."""
    cells: int = 8
    """Of the network."""
    image_size: int = 32
    """In pixels."""
    remat: bool = True
    """Compute each edge twice instead of keeping its maps."""
    dtype: str = "float32"
    """What features are computed in."""
    rounds: int = 3
    """Fresh processes of each kind, in turn; medians count."""
    steps: int = 3
    """Steps of a process after its first; the median counts."""
    orders: tuple[Literal["first", "second"], ...] = ("first", "second")
    """Which steps to measure."""
    peer: tyro.conf.FlagCreatePairsOff[bool] = True
    """Measure PyTorch, where it is installed."""


def search_network(how: Benchmark) -> DartsNetwork:
    """Returns the network of the settings."""
    return DartsNetwork(how.channels, how.cells, CLASSES, how.image_size)


def draw_batches(how: Benchmark) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns a training and a search batch: images float32[B, H, W, 3], labels int32[B]."""
    rng = np.random.default_rng(0)
    shape = (how.batch, how.image_size, how.image_size, 3)
    return [
        (rng.normal(size=shape).astype(np.float32), rng.integers(0, CLASSES, how.batch).astype(np.int32))
        for _ in range(2)
    ]


def our_runs(how: Benchmark, order: str) -> dict[str, Callable[[], None]]:
    """Returns a step, and a forward pass."""
    forward = partial(apply_search, search_network(how), dtype=how.dtype, remat=how.remat)

    def loss(weights: Tree, alpha: jax.Array, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key
        logits = forward(weights, jax.nn.softmax(alpha), batch[0])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])), {}

    optimiser = optax.adam(3e-4, b1=0.5)
    descent = WeightDescent(optax.constant_schedule(0.025))
    step = jax.jit(
        bilevel_step(loss, descent=descent, optimiser=optimiser, second_order=order == "second"),
        donate_argnums=0,
    )
    weights = jax.jit(initialise_search, static_argnums=0)(search_network(how), jax.random.key(0))
    train, search = jax.tree.map(jnp.asarray, draw_batches(how))
    state = BilevelState.start(weights, jnp.zeros((28, 8)), optimiser)
    logits = jax.jit(forward)

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, jax.random.key(0), (train, search)))

    return {
        "step": run,
        "forward": lambda: jax.block_until_ready(logits(state.weights, jnp.full((28, 8), 0.125), train[0])),
    }


def peer_runs(how: Benchmark, order: str) -> dict[str, Callable[[], None]]:
    """Returns a step of PyTorch's, and a forward pass."""
    import torch
    from pytorch_darts import SearchNetwork, search_step

    network = SearchNetwork(search_network(how))
    train, search = (
        (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long())
        for images, labels in draw_batches(how)
    )

    def forward() -> None:
        with torch.no_grad():
            network(train[0])

    return {
        "step": lambda: search_step(network, train, search, second_order=order == "second"),
        "forward": forward,
    }


def measure(how: Benchmark, kind: str, order: str) -> dict[str, float]:
    """Measures in this process."""
    runs = (our_runs if kind == "ours" else peer_runs)(how, order)
    first = _timed(runs["step"])
    steps = [_timed(runs["step"]) for _ in range(how.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    runs["forward"]()
    forwards = [_timed(runs["forward"]) for _ in range(how.steps)]
    return {
        "first_call_s": first,
        "step_s": statistics.median(steps),
        "peak_gb": peak * 1024 / 1e9,
        "images_per_s": how.batch / statistics.median(forwards),
    }


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_apart(how: Benchmark, kind: str, order: str, cache: str) -> dict[str, float]:
    """Measures in a fresh process, which keeps compiled code in `cache`."""
    call = json.dumps([{**asdict(how), "output": None}, kind, order])
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    found = subprocess.run(
        [sys.executable, __file__, call], env=environment, check=True, capture_output=True, encoding="utf-8"
    )
    return json.loads(found.stdout.splitlines()[-1])


def run(how: Benchmark) -> dict[str, Any]:
    """Returns the medians of all kinds and orders, and how long the first call of a process takes without a cache."""
    results: dict[str, Any] = {}
    kinds = ("ours", "pytorch") if how.peer else ("ours",)
    with tempfile.TemporaryDirectory() as cache:
        for order in how.orders:
            found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            compiling = measure_apart(replace(how, steps=1), "ours", order, cache)["first_call_s"]
            for _ in range(how.rounds):
                for kind in kinds:
                    found[kind].append(measure_apart(how, kind, order, cache))
            for kind, measured in found.items():
                results[f"{kind}, {order} order"] = {
                    name: statistics.median(each[name] for each in measured) for name in measured[0]
                }
            results[f"ours, {order} order"]["uncached_first_call_s"] = compiling
    return results


def main(how: Benchmark) -> None:
    """Prints a table and writes the results."""
    results = run(how)
    table = Table("", "s per step", "peak GB", "forward images/s", "first call s", "uncached")
    for name, found in results.items():
        columns = ("step_s", "peak_gb", "images_per_s", "first_call_s", "uncached_first_call_s")
        table.add_row(name, *(f"{found[column]:.1f}" if column in found else "" for column in columns))
    Console().print(table)
    if how.output:
        settings = {**asdict(how), "output": None}
        write_text(how.output, json.dumps({"settings": settings, "versions": versions(), "results": results}, indent=2))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        settings, kind, order = json.loads(sys.argv[1])
        print(json.dumps(measure(Benchmark(**settings), kind, order)))
    else:
        main(tyro.cli(Benchmark))
