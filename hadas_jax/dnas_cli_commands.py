"""The commands of `hadas dnas` and their flags: thin, each is a library call."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from hadas_jax import dnas_commands, dnas_data_commands, dnas_predictor_commands, dnas_price_commands, retrain_commands
from hadas_jax.methods.eh_dnas import DnasSettings
from hadas_jax.methods.retrain_settings import RetrainSettings
from hadas_jax.run_flags import RunFlags
from hw_models.accelerator import DartsNetwork

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
