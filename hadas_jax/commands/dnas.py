"""The commands of the DARTS space (EH-DNAS): search and retrain its networks, and tell what they cost.

Every function imports what it needs itself: `hadas --help` imports this module, and must not import JAX.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from rich.console import Console
from rich.table import Table

from hadas_jax.commands.run import ALONE, Processes, RunArguments, run_command
from hadas_jax.report.console import StepProgress, new_console, new_file, new_table, print_line
from hadas_jax.settings import DnasSettings, RetrainSettings

if TYPE_CHECKING:
    from numpy import ndarray

    from hadas_jax.methods.eh_dnas import DnasResult, DnasRun, hardware
    from hadas_jax.methods.eh_dnas.retrain import RetrainResult, RetrainRun
    from hadas_jax.spaces.darts_costs import Price, PricedNetworks
    from hadas_jax.spaces.darts_network import DartsNetwork
    from hw_models.predictors import FittedPredictor, ThroughputPredictor

PARADIGMS = ("generic", "pipeline")
_CHUNK = 1 << 17
_UNITS = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}


def search(settings: DnasSettings | None = None, **run: Unpack[RunArguments]) -> DnasResult:
    """Searches a network of the DARTS space by gradient, with a model of its hardware in the loss (EH-DNAS).

    Writes genotype.json (for hadas dnas retrain), genotype.png, config.json, metrics.jsonl, checkpoints/ and, where
    one was fitted, predictor.npz into the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        **run: See `RunArguments`.

    Returns:
        The network found.

    Raises:
        ValueError: Settings, files or the work directory do not fit, or a loss is no longer finite.
    """
    from hadas_jax.methods.eh_dnas import DnasRun
    from hadas_jax.methods.eh_dnas.hardware import Objective
    from hadas_jax.report.darts import cost_table, plot_genotype
    from hadas_jax.spaces.darts import parse_code
    from hadas_jax.spaces.genotypes import Genotype

    def finish(started: DnasRun, result: DnasResult, path: Path, console: Console) -> None:
        plot_genotype(Genotype.of(parse_code(result.code)), path / "genotype.png")
        budgets = Objective(started.settings.loss).constraints
        console.print(cost_table(result, has_budgets=bool(budgets)))
        for line in _closing_lines(result, budgets):
            print_line(console, line)
        print_line(console, f"Written: {path}/genotype.json (for hadas dnas retrain --genotype), genotype.png")

    return run_command(
        DnasSettings,
        DnasRun,
        settings,
        name=lambda started: (started.settings.data.dataset, f"dnas-{started.settings.hardware}"),
        finish=finish,
        **run,
    )


def _closing_lines(result: DnasResult, budgets: Sequence[hardware.Constraint]) -> Iterator[str]:
    changed = sum(a != b for a, b in zip(result.code, result.code_without_budgets, strict=True))
    if not result.within_budgets:
        bounds = " and ".join(
            f"{budget.metric} {_UNITS[budget.metric][1] * budget.bound:.4g} {_UNITS[budget.metric][0]}"
            for budget in budgets
        )
        yield f"No network near alpha keeps {bounds}; this is the nearest one found."
    elif changed:
        yield f"To keep the budgets, {changed} of 28 edges differ from what alpha alone stands for."


def retrain(
    settings: RetrainSettings | None = None, *, processes: Processes = ALONE, **run: Unpack[RunArguments]
) -> RetrainResult:
    """Trains the network of a genotype from scratch and evaluates it, as DARTS retrains what a search found.

    Writes derived/ (the trained network), result.json, genotype.png, config.json, metrics.jsonl and checkpoints/ into
    the work directory.

    Args:
        settings: Settings of the run; None: the defaults, or those of the run to resume.
        processes: Which of several processes this is, that train together.
        **run: See `RunArguments`.

    Returns:
        The network with its accuracies.

    Raises:
        ValueError: Settings, data, checkpoints or the work directory do not fit, or the loss does not stay finite.
    """
    from hadas_jax.methods.eh_dnas.retrain import RetrainRun
    from hadas_jax.report.darts import plot_genotype, retrained_table

    def finish(started: RetrainRun, result: RetrainResult, path: Path, console: Console) -> None:
        plot_genotype(started.genotype, path / "genotype.png")
        console.print(retrained_table(result))
        print_line(console, f"Written: {path}/derived, result.json, genotype.png")

    return run_command(
        RetrainSettings,
        RetrainRun,
        settings,
        name=lambda started: (started.settings.data.dataset, "dnas-retrain"),
        finish=finish,
        processes=processes,
        **run,
    )


@dataclass(frozen=True)
class NetworkSize:
    """Size of the networks that the hardware runs; by default those that E2E-Perf measures."""

    network_channels: int = 16
    """Channels of the first cell."""
    network_cells: int = 8
    """Cells; those at a third and two thirds of the way are reduce cells."""
    network_classes: int = 10
    """Classes."""
    image_size: int = 32
    """Height and width of the images, in pixels."""
    in_channels: int = 3
    """Channels of the images."""
    network_stem: Literal["cifar", "imagenet"] = "cifar"
    """One convolution (cifar), or three of stride 2 (imagenet)."""

    @property
    def network(self) -> DartsNetwork:
        """A network of this size."""
        from hadas_jax.spaces.darts_network import DartsNetwork

        return DartsNetwork(*dataclasses.astuple(self))


def sample(
    output: Path | str,
    *,
    count: int = 1_400_000,
    operations: Sequence[int] = (1, 2, 3, 4, 5, 6, 7),
    different: bool = False,
    paradigm: Literal["generic", "pipeline", "both"] = "both",
    size: NetworkSize = NetworkSize(),
    fpga: str = "ku115",
    table: Literal["published", "fitted"] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> PricedNetworks:
    """Draws networks of the DARTS space at random and prices them on an FPGA, for `hadas dnas fit-predictor`.

    Args:
        output: Data set to write, .npz.
        count: Number of networks; the first ones of a seed do not depend on it.
        operations: Digits of operations to draw from; EH-DNAS drew 1 to 6.
        different: The two operations of a node differ, as in EH-DNAS's data sets.
        paradigm: Generic: one engine for all layers; pipeline: a stage for each.
        size: Size of the networks.
        fpga: ku115, zc706, or the path of an FPGA file.
        table: Table of the generic paradigm; by default the published one where there is one: the default network on
            the KU115.
        seed: Random seed of the draw.
        overwrite: Replace `output`.
        console: For progress and the table; None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A setting is none of these, or the file exists.
    """
    import jax
    import numpy as np

    from hadas_jax.report.darts import sample_table
    from hadas_jax.runs.workdir import versions
    from hadas_jax.spaces import darts_costs, sample_codes
    from hw_models.accelerator import load_fpga

    console, network, chip = console or new_console(), size.network, load_fpga(fpga)
    target = new_file(output, ".npz", overwrite=overwrite)
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    names = _paradigms(paradigm)
    prices = {name: darts_costs.throughput_table(name, network, fpga=chip, table=table) for name in names}
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
    priced = darts_costs.PricedNetworks(
        codes=columns.pop("codes"),
        throughputs=columns,
        network=network,
        fpga=chip.name,
        table=darts_costs.generic_table_name(network, chip, table=table),
        details={
            "operations": [int(digit) for digit in operations],
            "different": different,
            "seed": seed,
            "versions": versions(),
        },
    )
    priced.write(target)
    console.print(sample_table(priced))
    print_line(console, f"Written: {target}, {count:,} networks")
    fitting = ["hadas", "dnas", "fit-predictor", str(target), "--paradigm", names[-1], "-o", "predictor.npz"]
    print_line(console, f"To fit a predictor: {shlex.join(fitting)}")
    return priced


def _paradigms(paradigm: str) -> tuple[str, ...]:
    if paradigm not in (*PARADIGMS, "both"):
        raise ValueError(f"paradigm: expected generic, pipeline or both, got {paradigm!r}")
    return PARADIGMS if paradigm == "both" else (paradigm,)


def fit(
    data: Path | str | PricedNetworks,
    output: Path | str,
    *,
    paradigm: Literal["generic", "pipeline"] | None = None,
    kind: Literal["mlp", "embedding", "lookup"] = "mlp",
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
    """Fits a differentiable predictor of throughput to a data set of `hadas dnas sample`.

    Args:
        data: Data set of `hadas dnas sample`.
        output: Predictor to write, .npz; a picture of predicted against true throughput goes beside it.
        paradigm: Paradigm of the throughputs; by default the only one in the data set.
        kind: mlp: on counts of operations; embedding: EH-DNAS's own; lookup: a sum over edges.
        members: Models of the ensemble; from two on, predictions come with a spread.
        hidden: Sizes of hidden layers; by default those of the kind, as everything below.
        epochs: Times through the data.
        batch: Networks per step.
        learning_rate: Learning rate at the start; it falls to 0 as a cosine.
        weight_decay: Weight decay of all weights.
        dropout: Dropout rate of embeddings.
        held_out: Networks left out to evaluate by; by default a tenth, at most 50,000.
        seed: Random seed.
        overwrite: Replace `output` and its picture.
        console: For progress and the table; None: standard output.

    Returns:
        The predictor and its errors.

    Raises:
        ValueError: The data, a setting or a file does not fit, or the fit diverged.
    """
    import jax

    from hadas_jax.report.darts import print_held_out
    from hadas_jax.runs.workdir import versions
    from hadas_jax.spaces.darts_costs import DARTS_CODES, PricedNetworks
    from hw_models import predictors

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
    given = {name: value for name, value in asked.items() if value is not None}
    recipe = dataclasses.replace(predictors.recipe_of(kind), **given)
    origin = Path(data).name if isinstance(data, Path | str) else "a data set"
    priced = PricedNetworks.read(data) if isinstance(data, Path | str) else data
    fitted_to = _paradigm_of(priced, paradigm)
    throughputs = priced.throughputs[fitted_to]
    fits = throughputs > 0
    if not fits.all():
        print_line(console, f"Left out: {(~fits).sum():,} of {len(fits):,} networks, which do not fit {priced.fpga}")
    table = f"{priced.table} table, " if fitted_to == "generic" else ""
    notes = predictors.PredictorNotes(
        paradigm=fitted_to,
        fpga=priced.fpga,
        network=priced.network.sizes,
        source=f"{origin}, {table}seed {seed}, hadas-jax {versions()['hadas-jax']}, jax {versions()['jax']}",
    )
    with StepProgress(console) as progress:
        fitted = predictors.fit_predictor(
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
    predictors.write_predictor(fitted.predictor, target)
    print_held_out(fitted, console, picture=picture)
    print_line(console, f"Written: {target}, {picture}")
    print_line(console, f"To ask it: hadas dnas price DARTS_V2 --predictor {shlex.quote(str(target))}")
    return fitted


def import_published(
    file: Path | str,
    output: Path | str,
    *,
    paradigm: Literal["generic", "pipeline"],
    mean: float | None = None,
    deviation: float | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> ThroughputPredictor:
    """Imports a predictor that EH-DNAS published as a PyTorch state dict; needs the extra torch.

    Args:
        file: State dict of the embedding perceptron, .pt, or .npz of the same arrays.
        output: Predictor to write, .npz.
        paradigm: Which of the published predictors it is.
        mean: Mean of the throughputs that it was fitted to, images/s; by default as published.
        deviation: Standard deviation of these throughputs.
        overwrite: Replace `output`.
        console: For the closing line; None: standard output.

    Returns:
        What was written.

    Raises:
        ValueError: A file or a setting does not fit.
    """
    from hadas_jax.spaces.darts import DARTS_CODES
    from hadas_jax.supernet.pytorch_files import read_pytorch
    from hw_models.predictors import import_predictor, write_predictor

    console = console or new_console()
    target = new_file(output, ".npz", overwrite=overwrite)
    entries = read_pytorch(file)
    predictor = import_predictor(entries, layout=DARTS_CODES, paradigm=paradigm, mean=mean, std=deviation)
    write_predictor(predictor, target)
    print_line(
        console, f"Written: {target}, {paradigm}, {float(predictor.mean):g} + {float(predictor.std):g} z images/s"
    )
    return predictor


def _paradigm_of(priced: PricedNetworks, paradigm: str | None) -> str:
    known = list(priced.throughputs)
    if paradigm is None and len(known) == 1:
        return known[0]
    if paradigm not in known:
        raise ValueError(f"paradigm: expected {' or '.join(known)} as the data set has, got {paradigm or 'none'}")
    return paradigm


def price(
    architecture: str | ndarray,
    *,
    paradigm: Literal["generic", "pipeline", "both"] = "both",
    size: NetworkSize = NetworkSize(),
    fpga: str = "ku115",
    table: Literal["published", "fitted"] | None = None,
    predictors: Sequence[Path | str] = (),
    devices: Sequence[str] = (),
    core_mhz: float | None = None,
    memory_mhz: float | None = None,
    host_mhz: float | None = None,
    rows: int = 8,
    plot: Path | str | None = None,
    console: Console | None = None,
) -> list[Price]:
    """Prices a network of the DARTS space: on an FPGA by both paradigms, by predictors, and on roofline devices.

    Args:
        architecture: DARTS_V1, DARTS_V2, OURS_ACC, OURS_PIP, 28 digits, Genotype(...), or a file of one of these.
        paradigm: Generic: one engine for all layers; pipeline: a stage for each.
        size: Size of the network.
        fpga: ku115, zc706, or the path of an FPGA file.
        table: Table of the generic paradigm; by default the published one where there is one: the default network on
            the KU115.
        predictors: Predictors of `hadas dnas fit-predictor` to ask.
        devices: Names of `hadas devices list`, or paths of device files.
        core_mhz: Clock of the devices; by default the highest.
        memory_mhz: Memory clock of the devices; by default the highest.
        host_mhz: Clock of the CPU that launches kernels; by default the highest.
        rows: Layers to show of each paradigm, those that take longest.
        plot: PNG file for a picture of both cells.
        console: For the tables; None: standard output.

    Returns:
        The prices that were printed.

    Raises:
        FpgaTooSmallError: The only paradigm asked for does not fit the FPGA.
        ValueError: The architecture or a setting is none of these, or a predictor is of other networks.
    """
    import jax.numpy as jnp

    from hadas_jax.report.darts import plot_genotype
    from hadas_jax.spaces import Genotype, darts_counts, network_rows
    from hadas_jax.spaces.darts import format_code
    from hadas_jax.spaces.darts_costs import Price
    from hadas_jax.spaces.genotypes import read_architecture
    from hw_models import accelerator

    console, network, chip = console or new_console(), size.network, accelerator.load_fpga(fpga)
    code = read_architecture(architecture if isinstance(architecture, str) else " ".join(map(str, architecture)))
    names = _paradigms(paradigm)
    if rows < 1:
        raise ValueError(f"rows: expected at least 1, got {rows}")
    picture = None if plot is None else new_file(plot, ".png")
    clocks = {"core_hz": core_mhz, "memory_hz": memory_mhz, "host_hz": host_mhz}
    asked = [Price.by_predictor(path, code, network) for path in predictors]
    asked += [Price.on_device(name, code, network, clocks_mhz=clocks) for name in devices]
    counts = darts_counts(jnp.asarray(code))
    found, refused = [], []
    for name in names:
        try:
            report_of = accelerator.generic_report if name == "generic" else accelerator.pipeline_report
            report = report_of(network_rows(network), counts, chip)
        except accelerator.FpgaTooSmallError as error:
            if paradigm != "both":
                raise
            refused.append(f"{name}: {error}")
            continue
        by_report = Price(f"pipeline on {chip.name}", report.throughput, report.latency_s)
        found.append(by_report if name == "pipeline" else Price.by_table(code, network, fpga=chip, table=table))
        console.print(accelerator.report_table(report, most_rows=rows))
    found += asked
    console.print(_table(found, title=format_code(code)))
    for line in refused:
        print_line(console, line)
    if any(row.model.startswith("generic") and "published" in row.model for row in found):
        print_line(console, "The layers of the generic paradigm are those of the fitted table.")
    if picture is not None:
        plot_genotype(Genotype.of(code), picture)
        print_line(console, f"Picture of both cells: {picture}")
    return found


def _table(prices: Sequence[Price], *, title: str) -> Table:
    table = new_table(title, "by", "images/s", "ms", "mJ", no_wrap=True)
    for row in prices:
        spread = "" if row.spread is None else f" ± {row.spread:.1%}"
        latency = "" if row.latency_s is None else f"{1e3 * row.latency_s:.4g}"
        energy = "" if row.energy_j is None else f"{1e3 * row.energy_j:.4g}"
        table.add_row(row.model, f"{row.throughput:,.1f}{spread}", latency, energy)
    return table
