"""HADAS on handwritten digits for the Jetson AGX Xavier: the run of `hadas search` as a script, over seeds.

Command:   python experiments/hadas_digits.py --seeds 0 1 2
Hardware:  2 CPU cores, 4 GB
Time:      2 minutes for the first seed with nothing compiled before (2 virtual cores of an AMD EPYC with AVX-512, jax
           0.10.2)
Expected:  seed 0: the largest backbone is right on 99.3 % of the test split (270 images), the smallest on 97.8 %. Exits
           and clocks under the deployable policy save 59 to 65 % of the energy of the static network chosen at the same
           level, 43 to 51 % of that of static + DVFS, at test accuracies that differ by -1.5 to -0.7 points: none is
           shown to be as accurate, for which 270 images are too few. Other seeds have not been run since training
           changed; before, seeds 0 / 1 / 2 gave 98.1 / 99.3 / 98.5 % for the largest.
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.commands.hadas import search
from hadas_jax.methods import Performance, Result
from hadas_jax.report.search import difference_text
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import SearchSettings

HALF_A_POINT = 0.005


@dataclass(frozen=True)
class Experiment:
    """HADAS on handwritten digits for the Jetson AGX Xavier."""

    seeds: tuple[int, ...] = (0,)
    """One run for each."""
    out: Path = Path("runs/hadas_digits")
    """Work directories are made in this folder; runs that are there already are continued."""
    settings: tyro.conf.OmitArgPrefixes[SearchSettings] = field(default_factory=SearchSettings)
    """Of the runs; the seed and that of the split are replaced."""


def best_static(result: Result, accuracy: float) -> Performance:
    """Returns the static network of least energy that reaches an accuracy on the test split within half a point.

    It is picked by the test split itself among all backbones measured there, so it flatters the static side.
    """
    designs = [*result.designs, *(level.static for level in result.levels)]
    static = [design.static_test for design in designs if design.static_test.accuracy >= accuracy - HALF_A_POINT]
    return min(static, key=lambda found: found.energy_j)


def main(experiment: Experiment) -> None:
    """Runs all seeds and prints what exits and clocks save at every accuracy level."""
    table = Table(title="Exits and clocks, deployable policy, against static networks; test split")
    for name in (
        "seed",
        "largest",
        "chosen at",
        "deployed",
        "mJ",
        "static",
        "mJ",
        "saved",
        "+ DVFS",
        "mJ",
        "saved",
        "points [95 %]",
        "best static",
        "mJ",
        "saved",
    ):
        table.add_column(name, justify="right")
    for seed in experiment.seeds:
        workdir = experiment.out / f"seed{seed}"
        given = experiment.settings
        settings = given.replace(seed=seed, split_seed=seed if given.supernet.checkpoint is None else None)
        result = search(settings, workdir=workdir, resume=WorkDir(workdir).holds_run)
        for level in result.levels:
            found = level.exits_and_clocks["deployable"].test["deployable"]
            cells = [str(seed), f"{result.largest_test_accuracy:.1%}", f"{level.accuracy:.1%}", *_cells(found)]
            for static in (level.static.static_test, level.static_dvfs.test["ideal"]):
                cells += [*_cells(static), f"{found.saving(static):.0%}"]
            difference = level.versus["deployable exits_and_clocks"].static
            best = best_static(result, found.accuracy)
            table.add_row(*cells, difference_text(difference), *_cells(best), f"{found.saving(best):.0%}")
        table.add_section()
    Console(width=140).print(table)


def _cells(found: Performance) -> tuple[str, str]:
    return f"{found.accuracy:.1%}", f"{found.energy_j * 1e3:.2f}"


if __name__ == "__main__":
    main(tyro.cli(Experiment))
