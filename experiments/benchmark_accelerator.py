"""E2E-Perf in JAX: speed, and how near to what EH-DNAS (https://arxiv.org/abs/2111.12299) published of it.

    python experiments/benchmark_accelerator.py [--data e2e_perf_calibration.npz]

Without --data it samples and prices random DARTS networks, compares their distribution with the published one and
prices the published genotypes. --data takes an npz with `genes` [n, 28] and the throughputs `generic_fps`,
`pipeline_fps` [n] (the predictors of github qianjiangcn/eh-dnas, MIT) and `lut_sum_overhead_fps` [n] (sums of its
table over the cells), and adds how well the models agree with them.

Takes half a minute on two cores of an Intel Xeon (AVX-512, jax 0.10.2). Expected there, beside other work that took
most of both cores: 1.7 million samples, 7.6 (generic) and 3.7 (pipeline) million prices per second, for 0.57, 0.13 and
0.26 CPU seconds per million. Expected anywhere: mean 799.7 and spread 148.4 of the generic paradigm (799.0 and 147.9
published), 10,717 and 2,764 of the pipeline (10,687 and 2,756); 817, 765, 1080 and 1048 images/s for DARTS_V1,
DARTS_V2, OURS_ACC and OURS_PIP; Kendall tau 0.896 and 0.802.
"""

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from hadas_jax.spaces.darts import EDGE_INPUT, EDGES, OPERATIONS, sample_codes
from hadas_jax.spaces.darts_costs import (
    PUBLISHED_CELLS,
    PUBLISHED_CLOCK_HZ,
    PUBLISHED_CYCLES,
    darts_counts,
    published_generic_table,
    throughput_table,
)
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import PUBLISHED_GENOTYPES, code_of, published_genotype
from hw_models.accelerator import (
    Fpga,
    GenericTable,
    fpga_names,
    generic_cost,
    generic_report,
    generic_table,
    load_fpga,
    pipeline_cost,
    pipeline_report,
    report_table,
)

NETWORK = DartsNetwork()
ROWS = network_rows(NETWORK)
# What the published data sets draw from.
ORIGINAL = {"operations": (1, 2, 3, 4, 5, 6), "different": True}
PUBLISHED = {"generic": (799.0, 147.9, 442.0, 1867.0), "pipeline": (10686.7, 2756.3, 5086.0, 36621.0)}

Price = Callable[[jax.Array], jax.Array]


class _Speed(NamedTuple):
    seconds: float
    cpu_seconds: float


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="npz with published throughputs")
    parser.add_argument("--fpga", default="ku115", help=f"one of {', '.join(fpga_names())}, or a file")
    parser.add_argument("--count", type=int, default=1 << 20, help="architectures per timed call")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    try:
        fpga = load_fpga(arguments.fpga)
        data = np.load(arguments.data) if arguments.data else None
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    console = Console(width=140)
    draw = jax.jit(sample_codes, static_argnums=1, static_argnames=("operations", "different"))
    prices: dict[str, Price] = {
        "generic": _by_table(published_generic_table()),
        "pipeline": throughput_table("pipeline", NETWORK, fpga=fpga),
    }
    key = jax.random.key(0)
    codes = draw(key, arguments.count)
    runs: dict[str, Callable[[], jax.Array]] = {"sampling": lambda: draw(key, arguments.count)}
    for name, price in prices.items():
        runs[f"pricing, {name} table"] = lambda price=price: price(codes)  # type: ignore[misc]
    console.print(_speeds(runs, arguments.count, arguments.rounds))
    console.print(_full_against_table(fpga, prices, codes[:4096]))
    console.print(_distributions(prices, draw(key, 200_000, **ORIGINAL)))
    console.print(_genotypes(prices))
    if data is not None:
        console.print(_agreement(prices, data))
    code = jnp.asarray(code_of(published_genotype("OURS_ACC")))
    for report in (generic_report, pipeline_report):
        console.print(report_table(report(ROWS, darts_counts(code), fpga), most_rows=8))


def _by_table(table: GenericTable) -> Price:
    """Prices codes int[N, 28] by a table of the generic paradigm."""
    return jax.jit(
        lambda codes: jax.lax.map(lambda code: table.cost(darts_counts(code)).throughput, codes, batch_size=4096)
    )


