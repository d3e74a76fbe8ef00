"""From a finished search to designs: thresholds on the calibration split, fronts, levels, the test split.

Thresholds are set on the calibration split alone. Designs are then chosen by what they do on the validation and
calibration splits together, the selection samples: the cheapest of millions of designs is easily one that was
lucky on few samples, so as many as can be had take part.

Shapes: P backbones of the pool, G genes, E exits, R risk levels, S exit subsets, F operating points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import Outcomes, mean_dissimilarity, segment_costs
from hadas_jax.methods.designs import (
    RISK_LEVELS,
    Candidates,
    Judged,
    every_plan,
    expected,
    front_of,
    judge,
    non_dominated,
    spread,
    thresholds_of,
)
from hadas_jax.methods.hadas import Archive
from hadas_jax.methods.results import POLICY_NAMES, Design, Level, Performance
from hadas_jax.spaces import MBConvSpace, block_active, exit_subsets
from hw_models import Cost, Device, operating_points

TOLERANCE = 0.005  # of accuracy that the thresholds of an ideal design may cost on the selection samples
LEVELS = 4

Evaluate = Callable[[np.ndarray, LabelledImages], list[Outcomes]]


@dataclass(frozen=True)
class Choice:
    """A design by its indices: backbone of the pool, exit subset, risk level, operating point."""

    found_by: str
    backbone: int
    subset: int
    level: int
    point: int


class Deployment:
    """The pool of backbones of a search, judged for deployment.

    Args:
      space: of the backbones.
      device: the cost model.
      genomes: int32[P, G].
      splits: the data; `test` is not read before `measure`.
      policy: of the thresholds.
      evaluate: gives the outcomes of genomes on a split.
    """

    def __init__(
        self,
        space: MBConvSpace,
        device: Device,
        *,
        genomes: np.ndarray,
        splits: Splits,
        policy: str,
        evaluate: Evaluate,
    ) -> None:
        self.space, self.device, self.genomes = space, device, genomes
        self._splits, self._policy, self._evaluate = splits, policy, evaluate
        self._points = operating_points(device)
        self._subsets = 2**space.num_exits
        decode = jax.jit(lambda genome: (space.decode(genome), block_active(space, space.decode(genome))))
        self._backbones = [jax.tree.map(np.asarray, decode(jnp.asarray(g))) for g in genomes]
        cost = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))
        self.costs: list[Cost] = [jax.tree.map(np.asarray, cost(jnp.asarray(g))) for g in genomes]
        calibration = evaluate(genomes, splits.calibration)
        self.thresholds = [np.asarray(thresholds_of(found, policy=policy)) for found in calibration]
        validation = evaluate(genomes, splits.validation)
        self._outcomes = [_join(a, b) for a, b in zip(validation, calibration, strict=True)]
        self.selection = [self._judge(b, found) for b, found in enumerate(self._outcomes)]

    def _judge(self, backbone: int, outcomes: Outcomes) -> Judged:
        found = judge(
            self.space,
            jnp.asarray(self.genomes[backbone]),
            outcomes,
            thresholds=jnp.asarray(self.thresholds[backbone]),
            policy=self._policy,
        )
        return jax.tree.map(np.asarray, found)

    def choices(self, front_size: int) -> tuple[list[Choice], list[tuple[float, dict[str, Choice]]]]:
        """Returns the fronts of both policies, and for each accuracy level its cheapest networks by name."""
        stats = {p: [getattr(judged, p) for judged in self.selection] for p in POLICY_NAMES}
        default = self.costs[0].latency_s.shape[1] - 1
        fronts = {policy: front_of(judged, self.costs) for policy, judged in stats.items()}
        at_default = {policy: every_plan(judged, self.costs, default) for policy, judged in stats.items()}
        chosen = [
            self._choice(policy, front, int(row))
            for policy, front in fronts.items()
            for row in spread(front.objectives, front_size)
        ]
        levels = []
        static = at_default["ideal"].take(np.flatnonzero(at_default["ideal"].plan == 0))
        static = static.take(non_dominated(static.objectives))
        for error in _level_errors(static):
            row = static.cheapest(error)
            picks = {"static": self._choice("ideal", static, _found(row))}
            for policy in fronts:
                for name, front in (("exits", at_default), ("exits_and_clocks", fronts)):
                    row = front[policy].cheapest(error)
                    picks[f"{policy} {name}"] = self._choice(policy, front[policy], _found(row))
            levels.append((1.0 - error, picks))
        return chosen, levels

    def _choice(self, policy: str, found: Candidates, row: int) -> Choice:
        backbone, plan, point = (int(field[row]) for field in (found.backbone, found.plan, found.point))
        if policy == "deployable":
            return Choice(policy, backbone, plan % self._subsets, plan // self._subsets, point)
        return Choice(policy, backbone, plan, self._level_of(backbone, plan, point), point)

    def _level_of(self, backbone: int, subset: int, point: int) -> int:
        """Returns the cheapest risk level that keeps the static accuracy, or else the lowest level."""
        judged, cost = self.selection[backbone], self.costs[backbone]
        limit = judged.ideal.error[0] + TOLERANCE
        found = [expected(judged.deployable, cost, r * self._subsets + subset, point) for r in range(len(RISK_LEVELS))]
        energy = [energy if error <= limit else np.inf for error, _, energy in found]
        return int(np.argmin(energy))

    def measure(
        self, chosen: list[Choice], levels: list[tuple[float, dict[str, Choice]]]
    ) -> tuple[tuple[Design, ...], tuple[Level, ...]]:
        """Reads the test split, and returns designs and levels with what they do on it."""
        every = chosen + [choice for _, picks in levels for choice in picks.values()]
        used = sorted({choice.backbone for choice in every})
        outcomes = self._evaluate(self.genomes[used], self._splits.test)
        test = {b: self._judge(b, found) for b, found in zip(used, outcomes, strict=True)}
        designs = tuple(self._design(choice, test[choice.backbone]) for choice in chosen)
        built = []
        for accuracy, picks in levels:
            found = {name: self._design(choice, test[choice.backbone]) for name, choice in picks.items()}
            built.append(
                Level(
                    accuracy=accuracy,
                    static=found["static"],
                    exits={p: found[f"{p} exits"] for p in POLICY_NAMES},
                    exits_and_clocks={p: found[f"{p} exits_and_clocks"] for p in POLICY_NAMES},
                )
            )
        return designs, tuple(built)

    def _design(self, choice: Choice, test: Judged) -> Design:
        space, cost = self.space, self.costs[choice.backbone]
        genome = self.genomes[choice.backbone]
        backbone, active = self._backbones[choice.backbone]
        selection = self.selection[choice.backbone]
        members = exit_subsets(space.num_exits)[choice.subset]
        block = np.cumsum(active)[space.first_exit :] - 1
        plan = choice.level * self._subsets + choice.subset
        default = cost.latency_s.shape[1] - 1

        def performances(judged: Judged) -> dict[str, Performance]:
            return {
                "ideal": Performance(*expected(judged.ideal, cost, choice.subset, choice.point)),
                "deployable": Performance(*expected(judged.deployable, cost, plan, choice.point)),
            }

        going_on = test.deployable.weights[plan][: space.num_exits + 1]
        reached = np.append(going_on[:-1][members], going_on[-1])
        after = np.append(going_on[1:][members], 0.0)
        correct = self._outcomes[choice.backbone].correct[:-1]
        clocks = jax.tree.map(lambda hz: float(hz[choice.point]) / 1e6, self._points)
        return Design(
            found_by=choice.found_by,
            genome=tuple(int(g) for g in genome),
            backbone={name: value.tolist() for name, value in vars(backbone).items()},
            exits=tuple(int(i) for i in block[members]),
            thresholds=tuple(float(t) for t in self.thresholds[choice.backbone][choice.level][members]),
            clocks_mhz={
                "core": round(clocks.core_hz, 3),
                "memory": round(clocks.memory_hz, 3),
                "host": round(clocks.host_hz, 3),
            },
            dissimilarity=float(mean_dissimilarity(jnp.asarray(correct), jnp.asarray(members))),
            selection=performances(selection),
            test=performances(test),
            static_selection=Performance(*expected(selection.ideal, cost, 0, default)),
            static_test=Performance(*expected(test.ideal, cost, 0, default)),
            test_shares=tuple(float(share) for share in reached - after),
        )


def _join(a: Outcomes, b: Outcomes) -> Outcomes:
    """Returns the outcomes on the samples of both."""
    return jax.tree.map(lambda x, y: np.concatenate([x, y], axis=-1), a, b)


def pool_of(archive: Archive) -> np.ndarray:
    """Returns the different genomes [P, G] that the inner engine examined, and those on the static front."""
    size = int(archive.size)
    genomes, static = np.asarray(archive.genomes)[:size], np.asarray(archive.static)[:size]
    chosen = np.asarray(archive.examined)[:size].copy()
    chosen[non_dominated(static)] = True
    return np.unique(genomes[chosen], axis=0)


def _level_errors(static: Candidates) -> list[float]:
    """Returns up to `LEVELS` errors of the static front, evenly spaced along it, the lowest first."""
    errors = np.unique(static.objectives[:, 0])
    rows = np.unique(np.linspace(0, len(errors) - 1, LEVELS).round().astype(int))
    return [float(error) for error in errors[rows]]


def _found(row: int | None) -> int:
    if row is None:
        raise ValueError("expected a design of every accuracy level, got none")
    return row
