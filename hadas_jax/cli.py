"""The command `hadas`: messages and exit codes around `hadas_jax.cli`.

The commands that follow a search and their flags: thin, each is a library call.

The flags that all commands share which start or resume a run in a work directory.

The commands of `hadas dnas` and their flags: thin, each is a library call.

The commands that take a network to a device and their flags: thin, each is a library call.

The command `hadas report` and its flags: thin, a library call.

The commands of `hadas` and their flags: thin, each is a call of `hadas_jax.commands` or `device_commands`.
"""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Protocol, TypeVar

import jax
import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from hadas_jax.backend import LostProcessError, connect
from hadas_jax.commands import benchmark as bench_commands
from hadas_jax.commands import devices as device_commands
from hadas_jax.commands import dnas as dnas_commands
from hadas_jax.commands import dnas as retrain_commands
from hadas_jax.commands import dnas_costs as dnas_data_commands
from hadas_jax.commands import dnas_costs as dnas_predictor_commands
from hadas_jax.commands import dnas_costs as dnas_price_commands
from hadas_jax.commands import hadas as commands
from hadas_jax.commands import networks as export_commands
from hadas_jax.commands import networks as select_commands
from hadas_jax.commands import reports as report_commands
from hadas_jax.commands import supernets as import_commands
from hadas_jax.commands import supernets as train_commands
from hadas_jax.deploy.export import Format
from hadas_jax.deploy.fine_tune import FineTuneSettings
from hadas_jax.methods import Settings, TrainSettings
from hadas_jax.methods.eh_dnas import DnasSettings
from hadas_jax.methods.eh_dnas.retrain import RetrainSettings
from hadas_jax.methods.hadas.constraints import Constraints
from hadas_jax.runs.settings import StoredSettings, expand_home
from hadas_jax.spaces.darts_network import DartsNetwork

Network = Positional[Annotated[Path, arg(metavar="ARCH.json")]]


