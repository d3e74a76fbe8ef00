"""The networks of a front as rows for people: designs found, and the static and exits-only ones beside them.

Accuracies in percent on the test split, latency in ms and energy in mJ of one sample.
"""

import math
from typing import Any

from hadas_jax.methods import Design, Performance, Result
from hadas_jax.methods.results import POLICY_NAMES

FIGURES = ("accuracy", "latency", "energy")


def network_rows(result: Result) -> list[dict[str, Any]]:
    """Returns every network of a result once.

    Args:
      result: of a search.

    Returns:
      A row for each: `kind` (`ideal` and `deployable` of the fronts, `exits` with exits at the default clocks,
      `static` without exits), the `policy` that its accuracy, latency and energy are of ("" without exits), backbone,
      exits, thresholds (None where no sample may stop), clocks in MHz, shares of samples by exit when deployed, and
      figures of all policies.
    """
    rows = [_row(design, design.found_by, design.found_by) for design in result.designs]
    baselines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for level in result.levels:
        found = [_row(level.static, "static", "")]
        found += [_row(level.exits[name], "exits", name) for name in POLICY_NAMES if level.exits[name].exits]
        for row in found:
            baselines.setdefault((row["policy"], *row["genome"], *row["exits"], *row["thresholds"]), row)
    return rows + list(baselines.values())


def level_rows(result: Result) -> list[dict[str, Any]]:
    """Returns what exits and clocks save at each accuracy level, against its static network.

    Args:
      result: of a search.

    Returns:
      Rows with level, network (`static`, `exits`, `exits + clocks`), policy, figures, and the savings of energy and
      latency in percent.
    """
    rows = []
    for level in result.levels:
        static = level.static.static_test
        found = [("static", "", static)]
        for policy in POLICY_NAMES:
            found.append(("exits", policy, level.exits[policy].test[policy]))
            found.append(("exits + clocks", policy, level.exits_and_clocks[policy].test[policy]))
        for network, policy, performance in found:
            row = {"level": 100 * level.accuracy, "network": network, "policy": policy, **_figures(performance)}
            row["energy_saved"] = 100 * performance.saving(static)
            row["latency_saved"] = 100 * (1 - performance.latency_s / static.latency_s)
            rows.append(row)
    return rows


def _row(design: Design, kind: str, policy: str) -> dict[str, Any]:
    every = {name: _figures(design.test[name]) for name in POLICY_NAMES}
    static = _figures(design.static_test)
    return {
        "kind": kind,
        "policy": policy,
        **(every[policy] if policy else static),
        "figures": {**every, "static": static},
        "backbone": dict(design.backbone),
        "genome": list(design.genome),
        "exits": list(design.exits),
        "thresholds": [None if math.isinf(value) else value for value in design.thresholds],
        "clocks": dict(design.clocks_mhz),
        "shares": list(design.test_shares),
        "dissimilarity": design.dissimilarity,
        "excess": design.excess,
    }


def _figures(performance: Performance) -> dict[str, float]:
    return {
        "accuracy": 100 * performance.accuracy,
        "latency": 1e3 * performance.latency_s,
        "energy": 1e3 * performance.energy_j,
    }
