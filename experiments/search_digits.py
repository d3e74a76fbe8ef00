"""How good the search is on a trained space: surrogate against NSGA-II, joint against one after the other.

    python experiments/search_digits.py --workdir runs/search_digits -o experiments/search_digits.json

Trains the supernet of the digits space once (or continues in --workdir), then searches it with several seeds; every
answer of the supernet is kept in the work directory, so that no backbone is evaluated twice by any of them. The
hypervolume is that of the dynamic candidates (exit subsets and clocks, ideal mapping) of all backbones evaluated so
far, found for all of them alike, on the validation split.

- surrogate: evaluations until NSGA-II's final hypervolume (448 evaluations) is reached, with the surrogate, with the
  surrogate and gradient seeds, and by random search;
- joint: HADAS (backbones, exits and clocks together) against exits and clocks added to the best static backbones that a
  static search of the same budget finds (its front, and as many of its best as HADAS examined): hypervolume, and
  ratio of dominance of the exact fronts.

On two cores of an Intel Xeon (jax 0.10.2) a seed takes about three minutes once the supernet is trained. Seeds 0 to
4, in search_digits.json: after a third of the evaluations (149) the hypervolume is 0.7817 with the surrogate and
0.7824 with gradient seeds too, on average over the seeds, after 448 it is 0.7813 with NSGA-II and 0.7796 with random
search. With three seeds the surrogate reaches NSGA-II's final value after 33 to 46 evaluations (NSGA-II itself after
322 to 420), with two it stays below it by up to 0.0024 to its end at 224. One of the 270 validation samples is worth
0.003, so luck has a large share in all of these. The joint search is no better here than exits and clocks added to as
many of the best static backbones (0.7770 ± 0.0027 against 0.7781 ± 0.0019; to the static front's: 0.7762 ± 0.0024):
the space is small and its best backbones with and without exits are much the same.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from hadas_jax.evaluation import segment_costs
from hadas_jax.methods import Archive, Hadas, Run, exact_front
from hadas_jax.methods.hadas.fronts import non_dominated
from hadas_jax.methods.hadas.surrogate import SurrogateAcquisition
from hadas_jax.report import LineProgress
from hadas_jax.runs.workdir import WorkDir, versions, write_text
from hadas_jax.search import crowding_distance, non_dominated_ranks, ratio_of_dominance, truncate
from hadas_jax.settings import NestedSearchSettings, SearchSettings

BUDGET = 448
KINDS: dict[str, dict[str, Any]] = {
    "NSGA-II": {"population": 64},
    "surrogate": {"population": 16, "elites": 16, "surrogate": True},
    "surrogate + gradient": {"population": 16, "elites": 16, "surrogate": True, "gradient_seeds": 32},
    "random search": {"population": 64, "strategy": "RandomSearch"},
}


@dataclass
class Memory:
    """Everything known of backbones, by genome: the supernet's answers and the tables of dynamic candidates."""

    path: Path
    correct: dict[bytes, np.ndarray]
    tables: dict[bytes, np.ndarray]

    @classmethod
    def load(cls, path: Path) -> "Memory":
        """Reads the answers of earlier calls."""
        if not path.is_file():
            return cls(path, {}, {})
        with np.load(path) as file:
            return cls(path, {g.tobytes(): c for g, c in zip(file["genomes"], file["correct"], strict=True)}, {})

    def save(self) -> None:
        """Keeps the answers."""
        genomes = np.array([np.frombuffer(genome, np.int32) for genome in self.correct])
        np.savez_compressed(self.path, genomes=genomes, correct=np.array(list(self.correct.values())))


