"""What a search found: the front and the accuracy of exits as pictures, and what exits and clocks save as a table.

Members of a front are chosen by the selection samples, so these say which designs are joined in a picture of accuracy
over one cost, and in which order. On the test split some members fall behind others: they are drawn pale, for there
they are no front.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from hadas_jax.evaluation import NO_DIFFERENCE, Difference, accuracy_interval, least_images
from hadas_jax.methods.hadas.results import NOT_SHOWN, POLICY_NAMES, SHOWN, Design, LevelRow, Performance, Result
from hadas_jax.report.console import new_table, print_line
from hadas_jax.report.pictures import new_figure, save_picture, write_ticks_in_full
from hadas_jax.settings import Constraints, DeploymentSettings
from hadas_jax.training.run import ExitAccuracies

_STYLES = {"ideal": ("tab:blue", "o"), "deployable": ("tab:orange", "s")}
_LIMIT: dict[str, Any] = {"color": "tab:red", "linewidth": 0.8, "linestyle": "--"}
_PALE = 0.25
_NOT = "?"  # behind the difference of a network that is not shown to be as accurate
_NAMES = {
    ("exits", "ideal"): "exits, ideal",
    ("exits + clocks", "ideal"): "+ DVFS, ideal",
    ("exits", "deployable"): "exits",
    ("exits + clocks", "deployable"): "exits + DVFS",
}
# What the picture of a front shows; a sentence on the intervals follows.
FRONT_CAPTION = (
    "Lines join the front of the samples that networks were chosen on, in its order; pale: not on it, or behind "
    "another one of it on the test split. Bars: 95 % intervals of accuracy"
)


def plot_front(result: Result, path: Path) -> None:
    """Draws accuracy over energy and over latency, on the test split, as a PNG; constraints as thin lines.

    Args:
        result: What a search found.
        path: Where the picture goes.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure, (axes,) = new_figure((11, 5.2), 1, 2, sharey=True)
    limits = result.limits
    for axis, cost, label, most in (
        (axes[0], "energy_j", "energy per sample (mJ)", limits.max_energy_mj),
        (axes[1], "latency_s", "latency per sample (ms)", limits.max_latency_ms),
    ):
        for policy, (colour, marker) in _STYLES.items():
            _draw_front(axis, result, policy, cost, {"color": colour, "marker": marker})
        _draw_static(axis, result, cost)
        if most is not None:
            axis.axvline(most, **_LIMIT)
        if limits.min_accuracy is not None:
            axis.axhline(100 * limits.min_accuracy, **_LIMIT)
        axis.set_xscale("log")
        write_ticks_in_full(axis.xaxis, minor="{x:.2g}", size=8)
        axis.set_xlabel(label)
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle("Dynamic networks found: exits and clocks against static networks")
    figure.supxlabel(f"{FRONT_CAPTION} on {result.test_images:,} test images.", fontsize=8)
    save_picture(figure, path)


def _draw_front(axis: Axes, result: Result, policy: str, cost: str, style: dict[str, Any]) -> None:
    """Draws all designs of a front as pale points; its members joined, in full colour where they hold."""
    designs = result.front(policy)
    test = [design.test[policy] for design in designs]
    members, holding = ([test[row] for row in rows] for rows in front_members(designs, policy, cost))
    axis.plot(_costs(members, cost), _accuracies(members), color=style["color"], linewidth=1, alpha=0.6)
    _draw_intervals(axis, holding, result.test_images, cost, style["color"])
    for points, options in ((test, {"alpha": _PALE}), (holding, {"label": f"exits + DVFS, {policy}", "zorder": 3})):
        axis.scatter(_costs(points, cost), _accuracies(points), s=22, linewidths=0, **style, **options)


def _draw_static(axis: Axes, result: Result, cost: str) -> None:
    """Draws the static networks of all levels, at the default and at their best clocks."""
    for points, label, face in (
        ([level.static.static_test for level in result.levels], "static, default clocks", "black"),
        ([level.static_dvfs.test["ideal"] for level in result.levels], "static + DVFS", "white"),
    ):
        different = list(dict.fromkeys(points))
        _draw_intervals(axis, different, result.test_images, cost, "black")
        style: dict[str, Any] = {"marker": "^", "s": 46, "c": face, "edgecolors": "black", "zorder": 4}
        axis.scatter(_costs(different, cost), _accuracies(different), label=label, **style)


def _draw_intervals(axis: Axes, points: Sequence[Performance], images: int, cost: str, colour: str) -> None:
    """Draws thin bars of the exact 95 % intervals of accuracies."""
    ends = [accuracy_interval(round(each.accuracy * images), images=images) for each in points]
    low, high = 100 * np.array(ends).reshape(-1, 2).T
    axis.vlines(_costs(points, cost), low, high, color=colour, linewidth=0.6, alpha=0.5)


def _costs(points: Sequence[Performance], cost: str) -> list[float]:
    return [1e3 * getattr(each, cost) for each in points]


