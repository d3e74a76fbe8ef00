"""A training run as a whole: supernet and exits, and what they are worth on the test split.

Shapes: N backbones, E exits.
"""

import csv
import dataclasses
import io
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.stages import Progress
from hadas_jax.methods.training_run import TrainingRun, accuracies
from hadas_jax.methods.training_settings import TrainSettings
from hadas_jax.spaces import available_exits
from hadas_jax.supernet import Parameters
from hadas_jax.trained import TrainedSupernet, rewrite_description, save_trained
from hadas_jax.workdir import SUPERNET, WorkDir, write_text

EXITS = "exits.csv"


@dataclass(frozen=True)
class ExitAccuracies:
    """Accuracy of one backbone along its depth.

    Attributes:
      backbone: its name.
      blocks: its own blocks that have an exit, from 0, in order.
      exits: test accuracy of each of these exits, a share.
      final: of the classifier.
    """

    backbone: str
    blocks: tuple[int, ...]
    exits: tuple[float, ...]
    final: float


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves.

    Attributes:
      trained: the supernet, also in the work directory.
      accuracies: of the largest and the smallest backbone, and of the one whose exits were trained, if one was.
    """

    trained: TrainedSupernet
    accuracies: tuple[ExitAccuracies, ...]


def execute_training(run: TrainingRun, workdir: WorkDir, progress: Progress) -> TrainResult:
    """Trains a supernet and its exits, judges them on the test split, and writes all into the work directory.

    Raises:
      ValueError: as `TrainingRun.train`.
    """
    params = run.train(workdir, progress)
    space, settings = run.space, run.settings
    trained = run.described(params, {"settings": dataclasses.asdict(settings)})
    save_trained(workdir.path / SUPERNET, trained, overwrite=True)  # before judging, which may run out of memory
    progress.stage("test", 1)
    genomes = {"largest": space.largest_genome, "smallest": space.smallest_genome}
    if run.exits_for is not None and run.exits_backbone is not None:
        genomes[run.exits_for] = space.encode(run.exits_backbone)
    found = along_depth(run, params, genomes)
    progress.update(1, {"largest_accuracy": found[0].final, "smallest_accuracy": found[1].final})
    shares = {each.backbone: each.final for each in found}
    trained = dataclasses.replace(trained, details=trained.details | {"test_accuracy": shares})
    rewrite_description(workdir.path / SUPERNET, trained)
    write_text(workdir.path / EXITS, _as_csv(found))
    return TrainResult(trained=trained, accuracies=found)


def along_depth(run: TrainingRun, params: Parameters, genomes: dict[str, np.ndarray]) -> tuple[ExitAccuracies, ...]:
    """Judges backbones on the test split, at the exits that they have and that the run trains.

    Args:
      run: its data, space and exits.
      params: weights to judge by.
      genomes: int32[G] by name.
    """
    judged = accuracies(run.judge(params), np.stack(list(genomes.values())), run.splits.test)
    return tuple(_at_exits(run, *item, shares) for item, shares in zip(genomes.items(), judged, strict=True))


def _at_exits(run: TrainingRun, name: str, genome: np.ndarray, shares: np.ndarray) -> ExitAccuracies:
    """The accuracies of exits that a backbone has and that are trained."""
    space = run.space
    backbone = space.decode(jnp.asarray(genome))
    available = np.asarray(available_exits(space, backbone))
    trained = np.isin(np.arange(space.first_exit, space.positions), run.trained_exits)
    own = int(np.sum(np.asarray(backbone.depth)))
    blocks = own - int(available.sum()) + np.cumsum(available) - 1  # exits follow all blocks from the first one on
    chosen = available & trained
    return ExitAccuracies(
        backbone=name,
        blocks=tuple(blocks[chosen].tolist()),
        exits=tuple(shares[:-1][chosen].tolist()),
        final=float(shares[-1]),
    )


def _as_csv(found: tuple[ExitAccuracies, ...]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["backbone", "block", "test_accuracy"])
    for each in found:
        rows.writerows([each.backbone, block, share] for block, share in zip(each.blocks, each.exits, strict=True))
        rows.writerow([each.backbone, "final", each.final])
    return text.getvalue()


def training_run(settings: TrainSettings) -> TrainingRun:
    """Returns the run that these settings describe.

    Raises:
      ValueError: as `TrainingRun`.
    """
    return TrainingRun(settings, exits_for=settings.exits_for)
