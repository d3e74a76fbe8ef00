"""HADAS on CIFAR-100, its own data set, end to end: supernet, exits, nested search for the paper's four devices.

Command:   pip install 'hadas-jax[tfds,torch]'
           hadas data prepare cifar100 --data-dir DATA
           hadas import-checkpoint attentivenas.pth.tar -o attentivenas
           python experiments/hadas_cifar100.py --data-dir DATA --checkpoint attentivenas
           Without --checkpoint the supernet is trained from scratch; with --native at CIFAR's own 32 pixels instead of
           192 to 288. The same command continues what was interrupted, and does nothing anew that is done.
Hardware:  a GPU, or several in one machine, which share every batch. --smoke goes through the same stages with a small
           space, few epochs and images as they are, in minutes on two CPU cores; its figures mean nothing.
Time:      still to be measured.
Expected:  the real figures are still to be measured: no CIFAR-100 could be had when this was written, so it has run on
           made-up images of the same form alone. For comparison, HADAS publishes 86.28 % for the smallest and 88.43 %
           for the largest sub-network of its fine-tuned supernet.

Recipe: sandwich rule with two sampled sub-networks, BestUp (AttentiveNAS, arXiv 2011.09011), adaptive alpha-divergence
(AlphaNet, arXiv 2102.07954), dropout and drop-connect of 0.2 in the largest sub-network, RandAugment, bfloat16, cosine
decay; exits for 30 epochs; 64 backbones in 7 generations, of which 15 % go to the inner search (HADAS, arXiv
2212.03354). Epochs, batch and learning rate of the supernet are ours, and were not tuned.
"""

import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.commands import train
from hadas_jax.commands.hadas import search
from hadas_jax.commands.run import settings_of_run
from hadas_jax.evaluation import Difference
from hadas_jax.report.console import print_line
from hadas_jax.report.search import difference_text
from hadas_jax.runs.workdir import WorkDir, versions, write_text
from hadas_jax.settings import SearchSettings, SupernetRunSettings, TrainSettings
from hadas_jax.training.run import TrainingRun
from hw_models.catalogue import chosen_device

PAPER_DEVICES = ("agx-xavier-gpu", "agx-xavier-cpu", "tx2-gpu", "tx2-cpu")
STATISTICS = 4096  # training images that batch-norm statistics are estimated on: the paper's 64 batches of 64

RECIPE = TrainSettings.of(
    epochs=300,
    exit_epochs=30,
    batch=128,
    learning_rate=0.1,
    sampled=2,
    sampling="bestup",
    distillation="alpha",
    dropout=0.2,
    drop_connect=0.2,
    augmentation="randaugment",
    dtype="bfloat16",
    data_parallel=True,
)
FINE_TUNING = {"epochs": 60, "learning_rate": 0.02}
PAPER_EXITS = {"epochs": 0, "exit_epochs": 30, "batch": 64, "exit_learning_rate": 0.01}
BUDGET: dict[str, Any] = {"population": 64, "generations": 7, "elite_ratio": 0.15}
SMOKE: dict[str, Any] = {"epochs": 10, "exit_epochs": 3, "batch": 64, "augmentation": "none", "dtype": "float32"}
SMOKE_STATISTICS = 512
SMOKE_BUDGET = {"population": 8, "generations": 2, "elite_ratio": 0.25, "front_size": 8}