def main() -> None:
    """Searches with all seeds, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="of the supernet and its answers")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="agx-xavier-gpu")
    arguments = parser.parse_args()
    if arguments.output is not None and not arguments.output.parent.is_dir():
        parser.exit(2, f"error: --output: expected a file in an existing folder, got {arguments.output}\n")
    console = Console()
    try:
        lab = Lab(SearchSettings.of(device=arguments.device), WorkDir(arguments.workdir), console)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    rows = []
    for seed in range(arguments.seeds):
        rows.append(lab.compare(seed))
        console.print(rows[-1], soft_wrap=True)
    print_figures(rows, console)
    if arguments.output is not None:
        content = {"device": arguments.device, "budget": BUDGET, "versions": versions(), "seeds": rows}
        write_text(arguments.output, json.dumps(content, indent=1) + "\n")


class Lab:
    """The trained space, and searches over it."""

    def __init__(self, settings: SearchSettings, workdir: WorkDir, console: Console) -> None:
        self.run = Run(settings)
        progress = LineProgress(console)
        workdir.path.mkdir(parents=True, exist_ok=True)
        self.engines = self.run.engines(self.run.evaluator(self.run.training.train(workdir, progress)))
        self.memory = Memory.load(workdir.path / "answers.npz")

    def compare(self, seed: int) -> dict[str, Any]:
        """All figures of one seed."""
        curves = {}
        for kind, settings in KINDS.items():
            archive = self.search(
                seed, budget=BUDGET if kind in ("NSGA-II", "random search") else BUDGET // 2, **settings
            )
            curves[kind] = self.curve(archive)
        goal = curves["NSGA-II"][-1]
        reached = {
            kind: int(np.argmax(curve >= goal)) + 1 if curve[-1] >= goal else None for kind, curve in curves.items()
        }
        joint = self.chosen(self.search(seed, budget=BUDGET, population=64, elites=10))
        static = self.search(seed, budget=BUDGET, population=64, elites=0)
        others = {"static front": self.static_front(static), "best static": self.best_static(static, len(joint))}
        front = self.front(joint)
        return {
            "seed": seed,
            "final_hypervolume": {kind: float(curve[-1]) for kind, curve in curves.items()},
            "at_a_third": {kind: float(curve[BUDGET // 3 - 1]) for kind, curve in curves.items()},
            "evaluations_to_goal": reached,
            "joint": {"backbones": len(joint), "hypervolume": self.hypervolume(joint)},
            "one_after_the_other": {
                name: {
                    "backbones": len(genomes),
                    "hypervolume": self.hypervolume(genomes),
                    "joint_dominates": _dominance(front, self.front(genomes)),
                    "dominates_joint": _dominance(self.front(genomes), front),
                }
                for name, genomes in others.items()
            },
        }

    def search(
        self,
        seed: int,
        *,
        budget: int,
        population: int,
        strategy: str = "NSGA2",
        surrogate: bool = False,
        gradient_seeds: int = 0,
        elites: int | None = None,
    ) -> Archive:
        """Searches with the given number of evaluations."""
        base, generations = self.engines, budget // population
        acquisition = None
        if surrogate:
            acquisition = SurrogateAcquisition(
                space=base.space,
                device=base.device,
                samples=base.samples,
                picks=population,
                gradient_seeds=gradient_seeds,
            )
        hadas = Hadas(
            space=base.space,
            device=base.device,
            evaluate=self.evaluate,
            samples=base.samples,
            settings=NestedSearchSettings(population=population, generations=generations, strategy=strategy),
            elites=round(0.15 * population) if elites is None else elites,
            acquisition=acquisition,
        )
        state = hadas.init(jax.random.key(seed))
        for generation in range(generations):
            state, _ = hadas.generation(state, jax.random.fold_in(jax.random.key(1000 + seed), generation))
        return state.archive

    def evaluate(self, genomes: np.ndarray) -> np.ndarray:
        """The supernet's answers, from memory where they are."""
        new = np.array([genome for genome in genomes if genome.tobytes() not in self.memory.correct])
        if len(new):
            for genome, words in zip(new, self.engines.evaluate(new), strict=True):
                self.memory.correct[genome.tobytes()] = words
            self.memory.save()
        return np.stack([self.memory.correct[genome.tobytes()] for genome in genomes])

    def tables(self, genomes: np.ndarray) -> np.ndarray:
        """The tables of dynamic candidates, from memory where they are."""
        known = self.memory.tables
        new = np.array([genome for genome in genomes if genome.tobytes() not in known])
        if len(new):
            found = self.engines.inner(jax.random.key(0), new, self.evaluate(new)).table
            known |= {genome.tobytes(): table for genome, table in zip(new, found, strict=True)}
        return np.stack([known[genome.tobytes()] for genome in genomes])

    def curve(self, archive: Archive) -> np.ndarray:
        """Hypervolume after every evaluation."""
        tables = self.tables(archive.genomes[: int(archive.size)])
        return np.array([self.engines.hypervolume(table) for table in np.minimum.accumulate(tables, axis=0)])

    def hypervolume(self, genomes: np.ndarray) -> float:
        """Of the dynamic candidates of some backbones."""
        return self.engines.hypervolume(self.tables(genomes).min(axis=0))

    def chosen(self, archive: Archive) -> np.ndarray:
        """Backbones that the inner search examined."""
        return archive.genomes[archive.examined]

    def static_front(self, archive: Archive) -> np.ndarray:
        """Backbones of the static front."""
        size = int(archive.size)
        return archive.genomes[:size][non_dominated(archive.static[:size])]

    def best_static(self, archive: Archive, count: int) -> np.ndarray:
        """The best backbones by rank and crowding of their static scores."""
        size = int(archive.size)
        fitness = jnp.asarray(archive.static[:size])
        ranks = non_dominated_ranks(fitness)
        return archive.genomes[np.asarray(truncate(ranks, crowding_distance(fitness, ranks), size=count))]

    def front(self, genomes: np.ndarray) -> np.ndarray:
        """The exact front of the dynamic candidates of some backbones, float32[N, 3]."""
        base = self.engines

        price = jax.jit(lambda genome: segment_costs(base.space, base.space.decode(genome), base.device))
        parts = []
        for genome, words in zip(jnp.asarray(genomes), self.evaluate(genomes), strict=True):
            front = exact_front(base.space, genome, jnp.asarray(words), price(genome), samples=base.samples)
            parts.append(front.objectives)
        merged = np.concatenate(parts)
        return merged[non_dominated(merged)]


