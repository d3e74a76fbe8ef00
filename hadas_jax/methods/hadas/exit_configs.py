"""Plans of one backbone: which exits it runs, each at which risk level, and what follows for the samples of a split.

A plan has one entry per exit: 0 for no exit, else the exit's risk level from 1 on; under the ideal mapping there is
one level. Who stops where is kept as bit sets, so that a plan is judged without its network.
Shapes: G genes, R risk levels, E exits of the space, K slots for those of a backbone, W words of a bit set, N samples,
M plans, D = 2 E + 1 segments, F operating points. Costs are of one sample, in seconds and joules.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.evaluation import (
    ActiveExits,
    Outcomes,
    SubsetStats,
    active_costs,
    active_exits,
    active_outcomes,
    calibrate_thresholds,
    count_bits,
    ideal_stops,
    pack_bits,
    scores,
    subset_stats,
    threshold_stops,
    useful_points,
)
from hadas_jax.spaces import MBConvSpace, available_exits
from hw_models import Cost

_Carry = tuple[jax.Array, jax.Array]
RISK_LEVELS = (0.004, 0.0075, 0.0125, 0.02, 0.03, 0.05)  # shares of samples that one exit may harm


@struct.dataclass
class Anatomy:
    """The exits of a backbone and the costs of its segments.

    Attributes:
        available: bool[E].
        own: Its exits in K slots.
        costs: float32[D, F].
        points: int32[F], operating points that some plan may need, and -1 behind them.
    """

    available: jax.Array
    own: ActiveExits
    costs: Cost
    points: jax.Array


@struct.dataclass
class Stops:
    """Who would stop where on one split.

    Attributes:
        stops: uint32[R, E, W], bit sets of the samples that would stop at each exit under each risk level.
        correct: uint32[E + 1, W], samples that each exit, and last the classifier, gets right.
        samples: N, static.
    """

    stops: jax.Array
    correct: jax.Array
    samples: int = struct.field(pytree_node=False)


@struct.dataclass
class Judged:
    """A backbone on one split: `Stops` under the ideal mapping (R = 1) and under thresholds."""

    ideal: Stops
    deployable: Stops


@partial(jax.jit, static_argnames=("space", "slots"))
def anatomy(space: MBConvSpace, genome: jax.Array, costs: Cost, *, slots: int) -> Anatomy:
    """Returns the anatomy of a backbone int32[G] with segment costs float32[D, F]; `slots` is K, static."""
    available = available_exits(space, space.decode(genome))
    own = active_exits(available, slots=slots)
    all_slots = active_exits(available, slots=space.num_exits)
    return Anatomy(available, own, costs, useful_points(active_costs(costs, available, all_slots)))


@partial(jax.jit, static_argnames="policy")
def thresholds_of(outcomes: Outcomes, *, policy: str) -> jax.Array:
    """Returns float32[R, E]: thresholds set on the outcomes of the calibration split."""
    return calibrate_thresholds(scores(outcomes, policy), outcomes.correct, jnp.asarray(RISK_LEVELS))


@partial(jax.jit, static_argnames="policy")
def judge(outcomes: Outcomes, *, thresholds: jax.Array, policy: str) -> Judged:
    """Finds who stops where.

    Args:
        outcomes: Of one backbone on a split.
        thresholds: float32[R, E], from the calibration split.
        policy: The score that thresholds compare with, static.
    """
    samples = outcomes.correct.shape[-1]
    correct, score = pack_bits(outcomes.correct), scores(outcomes, policy)
    levels = jax.vmap(lambda threshold: pack_bits(threshold_stops(score, threshold)))(thresholds)
    ideal = pack_bits(ideal_stops(outcomes))[None]
    return Judged(ideal=Stops(ideal, correct, samples), deployable=Stops(levels, correct, samples))


@jax.jit
def subset_plans(stops: Stops, backbone: Anatomy) -> SubsetStats:
    """Judges all subsets of the exits in a backbone's slots, all exits of a plan at one level.

    Args:
        stops: Of the levels to judge.
        backbone: With at most K exits.

    Returns:
        Stats of R 2^K plans, the subset (of slots) changing fastest; an infinite error where there is no such plan.
    """
    own, (levels, exits, _) = backbone.own, stops.stops.shape
    slots = len(own.used)
    moved = jnp.concatenate([active_outcomes(stops.correct[:-1], own), stops.correct[-1:]])
    plans = jnp.left_shift(jnp.int32(1), own.count)
    own_stops = jax.vmap(lambda words: active_outcomes(words, own))(stops.stops)
    # The trunk between two of the backbone's exits is run as often as the first segment of it.
    before = jnp.minimum(jnp.cumsum(jnp.pad(backbone.available.astype(jnp.int32), (1, 0))), slots)

    def one_level(words: jax.Array) -> SubsetStats:
        stats = subset_stats(words, moved, own.used, samples=stops.samples, plans=plans)
        heads = jnp.zeros((len(stats.error), exits), jnp.float32)
        heads = heads.at[:, own.position].set(stats.weights[:, slots + 1 :], mode="drop")
        return SubsetStats(stats.error, jnp.concatenate([stats.weights[:, : slots + 1][:, before], heads], axis=1))

    found = jax.lax.map(one_level, own_stops)
    return jax.tree.map(lambda leaf: leaf.reshape(levels * 2**slots, *leaf.shape[2:]), found)


def subset_levels(plans: np.ndarray, own: ActiveExits, exits: int) -> np.ndarray:
    """Returns int32[M, E]: the plans that indices into `subset_plans` stand for."""
    position = np.asarray(own.position)[np.asarray(own.used)]
    level, subset = np.divmod(plans, 2 ** len(own.used))
    members = (subset[:, None] >> np.arange(len(position))[None]) & 1
    levels = np.zeros((len(plans), exits), np.int32)
    levels[:, position] = members * (level[:, None] + 1)
    return levels


@jax.jit
def listed_plans(stops: Stops, levels: jax.Array) -> SubsetStats:
    """Judges plans one by one, each exit at its own risk level.

    Args:
        stops: R levels.
        levels: int32[M, E], of exits that the backbone has.

    Returns:
        Stats of the M plans.
    """
    right, stopped, going_on = _walked(stops, levels)
    trunk = jnp.concatenate([going_on, (stops.samples - count_bits(stopped))[None]]).T.astype(jnp.float32)
    trunk = trunk / stops.samples
    return SubsetStats(
        error=(stops.samples - count_bits(right)).astype(jnp.float32) / stops.samples,
        weights=jnp.concatenate([trunk, trunk[:, :-1] * (levels > 0).astype(jnp.float32)], axis=1),
    )


@jax.jit
def right_samples(stops: Stops, levels: jax.Array) -> jax.Array:
    """Returns uint32[M, W]: bit sets of the samples that plans int32[M, E] get right, see `listed_plans`."""
    return _walked(stops, levels)[0]


def _walked(stops: Stops, levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Who is right, uint32[M, W], who stops at an exit, uint32[M, W], and how many reach each exit, int32[E, M]."""
    nobody = jnp.zeros((len(levels), stops.correct.shape[1]), jnp.uint32)

    def step(carry: _Carry, exit: tuple[jax.Array, ...]) -> tuple[_Carry, jax.Array]:
        stopped, won = carry
        level, words, correct = exit
        newly = jnp.where((level > 0)[:, None], words[jnp.maximum(level - 1, 0)], jnp.uint32(0)) & ~stopped
        return (stopped | newly, won | (newly & correct[None])), stops.samples - count_bits(stopped)

    exits: tuple[jax.Array, ...] = (levels.T, jnp.moveaxis(stops.stops, 1, 0), stops.correct[:-1])
    (stopped, won), going_on = jax.lax.scan(step, (nobody, nobody), exits)
    return won | (stops.correct[-1][None] & ~stopped), stopped, going_on


def expected(stats: SubsetStats, cost: Cost, plan: int, point: int) -> tuple[float, float, float]:
    """Returns error, latency_s and energy_j of one plan of one backbone at one operating point."""
    weights = np.asarray(stats.weights[plan], np.float64)
    return (
        float(stats.error[plan]),
        float(weights @ np.asarray(cost.latency_s[:, point], np.float64)),
        float(weights @ np.asarray(cost.energy_j[:, point], np.float64)),
    )