@dataclass(frozen=True)
class Experiment:
    """HADAS on CIFAR-100: supernet, exits, nested search for the paper's four devices."""

    out: Path = Path("runs/hadas_cifar100")
    """Folder of all stages and of results.json; what is in it is continued."""
    dataset: str = "cifar100"
    """Any other data set of hadas train will do."""
    data_dir: str | None = None
    """Where the prepared copy is."""
    checkpoint: str | None = None
    """Supernet to fine-tune, from hadas import-checkpoint; by default one is trained from scratch."""
    native: bool = False
    """Train from scratch at the images' own size."""
    space: str | None = None
    """Space to train from scratch; by default attentivenas, or attentivenas-native, or small-images with --smoke."""
    exits_for: str | None = None
    """Backbone that gets exits of its own by the paper's protocol too; by default a0, or smallest with --smoke."""
    devices: tuple[str, ...] = PAPER_DEVICES
    """Devices to search for."""
    batch: int | None = None
    """Images per training step of supernet and shared exits, 128 unless given; fewer need less memory."""
    seed: int = 0
    """Of everything random."""
    smoke: bool = False
    """A small space, few epochs and a small search, to see that everything works."""

    def __post_init__(self) -> None:
        if self.checkpoint is not None and (self.native or self.space is not None):
            given = "--native" if self.native else "--space"
            raise ValueError(f"{given} and --checkpoint: expected one of them, got both; a checkpoint has its space")

    @property
    def backbone(self) -> str:
        """Name of the backbone that gets exits of its own."""
        return self.exits_for or ("smallest" if self.smoke else "a0")

    @property
    def supernet(self) -> Path:
        """The trained supernet with its shared exits."""
        return self.out / "supernet" / "supernet"

    def training(self) -> TrainSettings:
        """Settings of supernet and shared exits."""
        if self.checkpoint is not None:
            space = None
        else:
            size = "small-images" if self.smoke else "attentivenas-native" if self.native else "attentivenas"
            space = self.space or size
        changes = ({} if self.checkpoint is None else FINE_TUNING) | (SMOKE if self.smoke else {})
        changes |= {} if self.batch is None else {"batch": self.batch}
        return self._on_data(RECIPE, checkpoint=self.checkpoint, space=space, **changes)

    def paper_exits(self) -> TrainSettings:
        """Settings of the exits of one backbone, by the paper's protocol."""
        changes = (SMOKE if self.smoke else {}) | PAPER_EXITS
        changes |= {"exit_epochs": SMOKE["exit_epochs"]} if self.smoke else {}
        return self._on_data(RECIPE, checkpoint=str(self.supernet), exits_for=self.backbone, **changes)

    def searching(self, device: str) -> SearchSettings:
        """Settings of the nested search for a device."""
        budget = SMOKE_BUDGET if self.smoke else BUDGET
        dtype = SMOKE["dtype"] if self.smoke else RECIPE.training.dtype
        settings = SearchSettings.of(device=device, batch=RECIPE.training.batch, dtype=dtype, **budget)
        return self._on_data(settings, checkpoint=str(self.supernet))

    def _on_data(self, settings: Any, **changes: Any) -> Any:
        batch = changes.get("batch", settings.training.batch)
        images = SMOKE_STATISTICS if self.smoke else STATISTICS
        return settings.replace(
            dataset=self.dataset,
            data_dir=self.data_dir,
            seed=self.seed,
            stats_batches=images // batch,
            **changes,
        )


def stage(
    command: Callable[..., Any], settings: SupernetRunSettings, workdir: Path, *, last: str, console: Console
) -> None:
    """Runs a command in its work directory, from where it was; does nothing where it has come to its end.

    Args:
      command: `train` or `search`.
      settings: of the run.
      workdir: of the run.
      last: the file that the command writes last.
      console: for progress and tables.

    Raises:
      ValueError: the run that is there has other settings, or the command fails.
    """
    started = WorkDir(workdir).holds_run
    if started:
        settings_of_run(settings, type(settings), workdir=workdir, resume=True, overwrite=False)
    if not (workdir / last).is_file():
        command(settings, workdir=workdir, resume=started, console=console)


def active_exits(experiment: Experiment) -> dict[str, Any]:
    """Returns the test accuracies of one backbone along its depth, by shared exits and by its own."""
    name, kept = experiment.backbone, experiment.out / f"shared_exits_{experiment.backbone}.json"
    if not kept.is_file():
        run = TrainingRun(experiment.paper_exits(), exits_for=name)
        assert run.loaded is not None
        assert run.exits_backbone is not None
        (found,) = run.along_depth(run.loaded.params, {name: run.space.encode(run.exits_backbone)})
        write_text(kept, json.dumps(dataclasses.asdict(found)) + "\n")
    shared = json.loads(kept.read_text(encoding="utf-8"))
    own = exit_accuracies(experiment.out / f"exits_{name}")[name]
    return {
        "backbone": name,
        "blocks": shared["blocks"],
        "shared": shared["exits"],
        "own": [own[str(block)] for block in shared["blocks"]],
        "classifier": shared["final"],
    }


