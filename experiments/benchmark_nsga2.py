"""Generations per second of NSGA-II beside pymoo, EvoX and QDax, in one run, alternating.

Command:   pip install pymoo evox qdax torch
           python experiments/benchmark_nsga2.py -o benchmark_nsga2.json
Hardware:  any; on a GPU EvoX computes there too, pymoo always on the host
Time:      ten minutes on two cores
Expected:  see docs/gpu.md

The problem is DTLZ2 (Deb et al. 2002, https://doi.org/10.1109/CEC.2002.1007032) of 31 variables with two or three
objectives, which cost next to nothing. pymoo and ours breed integers (64 values each) by uniform crossover and random
resetting, EvoX and QDax real numbers by their own operators, the only ones that they have. A step is a generation:
breeding, evaluation, selection. All start from random populations and go on from step to step, so that all sort
populations that converge; every round times some steps of each library in turn. QDax selects without removing
duplicates, as EvoX and pymoo with duplicates kept; ours puts repeated genomes last in any case.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.search import NSGA2, State, sample

GENES, VALUES = 31, 64
LIBRARIES = ("ours", "pymoo", "pymoo unique", "evox", "evox compiled", "qdax")
_PACKAGES = {"pymoo": "pymoo", "pymoo unique": "pymoo", "evox": "evox", "evox compiled": "evox", "qdax": "qdax"}
Step = Callable[[], Any]


@dataclass(frozen=True)
class Settings:
    """NSGA-II beside other libraries."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    populations: tuple[int, ...] = (1024, 8192)
    """Population sizes."""
    objectives: tuple[int, ...] = (2, 3)
    """Numbers of objectives."""
    libraries: tuple[str, ...] = LIBRARIES
    """What to measure, where it is installed."""
    rounds: int = 5
    """Of all libraries in turn; the median counts."""
    steps: int = 3
    """Generations of a library in a round."""
    unique_limit: int = 1024
    """Largest population for pymoo with duplicates removed, which compares all pairs of genomes."""
    pairs_limit: int = 8192
    """Largest population for libraries that keep a matrix of all pairs, EvoX and QDax."""


def dtlz2(x: Any, objectives: int, numbers: Any) -> list[Any]:
    """Returns the objectives of x[P, 31] within 0 .. 1, one [P] each, computed by numpy, jax.numpy or torch."""
    angles = [x[:, m] * (np.pi / 2) for m in range(objectives - 1)]
    radius = 1 + ((x[:, objectives - 1 :] - 0.5) ** 2).sum(1)
    found = []
    for m in range(objectives):
        value = radius
        for angle in angles[: objectives - 1 - m]:
            value = value * numbers.cos(angle)
        found.append(value if m == 0 else value * numbers.sin(angles[objectives - 1 - m]))
    return found


