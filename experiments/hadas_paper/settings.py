"""Settings of `hadas_paper`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from supernet_fashion_mnist import SETTINGS

from hadas_jax.settings import SupernetRunSettings, TrainSettings

STAGES = ("motivation", "inner", "hadas", "ablations")
ABLATIONS = ("parts", "sequential", "elites", "dissimilarity", "scores", "heads")
PAPER_DEVICES = ("agx-xavier-gpu", "agx-xavier-cpu", "tx2-gpu", "tx2-cpu")
BUDGET: dict[str, Any] = {"population": 64, "generations": 7, "elites": 10}
SMOKE_BUDGET: dict[str, Any] = {"population": 8, "generations": 2, "elites": 3}


@dataclass(frozen=True)
class Experiment:
    """The experiments of the HADAS paper: four stages, four devices, several seeds."""

    dataset: str = "npz:fashion_mnist.npz"
    """As --dataset of hadas train."""
    data_dir: str | None = None
    """Where the prepared copy of a tensorflow-datasets set is."""
    checkpoint: str | None = None
    """A trained supernet with its exits; by default one is trained."""
    out: Path = Path("runs/hadas_paper")
    """Folder of everything that is computed; what is there already is kept."""
    outcomes: Path | None = None
    """Folder of how backbones do on the images; by default within --out."""
    stages: tuple[str, ...] = STAGES
    """Some of motivation, inner, hadas, ablations."""
    devices: tuple[str, ...] = PAPER_DEVICES
    """Devices of the first three stages; the ablations are done on the first one."""
    ablations: tuple[str, ...] = ABLATIONS
    """Some of parts, sequential, elites, dissimilarity, scores, heads."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the searches."""
    evaluation_images: int = 2000
    """Images of validation, calibration and test each."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """JSON file of all results."""
    picture: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Energy over accuracy on the first device; of the stage hadas."""
    space: str | None = None
    """Space to train; by default small-images."""
    smoke: bool = False
    """Everything at its smallest, to see that it works; the figures mean nothing."""

    def __post_init__(self) -> None:
        for name, known in (("stages", STAGES), ("ablations", ABLATIONS)):
            unknown = [each for each in getattr(self, name) if each not in known]
            if unknown:
                raise ValueError(f"--{name}: expected some of {', '.join(known)}, got {unknown[0]!r}")
        if not self.devices or not self.seeds:
            raise ValueError("--devices and --seeds: expected at least one each, got none")

    @property
    def training(self) -> TrainSettings:
        """Settings of the supernet and its exits."""
        few: dict[str, Any] = {"epochs": 2, "exit_epochs": 2, "batch": 64, "stats_batches": 2} if self.smoke else {}
        space = self.space or SETTINGS.supernet.space
        return SETTINGS.replace(dataset=self.dataset, data_dir=self.data_dir, space=space, **few)

    @property
    def judging(self) -> SupernetRunSettings:
        """Settings that backbones are judged by."""
        images = 100 if self.smoke else self.evaluation_images
        kept = {name: value for name, value in self.training.flat().items() if name != "exits_for"}
        changed = {"checkpoint": self.supernet, "space": None, "evaluation_images": images}
        return SupernetRunSettings.of(**kept | changed)

    @property
    def budget(self) -> dict[str, Any]:
        """Of a search: population, generations and elites."""
        return SMOKE_BUDGET if self.smoke else BUDGET

    @property
    def supernet(self) -> str:
        """Directory of the trained supernet."""
        return self.checkpoint or str(self.out / "supernet" / "supernet")
