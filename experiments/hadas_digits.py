"""HADAS on handwritten digits for the Jetson AGX Xavier: the run of `hadas search` as a script.

Command:   python experiments/hadas_digits.py [--seeds 0 1 2] [--out runs/hadas_digits]
Hardware:  any CPU with 2 cores and 4 GB
Time:      TIME_PLACEHOLDER
Expected:  EXPECTED_PLACEHOLDER
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.commands import search
from hadas_jax.methods import Level, Settings
from hadas_jax.workdir import WorkDir


@dataclass(frozen=True)
class Experiment:
    """HADAS on handwritten digits for the Jetson AGX Xavier."""

    seeds: tuple[int, ...] = (0,)
    """One run for each."""
    out: Path = Path("runs/hadas_digits")
    """Work directories are made in this folder; runs that are there already are continued."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)
    """Of the runs; the seed is replaced."""


def matched(level: Level) -> bool:
    """Whether the deployed network keeps the test accuracy of the static one within half a point."""
    found = level.exits_and_clocks["deployable"].test["deployable"]
    return found.accuracy >= level.static.static_test.accuracy - 0.005


def main(experiment: Experiment) -> None:
    """Runs all seeds and prints what exits and clocks save at every accuracy level."""
    table = Table(title="Deployable policy against the best static network, test split")
    for name in ("seed", "largest", "level", "static", "deployed", "within 0.5 points", "energy saved"):
        table.add_column(name, justify="right")
    for seed in experiment.seeds:
        workdir = experiment.out / f"seed{seed}"
        settings = dataclasses.replace(experiment.settings, seed=seed)
        result = search(settings, workdir=workdir, resume=WorkDir(workdir).holds_run)
        for level in result.levels:
            static = level.static.static_test
            found = level.exits_and_clocks["deployable"].test["deployable"]
            table.add_row(
                str(seed),
                f"{result.largest_test_accuracy:.1%}",
                f"{level.accuracy:.1%}",
                f"{static.accuracy:.1%}",
                f"{found.accuracy:.1%}",
                "yes" if matched(level) else "no",
                f"{found.saving(static):.0%}",
            )
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Experiment))