def _accuracies(points: Sequence[Performance]) -> list[float]:
    return [100 * each.accuracy for each in points]


def front_members(designs: Sequence[Design], policy: str, cost: str) -> tuple[list[int], list[int]]:
    """Returns which designs of a front a picture joins, and which of those it draws in full colour.

    Args:
        designs: The designs of a front.
        policy: The policy that they are evaluated under.
        cost: `energy_j` or `latency_s`.

    Returns:
        Rows of the designs that no other one dominates on the selection samples, the cheapest there first; and the rows
        of these that none of these dominates on the test split.
    """
    selection = [design.selection[policy] for design in designs]
    members = np.flatnonzero(~_dominated(selection, cost)).tolist()
    members.sort(key=lambda row: getattr(selection[row], cost))
    behind = _dominated([designs[row].test[policy] for row in members], cost)
    return members, [row for row, is_behind in zip(members, behind.tolist(), strict=True) if not is_behind]


def _dominated(points: Sequence[Performance], cost: str) -> np.ndarray:
    """Returns bool[M]: where another one is no less accurate and costs no more, and is better in one of both."""
    values = np.array([(each.error, getattr(each, cost)) for each in points]).reshape(-1, 2)
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    return np.any(no_worse & better, axis=0)


def plot_exits(accuracies: Sequence[ExitAccuracies], path: Path) -> None:
    """Draws the test accuracy of every exit over its block, and of the classifier behind the last one, as a PNG.

    Args:
        accuracies: The accuracies of some backbones.
        path: Where the picture goes.

    Raises:
        ValueError: The picture cannot be written.
    """
    figure, [[axis]] = new_figure((6.4, 4.2))
    for each in accuracies:
        blocks, shares = list(each.blocks), [100 * share for share in each.exits]
        last = blocks[-1] + 1 if blocks else 0
        (line,) = axis.plot(blocks, shares, marker="o", markersize=4, label=each.backbone)
        axis.plot([last], [100 * each.final], marker="*", markersize=12, color=line.get_color(), linestyle="none")
    axis.set_xlabel("block that the exit follows; star: the classifier")
    axis.set_ylabel("test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(visible=True, alpha=0.25)
    axis.legend(loc="lower right")
    save_picture(figure, path)


def print_result(result: Result, console: Console) -> None:
    """Prints the table with its legend, whether the constraints are kept, and what was searched."""
    console.print(levels_table(result))
    fronts = ", ".join(f"{len(result.front(policy))} {policy}" for policy in POLICY_NAMES)
    searched = (
        f"Searched {result.backbones} backbones and {result.candidates:,} dynamic candidates. Designs on the "
        f"fronts: {fronts}. Without exits, the largest backbone is right on {result.largest_test_accuracy:.1%} of "
        f"the test split, the smallest on {result.smallest_test_accuracy:.1%}."
    )
    for line in (*legend(result), *_violated_constraints(result), searched):
        print_line(console, line, wrap=True)


def levels_table(result: Result) -> Table:
    """Returns a table of the levels, measured on the test split, that fits 80 columns; `legend` explains it.

    Where the search had constraints, a network that violates them on the samples that it was chosen on says by how
    much.
    """
    headings = ("right\non\ntest", "latency\nms", "energy\nmJ", "saved\nagainst\nstatic", "saved\nagainst\n+ DVFS")
    table = new_table(
        "Per sample on the test split; networks chosen on other samples",
        "chosen at\naccuracy",
        *headings,
        dense=True,
        no_wrap=True,
    )
    table.add_column("against static,\nin points\n[95% interval]", justify="right", min_width=19)
    for level in result.levels:
        table.add_row(f"≥ {level.accuracy:.1%}", style="bold")
        for row in level.rows():
            table.add_row(*_level_cells(result, row))
        if level.as_accurate is None:
            table.add_row(SHOWN, *[""] * len(headings), "none is shown" if result.can_tell else "too few to tell")
        table.add_section()
    return table


def _level_cells(result: Result, row: LevelRow) -> tuple[str, ...]:
    test, difference = row.test, row.versus.static
    name = _NAMES.get((row.network, row.policy), row.network)
    over = f"\n{row.design.excess:.1%} over" if row.design.excess > 0 else ""
    cells = (name + over, f"{test.accuracy:.1%}", f"{test.latency_s * 1e3:.3f}", f"{test.energy_j * 1e3:.2f}")
    if row.network == "static":
        return cells
    mark = "" if difference.is_shown(result.accuracy_tolerance) else f" {_NOT}"
    by_clocks = "" if row.network == "static + DVFS" else f"{test.saving(row.static_dvfs):.0%}"
    return (*cells, f"{test.saving(row.static):.0%}", by_clocks, difference_text(difference) + mark)


def legend(result: Result) -> list[str]:
    """Returns what the marks of `levels_table` mean, a sentence or two each."""
    points = f"{100 * result.accuracy_tolerance:g} points"
    within = " within the limits" if result.limits.any else ""
    lines = [
        f"{_NOT}: {NOT_SHOWN}: the interval reaches more than {points} below zero.",
        "ideal: samples stop at the first exit that is right, an upper bound that needs labels; otherwise thresholds "
        f"decide. + DVFS: at the best clocks{within} instead of the highest.",
        f"{SHOWN}: the cheapest network with exits and DVFS, of this level or a higher one, that is less accurate than "
        f"both static networks by at most {points} with 95% confidence.",
    ]
    if not result.can_tell:
        least = least_images(result.accuracy_tolerance)
        needed = "no number of images shows that" if least is None else f"it takes {least:,}"
        lines.append(
            f"{result.test_images:,} test images are too few to tell whether networks are as accurate: even for two "
            f"that never differ {needed}."
        )
    return lines


def difference_text(difference: Difference) -> str:
    """Returns a difference in test accuracy and its interval, in points; `the same` for a network against itself."""
    if difference == NO_DIFFERENCE:
        return "the same"
    return f"{100 * difference.difference:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def saving_text(
    network: Performance,
    static: Performance,
    static_dvfs: Performance | None,
    *,
    difference: Difference | None,
    tolerance: float = DeploymentSettings.accuracy_tolerance,
) -> str:
    """Returns what a network saves on the test split against its backbone without exits, in one sentence.

    Args:
        network: What the network does.
        static: What its backbone without exits does at the highest clocks.
        static_dvfs: Likewise at its best clocks; None: unknown.
        difference: The network's difference in accuracy from its backbone without exits; None: unknown.
        tolerance: Share of images by which it may be less accurate and still count as as accurate.
    """
    by_clocks = "" if static_dvfs is None else f", {network.saving(static_dvfs):.0%} at its best clocks"
    beside = ""
    if difference is not None:
        verdict = SHOWN if difference.is_shown(tolerance) else NOT_SHOWN
        beside = f"; accuracy against it, in points [95% interval]: {difference_text(difference)}, {verdict}"
    return (
        f"On the test split the network saves {network.saving(static):.0%} of the energy of its backbone without exits "
        f"at the highest clocks{by_clocks}{beside}."
    )


