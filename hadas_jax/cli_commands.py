"""The commands of `hadas` and their flags: thin, each is a call of `hadas_jax.commands` or `device_commands`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from hadas_jax import bench_commands, commands, device_commands, import_commands, train_commands
from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.deploy_cli_commands import DEPLOY_COMMANDS
from hadas_jax.dnas_cli_commands import DNAS_COMMANDS, RetrainGenotype, SearchArchitecture
from hadas_jax.export_cli_commands import EXPORT_COMMANDS, FineTuneNetwork
from hadas_jax.methods import Settings, TrainSettings
from hadas_jax.methods.eh_dnas import DnasSettings
from hadas_jax.methods.retrain_settings import RetrainSettings
from hadas_jax.methods.stored_settings import StoredSettings
from hadas_jax.report_cli_commands import REPORT_COMMANDS
from hadas_jax.run_flags import RunFlags

Output = Annotated[Path, arg(aliases=["-o"], metavar="FILE")]


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