def _speeds(runs: dict[str, Callable[[], jax.Array]], count: int, rounds: int) -> Table:
    times: dict[str, list[_Speed]] = {name: [] for name in runs}
    for run in runs.values():
        run().block_until_ready()
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(_time(run))
    load = os.getloadavg()[0]
    table = Table(title=f"{jax.default_backend()}, {os.cpu_count()} cores, load {load:.1f}, medians of {rounds}")
    for column in ("what", "million per second", "CPU seconds per million"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, found in times.items():
        seconds = statistics.median(speed.seconds for speed in found)
        cpu = statistics.median(speed.cpu_seconds for speed in found)
        table.add_row(name, f"{count / seconds / 1e6:.2f}", f"{1e6 * cpu / count:.2f}")
    return table


def _time(run: Callable[[], jax.Array]) -> _Speed:
    start, cpu = time.perf_counter(), time.process_time()
    run().block_until_ready()
    return _Speed(time.perf_counter() - start, time.process_time() - cpu)


def _full_against_table(fpga: Fpga, prices: dict[str, Price], codes: jax.Array) -> Table:
    codes = codes.astype(jnp.int32)
    full_pipeline = jax.jit(jax.vmap(lambda code: pipeline_cost(ROWS, darts_counts(code), fpga).throughput))
    full_generic = jax.jit(jax.vmap(lambda code: generic_cost(ROWS, darts_counts(code), fpga).throughput))
    tables = {
        "pipeline": (full_pipeline, prices["pipeline"]),
        "generic, fitted engine": (
            full_generic,
            _by_table(generic_table(ROWS, fpga)),
        ),
        "generic, published table": (full_generic, prices["generic"]),
    }
    table = Table(title=f"full form against table, {fpga.name}, {len(codes):,} random networks")
    for column in ("paradigm", "full form, thousand per second", "largest difference", "mean difference"):
        table.add_column(column, justify="left" if column == "paradigm" else "right")
    for name, (full, fast) in tables.items():
        full(codes).block_until_ready()
        seconds = _time(lambda full=full: full(codes)).seconds  # type: ignore[misc]
        error = np.abs(np.asarray(fast(codes), float) / np.asarray(full(codes), float) - 1)
        table.add_row(name, f"{len(codes) / seconds / 1e3:.0f}", f"{error.max():.1e}", f"{error.mean():.1e}")
    return table


def _distributions(prices: dict[str, Price], codes: jax.Array) -> Table:
    table = Table(title=f"{len(codes):,} random networks, drawn as in the published data sets, images/s")
    for column in ("paradigm", "mean", "spread", "lowest", "highest"):
        table.add_column(column, justify="left" if column == "paradigm" else "right")
    stem_left_out = published_generic_table(run_saves_cycles=3080)
    plain = published_generic_table(run_saves_cycles=0)
    columns: dict[str, Price] = {
        "generic": prices["generic"],
        "generic, plain sum": _by_table(plain),
        "generic, plain sum without stem": _by_table(stem_left_out),
        "pipeline": prices["pipeline"],
    }
    for name, price in columns.items():
        found = np.asarray(price(codes), float)
        table.add_row(name, *(f"{value:,.1f}" for value in (found.mean(), found.std(), found.min(), found.max())))
    for name, values in PUBLISHED.items():
        table.add_row(f"{name}, published", *(f"{value:,.1f}" for value in values))
    return table


def _genotypes(prices: dict[str, Price]) -> Table:
    table = Table(title="published genotypes, images/s")
    for column in ("genotype", "generic, plain sum", "over DARTS_V2", "generic", "pipeline"):
        table.add_column(column, justify="left" if column == "genotype" else "right")
    names = PUBLISHED_GENOTYPES
    codes = jnp.asarray(np.stack([code_of(published_genotype(name)) for name in names]))
    plain = np.asarray(_by_table(published_generic_table(run_saves_cycles=0))(codes))
    others = [np.asarray(price(codes)) for price in prices.values()]
    for i, name in enumerate(names):
        ratio = plain[i] / plain[names.index("DARTS_V2")]
        table.add_row(name, f"{plain[i]:.0f}", f"{ratio:.2f}", *(f"{found[i]:,.0f}" for found in others))
    return table


def _agreement(prices: dict[str, Price], data: Mapping[str, np.ndarray]) -> Table:
    codes = jnp.asarray(data["genes"], jnp.int8)
    half = len(codes) // 2
    table = Table(title=f"agreement with published throughputs of {len(codes):,} networks")
    for column in (
        "paradigm",
        "Kendall tau",
        "of the second half",
        "mean error",
        "of the second half",
        "mean, ours / theirs",
    ):
        table.add_column(column, justify="left" if column == "paradigm" else "right")
    for name, price in prices.items():
        found, known = np.asarray(price(codes), float), np.asarray(data[f"{name}_fps"], float)
        error = np.abs(found / known - 1)
        taus = (kendalltau(found[part], known[part]).statistic for part in (slice(None), slice(half, None)))
        first, second = (f"{tau:.3f}" for tau in taus)
        means = f"{found.mean():,.0f} / {known.mean():,.0f}"
        table.add_row(name, first, second, f"{error.mean():.1%}", f"{error[half:].mean():.1%}", means)
    cells_alone = dataclasses.replace(published_generic_table(), fixed_cycles=jnp.float32(0.0))
    known = np.asarray(data["lut_sum_overhead_fps"])
    whole = np.asarray(_by_table(cells_alone)(codes), float)
    table.caption = (
        f"Sums of the published table over the cells: of figures rounded to a tenth, as published, equal in every bit "
        f"for {np.mean(_rounded_sums(np.asarray(codes, int)) == known):.0%} of the networks; of whole cycles, equal to "
        f"{np.abs(whole / known - 1).max():.0e}."
    )
    return table


def _rounded_sums(codes: np.ndarray) -> np.ndarray:
    """Throughput of the cells by the figures of the published table, which are rounded to a tenth, float32[n]."""
    rows = (
        [1 / round(PUBLISHED_CLOCK_HZ / cycles, 1) if cycles else 0.0 for cycles in row]
        for row in PUBLISHED_CYCLES.values()
    )
    seconds = np.array([[0.0] * len(PUBLISHED_CELLS), *rows])
    total = sum(len(PUBLISHED_CELLS[column]) * seconds[codes[:, :EDGES], column].sum(axis=1) for column in (0, 2, 4))
    reduce = seconds[codes[:, EDGES:], 1] + seconds[codes[:, EDGES:], 3]
    is_free = (codes[:, EDGES:] == OPERATIONS.index("skip_connect")) & (EDGE_INPUT >= 2)
    return (1 / (total + np.where(is_free, 0.0, reduce).sum(axis=1))).astype(np.float32)


if __name__ == "__main__":
    main()
