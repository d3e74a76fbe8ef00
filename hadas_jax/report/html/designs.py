"""The networks of a front as rows for people: designs found, and the static and exits-only ones beside them.

Accuracies in percent on the test split, their differences in points, latency in ms and energy in mJ of one sample.
"""

import math
from typing import Any

from hadas_jax.evaluation import Difference, accuracy_interval
from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.results import POLICY_NAMES
from hadas_jax.report.selection_front import drawn

FIGURES = ("accuracy", "latency", "energy")


COSTS = {"energy": "energy_j", "latency": "latency_s"}


def network_rows(result: Result) -> list[dict[str, Any]]:
    """Returns every network of a result once.

    Args:
      result: of a search.

    Returns:
      A row for each: `kind` (`ideal` and `deployable` of the fronts, `exits` with exits at the default clocks,
      `static` without exits, `static + DVFS` at its best clocks), the `policy` that its accuracy, latency and energy
      are of ("" without exits), the ends of the 95 % interval of its accuracy, backbone, exits, thresholds (None where
      no sample may stop), clocks in MHz, shares of samples by exit when deployed, and figures of all policies;
      `against` its own backbone without exits, the savings and the difference when deployed, with the `verdict`.
      `joined` and `holds` tell by cost how designs of a front are drawn (see `hadas_jax.report.selection_front`): the
      place in the line, None beside it, and whether it is in full colour.
    """
    rows = [_row(result, design, design.found_by, design.found_by) for design in result.designs]
    for policy in POLICY_NAMES:
        front = [row for row in rows if row["kind"] == policy]
        for cost, name in COSTS.items():
            members, holding = drawn(result.front(policy), policy, name)
            for index, row in enumerate(front):
                row["joined"][cost] = members.index(index) if index in members else None
                row["holds"][cost] = index in holding
    baselines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in result.levels:
        found = [_row(result, level.static, "static", ""), _row(result, level.static_dvfs, "static + DVFS", "")]
        found += [_row(result, level.exits[name], "exits", name) for name in POLICY_NAMES if level.exits[name].exits]
        for row in found:
            key = (row["kind"], row["policy"], *row["genome"], *row["exits"], *row["thresholds"])
            baselines.setdefault(key, row)
    return rows + list(baselines.values())


def level_rows(result: Result) -> list[dict[str, Any]]:
    """Returns what exits and clocks save at each accuracy level, against its static networks.

    Args:
      result: of a search.

    Returns:
      Rows with level, network (see `LevelRow`), policy, figures, the savings of energy and latency in percent against
      the static network at the default and (`_dvfs`) at its best clocks, the difference in accuracy from the former
      with its interval, and the `verdict` ("" of that network itself).
    """
    rows = []
    for level in result.levels:
        static, by_clocks = level.static.static_test, level.static_dvfs.test["ideal"]
        for each in level.rows():
            row = {"level": 100 * level.accuracy, "network": each.network, "policy": each.policy}
            row |= _figures(each.test)
            for suffix, reference in (("", static), ("_dvfs", by_clocks)):
                row |= {f"{cost}_saved{suffix}": _saved(each.test, reference, name) for cost, name in COSTS.items()}
            difference = each.versus.static
            row |= _difference(difference)
            rows.append(row | {"verdict": "" if each.network == "static" else result.verdict(difference)})
    return rows


def _row(result: Result, design: Design, kind: str, policy: str) -> dict[str, Any]:
    every = {name: _figures(design.test[name]) for name in POLICY_NAMES}
    every |= {"static": _figures(design.static_test), "static + DVFS": _figures(design.static_dvfs_test)}
    own = every[policy or kind]
    right = round(own["accuracy"] / 100 * result.test_images)
    low, high = accuracy_interval(right, images=result.test_images)
    deployed, difference = design.test["deployable"], design.differences["deployable"]
    return {
        "kind": kind,
        "policy": policy,
        **own,
        "accuracy_low": 100 * low,
        "accuracy_high": 100 * high,
        "figures": every,
        "backbone": dict(design.backbone),
        "genome": list(design.genome),
        "exits": list(design.exits),
        "thresholds": [None if math.isinf(value) else value for value in design.thresholds],
        "clocks": dict(design.clocks_mhz),
        "shares": list(design.test_shares),
        "dissimilarity": design.dissimilarity,
        "excess": design.excess,
        "joined": dict.fromkeys(COSTS),
        "holds": dict.fromkeys(COSTS, True),
        "against": {
            "energy_saved": _saved(deployed, design.static_test, "energy_j"),
            "energy_saved_dvfs": _saved(deployed, design.static_dvfs_test, "energy_j"),
            **_difference(difference),
            "verdict": result.verdict(difference),
        },
    }


def _figures(performance: Performance) -> dict[str, float]:
    return {
        "accuracy": 100 * performance.accuracy,
        "latency": 1e3 * performance.latency_s,
        "energy": 1e3 * performance.energy_j,
    }


def _saved(found: Performance, reference: Performance, cost: str) -> float:
    return 100 * (1 - getattr(found, cost) / getattr(reference, cost))


def _difference(found: Difference) -> dict[str, float]:
    return {
        "accuracy_difference": 100 * found.difference,
        "accuracy_difference_low": 100 * found.low,
        "accuracy_difference_high": 100 * found.high,
    }
