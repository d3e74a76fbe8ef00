"""The commands about data sets and predictors of the DARTS space as library calls."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.outputs import new_console, new_file, say
from hadas_jax.report import StepProgress
from hadas_jax.spaces.darts import OPERATIONS, sample_codes
from hadas_jax.spaces.priced_networks import PricedNetworks, write_priced_networks
from hadas_jax.spaces.throughput_tables import PARADIGMS, generic_table_name, throughput_table
from hadas_jax.workdir import versions
from hw_models.accelerator import DartsNetwork, load_fpga

ALL_OPERATIONS = tuple(range(1, len(OPERATIONS)))
_CHUNK = 1 << 17


def sample(
    output: Path | str,
    *,
    count: int = 1_400_000,
    operations: Sequence[int] = ALL_OPERATIONS,
    different: bool = False,
    paradigm: str = "both",
    network: DartsNetwork | None = None,
    fpga: str = "ku115",
    table: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> PricedNetworks:
    """Draws networks at random, prices them and writes the data set.

    Args:
        output: File to write, .npz, see `hadas_jax.spaces.priced_networks`.
        count: N. The first networks of a seed do not depend on it.
        operations: Digits to draw from.
        different: Whether the two operations of a node must differ, as in the data sets of EH-DNAS.
        paradigm: `generic`, `pipeline`, or `both`.
        network: Size of the networks; None: the one that E2E-Perf measures.
        fpga: A name or the path of a file.
        table: Of the generic paradigm, see `hadas_jax.spaces.throughput_tables`.
        seed: Of the draw.
        overwrite: Replace `output`.
        console: None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A setting is none of these, or the file exists.
    """
    console, network, chip = console or new_console(), network or DartsNetwork(), load_fpga(fpga)
    target = new_file(output, ".npz", overwrite=overwrite)
    if count < 1:
        raise ValueError(f"--count: expected at least 1, got {count}")
    if paradigm not in (*PARADIGMS, "both"):
        raise ValueError(f"--paradigm: expected generic, pipeline or both, got {paradigm!r}")
    names = PARADIGMS if paradigm == "both" else (paradigm,)
    prices = {name: throughput_table(name, network, fpga=chip, table=table) for name in names}
    draw = jax.jit(lambda key: sample_codes(key, _CHUNK, operations=operations, different=different))
    key, parts = jax.random.key(seed), []
    with StepProgress(console) as progress:
        for chunk in range(-(-count // _CHUNK)):
            codes = draw(jax.random.fold_in(key, chunk))
            parts.append({"codes": codes} | {name: price(codes) for name, price in prices.items()})
            jax.block_until_ready(parts[-1])
            done = min((chunk + 1) * _CHUNK, count)
            progress.update(done, count, "networks drawn and priced")
    columns = {name: np.concatenate([np.asarray(part[name]) for part in parts])[:count] for name in parts[0]}
    priced = PricedNetworks(
        codes=columns.pop("codes"),
        throughputs=columns,
        network=network,
        fpga=chip.name,
        table=generic_table_name(network, chip, table=table),
        details={
            "operations": [int(digit) for digit in operations],
            "different": different,
            "seed": seed,
            "versions": versions(),
        },
    )
    write_priced_networks(priced, target)
    console.print(_summary(priced))
    say(console, f"Written: {target}, {count:,} networks")
    fitting = ["hadas", "dnas", "fit-predictor", str(target), "--paradigm", names[-1], "-o", "predictor.npz"]
    say(console, f"To fit a predictor: {shlex.join(fitting)}")
    return priced


def _summary(priced: PricedNetworks) -> Table:
    table = Table(title=f"{len(priced.codes):,} networks on {priced.fpga}, images/s")
    table.add_column("paradigm", no_wrap=True)
    for figure in ("mean", "spread", "lowest", "highest", "do not fit"):
        table.add_column(figure, justify="right")
    for name, column in priced.throughputs.items():
        found = column[column > 0].astype(float)
        figures = (found.mean(), found.std(), found.min(), found.max()) if len(found) else (np.nan,) * 4
        title = f"{name}, {priced.table} table" if name == "generic" else name
        table.add_row(title, *(f"{value:,.1f}" for value in figures), f"{len(column) - len(found):,}")
    return table
