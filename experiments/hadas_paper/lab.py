"""A trained supernet, and what the stages of `hadas_paper` do with it: searches, fronts over exits and clocks.

How backbones do on the images is kept on disk once for all devices, seeds and stages (`hadas search --outcomes`).
Shapes: P backbones, G genes, M candidates; objectives are error, latency_s and energy_j.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import CachedEvaluator, Outcomes, pack_bits
from hadas_jax.evaluation.evaluator import of_each
from hadas_jax.methods import Archive, Hadas, TrainingRun
from hadas_jax.methods.hadas.exit_configs import PolicyStops
from hadas_jax.methods.hadas.fronts import Candidates, pool_fronts
from hadas_jax.methods.hadas.selection import set_thresholds
from hadas_jax.settings import NO_CONSTRAINTS, NestedSearchSettings
from hadas_jax.spaces import MBConvSpace
from hadas_jax.supernet import Parameters
from hw_models import Device

POLICY = "confidence"
EXACT_CONFIGS = 2**16


@dataclass
class Lab:
    """A trained supernet with the outcomes that are known of it.

    Attributes:
      training: of the supernet, with its data.
      params: the trained weights.
      outcomes: folder of what is known.
      evaluating_s: time spent on evaluating backbones since the lab was opened.
    """

    training: TrainingRun
    params: Parameters
    outcomes: Path
    evaluating_s: float = field(default=0.0, init=False)

    @property
    def space(self) -> MBConvSpace:
        """Of the supernet."""
        return self.training.space

    @property
    def splits(self) -> Splits:
        """The images."""
        return self.training.splits

    @cached_property
    def evaluate(self) -> CachedEvaluator:
        """Gives outcomes, from disk where they are."""
        return CachedEvaluator(self.training.evaluator(self.params), self.outcomes)

    def answers(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Returns the outcomes of backbones int32[P, G] on a split, and takes the time of those not known yet."""
        start, before = time.perf_counter(), self.evaluate.evaluated
        found = self.evaluate(genomes, data)
        if self.evaluate.evaluated > before:
            self.evaluating_s += time.perf_counter() - start
        return found

    def search(
        self, device: Device, *, seed: int, population: int, generations: int, elites: int, **settings: Any
    ) -> Archive:
        """Runs the nested search.

        Args:
          device: the cost model.
          seed: of the search.
          population: backbones per generation.
          generations: the first one included.
          elites: backbones per generation that go to the inner search.
          settings: others of `NestedSearchSettings`.
        """
        validation = self.splits.validation
        hadas = Hadas(
            space=self.space,
            device=device,
            evaluate=lambda genomes: np.asarray(pack_bits(jnp.asarray(self.answers(genomes, validation).correct))),
            samples=validation.count,
            settings=NestedSearchSettings(population=population, generations=generations, **settings),
            elites=elites,
        )
        first, key = jax.random.split(jax.random.key(seed))
        state = hadas.init(first)
        for generation in range(generations):
            state, _ = hadas.generation(state, jax.random.fold_in(key, generation))
        return state.archive


class Pool:
    """Some backbones on one device, with thresholds set on the calibration split.

    Args:
      lab: where their outcomes come from.
      device: the cost model.
      genomes: int32[P, G].
    """

    def __init__(self, lab: Lab, device: Device, genomes: np.ndarray) -> None:
        self.genomes, self._device, self._exits = genomes, device, lab.space.num_exits
        self._pool = set_thresholds(lab.space, device, genomes, splits=lab.splits, policy=POLICY, evaluate=lab.answers)
        self._backbones = self._pool.backbones
        test = of_each(lab.answers(genomes, lab.splits.test))
        self._stops: dict[str, list[PolicyStops]] = {
            "selection": self._pool.selection,
            "test": [self._pool.stops(b, outcomes) for b, outcomes in enumerate(test)],
        }

    @property
    def default(self) -> int:
        """The default operating point."""
        return self._pool.default_point

    def front(self, policy: str, *, point: int | None = None, only: int | None = None) -> Candidates:
        """Returns the front over exits and clocks on the selection samples, exact where backbones have few exits.

        Args:
          policy: ideal or deployable.
          point: the only operating point to run at; None: all.
          only: the only backbone to take; None: all.
        """
        rows = list(range(len(self.genomes))) if only is None else [only]
        (found,) = pool_fronts(
            [self._backbones[row] for row in rows],
            [getattr(self._stops["selection"][row], policy) for row in rows],
            self._device,
            key=jax.random.key(0),
            limits=NO_CONSTRAINTS,
            points=(point,),
            exact_configs=EXACT_CONFIGS,
        )
        return dataclasses.replace(found, backbone=np.asarray(rows)[found.backbone])

    def without_exits(self, *, points: Sequence[int] | None = None) -> Candidates:
        """Returns all backbones without exits at some operating points, by default at the default one.

        The points of one backbone follow each other; objectives are those of the selection samples.
        """
        points = (self.default,) if points is None else points
        backbone, point = (grid.ravel() for grid in np.meshgrid(range(len(self.genomes)), points, indexing="ij"))
        exits, blank = np.zeros((len(point), self._exits), np.int32), np.zeros((len(point), 3), np.float32)
        found = Candidates(backbone, exits, point, blank, np.zeros(len(point), np.float32))
        return dataclasses.replace(found, objectives=self.measured("ideal", found, split="selection"))

    @property
    def every_point(self) -> range:
        """All operating points."""
        return range(self.default + 1)

    def exit_accuracies(self, index: int) -> list[float]:
        """Returns the test accuracy of every exit that a backbone has, and last of its classifier."""
        stops = self._stops["test"][index].ideal
        right = np.bitwise_count(np.asarray(stops.correct)).sum(axis=-1) / stops.samples
        return right[np.append(np.asarray(self._backbones[index].available), True)].tolist()

    def right_on_test(self, policy: str, candidate: Candidates) -> np.ndarray:
        """Returns uint32[W]: a bit set of the test samples that one candidate gets right."""
        stops = getattr(self._stops["test"][int(candidate.backbone[0])], policy)
        return np.asarray(stops.right(jnp.asarray(candidate.exits, jnp.int32)))[0]

    @property
    def test_images(self) -> int:
        """Images of the test split."""
        return self._stops["test"][0].ideal.samples

    def measured(self, policy: str, candidates: Candidates, *, split: str = "test") -> np.ndarray:
        """Returns objectives float32[M, 3] of candidates on a split, `selection` or `test`."""
        found = np.zeros((len(candidates), 3), np.float32)
        for index in np.unique(candidates.backbone).tolist():
            rows = np.flatnonzero(candidates.backbone == index)
            configs, which = np.unique(candidates.exits[rows], axis=0, return_inverse=True)
            padded = np.pad(configs, ((0, -len(configs) % 64), (0, 0)))  # few shapes are compiled
            stats = getattr(self._stops[split][index], policy).evaluate(jnp.asarray(padded))
            frequencies, costs = np.asarray(stats.frequencies, np.float64)[which], self._backbones[index].costs
            points = candidates.point[rows]
            found[rows, 0] = np.asarray(stats.error)[which]
            for column, cost in ((1, costs.latency_s), (2, costs.energy_j)):
                found[rows, column] = np.einsum("md,dm->m", frequencies, np.asarray(cost, np.float64)[:, points])
        return found
