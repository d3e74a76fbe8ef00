"""Exit configurations of one backbone: which exits it runs, each at which risk level, and what that does to a split.

An exit configuration has one entry per exit: 0 for no exit, else the exit's risk level from 1 on; under the ideal
mapping there is one level. Who stops where is kept as bit sets, so that a configuration is evaluated without its
network: all subsets of the exits at once (`DynamicBackbone.evaluate_subsets`), or listed ones (`Stops.evaluate`).
Shapes: G genes, R risk levels, E exits of the space, K slots for the active exits of a backbone, W words of a bit set,
N samples, M configurations, D = 2 E + 1 segments, F operating points. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from functools import partial
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.evaluation import ConfigStats, Outcomes, calibrate_thresholds, count_bits, pack_bits, scores
from hadas_jax.evaluation.early_exit import subset_members, subset_stats, useful_points
from hadas_jax.spaces.footprint import Footprint
from hadas_jax.spaces.mbconv import MAX_EXITS
from hw_models import Cost

RISK_LEVELS = (0.004, 0.0075, 0.0125, 0.02, 0.03, 0.05)  # shares of samples that one exit may harm


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

    @classmethod
    def ideal(cls, correct: jax.Array, *, samples: int) -> Self:
        """Returns who stops under the ideal mapping, at the first exit that is right: from uint32[E + 1, W]."""
        return cls(correct[None, :-1], correct, samples)

    @jax.jit
    def evaluate(self, exits: jax.Array) -> ConfigStats:
        """Evaluates exit configurations int32[M, E] one by one, each exit at its own risk level.

        Returns:
            Stats of the M configurations, with the D segments of the space.
        """
        correct, stopped, reached = self._walk(exits)
        trunk = jnp.concatenate([reached, (self.samples - count_bits(stopped))[None]]).T.astype(jnp.float32)
        trunk = trunk / self.samples
        return ConfigStats(
            error=(self.samples - count_bits(correct)).astype(jnp.float32) / self.samples,
            frequencies=jnp.concatenate([trunk, trunk[:, :-1] * (exits > 0).astype(jnp.float32)], axis=1),
        )

    @jax.jit
    def right(self, exits: jax.Array) -> jax.Array:
        """Returns uint32[M, W]: bit sets of the samples that exit configurations int32[M, E] get right."""
        return self._walk(exits)[0]

    def _walk(self, exits: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Who is right, uint32[M, W], who stops at an exit, uint32[M, W], and how many reach each exit, int32[E, M]."""
        nobody = jnp.zeros((len(exits), self.correct.shape[1]), jnp.uint32)

        def step(
            carry: tuple[jax.Array, jax.Array], exit: tuple[jax.Array, ...]
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            stopped, right = carry
            level, words, correct = exit
            newly = jnp.where((level > 0)[:, None], words[jnp.maximum(level - 1, 0)], jnp.uint32(0)) & ~stopped
            return (stopped | newly, right | (newly & correct[None])), self.samples - count_bits(stopped)

        by_exit: tuple[jax.Array, ...] = (exits.T, jnp.moveaxis(self.stops, 1, 0), self.correct[:-1])
        (stopped, right), reached = jax.lax.scan(step, (nobody, nobody), by_exit)
        return right | (self.correct[-1][None] & ~stopped), stopped, reached


@struct.dataclass
class PolicyStops:
    """A backbone on one split: `Stops` under the ideal mapping (R = 1) and under thresholds."""

    ideal: Stops
    deployable: Stops

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "policy"))
    def of(cls, outcomes: Outcomes, *, thresholds: jax.Array, policy: str) -> Self:
        """Finds who stops where.

        Args:
            outcomes: Of one backbone on a split.
            thresholds: float32[R, E], from the calibration split.
            policy: The score that thresholds compare with, static.
        """
        samples = outcomes.correct.shape[-1]
        correct, score = pack_bits(outcomes.correct), scores(outcomes, policy)
        levels = jax.vmap(lambda threshold: pack_bits(score >= threshold[:, None]))(thresholds)
        return cls(ideal=Stops.ideal(correct, samples=samples), deployable=Stops(levels, correct, samples))


@partial(jax.jit, static_argnames="policy")
def risk_thresholds(outcomes: Outcomes, *, policy: str) -> jax.Array:
    """Returns float32[R, E]: thresholds set on the outcomes of the calibration split."""
    return calibrate_thresholds(scores(outcomes, policy), outcomes.correct, jnp.asarray(RISK_LEVELS))


