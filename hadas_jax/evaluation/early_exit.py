"""Expected error, latency and energy of dynamic networks: every exit subset at every operating point.

A network with exits runs its trunk segment by segment, and a head at each exit of the subset, until the sample
stops. Outcomes are bit sets over the samples, so the samples that reach a segment are counted by popcount, and
expected costs are one matrix product of how often segments run with what they cost.

A sample stops at the first exit that is right, or at the first that is sure enough. The ideal mapping (HADAS, arXiv
2212.03354) needs the label and is an upper bound. A deployable policy compares a score with a threshold per exit.
Thresholds are set by conformal risk control (Angelopoulos et al., arXiv 2208.02814): the expected share of samples that
an exit harms, that is, stops wrongly although the final classifier is right, stays at or below a level, for samples
exchangeable with the calibration ones.
Shapes: E exits, N samples, W = ceil(N / 32) words, S = 2^E subsets, D = 2 E + 1 segments (E + 1 of the trunk, then E
heads), L layers, F operating points, R risk levels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import hw_models
from hadas_jax.evaluation.evaluator import Outcomes
from hadas_jax.spaces.given import AnySpace
from hadas_jax.spaces.mbconv import MAX_EXITS, Backbone
from hadas_jax.spaces.workload import device_workload, segments
from hw_models import Cost, Device
from hw_models.cost import CorrectionTerms, correction_factor, correction_terms

TreeT = TypeVar("TreeT")
_LOW_EXITS = 8  # subsets of so many exits are evaluated side by side
_RIVALS = 64
_SHARE_ROUNDING = 1e-6  # of shares that are differences of float32
_MARGIN = 1.0 - 2.0**-16  # above the rounding of sums of a few dozen terms


@struct.dataclass
class ConfigStats:
    """What some exit configurations, such as all S subsets of some exits, do to the samples of a split.

    Attributes:
        error: float32[S], share of samples classified wrongly; +inf for configurations with an exit that is not
            available.
        frequencies: float32[S, D], expected number of times each segment runs.
    """

    error: jax.Array
    frequencies: jax.Array

    def expected(self, cost: Cost, config: int, point: int) -> tuple[float, float, float]:
        """Returns error, latency_s and energy_j of one configuration, with segments of some costs, at one point."""
        frequencies = np.asarray(self.frequencies[config], np.float64)
        return (
            float(self.error[config]),
            float(frequencies @ np.asarray(cost.latency_s[:, point], np.float64)),
            float(frequencies @ np.asarray(cost.energy_j[:, point], np.float64)),
        )


def pack_bits(flags: jax.Array) -> jax.Array:
    """Packs bool[..., N] into uint32[..., W], sample n as bit n % 32 of word n // 32; spare bits are zero."""
    spare = -flags.shape[-1] % 32
    padded = jnp.pad(flags, [(0, 0)] * (flags.ndim - 1) + [(0, spare)])
    words = padded.reshape(*flags.shape[:-1], -1, 32).astype(jnp.uint32)
    shifts = jnp.arange(32, dtype=jnp.uint32).reshape((1,) * (words.ndim - 1) + (32,))
    return jnp.sum(words << shifts, axis=-1, dtype=jnp.uint32)


def count_bits(words: jax.Array) -> jax.Array:
    """Returns int32[...]: the bits set in uint32[..., W]."""
    return jnp.sum(jax.lax.population_count(words).astype(jnp.int32), axis=-1)


