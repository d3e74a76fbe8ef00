"""Stage 4 of `hadas_paper`: what each part of the method is worth, on one device.

Hypervolumes are relative to the box of the device's reference, of designs that were chosen on the selection samples.
Shapes: G genes; objectives are error, latency_s and energy_j.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hadas_jax.methods.hadas.results import POLICY_NAMES
from hadas_paper.lab import Lab, Pool
from hadas_paper.metrics import SPLITS, compare, equal_accuracy, relative_hypervolume
from hadas_paper.stages import Baselines, Searched, network, static_objectives
from hw_models import Device

GAMMAS = (0.0, 1.0, 2.0)

# What a search differs in from the joint one -> what it evaluated.
Search = Callable[..., Searched]


def volumes(pool: Pool, reference: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the hypervolumes of a pool's fronts by policy and split."""
    found: dict[str, dict[str, float]] = {}
    for policy in POLICY_NAMES:
        front = pool.front(policy)
        found[policy] = {
            split: relative_hypervolume(pool.measured(policy, front, split=split), reference) for split in SPLITS
        }
    return found


def dissimilarity(lab: Lab, device: Device, base: Baselines, search: Search) -> dict[str, Any]:
    """Merit of backbones: their best dynamic score at several weights of the dissimilarity, or their hypervolume."""
    kinds: dict[str, dict[str, Any]] = {"hypervolume": {}}
    kinds |= {f"score, gamma {gamma:g}": {"merit": "score", "gamma": gamma} for gamma in GAMMAS}
    return _compared(lab, device, base, search, kinds)


def elites(lab: Lab, device: Device, base: Baselines, search: Search, population: int) -> dict[str, Any]:
    """How many backbones of a generation the inner engine sees: those of the paper's budget, or all."""
    return _compared(lab, device, base, search, {"the best": {}, "all": {"elites": population}})


def _compared(
    lab: Lab, device: Device, base: Baselines, search: Search, kinds: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Returns the hypervolumes of what searches with other engines examined, and their dominance over the baselines."""
    baselines = {policy: (base.pool, base.pool.front(policy)) for policy in POLICY_NAMES}
    compared: dict[str, Any] = {}
    for name, engines in kinds.items():
        found = search(**engines)
        pool = Pool(lab, device, found.genomes[found.examined])
        ratios: dict[str, Any] = {}
        compared[name] = {}
        for policy, theirs in baselines.items():
            ours = (pool, pool.front(policy))
            both = compare(ours, theirs, policy=policy, reference=base.reference)
            compared[name][policy] = {split: both[split]["hypervolume"] for split in SPLITS}
            ratios[policy] = {split: {key: both[split][key] for key in ("dominates", "dominated")} for split in SPLITS}
        compared[name]["against_the_baselines"] = ratios
    return compared


def parts(lab: Lab, device: Device, base: Baselines, joint: Searched) -> dict[str, Any]:
    """The same backbones with exits alone, clocks alone, and both; and the two policies against each other."""
    pool = Pool(lab, device, joint.genomes[joint.examined])
    clocks = pool.without_exits(points=pool.every_point).front()
    static = pool.without_exits().front()
    fronts = {"neither": ("ideal", static), "clocks": ("ideal", clocks)}
    for policy in POLICY_NAMES:
        fronts[f"exits, {policy}"] = (policy, pool.front(policy, point=pool.default))
        fronts[f"exits + clocks, {policy}"] = (policy, pool.front(policy))
    error = float(static_objectives(pool)[:, 0].min()) + 1e-6
    found: dict[str, Any] = {}
    for name, (policy, front) in fronts.items():
        entry: dict[str, Any] = {
            split: relative_hypervolume(pool.measured(policy, front, split=split), base.reference) for split in SPLITS
        }
        # Both columns at the accuracy of the best static network: the cheapest of this front and that network.
        levels = equal_accuracy((pool, front), (pool, static), policy=policy, error=error)
        entry["at_the_best_static_accuracy"] = levels["test"]
        found[name] = entry
    return found


def sequential(lab: Lab, device: Device, base: Baselines, joint: Searched, search: Search) -> dict[str, Any]:
    """Exits and clocks added to as many of the best backbones of a static search of the same budget."""
    static = search(elites=0)
    pools = [
        Pool(lab, device, genomes)
        for genomes in (joint.genomes[joint.examined], static.best_static(int(joint.examined.sum())))
    ]
    found: dict[str, Any] = {"backbones": [len(pool.genomes) for pool in pools]}
    for policy in POLICY_NAMES:
        ours, theirs = ((pool, pool.front(policy)) for pool in pools)
        found[policy] = compare(ours, theirs, policy=policy, reference=base.reference)
    return found


def heads(shared: Lab, own: Lab, device: Device, base: Baselines, genome: np.ndarray) -> dict[str, Any]:
    """One backbone with the exits that all backbones share, and with exits trained for it alone."""
    found: dict[str, Any] = {}
    for name, lab in (("shared", shared), ("own", own)):
        pool = Pool(lab, device, genome[None])
        found[name] = {
            "exit_test_accuracy": pool.exit_accuracies(0),
            "hypervolume": volumes(pool, base.reference),
            "network": network(pool, 0, name),
        }
    return found
