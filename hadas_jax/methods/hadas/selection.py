"""From a finished search to designs: thresholds on the calibration split, fronts, levels, the test split.

Thresholds are set on the calibration split alone. Designs are then chosen by what they do on the validation and
calibration splits together, the selection samples: the cheapest of millions of designs is easily one that was
lucky on few samples, so as many as can be had take part.

Which networks are shown to be as accurate as static ones is tested on the test split in an order that the selection
samples fix: for each level from the network of the highest level down to its own, until one is not shown. Such a fixed
sequence needs no correction for the number of tests (Maurer, Hothorn and Lehmacher 1995): wherever the first network
stands that is not as accurate, it has to pass its own test for anything false to be said.

Shapes: P backbones of the pool, G genes, E exits, R risk levels, F operating points.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import (
    NO_DIFFERENCE,
    Difference,
    Outcomes,
    accuracy_difference,
    mean_dissimilarity,
    segment_costs,
)
from hadas_jax.methods.hadas.exit_configs import (
    RISK_LEVELS,
    Judged,
    anatomy,
    expected,
    judge,
    listed_plans,
    right_samples,
    thresholds_of,
)
from hadas_jax.methods.hadas.fronts import Candidates, Choice, Choices, PoolFronts, join, merge, spread
from hadas_jax.methods.hadas.inner import MAX_EXACT_EXITS
from hadas_jax.methods.hadas.results import POLICY_NAMES, AsAccurate, Design, Level, Performance, Versus
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, DeploymentSettings
from hadas_jax.spaces import Backbone, MBConvSpace, block_active
from hw_models import Cost, Device, operating_points

TOLERANCE = 0.005  # of accuracy that the thresholds of an ideal design may cost on the selection samples
LEVELS = 4
CLOCKS = ("core", "memory", "host")
EXACT_PLANS = 2**MAX_EXACT_EXITS  # of 13 exits at six risk levels; more take half a minute on two CPU cores
NEAREST = 5  # designs to report where none keeps the limits
Evaluate = Callable[[np.ndarray, LabelledImages], list[Outcomes]]


class Deployment:
    """The pool of backbones of a search, judged for deployment.

    Args:
        space: Of the backbones.
        device: The cost model.
        genomes: int32[P, G].
        splits: The data; `test` is not read before `measure`.
        settings: Policy, thresholds, and what counts as as accurate.
        evaluate: Gives the outcomes of genomes on a split.
        key: Of the evolution for backbones with more than `exact_plans` plans.
        limits: Of the search.
        exact_plans: All exit subsets, each at all shared risk levels, are tried where there are at most so many.
    """

    def __init__(
        self,
        space: MBConvSpace,
        device: Device,
        *,
        genomes: np.ndarray,
        splits: Splits,
        settings: DeploymentSettings,
        evaluate: Evaluate,
        key: jax.Array,
        limits: Constraints = NO_CONSTRAINTS,
        exact_plans: int = EXACT_PLANS,
    ) -> None:
        self.space, self.device, self.genomes = space, device, genomes
        self._splits, self._settings, self._evaluate, self._limits = splits, settings, evaluate, limits
        self._clocks = operating_points(device)
        self._decoded = [jax.tree.map(np.asarray, _decoded(space, jnp.asarray(g))) for g in genomes]
        slots = min(space.num_exits, MAX_EXACT_EXITS)
        costs = [_costs(space, jnp.asarray(g), device) for g in genomes]
        found = [anatomy(space, jnp.asarray(g), cost, slots=slots) for g, cost in zip(genomes, costs, strict=True)]
        self.backbones = [jax.tree.map(np.asarray, backbone) for backbone in found]
        self._pool = PoolFronts(self.backbones, device, key=key, limits=limits, exact_plans=exact_plans)
        calibration = evaluate(genomes, splits.calibration)
        self.thresholds = [np.asarray(thresholds_of(found, policy=settings.policy)) for found in calibration]
        validation = evaluate(genomes, splits.validation)
        outcomes = [_join(a, b) for a, b in zip(validation, calibration, strict=True)]
        self._correct = [found.correct[:-1] for found in outcomes]
        self.selection = [self._judge(b, found) for b, found in enumerate(outcomes)]

    def _judge(self, backbone: int, outcomes: Outcomes) -> Judged:
        found = judge(outcomes, thresholds=jnp.asarray(self.thresholds[backbone]), policy=self._settings.policy)
        return jax.tree.map(np.asarray, found)

    @property
    def default_point(self) -> int:
        """The default operating point, the highest clocks."""
        return self.backbones[0].costs.latency_s.shape[1] - 1

    def choices(self, front_size: int) -> Choices:
        """Chooses designs of the fronts of both policies, and for each accuracy level its cheapest networks."""
        fronts, at_default = {}, {}
        for policy in POLICY_NAMES:
            fronts[policy], at_default[policy] = self._pool.fronts(
                [getattr(judged, policy) for judged in self.selection],
                points=(None, self.default_point),
                per_exit=self._settings.per_exit_thresholds and policy == "deployable",
            )
        within, chosen = {}, []
        for policy, front in fronts.items():
            rows, within[policy] = self._reported(front, front_size)
            chosen += [self._choice(policy, front, row) for row in rows]
        levels = []
        static, static_dvfs = self._static(), join([self._clocked(b) for b in range(len(self.backbones))])
        for error in _level_errors(static):
            picks = {
                "static": self._cheapest("ideal", static, error),
                "static_dvfs": self._cheapest("ideal", static_dvfs, error),
            }
            for policy in POLICY_NAMES:
                picks[f"{policy} exits"] = self._cheapest(policy, at_default[policy], error)
                picks[f"{policy} exits_and_clocks"] = self._cheapest(policy, fronts[policy], error)
            levels.append((1.0 - error, picks))
        return Choices(chosen, levels, within)

    def _reported(self, front: Candidates, front_size: int) -> tuple[list[int], bool]:
        """Returns the rows to report, and whether they keep the limits."""
        excess = front.excess(self._limits)
        kept = np.flatnonzero(excess == 0)
        if not len(kept):
            return np.argsort(excess, kind="stable")[:NEAREST].tolist(), False
        return kept[spread(front.objectives[kept], front_size)].tolist(), True

    def _static(self) -> Candidates:
        """Returns the front of the backbones without exits at the default clocks."""
        pool, exits = len(self.backbones), self.space.num_exits
        levels, point = np.zeros((pool, exits), np.int32), np.full(pool, self.default_point)
        objectives = [self._performance("ideal", b, levels[b], self.default_point) for b in range(pool)]
        found = np.array([(p.error, p.latency_s, p.energy_j) for p in objectives], np.float32)
        return merge([Candidates(np.arange(pool), levels, point, found)])

    def _clocked(self, backbone: int) -> Candidates:
        """Returns a backbone without exits at all operating points that it may need."""
        anatomy, exits = self.backbones[backbone], self.space.num_exits
        points = anatomy.points[anatomy.points >= 0]
        levels = np.zeros((len(points), exits), np.int32)
        error = self._performance("ideal", backbone, levels[0], self.default_point).error
        costs = (anatomy.costs.latency_s, anatomy.costs.energy_j)
        latency, energy = (np.asarray(cost[: exits + 1, points], np.float64).sum(axis=0) for cost in costs)
        found = np.stack([np.full(len(points), error), latency, energy], axis=1).astype(np.float32)
        return Candidates(np.full(len(points), backbone), levels, points, found)

    def _cheapest(self, policy: str, found: Candidates, max_error: float) -> Choice:
        row = found.cheapest(max_error, limits=self._limits)
        if row is None:
            raise ValueError("expected a design of every accuracy level, got none")
        return self._choice(policy, found, row)

    def _choice(self, policy: str, found: Candidates, row: int) -> Choice:
        backbone, point, levels = int(found.backbone[row]), int(found.point[row]), found.levels[row]
        if policy == "ideal":
            levels = self._leveled(backbone, levels, point)
        excess = float(found.take(np.array([row])).excess(self._limits)[0])
        return Choice(policy, backbone, levels, point, excess)

    def _leveled(self, backbone: int, chosen: np.ndarray, point: int) -> np.ndarray:
        """Gives all exits the cheapest risk level that keeps the static accuracy, or else the lowest level."""
        limit = self._performance("ideal", backbone, np.zeros_like(chosen), point).error + TOLERANCE
        plans = chosen[None] * np.arange(1, len(RISK_LEVELS) + 1, dtype=np.int32)[:, None]
        found = [self._performance("deployable", backbone, plan, point) for plan in plans]
        return plans[int(np.argmin([p.energy_j if p.error <= limit else np.inf for p in found]))]

    def _performance(
        self, policy: str, backbone: int, levels: np.ndarray, point: int, judged: Judged | None = None
    ) -> Performance:
        """What a plan does on a split, by default on the selection samples."""
        judged = judged or self.selection[backbone]
        plan = np.minimum(levels, 1) if policy == "ideal" else levels
        stats = listed_plans(getattr(judged, policy), jnp.asarray(plan[None]))
        return Performance(*expected(stats, self.backbones[backbone].costs, 0, point))

    def measure(self, choices: Choices) -> tuple[tuple[Design, ...], tuple[Level, ...]]:
        """Reads the test split, and returns designs and levels with what they do on it."""
        every = choices.designs + [choice for _, picks in choices.levels for choice in picks.values()]
        used = sorted({choice.backbone for choice in every})
        outcomes = self._evaluate(self.genomes[used], self._splits.test)
        test = {b: self._judge(b, found) for b, found in zip(used, outcomes, strict=True)}
        designs = tuple(self._design(choice, test[choice.backbone]) for choice in choices.designs)
        built = [self._level(choices.levels[: index + 1], test) for index in range(len(choices.levels))]
        return designs, tuple(built)

    def _level(self, levels: list[tuple[float, dict[str, Choice]]], test: dict[int, Judged]) -> Level:
        """The last of some levels, from the highest accuracy down."""
        accuracy, picks = levels[-1]
        found = {name: self._design(choice, test[choice.backbone]) for name, choice in picks.items()}

        def versus(choice: Choice, policy: str) -> Versus:
            return Versus(
                *(_difference(test, (choice, policy), (picks[name], "ideal")) for name in ("static", "static_dvfs"))
            )

        shown = None
        for higher, others in levels:
            choice = others["deployable exits_and_clocks"]
            against = versus(choice, "deployable")
            if not against.is_shown(self._settings.accuracy_tolerance):
                break
            shown = AsAccurate(higher, self._design(choice, test[choice.backbone]), against)
        policies = {name: "ideal" if name.startswith("static") else name.partition(" ")[0] for name in picks}
        return Level(
            accuracy=accuracy,
            static=found["static"],
            static_dvfs=found["static_dvfs"],
            exits={p: found[f"{p} exits"] for p in POLICY_NAMES},
            exits_and_clocks={p: found[f"{p} exits_and_clocks"] for p in POLICY_NAMES},
            versus={name: versus(picks[name], policy) for name, policy in policies.items()},
            as_accurate=shown,
        )

    def _design(self, choice: Choice, test: Judged) -> Design:
        space, index = self.space, choice.backbone
        backbone, active = self._decoded[index]
        members = choice.levels > 0
        block = np.cumsum(active)[space.first_exit :] - 1
        thresholds = self.thresholds[index][np.maximum(choice.levels - 1, 0), np.arange(space.num_exits)]
        by_clocks = self._clocked(index)
        best = int(by_clocks.point[by_clocks.cheapest(1.0, limits=self._limits)])
        without = Choice("ideal", index, np.zeros_like(choice.levels), self.default_point, 0.0)

        def shares(judged: Judged) -> tuple[float, ...]:
            going_on = np.asarray(listed_plans(judged.deployable, jnp.asarray(choice.levels[None])).weights[0])
            reached = np.append(going_on[: space.num_exits][members], going_on[space.num_exits])
            after = np.append(going_on[1 : space.num_exits + 1][members], 0.0)
            return tuple((reached - after).tolist())

        def performances(judged: Judged) -> dict[str, Performance]:
            return {p: self._performance(p, index, choice.levels, choice.point, judged) for p in POLICY_NAMES}

        def static(judged: Judged, point: int) -> Performance:
            return self._performance("ideal", index, without.levels, point, judged)

        selection = self.selection[index]
        return Design(
            found_by=choice.found_by,
            genome=tuple(int(g) for g in self.genomes[index]),
            backbone={name: value.tolist() for name, value in vars(backbone).items()},
            exits=tuple(int(i) for i in block[members]),
            thresholds=tuple(float(t) for t in thresholds[members]),
            clocks_mhz=self._clocks_mhz(choice.point),
            dissimilarity=float(mean_dissimilarity(jnp.asarray(self._correct[index]), jnp.asarray(members))),
            selection=performances(selection),
            test=performances(test),
            static_selection=static(selection, self.default_point),
            static_test=static(test, self.default_point),
            static_dvfs_selection=static(selection, best),
            static_dvfs_test=static(test, best),
            static_dvfs_clocks_mhz=self._clocks_mhz(best),
            differences={p: _difference({index: test}, (choice, p), (without, "ideal")) for p in POLICY_NAMES},
            selection_shares=shares(selection),
            test_shares=shares(test),
            excess=choice.excess,
        )

    def _clocks_mhz(self, point: int) -> dict[str, float]:
        return {name: round(float(getattr(self._clocks, f"{name}_hz")[point]) / 1e6, 3) for name in CLOCKS}


def _difference(test: dict[int, Judged], first: tuple[Choice, str], second: tuple[Choice, str]) -> Difference:
    """Compares two designs, each under a policy, on the test split; clocks make no difference."""
    (a, policy), (b, other) = first, second
    if a.backbone == b.backbone and np.array_equal(a.levels, b.levels) and (policy == other or not a.levels.any()):
        return NO_DIFFERENCE
    right, samples = _right(test[a.backbone], a.levels, policy)
    others, _ = _right(test[b.backbone], b.levels, other)
    gained, lost = (int(np.bitwise_count(words).sum()) for words in (right & ~others, others & ~right))
    return accuracy_difference(gained, lost, images=samples)


def _right(judged: Judged, levels: np.ndarray, policy: str) -> tuple[np.ndarray, int]:
    """The samples that a plan gets right, uint32[W], and how many samples there are."""
    plan, stops = np.minimum(levels, 1) if policy == "ideal" else levels, getattr(judged, policy)
    return np.asarray(right_samples(stops, jnp.asarray(plan[None], jnp.int32)))[0], stops.samples


@partial(jax.jit, static_argnames="space")
def _decoded(space: MBConvSpace, genome: jax.Array) -> tuple[Backbone, jax.Array]:
    """A backbone, and which block positions it uses."""
    return space.decode(genome), block_active(space, space.decode(genome))


@partial(jax.jit, static_argnames="space")
def _costs(space: MBConvSpace, genome: jax.Array, device: Device) -> Cost:
    return segment_costs(space, space.decode(genome), device)


def _join(a: Outcomes, b: Outcomes) -> Outcomes:
    """Returns the outcomes on the samples of both."""
    return jax.tree.map(lambda x, y: np.concatenate([x, y], axis=-1), a, b)


def _level_errors(static: Candidates) -> list[float]:
    """Returns up to `LEVELS` errors of the static front, evenly spaced along it, the lowest first."""
    errors = np.unique(static.objectives[:, 0])
    rows = np.unique(np.linspace(0, len(errors) - 1, LEVELS).round().astype(int))
    return [float(error) for error in errors[rows]]
