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

from hadas_jax.evaluation import pack_bits, segment_costs
from hadas_jax.evaluation.early_exit import packed_dissimilarity
from hadas_jax.methods.hadas.inner import plan_shares, product_of
from hadas_jax.methods.hadas.score import exit_gains
from hadas_jax.spaces import MBConvSpace
from hadas_paper.ablations import GAMMAS
from hadas_paper.lab import Lab
from hw_models import Cost, Device

SIZES = (1, 2, 3, 4)  # exits of a subset


class Scored(NamedTuple):
    """All subsets of one backbone's exits, and their scores at each gamma.

    Attributes:
      members: bool[S, K].
      possible: bool[S], subsets of exits that the backbone has.
      shares: float32[gammas, S, K], as from `plan_shares`.
      gains: float32[K, F], as from `exit_gains`.
      error: float32[S], by the ideal mapping.
      weights: float32[S, D], of the segments' costs.
      energy: float32[D, F], of the segments, in joules.
      apart: float32[K, K], dissimilarity of each two exits.
    """

    members: Any
    possible: Any
    shares: Any
    gains: Any
    error: Any
    weights: Any
    energy: Any
    apart: Any


@partial(jax.jit, static_argnames=("space", "samples"))
def _scored(space: MBConvSpace, genome: jax.Array, correct: jax.Array, costs: Cost, *, samples: int) -> Scored:
    product = product_of(space, genome, correct, costs, samples=samples)
    shares = jnp.stack([plan_shares(product, gamma) for gamma in GAMMAS])
    _, subsets, slots = shares.shape
    subset = jnp.arange(subsets, dtype=jnp.int32)
    return Scored(
        members=((subset[:, None] >> jnp.arange(slots, dtype=jnp.int32)[None]) & 1) == 1,
        possible=subset < product.plans,
        shares=shares,
        gains=exit_gains(product.costs),
        error=product.stats.error,
        weights=product.stats.weights,
        energy=product.costs.energy_j,
        apart=packed_dissimilarity(product.correct[:-1]),
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
    plan = rows[row]
    chosen = np.flatnonzero(found.members[plan])
    pairs = found.apart[np.ix_(chosen, chosen)][np.triu_indices(size, 1)]
    return {
        "plan": int(plan),
        "accuracy": 1.0 - float(found.error[plan]),
        "energy_mj": 1e3 * float(found.weights[plan] @ found.energy[:, point]),
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
                "other_exits": sum(new["plan"] != old["plan"] for new, old in there),
                **{what: _mean(new[what] for new, _ in there) for what in ("accuracy", "energy_mj", "dissimilarity")},
            }
    return found


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
