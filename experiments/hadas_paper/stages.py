"""The four stages of `hadas_paper`, each for one device (and seed), as figures that JSON can hold.

Designs are chosen on the selection samples, energies and accuracies are those of the test split unless a name says
otherwise. "Ideal" is the paper's mapping, which needs labels, "deployable" compares confidence with thresholds.
Shapes: P backbones, G genes; objectives are error, latency_s and energy_j.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.results import POLICY_NAMES
from hadas_jax.search import crowding_distance, non_dominated_ranks, truncate
from hadas_jax.settings import NO_CONSTRAINTS
from hadas_jax.spaces import PUBLISHED_NAMES
from hadas_paper.baselines import like_published, macs
from hadas_paper.lab import Lab, Pool
from hadas_paper.metrics import (
    SPLITS,
    compare,
    energy_curve,
    equal_accuracy,
    performance,
    relative_hypervolume,
)
from hw_models import Device


@dataclass(frozen=True)
class Searched:
    """What a search evaluated.

    Attributes:
      genomes: int32[P, G].
      static: float32[P, 3], without exits at the default clocks, on the validation samples.
      examined: bool[P], by the inner engine.
      versions: dynamic versions that the inner engine judged.
      seconds: of the search without the judging of backbones, compilation included.
    """

    genomes: np.ndarray
    static: np.ndarray
    examined: np.ndarray
    versions: int
    seconds: float

    def best_static(self, count: int) -> np.ndarray:
        """Returns the best backbones by rank and crowding of their static scores."""
        fitness = jnp.asarray(self.static)
        ranks = non_dominated_ranks(fitness)
        order = truncate(ranks, crowding_distance(fitness, ranks), size=min(count, len(self.genomes)))
        return self.genomes[np.asarray(order)]


@dataclass(frozen=True)
class Baselines:
    """The backbones that stand for a0 to a6 on one device.

    Attributes:
      names: of the different ones; those of equal backbones are joined.
      pool: the different ones.
      reference: float[3], of hypervolumes on this device: twice the error of the smallest of them, twice the static
        latency and energy of the space's largest backbone.
    """

    names: tuple[str, ...]
    pool: Pool
    reference: np.ndarray


def baselines(lab: Lab, device: Device) -> Baselines:
    """Judges the baselines on a device."""
    every = like_published(lab.space, PUBLISHED_NAMES)
    genomes, which = np.unique(every, axis=0, return_inverse=True)
    order = np.argsort([macs(lab.space, genome) for genome in genomes])
    names = tuple(
        "/".join(name for name, place in zip(PUBLISHED_NAMES, which, strict=True) if place == row) for row in order
    )
    pool = Pool(lab, device, genomes[order])
    cost, _ = static_costs(lab.space, jnp.asarray(lab.space.largest_genome[None]), device)
    error = 2 * static_objectives(pool)[0, 0]
    return Baselines(names, pool, np.array([error, 2 * cost.latency_s[0], 2 * cost.energy_j[0]], np.float64))


def static_objectives(pool: Pool, *, split: str = "selection") -> np.ndarray:
    """Returns float32[P, 3]: backbones without exits at the default clocks."""
    return pool.measured("ideal", pool.without_exits(), split=split)


def network(pool: Pool, index: int, name: str) -> dict[str, Any]:
    """Returns one backbone static, static at its best clocks, with exits, and with exits and clocks.

    Under the ideal mapping each is the cheapest version of the highest accuracy that its front has, under the
    deployable policy the cheapest that is as accurate as the static network, where there is one.
    """
    static, on_test = (static_objectives(pool, split=split)[index].tolist() for split in SPLITS)
    found: dict[str, Any] = {
        "network": name,
        "genome": pool.genomes[index].tolist(),
        "static": {"test_accuracy": 1 - on_test[0], "latency_ms": 1e3 * on_test[1], "energy_mj": 1e3 * on_test[2]},
    }
    every = pool.without_exits(points=pool.every_point)
    found["static + DVFS"] = performance(pool, "ideal", every.take(np.flatnonzero(every.backbone == index)), 1.0)
    for policy in POLICY_NAMES:
        for variant, point in (("exits", pool.default), ("exits + clocks", None)):
            front = pool.front(policy, point=point, only=index)
            error = static[0] + 1e-6 if policy == "deployable" else float(front.objectives[:, 0].min())
            found[f"{policy}: {variant}"] = performance(pool, policy, front, error)
    return found


def motivation(lab: Lab, device: Device, base: Baselines, joint: Searched) -> dict[str, Any]:
    """Stage 1: the smallest and the largest hand-made backbone against two that HADAS found.

    The found ones are the backbone of the cheapest dynamic network that is as accurate, under the ideal mapping, as the
    largest hand-made one can be, and that of the most accurate one.
    """
    last = len(base.names) - 1
    found = Pool(lab, device, joint.genomes[joint.examined])
    front = found.front("ideal")
    goal = float(base.pool.front("ideal", only=last).objectives[:, 0].min())
    cheap = front.cheapest(max(goal, float(front.objectives[:, 0].min())), limits=NO_CONSTRAINTS)
    best = front.cheapest(float(front.objectives[:, 0].min()), limits=NO_CONSTRAINTS)
    assert cheap is not None
    assert best is not None
    rows = [network(base.pool, index, f"{base.names[index]}-like") for index in (0, last)]
    rows += [
        network(found, int(front.backbone[row]), name) for row, name in ((cheap, "b1, found"), (best, "b2, found"))
    ]
    return {"networks": rows}


def inner(base: Baselines) -> dict[str, Any]:
    """Stage 2: the best exits and clocks of the hand-made backbones, and the front of all of them."""
    found: dict[str, Any] = {
        "reference": base.reference.tolist(),
        "networks": [network(base.pool, index, f"{name}-like") for index, name in enumerate(base.names)],
    }
    for policy in POLICY_NAMES:
        front = base.pool.front(policy)
        for split in SPLITS:
            measured = base.pool.measured(policy, front, split=split)
            found[f"{policy}, {split}"] = {
                "designs": len(front),
                "hypervolume": relative_hypervolume(measured, base.reference),
                "curve": energy_curve(measured),
            }
    return found


def hadas(lab: Lab, device: Device, base: Baselines, joint: Searched) -> dict[str, Any]:
    """Stage 3: what the nested search found against the optimised baselines, all of them and the largest alone."""
    pool = Pool(lab, device, joint.genomes[joint.examined])
    last = len(base.names) - 1
    found: dict[str, Any] = {
        "evaluations": len(joint.genomes),
        "examined": int(joint.examined.sum()),
        "dynamic_versions": joint.versions,
        "search_s": joint.seconds,
    }
    for policy in POLICY_NAMES:
        ours = (pool, pool.front(policy))
        theirs = (base.pool, base.pool.front(policy))
        largest = (base.pool, base.pool.front(policy, only=last))
        found[policy] = compare(ours, theirs, policy=policy, reference=base.reference)
        error = float(largest[1].objectives[:, 0].min())
        found[policy]["at_the_largest_baselines_highest_accuracy"] = equal_accuracy(
            ours, largest, policy=policy, error=error
        )
        error = float(static_objectives(base.pool)[last, 0]) + 1e-6
        found[policy]["at_the_largest_baselines_static_accuracy"] = equal_accuracy(
            ours, theirs, policy=policy, error=error
        )
        found[policy]["curve"] = {split: energy_curve(pool.measured(policy, ours[1], split=split)) for split in SPLITS}
    static = static_objectives(pool, split="test")
    found["static_curve"] = energy_curve(static)
    return found