@struct.dataclass
class DynamicBackbone:
    """The active exits of a backbone, those that it has, and the costs of its segments.

    Attributes:
        available: bool[E], the active exits.
        position: int32[K], the active exits in their order; E in empty slots.
        count: int32[], active exits; above K the last ones have no slot.
        costs: float32[D, F].
        active_costs: float32[2 K + 1, F], trunk segments joined up to the next exit in a slot, then the heads; with k
            exits in slots, trunk segments from k + 1 on and heads from k on are free.
        points: int32[F], operating points that some exit configuration may need, and -1 behind them.
        footprint: What the backbone and each of its exits take.
    """

    available: jax.Array
    position: jax.Array
    count: jax.Array
    costs: Cost
    active_costs: Cost
    points: jax.Array
    footprint: Footprint

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "slots"))
    def of(
        cls, available: jax.Array, costs: Cost, *, footprint: Footprint | None = None, slots: int | None = None
    ) -> Self:
        """Moves the active exits of a backbone and their costs to slots.

        Args:
            available: bool[E], exits that the backbone has.
            costs: float32[D, F] of `segment_costs`.
            footprint: Of the backbone; None: it takes nothing.
            slots: K, static; None: as many as the space has exits, `MAX_EXITS` at most.
        """
        exits = len(available)
        slots = min(exits, MAX_EXITS) if slots is None else slots
        position = jnp.flatnonzero(available, size=slots, fill_value=exits).astype(jnp.int32)
        count = jnp.sum(available, dtype=jnp.int32)
        before = jnp.cumsum(available.astype(jnp.int32)) - available.astype(jnp.int32)
        owner = jnp.minimum(jnp.append(before, count), slots)

        def move(cost: jax.Array) -> jax.Array:
            trunk = jax.ops.segment_sum(cost[: exits + 1], owner, slots + 1)
            return jnp.concatenate([trunk, jnp.take(cost[exits + 1 :], position, axis=0, mode="fill", fill_value=0)])

        active = jax.tree.map(move, costs)
        size = Footprint.nothing(exits) if footprint is None else footprint
        return cls(available, position, count, costs, active, useful_points(active), size)

    def to_slots(self, words: jax.Array) -> jax.Array:
        """Moves bit sets of exits to slots: uint32[E, W] -> uint32[K, W]; empty slots hold nothing."""
        return jnp.take(words, self.position, axis=0, mode="fill", fill_value=0)

    @property
    def slot_footprint(self) -> Footprint:
        """What the backbone and the exits in slots take."""
        take = partial(jnp.take, indices=jnp.asarray(self.position), axis=0, mode="fill", fill_value=0)
        exits = (take(self.footprint.exit_memory), take(self.footprint.exit_weights))
        return dataclasses.replace(self.footprint, exit_memory=exits[0], exit_weights=exits[1])

    @property
    def subsets(self) -> jax.Array:
        """int32[]: how many subsets the exits in slots have, the first ones of 2^K."""
        return jnp.left_shift(jnp.int32(1), jnp.minimum(self.count, len(self.position)))

    @jax.jit
    def evaluate_subsets(self, stops: Stops) -> ConfigStats:
        """Evaluates all subsets of the exits in slots, `MAX_EXITS` at most, all exits of a configuration at one level.

        Args:
            stops: Of the levels to evaluate.

        Returns:
            Stats of R 2^K configurations, with the segments of `active_costs`, the subset (of slots) changing fastest;
            an infinite error where there is no such configuration.
        """
        correct = jnp.concatenate([self.to_slots(stops.correct[:-1]), stops.correct[-1:]])
        used = self.position < len(self.available)

        def one_level(words: jax.Array) -> ConfigStats:
            return subset_stats(self.to_slots(words), correct, used, samples=stops.samples, configs=self.subsets)

        stats = jax.lax.map(one_level, stops.stops)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stats)

    def exits_of(self, index: np.ndarray) -> np.ndarray:
        """Returns int32[M, E]: the exit configurations that indices int[M] into `evaluate_subsets` stand for."""
        exits, position = len(self.available), np.asarray(self.position)
        level, subset = np.divmod(index, 2 ** len(position))
        chosen = np.zeros((len(index), exits), np.int32)
        active = position < exits
        chosen[:, position[active]] = subset_members(subset, len(position))[:, active] * (level[:, None] + 1)
        return chosen