def exit_accuracies(workdir: Path) -> dict[str, dict[str, float]]:
    """Returns the test accuracies of a training: by backbone and block, `final` being the classifier."""
    found: dict[str, dict[str, float]] = {}
    with (workdir / "exits.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["backbone"], {})[row["block"]] = float(row["test_accuracy"])
    return found


def search_results(workdir: Path) -> dict[str, Any]:
    """Returns the figures of a search and its accuracy levels."""
    front = json.loads((workdir / "front.json").read_text(encoding="utf-8"))
    with (workdir / "levels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    words = ("network", "policy", "verdict", "number_format")
    return {
        "backbones": front["backbones"],
        "dynamic_versions": front["candidates"],
        "designs": len(front["designs"]),
        "levels": [{name: text if name in words else float(text) for name, text in row.items()} for row in rows],
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """Returns a table of one backbone's exits, and one of what exits and clocks save on every device."""
    exits = Table(title=f"Test accuracy (%) of {results['exits']['backbone']} along its depth")
    for heading in ("exit after block", "shared exits", "its own"):
        exits.add_column(heading, justify="right")
    for block, *shares in zip(*(results["exits"][name] for name in ("blocks", "shared", "own")), strict=True):
        exits.add_row(str(block), *(f"{100 * share:.2f}" for share in shares))
    exits.add_row("classifier", *[f"{100 * results['exits']['classifier']:.2f}"] * 2)
    saved = Table(title="Exits and clocks; accuracy and energy per sample on the test split, chosen on other samples")
    dynamic = ("mJ", "saved", "of + DVFS", "points [95 %]")
    for heading in ("device", "chosen at", "static", "mJ", "+ DVFS: mJ", "ideal", *dynamic, "deployable", *dynamic):
        saved.add_column(heading, justify="left" if heading == "device" else "right")
    for device, found in results["search"].items():
        for level in sorted({row["selection_accuracy_level"] for row in found["levels"]}, reverse=True):
            rows = [row for row in found["levels"] if row["selection_accuracy_level"] == level]
            shown = [row for row in rows if row["network"] in ("static", "static + DVFS", "exits + clocks")]
            saved.add_row(device, f"{level:.1%}", *(cell for row in shown for cell in _cells(row)))
        saved.add_section()
    return [exits, saved]


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['test_accuracy']:.2%}", f"{row['energy_mj']:.1f}"]
    if not row["policy"]:
        return cells if row["network"] == "static" else cells[1:]
    found = Difference(*(row[f"accuracy_difference{end}"] for end in ("", "_low", "_high")))
    return [*cells, f"{row['energy_saving']:.0%}", f"{row['energy_saving_dvfs']:.0%}", difference_text(found)]


def execute(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Runs all stages that are not done, writes results.json and returns its content.

    Raises:
      ValueError: data, checkpoint, devices or the folder's earlier runs do not fit.
    """
    out, name = experiment.out, experiment.backbone
    searches = {device: experiment.searching(device) for device in experiment.devices}
    for settings in searches.values():
        chosen_device(settings.device, settings.operating)
    if not out.exists():  # mistakes show before any work
        TrainingRun(experiment.training(), exits_for=name)
    stage(train, experiment.training(), out / "supernet", last="exits.png", console=console)
    stage(train, experiment.paper_exits(), out / f"exits_{name}", last="exits.png", console=console)
    for device, settings in searches.items():
        stage(search, settings, out / f"search_{Path(device).stem}", last="front.png", console=console)
    results = {
        "experiment": dataclasses.asdict(experiment) | {"out": str(out)},
        "versions": versions(),
        "computed_on": [device.device_kind for device in jax.local_devices()],
        "supernet": exit_accuracies(out / "supernet"),
        "exits": active_exits(experiment),
        "search": {device: search_results(out / f"search_{Path(device).stem}") for device in searches},
    }
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 2 after a user's mistake, with one line on standard error."""
    console = Console(width=120)
    try:
        experiment = tyro.cli(Experiment, args=arguments, description=Experiment.__doc__)
        for table in tables(execute(experiment, console)):
            console.print(table)
    except ValueError as error:
        print(f"hadas_cifar100: error: {error}", file=sys.stderr)
        return 2
    print_line(console, f"Written: {experiment.out}/results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
