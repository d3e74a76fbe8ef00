"""Speed of the cost models: latency and energy of AttentiveNAS backbones at operating points, per second.

    python experiments/benchmark_cost_models.py

Five ways to the same figures, compared in one run, alternating, medians; one evaluation is latency AND energy of
one network at one operating point:
- table:    another backbone and another operating point each time, from its genes (`spaces.block_costs`);
- grid:     one backbone, operating points drawn at random (`hw_models.clock_grid`, `cost_at`), layers alone;
- sweep:    one backbone at all 3,654 operating points, computed anew each time (`hw_models.network_cost_everywhere`);
- segments: the same for each of its segments, as a search prices dynamic networks (`evaluation.segment_costs`);
- layers:   another backbone and point each time, layer by layer (`hw_models.network_cost`), as the yardstick.

A device with a learned correction is also run as a roofline alone. The correction is computed once for a network (or
for the network up to each exit), whatever the number of operating points, so it weighs on `table` and `layers`, where
every evaluation is of another network.

Takes two minutes on two cores of an Intel Xeon (AVX-512, jax 0.10.2). As rooflines alone, undisturbed, table, grid and
sweep give there 3.9 M, 15.9 M and 0.9 M evaluations per second, layers 0.1 M. With the correction, on cores shared with
other work, table runs at 0.59 of the speed without, segments at 0.64 and sweep at no less than without.
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import hw_models as hw
from hadas_jax.evaluation import segment_costs
from hadas_jax.spaces import load_space, segments, workload
from hadas_jax.spaces.costs import block_costs, population_cost


def main() -> None:
    """Prints evaluations per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="agx-xavier-gpu")
    parser.add_argument("--count", type=int, default=1 << 20, help="evaluations per call of table and grid")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        device = hw.load_device(arguments.device)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    runs = _runs(device, arguments.count, arguments.seed)
    if device.correction is not None:
        bare = _runs(dataclasses.replace(device, correction=None), arguments.count, arguments.seed)
        runs |= {f"{name}, roofline alone": run for name, run in bare.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    first: dict[str, float] = {}
    for name, (run, _) in runs.items():
        first[name] = _time(run)
    for _ in range(arguments.rounds):
        for name, (run, _) in runs.items():
            times[name].append(_time(run))
    table = Table(title=f"{device.name}, {jax.default_backend()}, {platform.processor() or platform.machine()}")
    for column in ("way", "evaluations per second", "evaluations per call", "first call (s)"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, (_, count) in runs.items():
        median = statistics.median(times[name])
        table.add_row(name, f"{count / median / 1e6:.2f} M", f"{count:,}", f"{first[name]:.2f}")
    Console().print(table)


def _runs(device: hw.Device, count: int, seed: int) -> dict[str, tuple[Callable[[], hw.Cost], int]]:
    space = load_space("attentivenas").adapt(in_channels=3, classes=1000, image_size=224)
    draws = np.random.default_rng(seed)
    genomes = jnp.asarray(draws.integers(0, space.codec.cardinalities, (count, len(space.codec.names))), jnp.int32)
    tables = (device.core_hz, device.memory_hz, device.host_hz)
    indices = jnp.asarray(draws.integers(0, [len(table) for table in tables], (count, 3)), jnp.int32)
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)

    def layers_of(genome: jax.Array) -> hw.LayerTable:
        layers = workload(space, space.decode(genome))
        return dataclasses.replace(layers, active=layers.active * in_trunk)

    blocks = block_costs(space, device)
    summed = hw.sum_layers(hw.clock_grid(layers_of(genomes[0]), device))

    @jax.jit
    def table(genomes: jax.Array, indices: jax.Array) -> hw.Cost:
        return population_cost(space, blocks, device, genomes=genomes, indices=indices)

    @jax.jit
    def grid(indices: jax.Array) -> hw.Cost:
        return jax.vmap(lambda i: hw.cost_at(summed, device, i))(indices)

    @jax.jit
    def sweep(genome: jax.Array) -> hw.Cost:
        return hw.network_cost_everywhere(layers_of(genome), device)

    @jax.jit
    def by_segment(genome: jax.Array) -> hw.Cost:
        return segment_costs(space, space.decode(genome), device)

    @jax.jit
    def layers(genomes: jax.Array, indices: jax.Array) -> hw.Cost:
        return jax.vmap(lambda g, i: hw.network_cost(layers_of(g), device, hw.operating_point(device, i)))(
            genomes, indices
        )

    few = 4096
    found, expected = table(genomes[:few], indices[:few]), layers(genomes[:few], indices[:few])
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
    points = int(np.prod([len(table) for table in tables]))
    return {
        "table": (lambda: table(genomes, indices), count),
        "grid": (lambda: grid(indices), count),
        "sweep": (lambda: sweep(genomes[1]), points),
        "segments": (lambda: by_segment(genomes[1]), points * (2 * space.num_exits + 1)),
        "layers": (lambda: layers(genomes[:few], indices[:few]), few),
    }


def _time(run: Callable[[], hw.Cost]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
