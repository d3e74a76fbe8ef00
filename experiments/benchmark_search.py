"""Speed of the nested search on the AttentiveNAS space, at the paper's budget, against drawn accuracies.

    python experiments/benchmark_search.py

The supernet is replaced by drawn outcomes of 2,000 samples (later exits and larger backbones get more of them right),
so that all the time is the search's own. Three figures, on the GPU of the AGX Xavier with its 3,654 operating points:

- budget: the whole search of the paper (448 backbones, inner search on 70 of them), in a process that has compiled
  nothing yet, compilation included;
- exact: the inner search of the backbone a0 (12 exits, 15 million dynamic candidates), from bit sets and
  segment costs to the table that merits come from, and to the exact front; likewise with 16 exits (239 million);
- evolved: the share of the exact hypervolume of a0 that the evolutionary inner search reaches, at how many candidates.

On two cores of an Intel Xeon (AVX-512, jax 0.10.2) it takes a minute and gives: budget 25 to 30 s, of which 18 to
22 s the first generation; exact 0.016 s and 0.10 s, with 16 exits 0.16 s and 1.1 s; evolved 99.97 % with 0.05 % of
the candidates.
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.evaluation import pack_bits, segment_costs
from hadas_jax.methods import Hadas, exact_front, search_evolved, search_exact
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.inner import exit_count, table_hypervolume
from hadas_jax.settings import NO_CONSTRAINTS, NestedSearchSettings
from hadas_jax.spaces import MBConvSpace, load_space, published
from hw_models import Device, load_device

SAMPLES = 2000


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="agx-xavier-gpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="of the evolutionary inner search")
    arguments = parser.parse_args()
    try:
        device = load_device(arguments.device)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    console = Console()
    space = load_space("attentivenas").adapt(in_channels=3, classes=100, image_size=224)
    console.print(f"{device.name}, {jax.default_backend()}, {platform.processor() or platform.machine()}")
    budget(space, device, console)
    inner(space, device, console, rounds=arguments.rounds, seeds=arguments.seeds)


def outcomes(space: MBConvSpace, genomes: np.ndarray) -> np.ndarray:
    """Drawn outcomes of backbones int32[N, G]: uint32[N, E + 1, W]."""
    exits, found = space.num_exits + 1, []
    hardness = np.linspace(0, 1, SAMPLES, dtype=np.float32)
    for genome in genomes:
        luck = np.random.default_rng(genome.tolist()).normal(0, 0.12, (exits, SAMPLES)).astype(np.float32)
        size = float((genome / np.maximum(space.codec.cardinalities - 1, 1)).mean())
        skill = 0.35 + 0.15 * size + 0.4 * (np.arange(exits, dtype=np.float32) / exits) ** 0.5
        right = hardness[None] + luck < skill[:, None]
        found.append(np.asarray(pack_bits(jnp.asarray(right))))
    return np.stack(found)


def budget(space: MBConvSpace, device: Device, console: Console) -> None:
    """The paper's whole search, timed from before anything was compiled."""
    inside = 0.0

    def evaluate(genomes: np.ndarray) -> np.ndarray:
        nonlocal inside
        start = time.perf_counter()
        found = outcomes(space, genomes)
        inside += time.perf_counter() - start
        return found

    start = time.perf_counter()
    settings = NestedSearchSettings(population=64, generations=7)
    hadas = Hadas(space, device, evaluate, samples=SAMPLES, settings=settings, elites=settings.elites)
    state = hadas.init(jax.random.key(0))
    steps = []
    for generation in range(settings.generations):
        before = time.perf_counter()
        state, metrics = hadas.generation(state, jax.random.key(generation))
        steps.append(time.perf_counter() - before)
    whole = time.perf_counter() - start
    archive = state.archive
    console.print(
        f"budget: {whole:.1f} s for {int(archive.size)} backbones, {int(archive.examined.sum())} examined, "
        f"{archive.versions.sum(dtype=np.int64):,} dynamic candidates; first generation {steps[0]:.1f} s, later ones "
        f"{statistics.median(steps[1:]):.2f} s; {inside:.1f} s of all that drew outcomes; hypervolume "
        f"{metrics['hypervolume'][0]:.4f}"
    )


def inner(space: MBConvSpace, device: Device, console: Console, *, rounds: int, seeds: int) -> None:
    """The inner search of single backbones."""
    largest, _ = static_costs(space, jnp.asarray(space.largest_genome)[None], device)
    reference = jnp.stack([jnp.float32(1), 2 * largest.latency_s[0], 2 * largest.energy_j[0]])
    costs_of = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))
    common: dict[str, Any] = {
        "samples": SAMPLES,
        "limits": jnp.asarray(NO_CONSTRAINTS.objectives),
        "gamma": jnp.float32(1),
        "reference": reference,
    }
    points = int(np.prod([len(clock) for clock in (device.core_hz, device.memory_hz, device.host_hz)]))
    exact = jax.jit(lambda genome, correct, costs: search_exact(space, genome, correct, costs, **common))
    front = partial(exact_front, space, samples=SAMPLES)
    table = Table(title="Inner search of one backbone, exact")
    for column in ("search", "exits", "candidates", "first call (s)", "later calls (s)", "candidates per second"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for name, genome in _backbones(space).items():
        correct = jnp.asarray(outcomes(space, genome[None])[0])
        exits, costs = exit_count(space, genome), costs_of(jnp.asarray(genome))
        for kind, run in (("table", exact), ("front", front)):
            first, median = _timed(partial(run, jnp.asarray(genome), correct, costs), rounds)
            versions = 2**exits * points
            rate = f"{versions / median / 1e6:,.0f} M"
            table.add_row(f"{name}, {kind}", str(exits), f"{versions:,}", f"{first:.2f}", f"{median:.3f}", rate)
    console.print(table)
    a0 = jnp.asarray(_backbones(space)["a0"])
    correct = jnp.asarray(outcomes(space, np.asarray(a0)[None])[0])
    costs, effort = costs_of(a0), {"population": 128, "generations": 60}
    bred = jax.jit(lambda key, costs: search_evolved(key, space, a0, correct, costs, device, **effort, **common))
    volume = partial(table_hypervolume, reference=reference, limits=common["limits"])
    best = exact(a0, correct, costs)
    found = [bred(jax.random.key(seed), costs) for seed in range(seeds)]
    shares = [float(volume(one.table) / volume(best.table)) for one in found]
    tried = float(found[0].evaluations) / float(best.evaluations)
    _, median = _timed(lambda: bred(jax.random.key(0), costs), rounds)
    console.print(
        f"evolved, a0: {np.mean(shares):.2%} of the exact hypervolume (least {min(shares):.2%}, {seeds} seeds) with "
        f"{tried:.3%} of the candidates, {median:.2f} s"
    )


def _backbones(space: MBConvSpace) -> dict[str, np.ndarray]:
    """a0, and a0 with four more blocks."""
    a0 = published("a0")
    deeper = dataclasses.replace(a0, depth=a0.depth.at[4].add(4))
    return {"a0": space.encode(a0), "a0, 4 blocks more": space.encode(deeper)}


def _timed(run: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Seconds of the first call, and the median of later ones."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times[0], statistics.median(times[1:])


if __name__ == "__main__":
    main()
