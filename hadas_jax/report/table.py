"""The end of a run in words: what exits and clocks save at a few accuracy levels, and whether limits are kept."""

from rich.console import Console
from rich.table import Table

from hadas_jax.methods.limits import Limits
from hadas_jax.methods.results import POLICY_NAMES, Design, Level, Performance, Result


def levels_table(result: Result) -> Table:
    """Returns a table of the levels, measured on the test split.

    The ideal mapping stops every sample at the first exit that is right: an upper bound that needs labels. The
    deployable policy compares a score with thresholds. Where the search had limits, the last column tells by how much
    a network exceeds them on the samples that it was chosen on.
    """
    table = Table(title="Per sample on the test split; networks chosen on other samples", title_style="bold")
    table.add_column("chosen\nat ≥", justify="right")
    table.add_column("network")
    table.add_column("policy", no_wrap=True)
    for name in ("test\naccuracy", "latency\nms", "energy\nmJ", "energy\nsaved"):
        table.add_column(name, justify="right", no_wrap=True)
    if result.limits.any:
        table.add_column("over\nlimit", justify="right")
    for level in result.levels:
        for index, row in enumerate(_rows(level)):
            shown = row if result.limits.any else row[:-1]
            table.add_row(f"{level.accuracy:.1%}" if index == 0 else "", *shown)
        table.add_section()
    return table


def _rows(level: Level) -> list[tuple[str, ...]]:
    static = level.static.static_test
    rows: list[tuple[str, ...]] = [("static", "", *_cells(static), "", _excess(level.static))]
    for name, designs in (("+ exits", level.exits), ("+ exits + DVFS", level.exits_and_clocks)):
        for policy in POLICY_NAMES:
            found = designs[policy].test[policy]
            rows.append((name, policy, *_cells(found), f"{found.saving(static):.0%}", _excess(designs[policy])))
    return rows


def _excess(design: Design) -> str:
    return f"{design.excess:.1%}" if design.excess > 0 else ""


def _cells(found: Performance) -> tuple[str, str, str]:
    return f"{found.accuracy:.1%}", f"{found.latency_s * 1e3:.3f}", f"{found.energy_j * 1e3:.2f}"


def limits_text(result: Result) -> list[str]:
    """Returns a sentence for each policy no design of which keeps the limits, with how far the nearest is beyond."""
    lines = []
    for policy in POLICY_NAMES:
        if not result.within_limits[policy]:
            nearest = min(result.front(policy), key=lambda design: design.excess)
            lines.append(
                f"No {policy} design keeps the limits ({', '.join(_limits(result.limits))}) on the samples "
                f"it is chosen on; the nearest: {_beyond(nearest.selection[policy], result.limits)}."
            )
    return lines


def _limits(limits: Limits) -> list[str]:
    """Each limit that is set."""
    texts = (
        (limits.max_latency_ms, "latency ≤ {:g} ms"),
        (limits.max_energy_mj, "energy ≤ {:g} mJ"),
        (limits.min_accuracy, "accuracy ≥ {:.4g}%"),
        (limits.max_params, "weights ≤ {:,}"),
    )
    scaled = ((100 * limit if "%" in text else limit, text) for limit, text in texts if limit is not None)
    return [text.format(limit) for limit, text in scaled]


def _beyond(found: Performance, limits: Limits) -> str:
    """What a design costs where it is beyond a limit, and by how much."""
    parts = []
    for name, value, limit, unit in (
        ("latency", found.latency_s * 1e3, limits.max_latency_ms, "ms"),
        ("energy", found.energy_j * 1e3, limits.max_energy_mj, "mJ"),
    ):
        if limit is not None and value > limit:
            parts.append(f"{name} {value:.3g} {unit}, {100 * (value / limit - 1):.2g}% above")
    if limits.min_accuracy is not None and found.accuracy < limits.min_accuracy:
        parts.append(f"accuracy {found.accuracy:.1%}, {100 * (limits.min_accuracy - found.accuracy):.2g} points below")
    return "; ".join(parts)


def print_result(result: Result, console: Console) -> None:
    """Prints the table, whether the limits are kept, and what was searched."""
    console.print(levels_table(result))
    for line in limits_text(result):
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
    fronts = ", ".join(f"{len(result.front(policy))} {policy}" for policy in POLICY_NAMES)
    console.print(
        f"Searched {result.backbones} backbones and {result.candidates:,} dynamic versions. Designs on the "
        f"fronts: {fronts}. Without exits, the largest backbone is right on {result.largest_test_accuracy:.1%} of "
        f"the test split, the smallest on {result.smallest_test_accuracy:.1%}.",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
