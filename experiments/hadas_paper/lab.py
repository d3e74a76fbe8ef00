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
from hadas_jax.methods import Archive, Engines, Hadas, TrainingRun
from hadas_jax.methods.hadas.constraints import NO_LIMITS
from hadas_jax.methods.hadas.exit_configs import Judged, judge, listed_plans, right_samples
from hadas_jax.methods.hadas.fronts import Candidates, PoolFronts
from hadas_jax.methods.hadas.selection import Deployment
from hadas_jax.spaces import MBConvSpace
from hadas_jax.supernet import Parameters
from hw_models import Device

POLICY = "confidence"
EXACT_PLANS = 2**16


@dataclass
class Lab:
    """A trained supernet with the outcomes that are known of it.

    Attributes:
      training: of the supernet, with its data.
      params: the trained weights.
      outcomes: folder of what is known.
      judging_s: time spent on judging backbones since the lab was opened.
    """

    training: TrainingRun
    params: Parameters
    outcomes: Path
    judging_s: float = field(default=0.0, init=False)

    @property
    def space(self) -> MBConvSpace:
        """Of the supernet."""
        return self.training.space

    @property
    def splits(self) -> Splits:
        """The images."""
        return self.training.splits

    @cached_property
    def judge(self) -> CachedEvaluator:
        """Gives outcomes, from disk where they are."""
        return CachedEvaluator(self.training.judge(self.params), self.outcomes)

    def answers(self, genomes: np.ndarray, data: LabelledImages) -> Outcomes:
        """Returns the outcomes of backbones int32[P, G] on a split, and takes the time of those not known yet."""
        start, before = time.perf_counter(), self.judge.judged
        found = self.judge(genomes, data)
        if self.judge.judged > before:
            self.judging_s += time.perf_counter() - start
        return found

    def search(self, device: Device, *, seed: int, population: int, generations: int, **engines: Any) -> Archive:
        """Runs the nested search.

        Args:
          device: the cost model.
          seed: of the search.
          population: backbones per generation.
          generations: the first one included.
          engines: other settings of `Engines`.
        """
        validation = self.splits.validation
        hadas = Hadas(
            space=self.space,
            device=device,
            evaluate=lambda genomes: np.asarray(pack_bits(jnp.asarray(self.answers(genomes, validation).correct))),
            samples=validation.count,
            engines=Engines(population=population, generations=generations, **engines),
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

        def evaluate(genomes: np.ndarray, data: LabelledImages) -> list[Outcomes]:
            return of_each(lab.answers(genomes, data))

        self._deployed = Deployment(
            lab.space,
            device,
            genomes=genomes,
            splits=lab.splits,
            policy=POLICY,
            evaluate=evaluate,
            key=jax.random.key(0),
        )
        self._bodies = self._deployed.backbones
        self._judged: dict[str, list[Judged]] = {"selection": self._deployed.selection, "test": []}
        for thresholds, found in zip(self._deployed.thresholds, evaluate(genomes, lab.splits.test), strict=True):
            self._judged["test"].append(judge(found, thresholds=jnp.asarray(thresholds), policy=POLICY))

    @property
    def default(self) -> int:
        """The default operating point."""
        return self._deployed.default_point

    def front(self, policy: str, *, point: int | None = None, only: int | None = None) -> Candidates:
        """Returns the front over exits and clocks on the selection samples, exact where backbones have few exits.

        Args:
          policy: ideal or deployable.
          point: the only operating point to run at; None: all.
          only: the only backbone to take; None: all.
        """
        rows = list(range(len(self.genomes))) if only is None else [only]
        fronts = PoolFronts(
            [self._bodies[row] for row in rows],
            self._device,
            key=jax.random.key(0),
            limits=NO_LIMITS,
            exact_plans=EXACT_PLANS,
        )
        stops = [getattr(self._judged["selection"][row], policy) for row in rows]
        (found,) = fronts.fronts(stops, points=(point,))
        return dataclasses.replace(found, backbone=np.asarray(rows)[found.backbone])

    def without_exits(self, *, points: Sequence[int] | None = None) -> Candidates:
        """Returns all backbones without exits at some operating points, by default at the default one.

        The points of one backbone follow each other; objectives are those of the selection samples.
        """
        points = (self.default,) if points is None else points
        backbone, point = (grid.ravel() for grid in np.meshgrid(range(len(self.genomes)), points, indexing="ij"))
        levels, blank = np.zeros((len(point), self._exits), np.int32), np.zeros((len(point), 3), np.float32)
        found = Candidates(backbone, levels, point, blank)
        return dataclasses.replace(found, objectives=self.measured("ideal", found, split="selection"))

    @property
    def every_point(self) -> range:
        """All operating points."""
        return range(self.default + 1)

    def exit_accuracies(self, index: int) -> list[float]:
        """Returns the test accuracy of every exit that a backbone has, and last of its classifier."""
        judged = self._judged["test"][index].ideal
        right = np.bitwise_count(np.asarray(judged.correct)).sum(axis=-1) / judged.samples
        return right[np.append(np.asarray(self._bodies[index].available), True)].tolist()

    def right_on_test(self, policy: str, candidate: Candidates) -> np.ndarray:
        """Returns uint32[W]: a bit set of the test samples that one candidate gets right."""
        stops = getattr(self._judged["test"][int(candidate.backbone[0])], policy)
        return np.asarray(right_samples(stops, jnp.asarray(candidate.levels, jnp.int32)))[0]

    @property
    def test_images(self) -> int:
        """Images of the test split."""
        return self._judged["test"][0].ideal.samples

    def measured(self, policy: str, candidates: Candidates, *, split: str = "test") -> np.ndarray:
        """Returns objectives float32[M, 3] of candidates on a split, `selection` or `test`."""
        found = np.zeros((len(candidates), 3), np.float32)
        for index in np.unique(candidates.backbone).tolist():
            rows = np.flatnonzero(candidates.backbone == index)
            plans, which = np.unique(candidates.levels[rows], axis=0, return_inverse=True)
            padded = np.pad(plans, ((0, -len(plans) % 64), (0, 0)))  # few shapes are compiled
            stats = listed_plans(getattr(self._judged[split][index], policy), jnp.asarray(padded))
            weights, costs = np.asarray(stats.weights, np.float64)[which], self._bodies[index].costs
            points = candidates.point[rows]
            found[rows, 0] = np.asarray(stats.error)[which]
            for column, cost in ((1, costs.latency_s), (2, costs.energy_j)):
                found[rows, column] = np.einsum("md,dm->m", weights, np.asarray(cost, np.float64)[:, points])
        return found
