"""The experiments of the HADAS paper on a supernet of one's own: four stages, four devices, several seeds.

Command:   python experiments/fashion_mnist_npz.py -o fashion_mnist.npz
           cd experiments; python -m hadas_paper --dataset npz:../fashion_mnist.npz -o ../hadas_paper.json
           With --dataset cifar100 --data-dir DATA (hadas data prepare cifar100) the same on CIFAR-100. --checkpoint
           takes a supernet that is trained already; without it one is trained as supernet_fashion_mnist.py does.
           --stages, --devices and --seeds choose parts; what is in --out already is not done again.
Hardware:  2 CPU cores, 4 GB
Time:      0.3 to 1.5 s for every backbone and split that is judged, some 8,000 in all, and 23 minutes for the rest; ten
           to fifteen minutes for the first device and seed, two for most others, which find most answers there; half an
           hour for the supernet where none is given
Expected:  to be measured; the figures of Fashion-MNIST were withdrawn (docs/results.md), since they had been chosen on
           images that the supernet was trained on. Images are divided as the supernet's were since then.

Bouzidi et al., "HADAS", DATE 2023, https://arxiv.org/abs/2212.03354. Stages, each for every device:
  motivation  the smallest and the largest hand-made backbone and two found ones: static, with exits, with exits and
              clocks;
  inner       the optimised baselines: hand-made backbones like AttentiveNAS's a0 to a6, with their best exits and
              clocks;
  hadas       the nested search by the paper's budget (64 backbones in 7 generations, 10 of each examined) against the
              baselines: hypervolume, ratio of dominance, energy at equal accuracy, by seed;
  ablations   weight of the dissimilarity in the search and in the score, exits or clocks alone, one after the other
              instead of jointly, ideal mapping against thresholds, how many backbones are examined, shared exits
              against exits of one backbone; on the first device alone.
How every backbone does on the images is judged once and kept in --outcomes for all devices, seeds and stages.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from hadas_jax.report.console import print_line
from hadas_jax.runs.names import SUPERNET_FILE
from hadas_jax.runs.workdir import versions, write_text
from hadas_paper.parts import Laboratory
from hadas_paper.settings import Experiment
from hadas_paper.tables import picture, tables
from hw_models import load_device


def run(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Runs the stages that are not done, and returns all results.

    Raises:
      ValueError: data, checkpoint, devices, picture or the folder's earlier runs do not fit.
    """
    if experiment.picture is not None and "hadas" not in experiment.stages:
        raise ValueError(f"--picture: expected the stage hadas, which it shows, got {', '.join(experiment.stages)}")
    for device in experiment.devices:
        load_device(device)
    settings = experiment.judging.flat() | {"smoke": experiment.smoke}
    _same_as_before(experiment.out / "judging.json", settings)
    laboratory = Laboratory(experiment, console)
    supernet = (Path(experiment.supernet) / SUPERNET_FILE).read_bytes()
    judged = {"data": laboratory.lab.splits.record.as_json(), "supernet": hashlib.sha256(supernet).hexdigest()}
    _same_as_before(experiment.out / "supernet.json", judged)
    found = {stage: getattr(laboratory, stage)() for stage in experiment.stages}
    return {
        "dataset": experiment.dataset.rpartition("/")[2],
        "evaluation_images": laboratory.lab.splits.validation.count,
        "devices": experiment.devices,
        "seeds": experiment.seeds,
        "budget": experiment.budget,
        "training_s": laboratory.training_seconds(),
        "versions": versions(),
        **found,
    }


def _same_as_before(path: Path, settings: dict[str, Any]) -> None:
    """Refuses to go on with other settings in a folder of results."""
    plain = json.loads(json.dumps(settings))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(plain, indent=1) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in plain if plain[name] != before.get(name)]
    if changed:
        raise ValueError(
            f"--out {path.parent}: expected the settings of the results that are there, got {changed[0]} "
            f"{plain[changed[0]]!r} instead of {before.get(changed[0])!r}; take another folder"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 2 after a user's mistake, with one line on standard error."""
    console = Console(width=150)
    try:
        experiment = tyro.cli(Experiment, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
        results = run(experiment, console)
    except ValueError as error:
        print(f"hadas_paper: error: {error}", file=sys.stderr)
        return 2
    for table in tables(results):
        console.print(table)
    if experiment.output is not None:
        write_text(experiment.output, json.dumps(results, indent=1) + "\n")
        print_line(console, f"Written: {experiment.output}")
    if experiment.picture is not None:
        picture(results, experiment.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