@partial(jax.jit, static_argnames="samples")
def subset_stats(
    stops: jax.Array, correct: jax.Array, available: jax.Array, *, samples: int, configs: jax.Array | None = None
) -> ConfigStats:
    """Evaluates all exit subsets of one backbone, bit e of a subset's index standing for exit e.

    Args:
        stops: uint32[E, W], bit sets of the samples that would stop at each exit (see `pack_bits`).
        correct: uint32[E + 1, W], bit sets of the samples that each exit, and last the classifier, gets right.
        available: bool[E], exits that the backbone has.
        samples: N, static.
        configs: int32[], only the first so many subsets are possible at all and evaluated; None for all.

    Raises:
        ValueError: There are more than `MAX_EXITS` exits.
    """
    exits, words = stops.shape
    if exits > MAX_EXITS:
        raise ValueError(f"expected 0 to {MAX_EXITS} exits to list all subsets of, got {exits}")
    low = min(exits, _LOW_EXITS)
    subset = jnp.arange(2**exits, dtype=jnp.int32)
    size = 2**low

    # Subsets that differ in the first exits only are evaluated side by side, from what those exits do.
    nothing = jnp.zeros((size, words), jnp.uint32)
    start = _stop_early((nothing, nothing), subset[:size], stops[:low], correct[:low])

    def evaluate(block: jax.Array, counts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        chosen = jnp.broadcast_to(block, (size,))
        stopped, won = _stop_early(start, chosen, stops[low:], correct[low:exits])
        going_on, right = counts
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=block * size, axis=0)
        won = won | (correct[-1][None] & ~stopped)
        return write(going_on, samples - count_bits(stopped)), write(right, count_bits(won))

    blocks = 2 ** (exits - low) if configs is None else (jnp.minimum(configs, 2**exits) + size - 1) // size
    going_on, right = jax.lax.fori_loop(0, blocks, evaluate, (jnp.zeros_like(subset), jnp.zeros_like(subset)))

    lower = subset[:, None] & (jnp.left_shift(1, jnp.arange(exits + 1, dtype=jnp.int32)) - 1)[None]
    trunk = (going_on.astype(jnp.float32) / samples)[lower]
    members = subset_members(subset, exits)
    possible = jnp.all(available[None] | ~members, axis=1)
    error = (samples - right).astype(jnp.float32) / samples
    return ConfigStats(
        error=jnp.where(possible if configs is None else possible & (subset < configs), error, jnp.inf),
        frequencies=jnp.concatenate([trunk, trunk[:, :-1] * members.astype(jnp.float32)], axis=1),
    )


def subset_members(subsets: Any, exits: int) -> Any:
    """Returns bool[S, E]: which exits subsets int32[S] have, exit e where bit e is set; numpy or JAX, as given."""
    return (subsets[:, None] >> np.arange(exits, dtype=np.int32)[None]) & 1 == 1