def _first(flags: np.ndarray) -> int | None:
    """How many there are up to the first that is set; None where none is."""
    return int(np.argmax(flags)) + 1 if flags.any() else None


def print_figures(rows: list[dict[str, Any]], console: Console) -> None:
    """Prints means and spreads over the seeds."""
    table = Table(title=f"Hypervolume of all dynamic candidates, {len(rows)} seeds")
    for column in ("search", "after a third", "final", "evaluations to NSGA-II's final"):
        table.add_column(column)
    for kind in KINDS:
        needed = [row["evaluations_to_goal"][kind] for row in rows]
        table.add_row(
            kind,
            _spread([row["at_a_third"][kind] for row in rows]),
            _spread([row["final_hypervolume"][kind] for row in rows]),
            " ".join("never" if count is None else str(count) for count in needed),
        )
    console.print(table)
    volumes = [row["joint"]["hypervolume"] for row in rows]
    console.print(f"joint: hypervolume {_spread(volumes)}")
    for name in rows[0]["one_after_the_other"]:
        found = [row["one_after_the_other"][name] for row in rows]
        volume, wins, losses = (
            _spread([one[figure] for one in found]) for figure in ("hypervolume", "joint_dominates", "dominates_joint")
        )
        console.print(
            f"exits and clocks added to the {name} ({found[0]['backbones']} backbones with seed 0): hypervolume "
            f"{volume}; ratio of dominance of joint over it {wins}, the other way {losses}"
        )


def _dominance(a: np.ndarray, b: np.ndarray) -> float:
    return float(ratio_of_dominance(jnp.asarray(a), jnp.asarray(b)))


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}"


if __name__ == "__main__":
    main()
