"""A supernet with shared exits on Fashion-MNIST: the largest, the smallest and random sub-networks along their depth.

Command:   python experiments/fashion_mnist_npz.py -o fashion_mnist.npz
           python experiments/supernet_fashion_mnist.py --dataset npz:fashion_mnist.npz -o supernet_fashion_mnist.json
           hadas search --dataset npz:fashion_mnist.npz --checkpoint runs/supernet_fashion_mnist/supernet \
             --batch 128 --stats-batches 8 --device tx2-gpu
Hardware:  2 CPU cores, 2 GB
Time:      26 minutes for the supernet (12 epochs), 3.5 for the exits (4 epochs), with other work on the cores (2
           virtual cores of an AMD EPYC with AVX-512, jax 0.10.2)
Expected:  test accuracy of the largest sub-network 90.46 %, of the smallest 89.53 %, of 16 random 89.24 to 90.26 %;
           exits of the largest 81.4, 81.3, 85.3, 87.8, 88.3, 89.3, 90.0, 90.1 %, of the smallest 83.7, 86.8, 88.3,
           89.1 %. The file experiments/supernet_fashion_mnist.json has all figures and the curves. The search takes 10
           minutes for 448 backbones on 5,000 validation images: deployable networks are right on 89.5 / 89.3 / 89.2 %
           of the test images at 2.92 / 2.58 / 2.31 mJ, static ones on 89.8 / 89.6 / 89.4 % at 5.07 / 4.47 / 3.80 mJ, at
           default clocks (their best ones and intervals were not part of the table yet).
"""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console

from hadas_jax.commands.run import running, settings_of_run
from hadas_jax.report import LineProgress
from hadas_jax.report.console import print_line
from hadas_jax.report.html.pictures import plot_exits
from hadas_jax.report.search import print_accuracies
from hadas_jax.runs.names import METRICS
from hadas_jax.runs.workdir import WorkDir, versions, write_text
from hadas_jax.settings import TrainSettings
from hadas_jax.training.run import TrainingRun, settings_name

SETTINGS = TrainSettings.of(
    dataset="npz:fashion_mnist.npz",
    space="small-images",
    epochs=12,
    exit_epochs=4,
    batch=128,
    learning_rate=0.2,
    augmentation="crop-flip",
    stats_batches=8,
    remat=True,
    cut=True,
)


@dataclass(frozen=True)
class Experiment:
    """A supernet with shared exits on Fashion-MNIST."""

    workdir: Path = Path("runs/supernet_fashion_mnist")
    """Work directory; a run that is there already is continued, and its supernet serves `hadas search --checkpoint`."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    sub_networks: int = 16
    """Random sub-networks to judge besides the largest and the smallest."""
    settings: tyro.conf.OmitArgPrefixes[TrainSettings] = field(default_factory=lambda: SETTINGS)
    """Of the training."""


class TimedProgress(LineProgress):
    """Progress in lines that keeps the wall time of every stage."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.seconds: dict[str, float] = {}
        self._open, self._since = "", 0.0

    def stage(self, name: str, total: int) -> None:
        """Announces a stage."""
        super().stage(name, total)
        self.close()
        self._open, self._since = name, time.monotonic()

    def close(self) -> None:
        """Ends the stage that is open."""
        if self._open:
            self.seconds[self._open] = round(time.monotonic() - self._since, 1)
        self._open = ""


def curves(workdir: Path) -> dict[str, list[dict[str, float]]]:
    """Returns the metrics of every epoch, by stage."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in (workdir / METRICS).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found.setdefault(entry.pop("stage"), []).append(entry)
    return found


def main(experiment: Experiment) -> None:
    """Trains, judges and writes the results."""
    console = Console()
    workdir = WorkDir(experiment.workdir, kind="train")
    resumed = workdir.holds_run
    settings = settings_of_run(
        experiment.settings, TrainSettings, workdir=workdir.path, resume=resumed, overwrite=False
    )
    run = TrainingRun(settings)
    progress = TimedProgress(console)
    with running(workdir, settings, run.splits, resume=resumed, overwrite=False):
        result = run.execute(workdir, progress)
        plot_exits(result.accuracies, experiment.workdir / "exits.png")
    progress.close()
    print_accuracies(result.accuracies, console)

    rng = np.random.default_rng(0)
    shape = (experiment.sub_networks, len(run.space.codec.names))
    genomes = rng.integers(0, run.space.codec.cardinalities, shape).astype(np.int32)
    shares = run.accuracies(result.trained.params, genomes, run.splits.test)[:, -1]
    console.print(
        f"{experiment.sub_networks} random sub-networks: {100 * shares.min():.2f} to {100 * shares.max():.2f} %, "
        f"mean {100 * shares.mean():.2f} %"
    )
    largest, smallest = (each.final for each in result.accuracies[:2])
    console.print(f"Smallest below largest: {100 * (largest - smallest):.2f} points; seconds: {progress.seconds}")
    if experiment.output is not None:
        content: dict[str, Any] = {
            "settings": experiment.settings.flat() | {"dataset": settings_name(experiment.settings.data.dataset)},
            "versions": versions(),
            "training_images": run.splits.train.count,
            "test_images": run.splits.test.count,
            "seconds": progress.seconds if not resumed else "not known: the run was interrupted",
            "test_accuracy": [dataclasses.asdict(each) for each in result.accuracies],
            "random_sub_networks": {"genomes": genomes.tolist(), "test_accuracy": shares.tolist()},
            "epochs": curves(experiment.workdir),
        }
        write_text(experiment.output, json.dumps(content, indent=1) + "\n")
        print_line(console, f"Written: {experiment.output}")


if __name__ == "__main__":
    main(tyro.cli(Experiment))
