"""The commands of `hadas dnas` and their flags: thin, each is a library call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

from hadas_jax import dnas_data_commands
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


DNAS_COMMANDS = {
    "dnas sample": SampleNetworks,
}
