"""pymoo's NSGA-II on the same work, to compare speeds with; pymoo is optional.

Its settings are its best for this work: uniform crossover and a vectorised integer mutation, binary tournaments, and
the survival that uses compiled sorting.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Evaluate = Callable[[np.ndarray], np.ndarray]


def pymoo_version() -> str | None:
    """Returns the installed version, or None."""
    try:
        return importlib.metadata.version("pymoo")
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class PymooPeer:
    """pymoo's NSGA-II over integer genes; each method returns a call that does the work once.

    Attributes:
      cardinalities: number of values of each gene.
      population: members and offspring.
      unique: remove duplicates, pymoo's default, or keep them.
      seed: of everything random.
    """

    cardinalities: tuple[int, ...]
    population: int
    unique: bool
    seed: int

    def variation(self, first: np.ndarray, evaluate: Evaluate) -> Callable[[], Any]:
        """Mating of an evaluated population."""
        algorithm = self._started(first, evaluate)
        return lambda: algorithm.infill()

    def generation(self, first: np.ndarray, evaluate: Evaluate) -> Callable[[], Any]:
        """Mating and survival; evaluation aside."""
        algorithm = self._started(first, evaluate)
        values = evaluate(first)

        def run() -> Any:
            offspring = algorithm.infill()
            offspring.set("F", values[: len(offspring)])
            merged = algorithm.pop.__class__.merge(algorithm.pop, offspring)
            return algorithm.survival.do(
                algorithm.problem,
                merged,
                n_survive=self.population,
                algorithm=algorithm,
                random_state=algorithm.random_state,
            )

        return run

    def search(self, first: np.ndarray, evaluate: Evaluate, *, generations: int = 11) -> Callable[[], Any]:
        """A whole run, the first population included."""

        def run() -> Any:
            algorithm = self._algorithm(first, evaluate)
            for _ in range(generations):
                algorithm.next()
            return algorithm

        return run

    def _started(self, first: np.ndarray, evaluate: Evaluate) -> Any:
        algorithm = self._algorithm(first, evaluate)
        algorithm.next()
        return algorithm

    def _algorithm(self, first: np.ndarray, evaluate: Evaluate) -> Any:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.mutation import Mutation
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UX

        highest = np.array(self.cardinalities) - 1
        genes = len(highest)

        class Space(Problem):
            def __init__(self) -> None:
                super().__init__(n_var=genes, n_obj=3, xl=np.zeros(genes, int), xu=highest, vtype=int)

            def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
                out["F"] = evaluate(x.astype(np.int32))

        class Redraw(Mutation):
            def _do(self, problem: Any, X: np.ndarray, *args: Any, random_state: Any, **kwargs: Any) -> np.ndarray:  # noqa: N803
                chosen = random_state.random(X.shape) < 1 / genes
                return np.where(chosen, random_state.integers(0, highest + 1, X.shape), X)

        algorithm = NSGA2(
            pop_size=self.population,
            sampling=first.astype(int),
            crossover=UX(prob=0.9),
            mutation=Redraw(),
            eliminate_duplicates=self.unique,
        )
        algorithm.setup(Space(), termination=("n_gen", 1_000_000), seed=self.seed, verbose=False)
        return algorithm
