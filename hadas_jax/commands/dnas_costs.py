"""The command that prices one network of the DARTS space, as a library call: accelerators, predictors, devices.

The commands about data sets and predictors of the DARTS space as library calls.

The commands that fit and import predictors of the DARTS space as library calls.
"""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.report import StepProgress, plot_genotype
from hadas_jax.report.console import new_console, new_file, say
from hadas_jax.report.darts import held_out_table, plot_held_out
from hadas_jax.runs.workdir import versions
from hadas_jax.spaces.darts import DARTS_CODES, OPERATIONS, format_code, sample_codes
from hadas_jax.spaces.darts_costs import (
    PARADIGMS,
    PricedNetworks,
    darts_counts,
    darts_workload,
    generic_table_name,
    read_darts_predictor,
    read_priced_networks,
    throughput_table,
    write_priced_networks,
)
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hadas_jax.spaces.genotypes import genotype_of, read_architecture
from hadas_jax.supernet.pytorch_files import read_pytorch
from hw_models import default_point, load_device, network_cost, with_clocks
from hw_models.accelerator import (
    Fpga,
    FpgaTooSmallError,
    generic_report,
    load_fpga,
    pipeline_report,
    report_table,
)
from hw_models.predictors import (
    FittedPredictor,
    PredictorNotes,
    ThroughputPredictor,
    fit_predictor,
    import_predictor,
    predict_throughput,
    recipe_of,
    write_predictor,
)

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
        output: File to write, .npz, see `hadas_jax.spaces.darts_costs`.
        count: N. The first networks of a seed do not depend on it.
        operations: Digits to draw from.
        different: Whether the two operations of a node must differ, as in the data sets of EH-DNAS.
        paradigm: `generic`, `pipeline`, or `both`.
        network: Size of the networks; None: the one that E2E-Perf measures.
        fpga: A name or the path of a file.
        table: Of the generic paradigm, see `hadas_jax.spaces.darts_costs`.
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


def fit(
    data: Path | str | PricedNetworks,
    output: Path | str,
    *,
    paradigm: str | None = None,
    kind: str = "mlp",
    members: int = 1,
    hidden: Sequence[int] | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    dropout: float | None = None,
    held_out: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> FittedPredictor:
    """Fits a predictor to a data set and writes it, with a picture of predicted against true throughput beside it.

    Args:
        data: File of `hadas dnas sample`, or its content.
        output: Predictor to write, .npz; the picture has the same name and .png.
        paradigm: Of the throughputs; None: the only one in the data.
        kind: `mlp`, `embedding` or `lookup`, see `hw_models.predictors`.
        members: Models of the ensemble.
        hidden: Hidden layers; None here and below: as `hw_models.predictors.recipe_of(kind)`.
        epochs: Times through the data.
        batch: Networks per step.
        learning_rate: At the start.
        weight_decay: Of all weights.
        dropout: Of embeddings.
        held_out: Networks left out to judge by; None: a tenth, at most 50,000.
        seed: Of everything random.
        overwrite: Replace `output` and its picture.
        console: None: standard output.

    Returns:
        The predictor and its errors.

    Raises:
        ValueError: The data, a setting or a file does not fit, or the fit diverged.
    """
    console = console or new_console()
    target = new_file(output, ".npz", overwrite=overwrite)
    picture = new_file(target.with_suffix(".png"), ".png", overwrite=overwrite)
    asked: dict[str, Any] = {
        "hidden": None if hidden is None else tuple(hidden),
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "dropout": dropout,
    }
    recipe = dataclasses.replace(recipe_of(kind), **{name: value for name, value in asked.items() if value is not None})
    origin = Path(data).name if isinstance(data, Path | str) else "a data set"
    priced = read_priced_networks(data) if isinstance(data, Path | str) else data
    paradigm = _paradigm(priced, paradigm)
    throughputs = priced.throughputs[paradigm]
    fits = throughputs > 0
    if not fits.all():
        say(console, f"Left out: {(~fits).sum():,} of {len(fits):,} networks, which do not fit {priced.fpga}")
    table = f"{priced.table} table, " if paradigm == "generic" else ""
    notes = PredictorNotes(
        paradigm=paradigm,
        fpga=priced.fpga,
        network=priced.network.sizes,
        source=f"{origin}, {table}seed {seed}, hadas-jax {versions()['hadas-jax']}, jax {versions()['jax']}",
    )
    with StepProgress(console) as progress:
        fitted = fit_predictor(
            jax.random.key(seed),
            priced.codes[fits],
            throughputs[fits],
            layout=DARTS_CODES,
            kind=kind,
            members=members,
            recipe=recipe,
            held_out=held_out,
            notes=notes,
            on_epoch=lambda done, total, loss: progress.update(done, total, f"loss {loss:.4f}"),
        )
    write_predictor(fitted.predictor, target)
    plot_held_out(fitted, picture)
    console.print(held_out_table(fitted))
    say(console, f"Written: {target}, {picture}")
    say(console, f"To ask it: hadas dnas price DARTS_V2 --predictor {shlex.quote(str(target))}")
    return fitted


def import_published(
    file: Path | str,
    output: Path | str,
    *,
    paradigm: str,
    mean: float | None = None,
    deviation: float | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ThroughputPredictor:
    """Imports a predictor of EH-DNAS from its PyTorch file and writes it.

    Args:
        file: State dict, see `hadas_jax.supernet.pytorch.read_pytorch`; needs the extra `torch` unless it is an npz.
        output: Predictor to write, .npz.
        paradigm: `generic` or `pipeline`.
        mean: Of the throughputs that it was fitted to, images/s; None: as published.
        deviation: Likewise.
        overwrite: Replace `output`.
        console: None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A file or a setting does not fit.
    """
    console = console or new_console()
    target = new_file(output, ".npz", overwrite=overwrite)
    predictor = import_predictor(read_pytorch(file), layout=DARTS_CODES, paradigm=paradigm, mean=mean, std=deviation)
    write_predictor(predictor, target)
    say(console, f"Written: {target}, {paradigm}, {float(predictor.mean):g} + {float(predictor.std):g} z images/s")
    return predictor


def _paradigm(priced: PricedNetworks, paradigm: str | None) -> str:
    known = list(priced.throughputs)
    if paradigm is None and len(known) == 1:
        return known[0]
    if paradigm not in known:
        raise ValueError(f"--paradigm: expected {' or '.join(known)} as the data set has, got {paradigm or 'none'}")
    return paradigm


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
        architecture: As `hadas_jax.spaces.genotypes.read_architecture`, or a code int[28].
        paradigm: Of the accelerator: `generic`, `pipeline` or `both`.
        network: Size of the network; None: the one that E2E-Perf measures.
        fpga: A name or the path of a file.
        table: Of the generic paradigm, see `hadas_jax.spaces.darts_costs`.
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
            report = _REPORTS[name](network_rows(network), darts_counts(jnp.asarray(code)), chip)
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
    predictor = read_darts_predictor(path, network)
    notes = predictor.notes
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
