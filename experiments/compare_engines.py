"""The nested engine beside the flat one, and strategies for the flat one, on a trained supernet.

Command:   hadas train --dataset digits --workdir runs/digits
           python experiments/compare_engines.py --checkpoint runs/digits/supernet --dataset digits -o engines.json
Hardware:  any
Time:      on two cores a quarter of an hour on digits, an hour on small-images, most of it for the supernet
Expected:  see docs/search.md

All searches take as many backbones, 448 in seven generations, and have the same reference. `reached` is the hypervolume
of what a search evaluated (the figure of metrics.jsonl), `exact` that of all exit subsets at all operating points of
the backbones that it hands on. Answers of the supernet are kept, so that none is computed twice; the time of a search
is its own and that of the backbones that were new to it, each at what the supernet took for one in the median.
`at_equal_time` is what each had reached when the quickest was done.
"""

import json
import statistics
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.methods import Hadas, Run
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.settings import SearchSettings

_FLAT = ("NSGA2", "NSGA3", "RandomSearch", "DifferentialEvolution", "SimpleGA", "CMA_ES", "SNES", "Open_ES", "PSO")


@dataclass(frozen=True)
class Settings:
    """Compares the engines of `hadas search`."""

    checkpoint: str
    """Supernet to search."""
    dataset: str = "digits"
    """Its images."""
    device: str = "agx-xavier-gpu"
    """Device to search for."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    seeds: int = 3
    """Searches of each kind."""
    population: int = 64
    """Backbones of a generation."""
    generations: int = 7
    """Generations."""
    candidates: int = 4096
    """Candidates that the flat engine breeds at once."""
    strategies: tuple[str, ...] = _FLAT
    """Of the flat engine."""


@dataclass
class Supernet:
    """The answers of a supernet, each computed once, and how long that took."""

    evaluate: Any
    known: dict[bytes, np.ndarray] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0

    def __call__(self, genomes: np.ndarray) -> np.ndarray:
        """Returns what the exits of backbones int32[N, G] get right, uint32[N, E + 1, W]."""
        new = np.array([genome for genome in genomes if genome.tobytes() not in self.known])
        if len(new):
            start = time.perf_counter()
            for genome, words in zip(new, self.evaluate(new), strict=True):
                self.known[genome.tobytes()] = words
            passed = time.perf_counter() - start
            self.spent += passed
            self.seconds.append(passed / len(new))
        return np.stack([self.known[genome.tobytes()] for genome in genomes])

    @property
    def seconds_each(self) -> float:
        """The median over calls of the mean time of a backbone, so that compilation does not count."""
        return statistics.median(self.seconds)


def search(engine: Hadas, supernet: Supernet, seed: int) -> dict[str, Any]:
    """Runs one search; times leave the supernet out and, for the first generations, compilation too.

    Returns:
        Hypervolume, own seconds and backbones after each generation, and the hypervolume of all candidates of what the
        search hands on.
    """
    state = engine.init(jax.random.key(seed))
    volumes, own, evaluated = [], [], []
    for generation in range(engine.settings.generations):
        before, start = supernet.spent, time.perf_counter()
        state, metrics = engine.generation(state, jax.random.fold_in(jax.random.key(1000 + seed), generation))
        own.append(time.perf_counter() - start - (supernet.spent - before))
        volumes.append(float(metrics["hypervolume"][0]))
        evaluated.append(int(state.archive.size))
    rows = np.flatnonzero(state.archive.examined)
    tables = engine.inner(jax.random.key(0), state.archive.genomes[rows], state.archive.correct[rows]).table
    return {
        "reached": volumes,
        "own_s": own,
        "evaluated": evaluated,
        "exact": engine.hypervolume(np.asarray(tables.min(axis=0))),
        "handed_on": len(rows),
    }


def kinds(settings: Settings) -> dict[str, SearchSettings]:
    """Returns the searches to compare by name."""
    base = SearchSettings.of(
        dataset=settings.dataset,
        device=settings.device,
        checkpoint=settings.checkpoint,
        population=settings.population,
        generations=settings.generations,
        candidates=settings.candidates,
    )
    flat = {f"flat {name}": base.replace(engine="flat", strategy=name) for name in settings.strategies}
    return {"nested NSGA2": base, **flat}


def main(settings: Settings) -> None:
    """Compares, prints a table and writes the results."""
    console, found = Console(), {}
    runs = {name: Run(each) for name, each in kinds(settings).items()}
    first = next(iter(runs.values()))
    evaluator = first.evaluator(first.training.initial_parameters())
    supernet = Supernet(first.engines(evaluator).evaluate)
    for name, run in runs.items():
        engine = replace(run.engines(evaluator), evaluate=supernet)
        search(engine, supernet, 0)  # compiles
        found[name] = [search(engine, supernet, seed) for seed in range(settings.seeds)]
        console.print(name, [round(each["reached"][-1], 4) for each in found[name]])
    rows = summarised(found, supernet.seconds_each)
    table = Table("search", "reached", "exact", "own s", "at equal time")
    for name, row in rows.items():
        cells = (_spread(row[column]) for column in ("reached", "exact", "own_s", "at_equal_time"))
        table.add_row(name, *cells)
    console.print(table)
    if settings.output is not None:
        content = {
            "settings": {**asdict(settings), "output": None},
            "versions": versions(),
            "supernet_s_per_backbone": supernet.seconds_each,
            "summary": rows,
            "searches": found,
        }
        write_text(settings.output, json.dumps(content, indent=1) + "\n")


def summarised(found: dict[str, list[dict[str, Any]]], each_s: float) -> dict[str, dict[str, list[float]]]:
    """Returns the figures of every seed by search: at equal numbers of backbones, and at equal time."""
    times = {
        name: [np.cumsum(one["own_s"]) + each_s * np.array(one["evaluated"]) for one in searches]
        for name, searches in found.items()
    }
    quickest = min(max(float(one[-1]) for one in each) for each in times.values())
    return {
        name: {
            "reached": [one["reached"][-1] for one in searches],
            "exact": [one["exact"] for one in searches],
            "own_s": [float(np.sum(one["own_s"])) for one in searches],
            "total_s": [float(passed[-1]) for passed in times[name]],
            "at_equal_time": [
                float(np.max(np.where(clock <= quickest, one["reached"], 0)))
                for one, clock in zip(searches, times[name], strict=True)
            ],
        }
        for name, searches in found.items()
    }


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


if __name__ == "__main__":
    main(tyro.cli(Settings))
