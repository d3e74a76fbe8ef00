"""The command that prices one network of the DARTS space, as a library call: accelerators, predictors, devices."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.outputs import new_console, new_file, say
from hadas_jax.report import plot_genotype
from hadas_jax.spaces.architecture_text import read_architecture
from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.darts_workload import darts_workload
from hadas_jax.spaces.genotypes import genotype_of
from hadas_jax.spaces.throughput_tables import PARADIGMS, generic_table_name, throughput_table
from hw_models import default_point, load_device, network_cost, with_clocks
from hw_models.accelerator import (
    DartsNetwork,
    Fpga,
    FpgaTooSmallError,
    generic_report,
    load_fpga,
    pipeline_report,
    report_table,
)
from hw_models.predictors import predict_throughput, read_predictor

_REPORTS = {"generic": generic_report, "pipeline": pipeline_report}


@dataclasses.dataclass(frozen=True)
class Price:
    """What a network costs by one model.

    Attributes:
        model: In words.
        throughput: Images/s.
        latency_s: Of an image; None: the model does not say, as a pipeline's throughput alone does not.
        energy_j: Of an image; None: the model does not say.
        spread: Of the members of an ensemble, relative; None: there is one model.
    """

    model: str
    throughput: float
    latency_s: float | None
    energy_j: float | None = None
    spread: float | None = None


def price(
    architecture: str | np.ndarray,
    *,
    paradigm: str = "both",
    network: DartsNetwork | None = None,
    fpga: str = "ku115",
    table: str | None = None,
    predictors: Sequence[Path | str] = (),
    devices: Sequence[str] = (),
    core_mhz: float | None = None,
    memory_mhz: float | None = None,
    host_mhz: float | None = None,
    rows: int = 8,
    plot: Path | str | None = None,
    console: Console | None = None,
) -> list[Price]:
    """Prices a network and says where its time goes.

    Args:
        architecture: As `hadas_jax.spaces.architecture_text.read_architecture`, or a code int[28].
        paradigm: Of the accelerator: `generic`, `pipeline` or `both`.
        network: Size of the network; None: the one that E2E-Perf measures.
        fpga: A name or the path of a file.
        table: Of the generic paradigm, see `hadas_jax.spaces.throughput_tables`.
        predictors: Files of `hadas dnas fit-predictor` to ask too.
        devices: Roofline devices to price it on too, names or paths of files.
        core_mhz: Clock of these devices; None: the highest.
        memory_mhz: Likewise.
        host_mhz: Likewise.
        rows: Layers to show of each paradigm, those that take longest.
        plot: PNG file for a picture of both cells.
        console: None: standard output.

    Returns:
        The prices that were printed.

    Raises:
        FpgaTooSmallError: The only paradigm asked for does not fit the FPGA.
        ValueError: The architecture or a setting is none of these, or a predictor is of other networks.
    """
    console, network, chip = console or new_console(), network or DartsNetwork(), load_fpga(fpga)
    code = read_architecture(architecture if isinstance(architecture, str) else " ".join(map(str, architecture)))
    if paradigm not in (*PARADIGMS, "both"):
        raise ValueError(f"--paradigm: expected generic, pipeline or both, got {paradigm!r}")
    if rows < 1:
        raise ValueError(f"--rows: expected at least 1, got {rows}")
    picture = None if plot is None else new_file(plot, ".png")
    clocks = {"core_hz": core_mhz, "memory_hz": memory_mhz, "host_hz": host_mhz}
    asked = [_by_predictor(path, code, network) for path in predictors]
    run = [_on_device(name, code, network=network, clocks_mhz=clocks) for name in devices]
    found, refused = [], []
    for name in PARADIGMS if paradigm == "both" else (paradigm,):
        try:
            report = _REPORTS[name](network, jnp.asarray(code), chip)
        except FpgaTooSmallError as error:
            if paradigm != "both":
                raise
            refused.append(f"{name}: {error}")
            continue
        by_report = Price(f"pipeline on {chip.name}", report.throughput, report.latency_s)
        found.append(by_report if name == "pipeline" else _by_table(code, network, fpga=chip, table=table))
        console.print(report_table(report, most_rows=rows))
    found += asked + run
    console.print(_table(found, title=format_code(code)))
    for line in refused:
        say(console, line)
    if any(row.model.startswith("generic") and "published" in row.model for row in found):
        say(console, "The layers of the generic paradigm are those of the fitted table.")
    if picture is not None:
        plot_genotype(genotype_of(code), picture)
        say(console, f"Picture of both cells: {picture}")
    return found


def _by_table(code: np.ndarray, network: DartsNetwork, *, fpga: Fpga, table: str | None) -> Price:
    name = generic_table_name(network, fpga, table=table)
    throughput = float(throughput_table("generic", network, fpga=fpga, table=name)(jnp.asarray(code)[None])[0])
    return Price(f"generic on {fpga.name}, {name} table", throughput, 1 / throughput)


def _by_predictor(path: Path | str, code: np.ndarray, network: DartsNetwork) -> Price:
    predictor = read_predictor(path)
    notes = predictor.notes
    if notes.network not in (None, network):
        raise ValueError(f"{path}: expected a predictor of {network}, got one of {notes.network}")
    found = jax.jit(predict_throughput)(predictor, jnp.asarray(code))
    throughput = float(found.throughput)
    error = "" if notes.held_out_error is None else f", {notes.held_out_error:.2%} mean error"
    model = f"{Path(path).name}: {predictor.kind} of {notes.paradigm or 'unknown data'} {notes.fpga}".rstrip() + error
    spread = float(found.spread) if predictor.members > 1 else None
    latency_s = None if notes.paradigm == "pipeline" else 1 / throughput
    return Price(model, throughput, latency_s, spread=spread)


def _on_device(name: str, code: np.ndarray, *, network: DartsNetwork, clocks_mhz: dict[str, float | None]) -> Price:
    chosen = {clock: None if mhz is None else (1e6 * mhz,) for clock, mhz in clocks_mhz.items()}
    device = with_clocks(load_device(name), **chosen)
    point = default_point(device)
    cost = jax.jit(network_cost)(darts_workload(network, jnp.asarray(code)), device, point)
    mhz = " ".join(f"{float(hz) / 1e6:.5g}" for hz in (point.core_hz, point.memory_hz, point.host_hz))
    latency_s, energy_j = float(cost.latency_s), float(cost.energy_j)
    return Price(f"{Path(name).stem} at {mhz} MHz", 1 / latency_s, latency_s, energy_j)


def _table(prices: Sequence[Price], *, title: str) -> Table:
    table = Table(title=title)
    table.add_column("by")
    for heading in ("images/s", "ms", "mJ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in prices:
        spread = "" if row.spread is None else f" ± {row.spread:.1%}"
        latency = "" if row.latency_s is None else f"{1e3 * row.latency_s:.4g}"
        energy = "" if row.energy_j is None else f"{1e3 * row.energy_j:.4g}"
        table.add_row(row.model, f"{row.throughput:,.1f}{spread}", latency, energy)
    return table