@dataclass(frozen=True)
class SelectNetwork:
    """Choose a network of a finished search under limits, and write it as ARCH.json for the commands that follow.

    Networks are judged on the samples that the search chose by (validation and calibration); the figures of the test
    split stand beside.
    """

    workdir: Positional[Annotated[Path, arg(metavar="WORKDIR")]]
    """Of the search."""
    max_latency_ms: float | None = None
    """Limit of the mean latency of a sample."""
    max_energy_mj: float | None = None
    """Limit of the mean energy of a sample."""
    min_accuracy: float | None = None
    """Limit of the accuracy, a share between 0 and 1."""
    max_params: int | None = None
    """Limit of the number of weights of the backbone, exit heads aside."""
    prefer: Literal["knee", "accuracy", "latency", "energy"] = "knee"
    """What counts among the networks within the limits; knee: nearest to the best of all three at once."""
    policy: Literal["deployable", "ideal"] = "deployable"
    """How samples stop: at exits that are sure enough, or as an upper bound at those that are right."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="ARCH.json")] = None
    """File to write; by default architecture.json in WORKDIR."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the file."""

    def run(self) -> None:
        """Executes the command."""
        select_commands.select_network(
            self.workdir,
            limits=Constraints(
                max_latency_ms=self.max_latency_ms,
                max_energy_mj=self.max_energy_mj,
                min_accuracy=self.min_accuracy,
                max_params=self.max_params,
            ),
            prefer=self.prefer,
            policy=self.policy,
            output=self.output,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class ShowNetwork:
    """Show a selected network: blocks, exits, clocks, and the share of samples and energy of every exit."""

    network: Network
    """File that hadas select wrote, or the work directory with it."""
    plot: Path | None = None
    """PNG file for a picture."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the picture."""

    def run(self) -> None:
        """Executes the command."""
        select_commands.show_network(self.network, plot=self.plot, overwrite=self.overwrite)


@dataclass(frozen=True)
class OperatingPoints:
    """List the clocks that are best for a selected network at every deadline and power cap, for a governor.

    For a deadline the least energy counts, for a cap on the mean power the least latency. All operating points of the
    device that the search had are judged; exits and thresholds stay.
    """

    network: Network
    """File that hadas select wrote, or the work directory with it."""
    deadlines_ms: tuple[float, ...] = ()
    """Deadlines to answer; by default some of all steps are printed."""
    power_caps_w: tuple[float, ...] = ()
    """Caps on the mean power to answer."""
    deadline_of: Literal["mean", "longest"] = "mean"
    """Latency that has to keep a deadline: the mean one, or that of a sample that reaches the classifier."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.json")] = None
    """JSON file to write, with all steps."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the file."""

    def run(self) -> None:
        """Executes the command."""
        select_commands.operating_points(
            self.network,
            deadlines_ms=self.deadlines_ms,
            power_caps_w=self.power_caps_w,
            deadline_of=self.deadline_of,
            output=self.output,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class ListRuns:
    """List work directories, the newest first: what each is of, how far it is, and what it found."""

    folders: Positional[Annotated[tuple[Path, ...], arg(metavar="DIR")]] = ()
    """Work directories, or folders of them; by default runs/."""

    def run(self) -> None:
        """Executes the command."""
        select_commands.list_runs(self.folders)


DEPLOY_COMMANDS = {
    "select": SelectNetwork,
    "show": ShowNetwork,
    "operating-points": OperatingPoints,
    "runs": ListRuns,
}


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Of a run; a command says in its own docstring of `workdir` where it goes by default."""

    workdir: Path | None = None
    """Where everything is written."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --workdir, with its settings."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the run in --workdir."""
    config: Path | None = None
    """YAML or JSON file of settings; flags given beside it win."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Write metrics for TensorBoard too, into tensorboard/ of the work directory; needs the extra `tensorboard`."""

    @property
    def place(self) -> dict[str, Any]:
        """The flags as the library calls take them; the command line itself reads --config."""
        return {name: getattr(self, name) for name in ("workdir", "resume", "overwrite", "tensorboard")}


Output = Annotated[Path, arg(aliases=["-o"], metavar="FILE")]


@dataclass(frozen=True)
class NetworkFlags:
    """Size of the networks that the hardware runs; by default those that E2E-Perf measures."""

    network_channels: int = 16
    """Channels of the first cell."""
    network_cells: int = 8
    """Cells; those at a third and two thirds of the way are reduce cells."""
    network_classes: int = 10
    """Classes."""
    image_size: int = 32
    """Of the images, in pixels."""
    in_channels: int = 3
    """Of the images."""
    network_stem: Literal["cifar", "imagenet"] = "cifar"
    """One convolution (cifar), or three of stride 2 (imagenet)."""

    @property
    def network(self) -> DartsNetwork:
        """The network of this size."""
        return DartsNetwork(
            self.network_channels,
            self.network_cells,
            self.network_classes,
            self.image_size,
            self.in_channels,
            self.network_stem,
        )


@dataclass(frozen=True)
class SampleNetworks:
    """Draw networks of the DARTS space at random and price them on an FPGA, for `hadas dnas fit-predictor`."""

    output: Output
    """Data set to write, .npz."""
    size: OmitArgPrefixes[NetworkFlags]
    count: int = 1_400_000
    """Number of networks; the first ones of a seed do not depend on it."""
    operations: tuple[int, ...] = dnas_data_commands.ALL_OPERATIONS
    """Digits of operations to draw from; EH-DNAS drew 1 to 6."""
    different: FlagCreatePairsOff[bool] = False
    """The two operations of a node differ, as in EH-DNAS's data sets."""
    paradigm: Literal["generic", "pipeline", "both"] = "both"
    """Generic: one engine for all layers; pipeline: a stage for each."""
    fpga: str = "ku115"
    """ku115, zc706, or the path of an FPGA file."""
    table: Literal["published", "fitted"] | None = None
    """Of the generic paradigm; by default the published one where there is one: the default network on the KU115."""
    seed: int = 0
    """Of the draw."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output."""

    def run(self) -> None:
        """Executes the command."""
        dnas_data_commands.sample(
            self.output,
            count=self.count,
            operations=self.operations,
            different=self.different,
            paradigm=self.paradigm,
            network=self.size.network,
            fpga=self.fpga,
            table=self.table,
            seed=self.seed,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class FitPredictor:
    """Fit a differentiable predictor of throughput to a data set of `hadas dnas sample`."""

    data: Positional[Annotated[Path, arg(metavar="DATA.npz")]]
    """Data set of `hadas dnas sample`."""
    output: Output
    """Predictor to write, .npz; a picture of predicted against true throughput goes beside it."""
    paradigm: Literal["generic", "pipeline"] | None = None
    """Of the throughputs; by default the only one in the data set."""
    kind: Literal["mlp", "embedding", "lookup"] = "mlp"
    """mlp: on counts of operations; embedding: EH-DNAS's own; lookup: a sum over edges."""
    members: int = 1
    """Models of the ensemble; from two on, predictions come with a spread."""
    hidden: tuple[int, ...] | None = None
    """Sizes of hidden layers; by default those of the kind, as everything below."""
    epochs: int | None = None
    """Times through the data."""
    batch: int | None = None
    """Networks per step."""
    learning_rate: float | None = None
    """At the start; it falls to 0 as a cosine."""
    weight_decay: float | None = None
    """Of all weights."""
    dropout: float | None = None
    """Of embeddings."""
    held_out: int | None = None
    """Networks left out to judge by; by default a tenth, at most 50,000."""
    seed: int = 0
    """Of everything random."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output and its picture."""

    def run(self) -> None:
        """Executes the command."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        dnas_predictor_commands.fit(settings.pop("data"), settings.pop("output"), **settings)


@dataclass(frozen=True)
class ImportPredictor:
    """Import a predictor that EH-DNAS published as a PyTorch state dict; needs the extra torch."""

    file: Positional[Annotated[Path, arg(metavar="FILE")]]
    """State dict of the embedding perceptron, .pt, or .npz of the same arrays."""
    output: Output
    """Predictor to write, .npz."""
    paradigm: Literal["generic", "pipeline"]
    """Which of the published predictors it is."""
    mean: float | None = None
    """Of the throughputs that it was fitted to, images/s; by default as published."""
    deviation: float | None = None
    """Standard deviation of these throughputs."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output."""

    def run(self) -> None:
        """Executes the command."""
        dnas_predictor_commands.import_published(
            self.file,
            self.output,
            paradigm=self.paradigm,
            mean=self.mean,
            deviation=self.deviation,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class PriceNetwork:
    """Price a network of the DARTS space: on an FPGA by both paradigms, by predictors, and on roofline devices."""

    architecture: Positional[Annotated[str, arg(metavar="NETWORK")]]
    """DARTS_V1, DARTS_V2, OURS_ACC, OURS_PIP, 28 digits, Genotype(...), or a file of one of these."""
    size: OmitArgPrefixes[NetworkFlags]
    paradigm: Literal["generic", "pipeline", "both"] = "both"
    """Generic: one engine for all layers; pipeline: a stage for each."""
    fpga: str = "ku115"
    """ku115, zc706, or the path of an FPGA file."""
    table: Literal["published", "fitted"] | None = None
    """Of the generic paradigm; by default the published one where there is one: the default network on the KU115."""
    predictor: tuple[Path, ...] = ()
    """Predictors of `hadas dnas fit-predictor` to ask."""
    device: tuple[str, ...] = ()
    """Names of `hadas devices list`, or paths of device files."""
    core_mhz: float | None = None
    """Clock of the devices; by default the highest."""
    memory_mhz: float | None = None
    """Memory clock of the devices; by default the highest."""
    host_mhz: float | None = None
    """Clock of the CPU that launches kernels; by default the highest."""
    rows: int = 8
    """Layers to show of each paradigm, those that take longest."""
    plot: Path | None = None
    """PNG file for a picture of both cells."""

    def run(self) -> None:
        """Executes the command."""
        dnas_price_commands.price(
            self.architecture,
            paradigm=self.paradigm,
            network=self.size.network,
            fpga=self.fpga,
            table=self.table,
            predictors=self.predictor,
            devices=self.device,
            core_mhz=self.core_mhz,
            memory_mhz=self.memory_mhz,
            host_mhz=self.host_mhz,
            rows=self.rows,
            plot=self.plot,
        )


@dataclass(frozen=True, kw_only=True)
class RetrainGenotype(RunFlags):
    """Train the network of a genotype from scratch and judge it, as DARTS retrains what a search found.

    Writes derived/ (the trained network), result.json, genotype.png, config.json, metrics.jsonl and checkpoints/ into
    the work directory.
    """

    settings: OmitArgPrefixes[RetrainSettings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-dnas-retrain."""

    def run(self) -> None:
        """Executes the command."""
        retrain_commands.retrain(self.settings, **self.place)


@dataclass(frozen=True, kw_only=True)
class SearchArchitecture(RunFlags):
    """Search a network of the DARTS space by gradient, with a model of its hardware in the loss (EH-DNAS).

    Writes genotype.json (for hadas dnas retrain), genotype.png, config.json, metrics.jsonl and checkpoints/ into the
    work directory.
    """

    settings: OmitArgPrefixes[DnasSettings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-dnas-<hardware>."""

    def run(self) -> None:
        """Executes the command."""
        dnas_commands.search(self.settings, **self.place)


DNAS_COMMANDS = {
    "dnas search": SearchArchitecture,
    "dnas sample": SampleNetworks,
    "dnas fit-predictor": FitPredictor,
    "dnas import-predictor": ImportPredictor,
    "dnas price": PriceNetwork,
    "dnas retrain": RetrainGenotype,
}


@dataclass(frozen=True)
class MaterialiseNetwork:
    """Cut a selected network out of its supernet: weights of its own size, nothing masked, with its exits.

    Writes network.json, weights.npz and architecture.json, and compares the network with the supernet.
    """

    network: Positional[Annotated[Path, arg(metavar="ARCH.json")]]
    """File that hadas select wrote, or the work directory with it."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="DIR")] = None
    """Directory to write; by default network/ beside ARCH.json."""
    fold_batch_norm: FlagCreatePairsOff[bool] = False
    """Fold batch norm into the layers before it; hadas export does so anyway, hadas fine-tune needs it unfolded."""
    dataset: str | None = None
    """Where the images of the search are now, if they were moved; as --dataset of hadas search."""
    data_dir: str | None = None
    """Likewise, as --data-dir of hadas search."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the network in the directory."""

    def run(self) -> None:
        """Executes the command."""
        export_commands.materialise_network(
            self.network,
            output=self.output,
            fold_batch_norm=self.fold_batch_norm,
            dataset=self.dataset,
            data_dir=self.data_dir,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class ExportNetwork:
    """Export a network for a device: one segment for each exit, a manifest, and for ONNX a small runtime.

    The export is compared with JAX on the test split, and timed on this machine.
    """

    network: Positional[Annotated[Path, arg(metavar="NETWORK")]]
    """Directory of hadas materialise or fine-tune, an ARCH.json, or a work directory with one."""
    format: Format = "stablehlo"
    """stablehlo: as jax.export serialises it. onnx: needs the extra onnx. saved: layers and weights."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="DIR")] = None
    """Directory to write; by default export/ beside the network."""
    batch: int | None = None
    """Images at once; by default any number."""
    dataset: str | None = None
    """Where the images of the search are now, if they were moved; as --dataset of hadas search."""
    data_dir: str | None = None
    """Likewise, as --data-dir of hadas search."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the export in the directory."""

    def run(self) -> None:
        """Executes the command."""
        export_commands.export(
            self.network,
            format=self.format,
            output=self.output,
            batch=self.batch,
            dataset=self.dataset,
            data_dir=self.data_dir,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True, kw_only=True)
class FineTuneNetwork(RunFlags):
    """Train a selected network further, exits and classifier together, set thresholds anew, report on the test split.

    Writes network/ (for hadas export), result.json, config.json, metrics.jsonl, checkpoints/ into the work directory.
    """

    settings: OmitArgPrefixes[FineTuneSettings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-fine-tune."""

    def run(self) -> None:
        """Executes the command."""
        export_commands.fine_tune(self.settings, **self.place)


EXPORT_COMMANDS = {"materialise": MaterialiseNetwork, "fine-tune": FineTuneNetwork, "export": ExportNetwork}


@dataclass(frozen=True)
class Report:
    """Write one HTML page about runs: fronts, savings, clocks, exits, progress, settings. It works offline."""

    workdirs: Positional[Annotated[tuple[Path, ...], arg(metavar="WORKDIR")]]
    """Work directories of finished runs; several are overlaid."""
    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.html")] = None
    """Page to write; by default report.html in the work directory, of one run."""
    figures: Path | None = None
    """Directory for every figure as PNG and as CSV, of its own; those of an earlier report are replaced."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output."""

    def run(self) -> None:
        """Executes the command."""
        report_commands.report(self.workdirs, output=self.output, figures=self.figures, overwrite=self.overwrite)


REPORT_COMMANDS = {"report": Report}


class Command(Protocol):
    """What the command line was parsed to."""

    def run(self) -> None:
        """Executes the command."""


@dataclass(frozen=True, kw_only=True)
class Search(RunFlags):
    """Search dynamic networks with HADAS: train a supernet and its exits, search backbones, exits and clocks.

    Writes config.json, front.csv, front.json, levels.csv, front.png, metrics.jsonl, checkpoints/ and what it trains,
    supernet/, into the work directory.
    """

    settings: OmitArgPrefixes[Settings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-<device>."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes that search together; auto on SLURM, Open MPI and TPU pods."""
    num_processes: int | None = None
    """Number of these processes."""
    process_id: int | None = None
    """Which of them this is, from 0; the first alone writes and prints."""

    def run(self) -> None:
        """Executes the command."""
        commands.search(self.settings, **self.place)


@dataclass(frozen=True, kw_only=True)
class Train(RunFlags):
    """Train a supernet and its exit heads, from the start or from --checkpoint.

    Writes supernet/ (for --checkpoint), exits.csv, exits.png, config.json, metrics.jsonl and checkpoints/ into the
    work directory.
    """

    settings: OmitArgPrefixes[TrainSettings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-train."""

    def run(self) -> None:
        """Executes the command."""
        train_commands.train(self.settings, **self.place)


@dataclass(frozen=True)
class PrepareData:
    """Download an image set of tensorflow-datasets and write it as --dataset reads it; needs the extra tfds."""

    name: Positional[Annotated[str, arg(metavar="NAME")]]
    """cifar10, cifar100, fashion_mnist, mnist, imagenet2012, or tfds:NAME."""
    data_dir: Path | None = None
    """Where to; by default tensorflow-datasets' own place."""

    def run(self) -> None:
        """Executes the command."""
        train_commands.prepare(self.name, data_dir=self.data_dir)


@dataclass(frozen=True)
class ListDevices:
    """List the devices that come with the package."""

    def run(self) -> None:
        """Executes the command."""
        device_commands.list_devices()


@dataclass(frozen=True)
class ShowDevice:
    """Show a device: every figure with its origin and error, and what its power modes cost."""

    device: Positional[Annotated[str, arg(metavar="DEVICE")]]
    """A name of `hadas devices list`, or the path of a device file."""
    plot: Path | None = None
    """PNG file for a picture of latency and energy over the clocks."""

    def run(self) -> None:
        """Executes the command."""
        device_commands.show_device(self.device, plot=self.plot)


@dataclass(frozen=True)
class FitDevice:
    """Fit a device to measurements, cross-validate it and write its file, for --device of other commands."""

    measurements: Positional[Annotated[Path, arg(metavar="MEASUREMENTS.csv")]]
    """CSV file as written by `hadas devices profile`."""
    output: Output
    """Device file to write, .yaml; a picture of predicted against measured goes beside it."""
    base: str | None = None
    """Device to start from, a name or a path; by default the known one that is nearest in kind."""
    name: str | None = None
    """Of the new device; by default from --output."""
    prior_sigma: float | None = None
    """How far parameters may leave the base beyond one common factor, as a log factor; by default 1, or 0.3 for
    fewer than 30 measurements."""
    seed: int = 0
    """Of folds and starts."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output and its picture."""

    def run(self) -> None:
        """Executes the command."""
        device_commands.fit_device(
            self.measurements,
            self.output,
            base=self.base,
            name=self.name,
            prior_sigma=self.prior_sigma,
            seed=self.seed,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class ProfileMachine:
    """Measure sub-networks and single layers on this machine, for `hadas devices fit`.

    Power is read where the machine allows it, and left empty elsewhere. Clocks are left as they are unless given;
    setting them needs write access to sysfs, and they are restored afterwards.
    """

    output: Output
    """CSV file to write."""
    space: str = "digits"
    """Of the sub-networks: digits or attentivenas."""
    resolution: int | None = None
    """Of the images, in pixels; by default the smallest of the space."""
    networks: int = 60
    """Number of sub-networks."""
    layers: int = 3
    """Sizes of each kind of single layer, 0 to 4."""
    batch: int = 1
    """Images per run."""
    rounds: int = 3
    """Measurements of each network; its row is the median of theirs."""
    core_mhz: tuple[float, ...] = ()
    """Settings of the processor's clock to measure at."""
    memory_mhz: tuple[float, ...] = ()
    """Settings of the memory clock to measure at."""
    host_mhz: tuple[float, ...] = ()
    """Settings of the clock of the CPU that launches kernels on a GPU."""
    seed: int = 0
    """Of the choice of sub-networks."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the measurements in --output."""

    def run(self) -> None:
        """Executes the command."""
        device_commands.profile_machine(
            self.output,
            space=self.space,
            resolution=self.resolution,
            networks=self.networks,
            layers=self.layers,
            batch=self.batch,
            rounds=self.rounds,
            core_mhz=self.core_mhz,
            memory_mhz=self.memory_mhz,
            host_mhz=self.host_mhz,
            seed=self.seed,
            resume=self.resume,
        )


@dataclass(frozen=True)
class Bench:
    """Measure how many candidates per second each part of a search gets through, beside pymoo where installed."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.json")] = None
    """JSON file to write; a picture goes beside it."""
    device: str = "agx-xavier-gpu"
    """Cost model: a name of `hadas devices list`, or the path of a device file."""
    populations: tuple[int, ...] = (64, 256, 1024, 4096, 16384, 65536)
    """Population sizes."""
    rounds: int = 5
    """Measurements of each, of which the median counts."""
    peer_limit: int = 16384
    """Largest population that pymoo gets, a tenth of it where it removes duplicates; 0: none."""
    seed: int = 0
    """Of everything random."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace --output and its picture."""

    def run(self) -> None:
        """Executes the command."""
        bench_commands.bench(
            self.output,
            device=self.device,
            populations=self.populations,
            rounds=self.rounds,
            peer_limit=self.peer_limit,
            seed=self.seed,
            overwrite=self.overwrite,
        )


@dataclass(frozen=True)
class ImportCheckpoint:
    """Import a supernet that PyTorch trained (AttentiveNAS, AlphaNet, HADAS), for --checkpoint of other commands.

    Reading a PyTorch file needs the extra `torch`; an npz file of the same arrays needs nothing.
    """

    file: Positional[Annotated[Path, arg(metavar="FILE")]]
    """Checkpoint of the supernet, .pth.tar or .npz."""
    output: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Directory to write."""
    classes: int | None = None
    """Another number of classes than the checkpoint's gives a fresh classifier."""
    space: str = "attentivenas"
    """Of the supernet."""
    exits: Path | None = None
    """Another checkpoint that the exit heads come from; by default FILE."""
    exits_of: str | None = None
    """Backbone that the exit heads belong to, a0 to a6; by default exit heads are not imported."""
    exit_blocks: tuple[int, ...] = ()
    """The backbone's own blocks that the exits follow, from 0; by default every block that may have one."""
    entry: str | None = None
    """Which of several state dicts in FILE the weights come from, e.g. model_ema; by default the only one that fits,
    averaged ones aside."""
    normalisation: Literal["imagenet", "none"] = "imagenet"
    """How the images of its training were standardised; none: unknown."""
    seed: int = 0
    """Of what is drawn anew."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the supernet in --output."""

    def run(self) -> None:
        """Executes the command."""
        import_commands.import_checkpoint(
            self.file,
            self.output,
            classes=self.classes,
            space=self.space,
            exits=self.exits,
            exits_of=self.exits_of,
            exit_blocks=self.exit_blocks or None,
            entry=self.entry,
            normalisation=self.normalisation,
            seed=self.seed,
            overwrite=self.overwrite,
        )


COMMANDS: dict[str, type[Command]] = {
    "search": Search,
    "train": Train,
    "data prepare": PrepareData,
    "import-checkpoint": ImportCheckpoint,
    "bench": Bench,
    "devices list": ListDevices,
    "devices show": ShowDevice,
    "devices fit": FitDevice,
    "devices profile": ProfileMachine,
    **DEPLOY_COMMANDS,
    **EXPORT_COMMANDS,
    **REPORT_COMMANDS,
    **DNAS_COMMANDS,
}
# Commands with a work directory, and the settings of each.
RUNS: dict[type[Command], type[StoredSettings]] = {
    Search: Settings,
    Train: TrainSettings,
    RetrainGenotype: RetrainSettings,
    FineTuneNetwork: FineTuneSettings,
    SearchArchitecture: DnasSettings,
}
GROUPS = ("devices", "data", "dnas")  # commands of two words
AnySettings = TypeVar("AnySettings", bound=StoredSettings)
_HELP = """Hardware-aware search for dynamic neural networks: backbone, early exits and clocks together.

    hadas search                      a whole run on handwritten digits, in a few minutes
    hadas search --workdir DIR --resume      continues an interrupted run
    hadas select WORKDIR              chooses a network of a finished search: --max-latency-ms, --prefer, ...
    hadas show WORKDIR                shows it: blocks, exits, clocks, who stops where
    hadas materialise WORKDIR         cuts it out of the supernet: weights of its own size, nothing masked
    hadas fine-tune NETWORK           trains its exits and classifier together, sets thresholds anew
    hadas export WORKDIR --format onnx       one segment for each exit, a manifest and a small runtime
    hadas operating-points WORKDIR    its best clocks for every deadline and power cap
    hadas runs                        lists work directories with their state
    hadas report WORKDIR              one HTML page about a run, or about several side by side
    hadas train --dataset npz:FILE    trains a supernet and its exits, for --checkpoint of a search
    hadas data prepare cifar100       downloads an image set once, with the extra tfds
    hadas import-checkpoint FILE -o DIR      makes a trained supernet of a PyTorch checkpoint
    hadas bench -o FILE.json          search throughput on this machine, beside pymoo where installed
    hadas devices list                the devices that come with the package
    hadas devices show NAME           a device's figures, where each comes from, its power modes
    hadas devices profile -o FILE.csv        measures networks on this machine
    hadas devices fit FILE.csv -o MY.yaml    makes a device of measurements
    hadas dnas search --hardware generic     searches a network of the DARTS space by gradient, for an accelerator
    hadas dnas sample -o FILE.npz     draws networks of the DARTS space and prices them on an FPGA
    hadas dnas fit-predictor FILE.npz -o P.npz      fits a differentiable predictor of throughput
    hadas dnas import-predictor FILE.pt -o P.npz    takes a published one of EH-DNAS
    hadas dnas price DARTS_V2         what a network costs: on an FPGA, by a predictor, on devices
    hadas dnas retrain --genotype DARTS_V2   trains a network of the DARTS space from scratch

hadas COMMAND --help lists the settings of a command. Every command is a call of the library too: see
hadas_jax.commands, select_commands, train_commands, import_commands and device_commands.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; exits with 2 after a user's mistake and one line on standard error."""
    if arguments is None:
        _use_utf8()
    _print_whatever_the_locale()
    arguments = [expand_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
        sys.exit(0 if arguments else 2)
    _quieten()
    try:
        _join(arguments)
        command = parse(arguments)
        _use_compilation_cache()
        command.run()
    except ValueError as error:
        _fail(str(error))
    except OverflowError:
        _fail("expected whole numbers of at most 63 bits, as --seed for one, got a larger one")
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: expected to be read or written, got: {error.strerror or error}")
    except LostProcessError as error:
        print(f"hadas: {error}; start all processes again with --resume", file=sys.stderr)
        _leave(1)
    except KeyboardInterrupt:
        print("\nhadas: interrupted; search, train and devices profile go on with --resume", file=sys.stderr)
        _leave(130)


def _join(arguments: list[str]) -> None:
    """Joins the processes of a run, which must come before anything else that JAX does."""
    coordinator = _value_of("--coordinator", arguments)
    numbers = [_value_of(flag, arguments) for flag in ("--num-processes", "--process-id")]
    if all(number is None or number.isdecimal() for number in numbers):  # others are for the parser to refuse
        connect(coordinator, *(None if number is None else int(number) for number in numbers))


def parse(arguments: list[str]) -> Command:
    """Returns the command of a command line, not run yet; it ends the process where the line cannot be read.

    Args:
        arguments: Words after `hadas`, at least one.

    Raises:
        ValueError: An unknown command, a setting that does not fit, or a run to resume that is not there.
    """
    name, flags = _command(arguments)
    kind = COMMANDS[name]
    default: Command | None = None
    if kind in RUNS:  # flags are laid over a config file's settings, or over those of the run to resume
        default = kind(settings=_default_settings(flags, RUNS[kind]))  # type: ignore[call-arg]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(  # type: ignore[return-value]
                kind,
                prog=f"hadas {name}",
                args=flags,
                default=default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(_first_sentence(errors.getvalue()) + f"; see hadas {name} --help")


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """Splits the command's words from its flags."""
    words = arguments[:2] if arguments[0] in GROUPS else arguments[:1]
    name = " ".join(words)
    if name in COMMANDS:
        return name, arguments[len(words) :]
    known = [command for command in COMMANDS if command.split()[0] == words[0]] or list(COMMANDS)
    if words[0] in GROUPS and words[1:] in ([], ["-h"], ["--help"]):
        print(_HELP, end="")
        sys.exit(0 if len(words) > 1 else 2)
    raise ValueError(f"unknown command {name!r}: expected {', '.join(known)}; see hadas --help")


def _default_settings(flags: list[str], kind: type[AnySettings]) -> AnySettings:
    """Returns what flags are laid over: a config file's settings, or those of the run to resume."""
    config, workdir = _value_of("--config", flags), _value_of("--workdir", flags)
    if "--resume" in flags and workdir is not None:
        if config is not None:
            raise ValueError("--config and --resume: expected one of them, got both; a run keeps its settings")
        return commands.stored_settings(workdir, kind)
    if config is None:
        return kind()
    return commands.settings_file(config, kind)


def _value_of(flag: str, flags: list[str]) -> str | None:
    for index, word in enumerate(flags):
        if word == flag and index + 1 < len(flags):
            return flags[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def _first_sentence(box: str) -> str:
    """Returns the message of one of tyro's boxes in one line."""
    lines = [re.sub(r"[│╭╮╰╯]|-{3,}", "", line).strip() for line in box.splitlines()[1:]]
    lines = lines[next((i for i, line in enumerate(lines) if line), 0) :]
    end = next((i for i, line in enumerate(lines) if not line.strip("─ ")), len(lines))
    message = " ".join(lines[:end]).removeprefix("Error parsing settings: ")
    return message or "cannot read the command line"


def _fail(message: str) -> NoReturn:
    print("hadas: error: " + re.sub(r"\s*\n\s*", " ", message.strip()), file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """Ends the process; one of several does not wait for the others, who may never come."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _use_utf8() -> None:
    """Starts the process again in Python's UTF-8 mode where the locale has another encoding.

    Paths, names of folders and whole arguments are then what they are on disk, whatever the locale; what is printed
    stays in the locale's encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower() == "utf-8":
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _print_whatever_the_locale() -> None:
    """Prints a question mark for what the locale's encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _quieten() -> None:
    """Keeps what libraries log out of a user's terminal; what matters of it is raised and printed in one line."""
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _use_compilation_cache() -> None:
    """Keeps compiled code between runs in the user's cache folder, unless JAX was told where or not to."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "hadas_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
