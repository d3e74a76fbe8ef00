"""From a finished search to designs: thresholds on the calibration split, fronts, levels, the test split.

Thresholds are set on the calibration split alone (`set_thresholds`). Designs are then chosen (`choose`) by what they do
on the validation and calibration splits together, the selection samples: the cheapest of millions of designs is easily
one that was lucky on few samples, so as many as can be had take part. The test split is read last (`measure`).

Which networks are shown to be as accurate as static ones is tested on the test split in an order that the selection
samples fix: for each level from the network of the highest level down to its own, until one is not shown. Such a fixed
sequence needs no correction for the number of tests (Maurer, Hothorn and Lehmacher 1995): wherever the first network
stands that is not as accurate, it has to pass its own test for anything false to be said.

Shapes: P backbones of the pool, G genes, E exits, R risk levels, F operating points.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import NO_DIFFERENCE, Difference, Outcomes, accuracy_difference, segment_costs
from hadas_jax.evaluation.early_exit import mean_dissimilarity, path_costs
from hadas_jax.evaluation.evaluator import of_each
from hadas_jax.evaluation.score_quality import ScoreQuality, score_quality
from hadas_jax.methods.hadas.constraints import ConfigLimits
from hadas_jax.methods.hadas.exit_configs import RISK_LEVELS, DynamicBackbone, PolicyStops, risk_thresholds
from hadas_jax.methods.hadas.fronts import EXACT_CONFIGS, Candidates, pool_fronts
from hadas_jax.methods.hadas.inner import exit_count
from hadas_jax.methods.hadas.results import POLICY_NAMES, AsAccurate, Design, Level, Percentiles, Performance, Versus
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, FormatName
from hadas_jax.spaces import AnySpace, available_exits, block_active
from hadas_jax.spaces.footprint import footprint
from hadas_jax.spaces.mbconv import MAX_EXITS
from hw_models import Device, NumberFormat, operating_points

TOLERANCE = 0.005  # of accuracy that the thresholds of an ideal design may cost on the selection samples
LEVELS = 4
NEAREST = 5  # designs to report where none keeps the constraints
FORMAT_NAMES: dict[NumberFormat, FormatName] = {
    NumberFormat.FP32: "fp32",
    NumberFormat.FP16: "fp16",
    NumberFormat.INT8: "int8",
}

# Backbones int32[N, G] and images -> their outcomes, leading axis N.
Evaluate = Callable[[np.ndarray, LabelledImages], Outcomes]


@dataclass(frozen=True)
class Pool:
    """The backbones of a search with their thresholds, and what they do on the selection samples.

    Attributes:
        space: Of the backbones.
        device: The cost model.
        genomes: int32[P, G].
        backbones: Their active exits and costs.
        policy: The score that thresholds compare with.
        thresholds: float32[R, E] of each backbone.
        selection: Who stops where on the selection samples.
        limits: Of the search.
    """

    space: AnySpace
    device: Device
    genomes: np.ndarray
    backbones: list[DynamicBackbone]
    policy: str
    thresholds: list[np.ndarray]
    selection: list[PolicyStops]
    limits: Constraints

    @property
    def default_point(self) -> int:
        """The default operating point, the highest clocks."""
        return self.backbones[0].costs.latency_s.shape[1] - 1

    def stops(self, backbone: int, outcomes: Outcomes) -> PolicyStops:
        """Returns who stops where on a split, from the outcomes of one backbone."""
        found = PolicyStops.of(outcomes, thresholds=jnp.asarray(self.thresholds[backbone]), policy=self.policy)
        return jax.tree.map(np.asarray, found)

    def performance(
        self, policy: str, backbone: int, exits: np.ndarray, point: int, stops: PolicyStops | None = None
    ) -> Performance:
        """Returns what an exit configuration does on a split, by default on the selection samples.

        Args:
            policy: Ideal or deployable.
            backbone: Index in the pool.
            exits: int32[E].
            point: Operating point.
            stops: Of the backbone on another split.
        """
        stats = getattr(stops or self.selection[backbone], policy).evaluate(_under(policy, exits))
        return Performance(*stats.expected(self.backbones[backbone].costs, 0, point))

    def without_exits(self, backbone: int, *, all_points: bool = False) -> Candidates:
        """Returns a backbone without exits at the default operating point, or at all points that it may need."""
        exits, known = self.space.num_exits, self.backbones[backbone]
        points = np.asarray(known.points)[known.points >= 0] if all_points else np.array([self.default_point])
        none = np.zeros((len(points), exits), np.int32)
        error = self.performance("ideal", backbone, none[0], self.default_point).error
        latency, energy = (
            np.asarray(cost[: exits + 1, points], np.float64).sum(axis=0)
            for cost in (known.costs.latency_s, known.costs.energy_j)
        )
        objectives = np.stack([np.full(len(points), error), latency, energy], axis=1).astype(np.float32)
        limits, excess = ConfigLimits.of(self.limits, self.device), np.zeros(len(points))
        if limits is not None:
            sizes = float(limits.size_excess(known.footprint, jnp.zeros(exits, bool)))
            excess = np.maximum(np.maximum(limits.excess(latency), sizes), 0)
        return Candidates(np.full(len(points), backbone), none, points, objectives, excess.astype(np.float32))

    def clocks_mhz(self, point: int) -> dict[str, float]:
        """Returns the core, memory and host clock of an operating point."""
        clocks = operating_points(self.device)
        return {
            name: round(float(getattr(clocks, f"{name}_hz")[point]) / 1e6, 3) for name in ("core", "memory", "host")
        }


@dataclass(frozen=True)
class Choice:
    """A design by its indices.

    Attributes:
        found_by: Policy.
        backbone: Of the pool.
        exits: int32[E], the exit configuration: 0 for no exit, else its risk level from 1 on.
        point: Operating point.
        violation: Of the constraints under its policy, 0 within.
    """

    found_by: str
    backbone: int
    exits: np.ndarray
    point: int
    violation: float


@dataclass(frozen=True)
class Choices:
    """What to report.

    Attributes:
        designs: Of the fronts of both policies.
        levels: Accuracy levels, each with its cheapest networks by name.
        within: By policy, whether the designs keep the constraints; otherwise they are those nearest to them.
    """

    designs: list[Choice]
    levels: list[tuple[float, dict[str, Choice]]]
    within: dict[str, bool]


def set_thresholds(
    space: AnySpace,
    device: Device,
    genomes: np.ndarray,
    *,
    splits: Splits,
    policy: str,
    evaluate: Evaluate,
    limits: Constraints = NO_CONSTRAINTS,
) -> Pool:
    """Sets the thresholds of some backbones on the calibration split, and evaluates them on the selection samples.

    Args:
        space: Of the backbones.
        device: The cost model.
        genomes: int32[P, G].
        splits: The data; `test` is not read.
        policy: Of the thresholds.
        evaluate: Gives the outcomes of genomes on a split.
        limits: Of the search.
    """
    backbones = []
    for genome in genomes:
        slots = MAX_EXITS if exit_count(space, genome) <= MAX_EXITS else space.num_exits
        backbone = _dynamic_backbone(space, jnp.asarray(genome), device, slots=min(slots, space.num_exits))
        backbones.append(jax.tree.map(np.asarray, backbone))
    calibration = evaluate(genomes, splits.calibration)
    thresholds = [np.asarray(risk_thresholds(outcomes, policy=policy)) for outcomes in of_each(calibration)]
    validation = evaluate(genomes, splits.validation)
    both = jax.tree.map(lambda *parts: np.concatenate(parts, axis=-1), validation, calibration)
    pool = Pool(space, device, genomes, backbones, policy, thresholds, [], limits)
    return dataclasses.replace(pool, selection=[pool.stops(b, outcomes) for b, outcomes in enumerate(of_each(both))])


@partial(jax.jit, static_argnames=("space", "slots"))
def _dynamic_backbone(space: AnySpace, genome: jax.Array, device: Device, *, slots: int) -> DynamicBackbone:
    backbone = space.decode(genome)
    available, costs = available_exits(space, backbone), segment_costs(space, backbone, device)
    return DynamicBackbone.of(available, costs, footprint=footprint(space, backbone), slots=slots)


def choose(
    pool: Pool,
    *,
    front_size: int,
    key: jax.Array,
    per_exit_thresholds: bool = False,
    exact_configs: int = EXACT_CONFIGS,
) -> Choices:
    """Chooses designs of the fronts of both policies, and for each accuracy level its cheapest networks.

    Args:
        pool: The backbones.
        front_size: Designs of each front, at most.
        key: Of the evolution for backbones with more than `exact_configs` exit configurations.
        per_exit_thresholds: Search the risk level of each exit by itself.
        exact_configs: All exit subsets, each at all shared risk levels, are tried where there are at most so many.
    """
    fronts, at_default = {}, {}
    for policy in POLICY_NAMES:
        fronts[policy], at_default[policy] = pool_fronts(
            pool.backbones,
            [getattr(stops, policy) for stops in pool.selection],
            pool.device,
            key=key,
            limits=pool.limits,
            points=(None, pool.default_point),
            per_exit=per_exit_thresholds and policy == "deployable",
            exact_configs=exact_configs,
        )
    within, designs = {}, []
    for policy, front in fronts.items():
        violation = front.violation(pool.limits)
        kept = np.flatnonzero(violation == 0)
        within[policy] = bool(len(kept))
        nearest = np.argsort(violation, kind="stable")[:NEAREST]
        rows = kept[front.take(kept).spread(front_size)] if within[policy] else nearest
        designs += [_choice(pool, policy, front, row) for row in rows.tolist()]
    levels = []
    backbones = range(len(pool.backbones))
    static = Candidates.join([pool.without_exits(b) for b in backbones]).front()
    static_dvfs = Candidates.join([pool.without_exits(b, all_points=True) for b in backbones])
    for error in _level_errors(static):
        picks = {
            "static": _cheapest(pool, "ideal", static, error),
            "static_dvfs": _cheapest(pool, "ideal", static_dvfs, error),
        }
        for policy in POLICY_NAMES:
            picks[f"{policy} exits"] = _cheapest(pool, policy, at_default[policy], error)
            picks[f"{policy} exits_and_clocks"] = _cheapest(pool, policy, fronts[policy], error)
        levels.append((1.0 - error, picks))
    return Choices(designs, levels, within)


def _level_errors(static: Candidates) -> list[float]:
    """Returns up to `LEVELS` errors of the static front, evenly spaced along it, the lowest first."""
    errors = np.unique(static.objectives[:, 0])
    rows = np.unique(np.linspace(0, len(errors) - 1, LEVELS).round().astype(int))
    return [float(error) for error in errors[rows]]


def _cheapest(pool: Pool, policy: str, candidates: Candidates, max_error: float) -> Choice:
    row = candidates.cheapest(max_error, limits=pool.limits)
    if row is None:
        raise ValueError("expected a design of every accuracy level, got none")
    return _choice(pool, policy, candidates, row)


def _choice(pool: Pool, policy: str, candidates: Candidates, row: int) -> Choice:
    backbone, point, exits = int(candidates.backbone[row]), int(candidates.point[row]), candidates.exits[row]
    if policy == "ideal":
        exits = _with_risk_level(pool, backbone, exits, point)
    violation = float(candidates.take(np.array([row])).violation(pool.limits)[0])
    return Choice(policy, backbone, exits, point, violation)


def _with_risk_level(pool: Pool, backbone: int, chosen: np.ndarray, point: int) -> np.ndarray:
    """Gives all exits the cheapest risk level that keeps the static accuracy, or else the lowest level."""
    most = pool.performance("ideal", backbone, np.zeros_like(chosen), point).error + TOLERANCE
    configs = chosen[None] * np.arange(1, len(RISK_LEVELS) + 1, dtype=np.int32)[:, None]
    found = [pool.performance("deployable", backbone, exits, point) for exits in configs]
    return configs[int(np.argmin([p.energy_j if p.error <= most else np.inf for p in found]))]


def _under(policy: str, exits: np.ndarray) -> jax.Array:
    """One exit configuration as int32[1, E]; under the ideal mapping there is one level."""
    return jnp.asarray((np.minimum(exits, 1) if policy == "ideal" else exits)[None], jnp.int32)


def measure(
    pool: Pool, choices: Choices, *, test: LabelledImages, evaluate: Evaluate, accuracy_tolerance: float = 0.005
) -> tuple[tuple[Design, ...], tuple[Level, ...]]:
    """Reads the test split, and returns designs and levels with what they do on it.

    Args:
        pool: The backbones.
        choices: Of them.
        test: The test split.
        evaluate: Gives the outcomes of genomes on a split.
        accuracy_tolerance: Share of test images by which a network may be less accurate and still be as accurate.
    """
    every = choices.designs + [choice for _, picks in choices.levels for choice in picks.values()]
    used = sorted({choice.backbone for choice in every})
    outcomes = of_each(evaluate(pool.genomes[used], test))
    stops = {b: pool.stops(b, one) for b, one in zip(used, outcomes, strict=True)}
    qualities = {b: score_quality(one, pool.policy) for b, one in zip(used, outcomes, strict=True)}
    designs = tuple(_design(pool, choice, stops, qualities) for choice in choices.designs)
    levels = [
        _level(pool, choices.levels[: index + 1], stops, qualities, accuracy_tolerance)
        for index in range(len(choices.levels))
    ]
    return designs, tuple(levels)


def _level(
    pool: Pool,
    levels: list[tuple[float, dict[str, Choice]]],
    test: dict[int, PolicyStops],
    qualities: dict[int, ScoreQuality],
    tolerance: float,
) -> Level:
    """The last of some levels, from the highest accuracy down."""
    accuracy, picks = levels[-1]
    designs = {name: _design(pool, choice, test, qualities) for name, choice in picks.items()}

    def versus(choice: Choice, policy: str) -> Versus:
        return Versus(
            *(_difference(test, (choice, policy), (picks[name], "ideal")) for name in ("static", "static_dvfs"))
        )

    shown = None
    for higher, others in levels:
        choice = others["deployable exits_and_clocks"]
        against = versus(choice, "deployable")
        if not against.is_shown(tolerance):
            break
        shown = AsAccurate(higher, _design(pool, choice, test, qualities), against)
    policies = {name: "ideal" if name.startswith("static") else name.partition(" ")[0] for name in picks}
    return Level(
        accuracy=accuracy,
        static=designs["static"],
        static_dvfs=designs["static_dvfs"],
        exits={p: designs[f"{p} exits"] for p in POLICY_NAMES},
        exits_and_clocks={p: designs[f"{p} exits_and_clocks"] for p in POLICY_NAMES},
        versus={name: versus(picks[name], policy) for name, policy in policies.items()},
        as_accurate=shown,
    )


def _design(pool: Pool, choice: Choice, test: dict[int, PolicyStops], qualities: dict[int, ScoreQuality]) -> Design:
    space, index, chosen = pool.space, choice.backbone, choice.exits > 0
    backbone = jax.tree.map(np.asarray, space.decode(jnp.asarray(pool.genomes[index])))
    block = np.cumsum(np.asarray(block_active(space, backbone)))[space.first_exit :] - 1
    thresholds = pool.thresholds[index][np.maximum(choice.exits - 1, 0), np.arange(space.num_exits)]
    by_clocks = pool.without_exits(index, all_points=True)
    best = int(by_clocks.point[by_clocks.cheapest(1.0, limits=pool.limits)])
    without = Choice("ideal", index, np.zeros_like(choice.exits), pool.default_point, 0.0)

    def shares(stops: PolicyStops, policy: str = "deployable") -> tuple[float, ...]:
        reached = np.asarray(getattr(stops, policy).evaluate(_under(policy, choice.exits)).frequencies[0])
        here = np.append(reached[: space.num_exits][chosen], reached[space.num_exits])
        after = np.append(reached[1 : space.num_exits + 1][chosen], 0.0)
        return tuple((here - after).tolist())

    def performances(stops: PolicyStops) -> dict[str, Performance]:
        return {p: pool.performance(p, index, choice.exits, choice.point, stops) for p in POLICY_NAMES}

    def percentiles(stops: PolicyStops) -> dict[str, Percentiles]:
        latency = path_costs(pool.backbones[index].costs.latency_s[:, choice.point], np.flatnonzero(chosen))
        return {policy: Percentiles.of(shares(stops, policy), latency) for policy in POLICY_NAMES}

    def static(stops: PolicyStops, point: int) -> Performance:
        return pool.performance("ideal", index, without.exits, point, stops)

    on_selection, on_test = pool.selection[index], test[index]
    size = pool.backbones[index].footprint
    number_format = NumberFormat(pool.device.formats[0] if backbone.number_format is None else backbone.number_format)
    element_bytes = number_format.element_bytes
    return Design(
        found_by=choice.found_by,
        genome=tuple(int(g) for g in pool.genomes[index]),
        backbone={name: value.tolist() for name, value in vars(backbone).items() if name != "number_format"},
        exits=tuple(int(i) for i in block[chosen]),
        thresholds=tuple(float(t) for t in thresholds[chosen]),
        clocks_mhz=pool.clocks_mhz(choice.point),
        dissimilarity=float(mean_dissimilarity(jnp.asarray(on_selection.ideal.correct[:-1]), jnp.asarray(chosen))),
        selection=performances(on_selection),
        test=performances(on_test),
        static_selection=static(on_selection, pool.default_point),
        static_test=static(on_test, pool.default_point),
        static_dvfs_selection=static(on_selection, best),
        static_dvfs_test=static(on_test, best),
        static_dvfs_clocks_mhz=pool.clocks_mhz(best),
        differences={p: _difference(test, (choice, p), (without, "ideal")) for p in POLICY_NAMES},
        selection_shares=shares(on_selection),
        test_shares=shares(on_test),
        excess=choice.violation,
        point=choice.point,
        selection_percentiles=percentiles(on_selection),
        test_percentiles=percentiles(on_test),
        peak_memory_bytes=element_bytes * int(size.memory(jnp.asarray(chosen))),
        weight_bytes=element_bytes * int(size.weights(jnp.asarray(chosen))),
        test_aurocs=tuple(qualities[index].aurocs[exit] for exit in np.flatnonzero(chosen)),
        test_eces=tuple(qualities[index].eces[exit] for exit in np.flatnonzero(chosen)),
        number_format=FORMAT_NAMES[number_format],
    )


def _difference(test: dict[int, PolicyStops], first: tuple[Choice, str], second: tuple[Choice, str]) -> Difference:
    """Compares two designs, each under a policy, on the test split; clocks make no difference."""
    (a, policy), (b, other) = first, second
    if a.backbone == b.backbone and np.array_equal(a.exits, b.exits) and (policy == other or not a.exits.any()):
        return NO_DIFFERENCE
    right, others = (
        np.asarray(getattr(test[choice.backbone], name).right(_under(name, choice.exits)))[0]
        for choice, name in (first, second)
    )
    gained, lost = (int(np.bitwise_count(words).sum()) for words in (right & ~others, others & ~right))
    return accuracy_difference(gained, lost, images=test[a.backbone].ideal.samples)
