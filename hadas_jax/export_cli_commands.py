"""The commands that take a network to a device and their flags: thin, each is a library call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from hadas_jax import export_commands
from hadas_jax.deploy.export import Format
from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.run_flags import RunFlags


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
