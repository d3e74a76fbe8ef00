"""Which exits the score of HADAS's inner engine prefers, by the weight of its dissimilarity; for `hadas_paper`.

The score is the mean over exits of what they save, times their dissimilarity to the other exits to the power of gamma
(`hadas_jax.methods.hadas.score.exit_shares`). An exit that is alone has none to differ from and counts in full, so that
subsets are compared with those of the same size.
Shapes: E exits, K slots for those of a backbone, S subsets, F operating points, W words of a bit set.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import dissimilarity, pack_bits, segment_costs
from hadas_jax.evaluation.early_exit import subset_members
from hadas_jax.methods.hadas.exit_configs import dynamic_backbone, ideal_stops, subset_configs
from hadas_jax.methods.hadas.score import exit_gains, exit_shares
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_paper.ablations import GAMMAS
from hadas_paper.lab import Lab
from hw_models import Cost, Device

SIZES = (1, 2, 3, 4)  # exits of a subset


class Scored(NamedTuple):
    """All subsets of one backbone's exits, and their scores at each gamma.

    Attributes:
      members: bool[S, K].
      possible: bool[S], subsets of exits that the backbone has.
      shares: float32[gammas, S, K], as from `exit_shares`.
      gains: float32[K, F], as from `exit_gains`.
      error: float32[S], by the ideal mapping.
      frequencies: float32[S, D], of the segments.
      energy: float32[D, F], of the segments, in joules.
      apart: float32[K, K], dissimilarity of each two exits.
    """

    members: Any
    possible: Any
    shares: Any
    gains: Any
    error: Any
    frequencies: Any
    energy: Any
    apart: Any


@partial(jax.jit, static_argnames=("space", "samples"))
def _scored(space: MBConvSpace, genome: jax.Array, correct: jax.Array, costs: Cost, *, samples: int) -> Scored:
    backbone = dynamic_backbone(available_exits(space, space.decode(genome)), costs)
    stats, right = subset_configs(ideal_stops(correct, samples=samples), backbone), backbone.to_slots(correct[:-1])
    subset = jnp.arange(len(stats.error), dtype=jnp.int32)
    members = subset_members(subset, len(right))
    return Scored(
        members=members,
        possible=subset < backbone.subsets,
        shares=jnp.stack([exit_shares(members, stats.frequencies, right, gamma=gamma) for gamma in GAMMAS]),
        gains=exit_gains(backbone.active_costs),
        error=stats.error,
        frequencies=stats.frequencies,
        energy=backbone.active_costs.energy_j,
        apart=dissimilarity(right),
    )


def _exits_of_the_best(found: Scored, gamma: int) -> int:
    """How many exits the version of the highest score of all has."""
    rows = np.flatnonzero(found.possible)
    best = (found.shares[gamma][rows] @ found.gains).max(axis=1).argmax()
    return int(found.members[rows[best]].sum())


def _preferred(found: Scored, gamma: int, size: int) -> dict[str, float] | None:
    """The version of the highest score among those of so many exits; None where there are too few exits."""
    count = found.members.sum(axis=1)
    rows = np.flatnonzero(found.possible & (count == size))
    if not rows.size:
        return None
    scores = found.shares[gamma][rows] @ found.gains
    row, point = np.unravel_index(np.argmax(scores), scores.shape)
    config = rows[row]
    chosen = np.flatnonzero(found.members[config])
    pairs = found.apart[np.ix_(chosen, chosen)][np.triu_indices(size, 1)]
    return {
        "config": int(config),
        "accuracy": 1.0 - float(found.error[config]),
        "energy_mj": 1e3 * float(found.frequencies[config] @ found.energy[:, point]),
        "dissimilarity": float(pairs.mean()) if size > 1 else 1.0,
    }


def preferences(lab: Lab, device: Device, genomes: np.ndarray) -> dict[str, Any]:
    """Means over backbones int32[P, G] of the versions that the score prefers, on the validation samples.

    Returns:
      By gamma: how many exits the version of the highest score of all has, and by number of exits the accuracy by the
      ideal mapping, energy, dissimilarity and in how many backbones other exits are preferred than without the
      dissimilarity.
    """
    data, space = lab.splits.validation, lab.space
    words = np.asarray(pack_bits(jnp.asarray(lab.answers(genomes, data).correct)))
    costs = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))
    backbones = [
        jax.tree.map(
            np.asarray,
            _scored(space, jnp.asarray(genome), jnp.asarray(bits), costs(jnp.asarray(genome)), samples=data.count),
        )
        for genome, bits in zip(genomes, words, strict=True)
    ]
    preferred = [[{size: _preferred(one, g, size) for size in SIZES} for one in backbones] for g in range(len(GAMMAS))]
    found: dict[str, Any] = {}
    for g, gamma in enumerate(GAMMAS):
        sizes = [_exits_of_the_best(one, g) for one in backbones]
        counts = {str(size): sizes.count(size) for size in sorted(set(sizes))}
        found[f"gamma {gamma:g}"] = {"exits_of_the_best": counts} | _means(preferred[g], preferred[0])
    return found


def _means(rows: list[dict[int, Any]], plain: list[dict[int, Any]]) -> dict[str, Any]:
    """Means over backbones by number of exits; `plain` are the versions preferred without the dissimilarity."""
    found: dict[str, Any] = {}
    for size in SIZES:
        there = [(row[size], old[size]) for row, old in zip(rows, plain, strict=True) if row[size]]
        if there:
            found[f"{size} exits"] = {
                "backbones": len(there),
                "other_exits": sum(new["config"] != old["config"] for new, old in there),
                **{what: _mean(new[what] for new, _ in there) for what in ("accuracy", "energy_mj", "dissimilarity")},
            }
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