def _stop_early(
    outcome: tuple[jax.Array, jax.Array], chosen: jax.Array, stops: jax.Array, correct: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs exits of subsets one after the other.

    Args:
        outcome: uint32[n, W] twice, samples that stopped before and those of them that are right.
        chosen: int32[n], bit e for exit e of these.
        stops: uint32[e, W], samples that would stop at each of these exits.
        correct: uint32[e, W].

    Returns:
        uint32[n, W] twice, samples that stopped by now and those of them that are right.
    """
    stopped, won = outcome
    for e in range(len(stops)):
        takes = jnp.where((chosen >> e) & 1 == 1, jnp.uint32(2**32 - 1), jnp.uint32(0))[:, None]
        newly = stops[e][None] & ~stopped & takes
        stopped, won = stopped | newly, won | (newly & correct[e][None])
    return stopped, won


def segment_costs(space: AnySpace, backbone: Backbone, device: Device) -> Cost:
    """Returns the cost of each segment at each operating point of the device, float32[D, F].

    The constant of a run is counted with the first segment, which always runs; a call with each head, which ends the
    segment of an exit, and with the last of the trunk, which the classifier ends. So a sample that stops at the k-th
    chosen exit pays k calls, and a network without exits one. A device with a correction has one for the network up to
    each exit, its head included, which counts for that head too. Prefixes keep their order: none costs more than a
    longer one, down from the whole network, which costs what `hw_models.network_cost` says.

    Args:
        space: Static.
        backbone: One design of the space, in its number format.
        device: The cost model; its operating points are those of `hw_models.operating_points`.
    """
    layers, owner = device_workload(space, backbone, device), jnp.asarray(segments(space))

    def by_segment(of_layers: TreeT) -> TreeT:
        return jax.tree.map(lambda leaf: jax.ops.segment_sum(leaf, owner, 2 * space.num_exits + 1), of_layers)

    grid = by_segment(hw_models.clock_grid(layers, device, number_format=backbone.number_format))
    costs = jax.vmap(hw_models.cost_everywhere, in_axes=(0, None))(grid, device)
    points, last = hw_models.operating_points(device), space.num_exits
    run = hw_models.run_cost(device, points, segments=0)
    costs = Cost(costs.latency_s.at[0].add(run.latency_s), costs.energy_j.at[0].add(run.energy_j))
    terms = correction_terms(layers, device, owner)
    if terms is not None:
        costs = _corrected(costs, by_segment(terms), device)
    return Cost(
        latency_s=costs.latency_s.at[last:].add(hw_models.segment_latency(device, points)),
        energy_j=costs.energy_j.at[last:].add(hw_models.segment_energy(device, points)),
    )


def percentile_paths(frequencies: Any, percent: int, *, samples: int) -> Any:
    """Finds the segments that the sample at a percentile of the latency runs (nearest rank).

    A sample that goes on further takes longer, whatever the clocks. So the sample of rank ceil(percent N / 100) runs a
    segment exactly if more samples run that segment than come after it.

    Args:
        frequencies: float[..., D], the share of the samples that runs each segment; numpy or JAX.
        percent: The percentile, from 1 to 100.
        samples: N.

    Returns:
        bool[..., D]; its product with the latencies of the segments is the percentile.
    """
    after = samples + -percent * samples // 100
    return frequencies * samples > after + 0.5


def percentile_exit(shares: Sequence[float], percent: int) -> int:
    """Returns where the sample at a percentile of the latency stops (nearest rank), from the shares that stop where."""
    return int(np.searchsorted(np.cumsum(shares)[:-1], percent / 100 - _SHARE_ROUNDING))


def path_costs(cost: Any, exits: np.ndarray) -> np.ndarray:
    """Returns what a sample costs that stops at each of some exits, and last at the classifier.

    Args:
        cost: float[D, ...], of the segments.
        exits: int[k], the exits that the network has, rising.

    Returns:
        float64[k + 1, ...]: the trunk up to the exit, and all heads up to there.
    """
    segments = np.asarray(cost, np.float64)
    last = len(segments) // 2
    trunk = np.cumsum(segments[: last + 1], axis=0)[[*exits, last]]
    if not len(exits):
        return trunk
    heads = np.cumsum(segments[last + 1 :][exits], axis=0)
    return trunk + np.concatenate([heads, heads[-1:]])


def _corrected(costs: Cost, terms: CorrectionTerms, device: Device) -> Cost:
    """Corrects segments, calls apart: costs float32[2 E + 1, F], terms float32[2 E + 1]."""
    exits = costs.latency_s.shape[0] // 2
    prefixes = jax.tree.map(lambda leaf: jnp.cumsum(leaf[: exits + 1]).at[:exits].add(leaf[exits + 1 :]), terms)
    factors = correction_factor(prefixes, device)
    # Segments that the backbone lacks belong to the prefix before them.
    is_there = terms.features.layers[: exits + 1] > 0
    prefix = jax.lax.cummax(jnp.where(is_there, jnp.arange(exits + 1), 0))
    factors = factors[prefix]
    sums = jnp.where(jnp.arange(exits + 1)[None] <= prefix[:, None], factors[:, None], 0.0)

    def shorten(longer: jax.Array, reached: jax.Array) -> tuple[jax.Array, jax.Array]:
        shorter = jnp.minimum(longer, reached)
        return shorter, longer - shorter

    def correct(cost: jax.Array) -> jax.Array:
        reached = jnp.matmul(sums, cost[: exits + 1], precision=jax.lax.Precision.HIGHEST)
        first, segments = jax.lax.scan(shorten, reached[-1], reached[:-1], reverse=True)
        trunk = jnp.where(is_there[1:, None], segments, 0.0)
        return jnp.concatenate([first[None], trunk, factors[:exits, None] * cost[exits + 1 :]])

    return jax.tree.map(correct, costs)


def useful_points(costs: Cost) -> jax.Array:
    """Finds operating points that some exit configuration may need; no front has any other, whatever the outcomes.

    A point goes if another one takes less time and less energy for every sample, wherever it stops and whichever
    heads it has run: then every configuration is better off there. The margin lies above rounding, so fronts stay the
    same bit for bit. Only up to 128 points are tried as the other one, those that are best without heads, so that a
    few more may be left than have to be.

    Args:
        costs: float32[2 K + 1, F], trunk segments and heads as from `segment_costs`.

    Returns:
        int32[F]: the points that are left, in their order, and -1 behind them.
    """
    columns = [_reached(cost) for cost in (costs.latency_s, costs.energy_j)]
    points = costs.latency_s.shape[1]
    rivals = [_pair_front(columns[0][0][row], columns[1][0][row], size=min(points, _RIVALS)) for row in (0, -1)]

    def step(beaten: jax.Array, rival: jax.Array) -> tuple[jax.Array, None]:
        worse = [_always_worse(trunk, heads, rival) for trunk, heads in columns]
        return beaten | (worse[0] & worse[1] & (rival >= 0)), None

    beaten, _ = jax.lax.scan(step, jnp.zeros(points, bool), jnp.concatenate(rivals))
    return jnp.flatnonzero(~beaten, size=points, fill_value=-1).astype(jnp.int32)


def _reached(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cost of the trunk up to each exit and to the end, and of the heads: float32[K + 1, F], float32[K, F]."""
    slots = cost.shape[0] // 2
    return jnp.cumsum(cost[: slots + 1], axis=0), cost[slots + 1 :]


def _pair_front(latency: jax.Array, energy: jax.Array, *, size: int) -> jax.Array:
    """Returns int32[size]: points, spread over the front of two objectives float32[F]; -1 if there are fewer."""
    order = jnp.lexsort((energy, latency)).astype(jnp.int32)
    least = jax.lax.cummin(energy[order])
    member = jnp.concatenate([jnp.ones(1, bool), least[1:] < least[:-1]])
    count = jnp.cumsum(member.astype(jnp.int32))
    slot = jnp.arange(size, dtype=jnp.int32)
    wanted = jnp.where(count[-1] > size, slot * count[-1] // size, slot) + 1
    return jnp.where(wanted <= count[-1], order[jnp.searchsorted(count, wanted) % len(order)], -1)


def _always_worse(trunk: jax.Array, heads: jax.Array, rival: jax.Array) -> jax.Array:
    """Whether a point costs more than the rival wherever a sample stops: float32[K + 1, F] and [K, F] -> bool[F]."""
    extra = jnp.zeros(trunk.shape[1], trunk.dtype)  # of the rival's heads, where they are chosen to its harm
    worse = jnp.ones(trunk.shape[1], bool)
    for e in range(len(trunk)):
        if e < len(heads):
            extra = extra + jnp.maximum(heads[e, rival] - heads[e], 0.0)
        worse = worse & (trunk[e, rival] + extra < trunk[e] * _MARGIN)
    return worse


def dissimilarity(correct: jax.Array) -> jax.Array:
    """Returns float32[E, E]: 1 - cosine similarity of what each two exits get right (HADAS, arXiv 2212.03354).

    Exits that classify the same samples are 0 apart and waste each other's place; exits that share none are 1
    apart, and so is an exit that gets nothing right.

    Args:
        correct: uint32[E, W], bit sets of the samples that each exit gets right.
    """
    shared = count_bits(correct[:, None] & correct[None, :]).astype(jnp.float32)
    norm = jnp.sqrt(jnp.diagonal(shared))
    product = norm[:, None] * norm[None, :]
    return 1.0 - jnp.where(product > 0, shared / jnp.where(product > 0, product, 1.0), 0.0)


@jax.jit
def mean_dissimilarity(correct: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns float32[]: `dissimilarity` averaged over pairs of the exits `chosen` (bool[E]); 1 below two."""
    pair = chosen[:, None] & chosen[None, :] & ~jnp.eye(len(chosen), dtype=bool)
    count = jnp.sum(pair)
    mean = jnp.sum(jnp.where(pair, dissimilarity(correct), 0.0)) / jnp.maximum(count, 1).astype(jnp.float32)
    return jnp.where(count > 0, mean, 1.0)


POLICIES = ("confidence", "entropy", "learned")


def scores(outcomes: Outcomes, policy: str) -> jax.Array:
    """Returns float32[..., E, N]: how sure every exit is, higher is surer.

    Raises:
        ValueError: An unknown policy; the names are listed.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}: expected one of {', '.join(POLICIES)}")
    score = {
        "confidence": outcomes.confidence,
        "entropy": -outcomes.entropy,
        "learned": outcomes.learned,
    }[policy]
    return score[..., :-1, :]


def calibrate_thresholds(score: jax.Array, correct: jax.Array, levels: jax.Array) -> jax.Array:
    """Sets the lowest threshold of every exit that keeps its risk at or below each level.

    With n samples of which h are harmed at a threshold, the risk is bounded by (h + 1) / (n + 1).

    Args:
        score: float32[E, N], on the calibration split.
        correct: bool[E + 1, N], the final classifier last.
        levels: float32[R], shares of all samples.

    Returns:
        float32[R, E]; +inf where not even one sample may stop.
    """
    harm = ~correct[:-1] & correct[-1:]
    samples = score.shape[1]

    def one_exit(score: jax.Array, harm: jax.Array) -> jax.Array:
        order = jnp.argsort(-score)
        ranked = score[order]
        harmed = jnp.cumsum(harm[order].astype(jnp.int32))
        # Samples of equal score stop together: only the last of each tie is a threshold.
        last = jnp.append(ranked[1:] < ranked[:-1], True)
        risk = jnp.where(last, (harmed + 1).astype(jnp.float32) / (samples + 1), jnp.inf)

        def lowest(level: jax.Array) -> jax.Array:
            return jnp.min(jnp.where(risk <= level, ranked, jnp.inf))

        return jax.vmap(lowest)(levels)

    return jax.vmap(one_exit, out_axes=1)(score, harm)