def constraint_texts(limits: Constraints) -> dict[str, str]:
    """Returns each constraint that is set in words, by its name."""
    texts = {}
    if limits.max_latency_ms is not None:
        texts["max_latency_ms"] = f"latency ≤ {limits.max_latency_ms:g} ms"
    if limits.max_energy_mj is not None:
        texts["max_energy_mj"] = f"energy ≤ {limits.max_energy_mj:g} mJ"
    if limits.min_accuracy is not None:
        texts["min_accuracy"] = f"accuracy ≥ {100 * limits.min_accuracy:.4g}%"
    if limits.max_params is not None:
        texts["max_params"] = f"weights ≤ {limits.max_params:,}"
    return texts


def _violated_constraints(result: Result) -> list[str]:
    """A sentence for each policy no design of which keeps the constraints, with how far the nearest is off."""
    lines = []
    for policy in POLICY_NAMES:
        if not result.within_limits[policy]:
            nearest = min(result.front(policy), key=lambda design: design.excess)
            lines.append(
                f"No {policy} design keeps the limits ({', '.join(constraint_texts(result.limits).values())}) on the "
                f"samples it is chosen on; the nearest: {_violation_text(nearest.selection[policy], result.limits)}."
            )
    return lines


def _violation_text(performance: Performance, limits: Constraints) -> str:
    """What a design costs where it violates a constraint, and by how much."""
    parts = []
    for name, value, limit, unit in (
        ("latency", performance.latency_s * 1e3, limits.max_latency_ms, "ms"),
        ("energy", performance.energy_j * 1e3, limits.max_energy_mj, "mJ"),
    ):
        if limit is not None and value > limit:
            parts.append(f"{name} {value:.3g} {unit}, {100 * (value / limit - 1):.2g}% above")
    if limits.min_accuracy is not None and performance.accuracy < limits.min_accuracy:
        below = 100 * (limits.min_accuracy - performance.accuracy)
        parts.append(f"accuracy {performance.accuracy:.1%}, {below:.2g} points below")
    return "; ".join(parts)


def accuracy_table(accuracies: Sequence[ExitAccuracies]) -> Table:
    """Returns the test accuracies of a training as a table, the first and the last exits of each backbone."""
    table = new_table("Test accuracy", "backbone", "blocks", "first exit", "middle exit", "last exit", "classifier")
    for each in accuracies:
        shares = each.exits
        shown = [f"{100 * shares[i]:.2f} %" for i in (0, len(shares) // 2, -1)] if shares else ["-"] * 3
        blocks = f"{each.blocks[-1] + 1}" if each.blocks else "-"
        table.add_row(each.backbone, blocks, *shown, f"{100 * each.final:.2f} %")
    return table