def ours(population: int, objectives: int) -> Step:
    """Returns a generation of this package's NSGA-II."""
    strategy = NSGA2(population, (VALUES,) * GENES)
    params = strategy.default_params

    def evaluate(genomes: jax.Array) -> jax.Array:
        return jnp.stack(dtlz2(genomes.astype(jnp.float32) / (VALUES - 1), objectives, jnp), axis=1)

    @jax.jit
    def generation(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        key, ask_key, tell_key = jax.random.split(key, 3)
        genomes, state = strategy.ask(ask_key, state, params)
        return strategy.tell(tell_key, genomes, evaluate(genomes), state, params)[0], key

    first = sample(jax.random.key(0), jnp.full(GENES, VALUES, jnp.int32), size=population)
    carried = (strategy.init(jax.random.key(1), first, evaluate(first), params), jax.random.key(2))

    def step() -> None:
        nonlocal carried
        carried = jax.block_until_ready(generation(*carried))

    return step


def pymoo(population: int, objectives: int, *, unique: bool) -> Step:
    """Returns a generation of pymoo's NSGA-II."""
    from pymoo.algorithms.moo.nsga2 import NSGA2 as Peer  # noqa: N811
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UX

    class Joint(Problem):
        def __init__(self) -> None:
            super().__init__(n_var=GENES, n_obj=objectives, xl=np.zeros(GENES, int), xu=VALUES - 1, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = np.stack(dtlz2(x.astype(np.float32) / (VALUES - 1), objectives, np), axis=1)

    class Redraw(Mutation):
        def _do(self, problem: Any, X: np.ndarray, *args: Any, random_state: Any, **kwargs: Any) -> np.ndarray:  # noqa: N803
            chosen = random_state.random(X.shape) < 1 / GENES
            return np.where(chosen, random_state.integers(0, VALUES, X.shape), X)

    algorithm = Peer(
        pop_size=population,
        sampling=np.random.default_rng(0).integers(0, VALUES, (population, GENES)),
        crossover=UX(prob=0.9),
        mutation=Redraw(),
        eliminate_duplicates=unique,
    )
    algorithm.setup(Joint(), termination=("n_gen", 1_000_000), seed=0, verbose=False)
    algorithm.next()
    return algorithm.next


def evox(population: int, objectives: int, *, compiled: bool) -> Step:
    """Returns a generation of EvoX's NSGA-II, on a GPU where PyTorch has one."""
    import torch
    from evox.algorithms import NSGA2 as Peer  # noqa: N811
    from evox.core import Problem
    from evox.workflows import StdWorkflow

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_default_device(device)

    class DTLZ2(Problem):
        def evaluate(self, pop: Any) -> Any:
            return torch.stack(dtlz2(pop, objectives, torch), dim=1)

    bounds = torch.zeros(GENES, device=device), torch.ones(GENES, device=device)
    workflow = StdWorkflow(Peer(population, objectives, *bounds, device=device), DTLZ2(), device=device)
    workflow.init_step()
    advance = torch.compile(workflow.step) if compiled else workflow.step

    def step() -> None:
        advance()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def qdax(population: int, objectives: int) -> Step:
    """Returns a generation of QDax's NSGA-II, compiled."""
    from qdax.baselines.nsga2 import NSGA2 as Peer  # noqa: N811
    from qdax.core.emitters.mutation_operators import polynomial_crossover, polynomial_mutation
    from qdax.core.emitters.standard_emitters import MixingEmitter

    def score(x: jax.Array, key: jax.Array) -> tuple[jax.Array, dict]:
        return -jnp.stack(dtlz2(x, objectives, jnp), axis=1), {}

    emitter = MixingEmitter(
        mutation_fn=partial(polynomial_mutation, proportion_to_mutate=1 / GENES, eta=20.0, minval=0.0, maxval=1.0),
        variation_fn=partial(polynomial_crossover, proportion_var_to_change=0.5),
        variation_percentage=0.9,
        batch_size=population,
    )
    algorithm = Peer(score, emitter, lambda repertoire: {})
    first = jax.random.uniform(jax.random.key(0), (population, GENES))
    repertoire, emitter_state, _ = algorithm.init(first, population, jax.random.key(1))
    update = jax.jit(algorithm.update)
    number = 0

    def step() -> None:
        nonlocal repertoire, emitter_state, number
        number += 1
        repertoire, emitter_state, *_ = jax.block_until_ready(
            update(repertoire, emitter_state, jax.random.fold_in(jax.random.key(2), number))
        )

    return step


def build(library: str, population: int, objectives: int) -> Step:
    """Returns a generation of a library by its name in `LIBRARIES`."""
    match library.split():
        case ["ours"]:
            return ours(population, objectives)
        case ["pymoo", *unique]:
            return pymoo(population, objectives, unique=bool(unique))
        case ["evox", *compiled]:
            return evox(population, objectives, compiled=bool(compiled))
        case ["qdax"]:
            return qdax(population, objectives)
    raise ValueError(f"libraries: expected some of {', '.join(LIBRARIES)}, got {library!r}")


def measured(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields the median seconds of a generation of each library, case by case."""
    for objectives in settings.objectives:
        for population in settings.populations:
            steps: dict[str, Step] = {}
            failures: dict[str, str] = {}
            for library in settings.libraries:
                if _is_measured(library, population, settings):
                    try:
                        steps[library] = build(library, population, objectives)
                        for _ in range(2):
                            steps[library]()
                    except Exception as error:  # other libraries raise what they like
                        steps.pop(library, None)
                        failures[library] = f"{type(error).__name__}: {str(error).strip()[:200]}"
            times: dict[str, list[float]] = {library: [] for library in steps}
            for _ in range(settings.rounds):
                for library, step in steps.items():
                    start = time.perf_counter()
                    for _ in range(settings.steps):
                        step()
                    times[library].append((time.perf_counter() - start) / settings.steps)
            seconds = {library: statistics.median(each) for library, each in times.items()}
            yield {"objectives": objectives, "population": population, "seconds": seconds, "failures": failures}


def _is_measured(library: str, population: int, settings: Settings) -> bool:
    package = _PACKAGES.get(library)
    if package is not None and importlib.util.find_spec(package) is None:
        return False
    if library == "pymoo unique":
        return population <= settings.unique_limit
    return population <= settings.pairs_limit or package in (None, "pymoo")


def main(settings: Settings) -> None:
    """Prints a table and writes the results."""
    rows = []
    table = Table("objectives", "population", *(f"{library}\nms" for library in settings.libraries))
    for row in measured(settings):
        rows.append(row)
        shown = [row["seconds"].get(library) for library in settings.libraries]
        cells = ["" if seconds is None else f"{1e3 * seconds:.1f}" for seconds in shown]
        table.add_row(str(row["objectives"]), f"{row['population']:,}", *cells)
        if settings.output is not None:
            machine = {
                "backend": jax.default_backend(),
                "device": jax.devices()[0].device_kind,
                "cores": os.cpu_count(),
            }
            content = {
                "settings": {**asdict(settings), "output": None},
                "machine": {**machine, "processor": platform.processor() or platform.machine()},
                "versions": versions() | {name: importlib.metadata.version(name) for name in _installed()},
                "rows": rows,
            }
            write_text(settings.output, json.dumps(content, indent=1) + "\n")
    Console().print(table)


def _installed() -> list[str]:
    return [name for name in ("pymoo", "evox", "qdax", "torch") if importlib.util.find_spec(name) is not None]


if __name__ == "__main__":
    main(tyro.cli(Settings))
