"""The commands that follow a search and their flags: thin, each is a library call."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from hadas_jax import select_commands
from hadas_jax.methods.limits import Limits

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
            limits=Limits(
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
