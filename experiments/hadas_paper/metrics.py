"""How two fronts of dynamic networks compare: hypervolume, ratio of dominance, energy at equal accuracy.

Bouzidi et al. (DATE 2023, https://arxiv.org/abs/2212.03354) compare fronts by the first two, and by the energy of two
networks of the same dynamic accuracy. Designs are always chosen on the selection samples.
Shapes: M, N designs; objectives are error, latency_s and energy_j.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hadas_jax.evaluation import accuracy_difference
from hadas_jax.methods.hadas.fronts import Candidates, non_dominated
from hadas_jax.search import hypervolume, ratio_of_dominance
from hadas_jax.settings import NO_CONSTRAINTS
from hadas_paper.lab import Pool

SPLITS = ("selection", "test")


def relative_hypervolume(objectives: np.ndarray, reference: np.ndarray) -> float:
    """Returns the share of the box from 0 to a reference float[3] that designs float[M, 3] dominate."""
    front = objectives[non_dominated(objectives)] / reference
    return float(hypervolume(jnp.asarray(_padded(front)[0], jnp.float32), jnp.ones(3)))


def dominance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the share of designs b float[N, 3] that some design of a float[M, 3] dominates."""
    (a, valid_a), (b, valid_b) = _padded(a), _padded(b)
    return float(
        ratio_of_dominance(jnp.asarray(a), jnp.asarray(b), valid_a=jnp.asarray(valid_a), valid_b=jnp.asarray(valid_b))
    )


def _padded(objectives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objectives with infinite rows up to a power of two, so that few shapes are compiled, and which rows are real."""
    size = max(1 << (len(objectives) - 1).bit_length(), 512)
    padded = np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.inf)
    return padded.astype(np.float32), np.arange(size) < len(objectives)


def compare(
    ours: tuple[Pool, Candidates], theirs: tuple[Pool, Candidates], *, policy: str, reference: np.ndarray
) -> dict[str, Any]:
    """Compares two fronts of one policy, each with its pool, on the selection samples and on the test split.

    Args:
      ours: for whom "dominates" and "saving" speak.
      theirs: the baseline.
      policy: ideal or deployable.
      reference: float[3], of the hypervolume.
    """
    found: dict[str, Any] = {}
    for split in SPLITS:
        a, b = (pool.measured(policy, front, split=split) for pool, front in (ours, theirs))
        found[split] = {
            "hypervolume": relative_hypervolume(a, reference),
            "baseline_hypervolume": relative_hypervolume(b, reference),
            "dominates": dominance(a, b),
            "dominated": dominance(b, a),
        }
    error = float(theirs[1].objectives[:, 0].min())
    found["at_the_baselines_highest_accuracy"] = equal_accuracy(ours, theirs, policy=policy, error=error)
    return found


def equal_accuracy(
    ours: tuple[Pool, Candidates], theirs: tuple[Pool, Candidates], *, policy: str, error: float
) -> dict[str, Any]:
    """Returns the cheapest designs of at most one error, on both splits, and what ours saves; None where none is."""
    names = ("ours", "baseline")
    rows = [front.cheapest(error, limits=NO_CONSTRAINTS) for _, front in (ours, theirs)]
    found: dict[str, Any] = {}
    for split in SPLITS:
        shown: dict[str, Any] = {}
        for name, row, (pool, front) in zip(names, rows, (ours, theirs), strict=True):
            if row is not None:
                one = pool.measured(policy, front.take(np.array([row])), split=split)[0]
                shown[f"{name}_accuracy"], shown[f"{name}_energy_mj"] = 1 - float(one[0]), 1e3 * float(one[2])
        if None not in rows:
            shown["saving"] = 1 - shown["ours_energy_mj"] / shown["baseline_energy_mj"]
        found[split] = shown
    if None not in rows:
        picked = [(pool, front.take(np.array([row]))) for row, (pool, front) in zip(rows, (ours, theirs), strict=True)]
        found["test"] |= difference((policy, *picked[0]), (policy, *picked[1]))
    return found


def difference(first: tuple[str, Pool, Candidates], second: tuple[str, Pool, Candidates]) -> dict[str, float]:
    """Returns by how much the first of two designs, each with policy and pool, is more accurate on the test images.

    Returns:
      `accuracy_difference` and the ends of its 95 % interval, `_low` and `_high`.
    """
    right, other = (pool.right_on_test(policy, candidate) for policy, pool, candidate in (first, second))
    gained, lost = (int(np.bitwise_count(words).sum()) for words in (right & ~other, other & ~right))
    found = accuracy_difference(gained, lost, images=first[1].test_images)
    values = (found.difference, found.low, found.high)
    return dict(
        zip(("accuracy_difference", "accuracy_difference_low", "accuracy_difference_high"), values, strict=True)
    )


def performance(pool: Pool, policy: str, front: Candidates, error: float) -> dict[str, Any]:
    """Returns the cheapest design of a front of at most one error on the selection samples, as measured on the test.

    The difference in accuracy is from the same backbone without exits.
    """
    row = front.cheapest(error, limits=NO_CONSTRAINTS)
    if row is None:
        raise ValueError(f"expected a design of at most {error:.2%} error, got none")
    test = pool.measured(policy, front.take(np.array([row])))[0].tolist()
    static = front.take(np.array([row]))
    static = dataclasses.replace(static, exits=np.zeros_like(static.exits))
    return {
        "selection_accuracy": 1 - float(front.objectives[row, 0]),
        "test_accuracy": 1 - test[0],
        "latency_ms": 1e3 * test[1],
        "energy_mj": 1e3 * test[2],
        "exits": int((front.exits[row] > 0).sum()),
        **difference((policy, pool, front.take(np.array([row]))), ("ideal", pool, static)),
    }


def energy_curve(objectives: np.ndarray, *, most: int = 40) -> list[list[float]]:
    """Returns at most so many pairs of accuracy and mJ of the cheapest of designs float[M, 3], for pictures."""
    order = np.lexsort((objectives[:, 0], objectives[:, 2]))
    error, energy = objectives[order][:, (0, 2)].T
    better = np.flatnonzero(error < np.append(np.inf, np.minimum.accumulate(error)[:-1]))
    kept = better[np.unique(np.linspace(0, len(better) - 1, most).round().astype(int))]
    return [[round(1 - float(e), 5), round(1e3 * float(j), 6)] for e, j in zip(error[kept], energy[kept], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns mean and standard deviation over seeds, rounded to six digits behind the point."""
    return {"mean": round(float(np.mean(values)), 6), "sd": round(float(np.std(values)), 6)}
