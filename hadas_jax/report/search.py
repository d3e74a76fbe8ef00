"""What a search found as a table: what exits and clocks save; and the accuracies of the exits of a training."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hadas_jax.evaluation import NO_DIFFERENCE, POLICIES, Difference, least_images
from hadas_jax.methods.hadas.results import NOT_SHOWN, POLICY_NAMES, SHOWN, Design, LevelRow, Result
from hadas_jax.report.console import new_table, print_line
from hadas_jax.settings import Constraints
from hadas_jax.training.run import ExitAccuracies

_ASSUMED = "*"  # behind a number format whose speed nobody measured
_NOT = "?"  # behind the difference of a network that is not shown to be as accurate
_NAMES = {
    ("exits", "ideal"): "exits, ideal",
    ("exits + clocks", "ideal"): "+ DVFS, ideal",
    ("exits", "deployable"): "exits",
    ("exits + clocks", "deployable"): "exits + DVFS",
}
_CONSTRAINTS: dict[str, Callable[[Any], str]] = {
    "max_latency_ms": "latency ≤ {:g} ms".format,
    "max_p99_latency_ms": "latency of 99% ≤ {:g} ms".format,
    "max_energy_mj": "energy ≤ {:g} mJ".format,
    "min_accuracy": lambda share: f"accuracy ≥ {100 * share:.4g}%",
    "max_params": "weights ≤ {:,}".format,
    "max_memory_mb": "memory ≤ {:g} MB".format,
    "max_flash_mb": "flash ≤ {:g} MB".format,
}


def print_result(result: Result, console: Console) -> None:
    """Prints the table with its legend, whether the constraints are kept, and what was searched."""
    console.print(levels_table(result))
    if any(design.test_percentiles for design in result.designs):
        console.print(percentiles_table(result))
    fronts = ", ".join(f"{len(result.front(policy))} {policy}" for policy in POLICY_NAMES)
    largest = f"{result.largest_test_accuracy:.1%} of the test split"
    searched = (
        f"Searched {result.backbones} backbones and {result.candidates:,} dynamic candidates. Designs on the "
        f"fronts: {fronts}. Without exits, the largest backbone is right on {largest}, the smallest on "
        f"{result.smallest_test_accuracy:.1%}."
    )
    if result.backbones == 1:
        searched = (
            f"Searched {result.candidates:,} exits and clocks of the network. Designs on the fronts: {fronts}. Without "
            f"exits, it is right on {largest}."
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
    form = "" if result.number_formats in ((), ("fp32",)) else f"\n{_format_text(result, row.design)}"
    cells = (name + form + over, f"{test.accuracy:.1%}", f"{test.latency_s * 1e3:.3f}", f"{test.energy_j * 1e3:.2f}")
    if row.network == "static":
        return cells
    mark = "" if difference.is_shown(result.accuracy_tolerance) else f" {_NOT}"
    by_clocks = "" if row.network == "static + DVFS" else f"{test.saving(row.static_dvfs):.0%}"
    return (*cells, f"{test.saving(row.static):.0%}", by_clocks, difference_text(difference) + mark)


def _format_text(result: Result, design: Design) -> str:
    """The number format of a design, marked where its speed is assumed."""
    return f"{design.number_format}{_ASSUMED if design.number_format in result.assumed_formats else ''}"


def percentiles_table(result: Result) -> Table:
    """Returns a table of the latencies of the deployable networks of each level on the test split."""
    headings = ("chosen at\naccuracy", "", "mean", "p50", "p95", "p99", "longest")
    table = new_table("Latency of a sample on the test split, ms", *headings, names=2, dense=True)
    for level in result.levels:
        accuracy = f"≥ {level.accuracy:.1%}"
        for row in level.rows():
            if row.policy == "deployable" and row.percentiles is not None:
                latencies = (1e3 * row.test.latency_s, *row.percentiles.as_ms().values())
                name = _NAMES.get((row.network, row.policy), row.network)
                table.add_row(accuracy, name, *(f"{latency:.3f}" for latency in latencies))
                accuracy = ""
    return table


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
    if result.assumed_formats:
        lines.append(
            f"{_ASSUMED}: the device file assumes how fast {' and '.join(result.assumed_formats)} is; nobody measured "
            "it, so costs in it are estimates: hadas devices profile --number-formats and devices fit measure it."
        )
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


def constraint_texts(limits: Constraints) -> dict[str, str]:
    """Returns each constraint that is set in words, by its name."""
    values = {name: getattr(limits, name) for name in _CONSTRAINTS}
    return {name: _CONSTRAINTS[name](value) for name, value in values.items() if value is not None}


def _violated_constraints(result: Result) -> list[str]:
    """A sentence for each policy no design of which keeps the constraints, with how far the nearest is off."""
    lines = []
    for policy in POLICY_NAMES:
        if not result.within_limits[policy]:
            nearest = min(result.front(policy), key=lambda design: design.excess)
            lines.append(
                f"No {policy} design keeps the limits ({', '.join(constraint_texts(result.limits).values())}) on the "
                f"samples it is chosen on; the nearest: {_violation_text(nearest, policy, result.limits)}."
            )
    return lines


def _violation_text(design: Design, policy: str, limits: Constraints) -> str:
    """What a design costs where it violates a constraint, and by how much."""
    parts, performance, percentiles = [], design.selection[policy], design.selection_percentiles.get(policy)
    p99_s = 0.0 if percentiles is None else percentiles.p99_s
    for name, value, limit, unit in (
        ("latency", performance.latency_s * 1e3, limits.max_latency_ms, "ms"),
        ("latency of 99%", p99_s * 1e3, limits.max_p99_latency_ms, "ms"),
        ("memory", (design.peak_memory_bytes or 0) / 1e6, limits.max_memory_mb, "MB"),
        ("flash", (design.weight_bytes or 0) / 1e6, limits.max_flash_mb, "MB"),
        ("energy", performance.energy_j * 1e3, limits.max_energy_mj, "mJ"),
    ):
        if limit is not None and value > limit:
            parts.append(f"{name} {value:.3g} {unit}, {100 * (value / limit - 1):.2g}% above")
    if limits.min_accuracy is not None and performance.accuracy < limits.min_accuracy:
        below = 100 * (limits.min_accuracy - performance.accuracy)
        parts.append(f"accuracy {performance.accuracy:.1%}, {below:.2g} points below")
    return "; ".join(parts)


def print_accuracies(accuracies: Sequence[ExitAccuracies], console: Console) -> None:
    """Prints the test accuracies of a training, of the first and the last exits of each backbone."""
    table = new_table("Test accuracy", "backbone", "blocks", "first exit", "middle exit", "last exit", "classifier")
    for each in accuracies:
        shares = each.exits
        shown = [f"{100 * shares[i]:.2f} %" for i in (0, len(shares) // 2, -1)] if shares else ["-"] * 3
        blocks = f"{each.blocks[-1] + 1}" if each.blocks else "-"
        table.add_row(each.backbone, blocks, *shown, f"{100 * each.final:.2f} %")
    console.print(table)
    console.print(_qualities_table(accuracies))


def _qualities_table(accuracies: Sequence[ExitAccuracies]) -> Table:
    """What scores are worth, on average over the exits of each backbone."""
    title = "The exits' scores for being right, mean of all exits: AUROC (0.5 is chance) / ECE (0 is calibrated)"
    table = new_table(title, "backbone", *POLICIES)
    for each in accuracies:
        table.add_row(each.backbone, *(" / ".join(map(_mean, each.qualities[policy])) for policy in POLICIES))
    return table


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "-"
